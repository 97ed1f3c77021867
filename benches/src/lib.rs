//! Speed of modelseal, beside plain reads of the same bytes and beside other programs on the same data.
//!
//! `cargo run --release -p benches -- compare` takes every figure of its table in one run on one machine: the two
//! sides of a row take turns, round by round, so that whatever else the machine does hits both. `cargo bench`
//! measures the parts by themselves.

mod compare;
pub mod direct;
mod error;
pub mod fixture;
mod interrupt;
mod machine;
mod measure;
mod memory;
mod options;
mod peers;
mod probe;
mod repeating;
mod report;
mod rows;
mod svg;
mod table;

pub use error::{Error, Result};
pub use options::{Command, Options, USAGE};

/// Does what the command line asks for. Returns whether everything that could be measured was.
///
/// # Errors
/// Where the arguments make no sense, nothing can be measured at all, or the run is interrupted.
pub fn run(arguments: impl IntoIterator<Item = String>) -> Result<bool> {
    match Command::parse(arguments)? {
        Command::Help => {
            print!("{USAGE}");
            Ok(true)
        }
        Command::Compare(options) => compare::run(&options),
        Command::Probe(job) => probe::run(&job).map(|()| true),
    }
}
