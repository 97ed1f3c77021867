//! Vaults and destinations made to mislead: nothing is ever written outside of the destination.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use modelseal::gocryptfs::MasterKey;
use modelseal::gocryptfs::names::NameCipher;
use modelseal::{Info, Model};

mod common {
    pub(crate) mod command;
    pub(crate) mod tree;
}

use common::command::Place;
use common::tree::{assert_same, names, set_mode, snapshot, write};

/// The tweak of extended attributes' names. A directory with it as its IV takes their encrypted names for its own,
/// and they may be anything.
const XATTR_IV: &[u8; 16] = b"xattr_name_iv_xx";
const LONG: &str = "gocryptfs.longname.";

/// What is done to a stored file, in words and in deed.
type Case<'a> = (&'a str, &'a dyn Fn(&Path));

/// A vault with a file in a directory, and what lies around the destination.
fn sealed(options: &[&str]) -> Place {
    let place = Place::new();
    write(place.path("source/a"), b"content");
    write(place.path("source/d/b"), b"deeper");
    write(place.path("source").join("n".repeat(200)), b"long");
    write(place.path("outer/outside/file"), b"precious");
    place.seal("source", "vault", options);
    place
}

/// Unseals into `outer/opened` with this exit status. Whatever comes of it, its neighbours stay as they are.
#[track_caller]
fn decrypted(place: &Place, options: &[&str], code: i32) -> common::command::Run {
    let around = || {
        let mut tree = snapshot(&place.path("outer"));
        tree.retain(|path, _| !path.as_os_str().is_empty() && !path.starts_with("opened"));
        tree
    };
    let before = around();
    let run = place
        .keyed(&[&["decrypt", "vault", "outer/opened"], options].concat())
        .ends(code);
    assert_same("around the destination", &before, &around());
    assert_eq!(
        names(&place.path("outer")).len(),
        1 + usize::from(place.path("outer/opened").exists())
    );
    run
}

/// What encrypts the names of the vault.
fn name_cipher(place: &Place) -> NameCipher {
    let exported = place.keyed(&["key", "export", "vault"]).ends(0);
    let master = MasterKey::from_hex(exported.text().trim_end()).unwrap();
    let Info::Vault(conf) = Model::inspect(&place.path("vault"), &modelseal::OpenOptions::default()).unwrap()
    else {
        panic!("it is a vault");
    };
    master.name_cipher(&conf.flags(), conf.long_name_max()).unwrap()
}

/// The encrypted form of any name at all in a directory whose IV is [`XATTR_IV`].
fn encrypted(names: &NameCipher, name: &[u8]) -> String {
    let stored = names.encrypt_xattr_name(name).unwrap();
    stored.strip_prefix("user.gocryptfs.").unwrap().to_owned()
}

fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn names_that_lead_elsewhere_are_left_out() {
    let place = sealed(&[]);
    let cipher = name_cipher(&place);
    let file = place.stored("vault", "d/b");
    let dir = file.parent().unwrap();
    replace(&dir.join("gocryptfs.diriv"), XATTR_IV);
    fs::remove_file(&file).unwrap();
    fs::copy(place.stored("vault", "a"), dir.join(encrypted(&cipher, b"good"))).unwrap();
    let content = fs::read(place.stored("vault", "a")).unwrap();
    let bad: [&[u8]; 8] = [
        b"..",
        b".",
        b"../escaped",
        b"../../outside/file",
        b"/etc/x",
        b"x/y",
        b"outside/file",
        b"x/",
    ];
    for name in bad {
        fs::write(dir.join(encrypted(&cipher, name)), &content).unwrap();
        // The same as a directory with a file in it, and as a link.
        let stored = encrypted(&cipher, &[name, b"/"].concat());
        fs::create_dir(dir.join(&stored)).unwrap();
        fs::write(dir.join(&stored).join("gocryptfs.diriv"), XATTR_IV).unwrap();
        fs::write(dir.join(&stored).join(encrypted(&cipher, b"in it")), &content).unwrap();
        symlink("x", dir.join(encrypted(&cipher, &[name, b"/l"].concat()))).unwrap();
    }
    let run = decrypted(&place, &[], 1);
    assert_eq!(
        run.stderr
            .matches("is left out, as its name does not decrypt")
            .count(),
        3 * bad.len(),
        "{}",
        run.stderr
    );
    assert_eq!(names(&place.path("outer/opened/d")), ["good"]);
    let listed = place.keyed(&["ls", "vault", "d"]).ends(0);
    assert_eq!(listed.text(), "d/good\n");
    assert_eq!(listed.stderr.matches("warning").count(), 3 * bad.len());
    let found = place.keyed(&["verify", "vault"]).ends(1);
    assert!(
        found.text().contains(&format!("{} damaged", 3 * bad.len())),
        "{}",
        found.text()
    );
}

/// One name, stored as a short one and as a long one: only the first is where it belongs.
#[test]
fn a_name_stored_twice_counts_once() {
    let place = sealed(&[]);
    symlink("../outside", place.path("source/e")).unwrap();
    fs::remove_dir_all(place.path("vault")).unwrap();
    place.seal("source", "vault", &["--symlinks", "keep"]);
    // d becomes a link that leads out, and its directory goes on under the same name, stored as a long one.
    let (dir, link) = (place.stored("vault", "d"), place.stored("vault", "e"));
    let short = dir.file_name().unwrap().to_str().unwrap();
    let hashed = dir.with_file_name(name_cipher(&place).long_name_hash(short));
    fs::rename(&dir, &hashed).unwrap();
    fs::write(format!("{}.name", hashed.display()), short).unwrap();
    fs::rename(&link, &dir).unwrap();
    let run = decrypted(&place, &[], 1);
    assert!(
        run.stderr.contains(LONG) && run.stderr.contains("left out"),
        "{}",
        run.stderr
    );
    assert_eq!(
        fs::read_link(place.path("outer/opened/d")).unwrap(),
        Path::new("../outside")
    );
    place.keyed(&["cat", "vault", "d/b"]).ends(5);
    place.keyed(&["verify", "vault"]).ends(1);
}

#[test]
fn links_are_made_and_never_followed() {
    for options in [&[][..], &["--plaintext-names"]] {
        let place = Place::new();
        write(place.path("source/z/file"), b"content");
        write(place.path("outer/outside/file"), b"precious");
        for (link, target) in [
            ("up", "../outside"),
            ("z/up", "../../outside/file"),
            ("root", "/"),
            ("z/new", "../../new"),
        ] {
            symlink(target, place.path("source").join(link)).unwrap();
        }
        place.seal("source", "vault", &[&["--symlinks", "keep"], options].concat());
        decrypted(&place, &[], 0);
        assert_same(
            "links",
            &snapshot(&place.path("source")),
            &snapshot(&place.path("outer/opened")),
        );
    }
    // A stored link in place of a directory or a file.
    let place = sealed(&["--plaintext-names"]);
    fs::remove_dir_all(place.path("vault/d")).unwrap();
    symlink(place.path("outer/outside"), place.path("vault/d")).unwrap();
    fs::remove_file(place.path("vault/a")).unwrap();
    symlink(place.path("outer/outside/file"), place.path("vault/a")).unwrap();
    decrypted(&place, &[], 0);
    for name in ["a", "d"] {
        assert!(
            fs::symlink_metadata(place.path("outer/opened").join(name))
                .unwrap()
                .is_symlink()
        );
        place.keyed(&["cat", "vault", name]).ends(5);
    }
    place.keyed(&["cat", "vault", "d/file"]).ends(5);
    // With encrypted names, a link's target must decrypt.
    let place = sealed(&[]);
    let dir = place.stored("vault", "d");
    fs::remove_dir_all(&dir).unwrap();
    symlink(place.path("outer/outside"), &dir).unwrap();
    decrypted(&place, &[], 1).fails(1, &["symlink d is damaged"]);
}

/// Someone else could have put links into the destination between two runs.
#[test]
fn planted_links_are_not_followed() {
    for planted in ["a", "d", "d/b", ".modelseal-partial"] {
        let place = sealed(&[]);
        let opened = place.path("outer/opened");
        write(opened.join(".modelseal-partial"), b"");
        let path = opened.join(planted);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let target = if planted == "d" { "outside" } else { "outside/file" };
        let _ = fs::remove_file(&path);
        symlink(place.path("outer").join(target), &path).unwrap();
        let code = if planted == "d" { 5 } else { 0 };
        decrypted(&place, &["--resume"], code);
        if code == 0 {
            assert_same(planted, &snapshot(&place.path("source")), &snapshot(&opened));
        }
    }
    // The whole destination may be a link: that is the user's own.
    let place = sealed(&[]);
    fs::create_dir(place.path("elsewhere")).unwrap();
    symlink(place.path("elsewhere"), place.path("outer/opened")).unwrap();
    decrypted(&place, &[], 0);
    assert_eq!(fs::read(place.path("elsewhere/a")).unwrap(), b"content");
}

#[test]
fn junk_is_left_out_and_reported() {
    let place = sealed(&[]);
    for name in [
        "junk",
        "AAAAAAAAAAAAAAAAAAAAAA",
        "gocryptfs.conf.bak",
        "-",
        "\u{1b}[31m",
    ] {
        write(place.path("vault").join(name), b"junk");
    }
    let run = decrypted(&place, &[], 1);
    assert_eq!(run.stderr.matches("left out").count(), 5, "{}", run.stderr);
    assert!(!run.stderr.contains('\u{1b}'), "escapes reach the terminal");
    assert_same(
        "the rest",
        &content_of(&place, "source"),
        &content_of(&place, "outer/opened"),
    );
    let found = place.keyed(&["verify", "vault"]).ends(1);
    assert!(found.text().contains("5 damaged"), "{}", found.text());
    assert!(!found.text().contains('\u{1b}'));
    // Whoever wants no warnings still learns that something is missing.
    let quiet = decrypted_quietly(&place);
    assert!(
        quiet.contains("5 things") && quiet.lines().count() == 1,
        "{quiet}"
    );
}

fn decrypted_quietly(place: &Place) -> String {
    fs::remove_dir_all(place.path("outer/opened")).unwrap();
    decrypted(place, &["--quiet"], 1).stderr
}

/// All but the root, whose time changed with what was planted in it.
fn content_of(place: &Place, dir: &str) -> common::tree::Tree {
    let mut tree = snapshot(&place.path(dir));
    tree.remove(Path::new(""));
    tree
}

#[test]
fn long_names_are_checked() {
    let long = "n".repeat(200);
    let cases: [Case<'_>; 7] = [
        ("missing", &|file| fs::remove_file(file).unwrap()),
        ("empty", &|file| replace(file, b"")),
        ("junk", &|file| replace(file, b"junk")),
        ("with a newline", &|file| {
            let full = fs::read(file).unwrap();
            replace(file, &[&full, &b"\n"[..]].concat());
        }),
        ("too long", &|file| replace(file, &[b'A'; 345])),
        ("huge", &|file| {
            replace(file, b"");
            fs::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(1 << 40)
                .unwrap();
        }),
        ("a pipe", &|file| {
            fs::remove_file(file).unwrap();
            assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
        }),
    ];
    for (case, change) in cases {
        let place = sealed(&[]);
        let content = place.stored("vault", &long);
        let mut file = content.clone().into_os_string();
        file.push(".name");
        change(Path::new(&file));
        let run = decrypted(&place, &[], 1);
        assert!(
            run.stderr.contains("left out") && run.stderr.contains(LONG),
            "{case}: {}",
            run.stderr
        );
        assert_eq!(names(&place.path("outer/opened")), ["a", "d"], "{case}");
        place.keyed(&["verify", "vault"]).ends(1);
        place.keyed(&["cat", "vault", "a"]).ends(0);
    }
    // Another file's name, which belongs to another hash.
    let place = sealed(&[]);
    let content = place.stored("vault", &long);
    let other = content.with_file_name(format!("{LONG}{}", "B".repeat(43)));
    fs::rename(&content, &other).unwrap();
    fs::rename(
        format!("{}.name", content.display()),
        format!("{}.name", other.display()),
    )
    .unwrap();
    assert!(decrypted(&place, &[], 1).stderr.contains("left out"));
    // A name without content is none.
    let place = sealed(&[]);
    fs::remove_file(place.stored("vault", &long)).unwrap();
    assert!(!decrypted(&place, &[], 0).stderr.contains("left out"));
    place.keyed(&["verify", "vault"]).ends(0);
}

#[test]
fn directories_without_a_sound_iv_are_damaged() {
    let cases: [Case<'_>; 6] = [
        ("missing", &|iv| fs::remove_file(iv).unwrap()),
        ("short", &|iv| replace(iv, &[1; 15])),
        ("long", &|iv| replace(iv, &[1; 17])),
        ("zeros", &|iv| replace(iv, &[0; 16])),
        ("a link", &|iv| {
            fs::rename(iv, iv.with_extension("moved")).unwrap();
            symlink("gocryptfs.moved", iv).unwrap();
        }),
        ("a pipe", &|iv| {
            fs::remove_file(iv).unwrap();
            assert!(Command::new("mkfifo").arg(iv).status().unwrap().success());
        }),
    ];
    for (case, change) in cases {
        let place = sealed(&[]);
        let iv = place.stored("vault", "d").join("gocryptfs.diriv");
        change(&iv);
        let run = place.keyed(&["decrypt", "vault", "outer/opened"]);
        assert!(matches!(run.code, Some(1 | 5)), "{case}: {run:?}");
        assert!(run.stderr.contains("gocryptfs.diriv"), "{case}: {}", run.stderr);
        assert!(
            !place.path("outer/opened").exists(),
            "{case}: found before anything is written"
        );
        let found = place.keyed(&["verify", "vault"]).ends(1);
        assert!(
            found.text().contains("gocryptfs.diriv"),
            "{case}: {}",
            found.text()
        );
        assert_eq!(place.keyed(&["cat", "vault", "a"]).ends(0).stdout, b"content");
    }
}

#[test]
fn only_files_directories_and_links_come_out() {
    let place = sealed(&["--plaintext-names"]);
    assert!(
        Command::new("mkfifo")
            .arg(place.path("vault/d/pipe"))
            .status()
            .unwrap()
            .success()
    );
    set_mode(&place.path("vault/a"), 0o6755);
    let run = decrypted(&place, &[], 1);
    assert!(
        run.stderr.contains("d/pipe") && run.stderr.contains("left out"),
        "{}",
        run.stderr
    );
    assert_eq!(names(&place.path("outer/opened/d")), ["b"]);
    assert_eq!(
        fs::metadata(place.path("outer/opened/a")).unwrap().mode() & 0o7777,
        0o755
    );
    place
        .keyed(&["cat", "vault", "d/pipe"])
        .fails(5, &["d/pipe", "not a regular file"]);
    // The name that marks an incomplete destination is taken.
    fs::remove_dir_all(place.path("outer/opened")).unwrap();
    fs::copy(place.path("vault/a"), place.path("vault/.modelseal-partial")).unwrap();
    decrypted(&place, &[], 5).fails(5, &[".modelseal-partial"]);
}

#[test]
fn a_vault_that_is_no_directory_of_ours_is_not_followed_out_of() {
    let place = sealed(&[]);
    // The conf as a link: only the directory itself may be one.
    fs::rename(place.path("vault/gocryptfs.conf"), place.path("conf")).unwrap();
    symlink("../conf", place.path("vault/gocryptfs.conf")).unwrap();
    place.keyed(&["ls", "vault"]).fails(5, &["gocryptfs.conf"]);
    fs::remove_file(place.path("vault/gocryptfs.conf")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(place.path("vault/gocryptfs.conf"))
            .status()
            .unwrap()
            .success()
    );
    place
        .keyed(&["ls", "vault"])
        .fails(5, &["gocryptfs.conf", "not a regular file"]);
}
