//! Packing that is killed: never taken for a package, gone on with, and nothing sealed twice under one file ID.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, UNIX_EPOCH};

use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;
use chunk_cipher::store::{Attributes, LocalStore, Source, WriteStore};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use sam_format::{ChunkLen, Error, FileId, Header, PARTIAL_NAME, PackageWriter, Result, check_entry};

#[path = "common/sample.rs"]
mod sample;

use sample::{
    ENGINE, ID, KEY, LOG_N, Memory, Node, Sample, Tree, attributes, bytes, dir, file, link, read, terms,
};

/// Where the child is to pack.
const DIR: &str = "SAM_PACKING_TEST_DIR";
/// Runs that are killed before they are done.
const KILLS: usize = 40;
const PENDING: &str = ".chunk-cipher-pending-";

/// Many files of all lengths.
fn model() -> Tree {
    let mut tree = vec![
        dir("layers"),
        link("latest", "layers/1"),
        file("empty", Vec::new()),
    ];
    for n in 0..40 {
        tree.push(file(
            &format!("layers/{n}"),
            bytes(n, 997 * usize::try_from(n).unwrap()),
        ));
    }
    tree.push(file("big", bytes(100, 12 << 20)));
    tree.push(file("as big", bytes(101, 12 << 20)));
    tree
}

/// Packs the model into `dir`, or goes on with it. Returns how many files an earlier run had finished.
fn pack(dir: &Path) -> Result<usize> {
    let store = LocalStore::open(dir).unwrap();
    let engine = ENGINE.clone();
    let writer = if dir.join(PARTIAL_NAME).exists() {
        PackageWriter::resume(store, KEY, DEFAULT_SCRYPT_MEMORY, engine)?
    } else {
        // The run may have ended before there was anything to go on with.
        store.remove_leftovers().unwrap();
        PackageWriter::create(store, KEY, ChunkLen::default(), LOG_N, engine)?
    };
    let tree = model();
    let attributes = attributes();
    for (path, node) in &tree {
        match node {
            Node::Dir => writer.create_dir(path)?,
            Node::Link(target) => writer.write_symlink(path, target, &attributes)?,
            Node::File(_) => {}
        }
    }
    let kept = ENGINE.pool().run(|| {
        let kept = tree.par_iter().map(|(path, node)| {
            let Node::File(content) = node else { return Ok(0) };
            let source = Memory(content.clone());
            let source = Source {
                content: &source,
                len: content.len() as u64,
                attributes: &attributes,
                unchanged: &|| true,
            };
            if writer.existing(path)?.is_some() {
                if writer.is_complete(path, &source, &())? {
                    return Ok(1);
                }
                writer.remove(path)?;
            }
            writer.write_file(path, &source, &())?;
            Ok(0)
        });
        kept.try_reduce(|| 0, |a, b| Ok::<_, Error>(a + b))
    })??;
    writer.finish_dir(b"layers", &attributes)?;
    writer.finish_dir(b"", &attributes)?;
    writer.finish(KEY, &terms(), &sample::ISSUER)?;
    Ok(kept)
}

#[test]
#[ignore = "the process that is killed: started by the tests beside it"]
fn child() {
    let dir = std::env::var_os(DIR).expect("started by the tests beside it");
    pack(Path::new(&dir)).unwrap();
}

/// When a run is to be killed.
#[derive(Clone, Copy, Debug)]
enum When {
    Files(usize),
    Pending(u64),
    Manifest,
}

/// Points spread over a whole run, again and again: some runs are done before they are killed.
fn points() -> impl Iterator<Item = When> {
    let files = (0..8).map(|n| When::Files(n * 6));
    let pending = (0..8).map(|n| When::Pending(1 + n * (3 << 20)));
    files
        .chain(pending)
        .chain([When::Manifest])
        .cycle()
        .take(6 * KILLS)
}

/// Starts a run in `dir` and kills it once it has come that far.
fn kill_when(dir: &Path, when: When) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&mut child, dir, when);
    // It may have ended since.
    let _ = child.kill();
    child.wait().unwrap();
}

fn wait_for(child: &mut Child, dir: &Path, when: When) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let (files, pending) = progress(dir);
        let reached = match when {
            When::Files(count) => files >= count && dir.join(PARTIAL_NAME).exists(),
            When::Pending(bytes) => pending >= bytes,
            When::Manifest => dir.join("manifest.json").exists(),
        };
        if reached || child.try_wait().unwrap().is_some() {
            return;
        }
        assert!(Instant::now() < deadline, "{when:?} never came");
        sleep(Duration::from_micros(100));
    }
}

/// The number of files with a name, and the bytes in those without.
fn progress(dir: &Path) -> (usize, u64) {
    let (mut files, mut pending) = (0, 0);
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        // Files come and go while this looks.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => todo.push(entry.path()),
                Ok(metadata) if is_pending(&entry.file_name()) => pending += metadata.blocks() * 512,
                Ok(_) => files += 1,
                Err(_) => {}
            }
        }
    }
    (files, pending)
}

fn is_pending(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(PENDING)
}

/// Every stored file that has a name.
fn stored(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.join("content")];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    found
}

fn file_id(stored: &[u8]) -> FileId {
    Header::parse(stored.first_chunk().unwrap()).unwrap().id
}

#[test]
fn packing_survives_being_killed_at_any_point() {
    let (mut killed, mut done) = (0, 0);
    let mut points = points();
    // Goes on with one package until it is done, killed again and again.
    while killed < KILLS {
        let sample = Sample::empty();
        let root = sample.path("");
        let mut ids = HashSet::new();
        loop {
            let before = stored(&root);
            let Some(when) = points.next() else {
                panic!("{killed} runs were killed, {done} were not")
            };
            kill_when(&root, when);
            let after = stored(&root);
            for (path, content) in &before {
                assert!(
                    after[path] == *content,
                    "{when:?}: {} is not kept",
                    path.display()
                );
            }
            // Whatever is there by name is whole, under a file ID of its own.
            for (path, content) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
                assert!(
                    ids.insert(file_id(content)),
                    "{when:?}: {} has the ID of another",
                    path.display()
                );
            }
            match sample.open() {
                Ok(_) => {
                    done += 1;
                    break;
                }
                Err(Error::Incomplete | Error::NotAPackage { .. } | Error::NoLicense) => killed += 1,
                Err(error) => panic!("{when:?}: {error:?}"),
            }
            // Half of them are completed at once, the others are killed again.
            if killed % 2 == 0 {
                let kept = pack(&root).unwrap();
                assert_eq!(kept, after.len(), "{when:?}");
                let complete = stored(&root);
                for (path, content) in &after {
                    assert!(
                        complete[path] == *content,
                        "{when:?}: {} is not kept",
                        path.display()
                    );
                }
                break;
            }
        }
        check_complete(&sample);
    }
}

/// The package opens to the model, and nothing is left over.
fn check_complete(sample: &Sample) {
    let root = sample.path("");
    let package = sample.open().unwrap();
    assert!(sample::damaged(&package).is_empty());
    let mut ids = HashSet::new();
    for (path, node) in model() {
        let path = Path::new(std::str::from_utf8(&path).unwrap()).to_path_buf();
        if let Node::File(content) = node {
            assert!(read(&package, &path).unwrap() == content, "{}", path.display());
            let stored = fs::read(sample.stored(&path)).unwrap();
            assert!(ids.insert(file_id(&stored)));
        }
    }
    let mut names: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    // The very last step removes what a run goes on with; where that was not reached, opening does not mind.
    names.retain(|name| name != PARTIAL_NAME);
    assert_eq!(names, ["content", "licenses", "manifest.json"]);
    let licenses: Vec<_> = fs::read_dir(root.join("licenses"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(licenses, [format!("{ID}.json").as_str()]);
}

#[test]
fn resuming_keeps_only_what_is_right() {
    type Change = fn(&Path);
    let changes: [(&str, Change, usize); 6] = [
        ("nothing", |_| {}, 3),
        ("a bit of a chunk", |path| sample::flip(path, (4096 + 5) * 8), 2),
        (
            "a bit of a tag",
            |path| sample::flip(path, (fs::metadata(path).unwrap().len() - 1) * 8),
            2,
        ),
        (
            "a bit of the reserved header",
            |path| sample::flip(path, 2000 * 8),
            2,
        ),
        ("the magic", |path| sample::flip(path, 0), 2),
        (
            "the last byte",
            |path| {
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_len(fs::metadata(path).unwrap().len() - 1).unwrap();
            },
            2,
        ),
    ];
    let tree = vec![
        file("a", bytes(1, 10_000)),
        file("b", bytes(2, 10_000)),
        file("c", Vec::new()),
    ];
    for (what, change, expected) in changes {
        let sample = Sample::interrupted(&tree);
        let before = stored(&sample.path(""));
        change(&sample.stored("b"));
        assert_eq!(resume(&sample, &tree), expected, "{what}");
        let after = stored(&sample.path(""));
        assert!(before[&sample.stored("a")] == after[&sample.stored("a")]);
        let same_id = file_id(&before[&sample.stored("b")]) == file_id(&after[&sample.stored("b")]);
        assert_eq!(same_id, expected == 3, "{what}");
        let package = sample.open().unwrap();
        assert!(sample::damaged(&package).is_empty());
        assert!(read(&package, "b").unwrap() == bytes(2, 10_000));
    }
    // A source that is another one now, in length or in one byte.
    let mut other = bytes(2, 10_000);
    other[9_999] ^= 1;
    for content in [bytes(2, 9_999), bytes(2, 10_001), other] {
        let sample = Sample::interrupted(&tree);
        let before = file_id(&fs::read(sample.stored("b")).unwrap());
        let changed = vec![
            file("a", bytes(1, 10_000)),
            file("b", content.clone()),
            file("c", Vec::new()),
        ];
        assert_eq!(resume(&sample, &changed), 2);
        assert_ne!(file_id(&fs::read(sample.stored("b")).unwrap()), before);
        assert!(read(&sample.open().unwrap(), "b").unwrap() == content);
    }
}

/// Somebody copied one stored file over another of the same content: no two files may have one file ID.
#[test]
fn a_copied_file_id_is_not_kept() {
    let tree = vec![file("a", bytes(1, 10_000)), file("b", bytes(1, 10_000))];
    let sample = Sample::interrupted(&tree);
    fs::copy(sample.stored("a"), sample.stored("b")).unwrap();
    assert_eq!(resume(&sample, &tree), 1);
    let after = stored(&sample.path(""));
    assert_ne!(
        file_id(&after[&sample.stored("a")]),
        file_id(&after[&sample.stored("b")])
    );
    let package = sample.open().unwrap();
    assert!(sample::damaged(&package).is_empty());
    assert!(read(&package, "b").unwrap() == bytes(1, 10_000));
}

/// While it is made a package is for its owner alone; then everybody may read it, as all of it is sealed or signed.
#[test]
fn a_finished_package_is_public() {
    let sample = Sample::new(&sample::tree());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for dir in ["", "licenses", "content", "content/layers"] {
        assert_eq!(mode(&sample.path(dir)), 0o755, "{dir:?}");
    }
    for file in ["manifest.json", "content/config.json", "content/layers/a"] {
        assert_eq!(mode(&sample.path(file)), 0o644, "{file:?}");
    }
}

/// What no package can hold is refused before anything is sealed for it.
#[test]
fn entries_out_of_bounds_are_refused_at_once() {
    let limit = Duration::from_secs((1 << 53) - 1);
    let (last, beyond) = (UNIX_EPOCH + limit, UNIX_EPOCH + limit + Duration::from_secs(1));
    let link = Some(&b"../f"[..]);
    assert!(check_entry(b"d/l", Some(last), link).is_ok());
    assert!(check_entry(b"", None, None).is_ok());
    for (path, modified, target) in [
        (&b"d/l"[..], Some(beyond), None),
        (b"d/l", Some(UNIX_EPOCH - limit - Duration::from_secs(1)), None),
        (b"l", None, link),
        (b"d//l", None, None),
    ] {
        let error = check_entry(path, modified, target).unwrap_err();
        assert!(matches!(error, Error::Entry { .. }), "{error:?}");
    }
    let sample = Sample::empty();
    let writer =
        PackageWriter::create(sample.store.clone(), KEY, ChunkLen::MIN, LOG_N, ENGINE.clone()).unwrap();
    let attributes = Attributes {
        modified: Some(beyond),
        ..attributes()
    };
    let source = Source {
        content: &Memory(bytes(1, 5000)),
        len: 5000,
        attributes: &attributes,
        unchanged: &|| true,
    };
    let error = writer.write_file(b"f", &source, &()).unwrap_err();
    assert!(matches!(error, Error::Entry { .. }), "{error:?}");
    assert!(stored(&sample.path("")).is_empty());
}

/// Goes on with a package of files only. Returns how many of them were kept.
fn resume(sample: &Sample, tree: &Tree) -> usize {
    let writer =
        PackageWriter::resume(sample.store.clone(), KEY, DEFAULT_SCRYPT_MEMORY, ENGINE.clone()).unwrap();
    let attributes = attributes();
    let mut kept = 0;
    for (path, node) in tree {
        let Node::File(content) = node else {
            unreachable!("files only")
        };
        let source = Memory(content.clone());
        let source = Source {
            content: &source,
            len: content.len() as u64,
            attributes: &attributes,
            unchanged: &|| true,
        };
        assert!(writer.existing(path).unwrap().is_some());
        if writer.is_complete(path, &source, &()).unwrap() {
            kept += 1;
        } else {
            writer.remove(path).unwrap();
            writer.write_file(path, &source, &()).unwrap();
        }
    }
    writer.finish_dir(b"", &attributes).unwrap();
    writer.finish(KEY, &terms(), &sample::ISSUER).unwrap();
    kept
}

#[test]
fn only_the_owner_goes_on_and_only_where_something_was_begun() {
    let tree = vec![file("a", bytes(1, 100))];
    let resume = |sample: &Sample, key| {
        PackageWriter::resume(sample.store.clone(), key, DEFAULT_SCRYPT_MEMORY, ENGINE.clone()).map(drop)
    };
    let sample = Sample::interrupted(&tree);
    assert!(matches!(resume(&sample, b"another key"), Err(Error::WrongKey)));
    let create = PackageWriter::create(sample.store.clone(), KEY, ChunkLen::MIN, LOG_N, ENGINE.clone());
    assert!(matches!(create, Err(Error::NotEmpty { .. })));
    resume(&sample, KEY).unwrap();
    assert!(matches!(
        resume(&Sample::empty(), KEY),
        Err(Error::NotAPackage { .. })
    ));
    assert!(matches!(resume(&Sample::new(&tree), KEY), Err(Error::Complete)));
}

#[test]
fn a_source_that_changes_makes_no_file() {
    let sample = Sample::empty();
    let writer =
        PackageWriter::create(sample.store.clone(), KEY, ChunkLen::MIN, LOG_N, ENGINE.clone()).unwrap();
    let (content, attributes) = (Memory(bytes(1, 5000)), attributes());
    for (len, unchanged) in [(5000, false), (5001, true)] {
        let source = Source {
            content: &content,
            len,
            attributes: &attributes,
            unchanged: &|| unchanged,
        };
        let error = writer.write_file(b"f", &source, &()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::File {
                    source: chunk_cipher::Error::Changed,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(stored(&sample.path("")).is_empty());
        assert_eq!(progress(&sample.path("")), (1, 0));
    }
}
