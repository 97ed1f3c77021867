//! File content: the file header, and blocks of 4096 bytes sealed one by one (FORMAT.md, "File content").

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use chunk_cipher::aead::{Aead, Algorithm, TAG_LEN, Tag};
use chunk_cipher::store::{ReadAt, WriteAt};
use chunk_cipher::{Codec, Engine, Layout, Progress, Sealed, random};

use crate::error::Result;

/// Length of the header of every file that is not empty, in bytes.
pub const HEADER_LEN: usize = 18;

/// Plaintext bytes in every block but a file's last.
pub const BLOCK_LEN: usize = 4096;

/// Version that the header of every file names.
const VERSION: [u8; 2] = [0, 2];

/// AAD of the blocks that belong to no file: wrapped keys, symlink targets, values of extended attributes.
const DETACHED_AAD: [u8; 8] = [0; 8];

/// The random identity of a file's content, part of the AAD of each of its blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId([u8; 16]);

impl FileId {
    /// A fresh one.
    ///
    /// # Errors
    /// Where the system has no random bytes.
    pub fn generate() -> Result<Self> {
        Ok(Self::random()?)
    }

    fn random() -> chunk_cipher::Result<Self> {
        let mut id = [0; 16];
        random::fill(&mut id)?;
        Ok(Self(id))
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Decodes a file header: a big-endian version, then the file ID.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn from_header(header: &[u8; HEADER_LEN]) -> std::result::Result<Self, &'static str> {
        let (version, id) = header.split_at(VERSION.len());
        if version != VERSION {
            return Err("the file header's version is not 2");
        }
        match <[u8; 16]>::try_from(id) {
            Ok(id) if id != [0; 16] => Ok(Self(id)),
            _ => Err("the file header's file ID is all zero"),
        }
    }

    /// Encodes the file header.
    #[must_use]
    pub fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..VERSION.len()].copy_from_slice(&VERSION);
        header[VERSION.len()..].copy_from_slice(&self.0);
        header
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Seals and opens blocks under a vault's content key.
#[derive(Debug)]
pub(crate) struct BlockCipher {
    aead: Box<dyn Aead>,
    tag_first: bool,
}

impl BlockCipher {
    /// Takes the content key.
    pub(crate) fn new(aead: Box<dyn Aead>) -> Self {
        let tag_first = aead.algorithm() == Algorithm::Aes256Siv;
        Self { aead, tag_first }
    }

    /// How files are laid out under this key.
    pub(crate) fn layout(&self) -> Layout {
        match self.aead.algorithm() {
            Algorithm::XChaCha20Poly1305 => Layout::new(18, 4096, 24 + 16),
            _ => Layout::new(18, 4096, 16 + 16),
        }
    }

    /// Bytes by which a sealed block is longer than its plaintext.
    pub(crate) fn overhead(&self) -> usize {
        self.nonce_len() + TAG_LEN
    }

    pub(crate) fn nonce_len(&self) -> usize {
        self.aead.algorithm().nonce_len()
    }

    /// Seals one block: nonce, ciphertext and tag; with AES-SIV nonce, tag and ciphertext.
    pub(crate) fn seal(
        &self,
        nonce: &[u8],
        aad: &[u8],
        plain: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), BadBlock> {
        let (head, body) = sealed.split_at_mut_checked(nonce.len()).ok_or(BadBlock)?;
        let (body, tag) = self.split_mut(body).ok_or(BadBlock)?;
        head.copy_from_slice(nonce);
        let made = self.aead.seal(nonce, aad, plain, body).map_err(|_| BadBlock)?;
        tag.copy_from_slice(&made);
        Ok(())
    }

    /// Opens one block into `plain`, which is all zero after an error.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8], plain: &mut [u8]) -> Result<(), BadBlock> {
        let parts = sealed
            .split_at_checked(self.nonce_len())
            .and_then(|(nonce, body)| {
                let (body, tag) = self.split(body)?;
                Some((nonce, body, tag))
            });
        // No writer ever draws a nonce of zeros; the reference refuses it too.
        let parts = parts.filter(|(nonce, _, _)| nonce.iter().any(|byte| *byte != 0));
        let Some((nonce, body, tag)) = parts else {
            plain.fill(0);
            return Err(BadBlock);
        };
        self.aead.open(nonce, aad, body, tag, plain).map_err(|_| BadBlock)
    }

    /// Seals what belongs to no file under a fresh nonce: a symlink's target, an extended attribute's value.
    pub(crate) fn seal_detached(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = vec![0; self.nonce_len()];
        random::fill(&mut nonce)?;
        let mut sealed = vec![0; plain.len() + self.overhead()];
        self.seal(&nonce, &DETACHED_AAD, plain, &mut sealed)
            .map_err(|BadBlock| chunk_cipher::Error::TooLong)?;
        Ok(sealed)
    }

    /// Opens what [`Self::seal_detached`] sealed; none where it does not verify.
    pub(crate) fn open_detached(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = vec![0; sealed.len().checked_sub(self.overhead())?];
        self.open(&DETACHED_AAD, sealed, &mut plain).ok()?;
        Some(plain)
    }

    fn split<'a>(&self, body: &'a [u8]) -> Option<(&'a [u8], &'a Tag)> {
        if self.tag_first {
            let (tag, body) = body.split_first_chunk()?;
            Some((body, tag))
        } else {
            body.split_last_chunk()
        }
    }

    fn split_mut<'a>(&self, body: &'a mut [u8]) -> Option<(&'a mut [u8], &'a mut Tag)> {
        if self.tag_first {
            let (tag, body) = body.split_first_chunk_mut()?;
            Some((body, tag))
        } else {
            body.split_last_chunk_mut()
        }
    }
}

/// A block that does not verify or has an impossible length.
#[derive(Debug)]
pub(crate) struct BadBlock;

/// The blocks of one file.
#[derive(Debug)]
pub(crate) struct FileCodec<'a> {
    cipher: &'a BlockCipher,
    id: FileId,
    /// The blocks that are holes, where that is known from elsewhere: ascending ranges.
    holes: Option<&'a [Range<u64>]>,
}

impl<'a> FileCodec<'a> {
    pub(crate) fn new(cipher: &'a BlockCipher, id: FileId) -> Self {
        Self {
            cipher,
            id,
            holes: None,
        }
    }

    /// Whether block `index` is what it should be, a hole or not.
    fn is_expected(&self, index: u64, is_hole: bool) -> bool {
        self.holes.is_none_or(|holes| {
            let at = holes.partition_point(|range| range.end <= index);
            holes.get(at).is_some_and(|range| range.start <= index) == is_hole
        })
    }

    /// Big-endian block number, then the file ID.
    fn aad(&self, index: u64) -> [u8; 24] {
        let mut aad = [0; 24];
        aad[..8].copy_from_slice(&index.to_be_bytes());
        aad[8..].copy_from_slice(&self.id.0);
        aad
    }
}

impl Codec for FileCodec<'_> {
    fn layout(&self) -> Layout {
        self.cipher.layout()
    }

    fn nonce_len(&self) -> usize {
        self.cipher.nonce_len()
    }

    fn open_chunk(&self, index: u64, stored: &[u8], _: &[u8], plain: &mut [u8]) -> chunk_cipher::Result<()> {
        let damaged = |BadBlock| chunk_cipher::Error::Chunk { chunk: index };
        let is_hole = self.is_hole(stored);
        if !self.is_expected(index, is_hole) {
            plain.fill(0);
            return Err(damaged(BadBlock));
        }
        if is_hole {
            plain.fill(0);
            return Ok(());
        }
        self.cipher.open(&self.aad(index), stored, plain).map_err(damaged)
    }

    fn seal_chunk(
        &self,
        index: u64,
        nonce: &[u8],
        plain: &[u8],
        stored: &mut [u8],
        _: &mut [u8],
    ) -> chunk_cipher::Result<()> {
        let too_long = |BadBlock| chunk_cipher::Error::TooLong;
        self.cipher
            .seal(nonce, &self.aad(index), plain, stored)
            .map_err(too_long)
    }

    /// A full block of zeros was never written.
    fn is_hole(&self, stored: &[u8]) -> bool {
        // The nonce settles nearly every case.
        stored.len() == BLOCK_LEN + self.cipher.overhead()
            && stored.first_chunk() == Some(&[0; 16])
            && stored.iter().all(|byte| *byte == 0)
    }
}

/// The content of one file, open for reading.
pub(crate) struct Content<F> {
    file: F,
    stored_len: u64,
    id: Option<FileId>,
    holes: Option<Arc<[Range<u64>]>>,
}

impl<F: ReadAt> Content<F> {
    /// Reads the header of `file`. A file no longer than its header is empty.
    ///
    /// # Errors
    /// What is wrong, without the path, which the caller knows.
    pub(crate) fn open(file: F) -> Result<Self, OpenError> {
        let stored_len = file.len().map_err(OpenError::Io)?;
        if stored_len <= HEADER_LEN as u64 {
            return Ok(Self {
                file,
                stored_len: 0,
                id: None,
                holes: None,
            });
        }
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(0, &mut header).map_err(OpenError::Io)?;
        let id = FileId::from_header(&header).map_err(OpenError::Header)?;
        Ok(Self {
            file,
            stored_len,
            id: Some(id),
            holes: None,
        })
    }

    /// From now on just these blocks are holes: ascending ranges.
    pub(crate) fn expect_holes(&mut self, holes: Arc<[Range<u64>]>) {
        self.holes = Some(holes);
    }

    /// The file ID; none in an empty file.
    pub(crate) const fn id(&self) -> Option<FileId> {
        self.id
    }

    /// Calls `work` with the content, sealed under `cipher`; not at all where it is empty.
    pub(crate) fn with<R>(&self, cipher: &BlockCipher, work: impl FnOnce(Sealed<'_>) -> R) -> Option<R> {
        let codec = FileCodec {
            holes: self.holes.as_deref(),
            ..FileCodec::new(cipher, self.id?)
        };
        Some(work(Sealed::new(&self.file, &codec, self.stored_len)))
    }

    /// Length of the plaintext in bytes.
    pub(crate) fn len(&self, cipher: &BlockCipher) -> u64 {
        cipher.layout().plain_len(self.stored_len)
    }
}

/// Why a file could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Io(std::io::Error),
    Header(&'static str),
}

/// Seals `len` bytes of plaintext from `source` into `sink` under a fresh file ID.
///
/// The header goes first; an empty file has none.
pub(crate) fn seal(
    engine: &Engine,
    cipher: &BlockCipher,
    source: &dyn ReadAt,
    len: u64,
    sink: &dyn WriteAt,
    progress: &dyn Progress,
) -> chunk_cipher::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let id = FileId::random()?;
    let header = id.header();
    sink.write_all_at(0, &header)
        .map_err(|source| chunk_cipher::Error::Write {
            offset: 0,
            len: HEADER_LEN,
            source,
        })?;
    engine.seal(source, len, &FileCodec::new(cipher, id), sink, progress)
}
