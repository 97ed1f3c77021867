//! SIGPIPE, which ends a program in C unless it says otherwise: what writes to a connection that its peer has closed is to
//! get an error instead.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;

/// While this lives its thread gets no SIGPIPE. Threads that are started meanwhile never do.
pub(crate) struct Held {
    ours: bool,
}

thread_local! {
    /// Whether this thread holds it back here, and not because its caller did already.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

impl Held {
    pub(crate) fn new() -> Self {
        Self { ours: hold() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.ours {
            release();
        }
    }
}

/// Does work as if nothing was held: what starts programs, which inherit it.
pub(crate) fn released<R>(work: impl FnOnce() -> R) -> R {
    let released = release();
    let done = work();
    if released {
        hold();
    }
    done
}

/// Returns whether it was not held already.
fn hold() -> bool {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets are there, and the second is read only where it was filled.
    let ours = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &sigpipe(), before.as_mut_ptr()) == 0
            && libc::sigismember(before.as_ptr(), libc::SIGPIPE) == 0
    };
    if ours {
        OURS.set(true);
    }
    ours
}

/// Takes away a signal that came meanwhile; none was waiting before, or it would have been delivered. `errno` stays.
/// Returns whether it was held here.
fn release() -> bool {
    let ours = OURS.replace(false);
    if ours {
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the set and the time are there, NULL is allowed for the rest, and `errno` is this thread's own.
        unsafe {
            let errno = *libc::__errno_location();
            libc::sigtimedwait(&sigpipe(), ptr::null_mut(), &at_once);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &sigpipe(), ptr::null_mut());
            *libc::__errno_location() = errno;
        }
    }
    ours
}

/// The set that has this signal alone.
fn sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is filled before it is used.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::boundary::boundary;
    use crate::status;

    /// Writes to what nobody reads any more.
    fn write_in_vain() {
        let (mine, other) = UnixStream::pair().unwrap();
        drop(other);
        // SAFETY: one byte that is there.
        let done = unsafe { libc::write(mine.as_raw_fd(), [0_u8].as_ptr().cast(), 1) };
        let error = io::Error::last_os_error();
        assert_eq!((done, error.raw_os_error()), (-1, Some(libc::EPIPE)));
    }

    fn is_pending() -> bool {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the set is filled before it is read.
        unsafe {
            libc::sigpending(set.as_mut_ptr());
            libc::sigismember(set.as_ptr(), libc::SIGPIPE) == 1
        }
    }

    #[test]
    fn a_closed_connection_is_an_error_and_no_signal() {
        let work = || {
            // As from a function of the caller's.
            let nested = boundary(ptr::null_mut(), || {
                write_in_vain();
                Ok(())
            });
            assert_eq!(nested, status::MODELSEAL_OK);
            write_in_vain();
            std::thread::spawn(write_in_vain).join().unwrap();
            Ok(())
        };
        // SAFETY: as a program in C has it. The signal would end this process.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        assert_eq!(boundary(ptr::null_mut(), work), status::MODELSEAL_OK);
        // Whoever holds the signal back keeps it.
        let held = Held::new();
        assert_eq!(boundary(ptr::null_mut(), work), status::MODELSEAL_OK);
        assert!(is_pending());
        drop(held);
        assert!(!is_pending());
        // SAFETY: what it was before.
        unsafe { libc::signal(libc::SIGPIPE, before) };
    }
}
