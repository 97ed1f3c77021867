//! Long work that Ctrl-C ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;

use crate::error::warn;

/// How often it is looked whether a signal has come.
const TICK: Duration = Duration::from_millis(50);

/// What is read in one go before it is looked whether a signal has come, in bytes.
const PIECE: u64 = 64 << 20;

/// Does `work` on a thread of its own. On Ctrl-C nobody waits for it any more; it ends by itself, and its result is lost.
pub(crate) fn abandonable<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = channel();
    // Whoever waits for it may have gone.
    let thread = thread::Builder::new()
        .name("modelseal".into())
        .spawn(move || drop(sender.send(work())));
    thread?;
    let receiver = Mutex::new(receiver);
    let wait = || {
        receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv_timeout(TICK)
    };
    loop {
        match py.detach(wait) {
            Ok(made) => return Ok(made),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => return Err(failed()),
        }
    }
}

/// Does `work` on a thread of its own, and tells `progress`, if it is to be told, how far it is: bytes, and of how many. On
/// Ctrl-C, and where `progress` raises, `work` is told to stop by the meter, and waited for.
pub(crate) fn metered<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Meter) -> T + Send,
) -> PyResult<T> {
    if progress.is_some_and(|progress| !progress.is_callable()) {
        return Err(PyTypeError::new_err("progress cannot be called"));
    }
    let meter = Meter::default();
    let (sender, receiver) = channel();
    let receiver = Mutex::new(receiver);
    let made = thread::scope(|scope| {
        let meter = &meter;
        scope.spawn(move || drop(sender.send(work(meter))));
        let wait = |time| {
            receiver
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv_timeout(time)
        };
        loop {
            match py.detach(|| wait(TICK)) {
                Ok(made) => return Ok(made),
                Err(RecvTimeoutError::Timeout) => {
                    let told = py.check_signals().and_then(|()| meter.tell(progress));
                    if let Err(error) = told {
                        meter.cancelled.store(true, Ordering::Relaxed);
                        // It stops at the next opportunity.
                        while let Err(RecvTimeoutError::Timeout) = py.detach(|| wait(TICK)) {}
                        return Err(error);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(failed()),
            }
        }
    })?;
    meter.tell(progress)?;
    let warnings = meter
        .warnings
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    warn(py, warnings)?;
    Ok(made)
}

/// Fills `out` piece by piece, from the byte `begin` on of what `read` reads, and looks for signals in between. Where
/// it fails, `out` is all zero.
///
/// Pieces end where chunks do, so that none is decrypted twice.
pub(crate) fn fill(
    py: Python<'_>,
    begin: u64,
    chunk_len: u64,
    out: &mut [u8],
    read: impl Fn(u64, &mut [u8]) -> PyResult<()> + Sync,
) -> PyResult<()> {
    let mut offset = begin;
    let mut rest = &mut *out;
    let filled = loop {
        let end = (offset + PIECE) / chunk_len.max(1) * chunk_len.max(1);
        let len = usize::try_from(end - offset)
            .unwrap_or(usize::MAX)
            .min(rest.len());
        let (piece, behind) = rest.split_at_mut(len);
        if let Err(error) = py.detach(|| read(offset, piece)) {
            break Err(error);
        }
        if behind.is_empty() {
            break Ok(());
        }
        if let Err(error) = py.check_signals() {
            break Err(error);
        }
        offset += len as u64;
        rest = behind;
    };
    filled.inspect_err(|_| out.fill(0))
}

fn failed() -> PyErr {
    PyRuntimeError::new_err("the thread that did the work has failed")
}

/// How far work is.
#[derive(Default)]
pub(crate) struct Meter {
    total: AtomicU64,
    done: AtomicU64,
    cancelled: AtomicBool,
    warnings: Mutex<Vec<String>>,
}

impl Meter {
    /// Something deserves a person's attention.
    pub(crate) fn note(&self, text: &str) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.push(text.to_owned());
    }

    fn tell(&self, progress: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        if let Some(progress) = progress {
            let (done, total) = (&self.done, &self.total);
            progress.call1((done.load(Ordering::Relaxed), total.load(Ordering::Relaxed)))?;
        }
        Ok(())
    }
}

impl chunk_cipher::Progress for Meter {
    fn advance(&self, bytes: u64) -> bool {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        !self.cancelled.load(Ordering::Relaxed)
    }
}

impl modelseal::Progress for Meter {
    fn begin(&self, _files: u64, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn warn(&self, warning: &str) {
        self.note(warning);
    }
}
