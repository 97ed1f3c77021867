//! A sealed file of any length whose stored bytes are the same few hundred kilobytes over and over, so that they stay
//! in the processor's cache: a big read without the traffic of its source.

use std::io;
use std::ops::Range;

use chunk_cipher::aead::{self, Aead, Algorithm, TAG_LEN};
use chunk_cipher::store::{ReadAt, Windows};
use chunk_cipher::{Codec, Error, Layout};

const NONCE_LEN: usize = 16;
const BLOCK_LEN: usize = 4096;
const STORED_LEN: usize = NONCE_LEN + BLOCK_LEN + TAG_LEN;

/// Blocks that repeat: as many as the engine handles at a time, so that none of its windows wraps around.
const BLOCKS: usize = 240;

/// The codec: blocks as gocryptfs has them, all under the same associated data.
#[derive(Debug)]
pub(crate) struct Blocks {
    aead: Box<dyn Aead>,
}

impl Blocks {
    pub(crate) fn new() -> crate::Result<Self> {
        Ok(Self {
            aead: aead::new(Algorithm::Aes256GcmNonce16, &[1; 32])?,
        })
    }

    /// The stored bytes of a file of `plain_len` bytes, which must be whole blocks.
    pub(crate) fn file(&self, plain_len: usize) -> crate::Result<Repeating> {
        let mut period = vec![0; BLOCKS * STORED_LEN];
        let mut plain = [0; BLOCK_LEN];
        let mut nonce = [0; NONCE_LEN];
        for stored in period.chunks_mut(STORED_LEN) {
            chunk_cipher::random::fill(&mut plain)?;
            chunk_cipher::random::fill(&mut nonce)?;
            self.seal_chunk(0, &nonce, &plain, stored, &mut [])?;
        }
        Ok(Repeating {
            period,
            len: (plain_len / BLOCK_LEN * STORED_LEN) as u64,
        })
    }
}

impl Codec for Blocks {
    fn layout(&self) -> Layout {
        Layout::new(0, 4096, 32)
    }

    fn nonce_len(&self) -> usize {
        NONCE_LEN
    }

    fn open_chunk(&self, index: u64, stored: &[u8], _: &[u8], plain: &mut [u8]) -> chunk_cipher::Result<()> {
        let damaged = || Error::Chunk { chunk: index };
        let (nonce, body) = stored.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let (body, tag) = body.split_last_chunk().ok_or_else(damaged)?;
        self.aead.open(nonce, &[0; 24], body, tag, plain)
    }

    fn seal_chunk(
        &self,
        _: u64,
        nonce: &[u8],
        plain: &[u8],
        stored: &mut [u8],
        _: &mut [u8],
    ) -> chunk_cipher::Result<()> {
        let (head, body) = stored.split_at_mut(NONCE_LEN);
        let (body, tag) = body.split_at_mut(plain.len());
        head.copy_from_slice(nonce);
        tag.copy_from_slice(&self.aead.seal(nonce, &[0; 24], plain, body)?);
        Ok(())
    }
}

/// The stored bytes.
#[derive(Debug)]
pub(crate) struct Repeating {
    period: Vec<u8>,
    pub(crate) len: u64,
}

impl Repeating {
    /// The bytes of `range`, where it does not wrap around.
    fn part(&self, range: &Range<u64>) -> Option<&[u8]> {
        let start = usize::try_from(range.start % self.period.len() as u64).ok()?;
        let len = usize::try_from(range.end - range.start).ok()?;
        self.period.get(start..start + len)
    }
}

impl ReadAt for Repeating {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let part = self.part(&(offset..offset + buf.len() as u64));
        // Copying would spoil what this is for.
        buf.copy_from_slice(part.ok_or_else(|| io::Error::other("the engine's groups have changed"))?);
        Ok(())
    }

    fn windows(&self) -> Option<Box<dyn Windows + '_>> {
        Some(Box::new(self))
    }
}

impl Windows for &Repeating {
    fn with(&self, range: Range<u64>, work: &mut dyn FnMut(Range<u64>, &[u8])) -> bool {
        let Some(part) = self.part(&range) else {
            return false;
        };
        work(range, part);
        true
    }
}
