//! The log.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::sync::{OnceLock, PoisonError, RwLock};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::boundary::boundary;
use crate::callbacks::User;
use crate::error::{Error, Failure, c_string};
use crate::status;

/// Nothing is logged.
pub const MODELSEAL_LOG_OFF: i32 = 0;
/// What failed and is not told in another way.
pub const MODELSEAL_LOG_ERROR: i32 = 1;
/// And what deserves a person's attention.
pub const MODELSEAL_LOG_WARN: i32 = 2;
/// And what was done.
pub const MODELSEAL_LOG_INFO: i32 = 3;
/// And what helps to find faults.
pub const MODELSEAL_LOG_DEBUG: i32 = 4;
/// And everything else.
pub const MODELSEAL_LOG_TRACE: i32 = 5;

/// Hears what is logged: `level` is `MODELSEAL_LOG_ERROR` to `MODELSEAL_LOG_TRACE`, and `message` is UTF-8 with a NUL at
/// its end, without secrets, that lives until it returns.
///
/// Called from any thread, by several at once. It must return normally, and call no function of this library that reads or
/// waits, as the library's threads may wait for it. What it causes to be logged itself is dropped.
pub type LogMessage = Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

/// Says who hears what is logged, up to `level`; NULL for nobody, as it is at first. When this returns, nobody else is
/// called any more.
///
/// `MODELSEAL_ARGUMENT` where it is called by a function that hears what is logged, or there is no such level;
/// `MODELSEAL_UNSUPPORTED` where the program is written in Rust and logs elsewhere.
///
/// # Safety
/// `callback` must be as its type says, and may be called with `user` until another takes its place; `error` must be
/// valid for writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_set_log(
    callback: LogMessage,
    user: *mut c_void,
    level: i32,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        if LISTENING.get() {
            return Err(Failure::argument(
                "who hears the log cannot be changed while it is told",
            ));
        }
        let filter = filter(level)?;
        // Once a process: whoever comes first stays.
        let ours = INSTALLED.get_or_init(|| log::set_logger(&LOGGER).is_ok());
        if !ours {
            let text = "something else in this program is told the log".to_owned();
            return Err(Failure::new(status::MODELSEAL_UNSUPPORTED, text));
        }
        let mut listener = LOGGER.0.write().unwrap_or_else(PoisonError::into_inner);
        *listener = callback.map(|callback| Listener {
            callback,
            user: User(user),
        });
        log::set_max_level(if listener.is_some() {
            filter
        } else {
            LevelFilter::Off
        });
        Ok(())
    })
}

static INSTALLED: OnceLock<bool> = OnceLock::new();
static LOGGER: Logger = Logger(RwLock::new(None));

thread_local! {
    /// Whether this thread is telling the log.
    static LISTENING: Cell<bool> = const { Cell::new(false) };
}

struct Logger(RwLock<Option<Listener>>);

struct Listener {
    callback: unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char),
    user: User,
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        !LISTENING.get()
    }

    fn log(&self, record: &Record<'_>) {
        if LISTENING.get() {
            return;
        }
        let message: CString = c_string(record.args().to_string());
        let level = match record.level() {
            Level::Error => MODELSEAL_LOG_ERROR,
            Level::Warn => MODELSEAL_LOG_WARN,
            Level::Info => MODELSEAL_LOG_INFO,
            Level::Debug => MODELSEAL_LOG_DEBUG,
            Level::Trace => MODELSEAL_LOG_TRACE,
        };
        // Held while it is called, so that nobody is called who was replaced.
        let listener = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = &*listener {
            LISTENING.set(true);
            // SAFETY: as was vouched for; the message lives until it returns.
            unsafe { (listener.callback)(listener.user.0, level, message.as_ptr()) };
            LISTENING.set(false);
        }
    }

    fn flush(&self) {}
}

fn filter(level: i32) -> Result<LevelFilter, Failure> {
    Ok(match level {
        MODELSEAL_LOG_OFF => LevelFilter::Off,
        MODELSEAL_LOG_ERROR => LevelFilter::Error,
        MODELSEAL_LOG_WARN => LevelFilter::Warn,
        MODELSEAL_LOG_INFO => LevelFilter::Info,
        MODELSEAL_LOG_DEBUG => LevelFilter::Debug,
        MODELSEAL_LOG_TRACE => LevelFilter::Trace,
        _ => return Err(Failure::argument(format!("there is no level {level} of the log"))),
    })
}
