//! Opening what is far away as it arrives: many requests are under way at once, and each chunk is opened as soon as
//! the last of its bytes is there.

use std::io;
use std::mem;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::{Engine, Progress, Sealed, Tags, length, open_chunks, write};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::store::{Remote, WriteAt};

/// Tags that are fetched at a time, in advance: those of 16 GiB in chunks of 64 KiB.
const TAGS: u64 = 4 << 20;

/// Plaintext bytes that are in memory at a time where they go on to a file.
const WINDOW: u64 = 64 << 20;

/// Fills `out` with the plaintext `range`.
pub(super) fn read_into(
    file: Sealed<'_>,
    remote: &dyn Remote,
    range: Range<u64>,
    out: &mut [u8],
) -> Result<()> {
    let layout = file.layout;
    let span = (TAGS / layout.tag_len().max(1)).saturating_mul(layout.chunk_len());
    let mut rest = out;
    for span in aligned(range, span) {
        let (here, behind) = rest.split_at_mut(length(&span)?);
        read_span(file, remote, span, here)?;
        rest = behind;
    }
    Ok(())
}

fn read_span(file: Sealed<'_>, remote: &dyn Remote, range: Range<u64>, out: &mut [u8]) -> Result<()> {
    let layout = file.layout;
    let tags = Tags::read(file, &layout.chunks(&range))?;
    let len = range.end - range.start;
    let step = (remote.part_len(len) / layout.stored_chunk_len())
        .max(1)
        .saturating_mul(layout.chunk_len());
    let mut parts = Vec::new();
    let mut stored = Vec::new();
    let mut rest = out;
    for plain in aligned(range, step) {
        let (here, behind) = rest.split_at_mut(length(&plain)?);
        let chunks = layout.chunks(&plain);
        stored.push(layout.stored_range(&chunks, file.stored_len)?);
        parts.push(Mutex::new(Part {
            file,
            tags: &tags,
            chunks,
            at: plain.start,
            out: here,
            begun: Vec::new(),
        }));
        rest = behind;
    }
    let failed = Mutex::new(None);
    let fetched = remote.fetch(&stored, &|index, bytes| {
        let part = parts.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        part.take(bytes).map_err(|error| {
            failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(error);
            io::ErrorKind::InvalidData.into()
        })
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    fetched.map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => Error::Changed,
        _ => Error::Read {
            offset: stored.first().map_or(0, |first| first.start),
            len: stored.iter().map(|part| length(part).unwrap_or(usize::MAX)).sum(),
            source,
        },
    })?;
    // Whatever the storage says that it did: every byte was opened.
    let whole = parts
        .into_iter()
        .all(|part| part.into_inner().is_ok_and(|part| part.chunks.is_empty()));
    if whole { Ok(()) } else { Err(Error::Changed) }
}

/// The parts of `range` that multiples of `step` divide it into.
fn aligned(range: Range<u64>, step: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = (start / step + 1).saturating_mul(step).min(range.end);
        let part = start..end;
        start = end;
        (!part.is_empty()).then_some(part)
    })
}

/// A part of a read, as far as it has arrived.
struct Part<'a> {
    file: Sealed<'a>,
    tags: &'a Tags,
    /// The chunks that are not open yet.
    chunks: Range<u64>,
    /// Where their plaintext begins that is wanted, and where it goes.
    at: u64,
    out: &'a mut [u8],
    /// What has arrived of the first of them, where its rest has not.
    begun: Vec<u8>,
}

impl Part<'_> {
    /// Opens all chunks that are complete with `bytes`, which come next.
    fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        let layout = self.file.layout;
        if !self.begun.is_empty() {
            let first = self.chunks.start..self.chunks.start + 1;
            let len = length(&layout.stored_range(&first, self.file.stored_len)?)?;
            let more = bytes.len().min(len - self.begun.len());
            self.begun.extend_from_slice(&bytes[..more]);
            bytes = &bytes[more..];
            if self.begun.len() < len {
                return Ok(());
            }
            let mut begun = mem::take(&mut self.begun);
            self.open(first.end, &begun)?;
            // A part that is done keeps nothing: there may be many.
            if !self.chunks.is_empty() {
                begun.clear();
                self.begun = begun;
            }
        }
        let mut complete = self.chunks.start;
        let mut used = 0;
        while complete < self.chunks.end {
            let stored = layout.stored_range(&(complete..complete + 1), self.file.stored_len)?;
            let next = used + length(&stored)?;
            if next > bytes.len() {
                break;
            }
            (complete, used) = (complete + 1, next);
        }
        if complete > self.chunks.start {
            self.open(complete, &bytes[..used])?;
        }
        let rest = &bytes[used..];
        if rest.is_empty() {
            return Ok(());
        }
        if self.chunks.is_empty() {
            // More than was asked for.
            return Err(Error::Changed);
        }
        self.begun.extend_from_slice(rest);
        Ok(())
    }

    /// Opens the chunks before `end`, all of whose stored bytes are `stored`.
    fn open(&mut self, end: u64, stored: &[u8]) -> Result<()> {
        let chunk_len = self.file.layout.chunk_len();
        let chunks = self.chunks.start..end;
        let plain_end = end.saturating_mul(chunk_len).min(self.at + self.out.len() as u64);
        let (here, behind) = mem::take(&mut self.out).split_at_mut(length(&(self.at..plain_end))?);
        self.out = behind;
        open_chunks(self.file, chunks, stored, self.tags, self.at, here)?;
        (self.chunks.start, self.at) = (end, plain_end);
        Ok(())
    }
}

impl Engine {
    /// Writes the whole plaintext of what is far away to `sink`, [`WINDOW`] bytes at a time.
    pub(super) fn unseal_remote(
        &self,
        file: Sealed<'_>,
        remote: &dyn Remote,
        sink: &dyn WriteAt,
        progress: &dyn Progress,
    ) -> Result<()> {
        let step = WINDOW.next_multiple_of(file.layout.chunk_len());
        let window = usize::try_from(step.min(file.len)).map_err(|_| Error::TooLong)?;
        let mut window = Wiped(Buffer::new(window).map_err(|_| Error::OutOfMemory)?);
        for range in aligned(0..file.len, step) {
            let plain = &mut window.0[..length(&range)?];
            read_into(file, remote, range.clone(), plain)?;
            let plain = &*plain;
            self.each_group(range.end - range.start, file.codec, &(), &|part| {
                let bytes = &plain[length(&(0..part.start))?..length(&(0..part.end))?];
                write(sink, range.start + part.start, bytes)
            })?;
            if !progress.advance(range.end - range.start) {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }
}

/// Plaintext on its way.
struct Wiped(Buffer);

impl Drop for Wiped {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut *self.0);
    }
}
