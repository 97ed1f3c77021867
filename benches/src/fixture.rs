//! The data that is measured: a file of random bytes, and a vault that our own writer made of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use chunk_cipher::store::{Attributes, LocalStore, ReadMode, Source, Store};
use gocryptfs_core::{Conf, ConfOptions, MasterKey, Vault, VaultFile, VaultWriter};
use modelseal::{Engine, Key, Model, OpenOptions, SealFormat, SealOptions};
use rustix::fs::Advice;
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::error::Result;
use crate::interrupt;

mod loaded;
mod package;
mod server;
mod tree;
mod web;

pub use loaded::{Loaded, LoadedStore};
pub(crate) use package::{PACKAGE, many_files, one_file, package_options};
pub(crate) use server::Server;
pub use tree::Tree;
pub(crate) use web::{Distance, Web};

/// The password of every vault made here. What they hold is worth nothing.
pub const PASSWORD: &str = "benchmark";

/// The name of the big file.
pub const FILE: &str = "weights.bin";

/// Cost of scrypt where it is not what is measured: the least that there is.
pub const FAST_LOG_N: u8 = 10;

/// Bytes copied and compared at a time.
const STEP: usize = 4 << 20;

/// A directory of our own, removed when dropped.
pub(crate) fn temp_dir(parent: &Path) -> Result<TempDir> {
    let made = TempDir::with_prefix_in("modelseal-bench-", parent);
    made.map_err(|error| format!("making a directory in {}: {error}", parent.display()).into())
}

/// The password as a key.
#[must_use]
pub fn key() -> Key {
    Key::from_password(Zeroizing::new(PASSWORD.as_bytes().to_vec()))
}

/// How vaults are sealed whose scrypt is not what is measured.
pub(crate) fn seal_options() -> SealOptions {
    SealOptions {
        format: SealFormat::Gocryptfs(conf_options()),
        ..SealOptions::default()
    }
}

fn conf_options() -> ConfOptions {
    ConfOptions {
        scrypt_log_n: FAST_LOG_N,
        ..ConfOptions::default()
    }
}

/// A plain file and its vault in one directory, removed when dropped.
#[derive(Debug)]
pub struct Sample {
    dir: TempDir,
    len: usize,
}

impl Sample {
    /// Writes `len` random bytes and seals them, in a new directory in `parent`; both files are in the page cache
    /// then.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn make(parent: &Path, len: usize) -> Result<Self> {
        let sample = Self {
            dir: temp_dir(parent)?,
            len,
        };
        fs::create_dir(sample.plain_dir())?;
        write_random(&sample.plain(), len)?;
        modelseal::seal(&sample.plain_dir(), &sample.vault(), &key(), &seal_options(), &())?;
        for path in [sample.plain(), sample.sealed()?] {
            forget(&path)?;
        }
        sample.warm_up()?;
        Ok(sample)
    }

    /// Length of the file in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // Never empty.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The directory, for more files that go with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory with the plain file.
    #[must_use]
    pub fn plain_dir(&self) -> PathBuf {
        self.dir().join("plain")
    }

    /// The plain file.
    #[must_use]
    pub fn plain(&self) -> PathBuf {
        self.plain_dir().join(FILE)
    }

    /// The vault.
    #[must_use]
    pub fn vault(&self) -> PathBuf {
        self.dir().join("vault")
    }

    /// The stored file in the vault.
    pub(crate) fn sealed(&self) -> Result<PathBuf> {
        let entry = self.open(ReadMode::Auto)?.lookup(FILE)?;
        Ok(self.vault().join(entry.stored_path()))
    }

    /// The vault, unlocked.
    ///
    /// # Errors
    /// Where that fails.
    pub fn open(&self, read_mode: ReadMode) -> Result<Model> {
        let options = OpenOptions {
            read_mode,
            ..OpenOptions::default()
        };
        Ok(Model::open(&self.vault(), key(), &options)?)
    }

    /// Brings all files into the page cache, as reading does.
    pub(crate) fn warm_up(&self) -> Result<()> {
        let mut buf = vec![0; STEP];
        let packed = Some(self.packed()).filter(|path| path.exists());
        for path in [self.plain(), self.sealed()?].into_iter().chain(packed) {
            let mut file = File::open(path)?;
            while file.read(&mut buf)? > 0 {}
        }
        Ok(())
    }

    /// Fails unless the file at `path` is the plain one, byte for byte.
    pub(crate) fn expect_plain(&self, path: &Path) -> Result<()> {
        let (plain, other) = (File::open(self.plain())?, File::open(path)?);
        if other.metadata()?.len() != plain.metadata()?.len() {
            return Err(format!("{} differs in length from the plain file", path.display()).into());
        }
        let (mut left, mut right) = (vec![0; STEP], vec![0; STEP]);
        for start in (0..self.len).step_by(STEP) {
            let part = ..STEP.min(self.len - start);
            plain.read_exact_at(&mut left[part], start as u64)?;
            other.read_exact_at(&mut right[part], start as u64)?;
            if left[part] != right[part] {
                return Err(format!("{} differs from the plain file", path.display()).into());
            }
        }
        Ok(())
    }

    /// Fails unless `bytes` are those of the plain file.
    pub(crate) fn expect_bytes(&self, bytes: &[u8]) -> Result<()> {
        let plain = File::open(self.plain())?;
        let mut buf = vec![0; STEP];
        for (n, part) in bytes.chunks(STEP).enumerate() {
            plain.read_exact_at(&mut buf[..part.len()], (n * STEP) as u64)?;
            if buf[..part.len()] != *part {
                return Err("what was read differs from the plain file".into());
            }
        }
        Ok(())
    }
}

/// Writes a file of `len` random bytes.
pub(crate) fn write_random(path: &Path, len: usize) -> Result<()> {
    let mut file = File::create(path)?;
    let mut buf = vec![0; STEP];
    for start in (0..len).step_by(STEP) {
        let part = &mut buf[..STEP.min(len - start)];
        interrupt::check()?;
        chunk_cipher::random::fill(part)?;
        file.write_all(part)?;
    }
    Ok(())
}

/// Drops a file from the page cache where it also lies on a disk, so that the cache is filled by reading, as it is
/// for whoever did not write the file.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(())
}

/// The master key of the vaults that are written file by file.
pub const MASTER_KEY: [u8; 32] = [7; 32];

/// A vault under [`MASTER_KEY`] with one file, whose stored bytes are in memory.
#[derive(Debug)]
pub struct Small {
    vault: Vault<LoadedStore>,
    store: LoadedStore,
    _dir: TempDir,
}

impl Small {
    /// Makes a vault with a file of `len` random bytes.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn make(len: usize, engine: Engine) -> Result<Self> {
        let dir = temp_dir(&std::env::temp_dir())?;
        let (store, conf, master) = new_vault(dir.path())?;
        let writer = VaultWriter::create(store.clone(), &conf, &master, engine.clone())?;
        let mut plain = vec![0; len];
        chunk_cipher::random::fill(&mut plain)?;
        let root = writer.root()?;
        write(&writer, &root, FILE.as_bytes(), &Loaded(plain.into()))?;
        writer.finish(&Attributes::default())?;
        let store = LoadedStore::new(store);
        let vault = Vault::open(store.clone(), conf, &master, engine)?;
        Ok(Self {
            vault,
            store,
            _dir: dir,
        })
    }

    /// The file.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn file(&self) -> Result<VaultFile<Loaded>> {
        Ok(self.vault.open_file(&self.vault.lookup(Path::new(FILE))?)?)
    }

    /// The file as it is stored: the very bytes that [`Self::file`] reads.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn stored(&self) -> Result<Loaded> {
        let entry = self.vault.lookup(Path::new(FILE))?;
        Ok(self.store.open(entry.stored_path())?)
    }
}

/// What a vault under [`MASTER_KEY`] in the directory `dir` is made of.
pub(crate) fn new_vault(dir: &Path) -> Result<(LocalStore, Conf, MasterKey)> {
    let master = MasterKey::from_bytes(&MASTER_KEY);
    let conf = Conf::create(PASSWORD.as_bytes(), &master, &conf_options())?;
    Ok((LocalStore::open(dir)?, conf, master))
}

/// Seals `content` as a file of a vault.
pub(crate) fn write(
    writer: &VaultWriter<LocalStore>,
    dir: &gocryptfs_core::WriteDir,
    name: &[u8],
    content: &Loaded,
) -> Result<()> {
    let attributes = Attributes::default();
    let len = content.0.len() as u64;
    let source = Source {
        content,
        len,
        attributes: &attributes,
        unchanged: &|| true,
    };
    Ok(writer.write_file(dir, name, &source, &())?)
}
