//! An open file of a package, and sealing one.

use std::fmt;
use std::path::{Path, PathBuf};

use chunk_cipher::store::{ReadAt, WriteAt};
use chunk_cipher::{Engine, Progress, Scan};

use crate::content::{FileCodec, layout};
use crate::digest::{DigestedSink, DigestedSource, Digester};
use crate::error::{Error, Result};
use crate::header::{ChunkLen, FileId, HEADER_LEN, Header, MAX_FILE_LEN};
use crate::keys::ContentKey;

/// An open file of a package: its plaintext, at any position, from any number of threads.
pub struct PackageFile<F> {
    path: PathBuf,
    file: F,
    header: Header,
    header_bytes: [u8; HEADER_LEN],
    /// Digest of the stored bytes, where the manifest is there to tell it.
    digest: Option<[u8; 32]>,
    codec: FileCodec,
    engine: Engine,
}

impl<F: ReadAt> PackageFile<F> {
    /// Opens the stored `file`, which must be the one that the manifest has at `path`.
    ///
    /// # Errors
    /// [`Error::Header`] where it has no valid header, [`Error::Mismatch`] where it is another file, [`Error::Io`]
    /// where it cannot be read.
    pub(crate) fn open(
        path: PathBuf,
        file: F,
        expected: &Header,
        digest: Option<[u8; 32]>,
        key: &ContentKey,
        engine: Engine,
    ) -> Result<Self> {
        let header_bytes = read_header(&path, &file, expected)?;
        let codec = FileCodec::new(key, expected, &header_bytes)?;
        Ok(Self {
            path,
            file,
            header: *expected,
            header_bytes,
            digest,
            codec,
            engine,
        })
    }

    /// Its path in the package.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the plaintext in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.header.len
    }

    /// Whether the plaintext is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file ID.
    #[must_use]
    pub const fn id(&self) -> FileId {
        self.header.id
    }

    /// Fills `out` with the plaintext from `offset` on. Every chunk of it was verified when this returns.
    ///
    /// # Errors
    /// [`Error::File`] where a chunk is damaged, the range is not within the file, or reading fails; `out` is all
    /// zero then.
    pub fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let read = self.engine.read_into(self.sealed(), offset, out);
        read.map_err(|source| self.error(source))
    }

    /// Fills as much of `out` as the plaintext from `offset` on has, and returns how much that is, in bytes.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let rest = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = rest.min(out.len());
        // An empty file has a chunk to verify as well.
        if len > 0 || self.is_empty() {
            self.read_into(offset.min(self.len()), &mut out[..len])?;
        }
        Ok(len)
    }

    /// Writes the whole plaintext to `sink`. What was read to that end must have the digest of the manifest: tags alone
    /// say nothing against someone who has the key.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Digest`]; what was written must be thrown away then.
    pub fn unseal(&self, sink: &dyn WriteAt, progress: &dyn Progress) -> Result<()> {
        let found = self.unseal_and_digest(sink, progress)?;
        self.check_digest(found)
    }

    /// Opens every chunk and goes on where one is damaged.
    ///
    /// # Errors
    /// [`Error::File`] where reading fails.
    pub fn scan(&self, progress: &dyn Progress) -> Result<Scan> {
        let scanned = self.engine.scan(self.sealed(), progress);
        scanned.map_err(|source| self.error(source))
    }

    /// As [`Self::scan`], and digests the same bytes as it reads them.
    ///
    /// # Errors
    /// As [`Self::scan`].
    fn scan_and_digest(&self, progress: &dyn Progress) -> Result<(Scan, [u8; 32])> {
        self.digested(|file| self.engine.scan(file, progress))
    }

    /// Opens every chunk, and compares the digest of the stored bytes with that of the manifest.
    ///
    /// # Errors
    /// [`Error::Chunks`] and [`Error::Digest`], [`Error::File`] where reading fails.
    pub(crate) fn verify(&self, progress: &dyn Progress) -> Result<()> {
        let (scan, found) = self.scan_and_digest(progress)?;
        if scan.damaged.is_empty() {
            return self.check_digest(found);
        }
        Err(Error::Chunks {
            path: self.path.clone(),
            chunks: scan.damaged,
        })
    }

    fn check_digest(&self, found: [u8; 32]) -> Result<()> {
        match self.digest {
            Some(digest) if found != digest => Err(Error::Digest {
                path: self.path.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Writes the whole plaintext to `sink`, and digests the stored bytes as it reads them.
    ///
    /// # Errors
    /// [`Error::File`]; what was written must be thrown away then.
    pub(crate) fn unseal_and_digest(&self, sink: &dyn WriteAt, progress: &dyn Progress) -> Result<[u8; 32]> {
        let ((), digest) = self.digested(|file| self.engine.unseal(file, sink, progress))?;
        Ok(digest)
    }

    /// Does something that reads all of the file, and digests what it reads.
    fn digested<R>(
        &self,
        work: impl FnOnce(chunk_cipher::Sealed<'_>) -> chunk_cipher::Result<R>,
    ) -> Result<(R, [u8; 32])> {
        let digested = || {
            let digester = Digester::new(&self.header_bytes, &layout(&self.header), self.header.len)?;
            let source = DigestedSource {
                source: &self.file,
                digester: &digester,
            };
            let done = work(self.sealed_in(&source))?;
            Ok((done, digester.finish()?))
        };
        digested().map_err(|source| self.error(source))
    }

    fn sealed(&self) -> chunk_cipher::Sealed<'_> {
        self.sealed_in(&self.file)
    }

    fn sealed_in<'a>(&'a self, source: &'a dyn ReadAt) -> chunk_cipher::Sealed<'a> {
        chunk_cipher::Sealed::new(source, &self.codec, stored_len(&self.header))
    }

    fn error(&self, source: chunk_cipher::Error) -> Error {
        Error::File {
            path: self.path.clone(),
            source,
        }
    }
}

impl<F> fmt::Debug for PackageFile<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Length of the stored file with this header in bytes.
pub(crate) fn stored_len(header: &Header) -> u64 {
    let len = layout(header).stored_len(header.len);
    len.expect("a header's length is at most 2^53 bytes")
}

/// Reads the header of the stored `file`, which must be `expected`, and makes sure that the file is as long as that
/// says.
fn read_header(path: &Path, file: &impl ReadAt, expected: &Header) -> Result<[u8; HEADER_LEN]> {
    let failed = |source| Error::io(path, "reading", source);
    let mismatch = |what| Error::Mismatch {
        path: path.to_path_buf(),
        what,
    };
    if file.len().map_err(failed)? != stored_len(expected) {
        return Err(mismatch("its stored length differs"));
    }
    let mut bytes = [0; HEADER_LEN];
    file.read_exact_at(0, &mut bytes).map_err(failed)?;
    let header = Header::parse(&bytes).map_err(|what| Error::Header {
        path: path.to_path_buf(),
        what,
    })?;
    match header {
        _ if header.id != expected.id => Err(mismatch("its file ID differs")),
        _ if header.len != expected.len => Err(mismatch("the length in its header differs")),
        _ if header.chunk_len != expected.chunk_len => Err(mismatch("its chunk length differs")),
        _ => Ok(bytes),
    }
}

/// What the manifest says of a file that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) file_id: FileId,
    pub(crate) digest: [u8; 32],
}

/// Seals `len` bytes of plaintext from `source` into `sink` under a fresh file ID: header, body and tags.
pub(crate) fn seal(
    engine: &Engine,
    key: &ContentKey,
    source: &dyn ReadAt,
    len: u64,
    chunk_len: ChunkLen,
    sink: &dyn WriteAt,
    progress: &dyn Progress,
) -> chunk_cipher::Result<Sealed> {
    if len > MAX_FILE_LEN {
        return Err(chunk_cipher::Error::TooLong);
    }
    let header = Header {
        len,
        chunk_len,
        id: FileId::random()?,
    };
    let bytes = header.to_bytes();
    sink.write_all_at(0, &bytes)
        .map_err(|source| chunk_cipher::Error::Write {
            offset: 0,
            len: HEADER_LEN,
            source,
        })?;
    let codec = FileCodec::new(key, &header, &bytes)?;
    let digester = Digester::new(&bytes, &layout(&header), len)?;
    let digested = DigestedSink {
        sink,
        digester: &digester,
    };
    engine.seal(source, len, &codec, &digested, progress)?;
    Ok(Sealed {
        file_id: header.id,
        digest: digester.finish()?,
    })
}

#[cfg(test)]
mod tests;
