//! Where resources lie: a directory or memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdirat, open, openat, renameat, unlinkat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::BODY_MAX;
use crate::resource::ResourceUri;

/// The resources.
#[derive(Debug)]
pub(super) enum Store {
    Memory(Mutex<HashMap<ResourceUri, Zeroizing<Vec<u8>>>>),
    /// `repository/type/tag` below a directory. No link on the way is followed.
    Directory(OwnedFd),
}

impl Store {
    pub(super) fn memory() -> Self {
        Self::Memory(Mutex::default())
    }

    pub(super) fn directory(path: &Path) -> io::Result<Self> {
        // The directory itself may be reached by a link: it was named by who started the broker.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::Directory(open(path, flags, Mode::empty())?))
    }

    /// A resource, in memory that is wiped.
    pub(super) fn get(&self, name: &ResourceUri) -> io::Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Memory(resources) => {
                let resources = resources.lock().unwrap_or_else(PoisonError::into_inner);
                let found = resources.get(name).ok_or(io::ErrorKind::NotFound)?;
                Ok(Zeroizing::new(found.to_vec()))
            }
            Self::Directory(root) => {
                let dir = enter(enter(root, name.repository())?, name.kind())?;
                // What is no file must not make the broker wait for its other end.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                read(openat(dir, name.tag(), flags, Mode::empty())?)
            }
        }
    }

    /// Stores a resource, whole or not at all.
    pub(super) fn set(&self, name: &ResourceUri, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(resources) => {
                let mut resources = resources.lock().unwrap_or_else(PoisonError::into_inner);
                resources.insert(name.clone(), Zeroizing::new(content.to_vec()));
                Ok(())
            }
            Self::Directory(root) => {
                let dir = enter_or_make(enter_or_make(root, name.repository())?, name.kind())?;
                write(&dir, name.tag(), content)
            }
        }
    }

    pub(super) fn delete(&self, name: &ResourceUri) -> io::Result<()> {
        match self {
            Self::Memory(resources) => {
                let mut resources = resources.lock().unwrap_or_else(PoisonError::into_inner);
                let removed = resources.remove(name);
                removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            Self::Directory(root) => {
                let dir = enter(enter(root, name.repository())?, name.kind())?;
                Ok(unlinkat(dir, name.tag(), AtFlags::empty())?)
            }
        }
    }
}

fn enter(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

fn enter_or_make(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    match mkdirat(&dir, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => enter(dir, name),
        Err(error) => Err(error.into()),
    }
}

/// The content of a regular file, up to what one answer may hold.
fn read(file: OwnedFd) -> io::Result<Zeroizing<Vec<u8>>> {
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a file"));
    }
    let too_long = || io::Error::from(io::ErrorKind::FileTooLarge);
    let len = usize::try_from(stat.st_size)
        .ok()
        .filter(|len| *len <= BODY_MAX)
        .ok_or_else(too_long)?;
    // One byte more, so that a file that grows meanwhile is noticed and the buffer never moves.
    let mut content = Zeroizing::new(vec![0; len + 1]);
    let mut file = File::from(file);
    let mut filled = 0;
    loop {
        match file.read(&mut content[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled > len {
        return Err(io::Error::other("it changed while it was read"));
    }
    content.truncate(filled);
    Ok(content)
}

fn write(dir: &OwnedFd, name: &str, content: &[u8]) -> io::Result<()> {
    let mut random = [0; 8];
    let _ = rand::fill(&mut random);
    // No resource has a name with a dot in front.
    let pending = format!(".{:016x}", u64::from_ne_bytes(random));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(dir, &pending, flags, Mode::RUSR | Mode::WUSR)?);
    let written = file
        .write_all(content)
        .and_then(|()| Ok(renameat(dir, &pending, dir, name)?));
    if written.is_err() {
        let _ = unlinkat(dir, &pending, AtFlags::empty());
    }
    written
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn name(path: &str) -> ResourceUri {
        ResourceUri::from_path(path).unwrap()
    }

    #[test]
    fn resources_come_back_and_go() {
        let dir = tempfile::tempdir().unwrap();
        for store in [Store::memory(), Store::directory(dir.path()).unwrap()] {
            let (one, two) = (name("default/key/one"), name("default/key/two"));
            store.set(&one, b"first").unwrap();
            store.set(&one, b"second\n").unwrap();
            store.set(&two, b"").unwrap();
            assert_eq!(store.get(&one).unwrap().as_slice(), b"second\n");
            assert_eq!(store.get(&two).unwrap().as_slice(), b"");
            store.delete(&one).unwrap();
            for gone in [store.get(&one).map(drop), store.delete(&one)] {
                assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
            }
            assert!(store.get(&name("other/key/one")).is_err());
        }
        let file = dir.path().join("default/key/two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(file.parent().unwrap()).unwrap().count(),
            1,
            "nothing pending"
        );
    }

    #[test]
    fn nothing_outside_is_read_written_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(inside.join("r/t")).unwrap();
        fs::create_dir_all(outside.join("t")).unwrap();
        fs::write(outside.join("t/key"), "outside").unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        symlink(outside.join("t"), inside.join("r/link")).unwrap();
        symlink(outside.join("t/key"), inside.join("r/t/link")).unwrap();
        let store = Store::directory(&inside).unwrap();
        for path in ["link/t/key", "r/link/key", "r/t/link"] {
            assert!(store.get(&name(path)).is_err(), "{path}");
        }
        for path in ["link/t/key", "r/link/key"] {
            store.set(&name(path), b"written").unwrap_err();
            store.delete(&name(path)).unwrap_err();
        }
        // A link in a resource's place is replaced, not followed.
        store.set(&name("r/t/link"), b"written").unwrap();
        assert_eq!(store.get(&name("r/t/link")).unwrap().as_slice(), b"written");
        assert_eq!(fs::read(outside.join("t/key")).unwrap(), b"outside");
    }

    #[test]
    fn only_files_of_a_fair_size_are_resources() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("r/t/dir")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("r/t/pipe"),
            FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        let big = File::create(dir.path().join("r/t/big")).unwrap();
        big.set_len(BODY_MAX as u64 + 1).unwrap();
        let store = Store::directory(dir.path()).unwrap();
        for path in ["r/t/dir", "r/t/pipe", "r/t/big"] {
            assert!(store.get(&name(path)).is_err(), "{path}");
        }
        big.set_len(BODY_MAX as u64).unwrap();
        assert_eq!(store.get(&name("r/t/big")).unwrap().len(), BODY_MAX);
    }
}
