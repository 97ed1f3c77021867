//! `key get`, `put`, `delete` and `policy`: keys and policies at a key broker.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::attest::{Admin, AdminBuilder};
use serde_json::json;
use zeroize::Zeroizing;

use crate::command::args::{AdminArgs, Delete, Get, Global, PolicyCommand, Put};
use crate::command::console::{self, Console};
use crate::command::exit::{Exit, Failure};
use crate::command::keys::{deliver, refuse_terminal};

/// Longest file of a policy or of an administrator's key, in bytes. Brokers take 2 MiB in all.
const FILE_MAX: u64 = 1 << 20;

pub(crate) fn get(command: &Get, global: &Global, console: &Console) -> Result<Exit, Failure> {
    if command.raw {
        refuse_terminal(command.output.as_deref())?;
    }
    let key = console.key(&command.reference)?;
    let bytes = key.password().ok();
    if command.raw || command.output.is_some() {
        let bytes = bytes
            .ok_or_else(|| Failure::usage("a master key is printed by the reference behind masterkey:"))?;
        return deliver(bytes, command.output.as_deref());
    }
    // Of what it is, no more than tells a right key from a wrong one at a glance: a digest could be guessed at.
    let (kind, length) = match bytes {
        None => ("master key", 32),
        Some(bytes) => {
            let text = std::str::from_utf8(bytes).is_ok_and(|text| !text.contains(char::is_control));
            (if text { "text" } else { "binary" }, bytes.len())
        }
    };
    let reference = command.reference.to_string();
    if global.json {
        console::print_json(&json!({"reference": reference, "kind": kind, "length": length}))?;
    } else {
        let text =
            format!("{reference} leads to a key: {kind}, {length} bytes; --raw prints it into a pipe\n");
        console::print(text.as_bytes())?;
    }
    Ok(Exit::Success)
}

pub(crate) fn put(command: &Put, console: &Console) -> Result<Exit, Failure> {
    let admin = admin(&command.admin, console)?;
    let key = console.new_key(&command.from)?;
    let bytes = key.password()?;
    if bytes.contains(&b'\n') {
        return Err(Failure::usage(
            "the key holds a newline and would be cut there when it is fetched; store its text, in hexadecimal or \
             base64, and fetch it by hex:kbs:/// or base64:kbs:///",
        ));
    }
    admin.set_resource(&command.resource, bytes)?;
    console.note(&format!("{} is stored", command.resource));
    Ok(Exit::Success)
}

pub(crate) fn delete(command: &Delete, console: &Console) -> Result<Exit, Failure> {
    admin(&command.admin, console)?.delete_resource(&command.resource)?;
    console.note(&format!("{} is deleted", command.resource));
    Ok(Exit::Success)
}

pub(crate) fn policy(command: &PolicyCommand, console: &Console) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::Resource { file, admin } => {
            let rego = read(file)?;
            self::admin(admin, console)?.set_resource_policy(&rego)?;
            console.note("the resource policy is set");
        }
        PolicyCommand::Attestation { file, id, admin } => {
            let rego = read(file)?;
            self::admin(admin, console)?.set_attestation_policy(id, &rego)?;
            console.note(&format!("the attestation policy {id} is set"));
        }
    }
    Ok(Exit::Success)
}

/// The client of an owner with these credentials.
fn admin(args: &AdminArgs, console: &Console) -> Result<Admin, Failure> {
    let mut admin: AdminBuilder = console.sources().admin()?.role(&args.admin_role);
    if let Some(issuer) = &args.admin_issuer {
        admin = admin.issuer(issuer);
    }
    if let Some(audience) = &args.admin_audience {
        admin = admin.audience(audience);
    }
    admin = match (&args.admin_key, &args.admin_token) {
        (Some(path), _) => admin.key_pem(&read(path)?),
        (_, Some(reference)) => {
            let token = console.key(reference)?;
            // What is no text is no token either.
            admin.token(std::str::from_utf8(token.password()?).unwrap_or_default())
        }
        (None, None) => admin,
    };
    Ok(admin.build()?)
}

/// A text file, in memory that is wiped: it may hold a key.
fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |source| Failure::io(path, "reading", source);
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if len > FILE_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    // Room for all of it, so that it is never moved.
    let room = usize::try_from(len.max(64 << 10)).unwrap_or(0) + 1;
    let mut text = Zeroizing::new(String::with_capacity(room));
    file.take(room as u64 - 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}
