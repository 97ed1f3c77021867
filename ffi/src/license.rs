//! What licenses say.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::fmt::Write as _;
use std::path::Path;

use modelseal::sam::License;
use modelseal::{Info, check_license, is_url, read_license_file};
use zeroize::Zeroizing;

use crate::boundary::{Out, boundary, path};
use crate::buffer::Buffer;
use crate::error::{Error, Failure};
use crate::handle;
use crate::model::Model;
use crate::settings::{self, Settings};
use crate::status;

/// The licenses at `location`, a package or the file of one, whose signatures are their issuers', as a JSON array of the
/// documents. No key is needed, and nothing is checked but the signatures and that they are for this package: what cannot
/// be used is left out, and the log is told.
///
/// # Safety
/// `location` must be `location_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `json` and `error`
/// must be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_licenses(
    settings: *const Settings,
    location: *const c_char,
    location_len: usize,
    json: *mut *mut Buffer,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (location, out) = unsafe {
            (
                path(location, location_len, "the location")?,
                Out::new(json, "json")?,
            )
        };
        let licenses = settings::with(settings, |settings| licenses(settings, location))?;
        let mut text = String::from("[");
        for (number, license) in licenses.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(text, "{comma}{}", license.as_str());
        }
        text.push(']');
        out.hand_over(document(text))
    })
}

/// Checks the license of the package at `location`, or the one in a file, as it is checked when the package is opened here
/// and now, and hands over its JSON document. No key is needed.
///
/// # Safety
/// As for `modelseal_licenses`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_license_check(
    settings: *const Settings,
    location: *const c_char,
    location_len: usize,
    json: *mut *mut Buffer,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (location, out) = unsafe {
            (
                path(location, location_len, "the location")?,
                Out::new(json, "json")?,
            )
        };
        let options = settings::with(settings, Settings::open_options)?;
        out.hand_over(document(check_license(location, &options)?.as_str().to_owned()))
    })
}

/// The JSON document of the license that a model was opened with. `MODELSEAL_FORMAT` where it is a vault, which has none.
///
/// # Safety
/// `json` and `error` must be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_model_license(
    model: *const Model,
    json: *mut *mut Buffer,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { Out::new(json, "json")? };
        let model = handle::get(model)?;
        let license = model.model.license().ok_or_else(|| {
            let text = "a vault has no license".to_owned();
            Failure::new(status::MODELSEAL_FORMAT, text)
        })?;
        out.hand_over(document(license.as_str().to_owned()))
    })
}

fn licenses(settings: &Settings, location: &Path) -> Result<Vec<License>, Failure> {
    if !is_url(location) && !location.is_dir() {
        let failed = |source| modelseal::Error::Package {
            path: location.to_path_buf(),
            source,
        };
        let license = License::parse(&read_license_file(location)?).map_err(failed)?;
        license.check_signature(&[]).map_err(failed)?;
        return Ok(vec![license]);
    }
    match modelseal::Model::inspect(location, &settings.open_options()?)? {
        Info::Package {
            licenses, unusable, ..
        } => {
            for (id, error) in unusable {
                log::warn!("the license {id} cannot be used: {}", Failure::from(error).text());
            }
            Ok(licenses)
        }
        _ => {
            let text = "a vault has no license".to_owned();
            Err(Failure::new(status::MODELSEAL_FORMAT, text))
        }
    }
}

fn document(text: String) -> Buffer {
    Buffer::new(Zeroizing::new(text.into_bytes()))
}
