//! AWS-LC called with nothing around it, as the yardstick of the ciphers.
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::{self, NonNull};

use aws_lc_sys::{
    EVP_AEAD_CTX, EVP_AEAD_CTX_free, EVP_AEAD_CTX_new, EVP_AEAD_CTX_open_gather, EVP_AEAD_CTX_seal_scatter,
    EVP_aead_aes_256_gcm,
};

const TAG_LEN: usize = 16;

/// An AES-256-GCM key.
pub struct Gcm(NonNull<EVP_AEAD_CTX>);

// SAFETY: AWS-LC documents that seal and open take the context as const and may run concurrently.
unsafe impl Send for Gcm {}
// SAFETY: as above.
unsafe impl Sync for Gcm {}

impl Gcm {
    /// Takes the key; `None` where memory is short.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Option<Self> {
        // SAFETY: the method is static data, the key a live slice with its length. The context copies it.
        let context = unsafe { EVP_AEAD_CTX_new(EVP_aead_aes_256_gcm(), key.as_ptr(), key.len(), TAG_LEN) };
        NonNull::new(context).map(Self)
    }

    /// Opens `sealed` into `plain`. Returns whether the tag verified.
    ///
    /// # Panics
    /// Where the lengths differ.
    #[inline]
    #[must_use]
    pub fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG_LEN],
        plain: &mut [u8],
    ) -> bool {
        assert_eq!(sealed.len(), plain.len(), "as much plaintext as ciphertext");
        // SAFETY: live slices with their lengths; `&mut` rules out overlap.
        let ok = unsafe {
            EVP_AEAD_CTX_open_gather(
                self.0.as_ptr(),
                plain.as_mut_ptr(),
                nonce.as_ptr(),
                nonce.len(),
                sealed.as_ptr(),
                sealed.len(),
                tag.as_ptr(),
                TAG_LEN,
                aad.as_ptr(),
                aad.len(),
            )
        };
        ok == 1
    }

    /// Seals `plain` into `sealed` and writes the tag. Returns whether that worked.
    ///
    /// # Panics
    /// Where the lengths differ.
    #[inline]
    #[must_use]
    pub fn seal(
        &self,
        nonce: &[u8],
        aad: &[u8],
        plain: &[u8],
        sealed: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> bool {
        assert_eq!(sealed.len(), plain.len(), "as much ciphertext as plaintext");
        let mut tag_len = 0;
        // SAFETY: live slices with their lengths; `&mut` rules out overlap.
        let ok = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                self.0.as_ptr(),
                sealed.as_mut_ptr(),
                tag.as_mut_ptr(),
                &raw mut tag_len,
                TAG_LEN,
                nonce.as_ptr(),
                nonce.len(),
                plain.as_ptr(),
                plain.len(),
                ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        ok == 1
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        // SAFETY: the context came from EVP_AEAD_CTX_new and is freed once.
        unsafe { EVP_AEAD_CTX_free(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gcm(key hidden)")
    }
}
