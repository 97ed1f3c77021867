//! AES-GCM and XChaCha20-Poly1305 by AWS-LC's `EVP_AEAD_CTX_*`.
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::{self, NonNull};

use aws_lc_sys::{
    ERR_clear_error, EVP_AEAD_CTX, EVP_AEAD_CTX_free, EVP_AEAD_CTX_new, EVP_AEAD_CTX_open_gather,
    EVP_AEAD_CTX_seal_scatter, EVP_aead_aes_256_gcm, EVP_aead_xchacha20_poly1305,
};

use super::{Aead, Algorithm, TAG_LEN, Tag, expect_len, or_zeroed};
use crate::error::{Error, Result};

/// A key on this backend; `None` for AES-256-SIV, which AWS-LC lacks.
///
/// # Errors
/// [`Error::Length`] where `key` is not [`Algorithm::key_len`] bytes.
pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Option<Box<dyn Aead>>> {
    expect_len("key", algorithm.key_len(), key.len())?;
    // SAFETY: both functions return pointers to static data.
    let method = unsafe {
        match algorithm {
            Algorithm::Aes256Gcm | Algorithm::Aes256GcmNonce16 => EVP_aead_aes_256_gcm(),
            Algorithm::XChaCha20Poly1305 => EVP_aead_xchacha20_poly1305(),
            Algorithm::Aes256Siv => return Ok(None),
        }
    };
    // SAFETY: `method` is valid, `key` is readable for the length given. The context copies the key.
    let context = unsafe { EVP_AEAD_CTX_new(method, key.as_ptr(), key.len(), TAG_LEN) };
    let context = NonNull::new(context).ok_or(Error::OutOfMemory)?;
    Ok(Some(Box::new(AwsLc { algorithm, context })))
}

struct AwsLc {
    algorithm: Algorithm,
    context: NonNull<EVP_AEAD_CTX>,
}

// SAFETY: AWS-LC documents that seal and open take the context as const and may run concurrently.
unsafe impl Send for AwsLc {}
// SAFETY: as above.
unsafe impl Sync for AwsLc {}

impl Drop for AwsLc {
    fn drop(&mut self) {
        // SAFETY: the context came from EVP_AEAD_CTX_new and is freed once. AWS-LC wipes what it frees.
        unsafe { EVP_AEAD_CTX_free(self.context.as_ptr()) }
    }
}

impl fmt::Debug for AwsLc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsLc({}, key hidden)", self.algorithm)
    }
}

impl AwsLc {
    /// Seals `len` bytes from `input` to `output`.
    ///
    /// # Safety
    /// `input` is readable and `output` writable for `len` bytes; they are equal or do not overlap.
    unsafe fn seal_raw(
        &self,
        nonce: &[u8],
        aad: &[u8],
        input: *const u8,
        output: *mut u8,
        len: usize,
    ) -> Result<Tag> {
        expect_len("nonce", self.algorithm.nonce_len(), nonce.len())?;
        let mut tag = [0; TAG_LEN];
        let mut tag_len = 0;
        // SAFETY: the caller vouches for input and output; the rest are live slices with their lengths.
        let ok = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                self.context.as_ptr(),
                output,
                tag.as_mut_ptr(),
                &raw mut tag_len,
                TAG_LEN,
                nonce.as_ptr(),
                nonce.len(),
                input,
                len,
                ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        if ok == 1 && tag_len == TAG_LEN {
            return Ok(tag);
        }
        clear_errors();
        Err(Error::TooLong)
    }

    /// Opens `len` bytes from `input` to `output`.
    ///
    /// # Safety
    /// As [`Self::seal_raw`].
    unsafe fn open_raw(
        &self,
        nonce: &[u8],
        aad: &[u8],
        tag: &Tag,
        input: *const u8,
        output: *mut u8,
        len: usize,
    ) -> Result<()> {
        expect_len("nonce", self.algorithm.nonce_len(), nonce.len())?;
        // SAFETY: the caller vouches for input and output; the rest are live slices with their lengths.
        let ok = unsafe {
            EVP_AEAD_CTX_open_gather(
                self.context.as_ptr(),
                output,
                nonce.as_ptr(),
                nonce.len(),
                input,
                len,
                tag.as_ptr(),
                TAG_LEN,
                aad.as_ptr(),
                aad.len(),
            )
        };
        if ok == 1 {
            return Ok(());
        }
        clear_errors();
        Err(Error::Authentication)
    }
}

/// Empties this thread's error queue, which nobody reads.
fn clear_errors() {
    // SAFETY: no arguments; touches thread-local state only.
    unsafe { ERR_clear_error() }
}

impl Aead for AwsLc {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn seal(&self, nonce: &[u8], aad: &[u8], plaintext: &[u8], ciphertext: &mut [u8]) -> Result<Tag> {
        expect_len("output", plaintext.len(), ciphertext.len())?;
        // SAFETY: two live slices of the same length; `&mut` rules out overlap.
        unsafe {
            self.seal_raw(
                nonce,
                aad,
                plaintext.as_ptr(),
                ciphertext.as_mut_ptr(),
                plaintext.len(),
            )
        }
    }

    fn seal_in_place(&self, nonce: &[u8], aad: &[u8], buffer: &mut [u8]) -> Result<Tag> {
        let pointer = buffer.as_mut_ptr();
        // SAFETY: one live slice, input and output equal.
        unsafe { self.seal_raw(nonce, aad, pointer, pointer, buffer.len()) }
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
            // SAFETY: two live slices of the same length; `&mut` rules out overlap.
            unsafe {
                self.open_raw(
                    nonce,
                    aad,
                    tag,
                    ciphertext.as_ptr(),
                    plaintext.as_mut_ptr(),
                    plaintext.len(),
                )
            }
        });
        or_zeroed(result, plaintext)
    }

    fn open_in_place(&self, nonce: &[u8], aad: &[u8], buffer: &mut [u8], tag: &Tag) -> Result<()> {
        let pointer = buffer.as_mut_ptr();
        // SAFETY: one live slice, input and output equal.
        let result = unsafe { self.open_raw(nonce, aad, tag, pointer, pointer, buffer.len()) };
        or_zeroed(result, buffer)
    }
}
