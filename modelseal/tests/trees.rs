//! Sources of every shape: the caches of model hubs, links, what cannot be sealed, and what changes meanwhile.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use modelseal::gocryptfs::ConfOptions;
use modelseal::{Error, Key, Progress, SealFormat, SealOptions, seal};

mod common {
    pub(crate) mod command;
    pub(crate) mod tree;
}

use common::command::{KEY, Place, Run};
use common::tree::{Tree, assert_same, bytes, names, set_mode, set_modified, snapshot, write};

/// A model as huggingface_hub caches it. Returns its directory and what it looks like to a reader of files.
fn hub_cache(place: &Place) -> (&'static str, Tree) {
    let repository = place.path("cache/models--org--name");
    let snapshot_dir = repository.join("snapshots/0123abc");
    for (name, blob, content) in [
        ("config.json", "aa11", b"{}".to_vec()),
        ("model.safetensors", "bb22", bytes(1, 300_000)),
        ("onnx/model.onnx", "cc33", bytes(2, 5000)),
    ] {
        write(repository.join("blobs").join(blob), &content);
        set_modified(&repository.join("blobs").join(blob), 1_600_000_000, 9);
        let link = snapshot_dir.join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let up = "../".repeat(1 + name.split('/').count());
        symlink(format!("{up}blobs/{blob}"), &link).unwrap();
        assert_eq!(fs::read(link).unwrap(), content);
    }
    let mut expected = snapshot(&snapshot_dir);
    for (path, node) in &mut expected {
        let full = snapshot_dir.join(path);
        if node.kind == 'l' {
            let blob = repository
                .join("blobs")
                .join(fs::read_link(full).unwrap().file_name().unwrap());
            *node = snapshot(blob.parent().unwrap())
                .remove(Path::new(blob.file_name().unwrap()))
                .unwrap();
        }
    }
    ("cache/models--org--name/snapshots/0123abc", expected)
}

#[test]
fn a_hub_cache_is_sealed_as_what_its_links_lead_to() {
    let place = Place::new();
    let (source, expected) = hub_cache(&place);
    place.seal(source, "vault", &[]);
    place.keyed(&["decrypt", "vault", "opened"]).ends(0);
    assert_same("followed", &expected, &snapshot(&place.path("opened")));

    place.seal(source, "kept", &["--symlinks", "keep"]);
    place.keyed(&["decrypt", "kept", "kept-opened"]).ends(0);
    assert_same(
        "kept",
        &snapshot(&place.path(source)),
        &snapshot(&place.path("kept-opened")),
    );

    let args = ["encrypt", source, "refused", "--symlinks", "refuse"];
    place.keyed(&args).fails(
        5,
        &[
            "config.json",
            "leads out of the directory",
            "--symlinks follow",
            "keep",
        ],
    );
    assert!(!place.path("refused").exists());
    // A link to the directory itself is no link in it.
    symlink(source, place.path("main")).unwrap();
    place.seal("main", "by-link", &[]);
    place.keyed(&["decrypt", "by-link", "by-link-opened"]).ends(0);
    assert_same("by a link", &expected, &snapshot(&place.path("by-link-opened")));
}

#[test]
fn links_within_the_tree_are_kept() {
    let place = Place::new();
    let source = place.path("source");
    write(source.join("a/b/file"), b"content");
    for (link, target) in [
        ("a/up", ".."),
        ("a/b/self", "self"),
        ("to-dir", "a/b"),
        ("to-file", "a/b/../b/file"),
        ("dangling", "a/none"),
        ("a/around", "b/../../a/b/file"),
    ] {
        symlink(target, source.join(link)).unwrap();
    }
    for symlinks in ["follow", "keep", "refuse"] {
        let (vault, opened) = (format!("vault-{symlinks}"), format!("opened-{symlinks}"));
        place.seal("source", &vault, &["--symlinks", symlinks]);
        place.keyed(&["decrypt", &vault, &opened]).ends(0);
        assert_same(symlinks, &snapshot(&source), &snapshot(&place.path(&opened)));
    }
}

#[test]
fn links_that_cannot_be_followed_are_named() {
    let place = Place::new();
    fs::create_dir(place.path("outside")).unwrap();
    symlink("../source", place.path("outside/back")).unwrap();
    symlink("source/around", place.path("round")).unwrap();
    for (link, target, why) in [
        ("d/loop", "../../outside", "a directory that it lies in"),
        ("d/above", "../..", "a directory that it lies in"),
        ("around", "../round", "leads nowhere"),
        ("gone", "../none", "leads nowhere"),
        ("absolute", "/no/such/thing", "leads nowhere"),
    ] {
        let path = place.path("source").join(link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, &path).unwrap();
        let run = place.keyed(&["encrypt", "source", "vault"]);
        run.fails(5, &[link.rsplit('/').next().unwrap(), "cannot be sealed", why]);
        assert!(!place.path("vault").exists(), "{link}");
        place.seal("source", "kept", &["--symlinks", "keep"]);
        fs::remove_dir_all(place.path("kept")).unwrap();
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let place = Place::new();
    fs::create_dir_all(place.path("source/d")).unwrap();
    let mkfifo = || {
        Command::new("mkfifo")
            .arg(place.path("source/d/odd"))
            .status()
            .unwrap()
            .success()
    };
    let socket = || UnixListener::bind(place.path("source/d/odd")).is_ok();
    let device = || symlink("/dev/null", place.path("source/d/odd")).is_ok();
    let kinds: [(&str, &dyn Fn() -> bool); 3] = [("pipe", &mkfifo), ("socket", &socket), ("device", &device)];
    for (kind, make) in kinds {
        assert!(make(), "{kind}");
        let run = place.keyed(&["encrypt", "source", "vault"]);
        run.fails(5, &["source/d/odd", "cannot be sealed", kind]);
        assert!(!place.path("vault").exists());
        fs::remove_file(place.path("source/d/odd")).unwrap();
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let place = Place::new();
    write(place.path("source/d/secret"), b"content");
    set_mode(&place.path("source/d/secret"), 0);
    let mut command = if rustix::process::geteuid().is_root() {
        // Root reads everything, so somebody else does it, with a copy of the program that he may run.
        let program = place.path("program");
        fs::copy(env!("CARGO_BIN_EXE_modelseal"), &program).unwrap();
        for path in ["", "source", "source/d", "program"] {
            set_mode(&place.path(path), 0o755);
        }
        set_mode(&place.path("pw"), 0o644);
        let out = place.dir("out");
        set_mode(&out, 0o777);
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program);
        command
    } else {
        place.dir("out");
        common::command::modelseal()
    };
    command.current_dir(place.path("")).args([
        "encrypt",
        "--key",
        "file:pw",
        "--scrypt-n",
        "10",
        "source",
        "out/vault",
    ]);
    let run = match command.output() {
        Ok(output) => Run::from(output),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{error}");
            eprintln!("SKIPPED: setpriv cannot be run: {error}");
            return;
        }
    };
    run.fails(5, &["source/d/secret", "Permission denied"]);
    let left = names(&place.path("out/vault"));
    assert!(
        left.iter().any(|name| name == "gocryptfs.conf.partial"),
        "{left:?}"
    );
}

/// Does something to a file as soon as the first part of it was sealed.
struct Meddler<'a> {
    done: AtomicBool,
    what: &'a (dyn Fn() + Sync),
}

impl chunk_cipher::Progress for Meddler<'_> {
    fn advance(&self, _: u64) -> bool {
        if !self.done.swap(true, Ordering::SeqCst) {
            (self.what)();
        }
        true
    }
}

impl Progress for Meddler<'_> {}

/// What is done to a file, in words and in deed.
type Change<'a> = (&'a str, &'a (dyn Fn(&Path) + Sync));

#[test]
fn a_source_that_changes_meanwhile_is_refused() {
    let open = |path: &Path| File::options().append(true).open(path).unwrap();
    let append = |path: &Path| open(path).write_all(b"more").unwrap();
    let rewrite = |path: &Path| fs::write(path, bytes(8, 20 << 20)).unwrap();
    let shorten = |path: &Path| open(path).set_len(1000).unwrap();
    let replace = |path: &Path| {
        write(path.with_extension("new"), bytes(9, 20 << 20));
        fs::rename(path.with_extension("new"), path).unwrap();
    };
    let changes: [Change<'_>; 4] = [
        ("append", &append),
        ("rewrite", &rewrite),
        ("shorten", &shorten),
        ("replace", &replace),
    ];
    for (name, change) in changes {
        let place = Place::new();
        let changed = place.path("source/changed");
        write(&changed, bytes(7, 20 << 20));
        set_modified(&changed, 1_600_000_000, 0);
        let options = SealOptions {
            format: SealFormat::Gocryptfs(ConfOptions {
                scrypt_log_n: 10,
                ..ConfOptions::default()
            }),
            ..SealOptions::default()
        };
        let key = || Key::from_password(KEY.as_bytes().to_vec().into());
        let meddler = Meddler {
            done: AtomicBool::new(false),
            what: &|| change(&changed),
        };
        let (source, vault) = (place.path("source"), place.path("vault"));
        let error = seal(&source, &vault, &key(), &options, &meddler).unwrap_err();
        match error {
            Error::File { path, source } => {
                assert_eq!(path, changed, "{name}");
                let told = matches!(
                    source,
                    chunk_cipher::Error::Changed | chunk_cipher::Error::Read { .. }
                );
                assert!(told, "{name}: {source:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
        // The conf and the IV, and nothing that looks like a file.
        assert_eq!(
            names(&vault),
            ["gocryptfs.conf.partial", "gocryptfs.diriv"],
            "{name}"
        );
        place
            .keyed(&["encrypt", "--scrypt-n", "10", "--resume", "source", "vault"])
            .ends(0);
        place.keyed(&["decrypt", "vault", "opened"]).ends(0);
        assert_same(name, &snapshot(&source), &snapshot(&place.path("opened")));
    }
}

#[test]
fn a_destination_within_the_source_is_refused() {
    let place = Place::new();
    write(place.path("source/d/file"), b"content");
    symlink("source/d", place.path("link")).unwrap();
    let before = snapshot(&place.path("source"));
    for destination in [
        "source",
        "source/vault",
        "source/d/vault",
        "link/vault",
        "source/d/../vault",
    ] {
        place
            .keyed(&["encrypt", "source", destination])
            .fails(5, &["source", "the destination lies in it", "outside"]);
        assert_same(destination, &before, &snapshot(&place.path("source")));
    }
    // Beside it, with a name that begins alike, is fine.
    place.seal("source", "source-sealed", &[]);
}

/// Runs `args` where files cannot grow beyond a megabyte.
fn with_short_files(place: &Place, args: &str) -> Run {
    let program = env!("CARGO_BIN_EXE_modelseal");
    // In blocks of 512 bytes for one shell and of 1024 for another; ignored, the signal becomes an error.
    let script = format!("trap '' XFSZ; ulimit -f 1024; exec '{program}' {args} --key file:pw");
    let mut shell = Command::new("sh");
    Run::of(shell.args(["-c", &script]).current_dir(place.path("")))
}

/// Nothing in `dir` has its name but is not whole.
fn has_no_halves(dir: &Path, whole: &[&str]) {
    let left: Vec<PathBuf> = snapshot(dir)
        .into_iter()
        .filter(|(_, node)| node.kind == 'f')
        .map(|(path, _)| path)
        .collect();
    let expected: Vec<_> = whole.iter().map(PathBuf::from).collect();
    assert_eq!(left, expected);
}

#[test]
fn a_failed_write_leaves_nothing_half_written() {
    let place = Place::new();
    write(place.path("source/d/big"), bytes(1, 4 << 20));
    let before = snapshot(&place.path("source"));
    let args = "encrypt --scrypt-n 10 --plaintext-names source vault";
    with_short_files(&place, args).fails(5, &["d/big", "writing", "File too large"]);
    has_no_halves(&place.path("vault"), &["gocryptfs.conf.partial"]);
    assert_same("the source", &before, &snapshot(&place.path("source")));
    let args = [
        "encrypt",
        "--scrypt-n",
        "10",
        "--plaintext-names",
        "--resume",
        "source",
        "vault",
    ];
    place.keyed(&args).ends(0);

    with_short_files(&place, "decrypt vault opened").fails(5, &["opened/d/big", "writing", "File too large"]);
    has_no_halves(&place.path("opened"), &[".modelseal-partial"]);
    place.keyed(&["decrypt", "--resume", "vault", "opened"]).ends(0);
    assert_same("resumed", &before, &snapshot(&place.path("opened")));
}

/// A small file system of its own, unmounted when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where mounting takes rights that this user lacks.
    fn mount(dir: PathBuf, size: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"])
            .arg(&dir);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(dir)),
            other => {
                let root = rustix::process::geteuid().is_root();
                assert!(
                    !root || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                    "{other:?}"
                );
                eprintln!("SKIPPED: no file system can be mounted: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.dir("disk"), "6m") else {
        return;
    };
    for n in 0..3 {
        write(place.path(format!("source/{n}")), bytes(n, 3 << 20));
    }
    let before = snapshot(&place.path("source"));
    let seal = [
        "encrypt",
        "--scrypt-n",
        "10",
        "--threads",
        "1",
        "--plaintext-names",
        "source",
        "disk/vault",
    ];
    place
        .keyed(&seal)
        .fails(5, &["disk/vault", "writing", "No space left"]);
    let mut whole = vec![];
    for (path, node) in snapshot(&place.path("disk/vault")) {
        assert!(!path.to_string_lossy().contains("pending"), "{}", path.display());
        if node.kind == 'f' && path != Path::new("gocryptfs.conf.partial") {
            // What has its name is whole: 768 blocks and a header.
            assert_eq!(node.content.len(), 18 + 768 * 4128, "{}", path.display());
            whole.push(path);
        }
    }
    assert!(!whole.is_empty() && whole.len() < 3, "{whole:?}");
    assert_same("the source", &before, &snapshot(&place.path("source")));

    place.seal("source", "vault", &[]);
    let opened = place.path("disk/opened");
    fs::remove_dir_all(place.path("disk/vault")).unwrap();
    place
        .keyed(&["decrypt", "vault", "disk/opened"])
        .fails(5, &["disk/opened", "writing", "No space left"]);
    for (path, node) in snapshot(&opened) {
        assert!(path == Path::new("") || path == Path::new(".modelseal-partial") || node == before[&path]);
    }
    drop(disk);
}
