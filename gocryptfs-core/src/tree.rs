//! An unlocked vault: its tree of directories, files and symlinks, by their plaintext names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use chunk_cipher::Engine;
use chunk_cipher::store::{Kind, Metadata, ReadAt, Store, Xattr};

use crate::conf::{CONF_NAME, Conf};
use crate::content::{BLOCK_LEN, Content, OpenError};
use crate::error::{Error, Result, printable};
use crate::file::VaultFile;
use crate::flags::NameScheme;
use crate::keys::{Ciphers, MasterKey};
use crate::names::{
    DIR_IV_NAME, DirIv, LONG_NAME_MAX_LEN, LONG_NAME_SUFFIX, LongName, StoredName, XATTR_PREFIX, check_name,
    is_long_name, parse_long_name_file,
};

mod walk;

pub use walk::{Found, Walk};

/// What `gocryptfs.conf` is called until the vault is complete.
pub const PARTIAL_CONF_NAME: &str = "gocryptfs.conf.partial";

/// What a new `gocryptfs.conf` is called before it takes the place of the old one.
pub(crate) const NEW_CONF_NAME: &str = "gocryptfs.conf.new";

/// What the root directory may hold besides what names were encrypted to.
pub(crate) const OWN_NAMES: [&str; 3] = [CONF_NAME, PARTIAL_CONF_NAME, NEW_CONF_NAME];

/// Extended attributes that hold access control lists. They are stored as they are.
const ACL_XATTRS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Whether a vault can hold the extended attribute of this (plaintext) name: the user's, and access control lists.
#[must_use]
pub fn is_sealable_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.") || ACL_XATTRS.contains(&name)
}

/// Longest stored form of a symlink target, in bytes: base64 of 4095 bytes with nonce and tag, and to spare.
const STORED_TARGET_MAX: usize = 8192;

/// Reads a vault's `gocryptfs.conf`, which takes no key.
///
/// # Errors
/// [`Error::NotAVault`] where there is none, [`Error::Incomplete`] where the vault was never completed, or what is
/// wrong with it.
pub fn read_conf(store: &impl Store) -> Result<Conf> {
    match read_small(store, Path::new(CONF_NAME), Conf::MAX_LEN) {
        Ok(content) => Conf::parse(&content),
        Err(error) if error.is_not_found() => Err(match read_partial_conf(store)? {
            Some(_) => Error::Incomplete {
                path: PathBuf::from(PARTIAL_CONF_NAME),
            },
            None => Error::NotAVault {
                path: PathBuf::from(CONF_NAME),
            },
        }),
        Err(error) => Err(error),
    }
}

/// Reads the conf of a vault that was never completed; none where there is no such thing.
///
/// # Errors
/// What is wrong with it.
pub fn read_partial_conf(store: &impl Store) -> Result<Option<Conf>> {
    match read_small(store, Path::new(PARTIAL_CONF_NAME), Conf::MAX_LEN) {
        Ok(content) => Conf::parse(&content).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// An unlocked vault, open for reading.
#[derive(Debug)]
pub struct Vault<S> {
    store: S,
    conf: Conf,
    ciphers: Arc<Ciphers>,
    engine: Engine,
}

/// A directory of a vault.
#[derive(Clone, Debug)]
pub struct Dir {
    path: PathBuf,
    stored: PathBuf,
    iv: DirIv,
}

impl Dir {
    /// Its path from the vault's root; empty for the root itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entry that it is.
    pub(crate) fn to_entry(&self) -> Entry {
        Entry {
            path: self.path.clone(),
            stored: self.stored.clone(),
            kind: Kind::Dir,
        }
    }
}

/// An entry of a directory of a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    path: PathBuf,
    stored: PathBuf,
    kind: Kind,
}

impl Entry {
    /// Its path from the vault's root.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is stored, from the root of the store.
    #[must_use]
    pub fn stored_path(&self) -> &Path {
        &self.stored
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }
}

/// What a directory holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The entries, sorted by name.
    pub entries: Vec<Entry>,
    /// What is there but is no entry, as its name does not decrypt: the stored path, and why. gocryptfs does not
    /// show such files either.
    pub strays: Vec<(PathBuf, Error)>,
}

impl<S: Store> Vault<S> {
    /// Unlocks the vault in `store` with its master key (see [`Conf::unlock`]).
    ///
    /// # Errors
    /// [`Error::Cipher`] where a key cannot be set up.
    pub fn open(store: S, conf: Conf, master: &MasterKey, engine: Engine) -> Result<Self> {
        let ciphers = Arc::new(Ciphers::new(&conf, master)?);
        Ok(Self {
            store,
            conf,
            ciphers,
            engine,
        })
    }

    /// Where the vault is stored.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The vault's configuration.
    #[must_use]
    pub const fn conf(&self) -> &Conf {
        &self.conf
    }

    /// The engine that reads file content.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Makes sure that the master key is this vault's, where it was not unwrapped from its conf: something must open
    /// under it.
    ///
    /// # Errors
    /// [`Error::WrongMasterKey`] where nothing does although there is something; why nothing could be tried
    /// otherwise.
    pub fn check_key(&self) -> Result<()> {
        let mut wrong = false;
        let mut failed = None;
        for found in self.walk(self.root()?) {
            let opened = match found {
                Found::Entry(entry) => match entry.kind {
                    Kind::File => self.open_first_block(&entry),
                    Kind::Symlink if self.ciphers.names.scheme() != NameScheme::Plaintext => {
                        self.read_link(&entry).map(|_| true)
                    }
                    _ => Ok(false),
                },
                Found::Stray(_, error) | Found::Unreadable(_, error) => Err(error),
            };
            match opened {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(
                    Error::Name { .. }
                    | Error::Symlink { .. }
                    | Error::File {
                        source: chunk_cipher::Error::Chunk { .. },
                        ..
                    },
                ) => wrong = true,
                // Says nothing about the key, and something else may.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            _ if wrong => Err(Error::WrongMasterKey),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Opens the first block of a file. Returns whether it has one that is sealed.
    fn open_first_block(&self, entry: &Entry) -> Result<bool> {
        let file = self.open_file(entry)?;
        let mut block = [0; BLOCK_LEN];
        let len = file.read_at(0, &mut block)?;
        // Zeros may be a hole, which opens under every key.
        Ok(block[..len].iter().any(|byte| *byte != 0))
    }

    /// The root directory.
    ///
    /// # Errors
    /// [`Error::DirIv`] where its IV is missing or damaged.
    pub fn root(&self) -> Result<Dir> {
        self.dir_at(PathBuf::new(), PathBuf::new())
    }

    /// The directory that `entry` is.
    ///
    /// # Errors
    /// [`Error::DirIv`] where its IV is missing or damaged.
    pub fn dir(&self, entry: &Entry) -> Result<Dir> {
        self.dir_at(entry.path.clone(), entry.stored.clone())
    }

    fn dir_at(&self, path: PathBuf, stored: PathBuf) -> Result<Dir> {
        let iv = match self.ciphers.names.scheme() {
            NameScheme::Encrypted => read_dir_iv(&self.store, &stored)?,
            NameScheme::Deterministic | NameScheme::Plaintext => DirIv::ZERO,
        };
        Ok(Dir { path, stored, iv })
    }

    /// The entries of `dir`.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read.
    pub fn list(&self, dir: &Dir) -> Result<Listing> {
        let stored_names = self
            .store
            .list(&dir.stored)
            .map_err(|source| io_error(&dir.stored, "listing", source))?;
        let mut listing = Listing::default();
        for (stored_name, kind) in stored_names {
            let stored = dir.stored.join(&stored_name);
            match self.plain_name(dir, stored_name.as_bytes(), &stored) {
                Ok(None) => {}
                Ok(Some(plain)) => {
                    let path = dir.path.join(OsStr::from_bytes(&plain));
                    listing.entries.push(Entry { path, stored, kind });
                }
                Err(error) => listing.strays.push((stored, error)),
            }
        }
        listing.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        listing.strays.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(listing)
    }

    /// The plaintext of a stored name; none for the format's own files.
    fn plain_name(&self, dir: &Dir, stored_name: &[u8], stored: &Path) -> Result<Option<Vec<u8>>> {
        if self.is_own(&dir.path, stored_name) {
            return Ok(None);
        }
        if self.ciphers.names.scheme() == NameScheme::Plaintext {
            // Paths are built from it, so a store that lists ".." is not believed.
            check_name(stored_name).map_err(|reason| Error::name(stored_name, reason))?;
            return Ok(Some(stored_name.to_vec()));
        }
        if stored_name == DIR_IV_NAME.as_bytes() {
            return Ok(None);
        }
        let encrypted = match is_long_name(stored_name) {
            LongName::No => stored_name.to_vec(),
            LongName::NameFile => return Ok(None),
            LongName::Content => {
                let mut name_file = stored.as_os_str().to_os_string();
                name_file.push(LONG_NAME_SUFFIX);
                let content = read_small(&self.store, Path::new(&name_file), LONG_NAME_MAX_LEN)?;
                parse_long_name_file(&content)?.into_bytes()
            }
        };
        let plain = self.ciphers.names.decrypt_name(&encrypted, &dir.iv)?;
        // A name is found again only under what it encrypts to: one hash for a long name, none for a short one.
        if self.ciphers.stored_name(&plain, &dir.iv)?.file().as_bytes() != stored_name {
            return Err(Error::name(stored_name, "is not where its plaintext belongs"));
        }
        Ok(Some(plain))
    }

    /// Whether `stored_name` in the directory at `path` is one of the vault's own files.
    ///
    /// Where names are in plaintext, those that are not there in a complete vault could be a user's.
    fn is_own(&self, path: &Path, stored_name: &[u8]) -> bool {
        let own = match self.ciphers.names.scheme() {
            NameScheme::Plaintext => &[CONF_NAME][..],
            NameScheme::Encrypted | NameScheme::Deterministic => &OWN_NAMES[..],
        };
        path.as_os_str().is_empty() && own.iter().any(|name| name.as_bytes() == stored_name)
    }

    /// The entry at `path`, relative to the vault's root. Symlinks are not followed.
    ///
    /// # Errors
    /// [`Error::Io`] with [`std::io::ErrorKind::NotFound`] where there is none, [`Error::Name`] where a component is
    /// no name.
    pub fn lookup(&self, path: &Path) -> Result<Entry> {
        let mut found = Entry {
            path: PathBuf::new(),
            stored: PathBuf::new(),
            kind: Kind::Dir,
        };
        for part in path.components() {
            let name = match part {
                Component::CurDir | Component::RootDir => continue,
                Component::Normal(name) => name.as_bytes(),
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Error::name(path.as_os_str().as_bytes(), "leads out of the vault"));
                }
            };
            if found.kind != Kind::Dir {
                let source = std::io::ErrorKind::NotADirectory.into();
                return Err(io_error(&found.path, "looking into", source));
            }
            let dir = self.dir(&found)?;
            let stored = dir.stored.join(self.ciphers.stored_name(name, &dir.iv)?.file());
            let path = dir.path.join(OsStr::from_bytes(name));
            let failed = |source| io_error(&path, "finding", source);
            if self.ciphers.names.scheme() == NameScheme::Plaintext && self.is_own(&dir.path, name) {
                return Err(failed(std::io::ErrorKind::NotFound.into()));
            }
            let metadata = self.store.metadata(&stored).map_err(failed)?;
            found = Entry {
                path,
                stored,
                kind: metadata.kind,
            };
        }
        Ok(found)
    }

    /// What is known of `entry`. Its length is that of the plaintext.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::Symlink`] for a damaged symlink.
    pub fn metadata(&self, entry: &Entry) -> Result<Metadata> {
        let mut metadata = self
            .store
            .metadata(&entry.stored)
            .map_err(|source| io_error(&entry.path, "reading the attributes of", source))?;
        match metadata.kind {
            Kind::File => metadata.len = self.ciphers.content.layout().plain_len(metadata.len),
            Kind::Symlink => metadata.len = self.read_link(entry)?.len() as u64,
            Kind::Dir | Kind::Other => {}
        }
        Ok(metadata)
    }

    /// Opens the content of a file.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be opened, [`Error::Header`] where its header is not valid.
    pub fn open_file(&self, entry: &Entry) -> Result<VaultFile<S::File>> {
        let failed = |source| io_error(&entry.path, "opening", source);
        let file = self.store.open(&entry.stored).map_err(failed)?;
        let content = Content::open(file).map_err(|error| match error {
            OpenError::Io(source) => failed(source),
            OpenError::Header(what) => Error::Header {
                path: entry.path.clone(),
                what,
            },
        })?;
        Ok(VaultFile::new(
            entry.path.clone(),
            content,
            Arc::clone(&self.ciphers),
            self.engine.clone(),
        ))
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`Error::Symlink`] where it does not decrypt.
    pub fn read_link(&self, entry: &Entry) -> Result<Vec<u8>> {
        let stored = self
            .store
            .read_link(&entry.stored)
            .map_err(|source| io_error(&entry.path, "reading the symlink", source))?;
        if self.ciphers.names.scheme() == NameScheme::Plaintext {
            return Ok(stored);
        }
        let sealed = if stored.len() > STORED_TARGET_MAX {
            None
        } else {
            self.ciphers.names.decode(&stored)
        };
        sealed
            .and_then(|sealed| self.ciphers.content.open_detached(&sealed))
            .ok_or_else(|| Error::Symlink {
                path: entry.path.clone(),
            })
    }

    /// The extended attributes of `entry`: those that gocryptfs encrypted, and access control lists.
    ///
    /// # Errors
    /// [`Error::Xattr`] where one is damaged.
    pub fn xattrs(&self, entry: &Entry) -> Result<Vec<Xattr>> {
        let stored = self
            .store
            .xattrs(&entry.stored)
            .map_err(|source| io_error(&entry.path, "reading the extended attributes of", source))?;
        self.ciphers.open_xattrs(stored).map_err(|name| Error::Xattr {
            path: entry.path.clone(),
            name: printable(&name),
        })
    }

    /// Every entry below `dir`, directories before what they hold, sorted by name within each directory.
    #[must_use]
    pub fn walk(&self, dir: Dir) -> Walk<'_, S> {
        Walk::new(self, dir)
    }
}

impl Ciphers {
    /// Where `plain` is stored in a directory with this IV.
    pub(crate) fn stored_name(&self, plain: &[u8], iv: &DirIv) -> Result<StoredAs> {
        if self.names.scheme() != NameScheme::Plaintext {
            return Ok(StoredAs::from(
                self.names.stored_name(self.names.encrypt_name(plain, iv)?),
            ));
        }
        check_name(plain).map_err(|reason| Error::name(plain, reason))?;
        Ok(StoredAs {
            file: OsString::from_vec(plain.to_vec()),
            long: None,
        })
    }

    /// Opens those extended attributes that gocryptfs encrypted, and passes on access control lists.
    ///
    /// # Errors
    /// The stored name of one that is damaged.
    pub(crate) fn open_xattrs(&self, stored: Vec<Xattr>) -> Result<Vec<Xattr>, Vec<u8>> {
        let mut xattrs = Vec::new();
        for (name, value) in stored {
            if ACL_XATTRS.contains(&name.as_slice()) {
                xattrs.push((name, value));
            } else if name.starts_with(XATTR_PREFIX.as_bytes()) {
                xattrs.push(self.open_xattr(&name, &value).ok_or(name)?);
            }
        }
        Ok(xattrs)
    }

    /// Opens an extended attribute; empty values are stored as they are.
    fn open_xattr(&self, name: &[u8], value: &[u8]) -> Option<Xattr> {
        let name = self.names.decrypt_xattr_name(name).ok()?;
        if value.is_empty() {
            return Some((name, Vec::new()));
        }
        let plain = self.content.open_detached(value);
        // Before version 1.8 values were stored in base64.
        let plain = plain.or_else(|| self.content.open_detached(&self.names.decode(value)?))?;
        Some((name, plain))
    }

    /// Seals an extended attribute.
    pub(crate) fn seal_xattr(&self, name: &[u8], value: &[u8]) -> Result<Xattr> {
        if ACL_XATTRS.contains(&name) {
            return Ok((name.to_vec(), value.to_vec()));
        }
        let name = self.names.encrypt_xattr_name(name)?.into_bytes();
        let value = if value.is_empty() {
            Vec::new()
        } else {
            self.content.seal_detached(value)?
        };
        Ok((name, value))
    }
}

/// The name of a stored file, and the long name that goes into a file beside it.
pub(crate) struct StoredAs {
    file: OsString,
    /// Name and content of that file.
    pub(crate) long: Option<(String, String)>,
}

impl StoredAs {
    pub(crate) fn file(&self) -> &OsStr {
        &self.file
    }
}

impl From<StoredName> for StoredAs {
    fn from(name: StoredName) -> Self {
        match name {
            StoredName::Short(file) => Self {
                file: file.into(),
                long: None,
            },
            StoredName::Long {
                file,
                name_file,
                full,
            } => Self {
                file: file.into(),
                long: Some((name_file, full)),
            },
        }
    }
}

/// Reads the IV of the directory stored at `stored`.
pub(crate) fn read_dir_iv(store: &impl Store, stored: &Path) -> Result<DirIv> {
    let path = stored.join(DIR_IV_NAME);
    let content = read_small(store, &path, DirIv::LEN)?;
    DirIv::parse(&content).map_err(|error| error.at(path))
}

/// Reads a whole file of at most `max` bytes, and one more of a longer one.
pub(crate) fn read_small(store: &impl Store, path: &Path, max: usize) -> Result<Vec<u8>> {
    let failed = |source| io_error(path, "reading", source);
    let file = store.open(path).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    let mut content = vec![
        0;
        usize::try_from(len)
            .unwrap_or(usize::MAX)
            .min(max.saturating_add(1))
    ];
    file.read_exact_at(0, &mut content).map_err(failed)?;
    Ok(content)
}

pub(crate) fn io_error(path: &Path, action: &'static str, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_path_buf(),
        action,
        source,
    }
}
