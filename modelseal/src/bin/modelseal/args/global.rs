//! Options that every command has.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum, ValueHint};
use modelseal::store::ReadMode;
use modelseal::{Engine, EvidenceKind, KeySources, OpenOptions, Pool};

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
    /// The key broker of kbs: references, http(s)://HOST[:PORT][/PREFIX]; else TRUSTEE_URL
    #[arg(long, global = true, value_name = "URL", env = "MODELSEAL_KBS_URL", value_hint = ValueHint::Url)]
    kbs_url: Option<String>,
    /// PEM file of the CA that signed the broker's certificate, besides those that the system trusts
    #[arg(long, global = true, value_name = "FILE", env = "MODELSEAL_KBS_CA", value_hint = ValueHint::FilePath)]
    kbs_ca: Option<PathBuf>,
    /// What the broker is shown; `sample` proves nothing and is for brokers under test
    #[arg(
        long,
        global = true,
        value_name = "KIND",
        default_value = "tdx",
        env = "MODELSEAL_EVIDENCE"
    )]
    evidence: EvidenceArg,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EvidenceArg {
    Tdx,
    Sample,
}

impl Global {
    /// Where the keys of a broker come from: these options, then the environment.
    pub(crate) fn key_sources(&self) -> KeySources {
        // All that can be wrong there is the kind of evidence, which clap has read already.
        let mut sources = KeySources::from_env()
            .unwrap_or_default()
            .evidence(self.evidence());
        if let Some(url) = self.kbs_url.as_deref().filter(|url| !url.is_empty()) {
            sources = sources.kbs_url(url);
        }
        if let Some(path) = self.kbs_ca.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            sources = sources.kbs_ca(path);
        }
        sources
    }

    pub(crate) fn evidence(&self) -> EvidenceKind {
        match self.evidence {
            EvidenceArg::Tdx => EvidenceKind::Tdx,
            EvidenceArg::Sample => EvidenceKind::Sample,
        }
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
            ..OpenOptions::default()
        }
    }
}
