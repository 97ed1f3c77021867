//! Options for running a command with a model.

use std::ffi::OsString;
use std::path::PathBuf;

#[cfg(feature = "attest")]
use clap::builder::FalseyValueParser;
use clap::{Args as ClapArgs, ValueEnum, ValueHint};

use super::Sealed;

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
        value_delimiter = ',',
        requires = "measure"
    )]
    pub(crate) measure_env: Vec<String>,
    /// The command; {} in it stands for where the model is
    #[arg(value_name = "COMMAND", last = true, required = true, value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

/// How a model becomes readable to any program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    Mount,
    Stage,
}
