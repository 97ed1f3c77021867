//! `passwd` and `key`.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Model, change_password};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::command::args::{Export, Generate, Global, Passwd};
use crate::command::console::{self, Console};
use crate::command::exit::{Exit, Failure};

pub(crate) fn passwd(command: &Passwd, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let key = console.key(&command.sealed.key)?;
    let new_key = console.new_key(&command.new_key)?;
    let location = &command.sealed.location;
    let options = command.sealed.trust.options(global)?;
    change_password(location, key, &new_key, command.scrypt_n, &options)?;
    console.note("the password is changed; whoever kept the old gocryptfs.conf can still use the old one");
    if options.manifest.is_some() {
        console.note("the manifest holds no longer; sign a new one with `modelseal manifest sign`");
    }
    Ok(Exit::Success)
}

pub(crate) fn generate(command: &Generate) -> Result<Exit, Failure> {
    refuse_terminal(command.output.as_deref())?;
    let mut random = Zeroizing::new([0; 32]);
    chunk_cipher::random::fill(random.as_mut_slice()).map_err(crate::Error::from)?;
    let mut text = Zeroizing::new(vec![0; 44]);
    // 32 bytes are 43 characters; the last place is the newline's.
    let len = URL_SAFE_NO_PAD
        .encode_slice(random.as_slice(), &mut text)
        .unwrap_or(0);
    text[len] = b'\n';
    deliver(&text[..=len], command.output.as_deref())
}

pub(crate) fn export(command: &Export, global: &Global, console: &Console) -> Result<Exit, Failure> {
    refuse_terminal(command.output.as_deref())?;
    let key = console.key(&command.sealed.key)?;
    let options = command.sealed.trust.options(global)?;
    let master = Model::master_key(&command.sealed.location, key, &options)?;
    let mut text = master.to_export();
    text.push('\n');
    deliver(text.as_bytes(), command.output.as_deref())
}

/// Keeps a secret that is not written to a file off the screen, its scrollback and its recordings.
pub(crate) fn refuse_terminal(output: Option<&Path>) -> Result<(), Failure> {
    if output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::usage(
            "a key is not shown on a terminal; pipe it on, or write it to a file with -o",
        ));
    }
    Ok(())
}

/// Writes a secret to a new file that only its owner may read, or to standard output.
pub(crate) fn deliver(secret: &[u8], output: Option<&Path>) -> Result<Exit, Failure> {
    match output {
        None => console::print(secret)?,
        Some(path) => {
            let failed = |source| Failure::io(path, "writing", source);
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .map_err(failed)?;
            file.write_all(secret)
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
        }
    }
    Ok(Exit::Success)
}
