//! Options that every command has.

#[cfg(feature = "attest")]
use crate::EvidenceKind;
use crate::store::ReadMode;
use crate::{Engine, KeySources, ObjectOptions, OpenOptions, Pool};
use clap::{Args as ClapArgs, ValueEnum};

use super::objects::Objects;
use super::sources::Sources;

#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// Number of threads; 0 for one a core
    #[arg(
        long,
        global = true,
        value_name = "N",
        default_value_t = 0,
        env = "MODELSEAL_THREADS",
        value_parser = clap::value_parser!(u16).range(..=1024)
    )]
    threads: u16,
    /// How stored bytes are read: `auto` borrows the page cache where that is safe, `copy` never does
    #[arg(
        long,
        global = true,
        value_name = "MODE",
        default_value = "auto",
        env = "MODELSEAL_READ_MODE"
    )]
    read_mode: ReadModeArg,
    /// Memory that a model's scrypt parameters may ask for, in MiB
    #[arg(
        long,
        global = true,
        value_name = "MIB",
        default_value_t = 1024,
        env = "MODELSEAL_SCRYPT_MEMORY"
    )]
    scrypt_memory: u32,
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    objects: Objects,
    /// Print answers as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress and no warnings
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReadModeArg {
    Auto,
    Copy,
}

impl Global {
    /// Where the keys of a broker come from.
    pub(crate) fn key_sources(&self) -> KeySources {
        self.sources.key_sources()
    }

    #[cfg(feature = "attest")]
    pub(crate) fn evidence(&self) -> EvidenceKind {
        self.sources.evidence()
    }

    /// How object storage is reached.
    pub(crate) fn objects(&self) -> ObjectOptions {
        self.objects.options()
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::new(if self.threads == 0 {
            Pool::shared()
        } else {
            Pool::with_threads(usize::from(self.threads))
        })
    }

    pub(crate) fn open_options(&self) -> OpenOptions {
        OpenOptions {
            scrypt_memory: u64::from(self.scrypt_memory) << 20,
            read_mode: match self.read_mode {
                ReadModeArg::Auto => ReadMode::Auto,
                ReadModeArg::Copy => ReadMode::Copy,
            },
            engine: self.engine(),
            objects: self.objects(),
            ..OpenOptions::default()
        }
    }
}
