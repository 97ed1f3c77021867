//! Arbitrary calls in arbitrary order, with handles that live, were freed, are of another kind or never were: every call
//! returns a status, what is read is what was sealed, and nothing is left when everything was freed.
//!
//! No program is run, nobody is asked and no network is reached: key references are of files and variables alone, and
//! locations are in temporary folders.
#![no_main]

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::ptr::{self, null, null_mut};
use std::sync::OnceLock;
use std::{fs, slice};

use libfuzzer_sys::fuzz_target;
use modelseal_ffi::*;

/// What the file of the sample holds.
const CONTENT: &[u8] = include_bytes!("calls.rs");

/// Handles that are kept to be used again.
const KEPT: usize = 16;

/// The key of RFC 8410, section 10.3: in no way a secret.
const ISSUER_PEM: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";

/// The cheapest scrypt that a vault and that a package can have.
const VAULT_LOG_N: u64 = 10;
const PACKAGE_LOG_N: u64 = 14;

const LICENSE: &str = "licenses/LD_Fuzz_0001.json";

/// A folder with a plain model of this very file, a link to it and a file of tensors; the same as a vault and as a package;
/// and files of keys.
struct Sample {
    dir: PathBuf,
    license: Vec<u8>,
}

static SAMPLE: OnceLock<Sample> = OnceLock::new();

fn sample() -> &'static Sample {
    SAMPLE.get_or_init(|| {
        extern "C" fn remove() {
            // At the end of the process there is nobody to tell.
            let _ = SAMPLE.get().map(|sample| fs::remove_dir_all(&sample.dir));
        }
        // SAFETY: a function that takes nothing.
        unsafe { libc::atexit(remove) };
        let dir = tempfile::tempdir().expect("a temporary folder").keep();
        let source = dir.join("source");
        fs::create_dir(&source).expect("a folder");
        let header = br#"{"a":{"dtype":"I8","shape":[2,3],"data_offsets":[0,6]}}"#;
        let tensors = [&(header.len() as u64).to_le_bytes()[..], header, b"123456"].concat();
        let files = [
            ("source/file", CONTENT),
            ("source/t.safetensors", &tensors),
            ("issuer.pem", ISSUER_PEM.as_bytes()),
            ("key", b"password\n"),
            ("hex", b"70617373776f7264\n"),
            ("base64", b"cGFzc3dvcmQ=\n"),
        ];
        for (name, content) in files {
            fs::write(dir.join(name), content).expect("a file");
        }
        symlink("file", source.join("link")).expect("a link");
        let mut calls = Calls::new(&[]);
        for (format, log_n) in [("gocryptfs", VAULT_LOG_N), ("sam", PACKAGE_LOG_N)] {
            let (settings, key) = (calls.settings(), calls.key());
            let issuer = dir.join("issuer.pem");
            let texts = [
                (MODELSEAL_SET_FORMAT, OsStr::new(format)),
                (MODELSEAL_SET_KEY_ID, OsStr::new("LD_Fuzz_0001")),
                (MODELSEAL_SET_ISSUER_KEY, issuer.as_os_str()),
            ];
            for (setting, text) in texts {
                let (text, len) = text_of(text);
                let status = unsafe { modelseal_settings_set_text(settings, setting, text, len, null_mut()) };
                assert_eq!(status, MODELSEAL_OK);
            }
            let status = unsafe {
                modelseal_settings_set_number(settings, MODELSEAL_SET_SCRYPT_LOG_N, log_n, null_mut())
            };
            assert_eq!(status, MODELSEAL_OK);
            assert_eq!(seal(settings, &source, &dir.join(format), key, null_mut(), null_mut()), MODELSEAL_OK);
        }
        let license = fs::read(dir.join("sam").join(LICENSE)).expect("a license");
        Sample { dir, license }
    })
}

fn text_of(text: &(impl AsRef<OsStr> + ?Sized)) -> (*const c_char, usize) {
    let bytes = text.as_ref().as_bytes();
    (bytes.as_ptr().cast(), bytes.len())
}

/// Seals; `countdown` says after how many times of telling how it gets on it is called off, and may be NULL.
fn seal(
    settings: *const Settings,
    from: &Path,
    to: &Path,
    key: *const Key,
    countdown: *mut u8,
    error: *mut *mut Error,
) -> i32 {
    let ((from, from_len), (to, to_len)) = (text_of(from), text_of(to));
    let progress: Progress = if countdown.is_null() { None } else { Some(on_progress) };
    let mut summary = Summary::default();
    let len = size_of::<Summary>();
    // SAFETY: texts with their lengths, and places of this function and its caller.
    unsafe {
        modelseal_seal(
            settings, from, from_len, to, to_len, key, progress, countdown.cast(), &mut summary, len, error,
        )
    }
}

unsafe extern "C" fn on_progress(user: *mut c_void, done: u64, total: u64) -> i32 {
    assert!(total == 0 || done <= total);
    // SAFETY: the countdown, which is told of by one thread at a time.
    let countdown = unsafe { &mut *user.cast::<u8>() };
    let call_off = *countdown == 0;
    *countdown = countdown.saturating_sub(1);
    call_off.into()
}

unsafe extern "C" fn on_damage(_: *mut c_void, _: *const c_char, _: usize, _: *const Error) {
    panic!("nothing is damaged");
}

unsafe extern "C" fn on_log(user: *mut c_void, level: i32, message: *const c_char) {
    assert!(ptr::eq(user.cast(), &SAMPLE));
    assert!((MODELSEAL_LOG_ERROR..=MODELSEAL_LOG_TRACE).contains(&level));
    // SAFETY: a text that lives until this returns.
    assert!(unsafe { CStr::from_ptr(message) }.to_str().is_ok());
    assert_eq!(set_log(None, MODELSEAL_LOG_OFF, null_mut()), MODELSEAL_ARGUMENT);
}

fn set_log(callback: LogMessage, level: i32, error: *mut *mut Error) -> i32 {
    // SAFETY: a function of this file or none, and what it is told of is never freed.
    unsafe { modelseal_set_log(callback, (&raw const SAMPLE).cast_mut().cast(), level, error) }
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
        let known: &[&[u8]] = &[
            b"file", b"t.safetensors", b"", b"a", b".", b"..", b"copy", b"sam", b"\xff", b"a\0b", b"link", b"gocryptfs",
            b"LD_Fuzz_0001",
        ];
        let choice = usize::from(self.byte());
        let text: &[u8] = match known.get(choice) {
            Some(text) => text,
            None if choice == 100 => return (c"file".as_ptr(), MODELSEAL_NUL_TERMINATED),
            None if choice == 101 => return (null(), usize::from(self.byte())),
            None if choice == 102 => return (c"x".as_ptr(), usize::MAX - 1 - usize::from(self.byte())),
            None => self.take(choice % 32),
        };
        (text.as_ptr().cast(), text.len())
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let rest = self.bytes.as_slice();
        let (taken, rest) = rest.split_at(len.min(rest.len()));
        self.bytes = rest.iter();
        taken
    }

    /// Arbitrary bytes without some of them.
    fn take_without(&mut self, left_out: u8) -> Vec<u8> {
        let len = usize::from(self.byte() % 32);
        self.take(len).iter().copied().filter(|byte| *byte != left_out).collect()
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
        let vault = sample().dir.join("gocryptfs");
        let (location, len) = text_of(&vault);
        let (settings, key) = (self.handle::<Settings>(), self.handle::<Key>());
        let mut model = null_mut();
        let status = unsafe { modelseal_open(settings, location, len, key, &mut model, null_mut()) };
        self.keep(status, model);
    }

    /// Seals the sample once more, in a folder that is gone afterwards: what counts as a model opens, and has this file.
    fn seal(&mut self, error: &mut *mut Error) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let source = sample().dir.join("source");
        let (mut settings, key) = (self.handle::<Settings>(), self.handle::<Key>());
        if settings.is_null() {
            settings = self.settings();
        }
        let choice = self.byte();
        let log_n = if choice & 8 == 0 { VAULT_LOG_N } else { PACKAGE_LOG_N };
        if choice & 16 == 0 {
            let issuer = sample().dir.join("issuer.pem");
            let (text, len) = text_of(&issuer);
            unsafe { modelseal_settings_set_text(settings, MODELSEAL_SET_ISSUER_KEY, text, len, null_mut()) };
        }
        let to = match choice % 4 {
            0 => dir.path().to_owned(),
            1 => dir.path().join("new"),
            2 => source.join("within"),
            _ => {
                let name = [b"x", &self.take_without(b'/')[..]].concat();
                dir.path().join(OsStr::from_bytes(&name))
            }
        };
        let mut countdown = self.byte();
        let countdown = if choice & 4 == 0 { null_mut() } else { &raw mut countdown };
        unsafe { modelseal_settings_set_number(settings, MODELSEAL_SET_SCRYPT_LOG_N, log_n, null_mut()) };
        let status = seal(settings, &source, &to, key, countdown, error);
        assert!(!source.join("within").exists());
        let (mut model, mut file) = (null_mut(), null_mut());
        let (location, len) = text_of(&to);
        let opened = unsafe { modelseal_open(null(), location, len, key, &mut model, null_mut()) };
        assert_eq!(status == MODELSEAL_OK, opened == MODELSEAL_OK);
        if opened == MODELSEAL_OK {
            let mut content = vec![0; CONTENT.len()];
            let (path, len) = text_of("file");
            unsafe {
                assert_eq!(modelseal_file_open(model, path, len, &mut file, null_mut()), MODELSEAL_OK);
                let out = content.as_mut_ptr();
                assert_eq!(modelseal_file_read(file, 0, out, content.len(), null_mut()), MODELSEAL_OK);
            }
            assert_eq!(content, CONTENT);
            // Both outlive what they were opened from.
            self.keep(MODELSEAL_OK, file);
        }
        self.keep(opened, model);
    }

    /// A reference to a file or a variable, or what has no scheme.
    fn reference(&mut self) -> Vec<u8> {
        let (decoder, scheme) = (self.byte(), self.byte());
        let mut reference = match decoder % 8 {
            0 => b"hex:".to_vec(),
            1 => b"base64:".to_vec(),
            2 => b"masterkey:".to_vec(),
            3 => b"hex:base64:".to_vec(),
            _ => Vec::new(),
        };
        let file = |name: &[u8]| [b"file:", sample().dir.as_os_str().as_bytes(), b"/", name].concat();
        reference.extend(match scheme % 8 {
            0 => file(b"key"),
            1 => file(b"hex"),
            2 => file(b"base64"),
            3 => file(b"source/file"),
            4 => file(&self.take_without(b'/')),
            5 => b"env:HOME".to_vec(),
            6 => [b"env:", &self.take_without(b'\0')[..]].concat(),
            _ => self.take_without(b':'),
        });
        reference
    }

    fn key_of_reference(&mut self, error: &mut *mut Error) {
        let settings = if self.byte() % 2 == 0 { null_mut() } else { self.handle::<Settings>() };
        let reference = self.reference();
        let (text, len) = (reference.as_ptr().cast(), reference.len());
        let (mut key, mut resource) = (null_mut(), null_mut());
        unsafe {
            let status = modelseal_fetch(settings, text, len, &mut resource, null_mut());
            assert_ne!(status, MODELSEAL_OK);
            let status = modelseal_key_from_reference(settings, text, len, &mut key, error);
            self.keep(status, key);
        }
    }

    fn licenses(&mut self, error: &mut *mut Error) {
        let settings = if self.byte() % 2 == 0 { null_mut() } else { self.handle::<Settings>() };
        let sample = sample();
        let dir;
        let location = match self.byte() % 4 {
            0 => sample.dir.join("sam"),
            1 => sample.dir.join("sam").join(LICENSE),
            2 => sample.dir.join("gocryptfs"),
            _ => {
                dir = tempfile::tempdir().expect("a temporary folder");
                let mut license = sample.license.clone();
                let (at, bytes) = (self.number() as usize % license.len(), self.take_without(0));
                let end = (at + bytes.len()).min(license.len());
                license.splice(at..end, bytes);
                let path = dir.path().join("license.json");
                fs::write(&path, license).expect("a file");
                path
            }
        };
        let (location, len) = text_of(&location);
        let (mut all, mut checked) = (null_mut(), null_mut());
        unsafe {
            let status = modelseal_licenses(settings, location, len, &mut all, null_mut());
            self.keep(status, all);
            let status = modelseal_license_check(settings, location, len, &mut checked, error);
            self.keep(status, checked);
        }
    }

    fn buffer(&mut self, error: &mut *mut Error) {
        let (mut data, mut len) = (null(), 0);
        unsafe {
            if modelseal_buffer_bytes(self.handle(), &mut data, &mut len, error) == MODELSEAL_OK {
                // A link's target, or JSON.
                assert!(str::from_utf8(slice::from_raw_parts(data, len)).is_ok());
            }
        }
    }

    fn verify(&mut self, path: (*const c_char, usize), error: &mut *mut Error) {
        let (model, mut countdown) = (self.handle(), self.byte());
        let progress: Progress = if countdown < 128 { Some(on_progress) } else { None };
        let user = (&raw mut countdown).cast();
        let mut summary = Summary::default();
        let len = size_of::<Summary>();
        unsafe { modelseal_verify(model, path.0, path.1, progress, None, user, &mut summary, len, error) };
        let package = sample().dir.join("sam");
        let (location, location_len) = text_of(&package);
        let status = unsafe {
            let (damage, user): (DamageFound, _) = (Some(on_damage), null_mut());
            modelseal_verify_without_key(
                null(), location, location_len, None, damage, user, &mut summary, len, null_mut(),
            )
        };
        assert_eq!(status, MODELSEAL_OK);
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
        match what % 21 {
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
                    // Neither threads nor what scrypt takes.
                    if ![MODELSEAL_SET_THREADS, MODELSEAL_SET_SCRYPT_LOG_N].contains(&setting) {
                        modelseal_settings_set_number(settings, setting, number, null_mut());
                    }
                    modelseal_settings_set_text(settings, setting, text.0, text.1, &mut error);
                }
            }
            11 => self.verify(text, &mut error),
            12 => {
                let (file, mut fd) = (self.handle(), -1);
                if unsafe { modelseal_memfd(file, &mut fd, &mut error) } == MODELSEAL_OK {
                    unsafe { libc::close(fd) };
                }
            }
            13 => free(self.handle()),
            14 => self.seal(&mut error),
            15 => self.licenses(&mut error),
            16 => self.key_of_reference(&mut error),
            17 => {
                let callback: LogMessage = if self.byte() % 2 == 0 { None } else { Some(on_log) };
                set_log(callback, i32::from(self.byte() % 8) - 1, &mut error);
            }
            18 => {
                let (model, mut target) = (self.handle(), null_mut());
                let mut metadata = Metadata::default();
                unsafe {
                    let size = size_of::<Metadata>();
                    let known = modelseal_stat(model, text.0, text.1, &mut metadata, size, null_mut());
                    let status = modelseal_read_link(model, text.0, text.1, &mut target, &mut error);
                    assert!(status != MODELSEAL_OK || known == MODELSEAL_OK && metadata.kind == MODELSEAL_SYMLINK);
                    self.keep(status, target);
                }
            }
            19 => self.buffer(&mut error),
            _ => {
                let (model, mut json) = (self.handle(), null_mut());
                let status = unsafe { modelseal_model_license(model, &mut json, &mut error) };
                self.keep(status, json);
            }
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
    assert_eq!(set_log(None, MODELSEAL_LOG_OFF, null_mut()), MODELSEAL_OK);
    assert_eq!(modelseal_live_handles(), 0);
});
