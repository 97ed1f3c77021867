//! Where the chunks of a file lie: checked arithmetic between plaintext offsets and stored bytes, no I/O.

use std::ops::Range;

use crate::error::{Error, Result};

/// Where the chunks of a file are stored.
///
/// There are two kinds. [`Layout::new`]: a header, then the stored chunks one after another, each `overhead` bytes
/// (nonce and tag) longer than its plaintext; an empty plaintext is an empty file, without a header.
/// [`Layout::contiguous`]: a header, then all chunks just as long as their plaintext, then a table of their tags; an
/// empty plaintext has a header and one chunk of no bytes. In both, the plaintext of every chunk but the last is
/// `chunk_len` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    header_len: u64,
    chunk_len: u64,
    overhead: u64,
    /// Bytes of each chunk in the table behind the last one.
    tag_len: u64,
}

/// Longest plaintext that a [`Layout`] describes: 2^62 bytes. Keeps every stored offset within an `i64`.
pub const MAX_PLAIN_LEN: u64 = 1 << 62;

impl Layout {
    /// A layout whose chunks hold their nonces and tags, with these lengths in bytes.
    ///
    /// # Panics
    /// Where `chunk_len` is 0, or `overhead` is larger than it.
    #[must_use]
    pub const fn new(header_len: u32, chunk_len: u32, overhead: u32) -> Self {
        assert!(
            chunk_len > 0 && overhead <= chunk_len,
            "chunks hold more plaintext than overhead"
        );
        Self {
            header_len: header_len as u64,
            chunk_len: chunk_len as u64,
            overhead: overhead as u64,
            tag_len: 0,
        }
    }

    /// A layout whose tags lie in a table behind the chunks, with these lengths in bytes.
    ///
    /// # Panics
    /// Where `tag_len` is 0, or larger than `chunk_len`.
    #[must_use]
    pub const fn contiguous(header_len: u32, chunk_len: u32, tag_len: u32) -> Self {
        assert!(
            tag_len > 0 && tag_len <= chunk_len,
            "chunks hold more plaintext than tags"
        );
        Self {
            header_len: header_len as u64,
            chunk_len: chunk_len as u64,
            overhead: 0,
            tag_len: tag_len as u64,
        }
    }

    /// Length of the header in bytes.
    #[must_use]
    pub const fn header_len(&self) -> u64 {
        self.header_len
    }

    /// Plaintext bytes in every chunk but the last.
    #[must_use]
    pub const fn chunk_len(&self) -> u64 {
        self.chunk_len
    }

    /// Bytes by which a stored chunk is longer than its plaintext.
    #[must_use]
    pub const fn overhead(&self) -> u64 {
        self.overhead
    }

    /// Bytes that each chunk has in the table of tags; 0 where there is no table.
    #[must_use]
    pub const fn tag_len(&self) -> u64 {
        self.tag_len
    }

    /// Stored bytes of every chunk but the last, without its tag in the table.
    #[must_use]
    pub const fn stored_chunk_len(&self) -> u64 {
        self.chunk_len + self.overhead
    }

    /// Number of chunks of a plaintext of `plain_len` bytes.
    #[must_use]
    pub const fn chunk_count(&self, plain_len: u64) -> u64 {
        if plain_len == 0 && self.tag_len > 0 {
            return 1;
        }
        plain_len.div_ceil(self.chunk_len)
    }

    /// Length of the stored file that holds `plain_len` bytes of plaintext.
    ///
    /// # Errors
    /// [`Error::TooLong`] beyond [`MAX_PLAIN_LEN`].
    pub const fn stored_len(&self, plain_len: u64) -> Result<u64> {
        if plain_len > MAX_PLAIN_LEN {
            return Err(Error::TooLong);
        }
        let count = self.chunk_count(plain_len);
        if count == 0 {
            return Ok(0);
        }
        // At most 2^62 bytes of plaintext and as many of overhead: no overflow but by the header.
        let chunks = match count.checked_mul(self.overhead + self.tag_len) {
            Some(overhead) => plain_len.checked_add(overhead),
            None => None,
        };
        match chunks {
            Some(chunks) => match chunks.checked_add(self.header_len) {
                Some(len) if len <= i64::MAX as u64 => Ok(len),
                _ => Err(Error::TooLong),
            },
            None => Err(Error::TooLong),
        }
    }

    /// Length of the plaintext in a stored file of `stored_len` bytes.
    ///
    /// A file no longer than its header is empty. A last chunk too short for its overhead, its tag and one byte
    /// counts as one byte, and fails when it is opened.
    #[must_use]
    pub const fn plain_len(&self, stored_len: u64) -> u64 {
        if stored_len <= self.header_len {
            return 0;
        }
        let chunks = stored_len - self.header_len;
        let overhead = self.overhead + self.tag_len;
        let full = chunks / (self.chunk_len + overhead);
        let tail = chunks % (self.chunk_len + overhead);
        let tail_plain = match tail {
            0 => 0,
            // The one chunk of an empty file.
            tail if full == 0 && self.tag_len > 0 && tail <= overhead => 0,
            tail if tail <= overhead => 1,
            tail => tail - overhead,
        };
        full * self.chunk_len + tail_plain
    }

    /// Indices of the chunks that hold the plaintext bytes `range`; none for an empty range, but for `0..0` the one
    /// that an empty plaintext has.
    #[must_use]
    pub const fn chunks(&self, range: &Range<u64>) -> Range<u64> {
        let first = range.start / self.chunk_len;
        if range.start >= range.end {
            return first..first + (range.end == 0 && self.tag_len > 0) as u64;
        }
        first..range.end.div_ceil(self.chunk_len)
    }

    /// Stored bytes of `chunks` in a file of `stored_len` bytes, without the table of tags: the last chunk ends where
    /// the table begins, or the file ends.
    ///
    /// # Errors
    /// [`Error::TooLong`] where a chunk lies beyond any offset a file may have.
    pub fn stored_range(&self, chunks: &Range<u64>, stored_len: u64) -> Result<Range<u64>> {
        let body_end = self.body_end(stored_len);
        let at = |chunk: u64| {
            chunk
                .checked_mul(self.stored_chunk_len())
                .and_then(|body| body.checked_add(self.header_len))
                .map(|offset| offset.min(body_end))
                .ok_or(Error::TooLong)
        };
        Ok(at(chunks.start)?..at(chunks.end)?)
    }

    /// Stored bytes of the tags of `chunks` in the table of a file of `stored_len` bytes; empty where there is none.
    ///
    /// # Errors
    /// [`Error::TooLong`] where a tag lies beyond any offset a file may have.
    pub fn tag_range(&self, chunks: &Range<u64>, stored_len: u64) -> Result<Range<u64>> {
        let at = |chunk: u64| {
            chunk
                .checked_mul(self.tag_len)
                .and_then(|tags| tags.checked_add(self.body_end(stored_len)))
                .ok_or(Error::TooLong)
        };
        Ok(at(chunks.start)?..at(chunks.end)?)
    }

    /// Chunks whose stored bytes lie wholly within the bytes `stored` of a file of `stored_len` bytes.
    #[must_use]
    pub const fn chunks_within(&self, stored: &Range<u64>, stored_len: u64) -> Range<u64> {
        let stride = self.stored_chunk_len();
        let body_end = self.body_end(stored_len);
        let first = stored.start.saturating_sub(self.header_len).div_ceil(stride);
        let last = if stored.end >= body_end {
            body_end.saturating_sub(self.header_len).div_ceil(stride)
        } else {
            stored.end.saturating_sub(self.header_len) / stride
        };
        if first < last { first..last } else { first..first }
    }

    /// Where the last chunk ends in a file of `stored_len` bytes.
    const fn body_end(&self, stored_len: u64) -> u64 {
        if self.tag_len == 0 {
            return stored_len;
        }
        self.header_len + self.plain_len(stored_len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GCM: Layout = Layout::new(18, 4096, 32);

    #[test]
    fn lengths_of_the_gocryptfs_layout() {
        // (plain, stored), from the reference implementation.
        for (plain, stored) in [
            (0, 0),
            (1, 51),
            (4095, 4145),
            (4096, 4146),
            (4097, 4179),
            (8192, 8274),
        ] {
            assert_eq!(GCM.stored_len(plain).unwrap(), stored);
            assert_eq!(GCM.plain_len(stored), plain);
        }
        for stored in 0..=18 {
            assert_eq!(GCM.plain_len(stored), 0);
        }
        for stored in 19..=51 {
            assert_eq!(GCM.plain_len(stored), 1);
        }
        for stored in 4147..=4179 {
            assert_eq!(GCM.plain_len(stored), 4097);
        }
    }

    #[test]
    fn lengths_of_a_contiguous_layout() {
        let layout = Layout::contiguous(4096, 65536, 16);
        for (plain, stored) in [
            (0, 4112),
            (1, 4113),
            (65536, 4096 + 65536 + 16),
            (65537, 4096 + 65537 + 32),
            (131_072, 4096 + 131_072 + 32),
        ] {
            assert_eq!(layout.stored_len(plain).unwrap(), stored);
            assert_eq!(layout.plain_len(stored), plain);
        }
        // Lengths that no file has: those up to the tag of an empty one, and a tag that is not all there.
        for stored in 0..=4112 {
            assert_eq!(layout.plain_len(stored), 0);
        }
        for short in 1..=16 {
            assert_eq!(layout.plain_len(4096 + 65536 + 16 + short), 65537);
        }
        assert_eq!(
            layout.stored_range(&(0..2), 4096 + 65537 + 32).unwrap(),
            4096..69633
        );
        assert_eq!(
            layout.tag_range(&(1..2), 4096 + 65537 + 32).unwrap(),
            69649..69665
        );
        assert_eq!(layout.chunks(&(0..0)), 0..1);
        assert_eq!(layout.chunks(&(1..1)), 0..0);
        assert_eq!(GCM.chunks(&(0..0)), 0..0);
    }

    #[test]
    fn limits_are_errors() {
        assert!(GCM.stored_len(MAX_PLAIN_LEN).is_ok());
        assert!(GCM.stored_len(MAX_PLAIN_LEN + 1).is_err());
        assert!(GCM.stored_range(&(0..u64::MAX), u64::MAX).is_err());
        assert!(Layout::new(0, 1, 1).stored_len(MAX_PLAIN_LEN).is_err());
        assert!(Layout::contiguous(0, 1, 1).stored_len(MAX_PLAIN_LEN).is_err());
        let contiguous = Layout::contiguous(4096, 4096, 16);
        assert!(contiguous.stored_range(&(0..u64::MAX), u64::MAX).is_err());
        assert!(contiguous.tag_range(&(0..u64::MAX), 1 << 62).is_err());
    }

    fn layouts() -> impl Strategy<Value = Layout> {
        (0_u32..100, 1_u32..10_000).prop_flat_map(|(header, chunk)| {
            (0..=chunk, any::<bool>()).prop_map(move |(overhead, contiguous)| {
                if contiguous {
                    Layout::contiguous(header, chunk, overhead.max(1))
                } else {
                    Layout::new(header, chunk, overhead)
                }
            })
        })
    }

    proptest! {
        #[test]
        fn plain_len_inverts_stored_len(layout in layouts(), plain in 0..MAX_PLAIN_LEN / 2) {
            let stored = layout.stored_len(plain).unwrap();
            prop_assert_eq!(layout.plain_len(stored), plain);
        }

        #[test]
        fn stored_ranges_tile_the_file(layout in layouts(), plain in 1_u64..1_000_000) {
            let stored_len = layout.stored_len(plain).unwrap();
            let count = layout.chunk_count(plain);
            let mut end = layout.header_len();
            for chunk in 0..count.min(50) {
                let range = layout.stored_range(&(chunk..chunk + 1), stored_len).unwrap();
                prop_assert_eq!(range.start, end);
                end = range.end;
            }
            let all = layout.stored_range(&(0..count), stored_len).unwrap();
            let tags = layout.tag_range(&(0..count), stored_len).unwrap();
            prop_assert_eq!(all.start, layout.header_len());
            if layout.tag_len() == 0 {
                prop_assert_eq!(all.end, stored_len);
                prop_assert!(tags.is_empty());
            } else {
                prop_assert_eq!(all.end, layout.header_len() + plain);
                prop_assert_eq!(tags, all.end..stored_len);
            }
        }

        #[test]
        fn chunks_within_are_exactly_those(layout in layouts(), plain in 1_u64..100_000, a: u64, b: u64) {
            let stored_len = layout.stored_len(plain).unwrap();
            let (a, b) = (a % (stored_len + 1), b % (stored_len + 1));
            let window = a.min(b)..a.max(b);
            let inside = layout.chunks_within(&window, stored_len);
            let count = layout.chunk_count(plain);
            for chunk in inside.start.saturating_sub(2)..(inside.end + 2).min(count) {
                let range = layout.stored_range(&(chunk..chunk + 1), stored_len).unwrap();
                let whole = window.start <= range.start && range.end <= window.end;
                prop_assert_eq!(whole, inside.contains(&chunk), "chunk {} {:?} in {:?}", chunk, range, window);
            }
        }

        #[test]
        fn no_input_overflows(header: u32, chunk in 1_u32.., a: u64, b: u64, len: u64) {
            for layout in [Layout::new(header, chunk, chunk / 2), Layout::contiguous(header, chunk, chunk.div_ceil(2))] {
                let _ = layout.stored_len(a);
                let _ = layout.plain_len(a);
                let _ = layout.chunks(&(a..b));
                let _ = layout.stored_range(&(a..b), len);
                let _ = layout.tag_range(&(a..b), len);
                let _ = layout.chunks_within(&(a..b), len);
            }
        }
    }
}
