//! `decrypt`, `cat` and `verify`.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::store::Kind;
use crate::{Buffer, Damage, Entry, Found, Model, Progress, UnsealOptions, Verified, unseal};
use serde_json::json;

use crate::command::args::{Cat, Decrypt, Global, Verify};
use crate::command::console::{self, Console};
use crate::command::create::report;
use crate::command::exit::{Exit, Failure};

/// Plaintext bytes that `cat` has in memory at a time.
const WINDOW: usize = 8 << 20;

pub(crate) fn decrypt(command: &Decrypt, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let key = console.key(&command.sealed.key)?;
    let location = &command.sealed.location;
    console.catch_signals();
    let begin = Instant::now();
    let model = console.open(location, key, &command.sealed.trust, global)?;
    let options = UnsealOptions {
        resume: command.resume,
    };
    let summary = unseal(&model, &command.destination, &options, console).map_err(Failure::writing)?;
    report("unsealed", &summary, begin, global, console)
}

pub(crate) fn cat(command: &Cat, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let location = &command.sealed.location;
    let key = console.key(&command.sealed.key)?;
    let model = console.open(location, key, &command.sealed.trust, global)?;
    let mut window =
        Buffer::new(WINDOW).map_err(|source| Failure::io(location, "making room for", source))?;
    let mut out = io::stdout().lock();
    for path in &command.paths {
        let file = model.file(path)?;
        let mut offset = 0;
        loop {
            let len = file.read_at(offset, &mut window)?;
            if len == 0 {
                break;
            }
            out.write_all(&window[..len]).map_err(Failure::Output)?;
            offset += len as u64;
        }
    }
    out.flush().map_err(Failure::Output)?;
    Ok(Exit::Success)
}

pub(crate) fn verify(command: &Verify, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let location = &command.location;
    let report = Report::new(global, console);
    let verified = if let Some(key) = &command.key {
        let key = console.key(key)?;
        let model = console.open(location, key, &command.trust, global)?;
        let start = model.lookup(&command.path)?;
        if start.kind() != Kind::Dir {
            let path = location.join(&command.path);
            return Err(Failure::io(
                &path,
                "checking",
                io::ErrorKind::NotADirectory.into(),
            ));
        }
        console.catch_signals();
        let (files, bytes) = size(&model, &start)?;
        console.begin(files, bytes);
        model.verify(&start, console, &|damage| report.add(damage))
    } else {
        let options = command.trust.options(global)?;
        console.catch_signals();
        let verified = Model::verify_without_key(location, &command.path, &options, console, &|damage| {
            report.add(damage);
        });
        let warning = match command.trust.manifest {
            Some(_) => command.trust.manifest_warning(),
            None => command.trust.keyless_warning(),
        };
        if let (Ok(_), Some(warning)) = (&verified, warning) {
            console.note(warning);
        }
        verified
    };
    if let Ok(verified) = &verified
        && command.trust.manifest.is_none()
        && !global.json
    {
        note_holes(verified, console);
    }
    report.finish(verified)
}

/// What a check finds, as it finds it.
pub(crate) struct Report<'a> {
    global: &'a Global,
    console: &'a Console,
    damages: Mutex<Vec<serde_json::Value>>,
    unreadable: AtomicU64,
}

impl<'a> Report<'a> {
    pub(crate) fn new(global: &'a Global, console: &'a Console) -> Self {
        Self {
            global,
            console,
            damages: Mutex::default(),
            unreadable: AtomicU64::new(0),
        }
    }

    /// Tells of something damaged.
    pub(crate) fn add(&self, damage: Damage) {
        let text = console::with_causes(damage.error.within_model());
        let kind = if damage.error.is_unreadable() {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
            "unreadable"
        } else {
            "damaged"
        };
        if self.global.json {
            let damage = json!({"path": damage.path.to_string_lossy(), "kind": kind, "error": text});
            self.damages
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(damage);
        } else {
            self.console.damage(kind, &text);
        }
    }

    /// Tells what was checked.
    pub(crate) fn finish(self, verified: crate::Result<Verified>) -> Result<Exit, Failure> {
        self.console.finish();
        let verified = match verified {
            Err(_) if self.console.is_interrupted() => return Err(Failure::Interrupted { hint: "" }),
            other => other?,
        };
        let unreadable = self.unreadable.into_inner();
        let damaged = verified.damaged.saturating_sub(unreadable);
        if self.global.json {
            let damages = self.damages.into_inner().unwrap_or_else(PoisonError::into_inner);
            console::print_json(&json!({
                "files": verified.files, "dirs": verified.dirs, "symlinks": verified.symlinks,
                "bytes": verified.bytes, "holes": verified.holes, "damaged": damages,
            }))?;
        } else {
            let text = format!(
                "{} files, {} directories, {} symlinks, {}: {}\n",
                verified.files,
                verified.dirs,
                verified.symlinks,
                console::bytes(verified.bytes),
                match (damaged, unreadable) {
                    (0, 0) => "no damage".to_owned(),
                    (damaged, 0) => format!("{damaged} damaged"),
                    (damaged, unreadable) => format!("{damaged} damaged, {unreadable} unreadable"),
                },
            );
            console::print(text.as_bytes())?;
        }
        Ok(match (damaged, unreadable) {
            (0, 0) => Exit::Success,
            (0, _) => Exit::Io,
            _ => Exit::Damaged,
        })
    }
}

/// Says that nothing vouches for the holes of a vault.
fn note_holes(verified: &Verified, console: &Console) {
    if verified.holes > 0 {
        console.note(&format!(
            "{} blocks are holes, which read as zeros; the format cannot tell whether they always did",
            verified.holes
        ));
    }
}

/// Number of files below a directory and their bytes, as far as they can be told: for the progress bar.
fn size(model: &Model, dir: &Entry) -> Result<(u64, u64), Failure> {
    let files = model.walk(dir)?.filter_map(|found| match found {
        Found::Entry(entry) if entry.kind() == Kind::File => model.metadata(&entry).ok(),
        _ => None,
    });
    Ok(files.fold((0, 0), |(files, bytes), file| {
        (files + 1, file.len.saturating_add(bytes))
    }))
}
