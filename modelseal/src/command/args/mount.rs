//! Options of `mount`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Sealed;

#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    #[command(flatten)]
    pub(crate) sealed: Sealed,
    /// Stay until it is unmounted, or until whoever started the command ends (so it is by default)
    #[arg(long, short, conflicts_with = "background")]
    foreground: bool,
    /// End once it is mounted, and leave a process in the background
    #[arg(long, short)]
    pub(crate) background: bool,
    /// Let other users read it as well, as the permissions of the files say
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Write what cannot be read to this file; else it goes to standard error, from the background to the system's log
    #[arg(long, value_name = "FILE", env = "MODELSEAL_LOG", value_hint = ValueHint::FilePath)]
    pub(crate) log: Option<PathBuf>,
    /// Where to: an empty directory
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub(crate) mountpoint: PathBuf,
}
