//! Arbitrary calls in arbitrary order, with handles that live, were freed, are of another kind or never were: every call
//! returns a status, what is read is what was sealed, and nothing is left when everything was freed.
#![no_main]

use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::ptr::{self, null, null_mut};
use std::sync::OnceLock;
use std::{fs, slice};

use libfuzzer_sys::fuzz_target;
use modelseal_ffi::*;

/// What the file of the sample holds.
const CONTENT: &[u8] = include_bytes!("calls.rs");

/// Handles that are kept to be used again.
const KEPT: usize = 16;

/// A vault with this very file in it, and a file of tensors.
fn sample() -> &'static PathBuf {
    static SAMPLE: OnceLock<PathBuf> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder").keep();
        let (source, vault) = (dir.join("source"), dir.join("vault"));
        fs::create_dir(&source).expect("a folder");
        fs::write(source.join("file"), CONTENT).expect("a file");
        let header = br#"{"a":{"dtype":"I8","shape":[2,3],"data_offsets":[0,6]}}"#;
        let tensors = [&(header.len() as u64).to_le_bytes()[..], header, b"123456"].concat();
        fs::write(source.join("t.safetensors"), tensors).expect("a file");
        let mut calls = Calls::new(&[]);
        let (settings, key) = (calls.settings(), calls.key());
        let (source, vault_text) = (source.display().to_string(), vault.display().to_string());
        let status = unsafe {
            modelseal_settings_set_number(settings, MODELSEAL_SET_SCRYPT_LOG_N, 10, null_mut());
            let (source, vault) = (source.as_bytes(), vault_text.as_bytes());
            let (from, to) = (source.as_ptr().cast(), vault.as_ptr().cast());
            modelseal_seal(settings, from, source.len(), to, vault.len(), key, None, null_mut(), null_mut(), 0, null_mut())
        };
        assert_eq!(status, MODELSEAL_OK);
        vault
    })
}

/// The calls that some bytes stand for, and the handles that came of them.
struct Calls<'a> {
    bytes: slice::Iter<'a, u8>,
    handles: Vec<*mut c_void>,
    scratch: Vec<u8>,
}

impl<'a> Calls<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: bytes.iter(),
            handles: Vec::new(),
            scratch: vec![0; 1 << 16],
        }
    }

    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX - u64::from(self.byte()),
            254 => u64::from(self.byte()) << 56 | u64::from(self.byte()),
            low => u64::from(low) << 8 | u64::from(self.byte()),
        }
    }

    /// A handle of any kind, alive or not; or none at all.
    fn handle<T>(&mut self) -> *mut T {
        let choice = usize::from(self.byte());
        match self.handles.get(choice) {
            Some(handle) => handle.cast(),
            None if choice < 200 => self.handles.last().copied().unwrap_or(null_mut()).cast(),
            None if choice < 210 => null_mut(),
            None => {
                let near = self.handles.first().map_or(0, |handle| handle.addr());
                let number = self.number() as usize;
                ptr::without_provenance_mut(if choice < 230 { number } else { near ^ number })
            }
        }
    }

    /// A length that the scratch memory has.
    fn len(&mut self) -> usize {
        self.number() as usize % self.scratch.len()
    }

    fn keep<T>(&mut self, status: i32, handle: *mut T) {
        assert_eq!(status == MODELSEAL_OK, !handle.is_null());
        if handle.is_null() {
            return;
        }
        if self.handles.len() < KEPT {
            self.handles.push(handle.cast());
        } else {
            let at = usize::from(self.byte()) % KEPT;
            free(std::mem::replace(&mut self.handles[at], handle.cast()));
        }
    }

    /// What is passed for a text: one that means something, or arbitrary bytes.
    fn text(&mut self) -> (*const c_char, usize) {
        let known: &[&[u8]] = &[b"file", b"t.safetensors", b"", b"a", b".", b"..", b"copy", b"sam", b"\xff", b"a\0b"];
        let choice = usize::from(self.byte());
        let text: &[u8] = match known.get(choice) {
            Some(text) => text,
            None if choice == 100 => return (c"file".as_ptr(), MODELSEAL_NUL_TERMINATED),
            None if choice == 101 => return (null(), usize::from(self.byte())),
            None if choice == 102 => return (c"x".as_ptr(), usize::MAX - 1 - usize::from(self.byte())),
            None => {
                let rest = self.bytes.as_slice();
                let (text, rest) = rest.split_at((choice % 32).min(rest.len()));
                self.bytes = rest.iter();
                text
            }
        };
        (text.as_ptr().cast(), text.len())
    }

    fn settings(&mut self) -> *mut Settings {
        let mut settings = null_mut();
        let status = unsafe { modelseal_settings_new(&mut settings, null_mut()) };
        self.keep(status, settings);
        settings
    }

    fn key(&mut self) -> *mut Key {
        let mut key = null_mut();
        let status = unsafe { modelseal_key_from_bytes(b"password".as_ptr(), 8, MODELSEAL_PASSWORD, &mut key, null_mut()) };
        self.keep(status, key);
        key
    }

    fn open(&mut self) {
        let vault = sample().as_os_str().as_encoded_bytes();
        let (settings, key) = (self.handle::<Settings>(), self.handle::<Key>());
        let mut model = null_mut();
        let status = unsafe { modelseal_open(settings, vault.as_ptr().cast(), vault.len(), key, &mut model, null_mut()) };
        self.keep(status, model);
    }

    fn read(&mut self) {
        let (file, offset, len) = (self.handle::<File>(), self.number(), self.len());
        let out = self.scratch.as_mut_ptr();
        let status = unsafe { modelseal_file_read(file, offset, out, len, null_mut()) };
        let all = unsafe { modelseal_file_len(file) };
        if status == MODELSEAL_OK && all == CONTENT.len() as u64 {
            let offset = offset as usize;
            assert_eq!(self.scratch[..len], CONTENT[offset..offset + len]);
        }
        let mut done = usize::MAX;
        let status = unsafe { modelseal_file_read_some(file, offset, out, len, &mut done, null_mut()) };
        assert_eq!(status == MODELSEAL_OK, done <= len);
    }

    fn stream(&mut self) {
        let file = self.handle::<File>();
        let mut stream = null_mut();
        if unsafe { modelseal_fopen(file, &mut stream, null_mut()) } != MODELSEAL_OK {
            return;
        }
        for _ in 0..self.byte() % 8 {
            let (offset, len, whence) = (self.number() as i64, self.len(), i32::from(self.byte() % 4));
            unsafe {
                libc::fseek(stream, offset, whence);
                libc::fread(self.scratch.as_mut_ptr().cast(), 1, len, stream);
            }
        }
        unsafe { libc::fclose(stream) };
    }

    fn tensors(&mut self) {
        let tensors = self.handle::<Tensors>();
        let index = usize::from(self.byte() % 3);
        let (begin, end, len) = (self.number() as usize, self.number() as usize, self.len());
        unsafe {
            let mut tensor = std::mem::MaybeUninit::<Tensor>::uninit();
            let size = size_of::<Tensor>() ^ usize::from(self.byte() == 1);
            if modelseal_tensors_get(tensors, index, tensor.as_mut_ptr(), size, null_mut()) == MODELSEAL_OK {
                let tensor = tensor.assume_init();
                assert_eq!(slice::from_raw_parts(tensor.name.cast::<u8>(), tensor.name_len), b"a");
                assert_eq!(slice::from_raw_parts(tensor.shape, tensor.dimensions), [2, 3]);
            }
            let out = self.scratch.as_mut_ptr();
            modelseal_tensors_read(tensors, index, out, len % 8, null_mut());
            modelseal_tensors_read_rows(tensors, index, begin % 4, end % 4, out, len % 8, null_mut());
            modelseal_tensors_read_rows(tensors, index, begin, end, out, len, null_mut());
        }
    }

    /// One call, or what belongs together.
    fn call(&mut self, what: u8) {
        let (mut error, text) = (null_mut(), self.text());
        match what % 14 {
            0 => drop(self.settings()),
            1 => drop(self.key()),
            2 => self.open(),
            3 => {
                let (model, mut file) = (self.handle(), null_mut());
                let status = unsafe { modelseal_file_open(model, text.0, text.1, &mut file, &mut error) };
                self.keep(status, file);
            }
            4 => self.read(),
            5 => self.stream(),
            6 => {
                let (model, mut tensors) = (self.handle(), null_mut());
                let status = unsafe { modelseal_tensors_open(model, text.0, text.1, &mut tensors, &mut error) };
                self.keep(status, tensors);
            }
            7 => self.tensors(),
            8 => {
                let (model, deep, mut entries) = (self.handle(), self.byte().into(), null_mut());
                let status = unsafe { modelseal_list(model, text.0, text.1, deep, &mut entries, &mut error) };
                self.keep(status, entries);
            }
            9 => {
                let (entries, index) = (self.handle(), usize::from(self.byte() % 4));
                let mut metadata = Metadata::default();
                unsafe {
                    modelseal_entries_path(entries, index);
                    modelseal_entries_metadata(entries, index, &mut metadata, size_of::<Metadata>(), &mut error);
                }
            }
            10 => {
                let (settings, setting, number) = (self.handle(), i32::from(self.byte()), self.number());
                unsafe {
                    // What waits for a person, a program or a network is left out, and so are threads.
                    if setting != MODELSEAL_SET_THREADS {
                        modelseal_settings_set_number(settings, setting, number, null_mut());
                    }
                    modelseal_settings_set_text(settings, setting, text.0, text.1, &mut error);
                }
            }
            11 => {
                let model = self.handle();
                let (damage, user) = (None, null_mut());
                unsafe { modelseal_verify(model, text.0, text.1, None, damage, user, null_mut(), 0, &mut error) };
            }
            12 => {
                let (file, mut fd) = (self.handle(), -1);
                if unsafe { modelseal_memfd(file, &mut fd, &mut error) } == MODELSEAL_OK {
                    unsafe { libc::close(fd) };
                }
            }
            _ => free(self.handle()),
        }
        self.look_at(error);
    }

    fn look_at(&mut self, error: *mut Error) {
        unsafe {
            if !error.is_null() {
                assert_ne!(modelseal_error_status(error), MODELSEAL_PANIC);
                assert!(!modelseal_error_message(error).is_null());
                modelseal_error_free(error);
            }
            assert!(modelseal_error_message(error).is_null());
        }
    }
}

/// Frees whatever it is.
fn free(handle: *mut c_void) {
    unsafe {
        modelseal_settings_free(handle.cast());
        modelseal_key_free(handle.cast());
        modelseal_model_free(handle.cast());
        modelseal_file_free(handle.cast());
        modelseal_tensors_free(handle.cast());
        modelseal_entries_free(handle.cast());
        modelseal_buffer_free(handle.cast());
        modelseal_error_free(handle.cast());
    }
}

impl Drop for Calls<'_> {
    fn drop(&mut self) {
        self.handles.drain(..).for_each(free);
    }
}

fuzz_target!(|data: &[u8]| {
    sample();
    let mut calls = Calls::new(data);
    calls.key();
    for _ in 0..64 {
        let Some(what) = calls.bytes.next().copied() else {
            break;
        };
        calls.call(what);
    }
    drop(calls);
    assert_eq!(modelseal_live_handles(), 0);
});
