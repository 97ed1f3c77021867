//! A file as a stream of the C library.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use modelseal::{Buffer, SealedFile};

use crate::boundary::bytes_mut;
use crate::error::Failure;
use crate::sigpipe;

/// Opens a stream on `file`, which decrypts up to `read_ahead` bytes at once.
///
/// The C library hands out whatever such a stream has read from a buffer of its own, 8 KiB long unless it is given another;
/// so that is where as much is decrypted ahead.
pub(crate) fn open(file: Arc<SealedFile>, read_ahead: usize) -> Result<*mut libc::FILE, Failure> {
    let failed = |source| {
        Failure::from(modelseal::Error::Io {
            path: file.path().to_path_buf(),
            action: "opening a stream on",
            source,
        })
    };
    let len = usize::try_from(file.len()).map_or(read_ahead, |len| len.clamp(LEAST, read_ahead.max(LEAST)));
    let mut buffer = Buffer::new(len).map_err(failed)?;
    let data = buffer.as_mut_ptr();
    let stream = Box::into_raw(Box::new(Stream {
        file: Arc::clone(&file),
        position: 0,
        _buffer: buffer,
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
        return Err(failed(source));
    }
    // SAFETY: a stream that nothing was read from yet; the buffer is the C library's alone until it has closed the stream.
    if unsafe { libc::setvbuf(opened, data.cast(), libc::_IOFBF, len) } != 0 {
        // SAFETY: a stream that is open, which frees all that it has.
        unsafe { libc::fclose(opened) };
        return Err(failed(io::ErrorKind::Unsupported.into()));
    }
    Ok(opened)
}

/// A buffer shorter than this is not worth it, in bytes.
const LEAST: usize = 4 << 10;

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
    position: u64,
    /// What the C library reads into and hands out of. It goes when the stream is closed.
    _buffer: Buffer,
}

impl Stream {
    /// Fills as much of `out` as there is, and goes on behind it.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure> {
        let done = self.file.read_at(self.position, out)?;
        self.position += done as u64;
        Ok(done)
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
    let _held = sigpipe::Held::new();
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
