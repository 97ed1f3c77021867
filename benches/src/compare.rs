//! One run: everything is measured, shown, and written down.

use std::path::PathBuf;

use crate::error::Result;
use crate::options::Options;
use crate::report::Report;
use crate::rows::{self, Context, object};
use crate::{interrupt, machine, svg};

/// What `--only` calls the yardsticks.
const MACHINE: &str = "machine";

/// What it calls the sizes of parts.
const PARTS: &str = "parts";

/// Runs the comparison. Returns whether nothing went wrong; rows that miss their target are no failure of this program.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let known = |start: &String| {
        rows::names()
            .chain([MACHINE, PARTS])
            .any(|name| name.starts_with(start.as_str()))
    };
    if let Some(unknown) = options.only.iter().find(|start| !known(start)) {
        let names: Vec<_> = rows::names().collect();
        return Err(format!(
            "no row starts with {unknown}; there are {}, {MACHINE} and {PARTS}",
            names.join(", ")
        )
        .into());
    }
    interrupt::listen()?;
    let context = Context::new(options)?;
    let mut machine = machine::describe(&context);
    let mut yardsticks = Vec::new();
    if options.wants(MACHINE) {
        eprintln!("measuring the machine");
        yardsticks.extend(machine::yardsticks(&context)?);
    }
    if options.wants(PARTS) {
        eprintln!("measuring sizes of parts");
        yardsticks.extend(object::parts(&context)?);
    }
    let rows = rows::measure(&context, options)?;
    machine.push(("load after", machine::load()));
    let report = Report {
        options,
        machine,
        yardsticks,
        rows,
    };
    println!("{}", report.text());
    if options.only.is_empty() {
        let dir = results_dir();
        std::fs::write(dir.join("RESULTS.md"), report.markdown())?;
        std::fs::write(dir.join("results.svg"), svg::chart(&report.rows))?;
        eprintln!("written: RESULTS.md and results.svg");
    }
    Ok(!report.rows.iter().any(|row| row.failed))
}

/// The directory of this package, as `cargo run` names it; else the current one.
fn results_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from)
}
