//! Packages read by another implementation: `reader.py`, written from FORMAT.md alone.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chunk_cipher::Engine;
use chunk_cipher::store::{Attributes, LocalStore, Source, Store};
use sam_format::{ChunkLen, HEADER_LEN, IssuerKey, PackageWriter, Terms};
use serde_json::Value;

const LICENSE: &str = "licenses/LD_Demo_0001.json";
const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reader.py");
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
const NONE: [&str; 0] = [];
const KEY: &[u8] = b"0Bn4Q1wwY9fN3P";

/// The Python that `make setup` provides, or that of `MODELSEAL_PYTHON`. Without one a test is skipped, but not in
/// CI.
fn python() -> Option<PathBuf> {
    let provided = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    let python = std::env::var_os("MODELSEAL_PYTHON").map_or_else(provided, PathBuf::from);
    let lack = match Command::new(&python).args(["-c", "import cryptography"]).output() {
        Ok(output) if output.status.success() => return Some(python),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let lack = format!("{} cannot run reader.py: {lack}", python.display());
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{lack}");
    eprintln!("SKIPPED: {lack}");
    None
}

/// Runs the reader, which takes the key from its standard input.
fn read<S: AsRef<OsStr>>(python: &Path, package: &Path, key: Option<&[u8]>, options: &[S]) -> Output {
    let mut child = Command::new(python)
        .arg(READER)
        .arg(package)
        .args(key.map(|_| "--key=/dev/stdin"))
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A reader that refuses before it needs the key has gone by now.
    let _ = child.stdin.take().unwrap().write_all(key.unwrap_or_default());
    child.wait_with_output().unwrap()
}

/// The reader takes the package; what it lists, one entry a line.
#[track_caller]
fn accepted<S: AsRef<OsStr>>(python: &Path, package: &Path, key: Option<&[u8]>, options: &[S]) -> Vec<Value> {
    let output = read(python, package, key, options);
    assert!(output.status.success(), "{output:?}");
    let lines = output.stdout.split_inclusive(|&byte| byte == b'\n');
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The reader refuses the package, for that reason.
#[track_caller]
fn refused<S: AsRef<OsStr>>(python: &Path, package: &Path, key: Option<&[u8]>, options: &[S], why: &str) {
    let output = read(python, package, key, options);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        error.starts_with("refused: ") && error.contains(why),
        "not {why}: {error}"
    );
}

/// A directory and the package made of it.
struct Packed {
    _dir: tempfile::TempDir,
    tree: PathBuf,
    package: PathBuf,
    issuer: IssuerKey,
}

impl Packed {
    fn new(chunk_len: u32, terms: &Terms) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("model");
        plant(&tree, usize::try_from(chunk_len).unwrap());
        let package = dir.path().join("LD_Demo_0001");
        fs::create_dir(&package).unwrap();
        let store = LocalStore::open(&package).unwrap();
        let chunk_len = ChunkLen::new(chunk_len).unwrap();
        let writer = PackageWriter::create(store, KEY, chunk_len, 14, Engine::default()).unwrap();
        pack(&writer, &LocalStore::open(&tree).unwrap(), &tree, Path::new(""));
        let issuer = IssuerKey::generate().unwrap();
        writer.finish(KEY, terms, &issuer).unwrap();
        Self {
            _dir: dir,
            tree,
            package,
            issuer,
        }
    }

    /// With a file of the package changed, the reader refuses it with and without the key, for these reasons.
    #[track_caller]
    fn refused_if(&self, python: &Path, file: &Path, why: [&str; 2], change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.package.join(file);
        let content = fs::read(&file).unwrap();
        let mut changed = content.clone();
        change(&mut changed);
        assert_ne!(changed, content);
        fs::write(&file, changed).unwrap();
        refused(python, &self.package, Some(KEY), &NONE, why[0]);
        refused(python, &self.package, None, &NONE, why[1]);
        fs::write(&file, content).unwrap();
    }
}

/// Terms whose scrypt is quick.
fn terms() -> Terms {
    Terms {
        scrypt_log_n: 14,
        ..Terms::new("LD_Demo_0001")
    }
}

/// A tree with a bit of everything.
fn plant(tree: &Path, chunk: usize) {
    let at = |path: &[u8]| tree.join(OsStr::from_bytes(path));
    for dir in [&b""[..], b"deep", b"deep/er", b"deep-", b"none", b"n\xc3"] {
        fs::create_dir(at(dir)).unwrap();
    }
    let files: [(&[u8], usize); 10] = [
        (b"empty", 0),
        (b"one", 1),
        (b"exact", chunk),
        (b"twin", chunk),
        (b"three", 3 * chunk),
        (b"more", 3 * chunk + 1),
        (b"deep/segments", (2 << 20) + 5),
        ("deep/er/\u{e9}\u{1d11e}\u{ffee}".as_bytes(), chunk - 1),
        (b"deep/q\"\\\n\x01\x7f", 300),
        (b"n\xc3/\xff\xfe", 17),
    ];
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        state.to_le_bytes()[7]
    };
    for (path, len) in files {
        let content: Vec<u8> = (0..len).map(|_| random()).collect();
        fs::write(at(path), content).unwrap();
    }
    let links: [(&[u8], &[u8]); 5] = [
        (b"link", b"deep/segments"),
        (b"deep/up", b"../one"),
        (b"deep/er/up", b"./..//../more"),
        (b"dangling", b"nowhere/at all"),
        (b"raw\xa0", b"n\xc3/\xff\xfe"),
    ];
    for (path, target) in links {
        symlink(OsStr::from_bytes(target), at(path)).unwrap();
    }
    fs::set_permissions(at(b"one"), fs::Permissions::from_mode(0o751)).unwrap();
}

/// Packs the directory at `path` in `tree`.
fn pack(writer: &PackageWriter<LocalStore>, store: &LocalStore, tree: &Path, path: &Path) {
    let attributes = |path: &Path| {
        let metadata = fs::symlink_metadata(tree.join(path)).unwrap();
        Attributes {
            mode: Some(metadata.mode()),
            modified: Some(metadata.modified().unwrap()),
            ..Attributes::default()
        }
    };
    for item in fs::read_dir(tree.join(path)).unwrap() {
        let item = item.unwrap();
        let (path, kind) = (path.join(item.file_name()), item.file_type().unwrap());
        let name = path.as_os_str().as_bytes();
        if kind.is_dir() {
            writer.create_dir(name).unwrap();
            pack(writer, store, tree, &path);
        } else if kind.is_symlink() {
            let target = fs::read_link(item.path()).unwrap();
            let target = target.as_os_str().as_bytes();
            writer.write_symlink(name, target, &attributes(&path)).unwrap();
        } else {
            let source = Source {
                content: &store.open(&path).unwrap(),
                len: item.metadata().unwrap().len(),
                attributes: &attributes(&path),
                unchanged: &|| true,
            };
            writer.write_file(name, &source, &()).unwrap();
        }
    }
    writer
        .finish_dir(path.as_os_str().as_bytes(), &attributes(path))
        .unwrap();
}

/// All that lies below `dir`, by path: the content of files, the targets of symlinks, nothing of directories.
fn tree_of(dir: &Path) -> BTreeMap<PathBuf, (&'static str, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(path) = dirs.pop() {
        for item in fs::read_dir(dir.join(&path)).unwrap() {
            let item = item.unwrap();
            let (path, kind) = (path.join(item.file_name()), item.file_type().unwrap());
            let what = if kind.is_dir() {
                dirs.push(path.clone());
                ("dir", Vec::new())
            } else if kind.is_symlink() {
                let target = fs::read_link(item.path()).unwrap();
                ("symlink", target.into_os_string().into_vec())
            } else {
                ("file", fs::read(item.path()).unwrap())
            };
            found.insert(path, what);
        }
    }
    found
}

/// The path that an entry of the manifest has.
fn path_of(entry: &Value) -> PathBuf {
    let encoded = || STANDARD.decode(entry["path_base64"].as_str().unwrap()).unwrap();
    let path = entry
        .get("path")
        .map(|path| path.as_str().unwrap().as_bytes().to_vec());
    OsString::from_vec(path.unwrap_or_else(encoded)).into()
}

#[test]
fn the_reader_is_short() {
    let text = fs::read_to_string(READER).unwrap();
    assert!(text.lines().count() <= 150);
    assert!(text.lines().all(|line| line.chars().count() <= 110));
}

#[test]
fn every_byte_and_entry_is_read() {
    let Some(python) = python() else { return };
    for chunk_len in [4096, 65536, 1 << 20] {
        let packed = Packed::new(chunk_len, &terms());
        let opened = packed.package.with_file_name("opened");
        let mut to = OsString::from("--to=");
        to.push(&opened);
        let listed = accepted(&python, &packed.package, Some(KEY), &[to]);
        let tree = tree_of(&packed.tree);
        assert_eq!(tree.len(), 20);
        assert!(tree == tree_of(&opened));

        let root = std::iter::once(PathBuf::new());
        let paths: Vec<_> = listed.iter().map(path_of).collect();
        let mut expected: Vec<_> = root.chain(tree.into_keys()).collect();
        expected.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        assert_eq!(paths, expected);
        for (entry, path) in listed.iter().zip(paths) {
            let metadata = fs::symlink_metadata(packed.tree.join(path)).unwrap();
            let times = [metadata.mtime(), metadata.mtime_nsec()];
            assert_eq!(entry["modified"], Value::from(times.to_vec()), "{entry}");
            let mode = (!metadata.is_symlink()).then(|| metadata.mode() & 0o777);
            assert_eq!(entry.get("mode"), mode.map(Value::from).as_ref(), "{entry}");
            let len = metadata.is_file().then_some(metadata.len());
            assert_eq!(entry.get("length"), len.map(Value::from).as_ref(), "{entry}");
        }
        assert_eq!(accepted(&python, &packed.package, None, &NONE), listed);
    }
}

#[test]
fn packages_of_a_third_implementation_are_read() {
    let Some(python) = python() else { return };
    let vectors = Path::new(VECTORS);
    assert_eq!(
        accepted(&python, &vectors.join("example"), Some(KEY), &NONE).len(),
        2
    );
    let license = |id: &str| format!("--license={VECTORS}/full/licenses/{id}.json");
    let full = vectors.join("full");
    assert_eq!(
        accepted(&python, &full, Some(KEY), &[license("LD_Demo_0001")]).len(),
        9
    );
    let everything = license("everything.in-it");
    let there = ["--now=1800000000", "--machine=i-bp67acfmxazb4p"];
    let [now, machine] = there.map(str::to_owned);
    refused(&python, &full, Some(KEY), &[everything, now, machine], "tdx");
    refused(&python, &full, Some(KEY), &NONE, "too many values");
}

#[test]
fn flipped_bits_are_refused() {
    let Some(python) = python() else { return };
    let packed = Packed::new(4096, &terms());
    let header = HEADER_LEN as u64;
    let (three, segments) = (3 * 4096, (2 << 20) + 5);
    let stored = [
        // Magic, version, critical, length, chunk length, file ID.
        ("three", 7, "header", "header"),
        ("three", 8, "header", "header"),
        ("three", 15, "header", "header"),
        ("three", 18, "header", "header"),
        ("three", 25, "header", "header"),
        ("three", 63, "header", "header"),
        // What is reserved.
        ("three", 28, "InvalidTag", "digest"),
        ("three", header - 1, "InvalidTag", "digest"),
        // Body.
        ("three", header, "InvalidTag", "digest"),
        ("three", header + three - 1, "InvalidTag", "digest"),
        ("deep/segments", header + (1 << 20), "InvalidTag", "digest"),
        // Tags.
        ("empty", header + 15, "InvalidTag", "digest"),
        ("three", header + three, "InvalidTag", "digest"),
        ("deep/segments", header + segments, "InvalidTag", "digest"),
        (
            "deep/segments",
            header + segments + 16 * 513 - 1,
            "InvalidTag",
            "digest",
        ),
    ];
    let flip = |content: &mut Vec<u8>, offset: u64| {
        content[usize::try_from(offset).unwrap()] ^= 1 << (offset % 8);
    };
    for (file, offset, with_key, without) in stored {
        let file = Path::new("content").join(file);
        packed.refused_if(&python, &file, [with_key, without], |content| {
            flip(content, offset);
        });
    }
    for (file, why) in [("manifest.json", "not as signed"), (LICENSE, "")] {
        let len = fs::metadata(packed.package.join(file)).unwrap().len();
        for offset in (0..len).step_by(usize::try_from(len / 8).unwrap()) {
            packed.refused_if(&python, Path::new(file), [why; 2], |content| {
                flip(content, offset);
            });
        }
    }
    accepted(&python, &packed.package, Some(KEY), &NONE);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let Some(python) = python() else { return };
    let packed = Packed::new(4096, &terms());
    let three = Path::new("content/three");
    packed.refused_if(&python, three, ["content"; 2], |content| content.push(0));
    packed.refused_if(&python, three, ["content"; 2], |content| {
        content.truncate(content.len() - 1);
    });
    for (from, to, why) in [
        ("\"serial\":1,", "\"serial\":2,", "InvalidSignature"),
        ("\"serial\":1,", "\"serial\":1,\"serial\":1,", "not canonical"),
        ("\"version\":1,", "\"version\":2,", "version"),
        ("\"version\":1,", "\"version\":1.0,", "invalid literal"),
    ] {
        packed.refused_if(&python, Path::new(LICENSE), [why; 2], |content| {
            *content = str::from_utf8(content).unwrap().replace(from, to).into_bytes();
        });
    }

    let content = packed.package.join("content");
    let [exact, twin, link] = ["exact", "twin", "link"].map(|name| content.join(name));
    let aside = packed.package.join("aside");
    let refused = |why| {
        refused(&python, &packed.package, Some(KEY), &NONE, why);
        refused(&python, &packed.package, None, &NONE, why);
    };
    fs::rename(&exact, &aside).unwrap();
    refused("content");
    symlink(&aside, &exact).unwrap();
    refused("content");
    fs::rename(&twin, &exact).unwrap();
    fs::rename(&aside, &twin).unwrap();
    refused("header");
    fs::rename(&twin, &aside).unwrap();
    fs::rename(&exact, &twin).unwrap();
    fs::rename(&aside, &exact).unwrap();
    for path in [content.join("extra"), link] {
        fs::write(&path, "").unwrap();
        refused("");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("");
        fs::remove_dir(&path).unwrap();
    }
    fs::remove_dir(content.join("none")).unwrap();
    accepted(&python, &packed.package, Some(KEY), &NONE);
}

#[test]
fn terms_are_kept() {
    let Some(python) = python() else { return };
    let terms = Terms {
        serial: 7,
        valid_from: Some(1_700_000_000),
        expires: Some(1_700_000_010),
        machines: vec!["machine-1".to_owned(), "machine\\2\"".to_owned()],
        extras: Some("\u{e9}\n".repeat(85)),
        company: Some("A \\ B".to_owned()),
        ..terms()
    };
    let packed = Packed::new(4096, &terms);
    let issuer = format!("--issuer={}", packed.issuer.public());
    let good = [
        &issuer,
        "--serial=7",
        "--now=1700000000",
        "--machine=machine\\2\"",
    ];
    accepted(&python, &packed.package, Some(KEY), &good);
    let with = |at: usize, option: &'static str| {
        let mut options = good;
        options[at] = option;
        options
    };
    accepted(&python, &packed.package, Some(KEY), &with(2, "--now=1700000009"));
    let other = format!("--issuer={}", IssuerKey::generate().unwrap().public());
    let mut pinned = good;
    pinned[0] = &other;
    refused(&python, &packed.package, Some(KEY), &pinned, "issuer_key");
    refused(&python, &packed.package, None, &pinned, "issuer_key");
    for (at, option, why) in [
        (1, "--serial=8", "serial"),
        (2, "--now=1699999999", "not now"),
        (2, "--now=1700000010", "not now"),
        (3, "--machine=machine-2", "machines"),
    ] {
        refused(&python, &packed.package, Some(KEY), &with(at, option), why);
    }
    for (key, why) in [
        (&KEY[1..], "the key is wrong"),
        (b"key", "its length"),
        (&[b'k'; 129], "its length"),
    ] {
        refused(&python, &packed.package, Some(key), &good, why);
    }
    // What is verified without a key is not opened, by whomever and whenever.
    accepted(&python, &packed.package, None, &NONE);
}
