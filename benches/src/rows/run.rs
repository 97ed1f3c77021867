//! `modelseal run`, from its start to the line that says that the model is readable.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use attest_client::dev_kbs::DevKbs;
use modelseal::{EvidenceKind, KeyRef, KeySources, Model, OpenOptions};
use rustix::process::geteuid;

use super::{Context, Measured, TMPFS};
use crate::error::{Result, missing};
use crate::fixture::{PASSWORD, key, package_options, temp_dir};
use crate::measure::{Unit, compare, seconds};

const FILES: usize = 10;
/// Seconds that all but the key and the unlocking may take.
const ALLOWED: f64 = 0.05;
const REFERENCE: &str = "kbs:///default/bench/key";

/// Beside the key's fetch and the unlocking in this process, and 50 ms.
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
    let pair = compare(
        context.rounds(),
        || start(&command, broker.url(), &sealed),
        || {
            let open = seconds(|| {
                let sources = KeySources::new()
                    .kbs_url(broker.url())
                    .evidence(EvidenceKind::Sample);
                let key = REFERENCE.parse::<KeyRef>()?.resolve(&sources, "Key", false)?;
                Ok(Model::open(&sealed, key, &OpenOptions::default())?)
            })?;
            Ok(open + ALLOWED)
        },
    )?;
    Ok(Measured::times(pair, Unit::Whole).note("10 files, scrypt N = 2^14, start of the process included"))
}

/// The command, which is built beside this program.
fn command() -> Result<PathBuf> {
    let command = std::env::current_exe()?.with_file_name("modelseal");
    if !command.exists() {
        return Err(missing("the command is not built; `make build` does it"));
    }
    Ok(command)
}

/// Seconds until the model is readable.
fn start(command: &Path, broker: &str, sealed: &Path) -> Result<f64> {
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
    let mut told = String::new();
    let mut time = None;
    for line in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|out| BufReader::new(out).lines())
    {
        let line = line?;
        if line.contains("ready:") {
            time.get_or_insert_with(|| begin.elapsed().as_secs_f64());
        }
        told += &line;
    }
    let status = child.wait()?;
    match time {
        Some(time) if status.success() => Ok(time),
        _ => Err(format!("modelseal run: {status}: {told}").into()),
    }
}
