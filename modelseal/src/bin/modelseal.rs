//! The `modelseal` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(modelseal::command::run(std::env::args_os()))
}
