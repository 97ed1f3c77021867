//! The IV of a directory.

use std::fmt;

use chunk_cipher::random;

use crate::eme;
use crate::error::{Error, Result};

/// File with a directory's IV.
pub const DIR_IV_NAME: &str = "gocryptfs.diriv";

/// The IV of a directory, for the names in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirIv(pub [u8; DirIv::LEN]);

impl DirIv {
    /// Length in bytes.
    pub const LEN: usize = eme::BLOCK_LEN;
    /// The IV of every directory where names are deterministic; no `gocryptfs.diriv` holds it.
    pub const ZERO: Self = Self([0; Self::LEN]);

    /// A new random IV.
    ///
    /// # Errors
    /// [`Error::Cipher`] where the system has no random bytes to give.
    pub fn generate() -> Result<Self> {
        let mut iv = Self::ZERO;
        while iv == Self::ZERO {
            random::fill(&mut iv.0)?;
        }
        Ok(iv)
    }

    /// The IV in the content of a `gocryptfs.diriv`.
    ///
    /// # Errors
    /// [`Error::DirIv`] where it is not 16 bytes long, or all zero.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let bytes = content.try_into().map_err(|_| Error::DirIv {
            reason: "is not 16 bytes long",
        })?;
        match Self(bytes) {
            Self::ZERO => Err(Error::DirIv {
                reason: "is all zero",
            }),
            iv => Ok(iv),
        }
    }
}

impl fmt::Debug for DirIv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirIv({:032x})", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_ivs_are_16_bytes_and_not_all_zero() -> Result<()> {
        for content in [&[][..], &[1; 15], &[1; 17], &[0; 16]] {
            assert!(matches!(DirIv::parse(content), Err(Error::DirIv { .. })));
        }
        assert_eq!(DirIv::parse(&[1; 16])?, DirIv([1; 16]));
        assert_ne!(DirIv::generate()?, DirIv::generate()?);
        Ok(())
    }
}
