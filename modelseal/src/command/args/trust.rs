//! Which model, with which key, and what it is taken on: licenses, issuers, manifests.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::sam::IssuerPublicKey;
use crate::{KeyRef, LicenseRef, Model, OpenOptions};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args as ClapArgs, ValueHint};

use super::Global;
use super::sources::note_secret;
use crate::command::exit::Failure;

/// Parses a key reference. Unlike clap's own message, its own never shows what was given: it may be a key.
#[derive(Clone)]
pub(crate) struct KeyRefParser;

impl TypedValueParser for KeyRefParser {
    type Value = KeyRef;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<KeyRef, clap::Error> {
        let parsed = match value.to_str() {
            Some(text) => text
                .parse::<KeyRef>()
                .map_err(|error: crate::Error| error.to_string()),
            None => Err("key reference: it is not UTF-8; put what is not into a file".to_owned()),
        };
        parsed.inspect(note_secret).map_err(|what| {
            let option = arg.map_or_else(|| "--key".to_owned(), ToString::to_string);
            command.clone().error(
                ErrorKind::ValueValidation,
                format!("invalid value for '{option}': {what}"),
            )
        })
    }
}

/// Which model, and the key to it.
#[derive(Debug, ClapArgs)]
pub(crate) struct Sealed {
    /// Where the key comes from (see below)
    #[arg(long, value_name = "REF", env = "MODELSEAL_KEY", hide_env_values = true, value_parser = KeyRefParser)]
    pub(crate) key: KeyRef,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// The sealed model
    #[arg(value_name = "MODEL", value_hint = ValueHint::DirPath)]
    pub(crate) location: PathBuf,
}

/// What a Sam package's license is chosen by and checked against, and a vault by its signed manifest.
#[derive(Debug, ClapArgs)]
pub(crate) struct Trust {
    /// The license that a Sam package is opened with: the ID of one in it, or a file
    #[arg(long, value_name = "ID|FILE", env = "MODELSEAL_LICENSE")]
    license: Option<LicenseRef>,
    /// Only take what this issuer signed: its public key, or a file with it in PEM; may be given more than once
    #[arg(long, value_name = "PUBKEY", env = "MODELSEAL_ISSUER", value_delimiter = ',')]
    issuer: Vec<String>,
    /// Only take a license, or a vault's manifest, of at least this serial
    #[arg(long, value_name = "N", env = "MODELSEAL_MIN_SERIAL")]
    min_serial: Option<u64>,
    /// The signed manifest that a vault must agree with
    #[arg(long, value_name = "FILE", env = "MODELSEAL_MANIFEST", value_hint = ValueHint::FilePath)]
    pub(crate) manifest: Option<PathBuf>,
    /// The identity of this machine, instead of the one that its machine ID gives
    #[arg(long, value_name = "IDENTITY", env = "MODELSEAL_MACHINE")]
    machine: Option<String>,
}

impl Trust {
    /// The options that a model is opened with.
    pub(crate) fn options(&self, global: &Global) -> Result<OpenOptions, Failure> {
        let mut options = global.open_options();
        options.license.clone_from(&self.license);
        options.checks.min_serial = self.min_serial;
        options.checks.machine.clone_from(&self.machine);
        options.manifest.clone_from(&self.manifest);
        for issuer in &self.issuer {
            options.checks.issuers.push(issuer_key(issuer)?);
        }
        Ok(options)
    }

    /// What is left open where a license or a manifest is taken on trust.
    pub(crate) fn warning_of(&self, model: &Model) -> Option<&'static str> {
        if model.license().is_some() {
            self.warning()
        } else if self.manifest.is_some() {
            self.manifest_warning()
        } else {
            None
        }
    }

    /// What a vault's manifest leaves open where it is not given.
    pub(crate) fn manifest_warning(&self) -> Option<&'static str> {
        match (self.issuer.is_empty(), self.min_serial) {
            (true, _) => Some("warning: without --issuer, anybody can have signed the manifest"),
            (false, None) => {
                Some("warning: without --min-serial, an older vault with its manifest is taken as well")
            }
            (false, Some(_)) => None,
        }
    }

    /// What a check without the key leaves open where it is not given: without the key not even who knows it is told.
    pub(crate) fn keyless_warning(&self) -> Option<&'static str> {
        if self.issuer.is_empty() {
            Some("warning: without --issuer, anybody can have issued the license and made the content")
        } else {
            self.warning()
        }
    }

    /// What is left open where it is not given.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        match (self.issuer.is_empty(), self.min_serial) {
            (true, _) => Some(
                "warning: without --issuer, whoever knows the key can have issued the license and made the content",
            ),
            (false, None) => {
                Some("warning: without --min-serial, an older package with its license is taken as well")
            }
            (false, Some(_)) => None,
        }
    }
}

/// An issuer's public key: as text, or in a file.
fn issuer_key(text: &str) -> Result<IssuerPublicKey, Failure> {
    if let Ok(key) = IssuerPublicKey::from_text(text) {
        return Ok(key);
    }
    let path = Path::new(text);
    let content = match std::fs::File::open(path) {
        Ok(file) => {
            let mut content = String::new();
            file.take(16 << 10)
                .read_to_string(&mut content)
                .map_err(|source| Failure::io(path, "reading the issuer's key", source))?;
            content
        }
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::Usage(
                "--issuer is neither the base64 of an Ed25519 public key nor a file with one".to_owned(),
            ));
        }
        Err(source) => return Err(Failure::io(path, "reading the issuer's key", source)),
    };
    IssuerPublicKey::from_text(content.trim()).map_err(|source| {
        crate::Error::Package {
            path: path.to_path_buf(),
            source,
        }
        .into()
    })
}
