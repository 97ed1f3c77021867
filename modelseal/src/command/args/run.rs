//! Options for running a command with a model.

use std::ffi::OsString;
use std::path::PathBuf;

#[cfg(feature = "attest")]
use clap::builder::FalseyValueParser;
use clap::{Args as ClapArgs, ValueEnum, ValueHint};

use super::Sealed;
#[cfg(feature = "attest")]
use crate::command::exit::Failure;

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) sealed: Sealed,
    /// How the model becomes readable: as a mount by FUSE, or as plain files in memory; mounted if that is possible
    #[arg(long, value_name = "WAY", env = "MODELSEAL_VIA")]
    pub(crate) via: Option<Via>,
    /// Where the model appears to the command: an empty directory; a new one if not given
    #[arg(long, value_name = "DIR", env = "MODELSEAL_AT", value_hint = ValueHint::DirPath)]
    pub(crate) at: Option<PathBuf>,
    /// First extend RTMR3 with the command, so that the broker's policy can tell what is to run
    #[cfg(feature = "attest")]
    #[arg(long, env = "MODELSEAL_MEASURE", value_parser = FalseyValueParser::new())]
    pub(crate) measure: bool,
    /// Variables whose values are measured as well, with commas between their names; may be repeated
    #[cfg(feature = "attest")]
    #[arg(
        long,
        value_name = "NAMES",
        env = "MODELSEAL_MEASURE_ENV",
        value_delimiter = ','
    )]
    measure_env: Vec<String>,
    /// The command; {} in it stands for where the model is
    #[arg(value_name = "COMMAND", last = true, required = true, value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

#[cfg(feature = "attest")]
impl RunArgs {
    /// The variables to be measured with the command. An empty variable of the environment names none.
    pub(crate) fn measured_variables(&self) -> Result<Vec<&str>, Failure> {
        let names = self.measure_env.iter().map(String::as_str);
        let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
        if !self.measure && !names.is_empty() {
            return Err(Failure::usage(
                "--measure-env (or MODELSEAL_MEASURE_ENV) names what is measured with the command, and nothing is measured \
                 without --measure (or MODELSEAL_MEASURE=1)",
            ));
        }
        Ok(names)
    }
}

/// How a model becomes readable to any program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    Mount,
    Stage,
}
