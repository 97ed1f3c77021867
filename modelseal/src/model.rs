//! A sealed model, open for reading.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;
use chunk_cipher::store::{LocalStore, ReadMode};
use chunk_cipher::{Buffer, Engine};
use gocryptfs_core::{Conf, MasterKey, Vault, read_conf, replace_conf};

use crate::error::{Error, Result};
use crate::file::SealedFile;
use crate::key::Key;

/// How a model is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Memory that the model's scrypt parameters may ask for, in bytes: 1 GiB unless set.
    pub scrypt_memory: u64,
    /// How stored bytes are read.
    pub read_mode: ReadMode,
    /// The threads that decrypt.
    pub engine: Engine,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            scrypt_memory: DEFAULT_SCRYPT_MEMORY,
            read_mode: ReadMode::Auto,
            engine: Engine::default(),
        }
    }
}

/// A sealed model, unlocked. Any number of threads may share it.
#[derive(Debug)]
pub struct Model {
    pub(crate) location: PathBuf,
    pub(crate) stored: Stored,
}

/// The format that a model is stored in.
#[derive(Debug)]
pub(crate) enum Stored {
    Vault(Vault<LocalStore>),
}

impl Model {
    /// Unlocks the model in the directory at `path`.
    ///
    /// # Errors
    /// [`Error::NotSealed`] where there is none, [`Error::Incomplete`] where sealing it was interrupted,
    /// [`Error::Vault`] where the key is wrong or something is damaged.
    pub fn open(path: &Path, key: Key, options: &OpenOptions) -> Result<Self> {
        let store = open_store(path)?.read_mode(options.read_mode);
        let conf = conf(&store, path)?;
        let (vault, _) = unlock(store, conf, key, options).map_err(Error::vault(path))?;
        Ok(Self {
            location: path.to_path_buf(),
            stored: Stored::Vault(vault),
        })
    }

    /// What is known of the model in the directory at `path` without a key.
    ///
    /// # Errors
    /// [`Error::NotSealed`] where there is none.
    pub fn inspect(path: &Path) -> Result<Conf> {
        conf(&open_store(path)?, path)
    }

    /// Unwraps the master key of the model in the directory at `path`, to be exported.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn master_key(path: &Path, key: Key, options: &OpenOptions) -> Result<MasterKey> {
        let store = open_store(path)?;
        let conf = conf(&store, path)?;
        let (_, master) = unlock(store, conf, key, options).map_err(Error::vault(path))?;
        Ok(master)
    }

    /// Where the model lies.
    #[must_use]
    pub fn location(&self) -> &Path {
        &self.location
    }

    /// The engine that reads content.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        match &self.stored {
            Stored::Vault(vault) => vault.engine(),
        }
    }

    /// Opens the file at `path` in the model.
    ///
    /// # Errors
    /// [`Error::Vault`] where there is none, or it cannot be opened.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<SealedFile> {
        self.open_file(&self.lookup(path)?)
    }

    /// The whole file at `path` in the model, in memory prepared for its size.
    ///
    /// # Errors
    /// As [`Model::file`], and where a chunk is damaged or memory is short.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Buffer> {
        let file = self.file(path)?;
        let short = |source| Error::io(&self.location.join(file.path()), "making room for", source);
        let len = usize::try_from(file.len()).map_err(|_| short(io::ErrorKind::OutOfMemory.into()))?;
        let mut plain = Buffer::new(len).map_err(short)?;
        file.read_into(0, &mut plain)?;
        Ok(plain)
    }
}

/// Wraps the master key of the model at `path` under a new key, with a new salt, in one step. The content stays as
/// it is, so whoever has the old key and the old conf can still read it.
///
/// # Errors
/// As [`Model::open`], and [`Error::KeyKind`] where `new_key` is no password. The old conf is in place then.
pub fn change_password(
    path: &Path,
    key: Key,
    new_key: &Key,
    scrypt_log_n: Option<u8>,
    options: &OpenOptions,
) -> Result<()> {
    let store = open_store(path)?;
    lock(&store, path)?;
    let mut conf = conf(&store, path)?;
    let (_, master) = unlock(store.clone(), conf.clone(), key, options).map_err(Error::vault(path))?;
    conf.change_password(&master, new_key.password()?, scrypt_log_n)
        .map_err(Error::vault(path))?;
    replace_conf(&store, &conf).map_err(Error::vault(path))
}

/// Unlocks a vault. A password is checked by the conf, a master key by something that was sealed under it.
fn unlock(
    store: LocalStore,
    conf: Conf,
    key: Key,
    options: &OpenOptions,
) -> gocryptfs_core::Result<(Vault<LocalStore>, MasterKey)> {
    let checked_by_conf = key.is_password();
    let master = key.unlock(&conf, options.scrypt_memory)?;
    let vault = Vault::open(store, conf, &master, options.engine.clone())?;
    if !checked_by_conf {
        vault.check_key()?;
    }
    Ok((vault, master))
}

/// Makes the directory at `path` where it is missing, for its owner alone until it is complete.
pub(crate) fn make_destination(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|source| Error::io(path, "making the directory", source)),
    }
}

/// Makes sure that no other run writes to the directory at `path` for as long as `store` lives.
pub(crate) fn lock(store: &LocalStore, path: &Path) -> Result<()> {
    match store.lock() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Busy {
            path: path.to_path_buf(),
        }),
        Err(source) => Err(Error::io(path, "locking", source)),
    }
}

pub(crate) fn open_store(path: &Path) -> Result<LocalStore> {
    LocalStore::open(path).map_err(|source| Error::io(path, "opening the directory", source))
}

fn conf(store: &LocalStore, path: &Path) -> Result<Conf> {
    read_conf(store).map_err(|error| match error {
        gocryptfs_core::Error::NotAVault { .. } => Error::NotSealed {
            path: path.to_path_buf(),
        },
        gocryptfs_core::Error::Incomplete { .. } => Error::Incomplete {
            path: path.to_path_buf(),
        },
        other => Error::Vault {
            path: path.to_path_buf(),
            source: other,
        },
    })
}
