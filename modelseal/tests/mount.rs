//! Mounted models: by the command, and by the library.
//!
//! Without `/dev/fuse` most of these tests are skipped, with a line that says so; with `CI=true` they fail.
#![allow(clippy::unwrap_used)]

mod common {
    pub(crate) mod command;
    pub(crate) mod mount;
    pub(crate) mod tree;
}

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use modelseal::mount::{Mount, MountOptions};
use modelseal::{KeyRef, KeySources, Model};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::{Signal, getuid, kill_process};

use common::command::{BIG, Place, Run};
use common::mount::{Background, FORMATS, Mounted, damage, is_available, is_mounted, ok, wait_until};
use common::tree::{names, snapshot};

#[test]
fn attributes_are_those_of_a_file_system_that_nobody_writes_to() {
    if !is_available() {
        return;
    }
    for format in FORMATS {
        let place = Place::with_model(format);
        let mounted = Mounted::new(&place, "vault", "at", &[]);
        let root = fs::metadata(mounted.path("")).unwrap();
        let file = fs::metadata(mounted.path("config.json")).unwrap();
        assert_eq!((root.mode() & 0o170_000, root.ino()), (0o040_000, 1));
        assert_eq!(file.mode(), 0o100_440);
        assert_eq!((file.mtime(), file.mtime_nsec()), (1_700_000_000, 5));
        assert_eq!((file.len(), file.blocks(), file.nlink()), (9, 1, 1));
        assert_eq!(
            (file.uid(), file.gid()),
            (getuid().as_raw(), rustix::process::getgid().as_raw())
        );
        assert_eq!(file.dev(), root.dev());
        let big = fs::metadata(mounted.path("weights/big")).unwrap();
        assert_eq!(
            (big.len(), big.blocks()),
            (BIG as u64, (BIG as u64).div_ceil(512))
        );
        let inodes: BTreeSet<_> = snapshot(&mounted.path(""))
            .keys()
            .map(|path| fs::symlink_metadata(mounted.path(path)).unwrap().ino())
            .collect();
        assert_eq!(inodes.len(), 6, "{inodes:?}");
        assert_eq!(
            fs::read_link(mounted.path("link")).unwrap(),
            Path::new("config.json")
        );

        let system = statvfs(mounted.path("")).unwrap();
        assert!(
            system
                .f_flag
                .contains(StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID)
        );
        assert_eq!(
            system.f_blocks * system.f_frsize,
            (BIG as u64 + 9 + 11).next_multiple_of(4096)
        );
        assert_eq!((system.f_bfree, system.f_files, system.f_namemax), (0, 6, 255));

        refuses_to_be_written(&mounted);
    }
}

fn refuses_to_be_written(mounted: &Mounted) {
    let writable = OpenOptions::new().write(true).open(mounted.path("config.json"));
    let refused = [
        ("writing", writable.map(drop)),
        ("creating", File::create_new(mounted.path("new")).map(drop)),
        ("truncating", File::create(mounted.path("config.json")).map(drop)),
        ("removing", fs::remove_file(mounted.path("config.json"))),
        ("making a directory", fs::create_dir(mounted.path("dir"))),
        ("removing a directory", fs::remove_dir(mounted.path("weights"))),
        (
            "renaming",
            fs::rename(mounted.path("config.json"), mounted.path("new")),
        ),
        ("linking", symlink("config.json", mounted.path("new"))),
        (
            "hard linking",
            fs::hard_link(mounted.path("config.json"), mounted.path("new")),
        ),
        (
            "setting permissions",
            fs::set_permissions(mounted.path("config.json"), fs::Permissions::from_mode(0o644)),
        ),
    ];
    for (what, result) in refused {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{what}: {error}");
    }
}

#[test]
fn nothing_stays_mounted_when_the_mounter_is_killed() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    let mut mounted = Mounted::new(&place, "vault", "at", &[]);
    assert!(is_mounted(&mounted.path("")));
    mounted.end(Signal::KILL);
    wait_until("the mount to go", || !is_mounted(&place.path("at")));
    assert_eq!(names(&place.path("at")), [] as [&str; 0]);
    // The place can be used again.
    let mounted = Mounted::new(&place, "vault", "at", &[]);
    assert!(mounted.path("config.json").exists());
}

#[test]
fn signals_and_unmounting_end_it() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut mounted = Mounted::new(&place, "vault", "at", &[]);
        let status = mounted.end(signal);
        assert!(status.success(), "{signal:?}: {status}");
        assert!(!is_mounted(&place.path("at")), "{signal:?}");
    }
    let mut mounted = Mounted::new(&place, "vault", "at", &[]);
    ok(Command::new("umount").arg(mounted.path("")));
    assert!(mounted.wait().success());
}

#[test]
fn while_a_file_is_open_only_a_signal_unmounts() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    let mut mounted = Mounted::new(&place, "vault", "at", &[]);
    let mut file = File::open(mounted.path("weights/big")).unwrap();
    let busy = Run::of(Command::new("umount").arg(mounted.path("")));
    assert_ne!(busy.code, Some(0));
    assert!(is_mounted(&mounted.path("")));
    assert!(mounted.end(Signal::TERM).success());
    assert!(!is_mounted(&place.path("at")));
    let mut rest = Vec::new();
    assert!(file.read_to_end(&mut rest).is_err(), "{} bytes", rest.len());
}

#[test]
fn it_ends_with_whoever_started_it() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    let at = place.dir("at");
    let mut shell = Command::new("sh")
        .args([
            "-c",
            "\"$0\" mount --key file:pw vault at 2>/dev/null & exec sleep 600",
        ])
        .arg(env!("CARGO_BIN_EXE_modelseal"))
        .current_dir(place.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the mount", || is_mounted(&at));
    shell.kill().unwrap();
    shell.wait().unwrap();
    wait_until("the mount to go", || !is_mounted(&at));
}

#[test]
fn in_the_background_it_stays_until_it_is_unmounted() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    damage(&place.stored("vault", "weights/big"));
    let log = place.path("log");
    let mounted = Background::new(&place, "behind", &["--log", log.to_str().unwrap()]);
    assert_eq!(fs::read(mounted.at.join("config.json")).unwrap(), b"{\"a\": 1}\n");
    assert!(fs::read(mounted.at.join("weights/big")).is_err());
    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("weights/big") && said.contains("chunk"), "{said}");

    let pid = mounted.pid(&place).as_raw_nonzero();
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(link("cwd"), Path::new("/"));
    for descriptor in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(descriptor), Path::new("/dev/null"));
    }
    // It leads a session of its own, and leaves no core dump.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, pid.to_string());
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.contains("core file")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");

    ok(Command::new("umount").arg(&mounted.at));
    wait_until("the process to end", || {
        fs::read_link(format!("/proc/{pid}/exe")).is_err()
    });

    let mounted = Background::new(&place, "again", &[]);
    kill_process(mounted.pid(&place), Signal::KILL).unwrap();
    wait_until("the mount to go", || !is_mounted(&mounted.at));
}

#[test]
fn failures_are_told_in_the_background_as_well() {
    let place = Place::with_model(&[]);
    fs::write(place.path("wrong"), "not the password\n").unwrap();
    place.dir("at");
    for options in [&[][..], &["--background"]] {
        let wrong = [&["mount", "--key", "file:wrong", "vault", "at"], options].concat();
        place.run(wrong).fails(3, &["password"]);
        let missing = [&["mount", "--key", "file:pw", "nowhere", "at"], options].concat();
        assert_ne!(place.run(missing).code, Some(0));
        assert!(!is_mounted(&place.path("at")));
    }
}

#[test]
fn mount_points_that_cannot_be_used_are_refused() {
    let place = Place::with_model(&[]);
    place.dir("full");
    fs::write(place.path("full/file"), b"").unwrap();
    place.dir("vault/inside");
    let refused = |at: &str, code: i32, parts: &[&str]| {
        place.keyed(&["mount", "vault", at]).fails(code, parts);
        assert!(!is_mounted(&place.path(at)), "{at}");
    };
    refused("missing", 5, &["missing", "no such directory", "make it"]);
    refused("pw", 5, &["pw", "no directory"]);
    refused("full", 6, &["full is not empty", "file", "empty directory"]);
    refused("vault/inside", 5, &["in the model itself"]);
}

#[test]
fn a_dead_mount_is_named_as_such() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    let at = place.dir("at");
    let model = model(&place, "vault");
    let mount = Mount::new(model, &at, MountOptions::default()).unwrap();
    // A mount of another process is dead when that is; here the kernel is told to hang up.
    let device = fs::metadata(&at).unwrap().dev();
    let number = rustix::fs::minor(device);
    let abort = PathBuf::from(format!("/sys/fs/fuse/connections/{number}/abort"));
    if fs::write(&abort, "1").is_err() {
        let _ = Command::new("mount")
            .args(["-t", "fusectl", "fusectl", "/sys/fs/fuse/connections"])
            .status();
        if fs::write(&abort, "1").is_err() {
            eprintln!("SKIPPED: there is no fusectl");
            return;
        }
    }
    mount.wait().unwrap();
    place
        .keyed(&["mount", "vault", "at"])
        .fails(5, &["process has died", "umount -l"]);
    drop(mount);
    assert!(!is_mounted(&at));
}

#[track_caller]
fn model(place: &Place, name: &str) -> Arc<Model> {
    let reference: KeyRef = format!("file:{}", place.path("pw").display()).parse().unwrap();
    let key = reference.resolve(&KeySources::default(), "Key", false).unwrap();
    Arc::new(Model::open(&place.path(name), key, &modelseal::OpenOptions::default()).unwrap())
}

#[test]
fn the_library_mounts_until_it_is_dropped() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    damage(&place.stored("vault", "weights/big"));
    let model = model(&place, "vault");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&heard);
    let options = MountOptions {
        threads: Some(1),
        log: Some(Arc::new(move |line: &str| {
            lines.lock().unwrap().push(line.to_owned());
        })),
        ..MountOptions::default()
    };
    assert!(!format!("{options:?}").is_empty());
    let at = place.dir("at");
    let mount = Mount::new(Arc::clone(&model), &at, options).unwrap();
    assert_eq!(fs::read(at.join("config.json")).unwrap(), b"{\"a\": 1}\n");
    assert!(fs::read(at.join("weights/big")).is_err());
    assert_eq!(heard.lock().unwrap().len(), 1, "{heard:?}");
    // An open file does not keep it mounted, but can be read on.
    let file = File::open(at.join("config.json")).unwrap();
    let empty = File::open(at.join("weights")).unwrap();
    drop(mount);
    assert!(!is_mounted(&at));
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    drop((file, empty));

    // Twice the same model, in two places.
    let other = place.dir("other");
    let mounts = [&at, &other].map(|at| Mount::new(Arc::clone(&model), at, MountOptions::default()).unwrap());
    assert_eq!(names(&at), names(&other));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| mounts[0].wait());
        mounts[0].unmount();
        waiting.join().unwrap().unwrap();
    });
    assert!(!is_mounted(&at) && is_mounted(&other));
    assert_eq!(mounts[1].mountpoint(), fs::canonicalize(&other).unwrap());
}

/// A program as the user `nobody`; none where this is not root.
fn as_nobody(program: impl AsRef<OsStr>) -> Option<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    let works = Command::new("setpriv").arg("--version").output().is_ok() && getuid().is_root();
    command.arg(program);
    works.then_some(command)
}

#[test]
fn others_may_read_only_where_that_is_asked_for() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for (options, allowed) in [(&[][..], false), (&["--allow-other"], true)] {
        let mounted = Mounted::new(&place, "vault", "at", options);
        assert!(fs::read(mounted.path("weights/big")).is_ok());
        let Some(mut cat) = as_nobody("cat") else {
            eprintln!("SKIPPED: only root can be somebody else");
            return;
        };
        let read = Run::of(cat.arg(mounted.path("weights/big")));
        assert_eq!(read.code == Some(0), allowed, "{}", read.stderr);
        // Its permissions say that others may not.
        let Some(mut cat) = as_nobody("cat") else { return };
        let read = Run::of(cat.arg(mounted.path("config.json")));
        assert_ne!(read.code, Some(0));
    }
}

/// What a user does, in a directory of theirs: mounts, reads, and ends the mounter with each signal.
const USER: &str = r#"
set -eu
is_mounted() { grep -q " $PWD/at " /proc/self/mounts; }
for signal in KILL TERM; do
    ./modelseal mount --key file:pw vault at 2>log &
    until is_mounted; do kill -0 $!; sleep 0.02; done
    cmp at/weights/big source/weights/big
    kill -$signal $!
    wait $! || test $signal = KILL
    while is_mounted; do sleep 0.02; done
done
grep -q '^ *user_allow_other' /etc/fuse.conf && exit
! ./modelseal mount --allow-other --key file:pw vault at 2>refused
grep -q 'user_allow_other.*fuse.conf' refused
"#;

#[test]
fn users_mount_with_the_helper() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_modelseal"), place.path("modelseal")).unwrap();
    place.dir("at");
    if !getuid().is_root() {
        eprintln!("SKIPPED: only root can be somebody else");
        return;
    }
    ok(Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(place.path("")));
    // The device may be root's alone here; elsewhere it is everybody's.
    let setup = "
        mknod /tmp/fuse-$$ c 10 229 && chmod 666 /tmp/fuse-$$ && mount --bind /tmp/fuse-$$ /dev/fuse
        rm /tmp/fuse-$$
        exec setpriv --reuid=65534 --regid=65534 --clear-groups -- sh -c \"$0\"";
    let mut user = Command::new("timeout");
    user.args(["60", "unshare", "--mount", "--propagation", "private"]);
    user.args(["sh", "-c", setup, USER]).current_dir(place.path(""));
    let run = Run::of(user.stdin(Stdio::null()));
    let said = |name: &str| fs::read_to_string(place.path(name)).unwrap_or_default();
    assert_eq!(run.code, Some(0), "{run:?}; {}; {}", said("log"), said("refused"));
}
