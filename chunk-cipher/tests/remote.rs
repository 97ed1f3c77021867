//! Reading what is far away: in parts, many at once, each opened as it arrives.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;

use chunk_cipher::store::{ReadAt, Remote, Sink as PartSink};
use chunk_cipher::{Engine, Error, Pool, Sealed};
use proptest::prelude::*;

#[path = "common/codec.rs"]
mod codec;

use codec::{Memory, Sink, TestCodec, bytes};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Pool::with_threads(2)));

/// A file whose parts arrive in pieces, from several threads, the last part first.
#[derive(Debug)]
struct Far {
    file: Memory,
    part_len: u64,
    piece_len: usize,
    /// Where every part ends early, or goes on too long, by so many bytes.
    missing: i64,
    /// Parts that were begun.
    parts: AtomicUsize,
    /// Reads that were not in parts.
    reads: AtomicUsize,
}

impl Far {
    fn new(stored: Vec<u8>, part_len: u64, piece_len: usize) -> Self {
        Self {
            file: Memory(stored),
            part_len,
            piece_len,
            missing: 0,
            parts: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
        }
    }

    fn sealed<'a>(&'a self, codec: &'a TestCodec) -> Sealed<'a> {
        Sealed::new(self, codec, self.file.0.len() as u64)
    }

    fn read(&self, codec: &TestCodec, range: Range<usize>) -> chunk_cipher::Result<Vec<u8>> {
        let mut out = vec![0xaa; range.len()];
        let result = ENGINE.read_into(self.sealed(codec), range.start as u64, &mut out);
        if result.is_err() {
            assert!(out.iter().all(|byte| *byte == 0), "output after {result:?}");
        }
        result.map(|()| out)
    }
}

impl ReadAt for Far {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.file.read_exact_at(offset, buf)
    }

    fn remote(&self) -> Option<&dyn Remote> {
        Some(self)
    }
}

impl Remote for Far {
    fn part_len(&self, _: u64) -> u64 {
        self.part_len
    }

    fn fetch(&self, parts: &[Range<u64>], sink: &PartSink<'_>) -> io::Result<()> {
        let next = AtomicUsize::new(parts.len());
        let failed = Mutex::new(Ok(()));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        let left =
                            next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |next| next.checked_sub(1));
                        let Ok(index) = left.map(|left| left - 1) else {
                            break;
                        };
                        self.parts.fetch_add(1, Ordering::SeqCst);
                        let Range { start, end } = parts[index];
                        let end = end.checked_add_signed(-self.missing).unwrap().max(start);
                        let part = start as usize..end as usize;
                        let sent = self.file.0[part]
                            .chunks(self.piece_len)
                            .try_for_each(|piece| sink(index, piece));
                        if let Err(error) = sent {
                            stop.store(true, Ordering::SeqCst);
                            *failed.lock().unwrap() = Err(error);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap()
    }
}

const LEN: usize = 700_001;

#[test]
fn remote_reads_are_in_parts_and_small_ones_are_not() {
    for codec in TestCodec::both(4096) {
        let plain = bytes(LEN);
        let far = Far::new(codec.seal_all(&plain), 64 << 10, 10_000);
        assert_eq!(far.read(&codec, 0..LEN).unwrap(), plain);
        assert!((LEN >> 16..=(LEN >> 16) + 2).contains(&far.parts.load(Ordering::SeqCst)));
        // The table of tags is one read of its own.
        assert_eq!(
            far.reads.swap(0, Ordering::SeqCst),
            usize::from(codec.is_contiguous())
        );
        let parts = far.parts.load(Ordering::SeqCst);
        assert_eq!(far.read(&codec, 5..10_000).unwrap(), plain[5..10_000]);
        assert_eq!(far.parts.load(Ordering::SeqCst), parts);
        assert!(far.reads.load(Ordering::SeqCst) > 0);
    }
}

#[test]
fn remote_damage_is_refused_wherever_it_is() {
    for codec in TestCodec::both(4096) {
        let plain = bytes(LEN);
        let stored = codec.seal_all(&plain);
        for at in (codec::HEADER_LEN as usize..stored.len()).step_by(9973) {
            let mut altered = stored.clone();
            altered[at] ^= 1;
            let far = Far::new(altered, 50_000, 3000);
            let error = far.read(&codec, 0..LEN).unwrap_err();
            assert!(matches!(error, Error::Chunk { .. }), "byte {at}: {error}");
        }
    }
}

#[test]
fn remote_parts_that_are_short_or_long_are_refused() {
    for codec in TestCodec::both(4096) {
        let stored = codec.seal_all(&bytes(LEN));
        for missing in [1, 4096, 1 << 15, -1] {
            let mut far = Far::new(stored.clone(), 64 << 10, 3000);
            far.missing = missing;
            if missing < 0 {
                // There are bytes behind the last part, too.
                far.file.0.push(0);
                let len = far.file.0.len() as u64 - 1;
                let mut out = vec![1; 600_000];
                let result = ENGINE.read_into(Sealed::new(&far, &codec, len), 0, &mut out);
                assert!(matches!(result, Err(Error::Changed)), "{result:?}");
                assert!(out.iter().all(|byte| *byte == 0));
                continue;
            }
            let result = far.read(&codec, 0..LEN);
            assert!(matches!(result, Err(Error::Changed)), "{missing}: {result:?}");
        }
    }
}

#[test]
fn remote_files_unseal_as_they_read() {
    for codec in TestCodec::both(4096) {
        let plain = bytes(LEN);
        let far = Far::new(codec.seal_all(&plain), 1 << 20, 5000);
        let sink = Sink::new(LEN as u64);
        ENGINE.unseal(far.sealed(&codec), &sink, &()).unwrap();
        assert_eq!(sink.into_inner(), plain);
        assert!(far.parts.load(Ordering::SeqCst) > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn remote_any_range_is_a_slice_of_the_whole(
        start in 0..LEN,
        len in 262_145_usize..LEN,
        part_len in 1_u64..300_000,
        piece_len in 1_usize..70_000,
        contiguous: bool,
    ) {
        static PLAIN: LazyLock<Vec<u8>> = LazyLock::new(|| bytes(LEN));
        let [interleaved, behind] = TestCodec::both(4096);
        let codec = if contiguous { behind } else { interleaved };
        let far = Far::new(codec.seal_all(&PLAIN), part_len, piece_len.max(64));
        let range = start.min(LEN - 1)..(start + len).min(LEN);
        prop_assert_eq!(far.read(&codec, range.clone()).unwrap(), &PLAIN[range]);
    }
}
