//! What programs read from mounted models: everything, as it was before it was sealed.
//!
//! Without `/dev/fuse` these tests are skipped, with a line that says so; with `CI=true` they fail.
#![allow(clippy::unwrap_used)]

mod common {
    pub(crate) mod command;
    pub(crate) mod gocryptfs;
    pub(crate) mod mount;
    pub(crate) mod tree;
}

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use common::command::{BIG, Place, Run};
use common::gocryptfs;
use common::mount::{FORMATS, Mounted, damage, is_available, ok};
use common::tree::{Tree, assert_same, bytes, make_everything, names, snapshot, supports_xattrs, write};

/// A tree as it is when mounted: nobody may write to it.
fn read_only(mut tree: Tree) -> Tree {
    for node in tree.values_mut() {
        if node.kind != 'l' {
            node.mode &= !0o222;
        }
    }
    tree
}

/// The digests of all files below `dir`, by `sha256sum`.
fn digests(dir: &Path) -> Vec<u8> {
    let script = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    ok(Command::new("sh").args(["-c", script]).current_dir(dir)).stdout
}

#[test]
fn everything_is_there_in_both_formats() {
    if !is_available() {
        return;
    }
    for (n, format) in FORMATS.into_iter().enumerate() {
        let place = Place::new();
        let is_vault = n == 0;
        let source = place.dir("source");
        make_everything(&source, is_vault && supports_xattrs(&source));
        if !is_vault {
            // Links out of a package are none of its.
            fs::remove_dir_all(source.join("links")).unwrap();
            symlink("zeros", source.join("link")).unwrap();
        }
        place.seal("source", "model", &[format, &["--symlinks", "keep"]].concat());
        let mounted = Mounted::new(&place, "model", "at", &[]);
        let expected = read_only(snapshot(&source));
        assert_same("mounted", &expected, &snapshot(&mounted.path("")));
        // What is cached by now is the same.
        assert_same("mounted", &expected, &snapshot(&mounted.path("")));
        assert_eq!(digests(&mounted.path("")), digests(&source));
        let copy = place.path("copy");
        ok(Command::new("cp")
            .arg("-a")
            .args([mounted.path(""), copy.clone()]));
        assert_same("copied", &expected, &snapshot(&copy));
        assert!(!mounted.log().contains("damaged"), "{}", mounted.log());
    }
}

#[test]
fn the_real_gocryptfs_shows_the_same() {
    if !is_available() || !gocryptfs::is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    let theirs =
        gocryptfs::Mount::with_passfile(&place.path("vault"), &place.path("theirs"), &place.path("pw"));
    let ours = Mounted::new(&place, "vault", "ours", &[]);
    assert_eq!(digests(&ours.path("")), digests(&place.path("theirs")));
    drop(theirs);
}

#[test]
fn many_readers_at_the_same_time_read_what_was_sealed() {
    if !is_available() {
        return;
    }
    for format in FORMATS {
        let place = Place::with_model(format);
        let plain = fs::read(place.path("source/weights/big")).unwrap();
        let mounted = Mounted::new(&place, "vault", "at", &[]);
        let path = mounted.path("weights/big");
        thread::scope(|scope| {
            for reader in 0..32 {
                let (plain, path) = (&plain, &path);
                scope.spawn(move || {
                    let file = File::open(path).unwrap();
                    let mut random = bytes(reader, 16 * 40).into_iter();
                    let mut number = |below: usize| {
                        let taken: Vec<_> = random.by_ref().take(8).collect();
                        usize::try_from(u64::from_le_bytes(taken.try_into().unwrap()) % below as u64).unwrap()
                    };
                    for _ in 0..40 {
                        let start = number(BIG);
                        let len = number(2 << 20).min(BIG - start);
                        let mut read = vec![0; len];
                        file.read_exact_at(&mut read, start as u64).unwrap();
                        assert!(read == plain[start..start + len], "{len} bytes at {start}");
                    }
                });
            }
        });
        assert_eq!(fs::read(&path).unwrap(), plain);
    }
}

#[test]
fn files_can_be_mapped() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    let mounted = Mounted::new(&place, "vault", "at", &[]);
    let script = "
import mmap, sys
with open(sys.argv[1], 'rb') as file, open(sys.argv[2], 'rb') as plain:
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view, plain:
        plain = plain.read()
        for start in [len(plain) - 3, 5_000_000, 0]:
            assert view[start:start + 70_000] == plain[start:start + 70_000], start
        assert view[:] == plain
        print(len(view))";
    let mut python = Command::new("python3");
    python.args(["-c", script]);
    python.args([mounted.path("weights/big"), place.path("source/weights/big")]);
    let run = ok(&mut python);
    assert_eq!(run.text().trim(), BIG.to_string());
}

/// The Python that `make setup` provides, with what reads weights. Without it a test is skipped, but not in CI.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    let output = Command::new(&python)
        .args(["-c", "import safetensors.numpy"])
        .output();
    if output.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let lack = format!("{} has no safetensors", python.display());
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{lack}");
    eprintln!("SKIPPED: {lack}");
    None
}

#[test]
fn safetensors_opens_weights() {
    let Some(python) = python().filter(|_| is_available()) else {
        return;
    };
    let python = |script: &str, path: &Path| ok(Command::new(&python).args(["-c", script]).arg(path));
    for format in FORMATS {
        let place = Place::new();
        let make = "
import numpy, safetensors.numpy, sys
weights = {'a': numpy.arange(3_000_000, dtype=numpy.float32).reshape(1500, 2000),
           'b.bias': numpy.arange(7, dtype=numpy.int64)}
safetensors.numpy.save_file(weights, sys.argv[1], metadata={'format': 'np'})";
        python(make, &place.dir("source").join("model.safetensors"));
        place.seal("source", "model", format);
        let mounted = Mounted::new(&place, "model", "at", &[]);
        let read = "
import numpy, sys
from safetensors import safe_open
with safe_open(sys.argv[1], framework='np') as weights:
    assert sorted(weights.keys()) == ['a', 'b.bias'] and weights.metadata() == {'format': 'np'}
    a = numpy.arange(3_000_000, dtype=numpy.float32).reshape(1500, 2000)
    assert numpy.array_equal(weights.get_slice('a')[1000:1001], a[1000:1001])
    assert numpy.array_equal(weights.get_tensor('a'), a)
    print(weights.get_tensor('b.bias').tolist())";
        let run = python(read, &mounted.path("model.safetensors"));
        assert_eq!(run.text().trim(), "[0, 1, 2, 3, 4, 5, 6]");
    }
}

#[test]
fn a_directory_of_ten_thousand_names_is_listed_and_searched() {
    if !is_available() {
        return;
    }
    for format in FORMATS {
        let place = Place::new();
        let name = |n: u32| format!("{n:05}, one of many names that are neither short nor long");
        for n in 0..10_000 {
            write(place.path("source/dir").join(name(n)), b"");
        }
        place.seal("source", "model", format);
        let mounted = Mounted::new(&place, "model", "at", &[]);
        // One by name, before anything is listed.
        assert!(
            fs::metadata(mounted.path("dir").join(name(9_999)))
                .unwrap()
                .is_file()
        );
        let missing = mounted.path("dir/missing");
        for _ in 0..2 {
            assert_eq!(fs::metadata(&missing).unwrap_err().kind(), ErrorKind::NotFound);
        }
        let expected: Vec<std::ffi::OsString> = (0..10_000).map(|n| name(n).into()).collect();
        for _ in 0..2 {
            assert_eq!(names(&mounted.path("dir")), expected);
        }
        for n in [0, 5_000, 9_999] {
            assert!(fs::metadata(mounted.path("dir").join(name(n))).unwrap().is_file());
        }
    }
}

#[test]
fn a_damaged_chunk_is_an_error_and_one_line_and_all_else_reads() {
    if !is_available() {
        return;
    }
    for (format, chunk_len) in FORMATS.into_iter().zip([4096, 64 << 10]) {
        let place = Place::with_model(format);
        damage(&place.stored("vault", "weights/big"));
        let plain = fs::read(place.path("source/weights/big")).unwrap();
        let mounted = Mounted::new(&place, "vault", "at", &[]);
        let file = File::open(mounted.path("weights/big")).unwrap();
        for _ in 0..2 {
            let mut failed = BTreeSet::new();
            for start in (0..BIG).step_by(4096) {
                let mut read = vec![0; 4096.min(BIG - start)];
                match file.read_exact_at(&mut read, start as u64) {
                    Ok(()) => assert!(read == plain[start..start + read.len()], "at {start}"),
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(5), "{error}");
                        failed.insert(start / chunk_len);
                    }
                }
            }
            assert_eq!(failed.len(), 1, "{failed:?}");
            let chunk = failed.first().unwrap();
            let log = mounted.log();
            let lines: Vec<_> = log.lines().filter(|line| line.contains("damaged")).collect();
            assert_eq!(lines.len(), 1, "{log}");
            assert!(lines[0].contains("weights/big"), "{log}");
            assert!(lines[0].contains(&format!("chunk {chunk} ")), "{log}");
        }
        assert_eq!(fs::read(mounted.path("config.json")).unwrap(), b"{\"a\": 1}\n");
        let cat = Run::of(Command::new("cat").arg(mounted.path("weights/big")));
        assert!(cat.fails(1, &["Input/output error"]).stdout.len() < BIG);
    }
}

#[test]
fn a_file_that_has_become_shorter_is_an_error() {
    if !is_available() {
        return;
    }
    let place = Place::with_model(&[]);
    let mounted = Mounted::new(&place, "vault", "at", &[]);
    let path = mounted.path("weights/big");
    assert_eq!(fs::metadata(&path).unwrap().len(), BIG as u64);
    // At the end of a block: nothing else would notice.
    let stored = File::options()
        .write(true)
        .open(place.stored("vault", "weights/big"))
        .unwrap();
    stored.set_len(18 + 100 * (4096 + 32)).unwrap();
    assert_eq!(fs::read(&path).unwrap_err().raw_os_error(), Some(5));
    let log = mounted.log();
    assert!(log.contains("weights/big: it has another length"), "{log}");
}
