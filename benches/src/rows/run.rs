//! `modelseal run`, from its start to the line that says that the model is readable.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use attest_client::dev_kbs::DevKbs;
use rustix::process::geteuid;

use super::{Context, Measured, TMPFS};
use crate::error::{Result, missing};
use crate::fixture::{PASSWORD, key, package_options, temp_dir};
use crate::measure::{Unit, compare};

const FILES: usize = 10;
/// Seconds that all but the key and the unlocking may take.
const ALLOWED: f64 = 0.05;
const REFERENCE: &str = "kbs:///default/bench/key";

/// Beside the key's fetch and the unlocking in the same run, and 50 ms.
pub(super) fn ready(context: &Context) -> Result<Measured> {
    let command = command()?;
    if !geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        return Err(missing("root or /dev/fuse is not there"));
    }
    let dir = temp_dir(Path::new(TMPFS))?;
    let (plain, sealed) = (dir.path().join("plain"), dir.path().join("sealed"));
    fs::create_dir(&plain)?;
    for n in 0..FILES {
        fs::write(plain.join(format!("model-{n:05}.safetensors")), vec![0; 1 << 20])?;
    }
    modelseal::seal(&plain, &sealed, &key(), &package_options()?, &())?;
    let broker = DevKbs::builder()
        .resource("default/bench/key", PASSWORD.as_bytes())
        .notes(|_| ())
        .start()?;
    let waits = Cell::new(0.0);
    let pair = compare(
        context.rounds(),
        || {
            let start = start(&command, broker.url(), &sealed)?;
            waits.set(start.waits);
            Ok(start.ready)
        },
        || Ok(waits.get() + ALLOWED),
    )?;
    Ok(Measured::times(pair, Unit::Whole).note(
        "10 files, scrypt N = 2^14, key by P-256; the key's fetch and the unlocking are those of the same run, as the command \
         times them: a process's first random number takes AWS-LC tens of milliseconds",
    ))
}

/// The command, which is built beside this program.
fn command() -> Result<PathBuf> {
    let command = std::env::current_exe()?.with_file_name("modelseal");
    if !command.exists() {
        return Err(missing("the command is not built; `make build` does it"));
    }
    Ok(command)
}

/// A start of the command, in seconds.
struct Start {
    /// Until the model was readable.
    ready: f64,
    /// Of these, for the key's fetch and the unlocking.
    waits: f64,
}

fn start(command: &Path, broker: &str, sealed: &Path) -> Result<Start> {
    let begin = Instant::now();
    let mut child = Command::new(command)
        .args([
            "run",
            "--via",
            "mount",
            "--key",
            REFERENCE,
            "--evidence",
            "sample",
        ])
        .args(["--kbs-url", broker])
        .arg(sealed)
        .args(["--", "true"])
        .stderr(Stdio::piped())
        .spawn()?;
    let (mut told, mut start) = (String::new(), None);
    for line in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|out| BufReader::new(out).lines())
    {
        let line = line?;
        if start.is_none() && line.contains("ready:") {
            let ready = begin.elapsed().as_secs_f64();
            let waits = told_seconds(&line, "; key ").zip(told_seconds(&line, ", opening "));
            start = waits.map(|(key, opening)| Start {
                ready,
                waits: key + opening,
            });
        }
        told += &line;
    }
    let status = child.wait()?;
    match start {
        Some(start) if status.success() => Ok(start),
        _ => Err(format!("modelseal run: {status}: {told}").into()),
    }
}

/// The seconds that the line has behind `what`.
fn told_seconds(line: &str, what: &str) -> Option<f64> {
    line.split_once(what)?.1.split_once(" s")?.0.parse().ok()
}
