//! The content key of a package.

use std::fmt;

use chunk_cipher::{kdf, random};
use zeroize::Zeroizing;

use crate::error::Result;

/// Length of the content key, and of every key derived from it, in bytes.
pub const KEY_LEN: usize = 32;

/// HKDF info of the content key's commitment.
const INFO_COMMITMENT: &[u8] = b"sam/1 content key commitment";

/// The key that everything in a package is encrypted under. Zeroized when dropped, never printed.
pub struct ContentKey(Box<Zeroizing<[u8; KEY_LEN]>>);

impl ContentKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`Error::Cipher`](crate::Error::Cipher) where the system has no random bytes to give.
    pub fn generate() -> Result<Self> {
        let mut key = Self::zero();
        random::fill(key.0.as_mut_slice())?;
        Ok(key)
    }

    /// A copy of these bytes; the caller's remain to be zeroized.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        let mut key = Self::zero();
        key.0.copy_from_slice(bytes);
        key
    }

    /// What the manifest says about the key: no other key has the same, and the key does not follow from it.
    ///
    /// # Errors
    /// None in practice: those of HKDF.
    pub fn commitment(&self) -> Result<[u8; KEY_LEN]> {
        let mut commitment = [0; KEY_LEN];
        kdf::hkdf_sha256(None, self.as_bytes(), INFO_COMMITMENT, &mut commitment)?;
        Ok(commitment)
    }

    /// The bytes of the key.
    pub(crate) fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The bytes of the key, to be filled in.
    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8; KEY_LEN] {
        &mut self.0
    }

    /// All zero, to be filled in.
    pub(crate) fn zero() -> Self {
        Self(Box::new(Zeroizing::new([0; KEY_LEN])))
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_printed() {
        let key = ContentKey::from_bytes(&[0xab; 32]);
        assert_eq!(
            format!("{key:?} {key:#?}"),
            "ContentKey(hidden) ContentKey(hidden)"
        );
    }

    /// Computed with Python's `hmac` module.
    #[test]
    fn commitment() -> Result<()> {
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).expect("less than 32"));
        assert_eq!(
            crate::encoding::hex(&ContentKey::from_bytes(&key).commitment()?),
            "276f3e4e023dfb1086fd4a6b1e7f6edb76f831ad14e70ed4c5fdf1fe412be793"
        );
        Ok(())
    }

    #[test]
    fn generated_ones_differ() -> Result<()> {
        assert_ne!(
            ContentKey::generate()?.as_bytes(),
            ContentKey::generate()?.as_bytes()
        );
        Ok(())
    }
}
