//! The lock that runs of this program hold on the directory of the event log, taken with a limit to the waiting.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::clock::Clock;

/// Pause between two attempts at the lock.
const PAUSE: Duration = Duration::from_millis(50);

/// For how long, and by which clock.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) until: Instant,
}

/// Locks for reading, beside others who do.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] where somebody else writes until patience ends.
pub(crate) fn shared(file: &File, patience: Patience<'_>) -> io::Result<()> {
    lock(file, FlockOperation::NonBlockingLockShared, patience)
}

/// Locks for writing.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] where somebody else reads or writes until patience ends.
pub(crate) fn exclusive(file: &File, patience: Patience<'_>) -> io::Result<()> {
    lock(file, FlockOperation::NonBlockingLockExclusive, patience)
}

fn lock(file: &File, operation: FlockOperation, patience: Patience<'_>) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if patience.clock.now() < patience.until => patience.clock.sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}
