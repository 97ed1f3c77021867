//! Memory beyond the caller's buffer is a constant a thread, whatever the size of the file. One test only, as it
//! measures the whole process.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::sync::atomic::{AtomicU64, Ordering};

use chunk_cipher::store::{LocalFile, ReadMode};
use chunk_cipher::{Codec, Engine, Error, Layout, Pool, Result, Scan, Sealed};

const THREADS: u64 = 3;
const LAYOUT: Layout = Layout::new(18, 4096, 32);
const LEN: u64 = 600 << 20;
/// What is read at a time, in bytes.
const PART: usize = 32 << 20;
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Memory of this process that is not a file's, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    };
    field("RssAnon:") + field("RssShmem:")
}

/// A file that was never written to: half of its chunks are holes, the others damaged, a thousand at a time.
#[derive(Debug, Default)]
struct Unwritten {
    all_sound: bool,
    peak: AtomicU64,
    opened: AtomicU64,
}

impl Codec for Unwritten {
    fn layout(&self) -> Layout {
        LAYOUT
    }

    fn nonce_len(&self) -> usize {
        16
    }

    fn open_chunk(&self, index: u64, stored: &[u8], _: &[u8], plain: &mut [u8]) -> Result<()> {
        assert!(stored.len() == 4096 + 32 && stored[100] == 0);
        if self.opened.fetch_add(1, Ordering::Relaxed).is_multiple_of(1024) {
            self.peak.fetch_max(resident(), Ordering::Relaxed);
        }
        plain.fill(if self.all_sound { 1 } else { 0 });
        if !self.all_sound && index / 1000 % 2 == 1 {
            Err(Error::Chunk { chunk: index })
        } else {
            Ok(())
        }
    }

    fn seal_chunk(&self, _: u64, _: &[u8], _: &[u8], _: &mut [u8], _: &mut [u8]) -> Result<()> {
        unreachable!("nothing is sealed")
    }

    fn is_hole(&self, _: &[u8]) -> bool {
        !self.all_sound
    }
}

#[test]
fn memory_is_a_constant_a_thread() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = temp.path().join("unwritten");
    let stored_len = LAYOUT.stored_len(LEN).unwrap();
    File::create(&path).unwrap().set_len(stored_len).unwrap();
    // What is mapped of a tmpfs counts as shared memory, though it is the file's.
    let on_tmpfs = rustix::fs::statfs(&path).unwrap().f_type == TMPFS_MAGIC;
    let modes: &[_] = if on_tmpfs {
        &[ReadMode::Copy]
    } else {
        &[ReadMode::Auto, ReadMode::Copy]
    };

    let engine = Engine::new(Pool::with_threads(3));
    engine.pool().threads().unwrap();
    let mut out = vec![1; PART];
    for mode in modes {
        let file = LocalFile::new(File::open(&path).unwrap(), *mode).unwrap();
        let before = resident();
        assert!(before > PART as u64, "the caller's buffer counts");
        let sound = Unwritten {
            all_sound: true,
            ..Unwritten::default()
        };
        let view = Sealed::new(&file, &sound, stored_len);
        assert_eq!(view.len(), LEN);
        for offset in (0..LEN - PART as u64).step_by(PART) {
            engine.read_into(view, offset + 5, &mut out).unwrap();
        }
        assert_eq!(engine.scan(view, &()).unwrap(), Scan::default());
        let damaged = Unwritten::default();
        let scan = engine
            .scan(Sealed::new(&file, &damaged, stored_len), &())
            .unwrap();
        assert_eq!((scan.damaged.len(), scan.holes.len()), (77, 77));
        for peak in [sound.peak, damaged.peak].map(AtomicU64::into_inner) {
            assert!(peak > PART as u64, "nothing was measured");
            let grown = peak.saturating_sub(before);
            assert!(
                grown < THREADS * (8 << 20),
                "{mode:?}: grew by {} KiB",
                grown >> 10
            );
        }
    }
}
