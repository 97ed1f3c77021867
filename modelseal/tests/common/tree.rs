//! Directory trees: made, looked at and compared.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags, getxattr, listxattr, setxattr, utimensat,
};

/// Lengths around every edge of a block, of a group of blocks and of the parallel path.
pub(crate) const LENGTHS: [usize; 17] = [
    0,
    1,
    15,
    16,
    17,
    4095,
    4096,
    4097,
    8191,
    8192,
    8193,
    (128 << 10) - 1,
    128 << 10,
    (128 << 10) + 1,
    1 << 20,
    (1 << 20) + 1,
    (5 << 20) + 123,
];

/// What there is at a path. Times of access and owners are left out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: char,
    pub(crate) mode: u32,
    pub(crate) modified: (i64, i64),
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Content of a file, target of a link.
    pub(crate) content: Vec<u8>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:04o} {:?} {} bytes, xattrs {:?}",
            self.kind,
            self.mode,
            self.modified,
            self.content.len(),
            self.xattrs
        )
    }
}

pub(crate) type Tree = BTreeMap<PathBuf, Node>;

/// Everything at and below `root`; the root itself is the empty path.
pub(crate) fn snapshot(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let kind = metadata.file_type();
        let (kind, content) = if kind.is_dir() {
            todo.extend(names(&full).into_iter().map(|name| path.join(name)));
            ('d', Vec::new())
        } else if kind.is_symlink() {
            ('l', fs::read_link(&full).unwrap().into_os_string().into_vec())
        } else {
            assert!(kind.is_file(), "{}", full.display());
            ('f', fs::read(&full).unwrap())
        };
        let node = Node {
            kind,
            mode: metadata.mode() & 0o7777,
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            xattrs: if kind == 'l' {
                BTreeMap::new()
            } else {
                xattrs(&full)
            },
            content,
        };
        tree.insert(path, node);
    }
    tree
}

/// Names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort_unstable();
    names
}

/// The user's extended attributes; none where there are no such things.
fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut buf = vec![0; 64 << 10];
    let Ok(len) = listxattr(path, &mut buf[..]) else {
        return BTreeMap::new();
    };
    let names = buf[..len].split(|byte| *byte == 0);
    names
        .filter(|name| name.starts_with(b"user."))
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = getxattr(path, name, &mut value[..]).unwrap();
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}

/// Fails at the first difference, without a megabyte of content.
pub(crate) fn assert_same(what: &str, expected: &Tree, actual: &Tree) {
    let missing: Vec<_> = expected
        .keys()
        .filter(|path| !actual.contains_key(*path))
        .collect();
    let added: Vec<_> = actual
        .keys()
        .filter(|path| !expected.contains_key(*path))
        .collect();
    assert!(
        missing.is_empty() && added.is_empty(),
        "{what}: missing {missing:?}, added {added:?}"
    );
    for (path, node) in expected {
        let other = &actual[path];
        let differs = node.content.iter().zip(&other.content).position(|(a, b)| a != b);
        assert!(
            node == other,
            "{what}: {path:?} is {other:?}, should be {node:?}; first difference at {differs:?}"
        );
    }
}

/// Bytes that are the same in each run and differ by `seed`.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes a file, and the directories that it lies in.
pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Sets the time of modification of whatever lies at `path`.
pub(crate) fn set_modified(path: &Path, seconds: i64, nanoseconds: i64) {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        },
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Sets permissions.
pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether files in `dir` can have extended attributes.
pub(crate) fn supports_xattrs(dir: &Path) -> bool {
    match setxattr(dir, "user.probe", b"1", XattrFlags::empty()) {
        Ok(()) => {
            rustix::fs::removexattr(dir, "user.probe").unwrap();
            true
        }
        Err(error) => {
            assert_eq!(error, rustix::io::Errno::NOTSUP);
            eprintln!("SKIPPED: {} has no extended attributes", dir.display());
            false
        }
    }
}

/// Makes a tree that has everything a vault can hold. It comes out the same wherever it is made.
pub(crate) fn make_everything(root: &Path, with_xattrs: bool) {
    for len in LENGTHS {
        write(root.join(format!("sizes/{len:07}")), bytes(len as u64, len));
    }
    write(root.join("zeros"), vec![0; 20_000]);
    make_sparse(&root.join("sparse")).unwrap();
    make_names(&root.join("names"));
    for dir in ["empty/a", "empty/b/c"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let deep: PathBuf = (0..30).map(|n| format!("level {n}")).collect();
    write(root.join(&deep).join("bottom"), b"deep");
    make_links(&root.join("links"));
    if with_xattrs {
        for path in ["zeros", "names", "sizes/0000000", "empty/a", ""] {
            let path = root.join(path);
            let all: Vec<u8> = (0..=255).collect();
            for (name, value) in [
                ("user.one", &b"1"[..]),
                ("user.empty", b""),
                ("user.b\u{fc}", &all),
            ] {
                setxattr(&path, name, value, XattrFlags::empty()).unwrap();
            }
        }
    }
    set_attributes(root);
}

/// Files with holes; each becomes so in another way.
fn make_sparse(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    let create = |name: &str| File::create_new(dir.join(name));
    create("head")?.write_all_at(&bytes(1, 5000), 3 * 4096 + 100)?;
    let middle = create("middle")?;
    middle.write_all_at(&bytes(2, 100), 0)?;
    middle.write_all_at(b"x", 1 << 20)?;
    let tail = create("tail")?;
    tail.write_all_at(&bytes(3, 10), 0)?;
    tail.set_len(200_000)?;
    create("all")?.set_len(16 * 4096)?;
    create("all, and a bit")?.set_len(16 * 4096 + 1)?;
    let aligned = create("aligned")?;
    aligned.write_all_at(&bytes(4, 4096), 0)?;
    aligned.set_len(5 * 4096)?;
    let shrunk = create("shrunk")?;
    shrunk.write_all_at(&bytes(5, 100_000), 0)?;
    shrunk.set_len(50_001)?;
    shrunk.set_len(70_000)
}

fn make_names(dir: &Path) {
    let odd: [&[u8]; 20] = [
        b" ",
        b"two words ",
        b"new\nline\r",
        b"\t\x01\x7f",
        b"-rf",
        b"--help",
        b"'\"\\$(x)`*?[",
        b".hidden",
        b"..x",
        b"...",
        b"\xff\xfe\x80 not UTF-8",
        "\u{1f600} \u{e9} e\u{301}".as_bytes(),
        b"gocryptfs.conf",
        b"gocryptfs.conf.partial",
        b"gocryptfs.diriv",
        b"gocryptfs.longname.x",
        b"gocryptfs.longname.x.name",
        b".modelseal-partial",
        b".chunk-cipher-pending-0123456789abcdef",
        b"0123456789abcdef",
    ];
    for name in odd {
        write(dir.join(OsStr::from_bytes(name)), name);
    }
    // 62 and 100 encrypted bytes are between these, 255 are between 175 and 176.
    for len in [31, 32, 47, 48, 63, 64, 79, 80, 175, 176, 177, 255] {
        write(dir.join("n".repeat(len)), len.to_string());
    }
    let long = dir.join("long").join("d".repeat(200));
    write(long.join("e".repeat(220)).join("file"), b"in long directories");
    fs::create_dir(long.join("f".repeat(255))).unwrap();
    symlink("target", long.join("l".repeat(190))).unwrap();
}

fn make_links(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let far = "../links/".repeat(330) + "far";
    for (name, target) in [
        ("relative", "../zeros"),
        ("directory", "../names"),
        ("absolute", "/etc/hostname"),
        ("dangling", "no/such/thing"),
        ("dangling, absolute", "/no/such/thing"),
        ("itself", "itself"),
        ("odd", " \n\u{e9}\\"),
        ("far", &far),
    ] {
        symlink(target, dir.join(name)).unwrap();
    }
}

/// Gives every entry a mode and a time of its own. Directories come last, as they change with what is in them.
fn set_attributes(root: &Path) {
    let mut paths = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        let full = root.join(&path);
        if fs::symlink_metadata(&full).unwrap().is_dir() {
            paths.extend(names(&full).into_iter().map(|name| path.join(name)));
        }
    }
    let times = [
        (0, 0),
        (0, 1),
        (1_000_000_000, 999_999_999),
        (1 << 33, 5),
        (1_700_000_000, 123_456_789),
    ];
    for (n, path) in paths.iter().enumerate().rev() {
        let full = root.join(path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let modes: &[u32] = match () {
            () if metadata.is_dir() => &[0o755, 0o700, 0o500, 0o777],
            () if metadata.is_symlink() => &[],
            () => &[0o644, 0o600, 0o400, 0o755, 0o777],
        };
        if !modes.is_empty() {
            set_mode(&full, modes[n % modes.len()]);
        }
        let (seconds, nanoseconds) = times[n % times.len()];
        set_modified(&full, seconds, nanoseconds);
    }
}

/// Inverts one bit of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 1;
    let mode = fs::metadata(path).unwrap().mode();
    set_mode(path, 0o600);
    fs::write(path, content).unwrap();
    set_mode(path, mode);
}
