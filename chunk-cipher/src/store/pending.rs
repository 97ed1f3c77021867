//! Writing to a local directory: every file complete or not there at all.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};

use super::{Attributes, Kind, LocalStore, PendingFile, Store, WriteAt, WriteStore};
use crate::random;

/// How the names of uncommitted files start. They lie in the root directory of their store.
const PREFIX: &str = ".chunk-cipher-pending-";

impl WriteStore for LocalStore {
    type Pending = LocalPending;

    fn create(&self, path: &Path) -> io::Result<LocalPending> {
        let mut id = [0; 8];
        random::fill(&mut id).map_err(io::Error::other)?;
        let name = format!("{PREFIX}{:016x}", u64::from_le_bytes(id));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&*self.root, &name, flags, Mode::RUSR | Mode::WUSR)?);
        Ok(LocalPending {
            store: self.clone(),
            path: path.to_path_buf(),
            name,
            file,
            committed: false,
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(fs::mkdirat(&parent, name, Mode::RWXU)?)
    }

    fn create_symlink(&self, target: &[u8], path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(fs::symlinkat(target, &parent, name)?)
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        if matches!(self.metadata(path)?.kind, Kind::File | Kind::Dir) {
            let fd = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
            return set_attributes(fd.as_fd(), attributes);
        }
        // A symbolic link has no permissions and no user attributes of its own; a device is not opened for them.
        if let Some(modified) = attributes.modified {
            fs::utimensat(&parent, name, &timestamps(modified), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn supports_xattrs(&self) -> bool {
        // Only trying tells: some file systems list attributes but take none of the user's.
        self.create(Path::new("")).is_ok_and(|pending| {
            fs::fsetxattr(&pending.file, "user.chunk-cipher", b"1", XattrFlags::empty()).is_ok()
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(fs::unlinkat(&parent, name, AtFlags::empty())?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from) = self.parent(from)?;
        let (to_dir, to) = self.parent(to)?;
        Ok(fs::renameat(&from_dir, from, &to_dir, to)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::syncfs(&*self.root)?)
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        for (name, kind) in self.list(Path::new(""))? {
            if kind == Kind::File && name.as_bytes().starts_with(PREFIX.as_bytes()) {
                self.remove_file(Path::new(&name))?;
            }
        }
        Ok(())
    }
}

/// A file that is being written under a temporary name.
pub struct LocalPending {
    store: LocalStore,
    path: PathBuf,
    name: String,
    file: File,
    committed: bool,
}

impl WriteAt for LocalPending {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    /// The file is new, so whatever is not written reads as zeros once its length is set.
    fn write_zeros_at(&self, _: u64, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

impl PendingFile for LocalPending {
    fn commit(mut self, attributes: &Attributes) -> io::Result<()> {
        set_attributes(self.file.as_fd(), attributes)?;
        let (parent, name) = self.store.parent(&self.path)?;
        let renamed = fs::renameat_with(
            &*self.store.root,
            &self.name,
            &parent,
            name,
            RenameFlags::NOREPLACE,
        );
        match renamed {
            // A file system without that flag (NFS, some FUSE).
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                match fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(rustix::io::Errno::NOENT) => {}
                    Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                    Err(error) => return Err(error.into()),
                }
                fs::renameat(&*self.store.root, &self.name, &parent, name)?;
            }
            renamed => renamed?,
        }
        self.committed = true;
        Ok(())
    }
}

impl Drop for LocalPending {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::unlinkat(&*self.store.root, &self.name, AtFlags::empty());
        }
    }
}

impl fmt::Debug for LocalPending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPending")
            .field("path", &self.path)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Sets attributes of an open file or directory; the permissions last, as they may take away the right to.
fn set_attributes(fd: std::os::fd::BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
    for (name, value) in &attributes.xattrs {
        fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty())?;
    }
    if let Some(mode) = attributes.mode {
        fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))?;
    }
    if let Some(modified) = attributes.modified {
        fs::futimens(fd, &timestamps(modified))?;
    }
    Ok(())
}

/// The time of modification, leaving the time of access as it is.
fn timestamps(modified: SystemTime) -> Timestamps {
    let (seconds, nanoseconds) = match modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(error) => {
            let before = error.duration();
            let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanoseconds => (seconds - 1, 1_000_000_000 - nanoseconds),
            }
        }
    };
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        },
    }
}
