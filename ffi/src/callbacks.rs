//! Functions of the caller's that hear how long work gets on.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use modelseal::Damage;

use crate::error::{Error, Failure};
use crate::handle;

/// Hears how work gets on: `done` of `total` bytes of plaintext, where 0 says that the total is not known (verifying with the
/// key counts as it goes). Returns 0 to go on; anything else calls the work off, which then fails with
/// `MODELSEAL_CANCELLED`.
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

/// The caller's functions, and what they have not heard yet.
pub(crate) struct Listener {
    progress: Progress,
    damage: DamageFound,
    user: User,
    news: Mutex<News>,
}

/// What there is to tell. Nobody holds it while a function of the caller's runs.
#[derive(Default)]
struct News {
    done: u64,
    total: u64,
    /// Whether the work got on since it was last told.
    advanced: bool,
    damage: VecDeque<(PathBuf, Failure)>,
    /// The first damage of all.
    first: Option<Failure>,
    cancelled: bool,
    /// Whether a thread is telling: it goes on with what comes meanwhile.
    telling: bool,
}

impl Listener {
    /// # Safety
    /// The functions must be NULL, or such as their types say, and may be called with `user` while this lives.
    pub(crate) unsafe fn new(progress: Progress, damage: DamageFound, user: *mut c_void) -> Self {
        Self {
            progress,
            damage,
            user: User(user),
            news: Mutex::default(),
        }
    }

    /// Tells of something damaged.
    pub(crate) fn damage(&self, damage: Damage) {
        let failure = Failure::from(damage.error);
        let mut news = self.news();
        news.first.get_or_insert_with(|| failure.clone());
        if self.damage.is_some() {
            news.damage.push_back((damage.path, failure));
            self.tell(news);
        }
    }

    /// The first thing that was found damaged.
    pub(crate) fn first_damage(self) -> Option<Failure> {
        self.news
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .first
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all that is new, unless that is being done: by another thread, or by this one, where a function of the
    /// caller's has led back to here. Returns whether to go on.
    fn tell<'a>(&'a self, mut news: MutexGuard<'a, News>) -> bool {
        if news.telling {
            return !news.cancelled;
        }
        news.telling = true;
        loop {
            if let Some((path, failure)) = news.damage.pop_front() {
                drop(news);
                self.tell_damage(&path, failure);
                news = self.news();
            } else if mem::take(&mut news.advanced) && !news.cancelled {
                let (done, total) = (news.done, news.total);
                drop(news);
                let go_on = self.tell_progress(done, total);
                news = self.news();
                news.cancelled |= !go_on;
            } else {
                news.telling = false;
                return !news.cancelled;
            }
        }
    }

    fn tell_damage(&self, path: &Path, failure: Failure) {
        let Some(damage) = self.damage else { return };
        let path = path.as_os_str().as_bytes();
        let mut error = ptr::null_mut();
        failure.report(&mut error);
        // SAFETY: as was vouched for; the path and the error live until it returns.
        unsafe { damage(self.user.get(), path.as_ptr().cast(), path.len(), error) };
        handle::free(error);
    }

    fn tell_progress(&self, done: u64, total: u64) -> bool {
        // SAFETY: as was vouched for.
        self.progress
            .is_none_or(|progress| unsafe { progress(self.user.get(), done, total) } == 0)
    }
}

impl chunk_cipher::Progress for Listener {
    fn advance(&self, bytes: u64) -> bool {
        if self.progress.is_none() {
            return true;
        }
        let mut news = self.news();
        news.done += bytes;
        news.advanced = true;
        self.tell(news)
    }
}

impl modelseal::Progress for Listener {
    fn begin(&self, _: u64, bytes: u64) {
        self.news().total = bytes;
    }

    fn warn(&self, warning: &str) {
        log::warn!("{warning}");
    }
}

#[cfg(test)]
mod tests {
    use std::slice;
    use std::sync::OnceLock;
    use std::thread;

    use chunk_cipher::Progress as _;

    use super::*;
    use crate::error::modelseal_error_status;
    use crate::status;

    /// Whose functions are called, and what they heard.
    #[derive(Default)]
    struct Caller {
        listener: OnceLock<Listener>,
        heard: Mutex<Vec<String>>,
        answer: i32,
    }

    impl Caller {
        fn listener(&self) -> &Listener {
            let user = ptr::from_ref(self).cast_mut().cast();
            // SAFETY: the functions below take what this is.
            self.listener
                .get_or_init(|| unsafe { Listener::new(Some(on_progress), Some(on_damage), user) })
        }

        /// Takes down what was heard, and returns how much there is.
        fn hear(&self, what: String) -> usize {
            let mut heard = self.heard.lock().unwrap();
            heard.push(what);
            heard.len()
        }

        fn find_damage(&self, path: &str) {
            self.listener().damage(Damage {
                path: path.into(),
                error: chunk_cipher::Error::Authentication.into(),
            });
        }
    }

    /// The first time, another thread and this one get on and find damage before it returns.
    unsafe extern "C" fn on_progress(user: *mut c_void, done: u64, total: u64) -> i32 {
        // SAFETY: a caller that lives.
        let caller = unsafe { &*user.cast::<Caller>() };
        if caller.hear(format!("{done} of {total}")) == 1 {
            let work = || {
                caller.listener().advance(10);
                caller.find_damage("there");
            };
            thread::scope(|scope| scope.spawn(work).join()).unwrap();
            caller.listener().advance(100);
            caller.find_damage("here");
        }
        caller.answer
    }

    unsafe extern "C" fn on_damage(
        user: *mut c_void,
        path: *const c_char,
        path_len: usize,
        error: *const Error,
    ) {
        // SAFETY: a caller and an error that live, and a path as long as it is said to be.
        unsafe {
            assert_eq!(modelseal_error_status(error), status::MODELSEAL_AUTHENTICATION);
            let path = slice::from_raw_parts(path.cast(), path_len);
            (*user.cast::<Caller>()).hear(String::from_utf8_lossy(path).into_owned());
        }
    }

    #[test]
    fn what_comes_while_a_function_runs_is_told_behind_it() {
        let caller = Caller::default();
        modelseal::Progress::begin(caller.listener(), 1, 111);
        assert!(caller.listener().advance(1));
        assert_eq!(
            *caller.heard.lock().unwrap(),
            ["1 of 111", "there", "here", "111 of 111"]
        );
    }

    #[test]
    fn what_is_called_off_hears_of_damage_alone() {
        let caller = Caller {
            answer: -7,
            ..Caller::default()
        };
        assert!(!caller.listener().advance(1));
        assert!(!caller.listener().advance(1));
        assert_eq!(*caller.heard.lock().unwrap(), ["1 of 0", "there", "here"]);
    }
}
