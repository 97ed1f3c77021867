//! Files of a sealed model.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;

use modelseal::SealedFile;

use crate::boundary::{Out, boundary, bytes_mut, free, infallible, path};
use crate::error::Error;
use crate::handle::{self, Object};
use crate::model::Model;
use crate::stream;

/// An open file of a sealed model. Any number of threads may read it at once; it lives on when the model is freed.
#[derive(Debug)]
pub struct File {
    file: Arc<SealedFile>,
    read_ahead: usize,
}

impl Object for File {
    const NAME: &'static str = "file";
}

/// Opens the file at `path` in the model. Symbolic links are not followed.
///
/// # Safety
/// `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `file` and `error` must be
/// valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_file_open(
    model: *const Model,
    path: *const c_char,
    path_len: usize,
    file: *mut *mut File,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (path, out) = unsafe { (self::path(path, path_len, "the path")?, Out::new(file, "file")?) };
        let model = handle::get(model)?;
        out.hand_over(File {
            file: Arc::new(model.model.file(path)?),
            read_ahead: model.read_ahead,
        })
    })
}

/// Frees a file. NULL is nothing. Streams and descriptors made from it live on.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_file_free(file: *mut File) {
    free(file);
}

/// Length of a file's plaintext in bytes, as it was when it was opened; 0 where `file` is none.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_file_len(file: *const File) -> u64 {
    infallible(0, || handle::get(file).map_or(0, |file| file.file.len()))
}

/// Fills `data` with the `len` bytes of plaintext from `offset` on, on all cores. Every byte was verified when this
/// returns `MODELSEAL_OK`; after any other status of reading, all of `data` is zero.
///
/// `MODELSEAL_RANGE` where the file has not as many.
///
/// # Safety
/// `data` must be `len` bytes that nobody else uses until this returns; `error` must be valid for writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_file_read(
    file: *const File,
    offset: u64,
    data: *mut u8,
    len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { bytes_mut(data, len, "data")? };
        Ok(handle::get(file)?.file.read_into(offset, out)?)
    })
}

/// As `modelseal_file_read`, but reads no more than there is, and says in `done` how many bytes that were: 0 at the end.
///
/// # Safety
/// As for `modelseal_file_read`; `done` must be valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_file_read_some(
    file: *const File,
    offset: u64,
    data: *mut u8,
    len: usize,
    done: *mut usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (out, done) = unsafe { (bytes_mut(data, len, "data")?, Out::new(done, "done")?) };
        done.set(handle::get(file)?.file.read_at(offset, out)?);
        Ok(())
    })
}

/// Opens a file as a stream of the C library, for reading, at its beginning; to be closed by `fclose`.
///
/// It can be sought, and decrypts `MODELSEAL_SET_READ_AHEAD` bytes at once, from which the C library copies what is read.
/// `modelseal_file_read` needs no such copy. Where something is damaged, reading fails with `errno` EIO and tells the log what.
///
/// # Safety
/// `stream` and `error` must be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_fopen(
    file: *const File,
    stream: *mut *mut libc::FILE,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { Out::new(stream, "stream")? };
        let file = handle::get(file)?;
        out.set(stream::open(Arc::clone(&file.file), file.read_ahead)?);
        Ok(())
    })
}

/// Decrypts a whole file into memory behind a descriptor, which is the caller's to `close`. Any program that may open
/// `/proc/PID/fd/N` can read and map it; nobody can change it. Every byte was verified when this returns.
///
/// The descriptor closes on exec. `MODELSEAL_MEMORY` where more memory is needed than there is.
///
/// # Safety
/// `fd` and `error` must be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_memfd(file: *const File, fd: *mut i32, error: *mut *mut Error) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { Out::new(fd, "fd")? };
        let memory = handle::get(file)?.file.memfd()?;
        out.set(OwnedFd::from(memory).into_raw_fd());
        Ok(())
    })
}
