//! Reads that borrow the page cache, while others write to the file: the right bytes or an error, and nobody is
//! kept waiting longer than the read takes.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use chunk_cipher::store::{LocalFile, ReadAt, ReadMode};
use chunk_cipher::{Codec, Engine, Error, Layout, Pool, Sealed};
use tempfile::TempDir;

#[path = "common/codec.rs"]
mod codec;

use codec::{HEADER_LEN, TestCodec, bytes};

const CHUNK_LEN: u32 = 4096;
const LEN: usize = 3 << 20;

fn open(path: &Path, mode: ReadMode) -> LocalFile {
    LocalFile::new(File::open(path).unwrap(), mode).unwrap()
}

/// A sealed file in each place where reads can borrow the page cache.
fn places(codec: &TestCodec, plain: &[u8]) -> Vec<(TempDir, PathBuf)> {
    let sealed = codec.seal_all(plain);
    let mut places = Vec::new();
    for dir in [Path::new("/dev/shm"), Path::new(env!("CARGO_TARGET_TMPDIR"))] {
        let Ok(temp) = tempfile::tempdir_in(dir) else {
            continue;
        };
        let path = temp.path().join("sealed");
        fs::write(&path, &sealed).unwrap();
        if open(&path, ReadMode::Auto).windows().is_some() {
            places.push((temp, path));
        }
    }
    if places.is_empty() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "nowhere to borrow the page cache"
        );
        eprintln!("skipped: no file system here lets reads borrow the page cache");
    }
    places
}

/// Whether somebody has a lease on the file, and whether somebody else waits for it.
fn lease(path: &Path) -> (bool, bool) {
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    // The system writes the list in pieces, and a lock that goes in between, of any process, hides another one.
    (0..20)
        .map(|_| {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let mut leases = locks
                .lines()
                .filter(|line| line.contains("LEASE") && line.contains(&inode))
                .peekable();
            (
                leases.peek().is_some(),
                leases.any(|line| line.contains("BREAKING")),
            )
        })
        .fold((false, false), |all, one| (all.0 || one.0, all.1 || one.1))
}

fn check_right_or_refused(result: &chunk_cipher::Result<()>, out: &[u8], plain: &[u8]) {
    match result {
        Ok(()) => assert!(out == plain),
        Err(Error::Changed | Error::Chunk { .. } | Error::Read { .. }) => {
            assert!(out.iter().all(|byte| *byte == 0));
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// Calls `hook` once, in the middle of the read, when the chunk in the middle has just been opened.
struct Hooked<'a, F> {
    codec: &'a TestCodec,
    chunk: u64,
    opened: AtomicUsize,
    hook: F,
}

impl<'a, F: Fn() + Send + Sync> Hooked<'a, F> {
    fn new(codec: &'a TestCodec, hook: F) -> Self {
        Self {
            codec,
            chunk: LEN as u64 / u64::from(CHUNK_LEN) / 2,
            opened: AtomicUsize::new(0),
            hook,
        }
    }
}

impl<F: Fn() + Send + Sync> Codec for Hooked<'_, F> {
    fn layout(&self) -> Layout {
        self.codec.layout()
    }

    fn nonce_len(&self) -> usize {
        self.codec.nonce_len()
    }

    fn segment_len(&self) -> u64 {
        self.codec.segment_len()
    }

    fn open_chunk(
        &self,
        index: u64,
        stored: &[u8],
        tag: &[u8],
        plain: &mut [u8],
    ) -> chunk_cipher::Result<()> {
        self.codec.open_chunk(index, stored, tag, plain)?;
        if index == self.chunk && self.opened.fetch_add(1, Ordering::Relaxed) == 0 {
            (self.hook)();
        }
        Ok(())
    }

    fn seal_chunk(
        &self,
        index: u64,
        nonce: &[u8],
        plain: &[u8],
        stored: &mut [u8],
        tag: &mut [u8],
    ) -> chunk_cipher::Result<()> {
        self.codec.seal_chunk(index, nonce, plain, stored, tag)
    }
}

#[test]
fn store_mapped_reads_are_leased_and_the_lease_ends_with_them() {
    let plain = bytes(LEN);
    let places = TestCodec::both(CHUNK_LEN).map(|codec| {
        let places = places(&codec, &plain);
        places
            .into_iter()
            .map(move |(temp, path)| (codec.is_contiguous(), temp, path))
    });
    for (contiguous, _temp, path) in places.into_iter().flatten() {
        let codec = if contiguous {
            TestCodec::contiguous(CHUNK_LEN)
        } else {
            TestCodec::new(CHUNK_LEN)
        };
        for mode in [ReadMode::Auto, ReadMode::Copy] {
            let file = open(&path, mode);
            let stored_len = file.len().unwrap();
            let hooked = Hooked::new(&codec, || {
                assert_eq!(lease(&path), (mode == ReadMode::Auto, false));
            });
            let mut out = vec![0; LEN];
            let engine = Engine::new(Pool::with_threads(2));
            for _ in 0..2 {
                hooked.opened.store(0, Ordering::Relaxed);
                out.fill(0);
                engine
                    .read_into(Sealed::new(&file, &hooked, stored_len), 0, &mut out)
                    .unwrap();
                assert!(out == plain);
                assert_eq!(hooked.opened.load(Ordering::Relaxed), 1);
                assert_eq!(lease(&path), (false, false));
                // A writer that would rather fail than wait does not have to, though the file is still mapped.
                let writer = OpenOptions::new()
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(&path)
                    .unwrap();
                drop(writer);
            }
            let scan = engine.scan(Sealed::new(&file, &codec, stored_len), &()).unwrap();
            assert_eq!((scan.damaged, scan.holes), (vec![], vec![]));
            assert_eq!(lease(&path), (false, false));
        }
    }
}

/// Long enough for several threads to take the mapping down.
#[test]
fn store_mappings_go_with_their_file() {
    let (codec, plain) = (TestCodec::contiguous(CHUNK_LEN), bytes(33 << 20));
    for (_temp, path) in places(&codec, &plain) {
        let is_mapped = || {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            maps.contains(path.to_str().unwrap())
        };
        for _ in 0..2 {
            let file = open(&path, ReadMode::Auto);
            let mut out = vec![0; plain.len()];
            let view = Sealed::new(&file, &codec, file.len().unwrap());
            Engine::default().read_into(view, 0, &mut out).unwrap();
            assert!(out == plain);
            assert!(is_mapped());
            drop(file);
            assert!(!is_mapped());
        }
    }
}

#[test]
fn store_mapped_reads_end_their_lease_after_damage_too() {
    let (codec, plain) = (TestCodec::new(CHUNK_LEN), bytes(LEN));
    for (_temp, path) in places(&codec, &plain) {
        let middle = u64::from(HEADER_LEN) + 300 * (4096 + 32) + 50;
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&[1, 2, 3], middle)
            .unwrap();
        let file = open(&path, ReadMode::Auto);
        let mut out = vec![0xaa; LEN];
        let view = Sealed::new(&file, &codec, file.len().unwrap());
        let result = Engine::default().read_into(view, 0, &mut out);
        assert!(matches!(result, Err(Error::Chunk { chunk: 300 })));
        assert!(out.iter().all(|byte| *byte == 0));
        assert_eq!(lease(&path), (false, false));
    }
}

#[test]
fn store_mapping_is_not_used_while_somebody_can_write() {
    let (codec, plain) = (TestCodec::new(CHUNK_LEN), bytes(LEN));
    for (_temp, path) in places(&codec, &plain) {
        let file = open(&path, ReadMode::Auto);
        assert!(file.windows().is_some());
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(file.windows().is_none());
        let mut out = vec![0; LEN];
        let view = Sealed::new(&file, &codec, file.len().unwrap());
        Engine::default().read_into(view, 0, &mut out).unwrap();
        assert!(out == plain);
        drop(writer);
        assert!(file.windows().is_some());
        assert!(open(&path, ReadMode::Copy).windows().is_none());
    }
}

#[test]
fn store_mapped_file_may_change_between_reads() {
    let (codec, plain) = (TestCodec::new(CHUNK_LEN), bytes(LEN));
    for (_temp, path) in places(&codec, &plain) {
        let whole = fs::read(&path).unwrap();
        let file = open(&path, ReadMode::Auto);
        let engine = Engine::new(Pool::with_threads(2));
        let read = || {
            let mut out = vec![0xaa; LEN];
            let result = engine.read_into(Sealed::new(&file, &codec, whole.len() as u64), 0, &mut out);
            check_right_or_refused(&result, &out, &plain);
            result
        };
        read().unwrap();
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.set_len(whole.len() as u64 / 2).unwrap();
        drop(writer);
        // Half of the mapping is gone.
        assert!(file.windows().is_none());
        assert!(matches!(read(), Err(Error::Changed)));
        fs::write(&path, vec![3; whole.len()]).unwrap();
        assert!(matches!(read(), Err(Error::Chunk { chunk: 0 })));
        let mut longer = whole.clone();
        longer.extend([0; 5000]);
        fs::write(&path, longer).unwrap();
        read().unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Truncate,
    Rewrite,
}

/// Changes the whole file as soon as nobody hinders it.
fn change(path: &Path, change: Change) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    match change {
        Change::Truncate => file.set_len(0),
        Change::Rewrite => {
            file.write_all_at(&vec![0x5a; usize::try_from(file.metadata()?.len()).unwrap()], 0)
        }
    }
}

#[test]
fn store_files_may_change_in_the_middle_of_a_read() {
    let (codec, plain) = (TestCodec::new(CHUNK_LEN), bytes(LEN));
    for (mode, threads, what) in [
        (ReadMode::Auto, 1, Change::Truncate),
        (ReadMode::Auto, 3, Change::Truncate),
        (ReadMode::Auto, 1, Change::Rewrite),
        (ReadMode::Auto, 3, Change::Rewrite),
        (ReadMode::Copy, 1, Change::Truncate),
        (ReadMode::Copy, 1, Change::Rewrite),
        (ReadMode::Copy, 3, Change::Rewrite),
    ] {
        for (_temp, path) in places(&codec, &plain) {
            let file = open(&path, mode);
            let stored_len = file.len().unwrap();
            let changed = AtomicBool::new(false);
            let mut out = vec![0xaa; LEN];
            thread::scope(|scope| {
                let hooked = Hooked::new(&codec, || {
                    scope.spawn(|| {
                        change(&path, what).unwrap();
                        changed.store(true, Ordering::Release);
                    });
                    // Goes on when the writer is done, or waits for the lease.
                    while !changed.load(Ordering::Acquire) && lease(&path) != (true, true) {
                        thread::yield_now();
                    }
                });
                let engine = Engine::new(Pool::with_threads(threads));
                let result = engine.read_into(Sealed::new(&file, &hooked, stored_len), 0, &mut out);
                check_right_or_refused(&result, &out, &plain);
                if mode == ReadMode::Auto {
                    // The writer had to wait. Whether it would was not yet certain when the window ended, so
                    // that was read once more.
                    result.unwrap();
                    assert_eq!(hooked.opened.load(Ordering::Relaxed), 2);
                } else {
                    assert!(
                        matches!(result, Err(Error::Changed | Error::Chunk { .. })),
                        "{what:?} {result:?}"
                    );
                }
            });
            // The scope ends when the writer has got through: nothing hinders it once the read is over.
            assert!(changed.into_inner());
            assert_eq!(lease(&path), (false, false));
            out.fill(0xaa);
            let again = Engine::default().read_into(Sealed::new(&file, &codec, stored_len), 0, &mut out);
            assert!(
                matches!(again, Err(Error::Changed | Error::Chunk { .. })),
                "{again:?}"
            );
            assert!(out.iter().all(|byte| *byte == 0));
        }
    }
}
