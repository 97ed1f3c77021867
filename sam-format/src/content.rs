//! The chunks of a stored file (FORMAT.md, section 3.2).

use chunk_cipher::aead::{self, Aead, Algorithm, TAG_LEN};
use chunk_cipher::{Codec, Error, Layout, Result, kdf};
use zeroize::Zeroizing;

use crate::digest::SEGMENT_LEN;
use crate::header::{HEADER_LEN, Header, header_digest};
use crate::keys::{ContentKey, KEY_LEN};

/// HKDF info of a file's key, in front of the header's digest.
const INFO_FILE_KEY: &[u8] = b"sam/1 file key";

/// Length of the nonce in bytes.
const NONCE_LEN: usize = 12;

/// Where the parts of a file with this header lie.
pub(crate) const fn layout(header: &Header) -> Layout {
    #[allow(clippy::cast_possible_truncation)] // Small constants.
    Layout::contiguous(HEADER_LEN as u32, header.chunk_len.get(), TAG_LEN as u32)
}

/// The chunks of one file, under its own key.
#[derive(Debug)]
pub(crate) struct FileCodec {
    aead: Box<dyn Aead>,
    layout: Layout,
    last: u64,
}

impl FileCodec {
    /// The codec of the file with this header, `bytes` as it is stored.
    pub(crate) fn new(key: &ContentKey, header: &Header, bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        let info = [INFO_FILE_KEY, &header_digest(bytes)].concat();
        let mut file_key = Zeroizing::new([0; KEY_LEN]);
        kdf::hkdf_sha256(
            Some(header.id.as_bytes()),
            key.as_bytes(),
            &info,
            file_key.as_mut_slice(),
        )?;
        let layout = layout(header);
        Ok(Self {
            aead: aead::new(Algorithm::Aes256Gcm, file_key.as_slice())?,
            layout,
            // There is always one.
            last: layout.chunk_count(header.len) - 1,
        })
    }

    /// The nonce of chunk `index`. No two chunks of a file have the same, and no chunk but the last has its flag.
    pub(crate) fn nonce(&self, index: u64) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = u8::from(index == self.last);
        nonce[4..].copy_from_slice(&index.to_be_bytes());
        nonce
    }
}

impl Codec for FileCodec {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn nonce_len(&self) -> usize {
        0
    }

    fn segment_len(&self) -> u64 {
        SEGMENT_LEN
    }

    fn open_chunk(&self, index: u64, stored: &[u8], tag: &[u8], plain: &mut [u8]) -> Result<()> {
        let opened = match tag.try_into() {
            Ok(tag) => self.aead.open(&self.nonce(index), &[], stored, tag, plain),
            Err(_) => {
                plain.fill(0);
                Err(Error::Authentication)
            }
        };
        opened.map_err(|_| Error::Chunk { chunk: index })
    }

    fn seal_chunk(
        &self,
        index: u64,
        _: &[u8],
        plain: &[u8],
        stored: &mut [u8],
        tag: &mut [u8],
    ) -> Result<()> {
        let made = self.aead.seal(&self.nonce(index), &[], plain, stored)?;
        tag.copy_from_slice(&made);
        Ok(())
    }
}
