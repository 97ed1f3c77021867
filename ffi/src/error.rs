//! Errors: a status, a message, and what it comes from.
#![allow(unsafe_code)]

use std::any::Any;
use std::error::Error as StdError;
use std::ffi::{CString, c_char};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::handle::{self, Object};
use crate::{codes, status};

/// What went wrong: a status, a message, and the messages of what it comes from.
///
/// Made by a function that fails and whose last argument is not NULL; to be freed by `modelseal_error_free`. The texts
/// are UTF-8, end with a NUL, hold neither secrets nor plaintext, and live as long as the error.
#[derive(Debug)]
pub struct Error {
    code: i32,
    os: i32,
    /// The message, and those of its causes.
    texts: Vec<CString>,
    /// All of them, with colons between them.
    all: CString,
}

impl Object for Error {
    const NAME: &'static str = "error";
}

/// The status of an error.
///
/// Returns `MODELSEAL_HANDLE` where `error` is none.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_status(error: *const Error) -> i32 {
    read(error, |error| error.code).unwrap_or(status::MODELSEAL_HANDLE)
}

/// The message of an error with those of all its causes, in one line; NULL where `error` is none.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_message(error: *const Error) -> *const c_char {
    read(error, |error| error.all.as_ptr()).unwrap_or(ptr::null())
}

/// One message of an error: at `depth` 0 its own, behind that those of its causes; NULL where there are no more.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_cause(error: *const Error, depth: usize) -> *const c_char {
    let cause = read(error, |error| error.texts.get(depth).map(|text| text.as_ptr()));
    cause.flatten().unwrap_or(ptr::null())
}

/// What `errno` was where the system refused something; 0 where that is not what went wrong.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_os(error: *const Error) -> i32 {
    read(error, |error| error.os).unwrap_or(0)
}

/// Frees an error. NULL is nothing.
///
/// # Safety
/// None of its texts may be read any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_error_free(error: *mut Error) {
    let _ = catch_unwind(|| handle::free(error));
}

fn read<R>(error: *const Error, what: impl FnOnce(&Error) -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(|| {
        handle::get(error).ok().map(|error| what(&error))
    }))
    .ok()
    .flatten()
}

/// What a function of this library fails with.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: i32,
    os: i32,
    texts: Vec<String>,
}

impl Failure {
    pub(crate) fn new(code: i32, text: String) -> Self {
        Self {
            code,
            os: 0,
            texts: vec![text],
        }
    }

    pub(crate) fn argument(text: impl Into<String>) -> Self {
        Self::new(status::MODELSEAL_ARGUMENT, text.into())
    }

    /// What a panic left behind.
    pub(crate) fn panic(payload: Box<dyn Any + Send>) -> Self {
        let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "of an unknown kind".to_owned(),
        };
        // Dropping whatever it is might panic again.
        std::mem::forget(payload);
        Self::new(
            status::MODELSEAL_PANIC,
            format!("there is a fault in the library: {text}"),
        )
    }

    /// The same, with another status and a message in front.
    pub(crate) fn within(mut self, code: i32, text: String) -> Self {
        self.code = code;
        self.texts.insert(0, text);
        self
    }

    pub(crate) const fn code(&self) -> i32 {
        self.code
    }

    /// What `errno` is to be, where a function says nothing more.
    pub(crate) fn errno(&self) -> i32 {
        match self.code {
            _ if self.os != 0 => self.os,
            status::MODELSEAL_MEMORY => libc::ENOMEM,
            status::MODELSEAL_ARGUMENT => libc::EINVAL,
            _ => libc::EIO,
        }
    }

    /// The message and its causes, in one line.
    pub(crate) fn text(&self) -> String {
        self.texts.join(": ")
    }

    /// Hands the error over, where it is wanted, and returns its status.
    pub(crate) fn report(self, out: *mut *mut Error) -> i32 {
        let code = self.code;
        if !out.is_null() {
            let all = c_string(self.text());
            let error = Error {
                code,
                os: self.os,
                texts: self.texts.into_iter().map(c_string).collect(),
                all,
            };
            let error = handle::insert(error).unwrap_or(ptr::null_mut());
            // SAFETY: the caller's pointer is valid for writing, or NULL.
            unsafe { out.write_unaligned(error) };
        }
        code
    }

    fn of_error(code: i32, error: &(dyn StdError + 'static)) -> Self {
        let mut texts = Vec::new();
        let mut os = 0;
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // What is transparent says the same twice.
            if texts.last() != Some(&text) {
                texts.push(text);
            }
            if let Some(code) = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error)
            {
                os = code;
            }
            next = error.source();
        }
        Self { code, os, texts }
    }
}

impl From<modelseal::Error> for Failure {
    fn from(error: modelseal::Error) -> Self {
        Self::of_error(codes::of(&error), &error)
    }
}

/// Text for C, which ends at the first NUL.
pub(crate) fn c_string(text: String) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn text(pointer: *const c_char) -> Option<String> {
        // SAFETY: texts of errors that live.
        (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_error_has_its_causes_and_the_systems_reason() {
        let source = io::Error::from_raw_os_error(libc::EACCES);
        let failure = Failure::from(modelseal::Error::Io {
            path: "model".into(),
            action: "reading",
            source,
        });
        let mut error = ptr::null_mut();
        assert_eq!(failure.report(&mut error), status::MODELSEAL_IO);
        // SAFETY: handles are told from what is none.
        unsafe {
            assert_eq!(modelseal_error_status(error), status::MODELSEAL_IO);
            assert_eq!(modelseal_error_os(error), libc::EACCES);
            let all = text(modelseal_error_message(error)).unwrap();
            assert!(
                all.starts_with("reading model failed: Permission denied"),
                "{all}"
            );
            assert_eq!(
                text(modelseal_error_cause(error, 0)).unwrap(),
                "reading model failed"
            );
            assert!(text(modelseal_error_cause(error, 1)).is_some());
            assert_eq!(text(modelseal_error_cause(error, 2)), None);
            modelseal_error_free(error);
            assert_eq!(modelseal_error_status(error), status::MODELSEAL_HANDLE);
            assert_eq!(text(modelseal_error_message(error)), None);
        }
    }

    #[test]
    fn a_text_with_a_nul_is_not_cut() {
        assert_eq!(c_string("a\0b".to_owned()).to_str().unwrap(), "a\u{fffd}b");
    }
}
