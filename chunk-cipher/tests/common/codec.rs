//! A small chunk format, and files in memory.
#![allow(dead_code)] // Not every test needs all of it.

use std::io;
use std::sync::Mutex;

use chunk_cipher::aead::{self, Aead, Algorithm, TAG_LEN};
use chunk_cipher::store::{ReadAt, WriteAt};
use chunk_cipher::{Codec, Error, Layout, Result};

/// Length of the header, which holds nothing.
pub(crate) const HEADER_LEN: u32 = 18;

/// Chunks of nonce, ciphertext and tag, or of ciphertext alone with the tags in a table; the index is authenticated. A
/// full chunk of zeros is a hole in the former.
#[derive(Debug)]
pub(crate) struct TestCodec {
    aead: Box<dyn Aead>,
    layout: Layout,
    segment_len: u64,
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
            segment_len: 1,
        }
    }

    pub(crate) fn contiguous(chunk_len: u32) -> Self {
        Self::contiguous_with(
            aead::new(Algorithm::Aes256GcmNonce16, &[7; 32]).unwrap(),
            chunk_len,
        )
    }

    pub(crate) fn contiguous_with(aead: Box<dyn Aead>, chunk_len: u32) -> Self {
        Self {
            aead,
            layout: Layout::contiguous(HEADER_LEN, chunk_len, 16),
            segment_len: 1,
        }
    }

    /// Both kinds of layout.
    pub(crate) fn both(chunk_len: u32) -> [Self; 2] {
        [Self::new(chunk_len), Self::contiguous(chunk_len)]
    }

    pub(crate) fn in_segments(self, segment_len: u64) -> Self {
        Self { segment_len, ..self }
    }

    pub(crate) fn is_contiguous(&self) -> bool {
        self.layout.tag_len() > 0
    }

    /// Seals a file chunk by chunk, under nonces that count.
    pub(crate) fn seal_all(&self, plain: &[u8]) -> Vec<u8> {
        let mut file = vec![
            0xee;
            if plain.is_empty() && !self.is_contiguous() {
                0
            } else {
                HEADER_LEN as usize
            }
        ];
        let mut table = Vec::new();
        let mut chunks: Vec<_> = plain
            .chunks(usize::try_from(self.layout.chunk_len()).unwrap())
            .collect();
        if plain.is_empty() && self.is_contiguous() {
            chunks.push(plain);
        }
        for (index, plain) in (0_u64..).zip(chunks) {
            let mut nonce = vec![1; self.nonce_len()];
            nonce
                .iter_mut()
                .zip(index.to_le_bytes())
                .for_each(|(byte, of_index)| *byte = of_index);
            let mut stored = vec![0; plain.len() + usize::try_from(self.layout.overhead()).unwrap()];
            let mut tag = vec![0; usize::try_from(self.layout.tag_len()).unwrap()];
            self.seal_chunk(index, &nonce, plain, &mut stored, &mut tag)
                .unwrap();
            file.extend(stored);
            table.extend(tag);
        }
        file.extend(table);
        file
    }

    /// The nonce of chunk `index` where nonces are not random.
    fn fixed_nonce(&self, index: u64) -> Vec<u8> {
        let mut nonce = index.to_be_bytes().to_vec();
        nonce.resize(self.aead.algorithm().nonce_len(), 3);
        nonce
    }
}

impl Codec for TestCodec {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn nonce_len(&self) -> usize {
        if self.is_contiguous() {
            return 0;
        }
        self.aead.algorithm().nonce_len()
    }

    fn segment_len(&self) -> u64 {
        self.segment_len
    }

    fn open_chunk(&self, index: u64, stored: &[u8], tag: &[u8], plain: &mut [u8]) -> Result<()> {
        if self.is_hole(stored) {
            plain.fill(0);
            return Ok(());
        }
        let (nonce, rest) = stored.split_at(self.nonce_len());
        let fixed = self.fixed_nonce(index);
        let (nonce, cipher, tag) = if self.is_contiguous() {
            (&fixed[..], rest, tag.try_into().unwrap())
        } else {
            assert_eq!(tag, []);
            let (cipher, tag) = rest.split_last_chunk().unwrap();
            (nonce, cipher, tag)
        };
        self.aead
            .open(nonce, &index.to_le_bytes(), cipher, tag, plain)
            .map_err(|error| {
                assert!(matches!(error, Error::Authentication));
                Error::Chunk { chunk: index }
            })
    }

    fn seal_chunk(
        &self,
        index: u64,
        nonce: &[u8],
        plain: &[u8],
        stored: &mut [u8],
        tag: &mut [u8],
    ) -> Result<()> {
        assert_eq!(nonce.len(), self.nonce_len());
        let (head, rest) = stored.split_at_mut(nonce.len());
        head.copy_from_slice(nonce);
        let fixed = self.fixed_nonce(index);
        let (nonce, cipher, tag) = if self.is_contiguous() {
            (&fixed[..], rest, tag.try_into().unwrap())
        } else {
            assert_eq!(tag, []);
            let (cipher, tag) = rest.split_last_chunk_mut::<TAG_LEN>().unwrap();
            (nonce, cipher, tag)
        };
        *tag = self.aead.seal(nonce, &index.to_le_bytes(), plain, cipher)?;
        Ok(())
    }

    fn is_hole(&self, stored: &[u8]) -> bool {
        !self.is_contiguous()
            && stored.len() as u64 == self.layout.stored_chunk_len()
            && stored.iter().all(|byte| *byte == 0)
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
