//! Work that a thread does ahead of whoever takes it, within a limit.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::error::{Error, Result};

/// Results that wait to be taken, whatever they weigh: each takes a mapping, and a process may have some 65,000.
const MAX_WAITING: usize = 1024;

/// What a thread makes in the background, in order. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Ahead<T> {
    queue: Arc<Queue<T>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Nobody will take anything any more.
    closed: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    /// What is done, each with what it weighs.
    ready: VecDeque<(u64, T)>,
    /// What weighs on the limit: that, and what is being done.
    held: u64,
    /// Nothing more will come.
    ended: bool,
}

impl<T: Send + 'static> Ahead<T> {
    /// Does the `jobs` one after another, each with what it weighs: as many ahead as weigh `limit` together, or one
    /// that weighs more by itself. `work` gets a flag that says whether to stop early.
    pub(super) fn start<J: 'static>(
        limit: u64,
        jobs: impl Iterator<Item = (u64, J)> + Send + 'static,
        mut work: impl FnMut(J, &AtomicBool) -> T + Send + 'static,
    ) -> Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                held: 0,
                ended: false,
            }),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
        });
        let ours = Arc::clone(&queue);
        let thread = Builder::new().name("modelseal-ahead".into()).spawn(move || {
            // Tells whoever waits, even where `work` panics.
            let _end = End(&ours);
            for (weight, job) in jobs {
                if !ours.make_room(weight, limit) {
                    return;
                }
                let made = work(job, &ours.closed);
                ours.lock().ready.push_back((weight, made));
                ours.changed.notify_all();
            }
        });
        let thread = thread.map_err(|source| Error::Engine(chunk_cipher::Error::Threads { source }))?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Waits for what comes next; `None` where nothing does.
    pub(super) fn next(&self) -> Option<T> {
        let mut state = self.queue.lock();
        loop {
            if let Some((weight, made)) = state.ready.pop_front() {
                state.held -= weight;
                self.queue.changed.notify_all();
                return Some(made);
            }
            if state.ended {
                return None;
            }
            state = self.queue.wait(state);
        }
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        {
            // Under the lock, so that the thread does not miss it before it waits.
            let _state = self.queue.lock();
            self.queue.closed.store(true, Ordering::Relaxed);
            self.queue.changed.notify_all();
        }
        if let Some(thread) = self.thread.take() {
            // Where it panicked, that was shown already.
            let _ = thread.join();
        }
    }
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for `weight`, and takes it. `false` where nobody waits for it any more.
    fn make_room(&self, weight: u64, limit: u64) -> bool {
        let mut state = self.lock();
        loop {
            if self.closed.load(Ordering::Relaxed) {
                return false;
            }
            let full = state.held.saturating_add(weight) > limit || state.ready.len() >= MAX_WAITING;
            if state.held == 0 || !full {
                state.held = state.held.saturating_add(weight);
                return true;
            }
            state = self.wait(state);
        }
    }
}

struct End<'a, T>(&'a Queue<T>);

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn all_comes_in_order_and_no_more_is_held_than_allowed() {
        let weights = [3, 4, 0, 5, 12, 1, 1, 30, 9, 2];
        for limit in [0, 1, 10, 100] {
            // What was begun and not taken yet.
            let held = Arc::new(AtomicU64::new(0));
            let most = Arc::new(AtomicU64::new(0));
            let (ours, highest) = (Arc::clone(&held), Arc::clone(&most));
            let jobs = weights.into_iter().enumerate().map(|(n, weight)| (weight, n));
            let ahead = Ahead::start(limit, jobs, move |n, _| {
                let now = ours.fetch_add(weights[n], Ordering::SeqCst) + weights[n];
                highest.fetch_max(now, Ordering::SeqCst);
                assert!(now <= limit.max(weights[n]), "{now} held of {limit}");
                n
            })
            .unwrap();
            for (n, weight) in weights.into_iter().enumerate() {
                let mut state = ahead.queue.lock();
                while state.ready.is_empty() && !state.ended {
                    state = ahead.queue.wait(state);
                }
                // Off our count before it is off the queue's.
                held.fetch_sub(weight, Ordering::SeqCst);
                drop(state);
                assert_eq!(ahead.next(), Some(n));
            }
            assert_eq!(ahead.next(), None);
            assert!(most.load(Ordering::SeqCst) >= 30);
        }
    }

    #[test]
    fn it_works_ahead_of_whoever_takes() {
        let (begun, sees) = mpsc::channel();
        let ahead = Ahead::start(10, (0..100).map(|n| (2, n)), move |n, _| {
            begun.send(n).unwrap();
            n
        })
        .unwrap();
        // Five have room, none of which was taken.
        for n in 0..5 {
            assert_eq!(sees.recv_timeout(LONG), Ok(n));
        }
        assert_eq!(ahead.next(), Some(0));
        assert_eq!(sees.recv_timeout(LONG), Ok(5));
    }

    #[test]
    fn dropping_it_ends_the_thread() {
        let alive = Arc::new(());
        // While it waits for room, and while it works.
        let theirs = Arc::clone(&alive);
        let ahead = Ahead::start(1, (0..).map(|n| (1, n)), move |n, _| (n, Arc::clone(&theirs))).unwrap();
        assert_eq!(ahead.next().unwrap().0, 0);
        drop(ahead);
        let theirs = Arc::clone(&alive);
        let (begun, sees) = mpsc::channel();
        let ahead = Ahead::start(1, [(1, ())].into_iter(), move |(), closed| {
            begun.send(()).unwrap();
            while !closed.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Arc::clone(&theirs)
        })
        .unwrap();
        sees.recv_timeout(LONG).unwrap();
        drop(ahead);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn a_panic_is_an_end() {
        let ahead = Ahead::start(9, (0..3).map(|n| (1, n)), |n, _| {
            assert!(n < 1, "on purpose");
            n
        })
        .unwrap();
        assert_eq!(ahead.next(), Some(0));
        assert_eq!(ahead.next(), None);
    }
}
