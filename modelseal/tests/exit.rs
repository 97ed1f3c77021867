//! How the command fails: with which exit status, and what it says of it.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::process::Stdio;

mod common {
    pub(crate) mod command;
    pub(crate) mod tree;
}

use common::command::{Place, Run, members};
use common::tree::{assert_same, flip, names, set_mode, snapshot};

#[test]
fn damage_is_reported() {
    let place = Place::with_model(&[]);
    let clean = place.keyed(&["verify", "vault"]).ends(0);
    assert_eq!(
        clean.text(),
        "3 files, 1 directories, 1 symlinks, 9.00 MiB: no damage\n"
    );
    // In block 2.
    flip(&place.stored("vault", "weights/big"), 18 + 2 * 4128 + 100);
    flip(&place.stored("vault", "config.json"), 1);
    let found = place.keyed(&["verify", "--quiet", "vault"]).ends(1);
    let lines: Vec<_> = found.text().lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines.contains(&"damaged: blocks of weights/big are damaged: 2 (from byte 8192 on)"),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("config.json") && line.contains("header")),
        "{lines:?}"
    );
    assert!(lines[2].ends_with("2 damaged"), "{lines:?}");
    let json = place.keyed(&["verify", "--json", "vault"]).ends(1).json();
    assert_eq!(
        members(&json),
        ["bytes", "damaged", "dirs", "files", "holes", "symlinks"]
    );
    let mut paths: Vec<_> = json["damaged"]
        .as_array()
        .unwrap()
        .iter()
        .map(|damage| &damage["path"])
        .collect();
    paths.sort_by_key(|path| path.as_str());
    assert_eq!(paths, ["config.json", "weights/big"]);
    // Only one directory of it.
    let one = place.keyed(&["verify", "vault", "weights"]).ends(1);
    assert!(
        one.text()
            .ends_with("2 files, 0 directories, 0 symlinks, 9.00 MiB: 1 damaged\n"),
        "{}",
        one.text()
    );
    place
        .keyed(&["verify", "vault", "weights/empty"])
        .fails(5, &["weights/empty", "not a directory"]);

    place
        .keyed(&["cat", "vault", "weights/big"])
        .fails(1, &["vault", "weights/big", "chunk 2 is damaged"]);
    place
        .keyed(&["cat", "vault", "config.json"])
        .fails(1, &["config.json", "version is not 2"]);
    place
        .keyed(&["decrypt", "vault", "opened"])
        .fails(1, &["vault", "config.json"]);
    for name in ["opened/weights/big", "opened/config.json"] {
        assert!(!place.path(name).exists(), "{name}");
    }
}

#[test]
fn what_no_key_can_open_is_status_4() {
    let place = Place::with_model(&[]);
    let conf_path = place.path("vault/gocryptfs.conf");
    let conf = fs::read_to_string(&conf_path).unwrap();
    set_mode(&conf_path, 0o600);
    for (from, to, why) in [
        (
            "\"Version\": 2",
            "\"Version\": 3",
            "version 3 of the format is not supported",
        ),
        ("\"HKDF\"", "\"Hkdf\"", "unknown feature flag \"Hkdf\""),
        ("\"N\": 1024", "\"N\": 1000", "ScryptObject.N is 1000"),
        ("\"N\": 1024", "\"N\": 1073741824", "the limit is 1024 MiB"),
        ("{", "", "gocryptfs.conf, line 2, column 2"),
    ] {
        fs::write(&conf_path, conf.replacen(from, to, 1)).unwrap();
        place.keyed(&["ls", "vault"]).fails(4, &["vault", why]);
    }
    fs::write(&conf_path, conf).unwrap();
    // N = 2^10 and r = 8 are a table of just 1 MiB.
    place.keyed(&["ls", "vault", "--scrypt-memory", "1"]).ends(0);
    place
        .keyed(&["ls", "vault", "--scrypt-memory", "0"])
        .fails(4, &["the limit is 0 MiB; raise", "--scrypt-memory"]);
    fs::rename(&conf_path, place.path("vault/gocryptfs.conf.partial")).unwrap();
    for command in ["ls", "info", "verify"] {
        let args = if command == "info" {
            vec![command, "vault"]
        } else {
            vec![command, "--key", "file:pw", "vault"]
        };
        place.run(args).fails(4, &["vault", "incomplete", "--resume"]);
    }
    for (dir, why) in [
        ("source", "is not a sealed model"),
        ("source/weights", "gocryptfs.conf"),
    ] {
        place.run(["info", dir]).fails(4, &[dir, why]);
        place.keyed(&["decrypt", dir, "opened"]).fails(4, &[dir, why]);
        assert!(!place.path("opened").exists());
    }
}

#[test]
fn files_that_cannot_be_had_are_status_5() {
    let place = Place::with_model(&[]);
    place.run(["info", "none"]).fails(5, &["none", "No such file"]);
    place.run(["info", "pw"]).fails(5, &["pw", "Not a directory"]);
    place
        .keyed(&["encrypt", "none", "new"])
        .fails(5, &["none", "No such file"]);
    place
        .keyed(&["encrypt", "pw", "new"])
        .fails(5, &["pw", "not a directory"]);
    assert!(!place.path("new").exists());
    place
        .keyed(&["encrypt", "source", "none/new"])
        .fails(5, &["none/new", "No such file"]);
    place
        .keyed(&["decrypt", "vault", "none/new"])
        .fails(5, &["none/new", "No such file"]);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for args in [
        &["ls", "vault"][..],
        &["ls", "--json", "vault"],
        &["cat", "vault", "config.json"],
        &["verify", "vault"],
    ] {
        let mut command = place.command(args);
        let run = Run::of(command.args(["--key", "file:pw"]).stdout(full()));
        run.fails(5, &["standard output", "No space left"]);
    }
    Run::of(place.command(["key", "generate"]).stdout(full())).fails(5, &["standard output"]);
}

#[test]
fn a_destination_in_use_is_status_6() {
    let place = Place::with_model(&[]);
    let before = snapshot(&place.path("source"));
    for (args, resumed) in [
        (["encrypt", "source", "vault"], "complete already"),
        (["decrypt", "vault", "source"], "is not empty"),
    ] {
        place
            .keyed(&args)
            .fails(6, &[args[2], "is not empty", "choose a directory"]);
        place
            .keyed(&[&args[..], &["--resume"]].concat())
            .fails(6, &[args[2], resumed]);
    }
    assert_same("the source", &before, &snapshot(&place.path("source")));
    place.keyed(&["verify", "vault"]).ends(0);
}

#[test]
fn a_wrong_command_line_is_status_2() {
    let place = Place::new();
    for args in [
        &[][..],
        &["open"],
        &["ls"],
        &["ls", "vault"],
        &["encrypt", "--key", "file:pw", "a"],
        &["encrypt", "--key", "file:pw", "--xchacha", "--aessiv", "a", "b"],
        &[
            "encrypt",
            "--key",
            "file:pw",
            "--plaintext-names",
            "--deterministic-names",
            "a",
            "b",
        ],
        &[
            "encrypt",
            "--key",
            "file:pw",
            "--plaintext-names",
            "--longnamemax",
            "100",
            "a",
            "b",
        ],
        &["encrypt", "--key", "file:pw", "--longnamemax", "61", "a", "b"],
        &["encrypt", "--key", "file:pw", "--longnamemax", "256", "a", "b"],
        &["encrypt", "--key", "file:pw", "--scrypt-n", "9", "a", "b"],
        &["encrypt", "--key", "file:pw", "--scrypt-n", "29", "a", "b"],
        &["encrypt", "--key", "file:pw", "--format", "zip", "a", "b"],
        &["encrypt", "--key", "file:pw", "--symlinks", "eat", "a", "b"],
        &["decrypt", "--key", "file:pw", "--threads", "-1", "a", "b"],
        &["decrypt", "--key", "file:pw", "--read-mode", "map", "a", "b"],
        &["passwd", "--key", "file:pw", "a"],
        &["key"],
        &["key", "export", "--key", "file:pw"],
        &["completions", "dos"],
    ] {
        let run = place.run(args).ends(2);
        assert!(
            run.stderr.contains("Usage") || run.stderr.contains("--help"),
            "{}",
            run.stderr
        );
        assert!(run.stdout.is_empty());
    }
    assert_eq!(names(&place.path("")), ["pw"]);
}
