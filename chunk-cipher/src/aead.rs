//! Authenticated encryption of one chunk, behind one trait and two backends.

use std::fmt;

use crate::error::{Error, Result};

#[cfg(feature = "aws-lc")]
pub mod aws_lc;
pub mod rust_crypto;

/// Length of every algorithm's authentication tag (the synthetic IV of AES-SIV), in bytes.
pub const TAG_LEN: usize = 16;

/// An authentication tag.
pub type Tag = [u8; TAG_LEN];

/// The algorithms that chunk formats use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// AES-256-GCM with 12-byte nonces (NIST SP 800-38D).
    Aes256Gcm,
    /// AES-256-GCM with 16-byte nonces, which pass through GHASH (NIST SP 800-38D, section 7.1).
    Aes256GcmNonce16,
    /// AES-256-SIV with a 16-byte nonce as last header of S2V (RFC 5297, AEAD_AES_SIV_CMAC_512).
    Aes256Siv,
    /// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03).
    XChaCha20Poly1305,
}

impl Algorithm {
    /// Length of the key in bytes: 64 for AES-256-SIV, 32 for the others.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes256Siv => 64,
            Self::Aes256Gcm | Self::Aes256GcmNonce16 | Self::XChaCha20Poly1305 => 32,
        }
    }

    /// Length of the nonce in bytes.
    #[must_use]
    pub const fn nonce_len(self) -> usize {
        match self {
            Self::Aes256Gcm => 12,
            Self::Aes256GcmNonce16 | Self::Aes256Siv => 16,
            Self::XChaCha20Poly1305 => 24,
        }
    }

    /// The usual name of the algorithm.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm | Self::Aes256GcmNonce16 => "AES-256-GCM",
            Self::Aes256Siv => "AES-256-SIV",
            Self::XChaCha20Poly1305 => "XChaCha20-Poly1305",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One key of one [`Algorithm`], ready to seal and open chunks.
///
/// Implementations hold no state besides the key, so any number of threads may share one. Lengths are
/// checked: a nonce of another length than [`Algorithm::nonce_len`], or input and output of different
/// lengths, are errors.
pub trait Aead: Send + Sync + fmt::Debug {
    /// The algorithm that this key is for.
    fn algorithm(&self) -> Algorithm;

    /// Encrypts `plaintext` into `ciphertext` (of the same length) and returns the tag over it and `aad`.
    ///
    /// # Errors
    /// [`Error::Length`] where a length does not fit.
    fn seal(&self, nonce: &[u8], aad: &[u8], plaintext: &[u8], ciphertext: &mut [u8]) -> Result<Tag>;

    /// Encrypts `buffer` in place and returns the tag.
    ///
    /// # Errors
    /// [`Error::Length`] where a length does not fit.
    fn seal_in_place(&self, nonce: &[u8], aad: &[u8], buffer: &mut [u8]) -> Result<Tag>;

    /// Verifies `tag` and decrypts `ciphertext` into `plaintext` (of the same length).
    ///
    /// # Errors
    /// [`Error::Authentication`] where the tag does not verify, [`Error::Length`] where a length does not
    /// fit. `plaintext` is all zero then.
    fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &Tag,
        plaintext: &mut [u8],
    ) -> Result<()>;

    /// Verifies `tag` and decrypts `buffer` in place.
    ///
    /// # Errors
    /// As [`Aead::open`]; `buffer` is all zero then.
    fn open_in_place(&self, nonce: &[u8], aad: &[u8], buffer: &mut [u8], tag: &Tag) -> Result<()>;
}

/// A key on the fastest backend that this build has.
///
/// # Errors
/// [`Error::Length`] where `key` is not [`Algorithm::key_len`] bytes.
pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Box<dyn Aead>> {
    #[cfg(feature = "aws-lc")]
    if let Some(aead) = aws_lc::new(algorithm, key)? {
        return Ok(aead);
    }
    rust_crypto::new(algorithm, key)
}

/// Refuses a length that the algorithm or the call does not allow.
fn expect_len(what: &'static str, expected: usize, actual: usize) -> Result<()> {
    if expected == actual {
        Ok(())
    } else {
        Err(Error::Length {
            what,
            expected,
            actual,
        })
    }
}

/// Zeroes `plaintext` where `result` is an error: nothing unverified reaches the caller.
fn or_zeroed(result: Result<()>, plaintext: &mut [u8]) -> Result<()> {
    if result.is_err() {
        plaintext.fill(0);
    }
    result
}
