//! Mounts by the `modelseal` command.
#![allow(dead_code)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::command::{Place, Run};

/// Options for a model of each format.
pub(crate) const FORMATS: [&[&str]; 2] = [&[], &["--format", "sam", "--key-id", "LD_Demo_0001"]];

/// Nothing here takes longer, but on a machine where everything does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether FUSE is there. Where it is not, a test is skipped, but not in CI.
pub(crate) fn is_available() -> bool {
    let Err(error) = File::options().read(true).write(true).open("/dev/fuse") else {
        return true;
    };
    let lack = format!("/dev/fuse cannot be opened: {error}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{lack}");
    eprintln!("SKIPPED: {lack}");
    false
}

/// Whether a model is mounted there, by the kernel's own list.
pub(crate) fn is_mounted(at: &Path) -> bool {
    let at = fs::canonicalize(at.parent().unwrap())
        .unwrap()
        .join(at.file_name().unwrap());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(at.to_str().unwrap()))
}

/// Waits until `holds`, for a while.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// A model mounted by a command in the foreground; unmounted when this is dropped.
pub(crate) struct Mounted {
    at: PathBuf,
    log: PathBuf,
    child: Child,
}

impl Mounted {
    /// Mounts `model` of `place` at `at`, which is made, with options.
    #[track_caller]
    pub(crate) fn new(place: &Place, model: &str, at: &str, options: &[&str]) -> Self {
        let log = place.path(format!("{at}.log"));
        let at = place.dir(at);
        let before = fs::metadata(&at).unwrap().dev();
        let child = place
            .command(["mount", "--key", "file:pw", model])
            .arg(&at)
            .args(options)
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut mounted = Self { at, log, child };
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&mounted.at).unwrap().dev() == before {
            let ended = mounted.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", mounted.log());
            assert!(Instant::now() < deadline, "it does not mount: {}", mounted.log());
            sleep(Duration::from_millis(5));
        }
        mounted
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.at.join(name)
    }

    /// What the command has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal, and waits for what comes of it.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        kill_process(self.pid(), signal).unwrap();
        self.wait()
    }

    /// Waits for the command to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the command to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = kill_process(self.pid(), Signal::TERM);
            let _ = self.child.wait();
        }
        detach(&self.at);
    }
}

/// Unmounts whatever is left there.
pub(crate) fn detach(at: &Path) {
    if is_mounted(at) {
        let _ = Command::new("umount").arg("-l").arg(at).status();
    }
}

/// A mount in the background; unmounted when this is dropped.
pub(crate) struct Background {
    pub(crate) at: PathBuf,
}

impl Background {
    /// Mounts `vault` of `place` at `at`.
    #[track_caller]
    pub(crate) fn new(place: &Place, at: &str, options: &[&str]) -> Self {
        let dir = place.dir(at);
        // Files, as pipes would stay open for as long as the process in the background, were it to keep them.
        let log = place.path(format!("{at}.log"));
        let status = place
            .command(["mount", "--background", "--key", "file:pw", "vault", at])
            .args(options)
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .status()
            .unwrap();
        assert!(
            status.success(),
            "{status}: {}",
            fs::read_to_string(&log).unwrap()
        );
        Self { at: dir }
    }

    /// Its process, found by the terminal that it does not have and the directory that it is in.
    pub(crate) fn pid(&self, place: &Place) -> Pid {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let name = entry.unwrap().file_name();
            name.to_str()?.parse::<i32>().ok()
        });
        let mut matching = pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            program == Path::new(env!("CARGO_BIN_EXE_modelseal"))
                && words.contains(&self.at.file_name().unwrap().as_encoded_bytes())
        });
        let pid = matching.next().unwrap();
        assert_eq!(matching.next(), None, "{}", place.path("").display());
        Pid::from_raw(pid).unwrap()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        detach(&self.at);
    }
}

/// Runs a program that must succeed.
#[track_caller]
pub(crate) fn ok(command: &mut Command) -> Run {
    Run::of(command.stdin(Stdio::null())).ends(0)
}

/// Flips a bit of the stored file in the middle.
pub(crate) fn damage(path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
}
