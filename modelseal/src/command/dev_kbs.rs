//! `dev-kbs`.

use std::fs;
use std::time::Duration;

use crate::attest::dev_kbs::{self, DevKbs, Family, Policy};

use crate::command::args::{DevKbsArgs, FamilyArg, PolicyArg};
use crate::command::console::{self, Console};
use crate::command::exit::{Exit, Failure};
use crate::command::keys::deliver;

/// How often it is looked whether a signal has come.
const TICK: Duration = Duration::from_millis(50);

/// Runs the broker until Ctrl-C or SIGTERM. Once it listens, its URL is the one line on standard output.
pub(crate) fn run(command: &DevKbsArgs, console: &Console) -> Result<Exit, Failure> {
    let read =
        |path: &std::path::PathBuf| fs::read(path).map_err(|source| Failure::io(path, "reading", source));
    let mut builder = DevKbs::builder()
        .address(command.listen)
        .family(match command.family {
            FamilyArg::Trustee => Family::Trustee,
            FamilyArg::Openanolis => Family::Openanolis,
        })
        .versions(&command.protocol)
        .policy(match command.policy {
            PolicyArg::Allow => Policy::Allow,
            PolicyArg::DenySample => Policy::DenySample,
            PolicyArg::Deny => Policy::Deny,
        })
        .notes(console.speaker());
    if let Some(path) = &command.resources {
        builder = builder.directory(path);
    }
    if let Some(path) = &command.collateral {
        builder = builder.collateral(&read(path)?);
    }
    if command.accept_unverified_quotes {
        builder = builder.accept_unverified_quotes();
    }
    if let (Some(chain), Some(key)) = (&command.cert, &command.cert_key) {
        builder = builder.certificate(&read(chain)?, &read(key)?);
    } else if command.new_ca.is_some() {
        builder = builder.self_signed();
    }
    let mut new_key = None;
    if let Some(path) = &command.admin_key {
        builder = builder.admin_key(&String::from_utf8_lossy(&read(path)?));
    } else if let Some(path) = &command.new_admin_key {
        let (private, public) = dev_kbs::new_admin_key()?;
        builder = builder.admin_key(&public);
        new_key = Some((path, private));
    }
    console.catch_signals();
    let broker = builder.start()?;
    if let Some((path, private)) = new_key {
        deliver(private.as_bytes(), Some(path))?;
    }
    if let (Some(path), Some(ca)) = (&command.new_ca, broker.ca_pem()) {
        deliver(ca.as_bytes(), Some(path))?;
    }
    console::print(format!("{}\n", broker.url()).as_bytes())?;
    while !console.is_interrupted() {
        std::thread::sleep(TICK);
    }
    Ok(Exit::Success)
}
