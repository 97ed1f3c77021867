//! What a sealed model holds, whatever its format.
//!
//! An entry belongs to the model that it came from.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use chunk_cipher::store::{Kind, Metadata, ReadAt, Xattr};
use chunk_cipher::{Progress, Uncounted};
use gocryptfs_core::VaultFile;
use sam_format::vault::{StoredEntry, StoredKind};

use crate::error::{Error, Result};
use crate::file::SealedFile;
use crate::manifest::{ListedStore, verify_stored};
use crate::model::{Model, Stored};
use crate::storage::Storage;

/// An entry of a sealed model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry(pub(crate) Place);

/// Where its format keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Vault(gocryptfs_core::Entry),
    Package(sam_format::Entry),
}

impl Entry {
    /// Its path in the model; empty for the root.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.0 {
            Place::Vault(entry) => entry.path(),
            Place::Package(entry) => entry.path(),
        }
    }

    /// Where it is stored, from where the model lies. A symlink of a package lies in its manifest.
    #[must_use]
    pub fn stored_path(&self) -> PathBuf {
        match &self.0 {
            Place::Vault(entry) => entry.stored_path().to_path_buf(),
            Place::Package(entry) => entry.stored_path(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.0 {
            Place::Vault(entry) => entry.kind(),
            Place::Package(entry) => entry.metadata().kind,
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
    /// [`Error::Vault`] or [`Error::Package`] where there is none, [`Error::Location`] where there can be none.
    pub fn lookup(&self, path: impl AsRef<Path>) -> Result<Entry> {
        let path = path.as_ref();
        check_path(path)?;
        match &self.stored {
            Stored::Vault(vault) => vault
                .lookup(path)
                .map(|entry| Entry(Place::Vault(entry)))
                .map_err(Error::vault(&self.location)),
            Stored::Package(package) => package
                .lookup(path)
                .map(|entry| Entry(Place::Package(entry.clone())))
                .map_err(Error::package(&self.location)),
        }
    }

    /// Everything below the directory `start`, directories before what they hold, sorted by name within each.
    ///
    /// # Errors
    /// [`Error::Vault`] or [`Error::Package`] where `start` is no directory or cannot be read.
    pub fn walk(&self, start: &Entry) -> Result<Box<dyn Iterator<Item = Found> + '_>> {
        match (&self.stored, &start.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => {
                self.expect_dir(start)?;
                let dir = vault.dir(entry).map_err(Error::vault(&self.location))?;
                Ok(Box::new(vault.walk(dir).map(|found| self.found(found))))
            }
            (Stored::Package(package), Place::Package(entry)) => {
                self.expect_dir(start)?;
                let below = package.manifest().below(&entry.path).iter();
                Ok(Box::new(below.cloned().map(listed)))
            }
            _ => Err(self.foreign()),
        }
    }

    /// What the directory `dir` holds, not what lies deeper, sorted by name.
    ///
    /// # Errors
    /// [`Error::Vault`] or [`Error::Package`] where `dir` is no directory or cannot be read.
    pub fn list(&self, dir: &Entry) -> Result<Vec<Found>> {
        match (&self.stored, &dir.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => {
                self.expect_dir(dir)?;
                let listing = vault.dir(entry).and_then(|dir| vault.list(&dir));
                let listing = listing.map_err(Error::vault(&self.location))?;
                let entries = listing.entries.into_iter().map(gocryptfs_core::Found::Entry);
                let strays = listing.strays.into_iter();
                let strays = strays.map(|(path, error)| gocryptfs_core::Found::Stray(path, error));
                Ok(entries.chain(strays).map(|found| self.found(found)).collect())
            }
            (Stored::Package(package), Place::Package(entry)) => {
                self.expect_dir(dir)?;
                // Behind the path of the directory and a slash, if it is not the root.
                let name_at = match entry.path.len() {
                    0 => 0,
                    len => len + 1,
                };
                let below = package.manifest().below(&entry.path).iter();
                let children = below.filter(|entry| !entry.path[name_at..].contains(&b'/'));
                Ok(children.cloned().map(listed).collect())
            }
            _ => Err(self.foreign()),
        }
    }

    fn expect_dir(&self, entry: &Entry) -> Result<()> {
        if entry.kind() == Kind::Dir {
            return Ok(());
        }
        let path = self.location.join(entry.path());
        Err(Error::io(&path, "listing", io::ErrorKind::NotADirectory.into()))
    }

    /// The error of an entry that came from a model of another format.
    fn foreign(&self) -> Error {
        Error::Format {
            path: self.location.clone(),
            what: "the entry is one of another model",
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
    /// [`Error::Vault`] or [`Error::Package`] where it cannot be read.
    pub fn metadata(&self, entry: &Entry) -> Result<Metadata> {
        match (&self.stored, &entry.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => {
                vault.metadata(entry).map_err(Error::vault(&self.location))
            }
            (Stored::Package(_), Place::Package(entry)) => Ok(entry.metadata()),
            _ => Err(self.foreign()),
        }
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`Error::Vault`] or [`Error::Package`] where it is damaged or no symlink.
    pub fn read_link(&self, entry: &Entry) -> Result<Vec<u8>> {
        match (&self.stored, &entry.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => {
                vault.read_link(entry).map_err(Error::vault(&self.location))
            }
            (Stored::Package(_), Place::Package(entry)) => match &entry.kind {
                sam_format::EntryKind::Symlink { target } => Ok(target.clone()),
                _ => {
                    let path = self.location.join(entry.path());
                    let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no symlink");
                    Err(Error::io(&path, "reading the symlink", source))
                }
            },
            _ => Err(self.foreign()),
        }
    }

    /// The extended attributes of `entry`; a package has none.
    ///
    /// # Errors
    /// [`Error::Vault`] or [`Error::Package`] where one is damaged.
    pub fn xattrs(&self, entry: &Entry) -> Result<Vec<Xattr>> {
        match (&self.stored, &entry.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => {
                vault.xattrs(entry).map_err(Error::vault(&self.location))
            }
            (Stored::Package(_), Place::Package(_)) => Ok(Vec::new()),
            _ => Err(self.foreign()),
        }
    }

    /// Opens the file that `entry` is.
    ///
    /// # Errors
    /// [`Error::Vault`] or [`Error::Package`] where it is none, or cannot be opened.
    pub fn open_file(&self, entry: &Entry) -> Result<SealedFile> {
        match (&self.stored, &entry.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => vault
                .open_file(entry)
                .map(|file| SealedFile::vault(&self.location, self.with_holes(entry, file)))
                .map_err(Error::vault(&self.location)),
            (Stored::Package(package), Place::Package(entry)) => package
                .open_file(entry)
                .map(|file| SealedFile::package(&self.location, file))
                .map_err(Error::package(&self.location)),
            _ => Err(self.foreign()),
        }
    }

    /// Reads the directory `start` and everything below it, calls `report` with whatever is damaged, and goes on.
    ///
    /// # Errors
    /// [`Error::Vault`] or [`Error::Package`] where `start` is no directory or cannot be read, the threads could not be started, or `progress`
    /// calls it off.
    pub fn verify(
        &self,
        start: &Entry,
        progress: &dyn Progress,
        report: &(dyn Fn(Damage) + Sync),
    ) -> Result<Verified> {
        match (&self.stored, &start.0) {
            (Stored::Vault(vault), Place::Vault(entry)) => self.verify_vault(vault, entry, progress, report),
            (Stored::Package(package), Place::Package(entry)) => {
                self.expect_dir(start)?;
                let report = |damage| report(Damage::of_package(&self.location, damage));
                let verified = package.verify(&entry.path, progress, &report);
                verified
                    .map(Verified::from)
                    .map_err(Error::package(&self.location))
            }
            _ => Err(self.foreign()),
        }
    }

    /// `file`, whose holes are those that the manifest lists, where there is one.
    fn with_holes<F: ReadAt>(&self, entry: &gocryptfs_core::Entry, file: VaultFile<F>) -> VaultFile<F> {
        let listed = self.manifest.as_ref();
        match listed.and_then(|listed| listed.get(entry.stored_path().as_os_str().as_bytes())) {
            Some(StoredEntry {
                kind:
                    StoredKind::File {
                        content: Some(content),
                        ..
                    },
                ..
            }) => file.expect_holes(Arc::clone(&content.holes)),
            _ => file,
        }
    }

    fn verify_vault(
        &self,
        vault: &gocryptfs_core::Vault<ListedStore<Storage>>,
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
        let differing = match &self.manifest {
            None => 0,
            Some(manifest) => verify_stored(
                vault.store().unchecked(),
                manifest,
                start.stored_path(),
                vault.engine(),
                &Uncounted(progress),
                report,
            )?,
        };
        Ok(Verified {
            dirs: verified.dirs,
            files: verified.files,
            symlinks: verified.symlinks,
            bytes: verified.bytes,
            holes: verified.holes,
            damaged: verified.damaged + differing,
        })
    }
}

/// Refuses what no path in a model can be.
fn check_path(path: &Path) -> Result<()> {
    let what = path.components().find_map(|part| match part {
        Component::ParentDir | Component::Prefix(_) => Some("this path leads out of the model"),
        Component::Normal(name) if name.as_bytes().contains(&0) => Some("this path has a NUL byte in it"),
        Component::Normal(name) if name.len() > 255 => Some("a name in this path is longer than 255 bytes"),
        _ => None,
    });
    match what {
        Some(what) => Err(Error::Location {
            location: path.to_path_buf(),
            what,
        }),
        None => Ok(()),
    }
}

/// An entry of a manifest.
fn listed(entry: sam_format::Entry) -> Found {
    Found::Entry(Entry(Place::Package(entry)))
}

impl Damage {
    pub(crate) fn of_package(location: &Path, damage: sam_format::Damage) -> Self {
        Self {
            path: damage.path,
            error: Error::package(location)(damage.error),
        }
    }
}

impl From<sam_format::Verified> for Verified {
    fn from(verified: sam_format::Verified) -> Self {
        Self {
            dirs: verified.dirs,
            files: verified.files,
            symlinks: verified.symlinks,
            bytes: verified.bytes,
            holes: 0,
            damaged: verified.damaged,
        }
    }
}
