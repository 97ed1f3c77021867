//! Bytes that the library hands over: texts of any length, and secrets.
#![allow(unsafe_code)]

use zeroize::{Zeroize, Zeroizing};

use crate::boundary::{Out, boundary, bytes_mut, free, infallible};
use crate::error::Error;
use crate::handle::{self, Object};

/// Bytes that belong to the library: a secret, or a JSON document. To be freed by `modelseal_buffer_free`, which wipes
/// them.
pub struct Buffer(Zeroizing<Vec<u8>>);

impl Object for Buffer {
    const NAME: &'static str = "buffer";
}

impl Buffer {
    pub(crate) const fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buffer(hidden)")
    }
}

/// Where the bytes of a buffer are, and how many. They live as long as the buffer; no NUL is behind them.
///
/// # Safety
/// `data`, `len` and `error` must be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_buffer_bytes(
    buffer: *const Buffer,
    data: *mut *const u8,
    len: *mut usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (data, len) = unsafe { (Out::new(data, "data")?, Out::new(len, "len")?) };
        let buffer = handle::get(buffer)?;
        data.set(buffer.0.as_ptr());
        len.set(buffer.0.len());
        Ok(())
    })
}

/// Wipes the bytes of a buffer and frees it. NULL is nothing.
///
/// # Safety
/// Its bytes must not be read any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_buffer_free(buffer: *mut Buffer) {
    free(buffer);
}

/// Overwrites `len` bytes at `data` with zeros, in a way that no compiler leaves out: for secrets in the caller's own
/// memory. NULL is nothing.
///
/// # Safety
/// `data` must be NULL, or `len` bytes that are valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_wipe(data: *mut u8, len: usize) {
    infallible((), || {
        // SAFETY: as the caller vouches.
        if let Ok(bytes) = unsafe { bytes_mut(data, len, "data") } {
            bytes.zeroize();
        }
    });
}

/// How many handles are not freed yet, errors included: for tests that look for leaks.
#[unsafe(no_mangle)]
pub extern "C" fn modelseal_live_handles() -> usize {
    handle::count()
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::status::MODELSEAL_OK;

    #[test]
    fn bytes_are_there_until_freed_and_never_shown() {
        let buffer = Buffer::new(Zeroizing::new(b"a secret".to_vec()));
        assert!(!format!("{buffer:?}").contains("secret"));
        let buffer = handle::insert(buffer).unwrap();
        let (mut data, mut len) = (ptr::null(), 0);
        // SAFETY: places of this function.
        unsafe {
            assert_eq!(
                modelseal_buffer_bytes(buffer, &mut data, &mut len, ptr::null_mut()),
                MODELSEAL_OK
            );
            assert_eq!(std::slice::from_raw_parts(data, len), b"a secret");
            modelseal_buffer_free(buffer);
            let mut own = *b"another secret";
            modelseal_wipe(own.as_mut_ptr(), own.len());
            assert_eq!(own, [0; 14]);
            modelseal_wipe(ptr::null_mut(), 7);
        }
    }
}
