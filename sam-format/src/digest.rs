//! The digest of a stored file (FORMAT.md, section 3.3): in two levels, so that all cores take part in it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chunk_cipher::store::{ReadAt, Remote, Sink, WriteAt};
use chunk_cipher::{Engine, Error, Layout, Progress, Result};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use sha2::{Digest, Sha256};

use crate::content::layout;
use crate::header::{HEADER_LEN, Header, header_digest};

/// Bytes of the body, and of the tag table, that are digested on their own.
pub(crate) const SEGMENT_LEN: u64 = 1 << 20;

const LABEL: &[u8] = b"sam/1 file digest";

/// Bytes whose segments' digests are in memory at once.
const SPAN: u64 = 1024 * SEGMENT_LEN;

/// Bytes that are read at a time.
const BATCH: usize = 128 << 10;

/// Digests the stored file with this header, which takes no key.
///
/// # Errors
/// [`Error::Changed`] where the file has another length than its header calls for, [`Error::Read`] where reading
/// fails, [`Error::Cancelled`] where `progress` says so.
pub(crate) fn digest(
    engine: &Engine,
    file: &dyn ReadAt,
    header: &Header,
    progress: &dyn Progress,
) -> Result<[u8; 32]> {
    let parts = Parts::new(&layout(header), header.len)?;
    let stored_len = file.len().map_err(|source| Error::Read {
        offset: 0,
        len: 0,
        source,
    })?;
    if stored_len != parts.tags.end {
        return Err(Error::Changed);
    }
    let mut bytes = [0; HEADER_LEN];
    read(file, 0, &mut bytes)?;
    let mut digest = begin(&bytes);
    let digest_segment = |segment: Range<u64>| {
        let mut buf = vec![0; BATCH];
        let mut digest = Sha256::new();
        for offset in segment.clone().step_by(BATCH) {
            let part = &mut buf[..as_len(segment.end - offset).min(BATCH)];
            read(file, offset, part)?;
            digest.update(part);
        }
        // The tags are no plaintext.
        let done = if segment.end <= parts.body.end {
            segment.end - segment.start
        } else {
            0
        };
        if progress.advance(done) {
            Ok(digest.finalize())
        } else {
            Err(Error::Cancelled)
        }
    };
    for part in [&parts.body, &parts.tags] {
        let mut rest = part.clone();
        while !rest.is_empty() {
            let span = rest.start..rest.end.min(rest.start + SPAN);
            rest.start = span.end;
            let all = engine.pool().run(|| {
                let starts: Vec<u64> = span.clone().step_by(as_len(SEGMENT_LEN)).collect();
                let each = starts.into_par_iter().with_max_len(1).map(|start| {
                    let segment = start..span.end.min(start + SEGMENT_LEN);
                    digest_segment(segment)
                });
                each.collect::<Result<Vec<_>>>()
            })??;
            all.iter().for_each(|segment| digest.update(segment));
        }
    }
    Ok(digest.finalize().into())
}

/// Where body and tag table lie in a stored file.
struct Parts {
    body: Range<u64>,
    tags: Range<u64>,
}

impl Parts {
    fn new(layout: &Layout, len: u64) -> Result<Self> {
        let stored_len = layout.stored_len(len)?;
        let chunks = 0..layout.chunk_count(len);
        Ok(Self {
            body: layout.stored_range(&chunks, stored_len)?,
            tags: layout.tag_range(&chunks, stored_len)?,
        })
    }
}

/// Segment `n` of a part.
fn segment(part: &Range<u64>, n: u64) -> Range<u64> {
    let start = part.start + n * SEGMENT_LEN;
    start..part.end.min(start + SEGMENT_LEN)
}

/// What comes before the segments.
fn begin(header: &[u8; HEADER_LEN]) -> Sha256 {
    Sha256::new_with_prefix(LABEL).chain_update(header_digest(header))
}

fn read(file: &dyn ReadAt, offset: u64, buf: &mut [u8]) -> Result<()> {
    let len = buf.len();
    file.read_exact_at(offset, buf)
        .map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed,
            _ => Error::Read { offset, len, source },
        })
}

/// Digests body and tags of a file as they are written, or read: each segment of the body in order, by one thread at a
/// time. What comes again is passed over.
pub(crate) struct Digester {
    parts: Parts,
    state: Mutex<State>,
}

struct State {
    /// Segments of the body that have begun.
    begun: BTreeMap<u64, Begun>,
    /// Digests of those that are done, but not all in front of them.
    early: BTreeMap<u64, [u8; 32]>,
    /// The segment that comes next into the digest.
    next: u64,
    digest: Sha256,
    tags: InOrder,
}

#[derive(Default)]
struct Begun {
    digest: Sha256,
    len: u64,
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester").finish_non_exhaustive()
    }
}

impl Digester {
    /// A digester of a file with this header and layout, `len` bytes long.
    pub(crate) fn new(header: &[u8; HEADER_LEN], layout: &Layout, len: u64) -> Result<Self> {
        let parts = Parts::new(layout, len)?;
        Ok(Self {
            state: Mutex::new(State {
                begun: BTreeMap::new(),
                early: BTreeMap::new(),
                next: 0,
                digest: begin(header),
                tags: InOrder::new(parts.tags.start),
            }),
            parts,
        })
    }

    /// The digest, once all of the file was there.
    ///
    /// # Errors
    /// [`Error::Changed`] where it was not.
    pub(crate) fn finish(self) -> Result<[u8; 32]> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let count = (self.parts.body.end - self.parts.body.start).div_ceil(SEGMENT_LEN);
        if state.next != count || state.tags.at != self.parts.tags.end {
            return Err(Error::Changed);
        }
        let mut digest = state.digest;
        state
            .tags
            .finish()
            .iter()
            .for_each(|segment| digest.update(segment));
        Ok(digest.finalize().into())
    }

    /// Takes stored bytes of the body or of the tags.
    fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset >= self.parts.tags.start {
            self.state().tags.put(offset, bytes);
            return Ok(());
        }
        let mut offset = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let n = (offset - self.parts.body.start) / SEGMENT_LEN;
            let segment = segment(&self.parts.body, n);
            let (part, behind) = rest.split_at(rest.len().min(as_len(segment.end - offset)));
            self.put_part(n, &segment, offset, part)?;
            offset += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    /// Takes bytes of segment `n`.
    fn put_part(&self, n: u64, segment: &Range<u64>, offset: u64, part: &[u8]) -> io::Result<()> {
        let mut begun = {
            let mut state = self.state();
            if n < state.next || state.early.contains_key(&n) {
                return Ok(());
            }
            state.begun.remove(&n).unwrap_or_default()
        };
        let known = (segment.start + begun.len).checked_sub(offset);
        let known = known.ok_or_else(|| io::Error::other("a segment came out of order"))?;
        let new = part.get(as_len(known)..).unwrap_or_default();
        begun.digest.update(new);
        begun.len += new.len() as u64;
        let mut state = self.state();
        if begun.len < segment.end - segment.start {
            state.begun.insert(n, begun);
            return Ok(());
        }
        state.early.insert(n, begun.digest.finalize().into());
        let State {
            early, next, digest, ..
        } = &mut *state;
        while let Some(done) = early.remove(next) {
            digest.update(done);
            *next += 1;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Digests segments of bytes that come in any order.
struct InOrder {
    /// Up to where bytes were digested.
    at: u64,
    /// What came too early.
    early: BTreeMap<u64, Vec<u8>>,
    segment: Sha256,
    segment_end: u64,
    done: Vec<[u8; 32]>,
}

impl InOrder {
    fn new(start: u64) -> Self {
        Self {
            at: start,
            early: BTreeMap::new(),
            segment: Sha256::new(),
            segment_end: start + SEGMENT_LEN,
            done: Vec::new(),
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        if offset > self.at {
            self.early.insert(offset, bytes.to_vec());
            return;
        }
        self.digest(offset, bytes);
        while let Some(first) = self.early.first_entry()
            && *first.key() <= self.at
        {
            let (offset, bytes) = first.remove_entry();
            self.digest(offset, &bytes);
        }
    }

    /// Digests what of `bytes` was not yet.
    fn digest(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes.get(as_len(self.at - offset)..).unwrap_or_default();
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(rest.len().min(as_len(self.segment_end - self.at)));
            self.segment.update(part);
            self.at += part.len() as u64;
            if self.at == self.segment_end {
                self.done.push(self.segment.finalize_reset().into());
                self.segment_end += SEGMENT_LEN;
            }
            rest = behind;
        }
    }

    /// The digests of all segments, the last of which may be shorter.
    fn finish(mut self) -> Vec<[u8; 32]> {
        if self.at + SEGMENT_LEN > self.segment_end {
            self.done.push(self.segment.finalize().into());
        }
        self.done
    }
}

/// A length in memory; one that does not fit is longer than whatever is there.
fn as_len(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Writes to a file what it digests.
#[derive(Debug)]
pub(crate) struct DigestedSink<'a> {
    pub(crate) sink: &'a dyn WriteAt,
    pub(crate) digester: &'a Digester,
}

impl WriteAt for DigestedSink<'_> {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.digester.put(offset, buf)?;
        self.sink.write_all_at(offset, buf)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.sink.set_len(len)
    }
}

/// Digests what it reads from a file.
#[derive(Debug)]
pub(crate) struct DigestedSource<'a> {
    pub(crate) source: &'a dyn ReadAt,
    pub(crate) digester: &'a Digester,
}

impl ReadAt for DigestedSource<'_> {
    fn len(&self) -> io::Result<u64> {
        self.source.len()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.source.read_exact_at(offset, buf)?;
        self.digester.put(offset, buf)
    }

    fn remote(&self) -> Option<&dyn Remote> {
        self.source.remote().map(|_| self as &dyn Remote)
    }
}

impl Remote for DigestedSource<'_> {
    /// Whole segments, which are digested each in order.
    fn part_len(&self, len: u64) -> u64 {
        let remote = self.source.remote();
        let part = remote.map_or(SEGMENT_LEN, |remote| remote.part_len(len));
        part.max(1).next_multiple_of(SEGMENT_LEN)
    }

    fn fetch(&self, parts: &[Range<u64>], sink: &Sink<'_>) -> io::Result<()> {
        let remote = self.source.remote().ok_or(io::ErrorKind::Unsupported)?;
        let arrived: Vec<_> = parts.iter().map(|part| AtomicU64::new(part.start)).collect();
        remote.fetch(parts, &|index, bytes| {
            let at = arrived.get(index).ok_or(io::ErrorKind::InvalidInput)?;
            let offset = at.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.digester.put(offset, bytes)?;
            sink(index, bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use chunk_cipher::Pool;
    use proptest::prelude::*;

    use super::*;
    use crate::header::{ChunkLen, FileId};

    /// A stored file without meaning.
    #[derive(Debug)]
    struct Stored(Vec<u8>);

    impl ReadAt for Stored {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            let offset = as_len(offset);
            buf.copy_from_slice(&self.0[offset..offset + buf.len()]);
            Ok(())
        }
    }

    /// Tags of a bit more than one segment make the shortest such file a quarter of a GiB long, so the table is tried
    /// on its own.
    #[test]
    fn tables_are_digested_in_any_order() {
        let table: Vec<u8> = (0..2 * SEGMENT_LEN + 77).map(|n| (n % 251) as u8).collect();
        let expected: Vec<[u8; 32]> = table
            .chunks(as_len(SEGMENT_LEN))
            .map(|part| Sha256::digest(part).into())
            .collect();
        let pieces: Vec<_> = (1000..).step_by(40_000).zip(table.chunks(40_000)).collect();
        let orders: [&dyn Fn(usize) -> usize; 3] =
            [&|n| n, &|n| pieces.len() - 1 - n, &|n| n * 17 % pieces.len()];
        for order in orders {
            let mut digests = InOrder::new(1000);
            for n in 0..pieces.len() {
                let (offset, piece) = pieces[order(n)];
                digests.put(offset, piece);
                // Again, and a part of it again.
                digests.put(offset, piece);
                digests.put(offset + 5, &piece[5..30]);
            }
            assert_eq!(digests.at, 1000 + table.len() as u64);
            assert_eq!(digests.finish(), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn pieces_give_what_the_whole_gives(
            len in 0_u64..4_000_000,
            log in 12_u32..20,
            piece in 1_usize..300_000,
            backwards: bool,
        ) {
            let chunk_len = ChunkLen::new(1 << log).unwrap();
            let header = Header { len, chunk_len, id: FileId::from_bytes([3; 32]) };
            let layout = layout(&header);
            let mut stored = vec![9; as_len(layout.stored_len(len).unwrap())];
            stored[..HEADER_LEN].copy_from_slice(&header.to_bytes());
            let stored = Stored(stored);
            let engine = Engine::new(Pool::with_threads(2));
            let whole = digest(&engine, &stored, &header, &()).unwrap();

            let digester = Digester::new(&header.to_bytes(), &layout, len).unwrap();
            let source = DigestedSource { source: &stored, digester: &digester };
            let parts = Parts::new(&layout, len).unwrap();
            let mut segments: Vec<_> = [&parts.body, &parts.tags]
                .into_iter()
                .flat_map(|part| {
                    let starts = part.clone().step_by(as_len(SEGMENT_LEN));
                    starts.map(|start| start..part.end.min(start + SEGMENT_LEN))
                })
                .collect();
            if backwards {
                segments.reverse();
            }
            for segment in segments {
                for offset in segment.clone().step_by(piece) {
                    // Beyond the piece at hand nothing was promised; in front of it everything was seen before.
                    let start = segment.start.max(offset.saturating_sub(100));
                    let mut buf = vec![0; as_len(segment.end.min(offset + piece as u64) - start)];
                    source.read_exact_at(start, &mut buf).unwrap();
                }
            }
            prop_assert_eq!(digester.finish().unwrap(), whole);
        }
    }

    #[test]
    fn what_is_missing_or_out_of_order_is_an_error() {
        let header = Header {
            len: 3_000_000,
            chunk_len: ChunkLen::default(),
            id: FileId::from_bytes([3; 32]),
        };
        let new = || Digester::new(&header.to_bytes(), &layout(&header), header.len).unwrap();
        assert!(matches!(new().finish(), Err(Error::Changed)));
        let digester = new();
        digester.put(4096, &[0; 1000]).unwrap();
        assert!(digester.put(4096 + 1001, &[0; 1000]).is_err());
        // All of it but the tags.
        let digester = new();
        digester.put(4096, &vec![0; 3_000_000]).unwrap();
        assert!(matches!(digester.finish(), Err(Error::Changed)));
    }
}
