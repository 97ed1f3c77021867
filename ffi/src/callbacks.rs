//! Functions of the caller's that hear how long work gets on.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use modelseal::Damage;

use crate::error::{Error, Failure};
use crate::handle;

/// Hears how work gets on: `done` of `total` bytes of plaintext, where 0 says that the total is not known (verifying with the
/// key counts as it goes). Returns 0 to go on; anything else calls the work off, which
/// then fails with `MODELSEAL_CANCELLED`.
///
/// Called from any thread, by one at a time. It must return normally: no `longjmp`, no C++ exception.
pub type Progress = Option<unsafe extern "C" fn(user: *mut c_void, done: u64, total: u64) -> i32>;

/// Hears of something damaged: its path in the model, and what is wrong, which lives until it returns.
///
/// Called from any thread, by one at a time. It must return normally, and call no function of this library but those of
/// errors.
pub type DamageFound = Option<
    unsafe extern "C" fn(user: *mut c_void, path: *const c_char, path_len: usize, error: *const Error),
>;

/// A pointer of the caller's, which only the caller's functions use.
#[derive(Clone, Copy)]
pub(crate) struct User(pub(crate) *mut c_void);

// SAFETY: it is only passed on, to functions that the caller lets any thread call.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    const fn get(self) -> *mut c_void {
        self.0
    }
}

/// The caller's functions.
pub(crate) struct Listener {
    progress: Progress,
    damage: DamageFound,
    user: User,
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
    /// Whoever calls a function holds it.
    turn: Mutex<()>,
    first: Mutex<Option<Failure>>,
}

impl Listener {
    /// # Safety
    /// The functions must be NULL, or such as their types say, and may be called with `user` while this lives.
    pub(crate) unsafe fn new(progress: Progress, damage: DamageFound, user: *mut c_void) -> Self {
        Self {
            progress,
            damage,
            user: User(user),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            turn: Mutex::new(()),
            first: Mutex::new(None),
        }
    }

    /// Tells of something damaged.
    pub(crate) fn damage(&self, damage: Damage) {
        let path = damage.path.as_os_str().as_bytes();
        let failure = Failure::from(damage.error);
        if let Some(callback) = self.damage {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let mut error = std::ptr::null_mut();
            failure.clone().report(&mut error);
            // SAFETY: as was vouched for; the path and the error live until it returns.
            unsafe { callback(self.user.get(), path.as_ptr().cast(), path.len(), error) };
            handle::free(error);
        }
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(failure);
    }

    /// The first thing that was found damaged.
    pub(crate) fn first_damage(self) -> Option<Failure> {
        self.first.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl chunk_cipher::Progress for Listener {
    fn advance(&self, bytes: u64) -> bool {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        let Some(progress) = self.progress else {
            return true;
        };
        // While another thread tells, there is nothing to wait for: the next call says all. The callback itself may lead
        // back to here, too.
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return !self.cancelled.load(Ordering::Relaxed),
        };
        if !self.cancelled.load(Ordering::Relaxed) {
            let done = self.done.load(Ordering::Relaxed);
            let total = self.total.load(Ordering::Relaxed);
            // SAFETY: as was vouched for.
            let go_on = unsafe { progress(self.user.get(), done, total) } == 0;
            self.cancelled.store(!go_on, Ordering::Relaxed);
        }
        drop(turn);
        !self.cancelled.load(Ordering::Relaxed)
    }
}

impl modelseal::Progress for Listener {
    fn begin(&self, _: u64, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn warn(&self, warning: &str) {
        log::warn!("{warning}");
    }
}
