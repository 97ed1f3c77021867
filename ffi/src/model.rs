//! Sealed models: opened, and what they hold.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use modelseal::store::Kind;
use modelseal::{Entry, Found};
use zeroize::Zeroizing;

use crate::boundary::{Out, OutStruct, boundary, free, infallible, path};
use crate::buffer::Buffer;
use crate::error::{Error, Failure};
use crate::handle::{self, Object};
use crate::key::{self, Key};
use crate::settings::{self, Settings};
use crate::status;

/// A regular file.
pub const MODELSEAL_FILE: i32 = 1;
/// A directory.
pub const MODELSEAL_DIR: i32 = 2;
/// A symbolic link.
pub const MODELSEAL_SYMLINK: i32 = 3;
/// Something else: a device, a pipe or a socket.
pub const MODELSEAL_SPECIAL: i32 = 4;

/// A sealed model, unlocked. Any number of threads may use it. What was opened from it lives on when it is freed.
#[derive(Debug)]
pub struct Model {
    pub(crate) model: Arc<modelseal::Model>,
    pub(crate) read_ahead: usize,
}

impl Object for Model {
    const NAME: &'static str = "model";
}

/// What a directory of a model held when it was listed. Any number of threads may use it.
#[derive(Debug)]
pub struct Entries {
    entries: Vec<(CString, Metadata)>,
    strays: usize,
}

impl Object for Entries {
    const NAME: &'static str = "listing";
}

/// What is known of something in a model.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Length of a file's plaintext in bytes; of a link, of its target.
    pub len: u64,
    /// When it was last changed, in seconds since 1970-01-01 UTC.
    pub modified: i64,
    /// Nanoseconds of that.
    pub modified_nanoseconds: u32,
    /// Its permissions.
    pub mode: u32,
    /// `MODELSEAL_FILE`, `MODELSEAL_DIR`, `MODELSEAL_SYMLINK` or `MODELSEAL_SPECIAL`.
    pub kind: i32,
    /// 0.
    pub reserved: i32,
}

/// Unlocks the model at `location`, a directory or a URL, whichever format it has. `settings` may be NULL.
///
/// # Safety
/// `location` must be `location_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `model` and
/// `error` must be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_open(
    settings: *const Settings,
    location: *const c_char,
    location_len: usize,
    key: *const Key,
    model: *mut *mut Model,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (location, out) = unsafe {
            (
                path(location, location_len, "the location")?,
                Out::new(model, "model")?,
            )
        };
        let key = key::with(key, |key| Ok(key.duplicate()))?;
        let (options, read_ahead) = settings::with(settings, |settings| {
            Ok((settings.open_options()?, settings.read_ahead()))
        })?;
        let model = modelseal::Model::open(location, key, &options)?;
        out.hand_over(Model {
            model: Arc::new(model),
            read_ahead,
        })
    })
}

/// Frees a model. NULL is nothing.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_model_free(model: *mut Model) {
    free(model);
}

/// What is known of what lies at `path` in the model, "" being its root. Symbolic links are not followed.
///
/// # Safety
/// `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `metadata` must be
/// `metadata_len` bytes, which is `sizeof(modelseal_metadata)`; `error` must be valid for writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_stat(
    model: *const Model,
    path: *const c_char,
    path_len: usize,
    metadata: *mut Metadata,
    metadata_len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (path, out) = unsafe {
            (
                self::path(path, path_len, "the path")?,
                OutStruct::new(metadata, metadata_len, "metadata")?,
            )
        };
        let model = handle::get(model)?;
        let entry = model.model.lookup(path)?;
        out.set(model.metadata(&entry)?);
        Ok(())
    })
}

/// Where the symbolic link at `path` in the model leads to: any bytes.
///
/// # Safety
/// `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `target` and `error` must
/// be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_read_link(
    model: *const Model,
    path: *const c_char,
    path_len: usize,
    target: *mut *mut Buffer,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (path, out) = unsafe {
            (
                self::path(path, path_len, "the path")?,
                Out::new(target, "target")?,
            )
        };
        let model = &handle::get(model)?.model;
        let target = model.read_link(&model.lookup(path)?)?;
        out.hand_over(Buffer::new(Zeroizing::new(target)))
    })
}

/// Lists what the directory at `path` in the model holds, "" being its root, sorted by name; where `recursive` is not 0,
/// with all that lies deeper, directories before what they hold.
///
/// # Safety
/// `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `entries` and `error` must
/// be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_list(
    model: *const Model,
    path: *const c_char,
    path_len: usize,
    recursive: i32,
    entries: *mut *mut Entries,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (path, out) = unsafe {
            (
                self::path(path, path_len, "the path")?,
                Out::new(entries, "entries")?,
            )
        };
        let model = handle::get(model)?;
        out.hand_over(model.list(path, recursive != 0)?)
    })
}

/// How many entries a listing has; 0 where it is none.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_entries_count(entries: *const Entries) -> usize {
    infallible(0, || {
        handle::get(entries).map_or(0, |entries| entries.entries.len())
    })
}

/// How many things a listing left out, as they are no part of the model: their names do not decrypt.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_entries_strays(entries: *const Entries) -> usize {
    infallible(0, || handle::get(entries).map_or(0, |entries| entries.strays))
}

/// The path in the model of the entry at `index`: any bytes, with a NUL behind them, that live as long as the listing.
/// NULL where there is no such entry.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_entries_path(entries: *const Entries, index: usize) -> *const c_char {
    infallible(ptr::null(), || {
        let entries = handle::get(entries).ok();
        let entry = entries.as_ref().and_then(|entries| entries.entries.get(index));
        entry.map_or(ptr::null(), |(path, _)| path.as_ptr())
    })
}

/// What is known of the entry at `index`.
///
/// # Safety
/// `metadata` must be `metadata_len` bytes, which is `sizeof(modelseal_metadata)`; `error` must be valid for writing, or
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_entries_metadata(
    entries: *const Entries,
    index: usize,
    metadata: *mut Metadata,
    metadata_len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { OutStruct::new(metadata, metadata_len, "metadata")? };
        let entries = handle::get(entries)?;
        let (_, metadata) = entries.entries.get(index).ok_or_else(|| {
            let text = format!("there is no entry {index}, but {}", entries.entries.len());
            Failure::argument(text)
        })?;
        out.set(*metadata);
        Ok(())
    })
}

/// Frees a listing. NULL is nothing.
///
/// # Safety
/// None of its paths may be read any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_entries_free(entries: *mut Entries) {
    free(entries);
}

impl Model {
    fn metadata(&self, entry: &Entry) -> Result<Metadata, Failure> {
        let found = self.model.metadata(entry)?;
        let (modified, nanoseconds) = match found.modified.duration_since(UNIX_EPOCH) {
            Ok(since) => (
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                since.subsec_nanos(),
            ),
            // Nanoseconds count forwards from the second before.
            Err(error) => {
                let before = error.duration();
                let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
                match before.subsec_nanos() {
                    0 => (seconds, 0),
                    part => (seconds.saturating_sub(1), 1_000_000_000 - part),
                }
            }
        };
        Ok(Metadata {
            len: found.len,
            modified,
            modified_nanoseconds: nanoseconds,
            mode: found.mode & 0o7777,
            kind: match found.kind {
                Kind::File => MODELSEAL_FILE,
                Kind::Dir => MODELSEAL_DIR,
                Kind::Symlink => MODELSEAL_SYMLINK,
                Kind::Other => MODELSEAL_SPECIAL,
            },
            reserved: 0,
        })
    }

    fn list(&self, path: &Path, recursive: bool) -> Result<Entries, Failure> {
        let dir = self.model.lookup(path)?;
        let mut listing = Entries {
            entries: Vec::new(),
            strays: 0,
        };
        let mut add = |found| -> Result<(), Failure> {
            match found {
                Found::Entry(entry) => {
                    let path = CString::new(entry.path().as_os_str().as_bytes()).map_err(|_| {
                        let text = "a path in the model has a NUL in it".to_owned();
                        Failure::new(status::MODELSEAL_TEXT, text)
                    })?;
                    listing.entries.push((path, self.metadata(&entry)?));
                }
                Found::Stray(..) => listing.strays += 1,
                Found::Unreadable(_, error) => return Err(error.into()),
            }
            Ok(())
        };
        if recursive {
            self.model.walk(&dir)?.try_for_each(&mut add)?;
        } else {
            self.model.list(&dir)?.into_iter().try_for_each(&mut add)?;
        }
        Ok(listing)
    }
}
