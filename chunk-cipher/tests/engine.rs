//! The engine over a small chunk format, in memory and on files: right or refused.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init
)]

use std::collections::BTreeMap;
use std::io;
use std::ops::{AddAssign, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, ThreadId};

use chunk_cipher::aead::{self, Algorithm};
use chunk_cipher::store::{ReadAt, Windows, WriteAt};
use chunk_cipher::{Buffer, Codec, Engine, Error, Layout, Pool, Progress, Scan, Sealed};
use proptest::prelude::*;

#[path = "common/codec.rs"]
mod codec;

use codec::{HEADER_LEN, Memory, Sink, TestCodec, bytes};

/// More than one thread wherever this runs.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Pool::with_threads(3)));

fn codec(chunk_len: u32, contiguous: bool) -> TestCodec {
    let [interleaved, tags_behind] = TestCodec::both(chunk_len);
    if contiguous { tags_behind } else { interleaved }
}

fn sealed<'a>(file: &'a Memory, codec: &'a TestCodec) -> Sealed<'a> {
    Sealed::new(file, codec, file.0.len() as u64)
}

fn read(file: &Memory, codec: &TestCodec, range: Range<usize>) -> chunk_cipher::Result<Vec<u8>> {
    let mut out = vec![0xaa; range.len()];
    let result = ENGINE.read_into(sealed(file, codec), range.start as u64, &mut out);
    if result.is_err() {
        assert!(out.iter().all(|byte| *byte == 0), "output after {result:?}");
    }
    result.map(|()| out)
}

/// Lends the bytes of a file in memory, a window at a time.
#[derive(Debug)]
struct Lent {
    file: Memory,
    /// Bytes that a window lacks at its front and at its back.
    missing: (u64, u64),
    /// Every so many windows turn out not to have stayed the same: they were other bytes.
    unsteady: u64,
    windows: AtomicU64,
}

impl ReadAt for Lent {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(offset, buf)
    }

    fn windows(&self) -> Option<Box<dyn Windows + '_>> {
        Some(Box::new(LentWindows(self)))
    }
}

struct LentWindows<'a>(&'a Lent);

impl Windows for LentWindows<'_> {
    fn with(&self, range: Range<u64>, work: &mut dyn FnMut(Range<u64>, &[u8])) -> bool {
        let Lent {
            file,
            missing,
            unsteady,
            windows,
        } = self.0;
        let start = (range.start + missing.0).min(range.end);
        let end = range.end.saturating_sub(missing.1).max(start);
        let bytes = &file.0[start as usize..end as usize];
        if windows.fetch_add(1, Ordering::Relaxed) % unsteady == unsteady - 1 {
            work(start..end, &vec![0x55; bytes.len()]);
            return false;
        }
        work(start..end, bytes);
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn engine_any_range_is_a_slice_of_the_whole(
        chunk_len in prop_oneof![Just(4096_u32), Just(65536), 32_u32..5000],
        len in prop_oneof![0_usize..20_000, 200_000_usize..600_000],
        a: prop::sample::Index,
        b: prop::sample::Index,
        contiguous: bool,
    ) {
        let codec = codec(chunk_len, contiguous);
        let plain = bytes(len);
        let file = Memory(codec.seal_all(&plain));
        prop_assert_eq!(sealed(&file, &codec).len(), len as u64);
        let (a, b) = (a.index(len + 1), b.index(len + 1));
        let range = a.min(b)..a.max(b);
        prop_assert_eq!(&read(&file, &codec, range.clone()).unwrap(), &plain[range]);
        prop_assert_eq!(&read(&file, &codec, 0..len).unwrap(), &plain);
    }

    #[test]
    fn engine_borrowed_windows_give_what_copies_give(
        chunk_len in prop_oneof![Just(4096_u32), 32_u32..5000],
        len in 300_000_usize..900_000,
        front in prop_oneof![Just(0_u64), 0_u64..10_000, Just(1 << 40)],
        back in prop_oneof![Just(0_u64), 0_u64..10_000],
        unsteady in 1_u64..5,
        damage in proptest::option::of(any::<prop::sample::Index>()),
        contiguous: bool,
    ) {
        let codec = codec(chunk_len, contiguous);
        let plain = bytes(len);
        let mut file = Memory(codec.seal_all(&plain));
        if let Some(damage) = &damage {
            let body = file.0.len() - HEADER_LEN as usize;
            file.0[HEADER_LEN as usize + damage.index(body)] ^= 1;
        }
        let lent = Lent { file, missing: (front, back), unsteady, windows: AtomicU64::new(0) };
        let mut out = vec![0xaa; len];
        let view = Sealed::new(&lent, &codec, lent.len().unwrap());
        let result = ENGINE.read_into(view, 0, &mut out);
        let copied = read(&lent.file, &codec, 0..len);
        prop_assert!(lent.windows.load(Ordering::Relaxed) > 0);
        match (result, copied) {
            (Ok(()), Ok(copied)) => prop_assert!(out == copied && out == plain && damage.is_none()),
            (Err(Error::Chunk { chunk: a }), Err(Error::Chunk { chunk: b })) => {
                prop_assert_eq!(a, b);
                prop_assert!(damage.is_some() && out.iter().all(|byte| *byte == 0));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn engine_seal_then_open(
        chunk_len in prop_oneof![Just(4096_u32), 32_u32..5000],
        len in prop_oneof![0_usize..20_000, 200_000_usize..600_000],
        contiguous: bool,
    ) {
        let codec = codec(chunk_len, contiguous);
        let plain = Memory(bytes(len));
        let sink = Sink::new(codec.layout().stored_len(len as u64).unwrap());
        ENGINE.seal(&plain, len as u64, &codec, &sink, &()).unwrap();
        let file = Memory(sink.into_inner());
        prop_assert_eq!(&read(&file, &codec, 0..len).unwrap(), &plain.0);
        let sink = Sink::new(len as u64);
        ENGINE.unseal(sealed(&file, &codec), &sink, &()).unwrap();
        prop_assert_eq!(sink.into_inner(), plain.0);
        prop_assert_eq!(ENGINE.scan(sealed(&file, &codec), &()).unwrap(), Scan::default());
    }
}

#[test]
fn engine_sealing_takes_a_fresh_nonce_for_every_chunk() {
    let codec = TestCodec::new(64);
    let plain = Memory(vec![5; 64 * 5000]);
    let stored_len = codec.layout().stored_len(plain.0.len() as u64).unwrap();
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let sink = Sink::new(stored_len);
        ENGINE
            .seal(&plain, plain.0.len() as u64, &codec, &sink, &())
            .unwrap();
        let file = sink.into_inner();
        nonces.extend(
            file[HEADER_LEN as usize..]
                .chunks(64 + 32)
                .map(|chunk| chunk[..16].to_vec()),
        );
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 10_000);
}

#[test]
fn engine_parallel_is_serial_is_chunk_by_chunk() {
    let codecs = [1000, 4096, 1 << 20].map(|chunk_len| (chunk_len, TestCodec::both(chunk_len)));
    for (chunk_len, codec) in codecs
        .iter()
        .flat_map(|(len, both)| both.iter().map(move |codec| (*len, codec)))
    {
        let plain = bytes(3_000_000);
        let file = Memory(codec.seal_all(&plain));
        let serial = Engine::new(Pool::with_threads(1));
        let mut one = vec![0; plain.len()];
        serial.read_into(sealed(&file, codec), 0, &mut one).unwrap();
        let mut chunks = Vec::new();
        for start in (0..plain.len()).step_by(chunk_len as usize) {
            chunks.extend(read(&file, codec, start..plain.len().min(start + chunk_len as usize)).unwrap());
        }
        assert!(one == plain && chunks == plain && read(&file, codec, 0..plain.len()).unwrap() == plain);
    }
}

#[test]
fn engine_backends_agree() {
    let plain = bytes(700_001);
    for algorithm in [
        Algorithm::Aes256Gcm,
        Algorithm::Aes256GcmNonce16,
        Algorithm::Aes256Siv,
        Algorithm::XChaCha20Poly1305,
    ] {
        let key = vec![9; algorithm.key_len()];
        let fast = || aead::new(algorithm, &key).unwrap();
        let portable = || aead::rust_crypto::new(algorithm, &key).unwrap();
        for make in [TestCodec::with, TestCodec::contiguous_with] {
            let (fast, portable) = (make(fast(), 4096), make(portable(), 4096));
            let file = Memory(fast.seal_all(&plain));
            assert!(file.0 == portable.seal_all(&plain));
            for codec in [&fast, &portable] {
                assert!(read(&file, codec, 0..plain.len()).unwrap() == plain);
            }
        }
    }
}

#[test]
fn engine_every_bit_flip_is_refused() {
    for codec in TestCodec::both(32) {
        let plain = bytes(32 + 32 + 5);
        let mut file = Memory(codec.seal_all(&plain));
        for bit in 0..file.0.len() * 8 {
            file.0[bit / 8] ^= 1 << (bit % 8);
            let result = read(&file, &codec, 0..plain.len());
            match (bit / 8).checked_sub(HEADER_LEN as usize) {
                // The header holds nothing.
                None => assert_eq!(result.unwrap(), plain),
                Some(at) => {
                    let damaged = match at.checked_sub(plain.len()) {
                        Some(in_table) if codec.is_contiguous() => in_table / 16,
                        _ => at / codec.layout().stored_chunk_len() as usize,
                    };
                    assert!(
                        matches!(result, Err(Error::Chunk { chunk }) if chunk == damaged as u64),
                        "bit {bit}"
                    );
                    let damaged_only = ENGINE.scan(sealed(&file, &codec), &()).unwrap().damaged;
                    assert_eq!(damaged_only, [damaged as u64..damaged as u64 + 1]);
                    // The other chunks are as they were.
                    for (chunk, part) in plain
                        .chunks(32)
                        .enumerate()
                        .filter(|(chunk, _)| *chunk != damaged)
                    {
                        assert_eq!(
                            read(&file, &codec, chunk * 32..chunk * 32 + part.len()).unwrap(),
                            part
                        );
                    }
                }
            }
            file.0[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn engine_every_truncation_is_refused_or_shorter() {
    let codec = TestCodec::new(64);
    let plain = bytes(2 * 64 + 7);
    let whole = codec.seal_all(&plain);
    let (mut shorter, mut refused) = (0, 0);
    for len in 0..whole.len() {
        let file = Memory(whole[..len].to_vec());
        let plain_len = sealed(&file, &codec).len() as usize;
        // What was promised before the truncation does not come.
        let mut out = vec![0xaa; plain.len()];
        let promised = Sealed::new(&file, &codec, whole.len() as u64);
        assert!(matches!(
            ENGINE.read_into(promised, 0, &mut out),
            Err(Error::Changed)
        ));
        assert!(out.iter().all(|byte| *byte == 0));
        // Only a cut between chunks gives a shorter file; the format has to notice that.
        match read(&file, &codec, 0..plain_len) {
            Ok(read) => {
                assert!(len <= HEADER_LEN as usize || (len - HEADER_LEN as usize).is_multiple_of(64 + 32));
                assert_eq!(read, plain[..plain_len]);
                shorter += 1;
            }
            Err(error) => {
                let last = (len - HEADER_LEN as usize) / (64 + 32);
                assert!(
                    matches!(error, Error::Chunk { chunk } if chunk == last as u64),
                    "{len}: {error:?}"
                );
                refused += 1;
            }
        }
    }
    assert_eq!(
        (shorter, refused),
        (HEADER_LEN + 1 + 2, whole.len() as u32 - HEADER_LEN - 3)
    );
}

#[test]
fn engine_every_truncation_of_a_contiguous_file_is_refused() {
    let codec = TestCodec::contiguous(64);
    for len in [0, 7, 64, 2 * 64, 2 * 64 + 7] {
        let plain = bytes(len);
        let whole = codec.seal_all(&plain);
        for len in 0..whole.len() {
            let file = Memory(whole[..len].to_vec());
            let plain_len = sealed(&file, &codec).len() as usize;
            let error = read(&file, &codec, 0..plain_len).unwrap_err();
            assert!(matches!(error, Error::Changed | Error::Chunk { .. }), "{error:?}");
            let sink = Sink::new(plain_len as u64);
            assert!(ENGINE.unseal(sealed(&file, &codec), &sink, &()).is_err());
            let scan = ENGINE.scan(sealed(&file, &codec), &());
            assert!(scan.is_err() || !scan.unwrap().damaged.is_empty());
            // What was promised before the truncation does not come.
            let mut out = vec![0xaa; plain.len()];
            let promised = Sealed::new(&file, &codec, whole.len() as u64);
            assert!(matches!(
                ENGINE.read_into(promised, 0, &mut out),
                Err(Error::Changed)
            ));
            assert!(out.iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn engine_an_empty_contiguous_file_has_a_chunk() {
    let codec = TestCodec::contiguous(64);
    let sink = Sink::new(u64::from(HEADER_LEN) + 16);
    ENGINE.seal(&Memory(Vec::new()), 0, &codec, &sink, &()).unwrap();
    let mut file = Memory(sink.into_inner());
    assert_eq!(
        file.0[HEADER_LEN as usize..],
        codec.seal_all(&[])[HEADER_LEN as usize..]
    );
    let progress = Until::new(u64::MAX);
    assert_eq!(read(&file, &codec, 0..0).unwrap(), []);
    ENGINE
        .unseal(sealed(&file, &codec), &Sink::new(0), &progress)
        .unwrap();
    assert_eq!(
        ENGINE.scan(sealed(&file, &codec), &progress).unwrap(),
        Scan::default()
    );
    for at in HEADER_LEN as usize..file.0.len() {
        file.0[at] ^= 1;
        assert!(matches!(
            read(&file, &codec, 0..0),
            Err(Error::Chunk { chunk: 0 })
        ));
        let unsealed = ENGINE.unseal(sealed(&file, &codec), &Sink::new(0), &progress);
        assert!(matches!(unsealed, Err(Error::Chunk { chunk: 0 })));
        assert_eq!(
            ENGINE.scan(sealed(&file, &codec), &progress).unwrap().damaged,
            [0..1]
        );
        file.0[at] ^= 1;
    }
    // A range of no bytes within a longer file touches nothing.
    let mut long = Memory(codec.seal_all(&bytes(10)));
    long.0.last_mut().unwrap().add_assign(1);
    assert_eq!(read(&long, &codec, 0..0).unwrap(), []);
    assert!(read(&long, &codec, 0..1).is_err());
}

#[test]
fn engine_swapped_chunks_are_refused() {
    for codec in TestCodec::both(64) {
        let mut file = Memory(codec.seal_all(&bytes(64 * 3)));
        let stored = codec.layout().stored_chunk_len() as usize;
        let (header, body) = file.0.split_at_mut(HEADER_LEN as usize);
        assert_eq!(header.len(), 18);
        let (first, second) = body.split_at_mut(stored);
        first.swap_with_slice(&mut second[..stored]);
        if codec.is_contiguous() {
            // Their tags along with them.
            let (first, second) = body[64 * 3..].split_at_mut(16);
            first.swap_with_slice(&mut second[..16]);
        }
        assert!(matches!(
            read(&file, &codec, 0..192),
            Err(Error::Chunk { chunk: 0 })
        ));
        assert!(read(&file, &codec, 128..192).is_ok());
    }
}

/// Takes note of where is written, and on which thread.
#[derive(Debug, Default)]
struct Order(Mutex<Vec<(u64, u64, ThreadId)>>);

impl WriteAt for Order {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let write = (offset, buf.len() as u64, thread::current().id());
        self.0.lock().unwrap().push(write);
        Ok(())
    }
}

/// Any number of bytes of no matter what.
#[derive(Debug)]
struct Endless;

impl ReadAt for Endless {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn read_exact_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Seals nothing at all.
#[derive(Debug)]
struct Unsealing {
    layout: Layout,
    segment_len: u64,
}

impl Codec for Unsealing {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn nonce_len(&self) -> usize {
        0
    }

    fn segment_len(&self) -> u64 {
        self.segment_len
    }

    fn open_chunk(&self, _: u64, _: &[u8], _: &[u8], _: &mut [u8]) -> chunk_cipher::Result<()> {
        unreachable!("nothing is opened")
    }

    fn seal_chunk(&self, _: u64, _: &[u8], _: &[u8], _: &mut [u8], _: &mut [u8]) -> chunk_cipher::Result<()> {
        Ok(())
    }
}

#[test]
fn engine_seals_segments_in_order_and_no_more_than_a_gib_ahead() {
    const SEGMENT: u64 = 1 << 20;
    for (chunk_len, len) in [(65536, (3 << 30) + 5), (4096, 2 << 20), (4 << 20, 100 << 20)] {
        let codec = Unsealing {
            layout: Layout::contiguous(4096, chunk_len, 16),
            segment_len: SEGMENT,
        };
        let order = Order::default();
        ENGINE.seal(&Endless, len, &codec, &order, &()).unwrap();
        let mut segments = BTreeMap::<u64, (u64, ThreadId)>::new();
        let (mut body, mut tags, mut highest) = (0, 0, 0);
        for (offset, written, thread) in order.0.into_inner().unwrap() {
            let start = offset - 4096;
            if start >= len {
                tags += written;
                continue;
            }
            let segment = SEGMENT.max(chunk_len.into());
            let (next, first_thread) = segments
                .entry(start / segment)
                .or_insert((start / segment * segment, thread));
            assert_eq!((start, thread), (*next, *first_thread));
            *next += written;
            assert!(*next <= (start / segment + 1) * segment);
            assert!(start + (1 << 30) > highest, "{start} after {highest}");
            highest = highest.max(start);
            body += written;
        }
        assert_eq!((body, tags), (len, 16 * len.div_ceil(chunk_len.into())));
    }
}

#[test]
fn engine_zeroes_the_whole_range_after_damage_in_the_middle() {
    for codec in TestCodec::both(4096) {
        let plain = bytes(8 << 20);
        let mut file = Memory(codec.seal_all(&plain));
        let mut out = Buffer::new(plain.len()).unwrap();
        ENGINE.read_into(sealed(&file, &codec), 0, &mut out).unwrap();
        assert!(out[..] == plain);
        for chunk in [0, 1024, 1025, 2047] {
            let at = HEADER_LEN as usize + chunk * codec.layout().stored_chunk_len() as usize + 77;
            file.0[at] ^= 0x80;
            let error = ENGINE.read_into(sealed(&file, &codec), 0, &mut out).unwrap_err();
            assert!(matches!(error, Error::Chunk { chunk: found } if found == chunk as u64));
            assert!(error.to_string().contains(&format!("chunk {chunk} ")), "{error}");
            assert!(out.iter().all(|byte| *byte == 0));
            file.0[at] ^= 0x80;
            out.fill(0xaa);
        }
    }
}

#[test]
fn engine_ranges_outside_of_the_file_are_refused() {
    let codec = TestCodec::new(4096);
    let file = Memory(codec.seal_all(&bytes(10_000)));
    for range in [0..10_001, 9_999..10_001, 10_001..10_001, 20_000..20_005] {
        let error = read(&file, &codec, range.clone()).unwrap_err();
        assert!(matches!(error, Error::Range { file_len: 10_000, .. }));
        assert!(error.to_string().contains("10000 bytes"), "{error}");
    }
    let mut out = [0xaa; 5];
    let result = ENGINE.read_into(sealed(&file, &codec), u64::MAX - 2, &mut out);
    assert!(matches!(result, Err(Error::Range { .. })));
    assert_eq!(out, [0; 5]);
    assert_eq!(read(&file, &codec, 10_000..10_000).unwrap(), []);
}

#[test]
fn engine_absurd_lengths_are_errors() {
    // What a hostile server may say of a file; nothing overflows, and little is read.
    let file = Memory(bytes(100_000));
    for stored_len in [
        u64::MAX,
        u64::MAX - 1,
        i64::MAX as u64 + 1,
        i64::MAX as u64,
        1 << 62,
    ] {
        let codecs =
            [32, 4096, u32::MAX].map(|chunk_len| TestCodec::both(chunk_len).map(|codec| (chunk_len, codec)));
        for (chunk_len, codec) in codecs.into_iter().flatten() {
            let view = Sealed::new(&file, &codec, stored_len);
            for offset in [0, view.len() / 2, view.len() - 400_000] {
                let mut out = vec![0xaa; 400_000];
                // A chunk of 4 GiB is read as a whole, so that one is left out.
                if chunk_len != u32::MAX {
                    let error = ENGINE.read_into(view, offset, &mut out).unwrap_err();
                    assert!(matches!(error, Error::Changed | Error::Chunk { .. }), "{error:?}");
                    assert!(out.iter().all(|byte| *byte == 0));
                }
                let beyond = ENGINE.read_into(view, view.len() - 1, &mut out[..2]);
                assert!(matches!(beyond, Err(Error::Range { .. })));
            }
            if chunk_len != u32::MAX {
                assert!(matches!(ENGINE.scan(view, &()), Err(Error::Changed)));
                assert!(ENGINE.unseal(view, &Sink::new(0), &()).is_err());
            }
        }
    }
}

/// Chunks without anything added, none of which ever opens.
#[derive(Debug)]
struct Bare(Layout);

impl Codec for Bare {
    fn layout(&self) -> Layout {
        self.0
    }

    fn nonce_len(&self) -> usize {
        0
    }

    fn open_chunk(&self, index: u64, _: &[u8], _: &[u8], plain: &mut [u8]) -> chunk_cipher::Result<()> {
        plain.fill(0);
        Err(Error::Chunk { chunk: index })
    }

    fn seal_chunk(&self, _: u64, _: &[u8], _: &[u8], _: &mut [u8], _: &mut [u8]) -> chunk_cipher::Result<()> {
        unreachable!("nothing is sealed")
    }
}

#[test]
fn engine_absurd_lengths_without_overhead_are_errors() {
    let file = Memory(bytes(100_000));
    let layouts = [1000, 4096].map(|len| [Layout::new(0, len, 0), Layout::contiguous(0, len, 1)]);
    for layout in layouts.into_iter().flatten() {
        let codec = Bare(layout);
        let view = Sealed::new(&file, &codec, u64::MAX);
        for len in [1, 5000, 400_000] {
            let mut out = vec![0xaa; len];
            let result = ENGINE.read_into(view, view.len() - len as u64, &mut out);
            assert!(matches!(result, Err(Error::Changed)), "{result:?}");
            assert!(out.iter().all(|byte| *byte == 0));
        }
        assert!(ENGINE.scan(view, &()).is_err());
    }
}

#[test]
fn engine_scan_finds_exactly_what_is_damaged() {
    for (codec, segment_len) in TestCodec::both(1000)
        .into_iter()
        .chain(TestCodec::both(1000))
        .zip([1, 1, 500, 2000])
    {
        scan_finds_exactly_what_is_damaged(&codec.in_segments(segment_len));
    }
}

fn scan_finds_exactly_what_is_damaged(codec: &TestCodec) {
    let plain = bytes(3_000_500);
    let whole = codec.seal_all(&plain);
    let stride = codec.layout().stored_chunk_len() as usize;
    let stored =
        |chunk: usize| HEADER_LEN as usize + chunk * stride..HEADER_LEN as usize + (chunk + 1) * stride;
    let mut file = Memory(whole.clone());
    for chunk in [0, 7, 8, 9, 1500, 2999] {
        file.0[stored(chunk).start + 20] ^= 1;
    }
    for chunk in [3, 4, 2000] {
        file.0[stored(chunk)].fill(0);
    }
    *file.0.last_mut().unwrap() ^= 1;
    let found = ENGINE.scan(sealed(&file, codec), &()).unwrap();
    if codec.is_contiguous() {
        // Nothing is ever a hole.
        assert_eq!(
            found.damaged,
            [0..1, 3..5, 7..10, 1500..1501, 2000..2001, 2999..3001]
        );
        assert_eq!(found.holes, []);
    } else {
        assert_eq!(found.damaged, [0..1, 7..10, 1500..1501, 2999..3001]);
        assert_eq!(found.holes, [3..5, 2000..2001]);
    }
    // The same through borrowed windows, some of which are of no use.
    let lent = Lent {
        file,
        missing: (500, 40),
        unsteady: 2,
        windows: AtomicU64::new(0),
    };
    assert_eq!(
        ENGINE
            .scan(Sealed::new(&lent, codec, lent.len().unwrap()), &())
            .unwrap(),
        found
    );
    assert!(lent.windows.into_inner() > 0);
    // Everything, and nothing; a small file too.
    let other = aead::new(Algorithm::Aes256GcmNonce16, &[8; 32]).unwrap();
    let key = if codec.is_contiguous() {
        TestCodec::contiguous_with(other, 1000)
    } else {
        TestCodec::with(other, 1000)
    };
    let all = ENGINE.scan(sealed(&Memory(whole.clone()), &key), &()).unwrap();
    assert_eq!((all.damaged, all.holes), (vec![0..3001], vec![]));
    assert_eq!(
        ENGINE.scan(sealed(&Memory(whole), codec), &()).unwrap(),
        Scan::default()
    );
    let mut small = Memory(codec.seal_all(&plain[..2500]));
    small.0[stored(1).start] ^= 1;
    assert_eq!(ENGINE.scan(sealed(&small, codec), &()).unwrap().damaged, [1..2]);
}

#[test]
fn engine_plain_zeros_are_no_holes() {
    for codec in TestCodec::both(1000) {
        let file = Memory(codec.seal_all(&vec![0; 600_000]));
        assert_eq!(ENGINE.scan(sealed(&file, &codec), &()).unwrap(), Scan::default());
        let sink = Sink::new(600_000);
        ENGINE.unseal(sealed(&file, &codec), &sink, &()).unwrap();
        assert!(sink.into_inner().iter().all(|byte| *byte == 0));
    }
}

/// Counts, and calls it off once this much is done.
struct Until {
    limit: u64,
    done: AtomicU64,
}

impl Until {
    fn new(limit: u64) -> Self {
        Self {
            limit,
            done: AtomicU64::new(0),
        }
    }
}

impl Progress for Until {
    fn advance(&self, bytes: u64) -> bool {
        self.done.fetch_add(bytes, Ordering::Relaxed) + bytes < self.limit
    }
}

#[test]
fn engine_progress_counts_and_cancels() {
    for codec in TestCodec::both(4096) {
        let plain = Memory(bytes(8_000_000));
        let len = plain.0.len() as u64;
        let file = Memory(codec.seal_all(&plain.0));
        let view = sealed(&file, &codec);
        let sink = || Sink::new(file.0.len() as u64);
        let progress = Until::new(u64::MAX);
        ENGINE.scan(view, &progress).unwrap();
        assert_eq!(progress.done.load(Ordering::Relaxed), len);
        ENGINE.unseal(view, &sink(), &progress).unwrap();
        assert_eq!(progress.done.load(Ordering::Relaxed), 2 * len);
        ENGINE.seal(&plain, len, &codec, &sink(), &progress).unwrap();
        assert_eq!(progress.done.load(Ordering::Relaxed), 3 * len);

        type Work<'a> = &'a dyn Fn(&Until) -> chunk_cipher::Result<()>;
        let all: [Work<'_>; 3] = [
            &|progress| ENGINE.scan(view, progress).map(drop),
            &|progress| ENGINE.unseal(view, &sink(), progress),
            &|progress| ENGINE.seal(&plain, len, &codec, &sink(), progress),
        ];
        for work in all {
            let progress = Until::new(1);
            assert!(matches!(work(&progress), Err(Error::Cancelled)));
            // Every thread stops after the group it is at.
            assert!(progress.done.load(Ordering::Relaxed) < len);
        }
        // A small file as well.
        let small = Memory(codec.seal_all(b"small"));
        assert!(matches!(
            ENGINE.scan(sealed(&small, &codec), &Until::new(1)),
            Err(Error::Cancelled)
        ));
    }
}

#[test]
fn engine_source_shorter_than_said_has_changed() {
    let codec = TestCodec::new(4096);
    for len in [0, 100, 1_000_000] {
        let plain = Memory(bytes(len));
        let sink = Sink::new(codec.layout().stored_len(len as u64 + 1).unwrap());
        let result = ENGINE.seal(&plain, len as u64 + 1, &codec, &sink, &());
        assert!(matches!(result, Err(Error::Changed)), "{result:?}");
    }
    assert!(matches!(
        ENGINE.seal(&Memory(Vec::new()), u64::MAX, &codec, &Sink::new(0), &()),
        Err(Error::TooLong)
    ));
}

/// Fails to read one byte.
#[derive(Debug)]
struct BadSector {
    file: Memory,
    at: u64,
}

impl ReadAt for BadSector {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if (offset..offset + buf.len() as u64).contains(&self.at) {
            buf.fill(0x77);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file.read_exact_at(offset, buf)
    }
}

#[test]
fn engine_failing_reads_name_the_offset() {
    let codec = TestCodec::new(4096);
    for plain_len in [10_000, 3_000_000] {
        let file = Memory(codec.seal_all(&bytes(plain_len)));
        let at = HEADER_LEN.into();
        let bad = BadSector { at, file };
        let view = Sealed::new(&bad, &codec, bad.len().unwrap());
        let mut out = vec![0xaa; plain_len];
        let error = ENGINE.read_into(view, 0, &mut out).unwrap_err();
        assert!(out.iter().all(|byte| *byte == 0));
        assert!(error.to_string().contains("at offset 18"), "{error}");
        for error in [error, ENGINE.scan(view, &()).unwrap_err()] {
            let Error::Read { offset, len, source } = error else {
                panic!("{error:?}")
            };
            assert_eq!((offset, source.raw_os_error()), (at, Some(libc::EIO)));
            assert!(len > 4096);
        }
    }
}

/// A disk with room for so many bytes.
#[derive(Debug)]
struct Full(u64);

impl WriteAt for Full {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let fits = offset + buf.len() as u64 <= self.0;
        if fits {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }
    }
}

#[test]
fn engine_failing_writes_name_the_offset() {
    let codec = TestCodec::new(4096);
    let plain = Memory(bytes(2_000_000));
    let file = Memory(codec.seal_all(&plain.0));
    for room in [0, 1_000_000] {
        let sealing = ENGINE.seal(&plain, plain.0.len() as u64, &codec, &Full(room), &());
        let unsealing = ENGINE.unseal(sealed(&file, &codec), &Full(room), &());
        for result in [sealing, unsealing] {
            let Err(Error::Write { offset, len, source }) = result else {
                panic!("{result:?}")
            };
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);
            assert!(offset + len as u64 > room);
        }
    }
}

/// Panics at one chunk.
#[derive(Debug)]
struct Panics(TestCodec);

impl Codec for Panics {
    fn layout(&self) -> Layout {
        self.0.layout()
    }

    fn nonce_len(&self) -> usize {
        self.0.nonce_len()
    }

    fn open_chunk(
        &self,
        index: u64,
        stored: &[u8],
        tag: &[u8],
        plain: &mut [u8],
    ) -> chunk_cipher::Result<()> {
        assert_ne!(index, 3, "as the test wants");
        self.0.open_chunk(index, stored, tag, plain)
    }

    fn seal_chunk(&self, _: u64, _: &[u8], _: &[u8], _: &mut [u8], _: &mut [u8]) -> chunk_cipher::Result<()> {
        unreachable!("nothing is sealed")
    }
}

#[test]
fn engine_output_is_zeroed_when_a_codec_panics() {
    let codec = Panics(TestCodec::new(4096));
    for len in [20_000, 2_000_000] {
        let file = Memory(codec.0.seal_all(&bytes(len)));
        let mut out = vec![0xaa; len];
        let view = Sealed::new(&file, &codec, file.0.len() as u64);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ENGINE.read_into(view, 0, &mut out).unwrap();
        }));
        assert!(result.is_err());
        assert!(out.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn engine_pools_of_every_kind() {
    let codec = TestCodec::new(4096);
    let plain = bytes(3_000_000);
    let file = Memory(codec.seal_all(&plain));
    let rayon = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let check = |engine: &Engine| {
        let mut out = vec![0; plain.len()];
        engine.read_into(sealed(&file, &codec), 0, &mut out).unwrap();
        assert!(out == plain);
    };
    let engines = [
        Engine::default(),
        Engine::new(Pool::with_threads(1)),
        Engine::new(Pool::with_threads(4)),
        Engine::new(Pool::from_rayon(Arc::clone(&rayon))),
    ];
    for engine in &engines {
        assert!(engine.pool().threads().unwrap() > 0);
        check(engine);
        // From within a pool, that or another one, on every thread of it at once.
        rayon.install(|| check(engine));
        rayon.broadcast(|_| check(engine));
        // From within the engine's own pool.
        engine
            .pool()
            .run(|| rayon::join(|| check(engine), || check(engine)))
            .unwrap();
    }
    // From many threads, on one pool.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| check(&engines[1]));
        }
    });
}
