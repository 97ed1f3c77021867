//! What a sealed model holds, whatever its format.

use std::path::{Path, PathBuf};

use chunk_cipher::Progress;
use chunk_cipher::store::{Kind, LocalStore, Metadata, Xattr};

use crate::error::{Error, Result};
use crate::file::SealedFile;
use crate::model::{Model, Stored};

/// An entry of a sealed model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry(pub(crate) Place);

/// Where its format keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Vault(gocryptfs_core::Entry),
}

impl Entry {
    /// Its path in the model; empty for the root.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.0 {
            Place::Vault(entry) => entry.path(),
        }
    }

    /// Where it is stored, from where the model lies.
    #[must_use]
    pub fn stored_path(&self) -> PathBuf {
        match &self.0 {
            Place::Vault(entry) => entry.stored_path().to_path_buf(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.0 {
            Place::Vault(entry) => entry.kind(),
        }
    }
}

/// What a walk through a model comes upon.
#[derive(Debug)]
pub enum Found {
    /// An entry.
    Entry(Entry),
    /// Something that is no part of the model, as its name does not decrypt: its stored path, and why.
    Stray(PathBuf, Error),
    /// A directory that cannot be read: its path, and why.
    Unreadable(PathBuf, Error),
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Directories, without the one where it began.
    pub dirs: u64,
    /// Regular files.
    pub files: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Plaintext bytes of the files.
    pub bytes: u64,
    /// Chunks that are holes: they read as zeros, and nothing shows whether they always did.
    pub holes: u64,
    /// Things that are damaged.
    pub damaged: u64,
}

/// Something damaged.
#[derive(Debug)]
pub struct Damage {
    /// Its path in the model, or its stored path where the name does not decrypt.
    pub path: PathBuf,
    /// What is wrong.
    pub error: Error,
}

impl Model {
    /// The entry at `path` in the model. Symlinks are not followed.
    ///
    /// # Errors
    /// [`Error::Vault`] where there is none.
    pub fn lookup(&self, path: impl AsRef<Path>) -> Result<Entry> {
        match &self.stored {
            Stored::Vault(vault) => vault
                .lookup(path.as_ref())
                .map(|entry| Entry(Place::Vault(entry)))
                .map_err(Error::vault(&self.location)),
        }
    }

    /// Everything below the directory `start`, directories before what they hold, sorted by name within each.
    ///
    /// # Errors
    /// [`Error::Vault`] where `start` is no directory or cannot be read.
    pub fn walk(&self, start: &Entry) -> Result<impl Iterator<Item = Found> + '_> {
        match (&self.stored, &start.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => {
                let dir = vault.dir(entry).map_err(Error::vault(&self.location))?;
                Ok(vault.walk(dir).map(|found| self.found(found)))
            }
        }
    }

    /// What the directory `dir` holds, not what lies deeper, sorted by name.
    ///
    /// # Errors
    /// [`Error::Vault`] where `dir` is no directory or cannot be read.
    pub fn list(&self, dir: &Entry) -> Result<Vec<Found>> {
        match (&self.stored, &dir.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => {
                let listing = vault.dir(entry).and_then(|dir| vault.list(&dir));
                let listing = listing.map_err(Error::vault(&self.location))?;
                let entries = listing.entries.into_iter().map(gocryptfs_core::Found::Entry);
                let strays = listing.strays.into_iter();
                let strays = strays.map(|(path, error)| gocryptfs_core::Found::Stray(path, error));
                Ok(entries.chain(strays).map(|found| self.found(found)).collect())
            }
        }
    }

    fn found(&self, found: gocryptfs_core::Found) -> Found {
        let error = Error::vault(&self.location);
        match found {
            gocryptfs_core::Found::Entry(entry) => Found::Entry(Entry(Place::Vault(entry))),
            gocryptfs_core::Found::Stray(path, source) => Found::Stray(path, error(source)),
            gocryptfs_core::Found::Unreadable(path, source) => Found::Unreadable(path, error(source)),
        }
    }

    /// What is known of `entry`. Its length is that of the plaintext.
    ///
    /// # Errors
    /// [`Error::Vault`] where it cannot be read.
    pub fn metadata(&self, entry: &Entry) -> Result<Metadata> {
        match (&self.stored, &entry.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => vault.metadata(entry),
        }
        .map_err(Error::vault(&self.location))
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`Error::Vault`] where it is damaged or no symlink.
    pub fn read_link(&self, entry: &Entry) -> Result<Vec<u8>> {
        match (&self.stored, &entry.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => vault.read_link(entry),
        }
        .map_err(Error::vault(&self.location))
    }

    /// The extended attributes of `entry`.
    ///
    /// # Errors
    /// [`Error::Vault`] where one is damaged.
    pub fn xattrs(&self, entry: &Entry) -> Result<Vec<Xattr>> {
        match (&self.stored, &entry.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => vault.xattrs(entry),
        }
        .map_err(Error::vault(&self.location))
    }

    /// Opens the file that `entry` is.
    ///
    /// # Errors
    /// [`Error::Vault`] where it is none, or cannot be opened.
    pub fn open_file(&self, entry: &Entry) -> Result<SealedFile> {
        match (&self.stored, &entry.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => vault
                .open_file(entry)
                .map(|file| SealedFile::vault(&self.location, file))
                .map_err(Error::vault(&self.location)),
        }
    }

    /// Reads the directory `start` and everything below it, calls `report` with whatever is damaged, and goes on.
    ///
    /// # Errors
    /// [`Error::Vault`] where `start` is no directory or cannot be read, the threads could not be started, or `progress`
    /// calls it off.
    pub fn verify(
        &self,
        start: &Entry,
        progress: &dyn Progress,
        report: &(dyn Fn(Damage) + Sync),
    ) -> Result<Verified> {
        match (&self.stored, &start.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => self.verify_vault(vault, entry, progress, report),
        }
    }

    fn verify_vault(
        &self,
        vault: &gocryptfs_core::Vault<LocalStore>,
        start: &gocryptfs_core::Entry,
        progress: &dyn Progress,
        report: &(dyn Fn(Damage) + Sync),
    ) -> Result<Verified> {
        let failed = Error::vault(&self.location);
        let dir = vault.dir(start).map_err(&failed)?;
        let verified = vault.verify(dir, progress, &|damage| {
            report(Damage {
                path: damage.path,
                error: Error::vault(&self.location)(damage.error),
            });
        });
        let verified = verified.map_err(failed)?;
        Ok(Verified {
            dirs: verified.dirs,
            files: verified.files,
            symlinks: verified.symlinks,
            bytes: verified.bytes,
            holes: verified.holes,
            damaged: verified.damaged,
        })
    }
}
