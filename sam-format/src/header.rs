//! The header of a stored file (FORMAT.md, section 3.1).

use std::fmt;

use chunk_cipher::random;
use sha2::{Digest, Sha256};

use crate::error::Result;

/// Length of the header in bytes: a page, so that the body that follows is page-aligned.
pub const HEADER_LEN: usize = 4096;

/// Longest plaintext of a file in bytes: JSON has no larger integer.
pub const MAX_FILE_LEN: u64 = (1 << 53) - 1;

const MAGIC: [u8; 8] = *b"SAM-FILE";
const VERSION: u32 = 1;

/// Bits of `critical` that this version knows.
const KNOWN_CRITICAL: u32 = 0;

/// The random identity of one sealing of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId([u8; 32]);

impl FileId {
    /// A fresh one.
    ///
    /// # Errors
    /// [`Error::Cipher`](crate::Error::Cipher) where the system has no random bytes.
    pub fn generate() -> Result<Self> {
        Ok(Self::random()?)
    }

    pub(crate) fn random() -> chunk_cipher::Result<Self> {
        let mut id = [0; 32];
        random::fill(&mut id)?;
        Ok(Self(id))
    }

    /// The file ID with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Plaintext bytes in every chunk but a file's last: a power of two from 4 KiB to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkLen(u32);

impl ChunkLen {
    /// The shortest, 4 KiB.
    pub const MIN: Self = Self(4 << 10);
    /// The longest, 16 MiB.
    pub const MAX: Self = Self(16 << 20);

    /// `None` where it is no power of two, or out of range.
    #[must_use]
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.0 && bytes <= Self::MAX.0 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The length in bytes.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for ChunkLen {
    /// 64 KiB.
    fn default() -> Self {
        Self(64 << 10)
    }
}

/// What a stored file says of itself. Everything in it is bound to the file's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the plaintext in bytes, at most [`MAX_FILE_LEN`].
    pub len: u64,
    /// Length of the chunks.
    pub chunk_len: ChunkLen,
    /// The file ID.
    pub id: FileId,
}

impl Header {
    /// Decodes a header. What it has reserved is not looked at.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> std::result::Result<Self, &'static str> {
        let fields = Fields::split(bytes);
        if *fields.magic != MAGIC {
            return Err("it does not begin with SAM-FILE; is this a stored file of a package?");
        }
        if u32::from_le_bytes(*fields.version) != VERSION {
            return Err("its version is not 1; a newer version of this program may know it");
        }
        if u32::from_le_bytes(*fields.critical) & !KNOWN_CRITICAL != 0 {
            return Err("it needs a feature that is not known; a newer version of this program may know it");
        }
        let len = u64::from_le_bytes(*fields.len);
        if len > MAX_FILE_LEN {
            return Err("its length is 2^53 bytes or more");
        }
        let chunk_len = ChunkLen::new(u32::from_le_bytes(*fields.chunk_len))
            .ok_or("its chunk length is not a power of two from 4096 to 16777216")?;
        Ok(Self {
            len,
            chunk_len,
            id: FileId(*fields.id),
        })
    }

    /// Encodes the header.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.chunk_len.get().to_le_bytes());
        bytes[32..64].copy_from_slice(self.id.as_bytes());
        bytes
    }
}

/// SHA-256 of a whole header, reserved bytes included: what the file's key and digest are bound to.
pub(crate) fn header_digest(bytes: &[u8; HEADER_LEN]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The fields as they lie in a header.
struct Fields<'a> {
    magic: &'a [u8; 8],
    version: &'a [u8; 4],
    critical: &'a [u8; 4],
    len: &'a [u8; 8],
    chunk_len: &'a [u8; 4],
    id: &'a [u8; 32],
}

impl<'a> Fields<'a> {
    fn split(bytes: &'a [u8; HEADER_LEN]) -> Self {
        fn field<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> &[u8; N] {
            bytes[at..]
                .first_chunk()
                .expect("every field lies within the header")
        }
        Self {
            magic: field(bytes, 0),
            version: field(bytes, 8),
            critical: field(bytes, 12),
            len: field(bytes, 16),
            chunk_len: field(bytes, 24),
            id: field(bytes, 32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            len: 123_456,
            chunk_len: ChunkLen::default(),
            id: FileId([7; 32]),
        }
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let bytes = sample().to_bytes();
        let mut expected = [0; HEADER_LEN];
        expected[..8].copy_from_slice(b"SAM-FILE");
        expected[8] = 1;
        expected[16..24].copy_from_slice(&[0x40, 0xe2, 1, 0, 0, 0, 0, 0]);
        expected[26] = 1;
        expected[32..64].fill(7);
        assert_eq!(bytes, expected);
        assert_eq!(Header::parse(&bytes).unwrap(), sample());
    }

    #[test]
    fn every_bit_of_a_field_is_refused_or_makes_another_header() {
        let bytes = sample().to_bytes();
        let mut refused = 0;
        for bit in 0..HEADER_LEN * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(header_digest(&changed), header_digest(&bytes));
            let reserved = (28..32).contains(&(bit / 8)) || bit / 8 >= 64;
            match Header::parse(&changed) {
                Ok(header) => assert_eq!(header == sample(), reserved, "bit {bit}"),
                Err(_) => {
                    assert!(!reserved, "bit {bit}");
                    refused += 1;
                }
            }
        }
        // Magic, version and critical; lengths from 2^53 on; chunk lengths with another bit, or none.
        assert_eq!(refused, 16 * 8 + 11 + 32);
    }

    #[test]
    fn bounds_are_exact() {
        let with = |at: usize, value: &[u8]| {
            let mut bytes = sample().to_bytes();
            bytes[at..at + value.len()].copy_from_slice(value);
            Header::parse(&bytes)
        };
        assert_eq!(with(16, &MAX_FILE_LEN.to_le_bytes()).unwrap().len, MAX_FILE_LEN);
        assert!(with(16, &(MAX_FILE_LEN + 1).to_le_bytes()).is_err());
        for (len, valid) in [
            (0, false),
            (1, false),
            (2048, false),
            (4096, true),
            (4097, false),
            (12_288, false),
            (1 << 24, true),
            (1 << 25, false),
            (u32::MAX, false),
        ] {
            assert_eq!(with(24, &u32::to_le_bytes(len)).is_ok(), valid, "{len}");
        }
        assert!(with(8, &2_u32.to_le_bytes()).unwrap_err().contains("version"));
        assert!(with(12, &1_u32.to_le_bytes()).unwrap_err().contains("feature"));
    }
}
