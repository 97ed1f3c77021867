//! A small chunk format, and files in memory.
#![allow(dead_code)] // Not every test needs all of it.

use std::io;
use std::sync::Mutex;

use chunk_cipher::aead::{self, Aead, Algorithm, TAG_LEN};
use chunk_cipher::store::{ReadAt, WriteAt};
use chunk_cipher::{Codec, Error, Layout, Result};

/// Length of the header, which holds nothing.
pub(crate) const HEADER_LEN: u32 = 18;

/// Chunks of nonce, ciphertext and tag; the index is authenticated. A full chunk of zeros is a hole.
#[derive(Debug)]
pub(crate) struct TestCodec {
    aead: Box<dyn Aead>,
    layout: Layout,
}

impl TestCodec {
    pub(crate) fn new(chunk_len: u32) -> Self {
        Self::with(
            aead::new(Algorithm::Aes256GcmNonce16, &[7; 32]).unwrap(),
            chunk_len,
        )
    }

    pub(crate) fn with(aead: Box<dyn Aead>, chunk_len: u32) -> Self {
        let overhead = u32::try_from(aead.algorithm().nonce_len() + TAG_LEN).unwrap();
        Self {
            aead,
            layout: Layout::new(HEADER_LEN, chunk_len, overhead),
        }
    }

    /// Seals a file chunk by chunk, under nonces that count.
    pub(crate) fn seal_all(&self, plain: &[u8]) -> Vec<u8> {
        let mut file = vec![0xee; if plain.is_empty() { 0 } else { HEADER_LEN as usize }];
        for (index, plain) in (0_u64..).zip(plain.chunks(usize::try_from(self.layout.chunk_len()).unwrap())) {
            let mut nonce = vec![1; self.nonce_len()];
            nonce[..8].copy_from_slice(&index.to_le_bytes());
            let mut stored = vec![0; plain.len() + usize::try_from(self.layout.overhead()).unwrap()];
            self.seal_chunk(index, &nonce, plain, &mut stored).unwrap();
            file.extend(stored);
        }
        file
    }
}

impl Codec for TestCodec {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn nonce_len(&self) -> usize {
        self.aead.algorithm().nonce_len()
    }

    fn open_chunk(&self, index: u64, stored: &[u8], plain: &mut [u8]) -> Result<()> {
        if self.is_hole(stored) {
            plain.fill(0);
            return Ok(());
        }
        let (nonce, rest) = stored.split_at(self.nonce_len());
        let (cipher, tag) = rest.split_last_chunk().unwrap();
        self.aead
            .open(nonce, &index.to_le_bytes(), cipher, tag, plain)
            .map_err(|error| {
                assert!(matches!(error, Error::Authentication));
                Error::Chunk { chunk: index }
            })
    }

    fn seal_chunk(&self, index: u64, nonce: &[u8], plain: &[u8], stored: &mut [u8]) -> Result<()> {
        let (head, rest) = stored.split_at_mut(nonce.len());
        let (cipher, tag) = rest.split_last_chunk_mut::<TAG_LEN>().unwrap();
        head.copy_from_slice(nonce);
        *tag = self.aead.seal(nonce, &index.to_le_bytes(), plain, cipher)?;
        Ok(())
    }

    fn is_hole(&self, stored: &[u8]) -> bool {
        stored.len() as u64 == self.layout.stored_chunk_len() && stored.iter().all(|byte| *byte == 0)
    }
}

/// A file in memory.
#[derive(Debug)]
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl ReadAt for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = self.0.get(offset..).and_then(|bytes| bytes.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Takes what is written to a file of fixed length, zeros at first.
#[derive(Debug)]
pub(crate) struct Sink(Mutex<Vec<u8>>);

impl Sink {
    pub(crate) fn new(len: u64) -> Self {
        Self(Mutex::new(vec![0; usize::try_from(len).unwrap()]))
    }

    pub(crate) fn into_inner(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

impl WriteAt for Sink {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.0.lock().unwrap()[offset..offset + buf.len()].copy_from_slice(buf);
        Ok(())
    }
}

/// Bytes that differ from one another wherever they are.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
