//! The threads that the engine runs on: made on first use, once per process, and made anew after a fork.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// A set of worker threads. Clones share it.
#[derive(Clone, Debug)]
pub struct Pool(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Shared,
    Lazy(Arc<Lazy>),
    Given(Arc<ThreadPool>),
}

/// Threads of the shared pool: one a core.
static SHARED: Lazy = Lazy::new(0);

impl Pool {
    /// The pool that the whole process shares, with one thread for each core.
    #[must_use]
    pub const fn shared() -> Self {
        Self(Kind::Shared)
    }

    /// A pool of its own with `threads` threads; 0 means one for each core.
    #[must_use]
    pub fn with_threads(threads: usize) -> Self {
        Self(Kind::Lazy(Arc::new(Lazy::new(threads))))
    }

    /// The caller's pool. It does not survive a fork; the others do.
    #[must_use]
    pub fn from_rayon(pool: Arc<ThreadPool>) -> Self {
        Self(Kind::Given(pool))
    }

    /// Runs `work` on the pool and waits for it. `rayon` calls within it run on this pool.
    ///
    /// # Errors
    /// [`Error::Threads`] where the threads could not be started.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R> {
        Ok(self.get()?.install(work))
    }

    /// Number of threads.
    ///
    /// # Errors
    /// [`Error::Threads`] where the threads could not be started.
    pub fn threads(&self) -> Result<usize> {
        Ok(self.get()?.current_num_threads())
    }

    fn get(&self) -> Result<&ThreadPool> {
        match &self.0 {
            Kind::Shared => SHARED.get(),
            Kind::Lazy(lazy) => lazy.get(),
            Kind::Given(pool) => Ok(pool),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::shared()
    }
}

/// A pool made on first use in each process.
///
/// Threads do not survive a fork, and neither may a lock that another thread held meanwhile, so this is one
/// atomic pointer to a pool and the process that made it. A child that finds its parent's pool leaves it where
/// it is (its threads are gone and its locks may be held) and makes its own.
#[derive(Debug)]
struct Lazy {
    threads: usize,
    made: AtomicPtr<Made>,
}

#[derive(Debug)]
struct Made {
    process: u32,
    pool: ThreadPool,
}

impl Lazy {
    const fn new(threads: usize) -> Self {
        Self {
            threads,
            made: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    #[allow(unsafe_code)]
    fn get(&self) -> Result<&ThreadPool> {
        let process = std::process::id();
        let found = self.made.load(Ordering::Acquire);
        // SAFETY: a non-null pointer came from Box::into_raw below and is freed in drop only.
        if let Some(made) = unsafe { found.as_ref() }
            && made.process == process
        {
            return Ok(&made.pool);
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .thread_name(|i| format!("chunk-cipher-{i}"))
            .build()
            .map_err(|error| Error::Threads {
                source: io::Error::other(error),
            })?;
        let new = Box::into_raw(Box::new(Made { process, pool }));
        match self
            .made
            .compare_exchange(found, new, Ordering::AcqRel, Ordering::Acquire)
        {
            // SAFETY: `new` is live and stays so until drop.
            Ok(_) => Ok(unsafe { &(*new).pool }),
            Err(winner) => {
                // Another thread of this process was faster.
                // SAFETY: `new` was never shared, `winner` is non-null and lives until drop.
                unsafe {
                    drop(Box::from_raw(new));
                    Ok(&(*winner).pool)
                }
            }
        }
    }
}

impl Drop for Lazy {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let made = *self.made.get_mut();
        // SAFETY: came from Box::into_raw; `&mut self` means that nobody uses it. A parent's pool is left alone.
        unsafe {
            if made
                .as_ref()
                .is_some_and(|made| made.process == std::process::id())
            {
                drop(Box::from_raw(made));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_threads_asked_for() {
        assert_eq!(Pool::with_threads(3).threads().unwrap(), 3);
        assert_eq!(Pool::with_threads(3).run(rayon::current_num_threads).unwrap(), 3);
    }

    #[test]
    fn first_use_from_many_threads_makes_one_pool() {
        let pool = Pool::with_threads(1);
        let pools: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| std::ptr::from_ref(pool.get().unwrap()) as usize))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(pools.iter().all(|pool| *pool == pools[0]));
    }
}
