//! What is easily lost: a source swapped between runs, a second run, a run that ended at once, very deep trees.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

mod common {
    pub(crate) mod command;
    pub(crate) mod tree;
}

use common::command::Place;
use modelseal::store::LocalStore;

const PARTIAL: &str = "gocryptfs.conf.partial";
const ENCRYPT: [&str; 5] = ["encrypt", "--scrypt-n", "10", "source", "vault"];

fn write_at(path: &Path, content: &[u8], modified: SystemTime) {
    fs::write(path, content).unwrap();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

/// A vault of `source` that looks as if its run was interrupted just before the end.
fn unfinished(place: &Place) {
    place.keyed(&ENCRYPT).ends(0);
    fs::rename(
        place.path("vault/gocryptfs.conf"),
        place.path("vault").join(PARTIAL),
    )
    .unwrap();
}

/// Two versions of a model often have the same lengths, and the same times where an archive fixed them.
#[test]
fn a_source_of_the_same_length_and_time_is_compared() {
    let place = Place::new();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    fs::create_dir(place.path("source")).unwrap();
    write_at(&place.path("source/same"), &[b'S'; 100_000], time);
    write_at(&place.path("source/swapped"), &[b'A'; 100_000], time);
    unfinished(&place);
    write_at(&place.path("source/swapped"), &[b'B'; 100_000], time);
    let resumed = place
        .keyed(&[&ENCRYPT[..], &["--resume", "--json"]].concat())
        .ends(0);
    assert_eq!(resumed.json()["kept"], 1);
    place.keyed(&["decrypt", "vault", "opened"]).ends(0);
    assert_eq!(fs::read(place.path("opened/swapped")).unwrap(), [b'B'; 100_000]);
    assert_eq!(fs::read(place.path("opened/same")).unwrap(), [b'S'; 100_000]);
}

#[test]
fn what_became_something_else_is_refused() {
    let place = Place::with_model(&[]);
    let source = place.path("source");
    for (path, other) in [("turned", "a directory"), ("dir", "a file")] {
        let _ = fs::remove_dir_all(place.path("vault"));
        fs::write(source.join("turned"), b"file").unwrap();
        fs::create_dir_all(source.join("dir")).unwrap();
        unfinished(&place);
        if other == "a file" {
            fs::remove_dir(source.join(path)).unwrap();
            fs::write(source.join(path), b"file").unwrap();
        } else {
            fs::remove_file(source.join(path)).unwrap();
            fs::create_dir(source.join(path)).unwrap();
        }
        place
            .keyed(&[&ENCRYPT[..], &["--resume"]].concat())
            .fails(6, &[path, "something else now", "start afresh"]);
        let _ = fs::remove_dir(source.join("turned"));
        let _ = fs::remove_file(source.join("dir"));
    }
}

#[test]
fn two_runs_do_not_write_to_one_destination() {
    let place = Place::with_model(&[]);
    fs::create_dir(place.path("other")).unwrap();
    let held = LocalStore::open(place.path("other")).unwrap();
    assert!(held.lock().unwrap());
    for args in [
        &["encrypt", "--scrypt-n", "10", "source", "other"][..],
        &["decrypt", "vault", "other"],
    ] {
        place.keyed(args).fails(6, &["other", "another run is writing"]);
    }
    drop(held);
    place.keyed(&["decrypt", "vault", "other"]).ends(0);
}

/// A run can end before it has written what marks its destination.
#[test]
fn a_run_that_ended_at_once_is_resumed() {
    let place = Place::with_model(&[]);
    for args in [
        &["encrypt", "--scrypt-n", "10", "source", "new"][..],
        &["decrypt", "vault", "new"],
    ] {
        fs::create_dir(place.path("new")).unwrap();
        fs::write(place.path("new/.chunk-cipher-pending-0123456789abcdef"), b"half").unwrap();
        place.keyed(args).fails(6, &["new", "is not empty"]);
        place.keyed(&[args, &["--resume"]].concat()).ends(0);
        assert!(!place.path("new/.chunk-cipher-pending-0123456789abcdef").exists());
        fs::remove_dir_all(place.path("new")).unwrap();
    }
}

#[test]
fn what_an_interrupted_decrypt_left_is_not_sealed() {
    let place = Place::with_model(&[]);
    fs::write(place.path("source/.modelseal-partial"), b"").unwrap();
    place
        .keyed(&["encrypt", "--scrypt-n", "10", "source", "again"])
        .fails(5, &[".modelseal-partial", "decrypt --resume"]);
    assert!(!place.path("again").exists());
}

#[test]
fn a_model_is_not_opened_into_itself() {
    let place = Place::with_model(&[]);
    place
        .keyed(&["decrypt", "vault", "vault/inside"])
        .fails(5, &["vault", "choose one outside"]);
    place.keyed(&["verify", "vault"]).ends(0);
}

/// Stored names are longer than plain ones, so that a path that fits the system's limit may not fit any more.
#[test]
fn trees_may_be_as_deep_as_the_system_allows() {
    let place = Place::new();
    let mut dir = place.path("source");
    for _ in 0..400 {
        dir.push("d");
    }
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("leaf"), b"content").unwrap();
    place.keyed(&ENCRYPT).ends(0);
    place.keyed(&["verify", "vault"]).ends(0);
    place.keyed(&["decrypt", "vault", "opened"]).ends(0);
    let leaf = dir.strip_prefix(place.path("source")).unwrap().join("leaf");
    assert_eq!(fs::read(place.path("opened").join(&leaf)).unwrap(), b"content");
    assert_eq!(
        place
            .keyed(&["cat", "vault", leaf.to_str().unwrap()])
            .ends(0)
            .text(),
        "content"
    );
}

#[test]
fn links_that_were_followed_are_told() {
    let place = Place::new();
    fs::create_dir(place.path("source")).unwrap();
    fs::write(place.path("outside"), b"content").unwrap();
    symlink(place.path("outside"), place.path("source/link")).unwrap();
    let told = place.keyed(&[&ENCRYPT[..], &["--json"]].concat()).ends(0);
    assert_eq!(told.json()["followed"], 1);
    fs::remove_dir_all(place.path("vault")).unwrap();
    let run = place.keyed(&ENCRYPT).ends(0);
    assert!(
        run.stderr.contains("1 links out of the directory followed"),
        "{}",
        run.stderr
    );
}

/// A key that costs more memory than may be used to open it again would lock its owner out.
#[test]
fn a_cost_beyond_the_limit_is_refused_in_advance() {
    let place = Place::with_model(&[]);
    place
        .keyed(&["encrypt", "--scrypt-n", "21", "source", "dear"])
        .fails(4, &["2^21", "2048 MiB", "raise the limit", "--scrypt-memory"]);
}
