//! Directories of the local file system.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use super::mapped::Mapping;
use super::{Kind, Metadata, ReadAt, Store, Windows, Xattr};

/// How often an open that was disturbed is tried again.
const RETRIES: usize = 64;

/// How files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// Large reads borrow the page cache where that is safe, and copy elsewhere.
    #[default]
    Auto,
    /// Every read copies.
    Copy,
}

/// The open directory itself, and the lock that is held on it.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    locked_by: OnceLock<Pid>,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for Root {
    /// Unlocks. Closing alone would not while a child that is being started still has its copy of the descriptor; and a
    /// child that goes on with a copy of this value must not unlock what its parent holds.
    fn drop(&mut self) {
        if self.locked_by.get() == Some(&getpid()) {
            let _ = fs::flock(&self.dir, FlockOperation::Unlock);
        }
    }
}

/// A directory of the local file system. Nothing outside of it is ever opened, whatever links it holds.
#[derive(Clone, Debug)]
pub struct LocalStore {
    pub(super) root: Arc<Root>,
    mode: ReadMode,
}

impl LocalStore {
    /// The directory at `path`; links that lead to it are followed.
    ///
    /// # Errors
    /// Where there is no directory, or it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(path.as_ref(), flags, Mode::empty())?;
        Ok(Self {
            root: Arc::new(Root {
                dir: root,
                locked_by: OnceLock::new(),
            }),
            mode: ReadMode::Auto,
        })
    }

    /// The same directory, its files read in this way.
    #[must_use]
    pub fn read_mode(self, mode: ReadMode) -> Self {
        Self { mode, ..self }
    }

    /// Opens `path` itself, never what a link points to.
    pub(super) fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        check_beneath(path)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RETRIES {
            match fs::openat2(&*self.root, path, flags, Mode::empty(), resolve) {
                // A rename elsewhere got in the way, and the kernel asks to try again; or somebody holds a lease.
                Err(Errno::AGAIN | Errno::INTR) => {}
                // An old kernel, a sandbox that does not know the call, or a path longer than one call takes.
                Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => break,
                other => return Ok(other?),
            }
        }
        self.open_stepwise(path, flags)
    }

    /// Makes sure that nobody else writes here by way of this method, for as long as a clone of this value lives.
    /// Returns whether that is so.
    ///
    /// # Errors
    /// Whatever the system reports; nothing where its file system has no locks.
    pub fn lock(&self) -> io::Result<bool> {
        match fs::flock(&*self.root, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.root.locked_by.get_or_init(getpid);
                Ok(true)
            }
            Err(Errno::NOTSUP | Errno::INVAL | Errno::NOSYS | Errno::NOLCK) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Self::open_at`] where the system has no call for it: one component after another.
    fn open_stepwise(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let step = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let (parent, name) = split(path);
        let mut dir: Option<OwnedFd> = None;
        for part in parent.components() {
            let at = dir.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let next = fs::openat(at, part.as_os_str(), step, Mode::empty())?;
            dir = Some(next);
        }
        let at = dir.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        Ok(fs::openat(at, name, flags, Mode::empty())?)
    }

    /// The directory that holds `path`, and its name in there.
    pub(super) fn parent<'a>(&self, path: &'a Path) -> io::Result<(Parent<'_>, &'a OsStr)> {
        check_beneath(path)?;
        let (parent, name) = split(path);
        if parent.as_os_str().is_empty() {
            return Ok((Parent::Root(self.root.as_fd()), name));
        }
        let dir = self.open_at(parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok((Parent::Dir(dir), name))
    }
}

/// Refuses paths that could leave the directory, by `..` or from the root.
fn check_beneath(path: &Path) -> io::Result<()> {
    if path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "path leaves the directory",
    ))
}

/// The directory part of a path and its last component; `.` for the empty path.
fn split(path: &Path) -> (&Path, &OsStr) {
    let name = path.file_name().unwrap_or(OsStr::new("."));
    (path.parent().unwrap_or(Path::new("")), name)
}

/// A directory, borrowed or just opened.
pub(super) enum Parent<'a> {
    Root(BorrowedFd<'a>),
    Dir(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Dir(fd) => fd.as_fd(),
        }
    }
}

impl Store for LocalStore {
    type File = LocalFile;

    fn open(&self, path: &Path) -> io::Result<LocalFile> {
        // Without O_NONBLOCK a pipe would wait here for a writer.
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        LocalFile::new(File::from(fd), self.mode)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let (parent, name) = self.parent(path)?;
        let stat = fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Metadata {
            kind: kind(FileType::from_raw_mode(stat.st_mode)),
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & 0o7777,
            modified: system_time(stat.st_mtime, stat.st_mtime_nsec),
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in fs::Dir::new(fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => self.metadata(&path.join(name))?.kind,
                known => kind(known),
            };
            entries.push((name.to_os_string(), kind));
        }
        Ok(entries)
    }

    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (parent, name) = self.parent(path)?;
        Ok(fs::readlinkat(&parent, name, Vec::new())?.into_bytes())
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>> {
        if !matches!(self.metadata(path)?.kind, Kind::File | Kind::Dir) {
            // The kernel keeps user attributes off everything else, and opening a device may have effects.
            return Ok(Vec::new());
        }
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        read_xattrs(fd)
    }
}

/// All extended attributes of an open file or directory; none where the file system has no such thing.
///
/// # Errors
/// Where they cannot be read.
pub fn read_xattrs(file: impl AsFd) -> io::Result<Vec<Xattr>> {
    let fd = file.as_fd();
    let names = match grown(|buf| fs::flistxattr(fd, buf)) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut xattrs = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match grown(|buf| fs::fgetxattr(fd, name, buf)) {
            Ok(value) => xattrs.push((name.to_vec(), value)),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(xattrs)
}

/// Calls `read` with larger and larger buffers until what it reads fits.
fn grown(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buf = vec![0; 1024];
    loop {
        match read(&mut buf) {
            // Linux allows no list and no value over 64 KiB.
            Err(Errno::RANGE) if buf.len() < 1 << 20 => buf.resize(buf.len() * 4, 0),
            Err(error) => return Err(error),
            Ok(len) => {
                buf.truncate(len);
                return Ok(buf);
            }
        }
    }
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    }
}

/// A time as `stat` gives it. Times that `SystemTime` cannot hold become the epoch.
fn system_time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    };
    time.and_then(|time| time.checked_add(Duration::from_nanos(nanoseconds)))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A regular file of the local file system, open for reading.
pub struct LocalFile {
    file: File,
    mode: ReadMode,
    /// Made by the first large read; none where that is not safe.
    mapping: OnceLock<Option<Mapping>>,
    process: u32,
}

impl LocalFile {
    /// Takes an open regular file.
    ///
    /// # Errors
    /// Where it is not a regular file.
    pub fn new(file: File, mode: ReadMode) -> io::Result<Self> {
        if !file.metadata()?.file_type().is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self {
            file,
            mode,
            mapping: OnceLock::new(),
            process: std::process::id(),
        })
    }

    /// The file itself.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }
}

impl ReadAt for LocalFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn windows(&self) -> Option<Box<dyn Windows + '_>> {
        // A forked child would share the lease with its parent, and could give it up under its feet.
        if self.mode == ReadMode::Copy || self.process != std::process::id() {
            return None;
        }
        let mapping = self.mapping.get_or_init(|| Mapping::new(&self.file)).as_ref()?;
        Some(Box::new(mapping.lease(&self.file)?))
    }
}

impl fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFile")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    type Open = fn(&LocalStore, &Path, OFlags) -> io::Result<OwnedFd>;

    /// With the system's own call for it, where there is one, and without.
    const WAYS: [Open; 2] = [LocalStore::open_at, |store, path, flags| {
        check_beneath(path)?;
        store.open_stepwise(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW)
    }];

    #[test]
    fn store_both_ways_to_open_agree() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), b"content").unwrap();
        std::fs::write(temp.path().join("secret"), b"secret").unwrap();
        symlink("b", root.join("a/link")).unwrap();
        symlink("a/b/file", root.join("to-file")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let store = LocalStore::open(&root).unwrap();
        for open in WAYS {
            for path in ["a/b/file", "./a//b/./file"] {
                let mut text = String::new();
                let fd = open(&store, Path::new(path), OFlags::RDONLY).unwrap();
                File::from(fd).read_to_string(&mut text).unwrap();
                assert_eq!(text, "content");
            }
            for path in [".", "a", "a/b", "a/b/"] {
                open(&store, Path::new(path), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
            }
            for (path, expected) in [
                ("to-file", &[libc::ELOOP][..]),
                // A link where a directory must be.
                ("up/secret", &[libc::ELOOP, libc::ENOTDIR]),
                ("a/link/file", &[libc::ELOOP, libc::ENOTDIR]),
                ("a/b/file/x", &[libc::ENOTDIR]),
                ("a/none", &[libc::ENOENT]),
            ] {
                let error = open(&store, Path::new(path), OFlags::RDONLY).unwrap_err();
                assert!(
                    expected.contains(&error.raw_os_error().unwrap()),
                    "{path}: {error:?}"
                );
            }
            for path in ["../secret", "a/../../secret", "a/..", "/etc/passwd"] {
                let error = open(&store, Path::new(path), OFlags::RDONLY).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
            }
        }
    }

    /// A child that is being started has a copy of every descriptor until its program runs.
    #[test]
    fn local_lock_ends_with_its_store() {
        let temp = tempfile::tempdir().unwrap();
        let other = LocalStore::open(temp.path()).unwrap();
        let store = LocalStore::open(temp.path()).unwrap();
        assert!(store.lock().unwrap());
        let copy = store.root.dir.try_clone().unwrap();
        let clone = store.clone();
        drop(store);
        assert!(!other.lock().unwrap());
        drop(clone);
        assert!(other.lock().unwrap());
        drop(copy);
    }
}
