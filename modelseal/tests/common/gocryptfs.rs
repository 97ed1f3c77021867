//! Runs the real gocryptfs.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Whether gocryptfs can be run. Where it cannot, a test is skipped, but not in CI.
pub(crate) fn is_available() -> bool {
    let program = Command::new("gocryptfs").arg("-version").output();
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    let lack = match (program, device) {
        (Err(error), _) => format!("gocryptfs cannot be run: {error}"),
        (_, Err(error)) => format!("/dev/fuse cannot be opened: {error}"),
        _ => return true,
    };
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{lack}");
    eprintln!("SKIPPED: {lack}");
    false
}

/// Runs gocryptfs to its end.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new("gocryptfs")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs gocryptfs, which must succeed.
#[track_caller]
pub(crate) fn ok<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let output = run(args);
    assert!(output.status.success(), "{output:?}");
    output
}

/// Makes a vault, with options.
#[track_caller]
pub(crate) fn init(vault: &Path, passfile: &Path, options: &[&str]) {
    fs::create_dir_all(vault).unwrap();
    let init = ["-init", "-q", "-scryptn", "10", "-passfile"].map(OsStr::new);
    let options = options.iter().map(OsStr::new);
    ok(init
        .into_iter()
        .chain([passfile.as_os_str()])
        .chain(options)
        .chain([vault.as_os_str()]));
}

/// gocryptfs finds nothing wrong with a vault.
#[track_caller]
pub(crate) fn fsck(vault: &Path, passfile: &Path) {
    let args = ["-fsck", "-passfile"].map(OsStr::new);
    let output = ok(args.into_iter().chain([passfile.as_os_str(), vault.as_os_str()]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("no problems found"), "{output:?}");
}

/// A mounted vault, unmounted when this is dropped.
pub(crate) struct Mount {
    dir: PathBuf,
    child: Child,
}

impl Mount {
    /// Mounts `vault` at `dir`, which is made, with options such as where the password is.
    pub(crate) fn new<S: AsRef<OsStr>>(
        vault: &Path,
        dir: &Path,
        options: impl IntoIterator<Item = S>,
    ) -> Self {
        fs::create_dir_all(dir).unwrap();
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        let before = device(dir);
        // Should this process be killed, nothing stays mounted for long.
        let child = Command::new("gocryptfs")
            .args(["-q", "-fg", "-nosyslog", "-idle", "10m"])
            .args(options)
            .args([vault, dir])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut mount = Self {
            dir: dir.to_path_buf(),
            child,
        };
        let deadline = Instant::now() + Duration::from_secs(120);
        while device(dir) == before {
            if mount.child.try_wait().unwrap().is_some() {
                let mut why = String::new();
                let _ = mount.child.stderr.take().unwrap().read_to_string(&mut why);
                panic!("gocryptfs does not mount: {why}");
            }
            assert!(Instant::now() < deadline, "gocryptfs does not mount");
            sleep(Duration::from_millis(10));
        }
        mount
    }

    /// Mounts a vault with its password.
    pub(crate) fn with_passfile(vault: &Path, dir: &Path, passfile: &Path) -> Self {
        Self::new(vault, dir, [OsStr::new("-passfile"), passfile.as_os_str()])
    }

    fn unmount(&mut self) {
        let by = |program: &str, args: &[&str]| {
            Command::new(program)
                .args(args)
                .arg(&self.dir)
                .output()
                .is_ok_and(|output| output.status.success())
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        // Busy for a moment where something still looks into it.
        while !by("fusermount3", &["-u"]) && !by("fusermount", &["-u"]) && !by("umount", &[]) {
            if matches!(self.child.try_wait(), Ok(Some(_))) || Instant::now() > deadline {
                by("umount", &["-l"]);
                let _ = self.child.kill();
                break;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.wait();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.unmount();
    }
}
