//! The options of the command, for programs that take them by name.

use std::ffi::OsString;

use clap::Parser;

use super::sources::note_secret;
use super::{Global, Sealing, Trust};
use crate::command::create::seal_options;
use crate::command::exit::Failure;
use crate::sam::LicenseConfig;
use crate::{JoinOptions, KeyRef, KeySources, Model, OpenOptions, SealOptions};

/// Parses options by their long names and values; those that take none have an empty one.
fn parse<'a, P: Parser>(options: impl IntoIterator<Item = (&'a str, OsString)>) -> Result<P, String> {
    let args = options.into_iter().map(|(name, value)| {
        let mut arg = OsString::from(format!("--{name}"));
        if !value.is_empty() {
            arg.push("=");
            arg.push(value);
        }
        arg
    });
    P::try_parse_from(args).map_err(|error| {
        let text = error.render().to_string();
        // Without the advice on how to call the command.
        let what = text.split("\n\n").next().unwrap_or_default();
        what.trim_start_matches("error: ").trim().to_owned()
    })
}

/// What the options of the command say of where keys come from and how models are opened. Where one is not given,
/// its variable of the environment counts, as for the command.
#[derive(Debug)]
pub struct Settings {
    options: Options,
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Options {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    trust: Trust,
}

impl Settings {
    /// From options by their long names, without the dashes in front, and their values; one that takes several may be
    /// given more than once.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new<'a>(options: impl IntoIterator<Item = (&'a str, OsString)>) -> Result<Self, String> {
        parse(options).map(|options| Self { options })
    }

    /// Where keys of brokers come from. `warn` hears what deserves a person's attention.
    #[must_use]
    pub fn key_sources(&self, warn: impl Fn(&str) + Send + Sync + 'static) -> KeySources {
        key_sources(&self.options.global, warn)
    }

    /// What a variable holds that `reference` names is kept from the commands of other references.
    pub fn withhold(reference: &KeyRef) {
        note_secret(reference);
    }

    /// How models are opened.
    ///
    /// # Errors
    /// Where an issuer's key cannot be read or is none.
    pub fn open_options(&self) -> crate::Result<OpenOptions> {
        self.options
            .trust
            .options(&self.options.global)
            .map_err(Failure::into_error)
    }

    /// What evidence brokers are given.
    #[cfg(feature = "attest")]
    #[must_use]
    pub fn evidence(&self) -> crate::EvidenceKind {
        self.options.global.evidence()
    }

    /// What is left open where a license or a manifest of `model` is taken on trust.
    #[must_use]
    pub fn warning(&self, model: &Model) -> Option<&'static str> {
        self.options.trust.warning_of(model)
    }
}

/// What the options of `modelseal encrypt` say of how a directory is sealed.
#[derive(Debug)]
pub struct SealSettings {
    options: SealingOptions,
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct SealingOptions {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    how: Sealing,
}

impl SealSettings {
    /// As [`Settings::new`].
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new<'a>(options: impl IntoIterator<Item = (&'a str, OsString)>) -> Result<Self, String> {
        parse(options).map(|options| Self { options })
    }

    /// How a directory is sealed. `config` is what a package's license shall be like where no file says so, and `note`
    /// hears what a person may want to know.
    ///
    /// # Errors
    /// Where they do not go together, or a file that they name cannot be read.
    pub fn seal_options(
        &self,
        config: Option<LicenseConfig>,
        note: &dyn Fn(&str),
    ) -> crate::Result<SealOptions> {
        seal_options(&self.options.how, config, &self.options.global, note).map_err(Failure::into_error)
    }

    /// How a process takes part in a sealing that another one has begun.
    #[must_use]
    pub fn join_options(&self) -> JoinOptions {
        let global = &self.options.global;
        JoinOptions {
            scrypt_memory: global.open_options().scrypt_memory,
            engine: global.engine(),
            objects: global.objects(),
        }
    }

    /// Where keys of brokers come from; see [`Settings::key_sources`].
    #[must_use]
    pub fn key_sources(&self, warn: impl Fn(&str) + Send + Sync + 'static) -> KeySources {
        key_sources(&self.options.global, warn)
    }
}

fn key_sources(global: &Global, warn: impl Fn(&str) + Send + Sync + 'static) -> KeySources {
    let sources = global.key_sources();
    #[cfg(feature = "attest")]
    let sources = sources.on_warning(warn);
    #[cfg(not(feature = "attest"))]
    drop(warn);
    sources
}
