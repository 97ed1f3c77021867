//! Which library this is.
#![allow(unsafe_code)]

use std::ffi::c_char;

use crate::boundary::boundary;
use crate::error::{Error, Failure};
use crate::status;

/// Major number of the version that this header belongs to.
pub const MODELSEAL_VERSION_MAJOR: u32 = 0;
/// Minor number of the version that this header belongs to.
pub const MODELSEAL_VERSION_MINOR: u32 = 1;
/// Patch number of the version that this header belongs to.
pub const MODELSEAL_VERSION_PATCH: u32 = 0;

/// The version of the library, such as "0.1.0": text that is always there.
#[unsafe(no_mangle)]
pub extern "C" fn modelseal_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Checks that the library serves a program that was compiled with the header of version `major.minor.patch`;
/// `modelseal_check` passes the header's own.
///
/// Returns `MODELSEAL_OK` where the library is of the same major version (before 1.0: also of the same minor version)
/// and not older, else `MODELSEAL_VERSION`.
///
/// # Safety
/// `error` must be NULL or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_check_version(
    major: u32,
    minor: u32,
    patch: u32,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        if serves((major, minor, patch)) {
            return Ok(());
        }
        let text = format!(
            "the program was compiled for version {major}.{minor}.{patch}, and the library is version {}",
            env!("CARGO_PKG_VERSION")
        );
        Err(Failure::new(status::MODELSEAL_VERSION, text))
    })
}

fn serves(header: (u32, u32, u32)) -> bool {
    let (major, minor, patch) = header;
    let same = major == MODELSEAL_VERSION_MAJOR && (major > 0 || minor == MODELSEAL_VERSION_MINOR);
    same && (minor, patch) <= (MODELSEAL_VERSION_MINOR, MODELSEAL_VERSION_PATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_crate() {
        let numbers = [
            MODELSEAL_VERSION_MAJOR,
            MODELSEAL_VERSION_MINOR,
            MODELSEAL_VERSION_PATCH,
        ];
        assert_eq!(
            numbers.map(|number| number.to_string()).join("."),
            env!("CARGO_PKG_VERSION")
        );
    }

    #[test]
    fn other_libraries_are_refused() {
        assert!(serves((0, 1, 0)));
        for other in [(1, 1, 0), (0, 2, 0), (0, 0, 0), (0, 1, 1)] {
            assert!(!serves(other), "{other:?}");
        }
    }
}
