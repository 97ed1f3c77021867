//! The boundary: where arguments are taken from C, results handed over, and panics caught.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::slice;

use crate::error::{Error, Failure};
use crate::handle::{self, Object};
use crate::sigpipe;
use crate::status;

/// Stands for the length of a text or a path that ends with a NUL.
pub const MODELSEAL_NUL_TERMINATED: usize = usize::MAX;

/// The longest text or path that is taken, in bytes.
const TEXT_MAX: usize = 1 << 20;

/// No process has memory as long as this, in bytes.
const MEMORY_MAX: usize = 1 << 56;

/// Does the work of a function. What fails or panics becomes a status, and an error where one is wanted.
pub(crate) fn boundary(error: *mut *mut Error, work: impl FnOnce() -> Result<(), Failure>) -> i32 {
    let _held = sigpipe::Held::new();
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return status::MODELSEAL_OK,
        Ok(Err(failure)) => failure,
        Err(payload) => Failure::panic(payload),
    };
    let code = failure.code();
    catch_unwind(AssertUnwindSafe(|| failure.report(error))).unwrap_or(code)
}

/// Does the work of a function that cannot fail. After a panic the result is `fallback`.
pub(crate) fn infallible<R>(fallback: R, work: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(fallback)
}

/// Frees a handle; NULL is nothing.
pub(crate) fn free<T: Object>(handle: *mut T) {
    infallible((), || handle::free(handle));
}

/// Bytes that C points at.
///
/// # Safety
/// `data` must be NULL, or `len` bytes that nobody writes to for as long as the result is used.
pub(crate) unsafe fn bytes<'a>(data: *const u8, len: usize, what: &str) -> Result<&'a [u8], Failure> {
    if !check(data, len, what)? {
        return Ok(&[]);
    }
    // SAFETY: not NULL, no longer than memory may be, and the caller vouches for the rest.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// Memory that C wants filled.
///
/// # Safety
/// `data` must be NULL, or `len` bytes that are this call's alone for as long as the result is used.
pub(crate) unsafe fn bytes_mut<'a>(data: *mut u8, len: usize, what: &str) -> Result<&'a mut [u8], Failure> {
    if !check(data, len, what)? {
        return Ok(&mut []);
    }
    // SAFETY: not NULL, no longer than memory may be, and the caller vouches for the rest.
    Ok(unsafe { slice::from_raw_parts_mut(data, len) })
}

/// Whether there is anything at `data`.
fn check(data: *const u8, len: usize, what: &str) -> Result<bool, Failure> {
    if len == 0 {
        return Ok(false);
    }
    if data.is_null() {
        return Err(null(what));
    }
    if len > MEMORY_MAX {
        let text = format!("{what} cannot be {len} bytes long");
        return Err(Failure::new(status::MODELSEAL_LENGTH, text));
    }
    Ok(true)
}

/// A path, as the system has it: any bytes but NUL.
///
/// # Safety
/// As [`bytes`]; where `len` is [`MODELSEAL_NUL_TERMINATED`], `data` must end with a NUL.
pub(crate) unsafe fn path<'a>(data: *const c_char, len: usize, what: &str) -> Result<&'a Path, Failure> {
    // SAFETY: as the caller vouches.
    let bytes = unsafe { text_bytes(data, len, what)? };
    if bytes.contains(&0) {
        let text = format!("{what} has a NUL in it");
        return Err(Failure::new(status::MODELSEAL_TEXT, text));
    }
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// A text.
///
/// # Safety
/// As [`path`].
pub(crate) unsafe fn text<'a>(data: *const c_char, len: usize, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: as the caller vouches.
    let bytes = unsafe { text_bytes(data, len, what)? };
    std::str::from_utf8(bytes).map_err(|_| {
        let text = format!("{what} is not UTF-8");
        Failure::new(status::MODELSEAL_TEXT, text)
    })
}

/// # Safety
/// As [`path`].
unsafe fn text_bytes<'a>(data: *const c_char, len: usize, what: &str) -> Result<&'a [u8], Failure> {
    if len == MODELSEAL_NUL_TERMINATED && data.is_null() {
        return Err(null(what));
    }
    let len = match len {
        // SAFETY: not NULL, and the caller vouches for a NUL at the end.
        MODELSEAL_NUL_TERMINATED => unsafe { CStr::from_ptr(data) }.count_bytes(),
        len => len,
    };
    if len > TEXT_MAX {
        let text = format!("{what} is longer than {TEXT_MAX} bytes");
        return Err(Failure::new(status::MODELSEAL_LENGTH, text));
    }
    // SAFETY: as the caller vouches.
    unsafe { bytes(data.cast(), len, what) }
}

/// Where a result goes.
#[derive(Clone, Copy)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `place` must be NULL, or valid for writing until the call returns.
    pub(crate) unsafe fn new(place: *mut T, what: &str) -> Result<Self, Failure> {
        if place.is_null() {
            return Err(null(what));
        }
        Ok(Self(place))
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: not NULL, and valid for writing as was vouched for.
        unsafe { self.0.write_unaligned(value) };
    }
}

impl<T: Object> Out<*mut T> {
    /// Hands over a new object.
    pub(crate) fn hand_over(self, object: T) -> Result<(), Failure> {
        self.set(handle::insert(object)?);
        Ok(())
    }
}

/// Where a struct of results goes, whose length the caller says: later versions may add to its end.
#[derive(Clone, Copy)]
pub(crate) struct OutStruct<T>(Option<Out<T>>);

impl<T> OutStruct<T> {
    /// NULL with a length of 0 is nowhere.
    ///
    /// # Safety
    /// `place` must be NULL, or `len` bytes that are valid for writing until the call returns.
    pub(crate) unsafe fn new(place: *mut T, len: usize, what: &str) -> Result<Self, Failure> {
        if place.is_null() && len == 0 {
            return Ok(Self(None));
        }
        // SAFETY: as the caller vouches.
        let out = unsafe { Out::new(place, what)? };
        if len != size_of::<T>() {
            let text = format!("{what} takes {} bytes, and not {len}", size_of::<T>());
            return Err(Failure::new(status::MODELSEAL_LENGTH, text));
        }
        Ok(Self(Some(out)))
    }

    pub(crate) fn set(self, value: T) {
        if let Some(out) = self.0 {
            out.set(value);
        }
    }
}

fn null(what: &str) -> Failure {
    let text = format!("{what} is NULL");
    Failure::new(status::MODELSEAL_NULL_POINTER, text)
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::error::{modelseal_error_free, modelseal_error_message};

    #[test]
    fn a_panic_is_a_status() {
        let mut error = ptr::null_mut();
        let number = 7;
        let code = boundary(&mut error, || panic!("number {number}"));
        assert_eq!(code, status::MODELSEAL_PANIC);
        // SAFETY: an error that lives.
        let message = unsafe { CStr::from_ptr(modelseal_error_message(error)) };
        assert!(
            message
                .to_str()
                .unwrap()
                .ends_with("a fault in the library: number 7")
        );
        // SAFETY: its text is not read any more.
        unsafe { modelseal_error_free(error) };
        // Whoever wants no error gets the status alone, and what is thrown may be anything.
        let code = boundary(ptr::null_mut(), || std::panic::panic_any(7));
        assert_eq!(code, status::MODELSEAL_PANIC);
        assert_eq!(infallible(3, || panic!("a constant")), 3);
    }

    #[test]
    fn lengths_and_texts_are_checked() {
        // SAFETY: NULL, or bytes that live.
        unsafe {
            assert_eq!(bytes(ptr::null(), 0, "it").unwrap(), b"");
            assert_eq!(
                bytes(ptr::null(), 1, "it").unwrap_err().code(),
                status::MODELSEAL_NULL_POINTER
            );
            let byte = [0_u8];
            for len in [usize::MAX, usize::MAX / 2, 1 << 57] {
                let too_long = bytes(byte.as_ptr(), len, "it").unwrap_err();
                assert_eq!(too_long.code(), status::MODELSEAL_LENGTH);
            }
            let mut long = vec![b'a'; TEXT_MAX + 1];
            long.push(0);
            for len in [TEXT_MAX + 1, MODELSEAL_NUL_TERMINATED] {
                let too_long = text(long.as_ptr().cast(), len, "it").unwrap_err();
                assert_eq!(too_long.code(), status::MODELSEAL_LENGTH);
            }
            let latin = [0xe9_u8];
            let refused = text(latin.as_ptr().cast(), 1, "it").unwrap_err();
            assert_eq!(refused.code(), status::MODELSEAL_TEXT);
            assert_eq!(
                path(latin.as_ptr().cast(), 1, "it").unwrap(),
                OsStr::from_bytes(&latin)
            );
            let nul = path(byte.as_ptr().cast(), 1, "it").unwrap_err();
            assert_eq!(nul.code(), status::MODELSEAL_TEXT);
            assert_eq!(
                text(c"abc".as_ptr(), MODELSEAL_NUL_TERMINATED, "it").unwrap(),
                "abc"
            );
        }
    }
}
