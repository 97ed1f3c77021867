//! The arithmetic of any layout, at any offset: it does not overflow, and its answers agree with one another.
#![no_main]

use chunk_cipher::Layout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|numbers: (u32, u32, u32, u64, u64, u64, u64, bool)| {
    let (header_len, chunk_len, overhead, plain, stored, a, b, contiguous) = numbers;
    let chunk_len = chunk_len.max(1);
    let overhead = (u64::from(overhead) % (u64::from(chunk_len) + 1)) as u32;
    let layout = if contiguous {
        Layout::contiguous(header_len, chunk_len, overhead.max(1))
    } else {
        Layout::new(header_len, chunk_len, overhead)
    };

    let count = layout.chunk_count(plain);
    if let Ok(stored) = layout.stored_len(plain) {
        assert_eq!(layout.plain_len(stored), plain);
        let body = layout.stored_range(&(0..count), stored).unwrap();
        assert_eq!(body.start, layout.header_len().min(stored));
        let tags = layout.tag_range(&(0..count), stored).unwrap();
        if contiguous {
            assert_eq!((body.end, tags.start, tags.end), (body.start + plain, body.end, stored));
        } else {
            assert_eq!((body.end, tags.is_empty()), (stored, true));
        }
    }

    // Any length of the stored file: as many chunks as stored bytes are there for.
    let plain = layout.plain_len(stored);
    let count = layout.chunk_count(plain);
    let with_tags = layout.stored_chunk_len() + layout.tag_len();
    let there = stored.saturating_sub(layout.header_len()).div_ceil(with_tags);
    assert_eq!(count, there.max(u64::from(contiguous)));
    if let Ok(body) = layout.stored_range(&(0..count), stored)
        && !contiguous
    {
        assert_eq!(body, layout.header_len().min(stored)..stored);
    }

    // A range of plaintext lies in its chunks, and in no fewer.
    let range = a.min(b)..a.max(b);
    let chunks = layout.chunks(&range);
    if !range.is_empty() {
        assert!(chunks.start <= range.start / layout.chunk_len());
        assert_eq!(chunks.start, range.start / layout.chunk_len());
        assert_eq!(chunks.end - 1, (range.end - 1) / layout.chunk_len());
    } else {
        assert_eq!(chunks.end - chunks.start, u64::from(contiguous && range.end == 0));
    }

    // The chunks within a range of stored bytes: wholly there, and their neighbours not.
    let window = a.min(b).min(stored)..a.max(b).min(stored);
    let within = layout.chunks_within(&window, stored);
    let lies_within = |chunk: u64| {
        let range = layout.stored_range(&(chunk..chunk + 1), stored).unwrap();
        chunk < count && window.start <= range.start && range.end <= window.end
    };
    // Beyond these bounds no file can be.
    if stored <= i64::MAX as u64 && !within.is_empty() {
        assert!(lies_within(within.start) && lies_within(within.end - 1));
        assert!(within.start == 0 || !lies_within(within.start - 1));
        assert!(!lies_within(within.end));
    }
});
