//! Interrupted runs: never taken for complete ones, gone on with, and nothing sealed twice under one file ID.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

mod common {
    pub(crate) mod command;
    pub(crate) mod gocryptfs;
    pub(crate) mod tree;
}

use common::command::{Place, Run};
use common::gocryptfs;
use common::tree::{assert_same, bytes, flip, names, set_mode, set_modified, snapshot, write};

const PARTIAL: &str = "gocryptfs.conf.partial";
const MARKER: &str = ".modelseal-partial";
/// Runs that are killed before they are done.
const KILLS: usize = 15;
const PENDING: &str = ".chunk-cipher-pending-";

/// A model of many files of all lengths, `big` bytes in the longest, with directories that may not be written to.
fn model(place: &Place, big: usize) {
    let source = place.path("source");
    for n in 0..120_usize {
        write(
            source.join(format!("layers/{}/{n}", n % 7)),
            bytes(n as u64, n * 997),
        );
    }
    write(source.join("big"), bytes(5, big));
    write(source.join("as big"), bytes(6, big));
    write(source.join("n".repeat(200)).join("m".repeat(180)), b"long names");
    symlink("big", source.join("link")).unwrap();
    symlink("l".repeat(100), source.join("l".repeat(190))).unwrap();
    set_mode(&source.join("layers/3"), 0o500);
    set_modified(&source.join("layers"), 1_600_000_000, 7);
}

/// Every stored file: length, time and content (of long ones, where the file ID is).
fn stored(dir: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let tree = snapshot(dir);
    let files = tree.into_iter().filter(|(_, node)| node.kind == 'f');
    files
        .filter(|(path, _)| !path.to_string_lossy().contains(PENDING))
        .map(|(path, node)| (path, (node.content.len() as u64, node.content)))
        .collect()
}

/// How far a run has come: the number of files in `dir`, and the bytes in those that have no name yet.
fn progress(dir: &Path) -> (usize, u64) {
    let mut files = 0;
    let mut pending = 0;
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        // Files come and go while this looks.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => todo.push(entry.path()),
                Ok(metadata) if entry.file_name().to_string_lossy().starts_with(PENDING) => {
                    // As far as it was written.
                    pending += metadata.blocks() * 512;
                }
                Ok(_) => files += 1,
                Err(_) => {}
            }
        }
    }
    (files, pending)
}

/// When a run is to be interrupted.
#[derive(Clone, Copy, Debug)]
enum When {
    Files(usize),
    Pending(u64),
}

/// Starts `args` and sends a signal once `dir` has come that far; `first` must be in there. Returns the ended run.
fn interrupted(place: &Place, args: &[&str], dir: &str, first: &str, when: When, signal: Signal) -> Run {
    let mut child = place
        .command(args)
        .args(["--key", "file:pw"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if is_reached(&mut child, &place.path(dir), first, when) {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        // It may have ended since; as nobody has waited for it, the id is still its own.
        kill_process(pid, signal).unwrap();
    }
    child.wait_with_output().unwrap().into()
}

/// Waits until a run has come that far. Returns whether it did before it ended.
fn is_reached(child: &mut Child, dir: &Path, first: &str, when: When) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if dir.join(first).exists() {
            let (files, pending) = progress(dir);
            let reached = match when {
                When::Files(count) => files >= count,
                When::Pending(bytes) => pending >= bytes,
            };
            if reached {
                return true;
            }
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "{when:?} never came");
        sleep(Duration::from_micros(200));
    }
}

/// Points of interruption, spread over a whole run, again and again: some runs are done before they are stopped.
fn points() -> impl Iterator<Item = When> {
    let files = (0..9).map(|n| When::Files(2 + n * 13));
    let pending = (0..7).map(|n| When::Pending(1 + n * (3 << 20)));
    files.chain(pending).cycle().take(6 * KILLS)
}

/// What is left of an interrupted run is refused by whoever is to read it, and by a run that does not go on with it.
fn is_refused(place: &Place) {
    place.run(["info", "vault"]).fails(4, &["vault", "incomplete"]);
    place
        .keyed(&["decrypt", "vault", "opened"])
        .fails(4, &["vault", "incomplete", "--resume"]);
    assert!(!place.path("opened").exists());
    place
        .keyed(&["encrypt", "--scrypt-n", "10", "source", "vault"])
        .fails(6, &["vault", "is not empty", "--resume"]);
}

#[test]
fn sealing_survives_being_killed_at_any_point() {
    let with_gocryptfs = gocryptfs::is_available();
    let mut partial = 0;
    for (n, when) in points().enumerate() {
        if partial == KILLS {
            break;
        }
        let place = Place::new();
        model(&place, (10 + n % 4) << 20);
        let args = ["encrypt", "--scrypt-n", "10", "source", "vault"];
        interrupted(&place, &args, "vault", PARTIAL, when, Signal::KILL);
        let before = stored(&place.path("vault"));
        if before.contains_key(Path::new("gocryptfs.conf")) {
            // Too late: it was done.
            place.keyed(&["verify", "vault"]).ends(0);
            continue;
        }
        partial += 1;
        is_refused(&place);
        if with_gocryptfs {
            let pw = place.path("pw");
            let vault = place.path("vault");
            let args = [
                OsStr::new("-fsck"),
                OsStr::new("-passfile"),
                pw.as_os_str(),
                vault.as_os_str(),
            ];
            assert_eq!(gocryptfs::run(args).status.code(), Some(11));
        }
        let unchanged = stored(&place.path("vault")) == before;
        assert!(unchanged, "{when:?}: looking changes nothing");

        let done = place
            .keyed(&[&args[..], &["--resume", "--json"]].concat())
            .ends(0)
            .json();
        let after = stored(&place.path("vault"));
        let conf = [PathBuf::from(PARTIAL), PathBuf::from("gocryptfs.conf")];
        for (path, content) in before.iter().filter(|(path, _)| !conf.contains(path)) {
            assert!(
                after.get(path) == Some(content),
                "{when:?}: {} is not kept",
                path.display()
            );
        }
        assert!(after[&conf[1]] == before[&conf[0]]);
        assert_eq!(done["files"], 123);
        let own = |path: &&PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            !name.starts_with("gocryptfs.conf") && name != "gocryptfs.diriv" && !name.ends_with(".name")
        };
        assert_eq!(done["kept"], before.keys().filter(own).count(), "{when:?}");
        completed(&place, with_gocryptfs);
    }
    assert_eq!(partial, KILLS, "runs that were killed before they were done");
}

/// The vault is whole: it opens to its source, and nothing is left over.
fn completed(place: &Place, with_gocryptfs: bool) {
    let leftovers = stored_names(&place.path("vault"));
    assert!(
        !leftovers
            .iter()
            .any(|name| name.starts_with(PENDING) || name == PARTIAL),
        "{leftovers:?}"
    );
    place.keyed(&["verify", "vault"]).ends(0);
    place.keyed(&["decrypt", "vault", "opened"]).ends(0);
    assert_same(
        "resumed",
        &snapshot(&place.path("source")),
        &snapshot(&place.path("opened")),
    );
    // No two files share an ID.
    let mut ids = BTreeMap::new();
    for (path, (len, content)) in stored(&place.path("vault")) {
        let own =
            path.to_string_lossy().contains("gocryptfs.") && !path.to_string_lossy().contains("longname");
        if len > 18 && !own && !path.to_string_lossy().ends_with(".name") {
            let other = ids.insert(content[2..18].to_vec(), path.clone());
            assert!(other.is_none(), "{other:?} and {path:?}");
        }
    }
    if with_gocryptfs {
        gocryptfs::fsck(&place.path("vault"), &place.path("pw"));
    }
}

fn stored_names(dir: &Path) -> Vec<String> {
    names(dir)
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn unsealing_survives_being_killed_at_any_point() {
    let place = Place::new();
    model(&place, 12 << 20);
    place.seal("source", "vault", &[]);
    let expected = snapshot(&place.path("source"));
    let mut partial = 0;
    for (n, when) in points().enumerate() {
        if partial == KILLS {
            break;
        }
        let opened = format!("opened-{n}");
        let args = ["decrypt", "vault", &opened];
        interrupted(&place, &args, &opened, MARKER, when, Signal::KILL);
        if !place.path(&opened).join(MARKER).exists() {
            assert_same("done", &expected, &snapshot(&place.path(&opened)));
            continue;
        }
        partial += 1;
        // Whatever has its name has its content.
        for (path, node) in snapshot(&place.path(&opened)) {
            let pending = path.to_string_lossy().starts_with(PENDING) || path == Path::new(MARKER);
            if node.kind == 'f' && !pending {
                assert!(node == expected[&path], "{when:?}: {}", path.display());
            }
        }
        place
            .keyed(&args)
            .fails(6, &[&opened, "is not empty", "--resume"]);
        place.keyed(&[&args[..], &["--resume"]].concat()).ends(0);
        assert_same("resumed", &expected, &snapshot(&place.path(&opened)));
    }
    assert_eq!(partial, KILLS, "runs that were killed before they were done");
}

#[test]
fn an_interruption_leaves_what_can_be_gone_on_with() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = Place::new();
        model(&place, 48 << 20);
        let expected = snapshot(&place.path("source"));
        for (args, dir, first) in [
            (["encrypt", "source", "vault"], "vault", PARTIAL),
            (["decrypt", "vault", "opened"], "opened", MARKER),
        ] {
            // Where a run is done before the signal comes, another one may be slower.
            let run = (0..30).find_map(|_| {
                let _ = fs::remove_dir_all(place.path(dir));
                let run = interrupted(&place, &args, dir, first, When::Pending(1 << 20), signal);
                (run.code != Some(0)).then_some(run)
            });
            run.unwrap().fails(130, &["interrupted", "--resume"]);
            let left = stored_names(&place.path(dir));
            assert!(!left.iter().any(|name| name.starts_with(PENDING)), "{left:?}");
            assert!(left.iter().any(|name| name == first), "{left:?}");
            let run = place.keyed(&[&args[..], &["--resume"]].concat()).ends(0);
            assert!(!run.stderr.contains("warning"), "{}", run.stderr);
        }
        assert_same("resumed", &expected, &snapshot(&place.path("opened")));
    }
}

/// A sealed model that looks as if its run had been killed just before the end.
fn almost_done(options: &[&str]) -> Place {
    let place = Place::new();
    for (path, content) in [
        ("a", &bytes(1, 10_000)[..]),
        ("b", &bytes(2, 20_000)),
        ("d/c", b"ccc"),
        ("d/e", b""),
    ] {
        write(place.path("source").join(path), content);
    }
    symlink("a", place.path("source/link")).unwrap();
    place.seal("source", "vault", options);
    rename_conf(&place, "gocryptfs.conf", PARTIAL);
    place
}

#[test]
fn other_options_and_keys_are_refused() {
    let resume = ["encrypt", "--scrypt-n", "10", "--resume", "source", "vault"];
    for made_with in [
        &[][..],
        &["--xchacha"],
        &["--plaintext-names"],
        &["--longnamemax", "100"],
    ] {
        let place = almost_done(made_with);
        let before = stored(&place.path("vault"));
        for options in [
            &[][..],
            &["--xchacha"],
            &["--aessiv"],
            &["--deterministic-names"],
            &["--plaintext-names"],
            &["--longnamemax", "100"],
        ] {
            if options != made_with {
                let run = place.keyed(&[&resume[..], options].concat());
                run.fails(6, &["vault", "cannot be resumed", "other options"]);
            }
        }
        fs::write(place.path("other"), "another key, zW7-kq2").unwrap();
        let args = [&resume[..], made_with, &["--key", "file:other"]].concat();
        place.run(args).fails(3, &["vault", "wrong password"]);
        assert!(stored(&place.path("vault")) == before);
        let done = place
            .keyed(&[&resume[..], made_with, &["--json"]].concat())
            .ends(0)
            .json();
        assert_eq!(done["kept"], 4);
        place.keyed(&["decrypt", "vault", "opened"]).ends(0);
    }
}

#[test]
fn a_changed_source_is_sealed_afresh() {
    let place = almost_done(&["--plaintext-names"]);
    let before = stored(&place.path("vault"));
    let source = place.path("source");
    // Another length, another time, another mode, and a new one.
    write(source.join("a"), bytes(3, 10_001));
    let b = fs::File::options().write(true).open(source.join("b")).unwrap();
    b.write_all_at(b"changed", 5000).unwrap();
    set_modified(&source.join("b"), 1_500_000_000, 0);
    set_mode(&source.join("d/c"), 0o600);
    write(source.join("d/new"), b"new");
    fs::remove_file(source.join("link")).unwrap();
    symlink("b", source.join("link")).unwrap();
    let args = [
        "encrypt",
        "--scrypt-n",
        "10",
        "--resume",
        "--plaintext-names",
        "source",
        "vault",
    ];
    let done = place.keyed(&[&args[..], &["--json"]].concat()).ends(0).json();
    assert_eq!((&done["files"], &done["kept"]), (&5.into(), &1.into()));
    let after = stored(&place.path("vault"));
    for name in ["a", "b", "d/c"] {
        let (old, new) = (&before[Path::new(name)].1, &after[Path::new(name)].1);
        assert_ne!(old[2..18], new[2..18], "{name} has its old file ID");
    }
    completed(&place, gocryptfs::is_available());
}

#[test]
fn a_source_that_lost_something_is_refused() {
    for lost in ["a", "d", "link"] {
        let place = almost_done(&[]);
        let path = place.path("source").join(lost);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        let args = ["encrypt", "--scrypt-n", "10", "--resume", "source", "vault"];
        place
            .keyed(&args)
            .fails(6, &["vault", "cannot be resumed", "not in the source any more"]);
        place.run(["info", "vault"]).fails(4, &["incomplete"]);
    }
}

#[test]
fn a_damaged_file_is_not_kept() {
    for at in [0, 1, 10, 18, 5000, 10_000] {
        let place = almost_done(&["--plaintext-names"]);
        let a = place.path("vault/a");
        let before = fs::read(&a).unwrap();
        let modified = fs::metadata(place.path("source/a")).unwrap().modified().unwrap();
        flip(&a, at);
        fs::File::open(&a).unwrap().set_modified(modified).unwrap();
        let args = [
            "encrypt",
            "--scrypt-n",
            "10",
            "--resume",
            "--json",
            "--plaintext-names",
            "source",
            "vault",
        ];
        assert_eq!(place.keyed(&args).ends(0).json()["kept"], 3, "byte {at}");
        assert_ne!(fs::read(&a).unwrap()[2..18], before[2..18], "byte {at}");
        completed(&place, false);
    }
    // What a power cut leaves: all of the length, nothing of the content.
    let place = almost_done(&["--plaintext-names"]);
    let b = fs::File::options()
        .write(true)
        .open(place.path("vault/b"))
        .unwrap();
    let modified = b.metadata().unwrap().modified().unwrap();
    b.write_all_at(&vec![0; 4128], 18 + 4128).unwrap();
    b.set_modified(modified).unwrap();
    let args = [
        "encrypt",
        "--scrypt-n",
        "10",
        "--resume",
        "--json",
        "--plaintext-names",
        "source",
        "vault",
    ];
    assert_eq!(place.keyed(&args).ends(0).json()["kept"], 3);
    completed(&place, false);
}

/// Renames the conf, and leaves the time of the directory as it was.
fn rename_conf(place: &Place, from: &str, to: &str) {
    let vault = fs::File::open(place.path("vault")).unwrap();
    let modified = vault.metadata().unwrap().modified().unwrap();
    fs::rename(place.path("vault").join(from), place.path("vault").join(to)).unwrap();
    vault.set_modified(modified).unwrap();
}

/// As [`almost_done`], for unsealing.
fn almost_opened() -> Place {
    let place = almost_done(&[]);
    rename_conf(&place, PARTIAL, "gocryptfs.conf");
    place.keyed(&["decrypt", "vault", "opened"]).ends(0);
    write(place.path("opened").join(MARKER), b"");
    place
}

#[test]
fn unsealing_keeps_only_what_is_right() {
    let place = almost_opened();
    let expected = snapshot(&place.path("source"));
    let opened = place.path("opened");
    let modified = fs::metadata(opened.join("a")).unwrap().modified().unwrap();
    flip(&opened.join("a"), 9_999);
    fs::File::open(opened.join("a"))
        .unwrap()
        .set_modified(modified)
        .unwrap();
    fs::remove_file(opened.join("link")).unwrap();
    symlink("elsewhere", opened.join("link")).unwrap();
    write(
        opened.join(".chunk-cipher-pending-0000000000000001"),
        b"left over",
    );
    let done = place
        .keyed(&["decrypt", "--resume", "--json", "vault", "opened"])
        .ends(0)
        .json();
    assert_eq!((&done["files"], &done["kept"]), (&4.into(), &3.into()));
    assert_same("resumed", &expected, &snapshot(&opened));
}

#[test]
fn unsealing_goes_on_only_in_its_own_destination() {
    let place = almost_opened();
    for stranger in ["stranger", "d/stranger"] {
        let path = place.path("opened").join(stranger);
        write(&path, b"precious");
        place
            .keyed(&["decrypt", "--resume", "vault", "opened"])
            .fails(6, &["opened", "cannot be resumed", stranger]);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
    }
    fs::remove_file(place.path("opened").join(MARKER)).unwrap();
    let before = snapshot(&place.path("opened"));
    place
        .keyed(&["decrypt", "--resume", "vault", "opened"])
        .fails(6, &["opened", "is not empty"]);
    assert_same("a complete one", &before, &snapshot(&place.path("opened")));
}
