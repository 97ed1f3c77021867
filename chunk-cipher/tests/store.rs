//! Directories of the local file system: nothing outside of them is opened, nothing half-written is seen.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use chunk_cipher::store::{
    Attributes, Kind, LocalFile, LocalStore, PendingFile, ReadAt, ReadMode, Store, WriteAt, WriteStore,
};
use tempfile::TempDir;

/// A directory with something of every kind in it, and a secret next to it that links lead to.
fn tree() -> (TempDir, LocalStore) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::create_dir(temp.path().join("outside")).unwrap();
    fs::write(temp.path().join("outside/secret"), b"secret").unwrap();
    fs::write(root.join("file"), b"content").unwrap();
    fs::write(root.join("dir/sub/file"), b"nested").unwrap();
    symlink("file", root.join("to-file")).unwrap();
    symlink("dir", root.join("to-dir")).unwrap();
    symlink("../outside", root.join("to-outside")).unwrap();
    symlink("../../outside/secret", root.join("dir/to-secret")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let store = LocalStore::open(&root).unwrap();
    (temp, store)
}

/// Paths that lead through a link, or out of the directory.
const FORBIDDEN: [&str; 11] = [
    "to-dir/sub/file",
    "to-dir/sub",
    "to-outside/secret",
    "dir/../to-outside/secret",
    "..",
    "../outside/secret",
    "dir/..",
    "dir/../file",
    "dir/sub/../../../outside/secret",
    "/",
    "/etc/passwd",
];

#[test]
fn store_opens_files_where_they_are() {
    let (_temp, store) = tree();
    for (path, content) in [
        ("file", "content"),
        ("dir/sub/file", "nested"),
        ("./dir//sub/./file", "nested"),
    ] {
        let file = store.open(Path::new(path)).unwrap();
        assert_eq!(file.len().unwrap(), content.len() as u64);
        assert!(!file.is_empty().unwrap());
        let mut out = vec![0; content.len() - 1];
        file.read_exact_at(1, &mut out).unwrap();
        assert_eq!(out, content.as_bytes()[1..]);
        let error = file.read_exact_at(2, &mut out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    assert_eq!(
        store.open(Path::new("none")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert!(LocalStore::open("/none/such").is_err());
}

#[test]
fn store_follows_no_link_and_stays_inside() {
    let (temp, store) = tree();
    let attributes = Attributes {
        mode: Some(0),
        ..Attributes::default()
    };
    for path in FORBIDDEN.map(Path::new) {
        assert!(store.open(path).is_err(), "{path:?}");
        assert!(store.metadata(path).is_err(), "{path:?}");
        assert!(store.xattrs(path).is_err(), "{path:?}");
        assert!(store.list(path).is_err(), "{path:?}");
        assert!(store.read_link(path).is_err(), "{path:?}");
        assert!(store.create_dir(path).is_err(), "{path:?}");
        assert!(store.create_symlink(b"target", path).is_err(), "{path:?}");
        assert!(store.set_attributes(path, &attributes).is_err(), "{path:?}");
        assert!(
            store
                .create(path)
                .unwrap()
                .commit(&Attributes::default())
                .is_err(),
            "{path:?}"
        );
        assert!(store.remove_file(path).is_err(), "{path:?}");
        assert!(store.rename(Path::new("file"), path).is_err(), "{path:?}");
        assert!(store.rename(path, Path::new("new")).is_err(), "{path:?}");
    }
    // A slash at the end would make the system follow a link.
    for path in ["to-file/", "to-dir/"].map(Path::new) {
        assert!(store.open(path).is_err() && store.list(path).is_err());
        assert_eq!(store.metadata(path).unwrap().kind, Kind::Symlink);
    }
    // The links themselves are seen, not opened.
    for (path, target) in [
        ("to-file", "file"),
        ("to-outside", "../outside"),
        ("dir/to-secret", "../../outside/secret"),
    ] {
        let path = Path::new(path);
        assert_eq!(store.metadata(path).unwrap().kind, Kind::Symlink);
        assert_eq!(store.read_link(path).unwrap(), target.as_bytes());
        assert_eq!(store.xattrs(path).unwrap(), []);
        assert!(store.open(path).is_err());
        assert!(store.list(path).is_err());
    }
    assert!(store.read_link(Path::new("file")).is_err());
    assert_eq!(fs::read(temp.path().join("outside/secret")).unwrap(), b"secret");
    assert_eq!(fs::read(temp.path().join("root/file")).unwrap(), b"content");
    assert_eq!(fs::read_dir(temp.path().join("outside")).unwrap().count(), 1);
}

#[test]
fn store_pipes_and_directories_are_no_files() {
    // Without a writer on the other side, a blocking open of the pipe would never return.
    let (temp, store) = tree();
    assert!(store.open(Path::new("pipe")).is_err());
    assert_eq!(store.metadata(Path::new("pipe")).unwrap().kind, Kind::Other);
    assert_eq!(store.xattrs(Path::new("pipe")).unwrap(), []);
    store
        .set_attributes(
            Path::new("pipe"),
            &Attributes {
                mode: Some(0o777),
                ..Attributes::default()
            },
        )
        .unwrap();
    assert!(store.open(Path::new("dir")).is_err());
    assert!(store.open(Path::new("")).is_err());
    let dir = fs::File::open(temp.path()).unwrap();
    assert!(LocalFile::new(dir, ReadMode::Auto).is_err());
}

#[test]
fn store_lists_and_describes() {
    let (temp, store) = tree();
    let listed = |path: &str| {
        let mut entries = store.list(Path::new(path)).unwrap();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    };
    let expected = [
        ("dir", Kind::Dir),
        ("file", Kind::File),
        ("pipe", Kind::Other),
        ("to-dir", Kind::Symlink),
        ("to-file", Kind::Symlink),
        ("to-outside", Kind::Symlink),
    ];
    assert_eq!(
        listed(""),
        expected.map(|(name, kind)| (OsString::from(name), kind))
    );
    assert_eq!(listed("."), listed(""));
    assert_eq!(listed("dir/sub"), [(OsString::from("file"), Kind::File)]);
    assert!(store.list(Path::new("file")).is_err());

    let file = temp.path().join("root/file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    let metadata = store.metadata(Path::new("file")).unwrap();
    assert_eq!(
        (metadata.kind, metadata.len, metadata.mode),
        (Kind::File, 7, 0o4751)
    );
    assert_eq!(
        metadata.modified,
        fs::metadata(&file).unwrap().modified().unwrap()
    );
    assert_eq!(store.metadata(Path::new("")).unwrap().kind, Kind::Dir);
    assert_eq!(store.metadata(Path::new("dir")).unwrap().kind, Kind::Dir);
}

#[test]
fn store_writes_attributes_and_reads_them_back() {
    let (_temp, store) = tree();
    let epoch = SystemTime::UNIX_EPOCH;
    let nanoseconds = Duration::from_nanos(1);
    for (n, modified) in [
        epoch,
        epoch + Duration::new(1_700_000_000, 123_456_789),
        epoch - nanoseconds,
        epoch - Duration::from_millis(1500),
        epoch - Duration::from_secs(86_400 * 365),
    ]
    .into_iter()
    .enumerate()
    {
        for mode in [0o400, 0o640, 0o2755, 0o1777] {
            let attributes = Attributes {
                mode: Some(mode),
                modified: Some(modified),
                xattrs: Vec::new(),
            };
            let path = format!("dir/new-{n}-{mode:o}");
            let path = Path::new(&path);
            let pending = store.create(path).unwrap();
            pending.write_all_at(0, b"new").unwrap();
            pending.commit(&attributes).unwrap();
            let read = store.metadata(path).unwrap();
            assert_eq!((read.mode, read.modified, read.len), (mode, modified, 3));
        }
        let attributes = Attributes {
            mode: Some(0o750),
            modified: Some(modified),
            xattrs: Vec::new(),
        };
        for path in ["dir/sub", "", "file"] {
            store.set_attributes(Path::new(path), &attributes).unwrap();
            let read = store.metadata(Path::new(path)).unwrap();
            assert_eq!((read.mode, read.modified), (0o750, modified));
        }
        store
            .set_attributes(
                Path::new("to-file"),
                &Attributes {
                    mode: Some(0),
                    ..attributes
                },
            )
            .unwrap();
        assert_eq!(store.metadata(Path::new("to-file")).unwrap().modified, modified);
        assert_eq!(store.metadata(Path::new("file")).unwrap().mode, 0o750);
    }
}

#[test]
fn store_extended_attributes() {
    let (_temp, store) = tree();
    let xattrs = vec![
        (b"user.one".to_vec(), b"\0\xff".to_vec()),
        (b"user.two".to_vec(), vec![b'x'; 2000]),
    ];
    let attributes = Attributes {
        xattrs: xattrs.clone(),
        ..Attributes::default()
    };
    let user = |path: &str| {
        let mut read = store.xattrs(Path::new(path)).unwrap();
        read.retain(|(name, _)| name.starts_with(b"user."));
        read.sort();
        read
    };
    assert_eq!(user("file"), []);
    match store.set_attributes(Path::new("file"), &attributes) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "no extended attributes to test with"
            );
            eprintln!("skipped: the file system has no extended attributes");
            return;
        }
        set => set.unwrap(),
    }
    assert_eq!(user("file"), xattrs);
    store.set_attributes(Path::new("dir"), &attributes).unwrap();
    assert_eq!(user("dir"), xattrs);
    store
        .create(Path::new("new"))
        .unwrap()
        .commit(&attributes)
        .unwrap();
    assert_eq!(user("new"), xattrs);
}

fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

#[test]
fn store_pending_files_are_committed_or_gone() {
    let (temp, store) = tree();
    let root = temp.path().join("root");
    let before = names(&root);

    let pending = store.create(Path::new("dropped")).unwrap();
    pending.write_all_at(3, b"dropped").unwrap();
    assert_eq!(names(&root).len(), before.len() + 1);
    drop(pending);
    assert_eq!(names(&root), before);

    let pending = store.create(Path::new("dir/new")).unwrap();
    pending.set_len(8).unwrap();
    pending.write_all_at(5, b"new").unwrap();
    assert!(!root.join("dir/new").exists());
    pending.commit(&Attributes::default()).unwrap();
    assert_eq!(fs::read(root.join("dir/new")).unwrap(), b"\0\0\0\0\0new");
    assert_eq!(fs::metadata(root.join("dir/new")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(names(&root), before);
}

#[test]
fn store_commit_never_replaces() {
    let (temp, store) = tree();
    let root = temp.path().join("root");
    let before = names(&root);
    for taken in ["file", "dir", "to-file", "to-outside", "pipe"] {
        let pending = store.create(Path::new(taken)).unwrap();
        pending.write_all_at(0, b"intruder").unwrap();
        let error = pending.commit(&Attributes::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{taken}");
        assert_eq!(names(&root), before);
    }
    assert_eq!(fs::read(root.join("file")).unwrap(), b"content");
    let pending = store.create(Path::new("no/such/dir")).unwrap();
    assert!(pending.commit(&Attributes::default()).is_err());
    assert_eq!(names(&root), before);
}

#[test]
fn store_removes_leftovers_and_nothing_else() {
    let (temp, store) = tree();
    let root = temp.path().join("root");
    let before = names(&root);
    // What a process that was killed leaves behind.
    let pending = store.create(Path::new("left")).unwrap();
    let leftover = names(&root)
        .into_iter()
        .find(|name| !before.contains(name))
        .unwrap();
    drop(pending);
    fs::write(root.join(&leftover), b"half").unwrap();
    fs::create_dir(root.join("dir").join(&leftover)).unwrap();
    store.remove_leftovers().unwrap();
    assert_eq!(names(&root), before);
    // A directory of such a name is nobody's leftover.
    fs::create_dir(root.join(&leftover)).unwrap();
    store.remove_leftovers().unwrap();
    assert!(root.join(&leftover).is_dir() && root.join("dir").join(&leftover).is_dir());
}

#[test]
fn store_makes_renames_and_removes() {
    let (temp, store) = tree();
    let root = temp.path().join("root");
    store.create_dir(Path::new("dir/new")).unwrap();
    assert_eq!(fs::metadata(root.join("dir/new")).unwrap().mode() & 0o777, 0o700);
    assert!(store.create_dir(Path::new("dir/new")).is_err());
    store
        .create_symlink(b"\xff/../x", Path::new("dir/new/link"))
        .unwrap();
    assert_eq!(store.read_link(Path::new("dir/new/link")).unwrap(), b"\xff/../x");
    assert!(store.create_symlink(b"x", Path::new("file")).is_err());
    store
        .rename(Path::new("file"), Path::new("dir/new/moved"))
        .unwrap();
    assert_eq!(fs::read(root.join("dir/new/moved")).unwrap(), b"content");
    // Replaces, and replaces links rather than what they point to.
    store
        .rename(Path::new("dir/new/moved"), Path::new("to-outside"))
        .unwrap();
    assert_eq!(store.metadata(Path::new("to-outside")).unwrap().kind, Kind::File);
    assert_eq!(fs::read(temp.path().join("outside/secret")).unwrap(), b"secret");
    store.remove_file(Path::new("to-outside")).unwrap();
    store.remove_file(Path::new("dir/to-secret")).unwrap();
    assert!(store.remove_file(Path::new("dir/to-secret")).is_err());
    assert!(store.remove_file(Path::new("dir")).is_err());
    assert_eq!(fs::read(temp.path().join("outside/secret")).unwrap(), b"secret");
    store.sync().unwrap();
}
