//! `manifest`.

use std::path::Path;
use std::time::Instant;

use crate::sam::IssuerKey;
use crate::{Error, default_manifest_path, read_vault_manifest, sign_vault, verify_vault};
use serde_json::json;

use crate::command::args::{Global, SignManifest, VerifyManifest};
use crate::command::console::{self, Console};
use crate::command::create::next_serial;
use crate::command::exit::{Exit, Failure};
use crate::command::open::Report;

pub(crate) fn sign(command: &SignManifest, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let location = &command.location;
    let issuer = read_issuer_key(&command.issuer_key)?;
    let default = default_manifest_path(location);
    let destination = command.output.as_deref().unwrap_or(&default);
    let serial = command.serial.unwrap_or_else(next_serial);
    console.catch_signals();
    let begin = Instant::now();
    let signed = sign_vault(location, destination, &issuer, serial, &global.engine(), console);
    console.finish();
    let entries = match signed {
        Err(_) if console.is_interrupted() => return Err(Failure::Interrupted { hint: "" }),
        signed => signed?,
    };
    if global.json {
        console::print_json(&json!({
            "manifest": destination.to_string_lossy(), "entries": entries, "serial": serial,
            "issuer": issuer.public().to_string(), "seconds": begin.elapsed().as_secs_f64(),
        }))?;
    } else {
        console.note(&format!(
            "signed {entries} entries in {:.2} s: {}, serial {serial}, issuer {}",
            begin.elapsed().as_secs_f64(),
            destination.display(),
            issuer.public()
        ));
    }
    Ok(Exit::Success)
}

pub(crate) fn verify(command: &VerifyManifest, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let location = &command.location;
    let options = command.trust.options(global)?;
    let path = options
        .manifest
        .clone()
        .unwrap_or_else(|| default_manifest_path(location));
    let manifest = read_vault_manifest(&path, &options.checks.issuers, options.checks.min_serial)?;
    if let Some(warning) = command.trust.manifest_warning() {
        console.note(warning);
    }
    console.catch_signals();
    let report = Report::new(global, console);
    let verified = verify_vault(location, &manifest, &options, console, &|damage| {
        report.add(damage);
    });
    report.finish(verified)
}

/// Reads an issuer's private key.
pub(crate) fn read_issuer_key(path: &Path) -> Result<IssuerKey, Failure> {
    IssuerKey::read(path).map_err(|source| {
        Failure::Model(Error::Package {
            path: path.to_path_buf(),
            source,
        })
    })
}
