//! The digest of a stored file: in two levels, so that all cores take part in it; and its holes, on the way.

use std::ops::Range;

use chunk_cipher::store::ReadAt;
use chunk_cipher::{Error, Pool, Progress, Result};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use sha2::{Digest, Sha256};

/// Stored bytes that are digested on their own.
pub const SEGMENT_LEN: u64 = 1 << 20;

const LABEL: &[u8] = b"modelseal/1 stored file digest";
const LABEL_TARGET: &[u8] = b"modelseal/1 stored target digest";

/// Segments whose digests are in memory at once.
const SPAN: u64 = 1024;

/// Where the blocks of a stored file lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Length of the header in front of them, in bytes.
    pub header_len: u64,
    /// Length of a full block as it is stored, in bytes; at most [`SEGMENT_LEN`].
    pub stored_len: u64,
}

/// What was found in a stored file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// `SHA-256(label | SHA-256(segment) ...)` of segments of [`SEGMENT_LEN`] bytes.
    pub digest: [u8; 32],
    /// The full blocks that are all zero: ascending ranges of their indices that do not touch.
    pub holes: Vec<Range<u64>>,
}

/// Digests the first `len` bytes of `file`, and looks for holes where it has `blocks`.
///
/// # Errors
/// [`Error::Changed`] where the file has become shorter, [`Error::Read`] where reading fails, [`Error::Cancelled`] where
/// `progress` says so.
pub fn scan(
    pool: &Pool,
    file: &dyn ReadAt,
    len: u64,
    blocks: Option<Blocks>,
    progress: &dyn Progress,
) -> Result<Scanned> {
    let overlap = blocks.map_or(0, |blocks| blocks.stored_len);
    let buffer_len = usize::try_from(SEGMENT_LEN + overlap).map_err(|_| Error::TooLong)?;
    let one = |buffer: &mut Vec<u8>, index: u64| {
        buffer.resize(buffer_len, 0);
        let segment = index * SEGMENT_LEN..len.min((index + 1) * SEGMENT_LEN);
        // With the rest of the last block that starts in it.
        let read = segment.start..len.min(segment.end + overlap);
        let buffer = &mut buffer[..as_len(&read)];
        fill(file, read.start, buffer)?;
        let digest = Sha256::digest(&buffer[..as_len(&segment)]);
        let holes = blocks.map_or_else(Vec::new, |blocks| holes(buffer, &segment, blocks));
        if progress.advance(as_len(&segment) as u64) {
            Ok((digest, holes))
        } else {
            Err(Error::Cancelled)
        }
    };
    let mut digest = Sha256::new_with_prefix(LABEL);
    let mut found = Vec::new();
    let segments = len.div_ceil(SEGMENT_LEN);
    let mut next = 0;
    while next < segments {
        let span = next..segments.min(next + SPAN);
        next = span.end;
        let all: Vec<_> = if span.end - span.start == 1 {
            // Waking other threads takes longer than most of these.
            vec![one(&mut Vec::new(), span.start)?]
        } else {
            pool.run(|| {
                let each = span.into_par_iter().map_init(Vec::new, one);
                each.collect::<Result<_>>()
            })??
        };
        for (segment, holes) in all {
            digest.update(segment);
            holes.into_iter().for_each(|range| add(&mut found, range));
        }
    }
    Ok(Scanned {
        digest: digest.finalize().into(),
        holes: found,
    })
}

/// The digest of a stored file that is all in memory.
#[must_use]
pub fn short_digest(content: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new_with_prefix(LABEL);
    for segment in content.chunks(as_len(&(0..SEGMENT_LEN))) {
        digest.update(Sha256::digest(segment));
    }
    digest.finalize().into()
}

/// The digest of a symbolic link's stored target.
#[must_use]
pub fn target_digest(target: &[u8]) -> [u8; 32] {
    Sha256::new_with_prefix(LABEL_TARGET)
        .chain_update(target)
        .finalize()
        .into()
}

/// The holes that start in `segment`, whose bytes `buffer` begins with.
fn holes(buffer: &[u8], segment: &Range<u64>, blocks: Blocks) -> Vec<Range<u64>> {
    let first = segment
        .start
        .saturating_sub(blocks.header_len)
        .div_ceil(blocks.stored_len);
    let mut found = Vec::new();
    for index in first.. {
        let start = blocks.header_len + index * blocks.stored_len;
        if start >= segment.end {
            break;
        }
        let block = as_len(&(segment.start..start))..as_len(&(segment.start..start + blocks.stored_len));
        match buffer.get(block) {
            Some(block) if is_zero(block) => add(&mut found, index..index + 1),
            // The last block need not be full.
            Some(_) | None => {}
        }
    }
    found
}

/// Adds a range behind the others.
fn add(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // The nonce settles nearly every case.
    let (head, rest) = bytes.split_at(bytes.len().min(16));
    head.iter().all(|byte| *byte == 0) && rest.iter().fold(0, |all, byte| all | byte) == 0
}

fn fill(file: &dyn ReadAt, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let len = buffer.len();
    file.read_exact_at(offset, buffer)
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Changed,
            _ => Error::Read { offset, len, source },
        })
}

/// The length of a range that lies within one buffer.
fn as_len(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).expect("no longer than a segment and a block")
}
