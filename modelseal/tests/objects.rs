//! Models in object storage: read, listed, checked and written there, whatever goes wrong on the way.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::{Method, StatusCode};
use modelseal::{Key, KeyRef, Model, ObjectOptions, OpenOptions};

mod common {
    pub(crate) mod command;
    pub(crate) mod s3;
    pub(crate) mod tree;
}

use common::command::{BIG, KEY, Place, Run};
use common::s3::{Fault, SECRET_KEY, Server, upload};
use common::tree::{bytes, snapshot, write};

const ID: &str = "LD_Demo_0001";

/// A place with a model without symlinks, sealed as a vault and as a package.
fn place() -> Place {
    let place = Place::new();
    write(place.path("source/config.json"), b"{\"a\": 1}\n");
    write(place.path("source/weights/big"), bytes(7, BIG));
    write(place.path("source/weights/empty"), b"");
    place.seal("source", "vault", &[]);
    place.keyed(&PACK).ends(0);
    place
}

const PACK: [&str; 10] = [
    "encrypt",
    "--format",
    "sam",
    "--key-id",
    ID,
    "--scrypt-n",
    "14",
    "source",
    ID,
    "--quiet",
];

/// Runs the command with the key, against the server.
fn run(server: &Server, place: &Place, args: &[&str]) -> Run {
    let mut command = place.command(args);
    server.env(&mut command).args(["--key", "file:pw"]);
    checked(&mut command)
}

/// Runs the command. No output may show the credentials.
fn checked(command: &mut Command) -> Run {
    let run = Run::of(command);
    assert!(!run.stderr.contains(SECRET_KEY), "{}", run.stderr);
    run
}

/// A server with both models of `place`, and where they are.
fn server(place: &Place) -> (Server, [String; 2]) {
    let server = Server::s3();
    upload(&server, &place.path("vault"), "a/vault");
    upload(&server, &place.path(ID), "a/package");
    let locations = ["a/vault", "a/package"].map(|path| server.location(path));
    (server, locations)
}

/// Names and content below `path`; object storage has no attributes.
fn content(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![path.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(path).unwrap().to_path_buf();
                found.push((name, fs::read(entry.path()).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn models_are_read_where_they_lie() {
    let place = place();
    let (server, locations) = server(&place);
    let expected = content(&place.path("source"));
    for (n, location) in locations.iter().enumerate() {
        let listed = run(&server, &place, &["ls", location]).ends(0);
        assert_eq!(
            listed.text(),
            "config.json\nweights/\nweights/big\nweights/empty\n",
            "{location}"
        );
        let cat = run(&server, &place, &["cat", location, "weights/big"]).ends(0);
        assert_eq!(cat.stdout, bytes(7, BIG));
        let opened = format!("opened-{n}");
        run(&server, &place, &["decrypt", location, &opened]).ends(0);
        assert_eq!(content(&place.path(&opened)), expected);
        run(&server, &place, &["verify", location]).ends(0);
        let mut info = place.command(["info", location]);
        checked(server.env(&mut info)).ends(0);
    }
    let absent = server.location("a/none");
    run(&server, &place, &["ls", &absent]).fails(4, &["is not a sealed model", &absent]);
    // A bucket that is not there, and credentials that are not right.
    run(&server, &place, &["ls", "s3://nowhere/x"]).fails(5, &["s3://nowhere/x", "NoSuchBucket"]);
    let mut wrong = place.command(["ls", &locations[0], "--key", "file:pw"]);
    server.env(&mut wrong).env("AWS_SECRET_ACCESS_KEY", "another");
    checked(&mut wrong).fails(5, &["reaching"]);
}

#[test]
fn models_are_read_from_a_web_server_without_a_listing() {
    let place = place();
    let server = Server::web();
    upload(&server, &place.path("vault"), "vault");
    upload(&server, &place.path(ID), ID);
    let package = server.web_location(ID);
    for (answer, opened) in [
        (StatusCode::METHOD_NOT_ALLOWED, "opened"),
        (StatusCode::NOT_FOUND, "again"),
    ] {
        server.watch.fail(move |method, _| {
            let asked = *method != Method::GET && *method != Method::HEAD;
            asked.then_some(Fault::Denied(answer))
        });
        run(&server, &place, &["decrypt", &package, opened]).ends(0);
        assert_eq!(content(&place.path(opened)), content(&place.path("source")));
    }
    let vault = server.web_location("vault");
    let cat = run(&server, &place, &["cat", &vault, "weights/big"]).ends(0);
    assert_eq!(cat.stdout, bytes(7, BIG));
    run(&server, &place, &["ls", &vault]).fails(5, &["no listing"]);
    // Nothing can be written there.
    run(
        &server,
        &place,
        &["encrypt", "source", &server.web_location("new")],
    )
    .fails(2, &["s3://"]);
    run(&server, &place, &["ls", "https://me:word@host/x"]).fails(2, &["credentials do not belong"]);
    run(&server, &place, &["ls", "gopher://host/x"]).fails(2, &["scheme"]);
}

#[test]
fn models_are_written_where_they_shall_lie() {
    let place = place();
    let server = Server::s3();
    let expected = content(&place.path("source"));
    let vault = server.location("new/vault");
    run(
        &server,
        &place,
        &["encrypt", "--scrypt-n", "10", "source", &vault],
    )
    .ends(0);
    let package = server.location("new/package");
    let mut pack = PACK.to_vec();
    pack[8] = &package;
    run(&server, &place, &pack).ends(0);
    for (name, location) in [("vault", &vault), ("package", &package)] {
        run(&server, &place, &["verify", location]).ends(0);
        // What is there is a model like any other.
        let local = server.bucket().join("new").join(name);
        let local = local.to_str().unwrap();
        let opened = format!("opened-{name}");
        place.keyed(&["decrypt", local, &opened]).ends(0);
        assert_eq!(content(&place.path(&opened)), expected);
        // And nobody's to replace.
        let mut again = pack.clone();
        again[8] = location;
        run(&server, &place, &again).fails(6, &["not empty"]);
    }
    // The conf and the manifest went last.
    let log = server.watch.log();
    let last = |part: &str| {
        log.iter()
            .rposition(|line| line.starts_with("PUT") && line.contains(part))
    };
    let last_content = log
        .iter()
        .rposition(|line| line.starts_with("PUT") && line.contains("package/content"));
    assert!(last("package/manifest.json") > last_content);
    let in_vault = |line: &&String| line.starts_with("PUT") && line.contains("new/vault/");
    assert!(log.iter().rfind(in_vault).unwrap().contains("/gocryptfs.conf?"));
    // Large objects were sent in parts.
    assert!(log.iter().any(|line| line.contains("partNumber=2")));

    // Symlinks are kept by packages alone.
    std::os::unix::fs::symlink("config.json", place.path("source/link")).unwrap();
    let vault = server.location("linked/vault");
    run(
        &server,
        &place,
        &["encrypt", "--scrypt-n", "10", "source", &vault],
    )
    .fails(5, &["--format sam"]);
    let package = server.location("linked/package");
    pack[8] = &package;
    run(&server, &place, &pack).ends(0);
    run(&server, &place, &["decrypt", &package, "linked"]).ends(0);
    assert_eq!(
        snapshot(&place.path("linked")).keys().collect::<Vec<_>>(),
        snapshot(&place.path("source")).keys().collect::<Vec<_>>()
    );
}

#[test]
fn models_are_sealed_from_where_they_lie() {
    let place = place();
    let server = Server::s3();
    upload(&server, &place.path("source"), "plain");
    let plain = server.location("plain");
    let expected = content(&place.path("source"));
    for (name, to) in [
        ("vault", server.location("vault")),
        ("package", "local".to_owned()),
    ] {
        let mut args = PACK.to_vec();
        (args[7], args[8]) = (&plain, &to);
        if name == "vault" {
            args = vec!["encrypt", "--scrypt-n", "10", &plain, &to];
        }
        run(&server, &place, &args).ends(0);
        let opened = format!("opened-{name}");
        run(&server, &place, &["decrypt", &to, &opened]).ends(0);
        assert_eq!(content(&place.path(&opened)), expected);
    }
    let inside = server.location("plain/sealed");
    run(&server, &place, &["encrypt", &plain, &inside]).fails(5, &["the destination lies in it"]);
    let absent = server.location("plai");
    run(&server, &place, &["encrypt", &absent, "new"]).fails(5, &["nothing lies there"]);
    let web = Server::web();
    upload(&web, &place.path("source"), "plain");
    let unlisted = web.web_location("plain");
    run(&web, &place, &["encrypt", &unlisted, "new"]).fails(2, &["gives no listing"]);
    assert!(!place.path("new").exists());

    // What is replaced while it is read is an error and no mixture.
    let big = server.bucket().join("plain/weights/big");
    server.watch.fail(move |method, path| {
        if method == "GET" && path.contains("weights/big") {
            fs::write(&big, bytes(8, BIG)).unwrap();
        }
        None
    });
    run(&server, &place, &["encrypt", "--scrypt-n", "10", &plain, "new"])
        .fails(5, &["plain/weights/big", "was replaced"]);
}

#[test]
fn an_interrupted_upload_is_gone_on_with() {
    let place = place();
    let server = Server::s3();
    let location = server.location("package");
    let mut pack = PACK.to_vec();
    pack[8] = &location;
    // The large file never arrives.
    server
        .watch
        .fail(|method, path| (method == "PUT" && path.contains("weights/big")).then_some(Fault::Reset(0)));
    let denied = server.watch.clone();
    let mut command = place.command(&pack);
    server.env(&mut command).args(["--key", "file:pw"]);
    let mut child = command.spawn().unwrap();
    while denied.failed.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    server.watch.fail(|_, _| None);
    run(&server, &place, &["ls", &location]).fails(4, &["incomplete", "--resume"]);
    run(&server, &place, &pack).fails(6, &["--resume"]);
    pack.push("--resume");
    run(&server, &place, &pack).ends(0);
    run(&server, &place, &["decrypt", &location, "opened"]).ends(0);
    assert_eq!(content(&place.path("opened")), content(&place.path("source")));
}

#[test]
fn an_upload_that_stays_behind_is_told_of() {
    let place = place();
    let server = Server::s3();
    let location = server.location("package");
    let mut pack = PACK.to_vec();
    pack[8] = &location;
    pack.pop();
    server.watch.fail(|method, path| {
        let denied = path.contains("weights/big") && (method == "PUT" || method == "DELETE");
        denied.then_some(Fault::Denied(StatusCode::FORBIDDEN))
    });
    run(&server, &place, &pack).fails(
        5,
        &[
            "403 Forbidden (AccessDenied)",
            "warning: an unfinished upload of package/content/weights/big is left",
        ],
    );
    pack.push("--quiet");
    let quiet = run(&server, &place, &pack);
    assert!(!quiet.stderr.contains("unfinished"), "{}", quiet.stderr);
}

#[test]
fn what_may_pass_is_tried_again() {
    let place = place();
    let (server, locations) = server(&place);
    let options = ["--part-size", "1", "--connections", "3"];
    for fault in [Fault::Throttled, Fault::Reset(100_000), Fault::Short(100_000)] {
        let count = AtomicUsize::new(0);
        // Every third answer is no good.
        server.watch.fail(move |method, _| {
            let third = count.fetch_add(1, Ordering::SeqCst) % 3 == 2;
            (third && method == "GET").then_some(fault)
        });
        for location in &locations {
            let before = server.watch.failed.load(Ordering::SeqCst);
            let args = [&["cat", location, "weights/big"][..], &options].concat();
            let cat = run(&server, &place, &args).ends(0);
            assert_eq!(cat.stdout, bytes(7, BIG), "{fault:?}");
            assert!(server.watch.failed.load(Ordering::SeqCst) > before, "{fault:?}");
        }
    }
}

/// Opens a model at a location, in this process.
fn open(server: &Server, location: &str) -> Model {
    // The server is told by options alone, since tests share their environment.
    let options = OpenOptions {
        objects: ObjectOptions {
            part_len: 1 << 20,
            connections: 4,
            ..ObjectOptions::default()
        },
        ..OpenOptions::default()
    };
    let _ = server;
    Model::open(Path::new(location), key(), &options).unwrap()
}

fn key() -> Key {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pw");
    fs::write(&path, KEY).unwrap();
    let reference: KeyRef = format!("file:{}", path.display()).parse().unwrap();
    reference
        .resolve(&modelseal::KeySources::default(), "Key", false)
        .unwrap()
}

#[test]
fn an_object_that_is_replaced_is_an_error_and_no_mixture() {
    let place = place();
    let server = Server::web();
    upload(&server, &place.path(ID), ID);
    let location = server.web_location(ID);
    let model = open(&server, &location);
    let file = model.file("weights/big").unwrap();
    let mut head = vec![0; 1000];
    file.read_into(0, &mut head).unwrap();
    assert_eq!(head, bytes(7, BIG)[..1000]);
    // The same content, but another object.
    let stored = server.bucket().join(ID).join("content/weights/big");
    let content = fs::read(&stored).unwrap();
    fs::remove_file(&stored).unwrap();
    fs::write(&stored, &content).unwrap();
    let mut out = vec![1; BIG];
    let error = file.read_into(0, &mut out).unwrap_err();
    let mut causes = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        causes += &format!(": {next}");
        cause = next.source();
    }
    assert!(causes.contains("was replaced"), "{causes}");
    assert!(out.iter().all(|byte| *byte == 0));
    // One that is gone.
    fs::remove_file(&stored).unwrap();
    assert!(file.read_into(0, &mut out).is_err());
    assert!(model.file("weights/big").is_err());
}

/// Answers every request on every connection with `answer`, for as long as the test runs.
fn always(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/model", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || {
                let mut socket = socket.unwrap();
                let mut request = [0; 4096];
                while socket.read(&mut request).is_ok_and(|len| len > 0) {
                    if socket.write_all(answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    url
}

#[test]
fn servers_that_promise_the_impossible_are_refused() {
    let place = place();
    for answer in [
        &b"HTTP/1.1 404 Not Found\r\nContent-Length: 9223372036854775807\r\n\r\nx"[..],
        b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 1000000000000000\r\n\r\n<x",
        b"HTTP/1.1 206 Partial Content\r\nETag: \"e\"\r\nContent-Range: bytes 0-18446744073709551615/9\r\n\
          Content-Length: 9\r\n\r\n123456789",
    ] {
        let mut command = place.command(["ls", &always(answer), "--key", "file:pw"]);
        let run = checked(&mut command);
        assert!(matches!(run.code, Some(4 | 5)), "{run:?}");
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    }
}

#[test]
fn readers_share_a_model() {
    let place = place();
    let server = Server::web();
    upload(&server, &place.path(ID), ID);
    let model = Arc::new(open(&server, &server.web_location(ID)));
    let plain = Arc::new(bytes(7, BIG));
    let readers: Vec<_> = (0..16)
        .map(|reader| {
            let (model, plain) = (Arc::clone(&model), Arc::clone(&plain));
            std::thread::spawn(move || {
                let file = model.file("weights/big").unwrap();
                for step in 0..6 {
                    let start = (reader * 7919 + step * 1_500_007) % (BIG - 1);
                    let len = [1, 5000, 300_000, 2 << 20][(reader + step) % 4].min(BIG - start);
                    let mut out = vec![0; len];
                    file.read_into(start as u64, &mut out).unwrap();
                    assert!(out == plain[start..start + len], "{start} {len}");
                }
            })
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn profiles_have_credentials() {
    let place = place();
    let (server, locations) = server(&place);
    write(
        place.path("home/.aws/credentials"),
        format!(
            "[default]\naws_access_key_id = other\naws_secret_access_key = other\n\n[models]\naws_access_key_id = {}\n\
             aws_secret_access_key = {SECRET_KEY}\n",
            common::s3::ACCESS_KEY
        )
        .as_bytes(),
    );
    write(
        place.path("home/.aws/config"),
        format!(
            "[default]\nregion = nowhere\n[profile models]\nregion = us-east-1\nendpoint_url = {}\n",
            server.endpoint()
        )
        .as_bytes(),
    );
    let command = |profile: &str| {
        let mut command = place.command(["ls", "--flat", &locations[1], "--key", "file:pw"]);
        server.env(&mut command);
        for name in ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION", "ENDPOINT_URL"] {
            command.env_remove(format!("AWS_{name}"));
        }
        command
            .env("HOME", place.path("home"))
            .env("AWS_PROFILE", profile);
        checked(&mut command)
    };
    assert!(command("models").ends(0).text().contains("config.json"));
    command("absent").fails(5, &["absent", "AWS_PROFILE"]);
}
