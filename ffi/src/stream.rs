//! A file as a stream of the C library.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use modelseal::{Buffer, SealedFile};

use crate::boundary::bytes_mut;
use crate::error::Failure;

/// Opens a stream on `file`, which decrypts `read_ahead` bytes at once where it is read in pieces.
pub(crate) fn open(file: Arc<SealedFile>, read_ahead: usize) -> Result<*mut libc::FILE, Failure> {
    let stream = Box::into_raw(Box::new(Stream {
        file,
        read_ahead,
        position: 0,
        window: None,
    }));
    let functions = Functions {
        read: Some(read),
        write: None,
        seek: Some(seek),
        close: Some(close),
    };
    // SAFETY: the mode ends with a NUL, and the functions take what `stream` is.
    let opened = unsafe { fopencookie(stream.cast(), c"rb".as_ptr(), functions) };
    if opened.is_null() {
        let source = io::Error::last_os_error();
        // SAFETY: nobody else has it.
        drop(unsafe { Box::from_raw(stream) });
        let path = "the stream".into();
        let action = "opening";
        return Err(modelseal::Error::Io { path, action, source }.into());
    }
    Ok(opened)
}

/// What the C library calls for a stream, as its `cookie_io_functions_t`.
#[repr(C)]
struct Functions {
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: Functions) -> *mut libc::FILE;
}

struct Stream {
    file: Arc<SealedFile>,
    read_ahead: usize,
    position: u64,
    /// What was decrypted ahead.
    window: Option<Window>,
}

struct Window {
    at: u64,
    len: usize,
    plain: Buffer,
}

impl Stream {
    /// Fills as much of `out` as there is, and goes on behind it.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure> {
        let done = match self.copy_from_window(out) {
            0 if out.len() >= self.read_ahead => self.file.read_at(self.position, out)?,
            0 => {
                self.fill()?;
                self.copy_from_window(out)
            }
            done => done,
        };
        self.position += done as u64;
        Ok(done)
    }

    /// Copies what the window has for `out`.
    fn copy_from_window(&self, out: &mut [u8]) -> usize {
        let Some(window) = &self.window else { return 0 };
        let Some(from) = self.position.checked_sub(window.at) else {
            return 0;
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(window.len);
        let len = out.len().min(window.len - from);
        out[..len].copy_from_slice(&window.plain[from..from + len]);
        len
    }

    /// Decrypts what comes next.
    fn fill(&mut self) -> Result<(), Failure> {
        let mut window = match self.window.take() {
            Some(window) => window,
            None => Window {
                at: 0,
                len: 0,
                plain: Buffer::new(self.len_of_window()).map_err(|source| self.short(source))?,
            },
        };
        // Windows lie side by side, so that going back a little finds what is there.
        let step = window.plain.len().max(1) as u64;
        window.at = self.position - self.position % step;
        window.len = self.file.read_at(window.at, &mut window.plain)?;
        self.window = Some(window);
        Ok(())
    }

    fn len_of_window(&self) -> usize {
        usize::try_from(self.file.len()).map_or(self.read_ahead, |len| len.min(self.read_ahead))
    }

    fn short(&self, source: io::Error) -> Failure {
        let path = self.file.path().to_path_buf();
        let action = "making room for";
        modelseal::Error::Io { path, action, source }.into()
    }

    fn seek(&mut self, offset: i64, whence: c_int) -> Result<u64, Failure> {
        let from = match whence {
            libc::SEEK_SET => 0,
            libc::SEEK_CUR => self.position,
            libc::SEEK_END => self.file.len(),
            _ => return Err(Failure::argument("there is no such way to seek")),
        };
        let to = from.checked_add_signed(offset);
        let to = to.filter(|to| i64::try_from(*to).is_ok());
        self.position = to.ok_or_else(|| Failure::argument("the position is out of bounds"))?;
        Ok(self.position)
    }
}

unsafe extern "C" fn read(stream: *mut c_void, data: *mut c_char, len: usize) -> isize {
    // SAFETY: the C library gives back what it was given, one call at a time, and memory of its own or its caller's.
    let done = guarded(|| unsafe {
        let stream = &mut *stream.cast::<Stream>();
        stream.read(bytes_mut(data.cast(), len, "data")?)
    });
    done.and_then(|done| isize::try_from(done).ok()).unwrap_or(-1)
}

unsafe extern "C" fn seek(stream: *mut c_void, position: *mut i64, whence: c_int) -> c_int {
    // SAFETY: as above; the position is read and written here alone.
    let done = guarded(|| unsafe {
        let stream = &mut *stream.cast::<Stream>();
        let to = stream.seek(*position, whence)?;
        *position = i64::try_from(to).unwrap_or(i64::MAX);
        Ok(())
    });
    if done.is_some() { 0 } else { -1 }
}

unsafe extern "C" fn close(stream: *mut c_void) -> c_int {
    // SAFETY: as above, and nothing is called any more after this.
    let done = guarded(|| unsafe {
        drop(Box::from_raw(stream.cast::<Stream>()));
        Ok(())
    });
    if done.is_some() { 0 } else { -1 }
}

/// Does the work of one of the functions. What fails is logged, and left in `errno`.
fn guarded<R>(work: impl FnOnce() -> Result<R, Failure>) -> Option<R> {
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => return Some(done),
        Ok(Err(failure)) => failure,
        Err(payload) => Failure::panic(payload),
    };
    // What listens to the log may set it as well, so that this comes last.
    let _ = catch_unwind(AssertUnwindSafe(|| log::error!("{}", failure.text())));
    // SAFETY: a place of this thread's own.
    unsafe { *libc::__errno_location() = failure.errno() };
    None
}
