//! The programs that we compare with, and plain reads.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use chunk_cipher::Pool;

use crate::error::{Result, missing};
use crate::fixture::PASSWORD;

/// Bytes a thread reads at a time: what the engine's groups hold.
const GROUP: usize = 960 << 10;

/// Fills `out` from the start of a plain file by positional reads on all threads of `pool`, divided as the engine
/// divides its work.
pub(crate) fn read_plain(pool: &Pool, path: &Path, out: &mut [u8]) -> Result<()> {
    let file = File::open(path)?;
    Ok(pool.run(|| read_groups(&file, 0, out))??)
}

fn read_groups(file: &File, offset: usize, out: &mut [u8]) -> io::Result<()> {
    let groups = out.len().div_ceil(GROUP);
    if groups <= 1 {
        return file.read_exact_at(out, offset as u64);
    }
    let middle = groups / 2 * GROUP;
    let (left, right) = out.split_at_mut(middle);
    let (left, right) = rayon::join(
        || read_groups(file, offset, left),
        || read_groups(file, offset + middle, right),
    );
    left.and(right)
}

/// Runs a command that is silent unless it fails.
fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(&name, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} failed ({}): {}", output.status, said.trim()).into())
}

fn not_started(name: &str, error: &io::Error) -> crate::Error {
    if error.kind() == io::ErrorKind::NotFound {
        missing(format!("{name} is not installed"))
    } else {
        format!("starting {name}: {error}").into()
    }
}

/// Reads a file as `dd` does.
pub(crate) fn dd(path: &Path) -> Result<()> {
    let mut input = std::ffi::OsString::from("if=");
    input.push(path);
    run(Command::new("dd")
        .arg(input)
        .args(["of=/dev/null", "bs=4M", "status=none"]))
}

/// Copies a file as `cp` does.
pub(crate) fn cp(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("--").arg(from).arg(to))
}

/// Copies a directory with all that is in it, as `cp` does.
pub(crate) fn cp_all(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-r", "--"]).arg(from).arg(to))
}

/// Seconds that OpenSSL's scrypt takes with the cost of a new vault, as Python's `hashlib` runs it: measured in there,
/// without the time to start.
pub(crate) fn openssl_scrypt() -> Result<f64> {
    const SCRIPT: &str = "\
import hashlib, time
start = time.perf_counter()
hashlib.scrypt(b'benchmark', salt=bytes(32), n=1 << 16, r=8, p=1, maxmem=1 << 28, dklen=32)
print(time.perf_counter() - start)";
    let output = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| not_started("python3", &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        return Err(missing(format!("python3 has no scrypt: {last}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// The first line that a program prints of itself; none where it is not there.
pub(crate) fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

/// A vault mounted by gocryptfs, unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts `vault`; what that needs is kept in the directory `dir`.
    pub(crate) fn new(vault: &Path, dir: &Path) -> Result<Self> {
        let prepared = Prepared::new(vault, dir)?;
        prepared.mount()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }
}

/// Everything that mounting needs, in place.
pub(crate) struct Prepared {
    vault: PathBuf,
    password: PathBuf,
    at: PathBuf,
    log: PathBuf,
}

impl Prepared {
    pub(crate) fn new(vault: &Path, dir: &Path) -> Result<Self> {
        for program in ["gocryptfs", "fusermount3"] {
            if version(program, "-version").is_none() && version(program, "-V").is_none() {
                return Err(missing(format!("{program} is not installed")));
            }
        }
        if !Path::new("/dev/fuse").exists() {
            return Err(missing("there is no /dev/fuse"));
        }
        let (password, at) = (dir.join("password"), dir.join("mount"));
        fs::write(&password, PASSWORD)?;
        match fs::create_dir(&at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        Ok(Self {
            vault: vault.to_path_buf(),
            password,
            at,
            log: dir.join("gocryptfs.log"),
        })
    }

    /// Mounts. gocryptfs goes into the background once the mount can be used.
    pub(crate) fn mount(&self) -> Result<Mount> {
        // Made first, so that whatever half-mounted thing a failure leaves is unmounted too.
        let mount = Mount { at: self.at.clone() };
        // A pipe would stay open for as long as the process in the background.
        let log = File::create(&self.log)?;
        let status = Command::new("gocryptfs")
            .args(["-q", "-passfile"])
            .args([&self.password, &self.vault, &self.at])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()?;
        if status.success() {
            return Ok(mount);
        }
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        Err(missing(format!(
            "gocryptfs cannot mount here ({status}): {}",
            said.trim()
        )))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for attempt in 0..100 {
            // Detaching at once is the last resort: the process behind it goes on until nobody uses it.
            let flags = if attempt < 99 { "-u" } else { "-uz" };
            let mut command = Command::new("fusermount3");
            command
                .arg(flags)
                .arg(&self.at)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if !is_mounted(&self.at) || command.status().is_ok_and(|status| status.success()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!(
            "{} is still mounted; unmount it with fusermount3 -u",
            self.at.display()
        );
    }
}

/// Whether something is mounted there. What cannot be told counts as mounted.
fn is_mounted(at: &Path) -> bool {
    fs::read_to_string("/proc/self/mounts").map_or(true, |mounts| {
        let at = at.to_string_lossy();
        mounts.lines().any(|line| line.split(' ').nth(1) == Some(&at))
    })
}
