//! An open file of a sealed model.

use std::io;
use std::path::{Path, PathBuf};

use chunk_cipher::store::{ReadAt, WriteAt};
use chunk_cipher::{Progress, Scan};
use gocryptfs_core::VaultFile;
use sam_format::PackageFile;

use crate::error::{Error, Result};
use crate::manifest::ListedFile;
use crate::storage::StorageFile;

/// An open file of a sealed model: its plaintext, at any position, from any number of threads.
#[derive(Debug)]
pub struct SealedFile {
    /// Where the model lies.
    location: PathBuf,
    stored: Stored,
}

#[derive(Debug)]
enum Stored {
    Vault(Box<VaultFile<ListedFile<StorageFile>>>),
    Package(Box<PackageFile<StorageFile>>),
}

impl SealedFile {
    pub(crate) fn vault(location: &Path, file: VaultFile<ListedFile<StorageFile>>) -> Self {
        Self {
            location: location.to_path_buf(),
            stored: Stored::Vault(Box::new(file)),
        }
    }

    pub(crate) fn package(location: &Path, file: PackageFile<StorageFile>) -> Self {
        Self {
            location: location.to_path_buf(),
            stored: Stored::Package(Box::new(file)),
        }
    }

    /// Its path in the model.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.stored {
            Stored::Vault(file) => file.path(),
            Stored::Package(file) => file.path(),
        }
    }

    /// Length of the plaintext in bytes, as it was when the file was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.stored {
            Stored::Vault(file) => file.len(),
            Stored::Package(file) => file.len(),
        }
    }

    /// Whether there is a digest that all of it is compared with when it is unsealed.
    pub(crate) const fn has_digest(&self) -> bool {
        matches!(self.stored, Stored::Package(_))
    }

    /// Whether the plaintext is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` with the plaintext from `offset` on. Every chunk of it was verified when this returns.
    ///
    /// # Errors
    /// [`Error::Vault`] or [`Error::Package`] where a chunk is damaged, the range is not within the file, or reading fails; `out` is all zero
    /// then.
    pub fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match &self.stored {
            Stored::Vault(file) => file.read_into(offset, out).map_err(Error::vault(&self.location)),
            Stored::Package(file) => file
                .read_into(offset, out)
                .map_err(Error::package(&self.location)),
        }
    }

    /// Fills as much of `out` as the plaintext from `offset` on has, and returns how much that is, in bytes.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let rest = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = rest.min(out.len());
        // An empty file of a package has a chunk to verify as well.
        if len > 0 || self.is_empty() {
            self.read_into(offset.min(self.len()), &mut out[..len])?;
        }
        Ok(len)
    }

    /// Writes the whole plaintext to `sink`.
    ///
    /// # Errors
    /// As [`Self::read_into`]; what was written must be thrown away then.
    pub fn unseal(&self, sink: &dyn WriteAt, progress: &dyn Progress) -> Result<()> {
        match &self.stored {
            Stored::Vault(file) => file.unseal(sink, progress).map_err(Error::vault(&self.location)),
            Stored::Package(file) => file
                .unseal(sink, progress)
                .map_err(Error::package(&self.location)),
        }
    }

    /// Opens every chunk and goes on where one is damaged.
    ///
    /// # Errors
    /// [`Error::Vault`] or [`Error::Package`] where reading fails.
    pub fn scan(&self, progress: &dyn Progress) -> Result<Scan> {
        match &self.stored {
            Stored::Vault(file) => file.scan(progress).map_err(Error::vault(&self.location)),
            Stored::Package(file) => file.scan(progress).map_err(Error::package(&self.location)),
        }
    }
}

/// The plaintext, to be sealed anew or read by whatever reads files.
impl ReadAt for SealedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(Self::len(self))
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match self.read_into(offset, buf) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.cipher(), Some(chunk_cipher::Error::Range { .. })) => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
