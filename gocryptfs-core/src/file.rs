//! An open file of a vault.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chunk_cipher::store::{ReadAt, WriteAt};
use chunk_cipher::{Engine, Progress, Scan};

use crate::content::{BLOCK_LEN, Content, FileId};
use crate::error::{Error, Result};
use crate::keys::Ciphers;

/// An open file of a vault: its plaintext, at any position, from any number of threads.
pub struct VaultFile<F> {
    path: PathBuf,
    content: Content<F>,
    ciphers: Arc<Ciphers>,
    engine: Engine,
}

impl<F: ReadAt> VaultFile<F> {
    pub(crate) fn new(path: PathBuf, content: Content<F>, ciphers: Arc<Ciphers>, engine: Engine) -> Self {
        Self {
            path,
            content,
            ciphers,
            engine,
        }
    }

    /// Its path in the vault.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the plaintext in bytes, as it was when the file was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.content.len(&self.ciphers.content)
    }

    /// Whether the plaintext is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file ID; none in an empty file.
    #[must_use]
    pub fn id(&self) -> Option<FileId> {
        self.content.id()
    }

    /// This file, with the blocks that are holes, as ascending ranges of their indices. Any other hole, and any of these
    /// that is none, counts as damaged from now on: by itself a vault does not tell a hole from a block that was zeroed.
    #[must_use]
    pub fn expect_holes(mut self, holes: Arc<[Range<u64>]>) -> Self {
        self.content.expect_holes(holes);
        self
    }

    /// Fills `out` with the plaintext from `offset` on. Every block of it was verified when this returns.
    ///
    /// # Errors
    /// [`Error::File`] where a block is damaged, the range is not within the file, or reading fails; `out` is all
    /// zero then.
    pub fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let read = self.content.with(&self.ciphers.content, |file| {
            self.engine.read_into(file, offset, out)
        });
        match read {
            Some(read) => read.map_err(|source| self.error(source)),
            None if offset == 0 && out.is_empty() => Ok(()),
            None => {
                let len = out.len() as u64;
                out.fill(0);
                Err(self.error(chunk_cipher::Error::Range {
                    offset,
                    len,
                    file_len: 0,
                }))
            }
        }
    }

    /// Fills as much of `out` as the plaintext from `offset` on has, and returns how much that is, in bytes.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let rest = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = rest.min(out.len());
        if len > 0 {
            self.read_into(offset, &mut out[..len])?;
        }
        Ok(len)
    }

    /// Writes the whole plaintext to `sink`.
    ///
    /// # Errors
    /// [`Error::File`]; what was written must be thrown away then.
    pub fn unseal(&self, sink: &dyn WriteAt, progress: &dyn Progress) -> Result<()> {
        let unsealed = self.content.with(&self.ciphers.content, |file| {
            self.engine.unseal(file, sink, progress)
        });
        unsealed.unwrap_or(Ok(())).map_err(|source| self.error(source))
    }

    /// Opens every block and goes on where one is damaged.
    ///
    /// # Errors
    /// [`Error::File`] where reading fails.
    pub fn scan(&self, progress: &dyn Progress) -> Result<Scan> {
        let scanned = self
            .content
            .with(&self.ciphers.content, |file| self.engine.scan(file, progress));
        scanned
            .unwrap_or_else(|| Ok(Scan::default()))
            .map_err(|source| self.error(source))
    }

    fn error(&self, source: chunk_cipher::Error) -> Error {
        Error::File {
            path: self.path.clone(),
            source,
        }
    }
}

impl<F> fmt::Debug for VaultFile<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Ranges of blocks as text for a person: `3-5, 9 (from byte 12288 on)`, at most ten of them.
pub(crate) fn describe(blocks: &[Range<u64>]) -> String {
    const SHOWN: usize = 10;
    let mut text = String::new();
    for (n, range) in blocks.iter().take(SHOWN).enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        if range.end - range.start == 1 {
            text += &format!("{comma}{}", range.start);
        } else {
            text += &format!("{comma}{}-{}", range.start, range.end - 1);
        }
    }
    if blocks.len() > SHOWN {
        text += &format!(" and {} more ranges", blocks.len() - SHOWN);
    }
    let first = blocks
        .first()
        .map_or(0, |range| range.start.saturating_mul(BLOCK_LEN as u64));
    text + &format!(" (from byte {first} on)")
}
