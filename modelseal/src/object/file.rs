//! An object, read in ranges of one content that never changes under the reader.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use chunk_cipher::store::{ReadAt, Remote, Sink};
use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};

use super::listing::Pin;
use super::{io_error, runtime};

/// Bytes that small reads are rounded up to.
const BLOCK: u64 = 1 << 20;

/// Blocks that are kept for small reads, for all objects of a store together.
const KEPT: usize = 64;

/// Blocks that are fetched in advance where an object is read from front to back.
const AHEAD: u64 = 8;

/// The least that a request of a large read is for, so that its delay is worth it.
const MIN_PART: u64 = 1 << 20;

/// Times that a transfer is gone on with after it broke off, on top of the retries of each request.
const RESUMES: u32 = 4;

/// What all objects of a store share.
pub(super) struct Shared {
    pub(super) client: Arc<dyn ObjectStore>,
    pub(super) handle: Handle,
    /// The process whose runtime `handle` leads to.
    pub(super) process: u32,
    pub(super) part_len: u64,
    pub(super) connections: usize,
    pub(super) blocks: Mutex<Blocks>,
    /// Lets as many requests be under way as there may be.
    pub(super) gate: Semaphore,
}

impl Shared {
    /// Waits for `work`, in the process that the store was opened in.
    pub(super) fn wait<T: Send>(&self, work: impl Future<Output = io::Result<T>> + Send) -> io::Result<T> {
        self.expect_process()?;
        runtime::wait(&self.handle, work)
    }

    fn expect_process(&self) -> io::Result<()> {
        if std::process::id() == self.process {
            return Ok(());
        }
        Err(io::Error::other(
            "connections do not survive a fork; open the model in the child process",
        ))
    }

    /// Asks for `range` of the content of `key` that `pin` means.
    async fn get(&self, key: &Key, pin: &Pin, range: Range<u64>) -> io::Result<GetResult> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: pin.strong_etag().map(str::to_owned),
            ..GetOptions::default()
        };
        let result = self.client.get_opts(key, options).await.map_err(io_error)?;
        if pin.admits(&result.meta) {
            Ok(result)
        } else {
            Err(replaced())
        }
    }

    /// Reads `range`, and calls `sink` with the bytes as they arrive.
    async fn read(
        &self,
        key: &Key,
        pin: &Pin,
        range: Range<u64>,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let _permit = self.gate.acquire().await.map_err(io::Error::other)?;
        let mut at = range.start;
        let mut broken = 0;
        loop {
            let mut body = self.get(key, pin, at..range.end).await?.into_stream();
            let error = loop {
                match body.next().await {
                    Some(Ok(bytes)) => {
                        if bytes.len() as u64 > range.end - at {
                            return Err(invalid("the server sent more than it was asked for"));
                        }
                        sink(&bytes)?;
                        at += bytes.len() as u64;
                    }
                    Some(Err(error)) => break io_error(error),
                    None if at == range.end => return Ok(()),
                    None => break io::ErrorKind::UnexpectedEof.into(),
                }
            };
            broken += 1;
            if broken > RESUMES {
                return Err(error);
            }
            log::debug!("reading {key} broke off at byte {at}: {error}; going on from there");
        }
    }

    /// A whole block, in memory.
    async fn block(&self, key: &Key, pin: &Pin, block: u64) -> io::Result<Bytes> {
        let range = block * BLOCK..pin.len.min((block + 1) * BLOCK);
        let len = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = Vec::with_capacity(len);
        self.read(key, pin, range, |more| {
            bytes.extend_from_slice(more);
            Ok(())
        })
        .await?;
        Ok(bytes.into())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("part_len", &self.part_len)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// Blocks that were read, or are being read, by object and index.
#[derive(Default)]
pub(super) struct Blocks {
    kept: HashMap<(usize, u64), Kept>,
    /// Counts uses.
    clock: u64,
}

struct Kept {
    cell: Arc<OnceCell<Bytes>>,
    used: u64,
}

impl Blocks {
    /// The block of an object, and whether nobody has asked for it before.
    fn get(&mut self, object: usize, block: u64) -> (Arc<OnceCell<Bytes>>, bool) {
        self.clock += 1;
        let used = self.clock;
        if let Some(kept) = self.kept.get_mut(&(object, block)) {
            kept.used = used;
            return (Arc::clone(&kept.cell), false);
        }
        if self.kept.len() >= KEPT {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used);
            if let Some(oldest) = oldest.map(|(at, _)| *at) {
                self.kept.remove(&oldest);
            }
        }
        let cell = Arc::new(OnceCell::new());
        let kept = Kept {
            cell: Arc::clone(&cell),
            used,
        };
        self.kept.insert((object, block), kept);
        (cell, true)
    }

    fn has(&self, object: usize, block: u64) -> bool {
        self.kept.contains_key(&(object, block))
    }

    fn forget(&mut self, object: usize) {
        self.kept.retain(|(owner, _), _| *owner != object);
    }
}

/// An open object: one content of it, whatever becomes of the object.
#[derive(Debug)]
pub(crate) struct ObjectFile {
    shared: Arc<Shared>,
    key: Key,
    pin: Pin,
    /// Tells it from the others of its store.
    number: usize,
}

impl ObjectFile {
    pub(super) fn new(shared: &Arc<Shared>, key: Key, pin: Pin) -> Self {
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        Self {
            shared: Arc::clone(shared),
            key,
            pin,
            number: OPENED.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The blocks with the bytes `range`, some of which may still be empty. Begins with those behind them where the
    /// object is read from front to back.
    fn blocks(&self, range: &Range<u64>) -> Vec<(u64, Arc<OnceCell<Bytes>>)> {
        let wanted = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let mut blocks = self.shared.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let in_order = wanted.start > 0 && blocks.has(self.number, wanted.start - 1);
        let cells = wanted
            .clone()
            .map(|block| (block, blocks.get(self.number, block).0))
            .collect();
        if in_order {
            let end = (wanted.end + AHEAD).min(self.pin.len.div_ceil(BLOCK));
            for block in wanted.end..end {
                if let (cell, true) = blocks.get(self.number, block) {
                    let (shared, key, pin) = (Arc::clone(&self.shared), self.key.clone(), self.pin.clone());
                    // Where it fails, whoever needs the block tries again.
                    self.shared.handle.spawn(async move {
                        let _ = cell.get_or_try_init(|| shared.block(&key, &pin, block)).await;
                    });
                }
            }
        }
        cells
    }
}

impl ReadAt for ObjectFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.pin.len)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        let end = end.filter(|end| *end <= self.pin.len);
        let range = offset..end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if range.is_empty() {
            return Ok(());
        }
        self.shared.expect_process()?;
        let cells = self.blocks(&range);
        if cells.iter().any(|(_, cell)| !cell.initialized()) {
            let filled = cells.iter().map(|(block, cell)| {
                cell.get_or_try_init(|| self.shared.block(&self.key, &self.pin, *block))
            });
            self.shared.wait(async { try_join_all(filled).await.map(drop) })?;
        }
        let mut rest = buf;
        for (block, cell) in &cells {
            let bytes = cell.get().ok_or(io::ErrorKind::UnexpectedEof)?;
            let start = usize::try_from(range.start.saturating_sub(block * BLOCK)).unwrap_or(usize::MAX);
            let there = bytes.get(start..).ok_or(io::ErrorKind::UnexpectedEof)?;
            let len = there.len().min(rest.len());
            let (here, behind) = rest.split_at_mut(len);
            here.copy_from_slice(&there[..len]);
            rest = behind;
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn remote(&self) -> Option<&dyn Remote> {
        Some(self)
    }
}

impl Remote for ObjectFile {
    fn part_len(&self, len: u64) -> u64 {
        // All connections get something to do, but no more requests are made for that than are worth their delay.
        let share = len / self.shared.connections as u64;
        self.shared.part_len.min(share.max(MIN_PART))
    }

    fn fetch(&self, parts: &[Range<u64>], sink: &Sink<'_>) -> io::Result<()> {
        self.shared.expect_process()?;
        if parts.iter().any(|part| part.end > self.pin.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(self.shared.connections).min(parts.len()).max(1);
        let at_once = self.shared.connections.div_ceil(threads);
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(Ok(()));
        // Each of them takes what arrives on its share of the connections, and opens it.
        let work = || {
            let read = self.shared.handle.block_on(async {
                let mut running = FuturesUnordered::new();
                loop {
                    while running.len() < at_once {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(part) = parts.get(index) else { break };
                        let sink = move |bytes: &[u8]| sink(index, bytes);
                        running.push(self.shared.read(&self.key, &self.pin, part.clone(), sink));
                    }
                    match running.next().await {
                        None => return Ok(()),
                        Some(done) => done?,
                    }
                }
            });
            if let Err(error) = read {
                // The others begin nothing more.
                next.store(parts.len(), Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.is_ok() {
                    *failed = Err(error);
                }
            }
        };
        thread::scope(|scope| {
            for index in 0..threads {
                let spawned = thread::Builder::new()
                    .name("modelseal-fetch".to_owned())
                    .spawn_scoped(scope, work);
                // With fewer threads it takes longer, with none it cannot be done.
                if let Err(error) = spawned
                    && index == 0
                {
                    return Err(error);
                }
            }
            Ok(())
        })?;
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ObjectFile {
    fn drop(&mut self) {
        // A lock that another thread held at a fork is never released in the child.
        if self.shared.expect_process().is_err() {
            return;
        }
        let blocks = self.shared.blocks.lock();
        blocks.unwrap_or_else(PoisonError::into_inner).forget(self.number);
    }
}

pub(super) fn replaced() -> io::Error {
    invalid("it was replaced after it was first looked at; begin again")
}

pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
