//! A directory tree with something of everything, written as a vault.
#![allow(dead_code)] // Not every test needs all of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chunk_cipher::store::{Attributes, Kind, Xattr};
use gocryptfs_core::{Conf, Flags, Result, Vault};

use super::memory::MemoryStore;
use super::vault::{bytes, conf, open, write, writer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    File(Vec<u8>),
    Dir,
    Symlink(Vec<u8>),
}

impl Item {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::File(_) => Kind::File,
            Self::Dir => Kind::Dir,
            Self::Symlink(_) => Kind::Symlink,
        }
    }

    /// Length of the plaintext.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File(plain) | Self::Symlink(plain) => plain.len() as u64,
            Self::Dir => 0,
        }
    }
}

/// A name of 255 bytes.
pub(crate) fn long() -> String {
    "l".repeat(255)
}

/// Every path with what is there.
pub(crate) fn sample() -> BTreeMap<PathBuf, Item> {
    let file = |len| Item::File(bytes(len));
    let raw = Path::new(OsStr::from_bytes(b"not \xff Unicode\n")).to_path_buf();
    BTreeMap::from([
        (raw, file(10)),
        ("a".into(), Item::Dir),
        ("a/config.json".into(), file(4096)),
        ("a/deep".into(), Item::Dir),
        ("a/deep/model.safetensors".into(), file(3 * 4096 + 1)),
        ("a/empty".into(), file(0)),
        ("a/sixteen bytes at".into(), file(1)),
        ("b".into(), file(5000)),
        ("b c".into(), Item::Dir),
        ("link".into(), Item::Symlink(b"a/../../out \xff of it".to_vec())),
        (long().into(), Item::Dir),
        (Path::new(&long()).join(long()), file(20)),
        (
            Path::new(&long()).join(&long()[1..]),
            Item::Symlink(vec![b't'; 3000]),
        ),
        // The first that is long by default, and the last that is not.
        ("x".repeat(175).into(), file(3)),
        ("x".repeat(176).into(), file(4)),
    ])
}

pub(crate) fn xattrs() -> Vec<Xattr> {
    vec![
        (b"system.posix_acl_access".to_vec(), b"\x02\0\0\0list".to_vec()),
        (b"user.empty".to_vec(), Vec::new()),
        (b"user.mime/type".to_vec(), b"application/octet-stream".to_vec()),
    ]
}

pub(crate) fn attributes(mode: u32) -> Attributes {
    Attributes {
        mode: Some(mode),
        modified: Some(SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789)),
        xattrs: xattrs(),
    }
}

/// The sample as a vault with these flags.
pub(crate) fn sample_vault(flags: Flags, long_name_max: u8) -> Result<(MemoryStore, Vault<MemoryStore>)> {
    let store = MemoryStore::new();
    let conf = conf(flags, long_name_max);
    write_sample(&store, &conf)?;
    let vault = open(&store, &conf);
    Ok((store, vault))
}

pub(crate) fn write_sample(store: &MemoryStore, conf: &Conf) -> Result<()> {
    let writer = writer(store, conf)?;
    let mut dirs = BTreeMap::from([(PathBuf::new(), writer.root()?)]);
    for (path, item) in sample() {
        let parent = &dirs[path.parent().expect("not the root")];
        let name = path.file_name().expect("not the root").as_bytes();
        match item {
            Item::Dir => {
                let made = writer.create_dir(parent, name)?;
                dirs.insert(path, made);
            }
            Item::File(plain) => write(&writer, parent, name, &plain, &attributes(0o640))?,
            Item::Symlink(target) => writer.write_symlink(parent, name, &target, &attributes(0))?,
        }
    }
    dirs.remove(Path::new(""));
    for dir in dirs.into_values() {
        writer.finish_dir(&dir, &attributes(0o750))?;
    }
    writer.finish(&attributes(0o755))
}
