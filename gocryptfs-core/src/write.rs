//! Writing a vault: every file complete or not there, the vault complete only once its conf is in place.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use chunk_cipher::store::{Attributes, Compare, Kind, Metadata, PendingFile, Source, WriteAt, WriteStore};
use chunk_cipher::{Engine, Progress, Uncounted};

use crate::conf::{CONF_NAME, Conf};
use crate::content::{self, Content};
use crate::error::{Error, Result};
use crate::flags::NameScheme;
use crate::keys::{Ciphers, MasterKey};
use crate::names::{DIR_IV_NAME, DirIv, LONG_NAME_MAX_LEN};
use crate::tree::{
    NEW_CONF_NAME, OWN_NAMES, PARTIAL_CONF_NAME, StoredAs, io_error, read_dir_iv, read_partial_conf,
    read_small,
};

/// Permission bits of `gocryptfs.conf`.
const CONF_MODE: u32 = 0o400;

/// Permission bits of `gocryptfs.diriv` and of the files that hold long names.
const PUBLIC_MODE: u32 = 0o444;

/// A vault that is being written.
///
/// Its conf lies under [`PARTIAL_CONF_NAME`] until [`VaultWriter::finish`] gives it its name, so an interrupted run
/// is never taken for a vault. No block is ever sealed twice under one file ID: what is written again takes a fresh
/// one.
#[derive(Debug)]
pub struct VaultWriter<S> {
    store: S,
    ciphers: Ciphers,
    engine: Engine,
}

/// A directory that is being written.
#[derive(Clone, Debug)]
pub struct WriteDir {
    path: PathBuf,
    stored: PathBuf,
    iv: DirIv,
}

/// Where an entry is to be stored.
struct Place {
    path: PathBuf,
    stored: PathBuf,
    /// Path and content of the file with its long name.
    long: Option<(PathBuf, String)>,
}

impl<S: WriteStore> VaultWriter<S> {
    /// Starts a vault in the empty directory `store`.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] where it is not, [`Error::Io`] where writing fails.
    pub fn create(store: S, conf: &Conf, master: &MasterKey, engine: Engine) -> Result<Self> {
        let root = Path::new("");
        let entries = store
            .list(root)
            .map_err(|source| io_error(root, "listing", source))?;
        if let Some((name, _)) = entries.first() {
            return Err(Error::NotEmpty {
                found: PathBuf::from(name),
            });
        }
        let writer = Self {
            store,
            ciphers: Ciphers::new(conf, master)?,
            engine,
        };
        writer.put(Path::new(PARTIAL_CONF_NAME), conf.to_json().as_bytes(), CONF_MODE)?;
        Ok(writer)
    }

    /// Goes on with a vault that was never completed (see [`read_partial_conf`]).
    ///
    /// # Errors
    /// [`Error::NotAVault`] where there is none, [`Error::NotEmpty`] where there is a complete one, [`Error::Io`]
    /// where what an interrupted run left cannot be removed.
    pub fn resume(store: S, master: &MasterKey, engine: Engine) -> Result<Self> {
        let conf = read_partial_conf(&store)?.ok_or_else(|| Error::NotAVault {
            path: PathBuf::from(PARTIAL_CONF_NAME),
        })?;
        if exists(&store, Path::new(CONF_NAME))? {
            // Completing this one would take away that one's only key.
            return Err(Error::NotEmpty {
                found: PathBuf::from(CONF_NAME),
            });
        }
        store
            .remove_leftovers()
            .map_err(|source| io_error(Path::new(""), "removing leftovers in", source))?;
        Ok(Self {
            store,
            ciphers: Ciphers::new(&conf, master)?,
            engine,
        })
    }

    /// Helps another process with the vault that it began: files are sealed in directories that are there
    /// ([`Self::open_root`], [`Self::open_dir`]). Nothing in `store` is changed by it.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn join(store: S, conf: &Conf, master: &MasterKey, engine: Engine) -> Result<Self> {
        Ok(Self {
            store,
            ciphers: Ciphers::new(conf, master)?,
            engine,
        })
    }

    /// The root directory, which another process made.
    ///
    /// # Errors
    /// [`Error::Io`] where its IV cannot be read.
    pub fn open_root(&self) -> Result<WriteDir> {
        self.opened(PathBuf::new(), PathBuf::new())
    }

    /// The directory `name` in `parent`, which another process made.
    ///
    /// # Errors
    /// [`Error::Name`] where `name` is none, [`Error::Io`] where its IV cannot be read.
    pub fn open_dir(&self, parent: &WriteDir, name: &[u8]) -> Result<WriteDir> {
        let place = self.place(parent, name)?;
        self.opened(place.path, place.stored)
    }

    fn opened(&self, path: PathBuf, stored: PathBuf) -> Result<WriteDir> {
        let iv = match self.ciphers.names.scheme() {
            NameScheme::Encrypted => read_dir_iv(&self.store, &stored)?,
            _ => DirIv::ZERO,
        };
        Ok(WriteDir { path, stored, iv })
    }

    /// The root directory.
    ///
    /// # Errors
    /// [`Error::Io`] where its IV cannot be written.
    pub fn root(&self) -> Result<WriteDir> {
        let iv = self.dir_iv(Path::new(""))?;
        Ok(WriteDir {
            path: PathBuf::new(),
            stored: PathBuf::new(),
            iv,
        })
    }

    /// Whether the store can hold extended attributes.
    pub fn supports_xattrs(&self) -> bool {
        self.store.supports_xattrs()
    }

    /// Makes the directory `name` in `parent`; one that is there already is gone on with.
    ///
    /// # Errors
    /// [`Error::Name`] where `name` is none, [`Error::Io`] where something else is there or writing fails.
    pub fn create_dir(&self, parent: &WriteDir, name: &[u8]) -> Result<WriteDir> {
        let place = self.place(parent, name)?;
        self.put_long_name(&place)?;
        match self.store.create_dir(&place.stored) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let failed = |source| io_error(&place.path, "making the directory", source);
                if self.store.metadata(&place.stored).map_err(failed)?.kind != Kind::Dir {
                    return Err(failed(error));
                }
                // An interrupted run may have made it read-only already.
                let writable = Attributes {
                    mode: Some(0o700),
                    ..Attributes::default()
                };
                self.set_attributes(&place, &writable)?;
            }
            made => made.map_err(|source| io_error(&place.path, "making the directory", source))?,
        }
        let iv = self.dir_iv(&place.stored)?;
        Ok(WriteDir {
            path: place.path,
            stored: place.stored,
            iv,
        })
    }

    /// Sets the attributes of a directory, after everything in it was written.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish_dir(&self, dir: &WriteDir, attributes: &Attributes) -> Result<()> {
        let place = Place {
            path: dir.path.clone(),
            stored: dir.stored.clone(),
            long: None,
        };
        self.set_attributes(&place, &self.seal_attributes(attributes)?)
    }

    /// Seals `source` as the file `name` in `parent`, which is not there yet.
    ///
    /// # Errors
    /// [`Error::Name`] where `name` is none, [`Error::Io`] and [`Error::File`] where reading or writing fails.
    pub fn write_file(
        &self,
        parent: &WriteDir,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let place = self.place(parent, name)?;
        let failed = |source| io_error(&place.path, "writing", source);
        let damaged = |source| Error::File {
            path: place.path.clone(),
            source,
        };
        let attributes = self.seal_attributes(source.attributes)?;
        let pending = self.store.create(&place.stored).map_err(failed)?;
        content::seal(
            &self.engine,
            &self.ciphers.content,
            source.content,
            source.len,
            &pending,
            progress,
        )
        .map_err(damaged)?;
        if !(source.unchanged)() {
            return Err(damaged(chunk_cipher::Error::Changed));
        }
        self.put_long_name(&place)?;
        pending.commit(&attributes).map_err(failed)
    }

    /// Makes the symlink `name` in `parent`, which is not there yet.
    ///
    /// # Errors
    /// [`Error::Name`] where `name` is none, [`Error::Io`] where writing fails.
    pub fn write_symlink(
        &self,
        parent: &WriteDir,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        let place = self.place(parent, name)?;
        let stored = if self.ciphers.names.scheme() == NameScheme::Plaintext {
            target.to_vec()
        } else {
            self.ciphers
                .names
                .encode(&self.ciphers.content.seal_detached(target)?)
                .into_bytes()
        };
        self.put_long_name(&place)?;
        self.store
            .create_symlink(&stored, &place.stored)
            .map_err(|source| io_error(&place.path, "making the symlink", source))?;
        let attributes = Attributes {
            modified: attributes.modified,
            ..Attributes::default()
        };
        self.set_attributes(&place, &attributes)
    }

    /// Where `name` in `parent` is stored, and what is known of it; none where nothing is there yet.
    ///
    /// # Errors
    /// [`Error::Name`] where `name` is none, [`Error::Io`] where it cannot be looked up.
    pub fn existing(&self, parent: &WriteDir, name: &[u8]) -> Result<Option<Metadata>> {
        let place = self.place(parent, name)?;
        match self.store.metadata(&place.stored) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error(&place.path, "finding", source)),
        }
    }

    /// Whether a file of `len` bytes of plaintext is stored as `name` in `parent` in all its length.
    ///
    /// # Errors
    /// As [`Self::existing`].
    pub fn is_stored(&self, parent: &WriteDir, name: &[u8], len: u64) -> Result<bool> {
        let expected = self.ciphers.content.layout().stored_len(len)?;
        let there = self.existing(parent, name)?;
        Ok(there.is_some_and(|there| there.kind == Kind::File && there.len == expected))
    }

    /// Whether the file `name` in `parent` is what an earlier run made of `source`: it has its attributes, where the store
    /// keeps any, and opens to every byte of it.
    ///
    /// # Errors
    /// [`Error::Name`] where `name` is none, [`Error::Io`] and [`Error::File`] where it cannot be read.
    pub fn is_complete(
        &self,
        parent: &WriteDir,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<bool> {
        let Source { len, attributes, .. } = *source;
        let place = self.place(parent, name)?;
        let failed = |source| io_error(&place.path, "reading", source);
        let there = self.store.metadata(&place.stored).map_err(failed)?;
        let expected = self.ciphers.content.layout().stored_len(len)?;
        let fits = there.kind == Kind::File
            && there.len == expected
            && (!self.store.keeps_attributes()
                || attributes.mode.is_none_or(|mode| mode == there.mode)
                    && attributes
                        .modified
                        .is_none_or(|modified| modified == there.modified));
        if !fits {
            return Ok(false);
        }
        // A power cut can take a file written earlier and leave one written later.
        if let Some((file, full)) = &place.long
            && !self.has_long_name(file, full)?
        {
            return Ok(false);
        }
        let Ok(content) = Content::open(self.store.open(&place.stored).map_err(failed)?) else {
            return Ok(false);
        };
        let xattrs = self.store.xattrs(&place.stored).map_err(failed)?;
        let same_xattrs = self.ciphers.open_xattrs(xattrs).is_ok_and(|mut there| {
            let mut expected = attributes.xattrs.clone();
            there.sort_unstable();
            expected.sort_unstable();
            there == expected
        });
        if !same_xattrs {
            return Ok(false);
        }
        let compare = Compare(source.content);
        let opened = content.with(&self.ciphers.content, |file| {
            self.engine.unseal(file, &compare, &Uncounted(progress))
        });
        match opened.unwrap_or(Ok(())) {
            Ok(()) => Ok(true),
            Err(chunk_cipher::Error::Chunk { .. } | chunk_cipher::Error::Write { .. }) => Ok(false),
            Err(source) => Err(Error::File {
                path: place.path,
                source,
            }),
        }
    }

    /// Something stored in `dir` that none of `names` accounts for, if there is any.
    ///
    /// # Errors
    /// [`Error::Name`] where one of `names` is none, [`Error::Io`] where the directory cannot be read.
    pub fn find_stale<'n>(
        &self,
        dir: &WriteDir,
        names: impl Iterator<Item = &'n [u8]>,
    ) -> Result<Option<PathBuf>> {
        let mut known = HashSet::from([PathBuf::from(PARTIAL_CONF_NAME)]);
        if self.ciphers.names.scheme() == NameScheme::Encrypted {
            known.insert(dir.stored.join(DIR_IV_NAME));
        }
        for name in names {
            let place = self.place(dir, name)?;
            known.extend(place.long.map(|(file, _)| file));
            known.insert(place.stored);
        }
        let listed = self
            .store
            .list(&dir.stored)
            .map_err(|source| io_error(&dir.path, "listing", source))?;
        Ok(listed
            .into_iter()
            .map(|(name, _)| dir.stored.join(name))
            .find(|path| !known.contains(path)))
    }

    /// Removes the file or symlink `name` in `parent`, which an interrupted run left.
    ///
    /// # Errors
    /// [`Error::Name`] where `name` is none, [`Error::Io`] where it is not there.
    pub fn remove(&self, parent: &WriteDir, name: &[u8]) -> Result<()> {
        let place = self.place(parent, name)?;
        self.store
            .remove_file(&place.stored)
            .map_err(|source| io_error(&place.path, "removing", source))
    }

    /// Makes the vault complete, once everything written would survive a power cut, and sets the attributes of its
    /// root directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self, root: &Attributes) -> Result<()> {
        let conf = Path::new(CONF_NAME);
        let failed = |source| io_error(conf, "completing", source);
        // What may fail comes before the vault counts as complete; what that changes again comes after.
        let xattrs = Attributes {
            xattrs: root.xattrs.clone(),
            ..Attributes::default()
        };
        let dir = self.root()?;
        self.finish_dir(&dir, &xattrs)?;
        self.store.sync().map_err(failed)?;
        self.store
            .rename(Path::new(PARTIAL_CONF_NAME), conf)
            .map_err(failed)?;
        let rest = Attributes {
            xattrs: Vec::new(),
            ..*root
        };
        self.finish_dir(&dir, &rest)?;
        self.store.sync().map_err(failed)
    }

    fn place(&self, parent: &WriteDir, name: &[u8]) -> Result<Place> {
        let stored = self.ciphers.stored_name(name, &parent.iv)?;
        let reserved = OWN_NAMES.map(str::as_bytes);
        if parent.path.as_os_str().is_empty() && reserved.contains(&stored.file().as_bytes()) {
            return Err(Error::name(name, "is a name of the vault's own files; rename it"));
        }
        let StoredAs { long, .. } = &stored;
        Ok(Place {
            path: parent.path.join(std::ffi::OsStr::from_bytes(name)),
            stored: parent.stored.join(stored.file()),
            long: long
                .as_ref()
                .map(|(file, full)| (parent.stored.join(file), full.clone())),
        })
    }

    /// Writes the file with the long name, before the entry it is for.
    fn put_long_name(&self, place: &Place) -> Result<()> {
        let Some((file, full)) = &place.long else {
            return Ok(());
        };
        match self.put(file, full.as_bytes(), PUBLIC_MODE) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                if !self.has_long_name(file, full)? {
                    // An interrupted run left it, and a power cut emptied it.
                    self.store
                        .remove_file(file)
                        .map_err(|source| io_error(file, "removing", source))?;
                    self.put(file, full.as_bytes(), PUBLIC_MODE)?;
                }
                Ok(())
            }
            put => put,
        }
    }

    /// Whether the long name in `file` is `full`.
    fn has_long_name(&self, file: &Path, full: &str) -> Result<bool> {
        match read_small(&self.store, file, LONG_NAME_MAX_LEN) {
            Err(error) if error.is_not_found() => Ok(false),
            content => Ok(content? == full.as_bytes()),
        }
    }

    /// The IV of the directory stored at `stored`, made where it is missing.
    fn dir_iv(&self, stored: &Path) -> Result<DirIv> {
        if self.ciphers.names.scheme() != NameScheme::Encrypted {
            return Ok(DirIv::ZERO);
        }
        match read_dir_iv(&self.store, stored) {
            Err(error) if error.is_not_found() => {
                let iv = DirIv::generate()?;
                self.put(&stored.join(DIR_IV_NAME), &iv.0, PUBLIC_MODE)?;
                Ok(iv)
            }
            iv => iv,
        }
    }

    fn put(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        put(&self.store, path, content, mode)
    }

    fn seal_attributes(&self, attributes: &Attributes) -> Result<Attributes> {
        let xattrs = attributes
            .xattrs
            .iter()
            .map(|(name, value)| self.ciphers.seal_xattr(name, value));
        Ok(Attributes {
            xattrs: xattrs.collect::<Result<_>>()?,
            ..attributes.clone()
        })
    }

    fn set_attributes(&self, place: &Place, attributes: &Attributes) -> Result<()> {
        self.store
            .set_attributes(&place.stored, attributes)
            .map_err(|source| io_error(&place.path, "setting the attributes of", source))
    }
}

/// Replaces the `gocryptfs.conf` of a complete vault, in one step.
///
/// # Errors
/// [`Error::NotAVault`] where there is none; [`Error::Io`], and the old conf is still in place unless only making the
/// change last failed.
pub fn replace_conf(store: &impl WriteStore, conf: &Conf) -> Result<()> {
    let (new, path) = (Path::new(NEW_CONF_NAME), Path::new(CONF_NAME));
    let failed = |source| io_error(path, "replacing", source);
    if !exists(store, path)? {
        return Err(Error::NotAVault {
            path: path.to_path_buf(),
        });
    }
    if conf.flags().name_scheme() != NameScheme::Plaintext {
        // An interrupted run may have left one, under a name that no file of the vault has.
        store.remove_leftovers().map_err(failed)?;
    }
    match put(store, new, conf.to_json().as_bytes(), CONF_MODE) {
        Err(Error::Io { source, .. })
            if source.kind() == io::ErrorKind::AlreadyExists && is_left_over(store, conf)? =>
        {
            store.remove_file(new).map_err(failed)?;
            put(store, new, conf.to_json().as_bytes(), CONF_MODE)?;
        }
        put => put?,
    }
    store.sync().map_err(failed)?;
    store.rename(new, path).map_err(failed)?;
    store.sync().map_err(failed)
}

/// Whether an interrupted run left the new conf that is there: where names are in plaintext, it could be a user's file.
fn is_left_over(store: &impl WriteStore, conf: &Conf) -> Result<bool> {
    if conf.flags().name_scheme() != NameScheme::Plaintext {
        return Ok(true);
    }
    let content = read_small(store, Path::new(NEW_CONF_NAME), Conf::MAX_LEN)?;
    Ok(Conf::parse(&content).is_ok())
}

fn exists(store: &impl WriteStore, path: &Path) -> Result<bool> {
    match store.metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(io_error(path, "finding", source)),
    }
}

/// Writes a small file that is not there yet.
fn put(store: &impl WriteStore, path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let failed = |source| io_error(path, "writing", source);
    let pending = store.create(path).map_err(failed)?;
    pending.write_all_at(0, content).map_err(failed)?;
    pending
        .commit(&Attributes {
            mode: Some(mode),
            ..Attributes::default()
        })
        .map_err(failed)
}
