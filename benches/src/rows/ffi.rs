//! The C library beside the Rust call: one read of the big file, and the C library's streams.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::path::Path;
use std::ptr;

use chunk_cipher::Buffer;
use chunk_cipher::store::ReadMode;
use modelseal::SealedFile;
use modelseal_ffi::{
    File, Key, MODELSEAL_OK, MODELSEAL_PASSWORD, Model, modelseal_file_free, modelseal_file_open,
    modelseal_file_read, modelseal_fopen, modelseal_key_free, modelseal_key_from_bytes, modelseal_model_free,
    modelseal_open,
};

use super::{Context, Measured};
use crate::error::Result;
use crate::fixture::{FILE, PASSWORD, Sample};
use crate::measure::{Unit, compare, seconds};

/// `modelseal_file_read` of all of it.
pub(super) fn read(context: &Context, sample: &Sample) -> Result<Measured> {
    against_rust(context, sample, Opened::read)
}

/// `fread` of all of it, `piece` bytes at a time.
pub(super) fn stream(context: &Context, sample: &Sample, piece: usize) -> Result<Measured> {
    against_rust(context, sample, |file, out| {
        let stream = file.stream()?;
        out.chunks_mut(piece).try_for_each(|piece| stream.fill(piece))
    })
}

/// Into memory touched before, on both sides from a file that is open.
fn against_rust(
    context: &Context,
    sample: &Sample,
    ours: impl Fn(&Opened, &mut [u8]) -> Result<()>,
) -> Result<Measured> {
    let rust: SealedFile = sample.open(ReadMode::Auto)?.file(FILE)?;
    let opened = Opened::new(&sample.vault())?;
    let mut buffer = Buffer::new(sample.len())?;
    buffer.fill(1);
    let buffer = RefCell::new(buffer);
    let pair = compare(
        context.rounds(),
        || seconds(|| ours(&opened, &mut buffer.borrow_mut())),
        || seconds(|| Ok(rust.read_into(0, &mut buffer.borrow_mut())?)),
    )?;
    buffer.borrow_mut().fill(1);
    ours(&opened, &mut buffer.borrow_mut())?;
    sample.expect_bytes(&buffer.borrow())?;
    Ok(Measured::times(pair, Unit::Bytes(sample.len())))
}

fn expect_ok(status: i32) -> Result<()> {
    match status {
        MODELSEAL_OK => Ok(()),
        status => Err(format!("the C library says {status}").into()),
    }
}

/// The big file, opened as a program in C does.
struct Opened {
    key: *mut Key,
    model: *mut Model,
    file: *mut File,
}

impl Opened {
    fn new(vault: &Path) -> Result<Self> {
        let mut opened = Self {
            key: ptr::null_mut(),
            model: ptr::null_mut(),
            file: ptr::null_mut(),
        };
        let (location, none) = (vault.as_os_str().as_encoded_bytes(), ptr::null_mut());
        // SAFETY: pointers and lengths of what lives here; places of this function's own.
        unsafe {
            let (password, len) = (PASSWORD.as_ptr(), PASSWORD.len());
            expect_ok(modelseal_key_from_bytes(
                password,
                len,
                MODELSEAL_PASSWORD,
                &raw mut opened.key,
                none,
            ))?;
            let (path, len) = (location.as_ptr().cast(), location.len());
            expect_ok(modelseal_open(
                ptr::null(),
                path,
                len,
                opened.key,
                &raw mut opened.model,
                none,
            ))?;
            let (path, len) = (FILE.as_ptr().cast(), FILE.len());
            expect_ok(modelseal_file_open(
                opened.model,
                path,
                len,
                &raw mut opened.file,
                none,
            ))?;
        }
        Ok(opened)
    }

    fn read(&self, out: &mut [u8]) -> Result<()> {
        // SAFETY: memory of this length that is this call's alone.
        expect_ok(unsafe { modelseal_file_read(self.file, 0, out.as_mut_ptr(), out.len(), ptr::null_mut()) })
    }

    fn stream(&self) -> Result<Stream> {
        let mut stream = ptr::null_mut();
        // SAFETY: a place of this function's own.
        expect_ok(unsafe { modelseal_fopen(self.file, &raw mut stream, ptr::null_mut()) })?;
        Ok(Stream(stream))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: handles of its own, or NULL.
        unsafe {
            modelseal_file_free(self.file);
            modelseal_model_free(self.model);
            modelseal_key_free(self.key);
        }
    }
}

struct Stream(*mut libc::FILE);

impl Stream {
    fn fill(&self, out: &mut [u8]) -> Result<()> {
        // SAFETY: a stream that is open, and memory of this length.
        let read = unsafe { libc::fread(out.as_mut_ptr().cast(), 1, out.len(), self.0) };
        if read == out.len() {
            Ok(())
        } else {
            Err("the stream ended early".into())
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: open until here.
        unsafe { libc::fclose(self.0) };
    }
}
