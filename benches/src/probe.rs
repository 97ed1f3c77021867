//! One piece of work in a process of its own, whose memory nothing else has touched yet.

use std::path::Path;
use std::process::{Command, Stdio};

use chunk_cipher::store::ReadMode;
use modelseal::{Buffer, Model, OpenOptions, UnsealOptions};

use crate::error::Result;
use crate::fixture::{FILE, key, package_options, seal_options};
use crate::memory;

/// Runs `job` (what to do, from where, to where) in a new process. Returns the most bytes that its memory grew by.
pub(crate) fn start(job: &str, from: &Path, to: &Path) -> Result<u64> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("probe")
        .arg(job)
        .arg(from)
        .arg(to)
        .stdin(Stdio::null());
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the process that was to {job} failed: {}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// The process: does what [`start`] was asked for and prints the growth.
pub(crate) fn run(job: &[String]) -> Result<()> {
    let [what, from, to] = job else {
        return Err("a probe is started by the comparison only".into());
    };
    let (from, to) = (Path::new(from), Path::new(to));
    let open = || {
        Model::open(
            from,
            key(),
            &OpenOptions {
                read_mode: ReadMode::Auto,
                ..OpenOptions::default()
            },
        )
    };
    let growth = match what.as_str() {
        "read" | "read-package" => {
            // The caller's buffer, touched before.
            let len = usize::try_from(open()?.file(FILE)?.len())?;
            let mut out = Buffer::new(len)?;
            out.fill(1);
            if what == "read-package" {
                // A license's scrypt takes more memory than the reading.
                let model = open()?;
                memory::growth(|| Ok(model.file(FILE)?.read_into(0, &mut out)?))?
            } else {
                memory::growth(|| Ok(open()?.file(FILE)?.read_into(0, &mut out)?))?
            }
        }
        "scan" => memory::growth(|| {
            let scan = open()?.file(FILE)?.scan(&())?;
            if scan.damaged.is_empty() && scan.holes.is_empty() {
                Ok(())
            } else {
                Err("the vault is damaged".into())
            }
        })?,
        "seal" => memory::growth(|| {
            modelseal::seal(from, to, &key(), &seal_options(), &())?;
            Ok(())
        })?,
        "pack" => memory::growth(|| {
            modelseal::seal(from, to, &key(), &package_options()?, &())?;
            Ok(())
        })?,
        "unseal" => memory::growth(|| {
            modelseal::unseal(&open()?, to, &UnsealOptions::default(), &())?;
            Ok(())
        })?,
        other => return Err(format!("no such probe: {other}").into()),
    };
    println!("{growth}");
    Ok(())
}
