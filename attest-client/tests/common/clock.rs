//! A clock that goes on only when it is told to.
#![allow(dead_code)]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use attest_client::Clock;

#[derive(Debug)]
pub(crate) struct FakeClock {
    now: Mutex<Instant>,
    slept: Mutex<Vec<Duration>>,
}

impl Default for FakeClock {
    fn default() -> Self {
        Self {
            now: Mutex::new(Instant::now()),
            slept: Mutex::default(),
        }
    }
}

impl FakeClock {
    pub(crate) fn advance(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }

    /// All pauses so far.
    pub(crate) fn slept(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().clone()
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        *self.now.lock().unwrap()
    }

    fn sleep(&self, time: Duration) {
        self.slept.lock().unwrap().push(time);
        self.advance(time);
    }
}
