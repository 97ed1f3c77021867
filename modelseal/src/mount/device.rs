//! Mounting and unmounting: by the system itself where that is allowed, else by `fusermount3`.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{getgid, getuid};

use crate::error::{Error, Result};

/// How the kernel is talked to.
const DEVICE: &str = "/dev/fuse";

/// The helper that mounts for those who may not, and what it may be called.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// What the helper finds the socket by that it hands the device over on.
const HELPER_SOCKET: &str = "_FUSE_COMMFD";

/// KiB that the kernel reads ahead: several requests of the largest size. Its own limit for FUSE is 128.
const READ_AHEAD: &str = "4096";

/// A directory that a model can be mounted at, as an absolute path without links.
pub(super) fn check_mountpoint(path: &Path, location: &Path) -> Result<PathBuf> {
    let unusable = |what: &str| Error::Mount {
        path: path.to_path_buf(),
        what: what.to_owned(),
        source: None,
    };
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => unusable("there is no such directory; make it first"),
        ErrorKind::NotConnected => unusable(
            "a file system whose process has died is mounted there; unmount it with `fusermount3 -u -z`, or as root \
             with `umount -l`",
        ),
        _ => Error::io(path, "looking at the mount point", error),
    };
    let real = path.canonicalize().map_err(failed)?;
    if !real.is_dir() {
        return Err(unusable("it is no directory"));
    }
    // The model may lie where there are no paths.
    if let Ok(location) = location.canonicalize()
        && real.starts_with(location)
    {
        return Err(unusable("it lies in the model itself; mount it elsewhere"));
    }
    // A dead file system may still know its root.
    let first = fs::read_dir(&real).and_then(|mut entries| entries.next().transpose());
    match first.map_err(failed)? {
        None => Ok(real),
        Some(found) => Err(Error::NotEmpty {
            path: path.to_path_buf(),
            found: found.file_name().into(),
            hint: "mount at an empty directory",
        }),
    }
}

/// Whether each thread can have a descriptor of its own.
pub(super) fn can_be_opened() -> bool {
    open_device().is_ok()
}

fn open_device() -> io::Result<OwnedFd> {
    File::options()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map(OwnedFd::from)
}

/// A mount, as long as it is attached to the tree.
#[derive(Debug)]
pub(super) struct Attached {
    mountpoint: PathBuf,
    /// Major and minor number of its device, which no other mount has at the same time.
    device: (u32, u32),
}

impl Attached {
    /// Mounts at `mountpoint` what is answered on the descriptor that comes with it.
    pub(super) fn new(mountpoint: &Path, source: &str, allow_other: bool) -> Result<(Self, OwnedFd)> {
        let fd = attach(mountpoint, source, allow_other)?;
        let device = device_of(mountpoint).map_err(|error| {
            let _ = unmount(mountpoint, UnmountFlags::DETACH);
            Error::io(mountpoint, "looking at the new mount at", error.into())
        })?;
        let attached = Self {
            mountpoint: mountpoint.to_path_buf(),
            device,
        };
        Ok((attached, fd))
    }

    pub(super) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The number of its device, as the kernel writes it.
    pub(super) fn device(&self) -> String {
        format!("{}:{}", self.device.0, self.device.1)
    }

    /// Lets the kernel read further ahead, where this process may say so: root may, where `/sys` is writable.
    pub(super) fn raise_read_ahead(&self) {
        let _ = fs::write(
            format!("/sys/class/bdi/{}/read_ahead_kb", self.device()),
            READ_AHEAD,
        );
    }

    /// Takes it out of the tree of files. Whoever has a file open keeps it. Does nothing where it is not there any more.
    pub(super) fn detach(&self) {
        if device_of(&self.mountpoint) != Ok(self.device) {
            return;
        }
        if unmount(&self.mountpoint, UnmountFlags::DETACH) != Err(Errno::PERM) {
            return;
        }
        for helper in HELPERS {
            let unmounted = Command::new(helper)
                .args(["-u", "-z", "-q", "--"])
                .arg(&self.mountpoint)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if unmounted.is_ok_and(|status| status.success()) {
                return;
            }
        }
    }
}

/// The device that the root of what is at `path` is on, without asking whoever answers for it.
fn device_of(path: &Path) -> rustix::io::Result<(u32, u32)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = statx(CWD, path, flags, StatxFlags::TYPE)?;
    Ok((found.stx_dev_major, found.stx_dev_minor))
}

/// Mounts, and returns the kernel's side of it.
fn attach(mountpoint: &Path, source: &str, allow_other: bool) -> Result<OwnedFd> {
    let failed = |what: String, source| Error::Mount {
        path: mountpoint.to_path_buf(),
        what,
        source: Some(source),
    };
    let device = match open_device() {
        Ok(device) => device,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = format!(
                "there is no {DEVICE}; load it with `modprobe fuse`, or start the container with --device {DEVICE} \
                 --cap-add SYS_ADMIN"
            );
            return Err(failed(what, error));
        }
        // The helper opens it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return attach_by_helper(mountpoint, source, allow_other);
        }
        Err(error) => return Err(failed(format!("{DEVICE} cannot be opened"), error)),
    };
    let mode = fs::metadata(mountpoint)
        .map_err(|error| Error::io(mountpoint, "looking at the mount point", error))?
        .mode();
    let mut options = format!(
        "fd={},rootmode={mode:o},user_id={},group_id={},default_permissions,subtype=modelseal",
        device.as_raw_fd(),
        getuid().as_raw(),
        getgid().as_raw(),
    );
    if allow_other {
        options += ",allow_other";
    }
    let options = CString::new(options).unwrap_or_default();
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    match mount(source, mountpoint, "fuse", flags, &*options) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => attach_by_helper(mountpoint, source, allow_other),
        Err(error) => Err(failed("the system refuses".to_owned(), error.into())),
    }
}

/// Has `fusermount3` mount, which may do that for everybody.
fn attach_by_helper(mountpoint: &Path, source: &str, allow_other: bool) -> Result<OwnedFd> {
    let failed = |what: String, source| Error::Mount {
        path: mountpoint.to_path_buf(),
        what,
        source,
    };
    let escaped = source.replace('\\', "\\\\").replace(',', "\\,");
    let mut options =
        format!("ro,nosuid,nodev,noatime,default_permissions,subtype=modelseal,fsname={escaped}");
    if allow_other {
        options += ",allow_other";
    }
    for helper in HELPERS {
        let pair =
            UnixStream::pair().map_err(|error| failed("no socket can be made".to_owned(), Some(error)))?;
        let (ours, theirs) = pair;
        let child = Command::new(helper)
            .args([OsStr::new("-o"), OsStr::new(&options), OsStr::new("--")])
            .arg(mountpoint)
            .env(HELPER_SOCKET, "0")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(format!("{helper} cannot be started"), Some(error))),
        };
        let received = receive(&ours);
        drop(ours);
        let mut said = Vec::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_end(&mut said);
        }
        let _ = child.wait();
        return received.ok_or_else(|| {
            let said = String::from_utf8_lossy(&said);
            let mut what = format!("{helper} does not mount it: {}", said.trim());
            if said.contains("user_allow_other") {
                what += "; --allow-other is for root alone until a line `user_allow_other` is in there";
            }
            failed(what, None)
        });
    }
    let what = "this user may not mount, and fusermount3, which could, is not installed: install fuse3, or mount as \
                root";
    Err(failed(what.to_owned(), None))
}

/// The descriptor that the helper sends; none where it fails.
fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    loop {
        let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags);
        match received {
            Err(Errno::INTR) => {}
            Err(_) => return None,
            Ok(_) => break,
        }
    }
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}
