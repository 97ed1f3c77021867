//! Sealing and opening whole ranges of a file, on all cores, at the speed of memory.
//!
//! A range is halved until about [`GROUP`] bytes are left, which one thread then handles on its own: it borrows
//! the stored bytes from the page cache where the storage offers that ([`ReadAt::windows`]), or copies
//! [`BATCH`] bytes at a time into scratch memory of its own, and opens every chunk straight into the
//! destination. What is far away ([`ReadAt::remote`]) is opened as it arrives.

use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::pool::Pool;
use crate::prefetch;
use crate::random;
use crate::scratch::{self, Scratch};
use crate::store::{ReadAt, Windows, WriteAt};

mod remote;
mod scan;

pub use scan::Scan;

/// Plaintext bytes that one thread handles at a time. With nonces and tags they fit the 256 pages of a window
/// that is pinned by a pipe of 1 MiB, the largest that every process may have.
const GROUP: u64 = 960 << 10;

/// Plaintext bytes of a whole file that are worked on before what comes behind them is begun.
const SPAN: u64 = 1 << 30;

/// Stored bytes that are copied at a time: they stay in the second-level cache until they are opened. Reading them
/// into the destination and opening them in place, which some layouts would allow, is no faster.
const BATCH: u64 = 128 << 10;

/// Ranges up to this many bytes are handled by the calling thread: waking others takes longer.
const SERIAL: u64 = 256 << 10;

/// How a format seals and opens one chunk of one file.
pub trait Codec: Send + Sync {
    /// Where the chunks lie.
    fn layout(&self) -> Layout;

    /// Random bytes that sealing a chunk takes (its nonce); 0 where nonces are not random.
    fn nonce_len(&self) -> usize;

    /// Bytes of plaintext that one thread seals, unseals or scans in order, where whoever reads or writes the stored
    /// bytes counts on that: a multiple of the layout's chunk length, or a divisor of it.
    fn segment_len(&self) -> u64 {
        1
    }

    /// Opens the stored bytes of chunk `index` into `plain`, which is the layout's overhead shorter. `tag` is what the
    /// table of tags has for it, empty where the layout has none.
    ///
    /// # Errors
    /// [`Error::Chunk`] where the tag does not verify; `plain` is all zero then.
    fn open_chunk(&self, index: u64, stored: &[u8], tag: &[u8], plain: &mut [u8]) -> Result<()>;

    /// Seals `plain` as chunk `index` under a fresh random `nonce` into `stored`, which is the layout's overhead
    /// longer, and into its `tag` in the table of tags.
    ///
    /// # Errors
    /// Where a length does not fit.
    fn seal_chunk(
        &self,
        index: u64,
        nonce: &[u8],
        plain: &[u8],
        stored: &mut [u8],
        tag: &mut [u8],
    ) -> Result<()>;

    /// Whether these stored bytes are a hole: a chunk that nobody ever wrote and that reads as zeros.
    fn is_hole(&self, stored: &[u8]) -> bool {
        let _ = stored;
        false
    }
}

/// A sealed file: where its bytes are, how long it is, and how its chunks open.
#[derive(Clone, Copy)]
pub struct Sealed<'a> {
    source: &'a dyn ReadAt,
    codec: &'a dyn Codec,
    layout: Layout,
    stored_len: u64,
    len: u64,
}

impl<'a> Sealed<'a> {
    /// The sealed file in the first `stored_len` bytes of `source`.
    #[must_use]
    pub fn new(source: &'a dyn ReadAt, codec: &'a dyn Codec, stored_len: u64) -> Self {
        // No file is longer, whatever its storage says; up to here no arithmetic overflows.
        let stored_len = stored_len.min(i64::MAX as u64);
        let layout = codec.layout();
        Self {
            source,
            codec,
            layout,
            stored_len,
            len: layout.plain_len(stored_len),
        }
    }

    /// Length of the plaintext in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the plaintext is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl std::fmt::Debug for Sealed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed")
            .field("stored_len", &self.stored_len)
            .finish_non_exhaustive()
    }
}

/// Hears of work as it is done, and may call it off.
pub trait Progress: Sync {
    /// `bytes` more bytes of plaintext are done. Returns whether to go on.
    fn advance(&self, bytes: u64) -> bool;
}

/// Nobody listens.
impl Progress for () {
    fn advance(&self, _: u64) -> bool {
        true
    }
}

/// Passes on that the work is called off, but not how it gets on.
#[allow(missing_debug_implementations)]
pub struct Uncounted<'a>(pub &'a dyn Progress);

impl Progress for Uncounted<'_> {
    fn advance(&self, _: u64) -> bool {
        self.0.advance(0)
    }
}

/// Seals and opens ranges on a pool of threads. Holds no other state.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    pool: Pool,
}

impl Engine {
    /// An engine on this pool.
    #[must_use]
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// The pool.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Fills `out` with the plaintext from `offset` on.
    ///
    /// Every tag in the range was verified when this returns.
    ///
    /// # Errors
    /// [`Error::Range`] where the range is not within the file, [`Error::Chunk`] where a chunk does not verify,
    /// [`Error::Changed`] where the file has become shorter, [`Error::Read`] where reading fails. `out` is all
    /// zero then.
    pub fn read_into(&self, file: Sealed<'_>, offset: u64, out: &mut [u8]) -> Result<()> {
        let out = Unverified(out);
        self.try_read_into(file, offset, out.0)?;
        mem::forget(out);
        Ok(())
    }

    fn try_read_into(&self, file: Sealed<'_>, offset: u64, out: &mut [u8]) -> Result<()> {
        let len = out.len() as u64;
        let range = checked_range(offset, len, file.len())?;
        // Nothing is read, but where it is all of an empty file that has a chunk.
        if len == 0 && !file.is_empty() {
            return Ok(());
        }
        if len <= SERIAL {
            return open_range(file, None, offset, out);
        }
        if let Some(remote) = file.source.remote() {
            return remote::read_into(file, remote, range, out);
        }
        let windows = file.source.windows();
        let windows = windows.as_deref();
        let failed = AtomicBool::new(false);
        let leaf = |range: Range<u64>, out: &mut [u8]| open_range(file, windows, range.start, out);
        self.pool
            .run(|| for_groups(range, group_len(&file.layout, len), out, &failed, &leaf))?
    }

    /// Writes the whole plaintext to `sink`, batches of zeros by [`WriteAt::write_zeros_at`].
    ///
    /// What was written must be thrown away after an error.
    ///
    /// # Errors
    /// As [`Engine::read_into`]; [`Error::Write`] where writing fails, [`Error::Cancelled`] where `progress` says
    /// so.
    pub fn unseal(&self, file: Sealed<'_>, sink: &dyn WriteAt, progress: &dyn Progress) -> Result<()> {
        if let Some(remote) = file.source.remote()
            && file.len > SERIAL
        {
            return self.unseal_remote(file, remote, sink, progress);
        }
        self.each_group(file.len, file.codec, progress, &|range| {
            for batch in batches(&file.layout, &range) {
                let mut plain = scratch::plaintext(length(&batch)?);
                open_range(file, None, batch.start, &mut plain)?;
                if is_zero(&plain) {
                    write_zeros(sink, batch.start, plain.len())?;
                } else {
                    write(sink, batch.start, &plain)?;
                }
            }
            Ok(())
        })
    }

    /// Seals `len` bytes of plaintext from `source` and writes the chunks and their tags to `sink`; not the header,
    /// which is the format's.
    ///
    /// Within each [segment](Codec::segment_len) chunks are written in order by one thread, and nothing is written
    /// before all that lies a GiB and more in front of it. What was written must be thrown away after an error.
    ///
    /// # Errors
    /// [`Error::Changed`] where the source ends early, [`Error::Read`] and [`Error::Write`] where reading or writing
    /// fails, [`Error::Cancelled`] where `progress` says so.
    pub fn seal(
        &self,
        source: &dyn ReadAt,
        len: u64,
        codec: &dyn Codec,
        sink: &dyn WriteAt,
        progress: &dyn Progress,
    ) -> Result<()> {
        let layout = codec.layout();
        let stored_len = layout.stored_len(len)?;
        sink.set_len(stored_len).map_err(|source| Error::Write {
            offset: stored_len,
            len: 0,
            source,
        })?;
        self.each_group(len, codec, progress, &|range| {
            let chunks = layout.chunks(&range);
            let tag_range = layout.tag_range(&chunks, stored_len)?;
            let mut tags = Tags::new(&layout, &chunks)?;
            for batch in batches(&layout, &range) {
                let chunks = layout.chunks(&batch);
                let stored_range = layout.stored_range(&chunks, stored_len)?;
                let mut plain = scratch::plaintext(length(&batch)?);
                let mut stored = scratch::ciphertext(length(&stored_range)?);
                read(source, batch.start, &mut plain)?;
                seal_chunks(codec, chunks, &plain, &mut stored, &mut tags)?;
                write(sink, stored_range.start, &stored)?;
            }
            if tags.bytes.is_empty() {
                return Ok(());
            }
            write(sink, tag_range.start, &tags.bytes)
        })
    }

    /// Calls `work` with every group of a plaintext of `len` bytes, on all threads.
    fn each_group(
        &self,
        len: u64,
        codec: &dyn Codec,
        progress: &dyn Progress,
        work: &(dyn Fn(Range<u64>) -> Result<()> + Sync),
    ) -> Result<()> {
        let layout = codec.layout();
        let failed = AtomicBool::new(false);
        let leaf = |range: Range<u64>, (): ()| {
            work(range.clone())?;
            if progress.advance(range.end - range.start) {
                Ok(())
            } else {
                Err(Error::Cancelled)
            }
        };
        if layout.chunk_count(len) == 0 {
            return Ok(());
        }
        if len <= SERIAL {
            return leaf(0..len, ());
        }
        self.pool.run(|| {
            let group = group_len(&layout, len).next_multiple_of(codec.segment_len());
            let span = SPAN.next_multiple_of(group);
            let mut start = 0;
            while start < len {
                let end = len.min(start + span);
                for_groups(start..end, group, (), &failed, &leaf)?;
                start = end;
            }
            Ok(())
        })?
    }
}

/// A destination that is zeroed when this is dropped: also where a codec or a source panics.
struct Unverified<'a>(&'a mut [u8]);

impl Drop for Unverified<'_> {
    fn drop(&mut self) {
        self.0.fill(0);
    }
}

/// The range of `len` bytes at `offset`, where it lies within a file of `file_len` bytes.
fn checked_range(offset: u64, len: u64, file_len: u64) -> Result<Range<u64>> {
    match offset.checked_add(len) {
        Some(end) if end <= file_len => Ok(offset..end),
        _ => Err(Error::Range {
            offset,
            len,
            file_len,
        }),
    }
}

/// Plaintext bytes a group: whole chunks, fewer where that keeps all threads busy.
fn group_len(layout: &Layout, len: u64) -> u64 {
    let threads = rayon::current_num_threads() as u64;
    let fair = len.div_ceil(threads.max(1)).clamp(BATCH, GROUP);
    fair.next_multiple_of(layout.chunk_len())
}

/// Something that is divided along with the range it belongs to.
trait Divide: Send + Sized {
    fn divide(self, at: u64) -> Result<(Self, Self)>;
}

impl Divide for () {
    fn divide(self, _: u64) -> Result<(Self, Self)> {
        Ok(((), ()))
    }
}

impl Divide for &mut [u8] {
    fn divide(self, at: u64) -> Result<(Self, Self)> {
        usize::try_from(at)
            .ok()
            .and_then(|at| self.split_at_mut_checked(at))
            .ok_or(Error::TooLong)
    }
}

/// Halves `range` at multiples of `group` until one group is left, and calls `leaf` with that. After a failure
/// no further leaf is started; the failure in front is returned.
fn for_groups<D: Divide>(
    range: Range<u64>,
    group: u64,
    data: D,
    failed: &AtomicBool,
    leaf: &(impl Fn(Range<u64>, D) -> Result<()> + Sync),
) -> Result<()> {
    if failed.load(Ordering::Relaxed) {
        return Ok(());
    }
    let groups = range.start / group..range.end.div_ceil(group);
    if groups.end - groups.start <= 1 {
        let result = leaf(range, data);
        if result.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        return result;
    }
    let middle = (groups.start + (groups.end - groups.start) / 2) * group;
    let (left, right) = data.divide(middle - range.start)?;
    let (left, right) = rayon::join(
        || for_groups(range.start..middle, group, left, failed, leaf),
        || for_groups(middle..range.end, group, right, failed, leaf),
    );
    left.and(right)
}

/// The parts of the plaintext bytes `range` of which each is stored in about [`BATCH`] bytes, in whole chunks. An empty
/// range is a part of its own.
fn batches(layout: &Layout, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let chunk_len = layout.chunk_len();
    let step = (BATCH / layout.stored_chunk_len()).max(1) * chunk_len;
    let end = range.end;
    let mut next = Some(range.start);
    std::iter::from_fn(move || {
        let start = next?;
        let part = start..(start / chunk_len * chunk_len + step).min(end);
        next = Some(part.end).filter(|next| *next < end);
        Some(part)
    })
}

/// The tags of some chunks, as they lie in the table of tags; nothing where the layout has none.
struct Tags {
    first: u64,
    len: usize,
    bytes: Scratch,
}

impl Tags {
    /// Tags for `chunks`, not filled in yet.
    fn new(layout: &Layout, chunks: &Range<u64>) -> Result<Self> {
        let len = usize::try_from(layout.tag_len()).map_err(|_| Error::TooLong)?;
        let all = length(chunks)?.checked_mul(len).ok_or(Error::TooLong)?;
        Ok(Self {
            first: chunks.start,
            len,
            bytes: scratch::tags(all),
        })
    }

    /// The tags of `chunks`.
    fn read(file: Sealed<'_>, chunks: &Range<u64>) -> Result<Self> {
        let mut tags = Self::new(&file.layout, chunks)?;
        if tags.len > 0 {
            let range = file.layout.tag_range(chunks, file.stored_len)?;
            read(file.source, range.start, &mut tags.bytes)?;
        }
        Ok(tags)
    }

    /// Where the tag of chunk `index` lies.
    fn place(&self, index: u64) -> Result<Range<usize>> {
        let start = length(&(self.first..index))? * self.len;
        Ok(start..start + self.len)
    }
}

/// Opens the plaintext from `offset` on into `out`, on this thread.
fn open_range(file: Sealed<'_>, windows: Option<&dyn Windows>, offset: u64, out: &mut [u8]) -> Result<()> {
    let chunk_len = file.layout.chunk_len();
    let range = offset..offset + out.len() as u64;
    let chunks = file.layout.chunks(&range);
    let tags = Tags::read(file, &chunks)?;
    let mut open = |chunks: Range<u64>, stored: &[u8]| {
        let start = (chunks.start * chunk_len).max(range.start);
        let end = (chunks.end * chunk_len).min(range.end);
        let out = &mut out[length(&(range.start..start))?..length(&(range.start..end))?];
        open_chunks(file, chunks, stored, &tags, start, out)
    };
    if windows.is_some() {
        return with_stored(file, windows, chunks, &mut open);
    }
    for batch in batches(&file.layout, &range) {
        with_stored(file, None, file.layout.chunks(&batch), &mut open)?;
    }
    Ok(())
}

/// Calls `work` with the stored bytes of `chunks`: borrowed as far as that works, the rest copied.
///
/// `work` may be called more than once with the same chunks; the last call counts.
fn with_stored(
    file: Sealed<'_>,
    windows: Option<&dyn Windows>,
    chunks: Range<u64>,
    mut work: impl FnMut(Range<u64>, &[u8]) -> Result<()>,
) -> Result<()> {
    let layout = file.layout;
    let mut borrowed = chunks.start..chunks.start;
    if let Some(windows) = windows {
        let stored = layout.stored_range(&chunks, file.stored_len)?;
        let mut result = Ok(());
        let mut part = chunks.start..chunks.start;
        let still = windows.with(stored, &mut |window, bytes| {
            part = layout.chunks_within(&window, file.stored_len);
            result = layout.stored_range(&part, file.stored_len).and_then(|inner| {
                let inner = length(&(window.start..inner.start))?..length(&(window.start..inner.end))?;
                if part.is_empty() {
                    Ok(())
                } else {
                    work(part.clone(), &bytes[inner])
                }
            });
        });
        if still {
            result?;
            if !part.is_empty() {
                borrowed = part;
            }
        }
    }
    for rest in [chunks.start..borrowed.start, borrowed.end..chunks.end] {
        copy_stored(file, rest, &mut work)?;
    }
    Ok(())
}

/// Calls `work` with copies of the stored bytes of `chunks`, [`BATCH`] at a time.
fn copy_stored(
    file: Sealed<'_>,
    chunks: Range<u64>,
    mut work: impl FnMut(Range<u64>, &[u8]) -> Result<()>,
) -> Result<()> {
    let layout = file.layout;
    let step = (BATCH / layout.stored_chunk_len()).max(1);
    let mut start = chunks.start;
    while start < chunks.end {
        let batch = start..chunks.end.min(start + step);
        let range = layout.stored_range(&batch, file.stored_len)?;
        let mut stored = scratch::ciphertext(length(&range)?);
        read(file.source, range.start, &mut stored)?;
        work(batch.clone(), &stored)?;
        start = batch.end;
    }
    Ok(())
}

/// Opens the stored bytes of `chunks` into `out`, which starts at plaintext `offset` and may begin and end within a
/// chunk.
fn open_chunks(
    file: Sealed<'_>,
    chunks: Range<u64>,
    stored: &[u8],
    tags: &Tags,
    offset: u64,
    out: &mut [u8],
) -> Result<()> {
    let chunk_len = file.layout.chunk_len();
    let stride = stride(&file.layout)?;
    let mut stored = stored;
    let mut rest = out;
    let mut at = offset;
    for index in chunks {
        let (this, others) = stored.split_at(stride.min(stored.len()));
        let tag = &tags.bytes[tags.place(index)?];
        let chunk = index * chunk_len..file.len.min((index + 1) * chunk_len);
        let want = length(&(at..chunk.end))?.min(rest.len());
        let (here, behind) = rest.split_at_mut(want);
        prefetch::for_write(behind);
        if at == chunk.start && want == length(&chunk)? {
            open_one(file, index, this, tag, here)?;
        } else {
            let mut whole = scratch::plaintext(length(&chunk)?);
            open_one(file, index, this, tag, &mut whole)?;
            let from = length(&(chunk.start..at))?;
            here.copy_from_slice(&whole[from..from + want]);
        }
        at += want as u64;
        (stored, rest) = (others, behind);
    }
    // Every chunk of a file has stored bytes, so nothing is left to fill.
    if rest.is_empty() {
        Ok(())
    } else {
        Err(Error::Changed)
    }
}

/// Opens one chunk; one whose stored bytes cannot hold this much plaintext is damaged.
fn open_one(file: Sealed<'_>, index: u64, stored: &[u8], tag: &[u8], plain: &mut [u8]) -> Result<()> {
    if stored.len() as u64 != plain.len() as u64 + file.layout.overhead() {
        plain.fill(0);
        return Err(Error::Chunk { chunk: index });
    }
    file.codec.open_chunk(index, stored, tag, plain)
}

/// Seals `plain` as `chunks` into `stored` and `tags`, under fresh random nonces.
fn seal_chunks(
    codec: &dyn Codec,
    chunks: Range<u64>,
    plain: &[u8],
    stored: &mut [u8],
    tags: &mut Tags,
) -> Result<()> {
    let layout = codec.layout();
    let (chunk_len, stride) = (chunk_len(&layout)?, stride(&layout)?);
    let nonce_len = codec.nonce_len();
    // One call to the system for all chunks of the batch.
    let mut nonces = scratch::nonces(nonce_len * length(&chunks)?);
    if nonce_len > 0 {
        random::fill(&mut nonces)?;
    }
    let (mut plain, mut stored, mut nonces) = (plain, stored, &nonces[..]);
    for index in chunks {
        let (nonce, other_nonces) = nonces.split_at(nonce_len);
        let (this, others) = plain.split_at(chunk_len.min(plain.len()));
        let (sealed, behind) = stored.split_at_mut(stride.min(stored.len()));
        let place = tags.place(index)?;
        codec.seal_chunk(index, nonce, this, sealed, &mut tags.bytes[place])?;
        (plain, stored, nonces) = (others, behind, other_nonces);
    }
    Ok(())
}

fn chunk_len(layout: &Layout) -> Result<usize> {
    usize::try_from(layout.chunk_len()).map_err(|_| Error::TooLong)
}

fn stride(layout: &Layout) -> Result<usize> {
    usize::try_from(layout.stored_chunk_len()).map_err(|_| Error::TooLong)
}

fn length(range: &Range<u64>) -> Result<usize> {
    usize::try_from(range.end - range.start).map_err(|_| Error::TooLong)
}

fn read(source: &dyn ReadAt, offset: u64, buf: &mut Scratch) -> Result<()> {
    let len = buf.len();
    source
        .read_exact_at(offset, buf)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Changed,
            _ => Error::Read {
                offset,
                len,
                source: error,
            },
        })
}

fn write(sink: &dyn WriteAt, offset: u64, buf: &[u8]) -> Result<()> {
    sink.write_all_at(offset, buf).map_err(|source| Error::Write {
        offset,
        len: buf.len(),
        source,
    })
}

fn write_zeros(sink: &dyn WriteAt, offset: u64, len: usize) -> Result<()> {
    sink.write_zeros_at(offset, len)
        .map_err(|source| Error::Write { offset, len, source })
}

fn is_zero(bytes: &[u8]) -> bool {
    // Compares without a branch a byte; the first bytes settle almost every case.
    let (head, rest) = bytes.split_at(bytes.len().min(64));
    head.iter().all(|byte| *byte == 0)
        && rest
            .chunks(4096)
            .all(|part| part.iter().fold(0, |a, b| a | b) == 0)
}
