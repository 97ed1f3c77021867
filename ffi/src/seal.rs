//! Sealing and verifying whole directories.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};

use modelseal::Verified;

use crate::boundary::{OutStruct, boundary, path};
use crate::callbacks::{DamageFound, Listener, Progress};
use crate::error::{Error, Failure};
use crate::handle;
use crate::key::{self, Key};
use crate::model::Model;
use crate::settings::{self, Settings};
use crate::status;

/// What was sealed or verified.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Regular files.
    pub files: u64,
    /// Directories, without the one where it began.
    pub dirs: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Plaintext bytes of the files.
    pub bytes: u64,
    /// Of sealing: files that an earlier run had finished.
    pub kept: u64,
    /// Of sealing: links out of the directory that were replaced by what they lead to.
    pub followed: u64,
    /// Of verifying: chunks that are holes. They read as zeros, and nothing shows whether they always did.
    pub holes: u64,
}

/// Seals the directory `source` into `destination`, a directory that is empty or not there yet, or a URL. The settings say
/// in which format; `settings`, `progress` and `summary` may be NULL.
///
/// The destination counts as a model only when all of it is there. After an interruption `MODELSEAL_SET_RESUME` goes on.
///
/// # Safety
/// `source` and `destination` must be as many bytes as their lengths say, or end with a NUL where that is
/// `MODELSEAL_NUL_TERMINATED`; `progress` must be as its type says; `summary` must be `summary_len` bytes, which is
/// `sizeof(modelseal_summary)`, or NULL with 0; `error` must be valid for writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_seal(
    settings: *const Settings,
    source: *const c_char,
    source_len: usize,
    destination: *const c_char,
    destination_len: usize,
    key: *const Key,
    progress: Progress,
    user: *mut c_void,
    summary: *mut Summary,
    summary_len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (source, destination, out, listener) = unsafe {
            (
                path(source, source_len, "the source")?,
                path(destination, destination_len, "the destination")?,
                OutStruct::new(summary, summary_len, "summary")?,
                Listener::new(progress, None, user),
            )
        };
        let options = settings::with(settings, Settings::seal_options)?;
        let done = key::with(key, |key| {
            Ok(modelseal::seal(
                source,
                destination,
                key.inner(),
                &options,
                &listener,
            )?)
        })?;
        out.set(Summary {
            files: done.files,
            dirs: done.dirs,
            symlinks: done.symlinks,
            bytes: done.bytes,
            kept: done.kept,
            followed: done.followed,
            holes: 0,
        });
        Ok(())
    })
}

/// Verifies the directory at `path` in the model, "" being all of it: reads everything, and goes on where something is
/// damaged. `progress`, `damage` and `summary` may be NULL.
///
/// `MODELSEAL_DAMAGED` where something is damaged: `damage` was told of all of it, and the error has the first.
///
/// # Safety
/// `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `progress` and `damage`
/// must be as their types say; `summary` must be `summary_len` bytes, which is `sizeof(modelseal_summary)`, or NULL with
/// 0; `error` must be valid for writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_verify(
    model: *const Model,
    path: *const c_char,
    path_len: usize,
    progress: Progress,
    damage: DamageFound,
    user: *mut c_void,
    summary: *mut Summary,
    summary_len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (path, out, listener) = unsafe {
            (
                self::path(path, path_len, "the path")?,
                OutStruct::new(summary, summary_len, "summary")?,
                Listener::new(progress, damage, user),
            )
        };
        let model = &handle::get(model)?.model;
        let entry = model.lookup(path)?;
        let verified = model.verify(&entry, &listener, &|damage| listener.damage(damage))?;
        finish(verified, listener, out)
    })
}

/// Verifies a package without its key, against its license; or a whole vault against its signed manifest, which
/// `MODELSEAL_SET_MANIFEST` names. Else as `modelseal_verify`.
///
/// # Safety
/// As for `modelseal_verify`, with `location` in place of `path`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_verify_without_key(
    settings: *const Settings,
    location: *const c_char,
    location_len: usize,
    progress: Progress,
    damage: DamageFound,
    user: *mut c_void,
    summary: *mut Summary,
    summary_len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (location, out, listener) = unsafe {
            (
                path(location, location_len, "the location")?,
                OutStruct::new(summary, summary_len, "summary")?,
                Listener::new(progress, damage, user),
            )
        };
        let options = settings::with(settings, Settings::open_options)?;
        let report = |damage| listener.damage(damage);
        let verified =
            modelseal::Model::verify_without_key(location, "".as_ref(), &options, &listener, &report)?;
        finish(verified, listener, out)
    })
}

/// Hands over what was verified, unless something is damaged.
fn finish(verified: Verified, listener: Listener, out: OutStruct<Summary>) -> Result<(), Failure> {
    if let Some(first) = listener.first_damage() {
        let text = format!(
            "{} things are damaged, the first of them",
            verified.damaged.max(1)
        );
        return Err(first.within(status::MODELSEAL_DAMAGED, text));
    }
    out.set(Summary {
        files: verified.files,
        dirs: verified.dirs,
        symlinks: verified.symlinks,
        bytes: verified.bytes,
        kept: 0,
        followed: 0,
        holes: verified.holes,
    });
    Ok(())
}
