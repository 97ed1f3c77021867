//! Reads before and after fork(2). One test only, so that no other thread of the harness is at work meanwhile.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use chunk_cipher::store::{LocalFile, ReadAt, ReadMode};
use chunk_cipher::{Engine, Pool, Sealed};

#[path = "common/codec.rs"]
mod codec;

use codec::{TestCodec, bytes};

/// Runs `work` in a child process, and returns whether it did what it should there.
fn in_child(work: impl FnOnce()) -> bool {
    // SAFETY: the child only reads, on threads of its own, and leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("no fork"),
        0 => {
            // SAFETY: plain calls without memory; a child that hangs is ended.
            unsafe { libc::alarm(120) };
            let done = catch_unwind(AssertUnwindSafe(work)).is_ok();
            // SAFETY: as above.
            unsafe { libc::_exit(if done { 42 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is live.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42
        }
    }
}

#[test]
fn reads_survive_a_fork() {
    let (codec, plain) = (TestCodec::new(4096), bytes(3 << 20));
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = temp.path().join("sealed");
    fs::write(&path, codec.seal_all(&plain)).unwrap();
    let open = |mode| LocalFile::new(File::open(&path).unwrap(), mode).unwrap();

    for mode in [ReadMode::Auto, ReadMode::Copy] {
        for engine in [Engine::default(), Engine::new(Pool::with_threads(2))] {
            let file = open(mode);
            let check = |file: &LocalFile, engine: &Engine| {
                let mut out = vec![0; plain.len()];
                engine
                    .read_into(Sealed::new(file, &codec, file.len().unwrap()), 0, &mut out)
                    .unwrap();
                assert!(out == plain);
            };
            let check_all = || {
                check(&file, &engine);
                check(&open(mode), &engine);
                check(&file, &Engine::new(Pool::with_threads(2)));
            };
            // Before anything made a pool, after, and in a child of a child.
            assert!(in_child(check_all));
            check_all();
            assert!(in_child(check_all));
            assert!(in_child(|| {
                check_all();
                assert!(in_child(check_all));
                check_all();
            }));
            check_all();
            // While a read is under way on every thread.
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        check(&file, &engine);
                    }
                });
                for _ in 0..5 {
                    let done = in_child(check_all);
                    assert!(done);
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    }
}
