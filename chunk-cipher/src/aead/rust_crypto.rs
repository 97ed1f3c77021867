//! The portable backend: RustCrypto's `aes-gcm`, `aes-siv` and `chacha20poly1305`.
//!
//! Always built. It serves the algorithms that AWS-LC lacks and is the oracle for those that it has.

use std::fmt;

use aes_gcm::aead::{AeadCore, AeadInOut, KeyInit, consts::U12, consts::U16, inout::InOutBuf};
use aes_gcm::{AesGcm, aes::Aes256};
use aes_siv::Aes256SivAead;
use chacha20poly1305::XChaCha20Poly1305;

use super::{Aead, Algorithm, Tag, expect_len, or_zeroed};
use crate::error::{Error, Result};

/// A key on this backend.
///
/// # Errors
/// [`Error::Length`] where `key` is not [`Algorithm::key_len`] bytes.
pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Box<dyn Aead>> {
    Ok(match algorithm {
        Algorithm::Aes256Gcm => boxed::<AesGcm<Aes256, U12>>(algorithm, key)?,
        Algorithm::Aes256GcmNonce16 => boxed::<AesGcm<Aes256, U16>>(algorithm, key)?,
        Algorithm::Aes256Siv => boxed::<Aes256SivAead>(algorithm, key)?,
        Algorithm::XChaCha20Poly1305 => boxed::<XChaCha20Poly1305>(algorithm, key)?,
    })
}

fn boxed<C>(algorithm: Algorithm, key: &[u8]) -> Result<Box<dyn Aead>>
where
    C: KeyInit + AeadCore + AeadInOut + Send + Sync + 'static,
{
    let cipher = C::new_from_slice(key).map_err(|_| Error::Length {
        what: "key",
        expected: algorithm.key_len(),
        actual: key.len(),
    })?;
    Ok(Box::new(RustCrypto { algorithm, cipher }))
}

struct RustCrypto<C> {
    algorithm: Algorithm,
    cipher: C,
}

impl<C> fmt::Debug for RustCrypto<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RustCrypto({}, key hidden)", self.algorithm)
    }
}

impl<C: AeadCore + AeadInOut + Send + Sync> RustCrypto<C> {
    fn seal_buf(&self, nonce: &[u8], aad: &[u8], buffer: InOutBuf<'_, '_, u8>) -> Result<Tag> {
        expect_len("nonce", self.algorithm.nonce_len(), nonce.len())?;
        let nonce = nonce.try_into().map_err(|_| Error::Authentication)?;
        let tag = self
            .cipher
            .encrypt_inout_detached(nonce, aad, buffer)
            .map_err(|_| Error::TooLong)?;
        tag.as_slice().try_into().map_err(|_| Error::Authentication)
    }

    fn open_buf(&self, nonce: &[u8], aad: &[u8], buffer: InOutBuf<'_, '_, u8>, tag: &Tag) -> Result<()> {
        expect_len("nonce", self.algorithm.nonce_len(), nonce.len())?;
        let nonce = nonce.try_into().map_err(|_| Error::Authentication)?;
        let tag = tag.as_slice().try_into().map_err(|_| Error::Authentication)?;
        self.cipher
            .decrypt_inout_detached(nonce, aad, buffer, tag)
            .map_err(|_| Error::Authentication)
    }
}

impl<C: AeadCore + AeadInOut + Send + Sync> Aead for RustCrypto<C> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn seal(&self, nonce: &[u8], aad: &[u8], plaintext: &[u8], ciphertext: &mut [u8]) -> Result<Tag> {
        expect_len("output", plaintext.len(), ciphertext.len())?;
        let buffer = InOutBuf::new(plaintext, ciphertext).map_err(|_| Error::Authentication)?;
        self.seal_buf(nonce, aad, buffer)
    }

    fn seal_in_place(&self, nonce: &[u8], aad: &[u8], buffer: &mut [u8]) -> Result<Tag> {
        self.seal_buf(nonce, aad, buffer.into())
    }

    fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &Tag,
        plaintext: &mut [u8],
    ) -> Result<()> {
        let result = expect_len("output", ciphertext.len(), plaintext.len()).and_then(|()| {
            let buffer = InOutBuf::new(ciphertext, plaintext).map_err(|_| Error::Authentication)?;
            self.open_buf(nonce, aad, buffer, tag)
        });
        or_zeroed(result, plaintext)
    }

    fn open_in_place(&self, nonce: &[u8], aad: &[u8], buffer: &mut [u8], tag: &Tag) -> Result<()> {
        let result = self.open_buf(nonce, aad, InOutBuf::from(&mut *buffer), tag);
        or_zeroed(result, buffer)
    }
}
