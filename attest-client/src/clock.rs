//! The passing of time, so that tests need not wait for it.

use std::fmt;
use std::time::{Duration, Instant};

/// What tells the time and waits.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now; it never goes back.
    fn now(&self) -> Instant;

    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
