//! The threads that wait for the network: made on first use, and shared by the whole process.

use std::future::Future;
use std::io;
use std::panic;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that take answers off the network. Most of the work, opening chunks, is not theirs.
const THREADS: usize = 2;

/// A runtime, and the process that it was made in: its threads do not survive a fork.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// The runtime of this process.
///
/// # Errors
/// Where its threads cannot be started.
pub(super) fn handle() -> io::Result<Handle> {
    let process = std::process::id();
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match *runtime {
        Some((owner, runtime)) if owner == process => Ok(runtime.handle().clone()),
        _ => {
            let made = Builder::new_multi_thread()
                .worker_threads(THREADS)
                .thread_name("modelseal-net")
                .enable_all()
                .build()?;
            // Whoever asks later may run while the process ends.
            let made: &'static Runtime = Box::leak(Box::new(made));
            *runtime = Some((process, made));
            Ok(made.handle().clone())
        }
    }
}

/// Waits for `work` on this thread, which may be one of somebody else's runtime.
pub(super) fn wait<F>(handle: &Handle, work: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    if Handle::try_current().is_err() {
        return handle.block_on(work);
    }
    thread::scope(|scope| {
        let waiter = scope.spawn(|| handle.block_on(work));
        waiter
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}
