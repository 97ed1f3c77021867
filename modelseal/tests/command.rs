//! Every subcommand: what it answers, on which stream, with which exit status.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::process::Stdio;

use serde_json::json;

mod common {
    pub(crate) mod command;
    pub(crate) mod tree;
}

use common::command::{BIG, Place, Run, members, modelseal};
use common::tree::{assert_same, bytes, names, snapshot, write};

#[test]
fn a_model_is_sealed_and_unsealed() {
    let place = Place::with_model(&[]);
    let expected = snapshot(&place.path("source"));
    for (n, options) in [
        &[][..],
        &["--threads", "1"],
        &["--threads", "3", "--read-mode", "copy"],
        &["--read-mode", "auto", "--quiet"],
    ]
    .iter()
    .enumerate()
    {
        let opened = format!("opened-{n}");
        let run = place
            .keyed(&[&["decrypt", "vault", &opened], *options].concat())
            .ends(0);
        assert!(run.stdout.is_empty());
        assert_eq!(
            run.stderr.is_empty(),
            options.contains(&"--quiet"),
            "{}",
            run.stderr
        );
        assert_same(&opened, &expected, &snapshot(&place.path(&opened)));
        place.keyed(&[&["verify", "vault"], *options].concat()).ends(0);
    }
    let environment = [
        ("MODELSEAL_THREADS", "2"),
        ("MODELSEAL_READ_MODE", "copy"),
        ("MODELSEAL_KEY", "file:pw"),
    ];
    let mut decrypt = place.command(["decrypt", "vault", "opened"]);
    Run::of(decrypt.envs(environment)).ends(0);
    assert_same("by environment", &expected, &snapshot(&place.path("opened")));
}

#[test]
fn what_was_done_is_told_without_progress() {
    let place = Place::with_model(&[]);
    for args in [
        &["encrypt", "--scrypt-n", "10", "source", "again"][..],
        &["decrypt", "vault", "opened"],
    ] {
        let run = place.keyed(args).ends(0);
        assert!(run.stdout.is_empty());
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(!run.stderr.contains(['\r', '\x1b']), "{}", run.stderr);
        assert!(
            run.stderr
                .contains("sealed 3 files, 1 directories and 1 symlinks: 9.00 MiB"),
            "{}",
            run.stderr
        );
    }
    for args in [
        &["encrypt", "--scrypt-n", "10", "source", "json"][..],
        &["decrypt", "vault", "json-opened"],
    ] {
        let run = place.keyed(&[args, &["--json"]].concat()).ends(0);
        assert_eq!(run.stderr, "");
        let told = run.json();
        assert_eq!(
            members(&told),
            [
                "bytes", "dirs", "files", "followed", "kept", "seconds", "strays", "symlinks"
            ]
        );
        assert_eq!(told["bytes"], BIG + 9);
        assert_eq!(
            (&told["files"], &told["dirs"], &told["symlinks"]),
            (&json!(3), &json!(1), &json!(1))
        );
        assert_eq!(told["kept"], 0);
        assert!(told["seconds"].is_f64());
    }
}

#[test]
fn ls_lists() {
    let place = Place::with_model(&[]);
    let all = "config.json\nlink\nweights/\nweights/big\nweights/empty\n";
    assert_eq!(place.keyed(&["ls", "vault"]).ends(0).text(), all);
    assert_eq!(place.keyed(&["ls", "vault", "/"]).ends(0).text(), all);
    assert_eq!(
        place.keyed(&["ls", "-d", "vault"]).ends(0).text(),
        "config.json\nlink\nweights/\n"
    );
    assert_eq!(
        place.keyed(&["ls", "vault", "weights"]).ends(0).text(),
        "weights/big\nweights/empty\n"
    );
    assert_eq!(
        place.keyed(&["ls", "vault", "weights/big"]).ends(0).text(),
        "weights/big\n"
    );
    let long = place.keyed(&["ls", "-l", "vault"]).ends(0);
    let lines: Vec<_> = long.text().lines().collect();
    assert_eq!(lines[0], "-rw-r-----              9 2023-11-14 22:13 config.json");
    assert!(
        lines[1].starts_with("lrwx") && lines[1].ends_with("link -> config.json"),
        "{}",
        lines[1]
    );
    assert!(
        lines[2].starts_with("drwx") && lines[2].ends_with(" weights/"),
        "{}",
        lines[2]
    );
    let json = place.keyed(&["ls", "--json", "vault"]).ends(0).json();
    assert_eq!(
        members(&json[0]),
        ["kind", "length", "mode", "modified", "path", "stored"]
    );
    assert_eq!(
        members(&json[1]),
        ["kind", "length", "mode", "modified", "path", "stored", "target"]
    );
    assert_eq!(json[0]["modified"], 1_700_000_000);
    place
        .keyed(&["ls", "vault", "none"])
        .fails(5, &["vault", "none", "No such file"]);
    place
        .keyed(&["ls", "vault", "../vault"])
        .fails(2, &["../vault", "leads out"]);
}

#[test]
fn cat_writes_files_one_after_another() {
    let place = Place::with_model(&["--xchacha"]);
    let big = bytes(7, BIG);
    let shown = place
        .keyed(&["cat", "vault", "config.json", "weights/empty", "./weights/big"])
        .ends(0);
    assert_eq!(shown.stderr, "");
    assert!(shown.stdout == [&b"{\"a\": 1}\n"[..], &big].concat());
    place
        .keyed(&["cat", "vault", "none"])
        .fails(5, &["vault", "none", "No such file"]);
    place.keyed(&["cat", "vault", "weights"]).fails(5, &["weights"]);
    place.keyed(&["cat", "vault", "link"]).fails(5, &["link"]);
    place.keyed(&["cat", "vault"]).fails(2, &["<PATH>"]);
}

#[test]
fn info_needs_no_key() {
    for (options, content, names, flag) in [
        (
            &[][..],
            "AES-256-GCM",
            "differently in every directory",
            "GCMIV128",
        ),
        (
            &["--aessiv", "--deterministic-names"],
            "AES-256-SIV",
            "equally in every directory",
            "AESSIV",
        ),
        (
            &["--xchacha", "--plaintext-names"],
            "XChaCha20-Poly1305",
            "as they are",
            "XChaCha20Poly1305",
        ),
        (
            &["--longnamemax", "62"],
            "AES-256-GCM",
            "longer than 62 bytes",
            "LongNameMax",
        ),
    ] {
        let place = Place::new();
        write(place.path("source/file"), b"x");
        place.seal("source", "vault", options);
        let info = place.run(["info", "vault"]).ends(0);
        for part in [
            content,
            names,
            flag,
            "scrypt   N = 2^10, r = 8, p = 1",
            "gocryptfs, version 2",
        ] {
            assert!(info.text().contains(part), "no {part:?} in {}", info.text());
        }
        let json = place.run(["info", "--json", "vault"]).ends(0).json();
        let expected = [
            "block_length",
            "content",
            "creator",
            "flags",
            "format",
            "long_name_max",
            "names",
            "scrypt",
            "version",
        ];
        assert_eq!(members(&json), expected);
        assert_eq!(
            (&json["format"], &json["version"]),
            (&json!("gocryptfs"), &json!(2))
        );
        assert_eq!(json["content"], content);
        assert_eq!(
            json["scrypt"],
            json!({"log_n": 10, "r": 8, "p": 1, "memory": 1_051_648})
        );
        assert_eq!(json["block_length"], 4096);
    }
}

/// A reader that has seen enough is no failure of listing.
#[test]
fn a_closed_pipe_ends_a_listing() {
    let place = Place::with_model(&[]);
    let mut child = place
        .command(["ls", "--key", "file:pw", "vault"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((child.wait().unwrap().code(), text.as_str()), (Some(0), ""));
}

#[test]
fn help_tells_the_exit_status() {
    let help = Run::of(modelseal().arg("--help")).ends(0);
    for line in [
        "0    success",
        "1    something is damaged",
        "2    the command line is wrong",
        "3    the key is wrong or cannot be had",
        "4    the model is not one, is incomplete, or is of a kind that is not supported",
        "5    a file cannot be read or written",
        "6    the destination is in use",
        "130  interrupted",
    ] {
        assert!(help.text().contains(line), "{line}");
    }
    let version = Run::of(modelseal().arg("--version")).ends(0);
    assert_eq!(
        version.text(),
        format!("modelseal {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = Run::of(modelseal().args(["completions", shell])).ends(0);
        assert!(
            script.text().contains("decrypt") && script.text().contains("read-mode"),
            "{shell}"
        );
        let shells = [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")];
        let Some((_, program)) = shells.iter().find(|(name, _)| *name == shell) else {
            continue;
        };
        let place = Place::new();
        write(place.path("script"), script.text());
        let checked = std::process::Command::new(program)
            .arg("-n")
            .arg(place.path("script"))
            .output();
        if let Ok(checked) = checked {
            assert!(checked.status.success(), "{checked:?}");
        }
    }
}

#[test]
fn manual_pages_are_written() {
    let place = Place::new();
    place.dir("man");
    place.run(["man", "man"]).ends(0);
    let pages = names(&place.path("man"));
    for page in [
        "modelseal.1",
        "modelseal-encrypt.1",
        "modelseal-verify.1",
        "modelseal-key-generate.1",
    ] {
        assert!(pages.iter().any(|name| name == page), "{page} in {pages:?}");
        let text = fs::read_to_string(place.path("man").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    place.run(["man", "none"]).fails(5, &["none", "manual pages"]);
}
