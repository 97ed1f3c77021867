//! The real gocryptfs reads what the command writes, and the command reads what gocryptfs writes.
//!
//! Without gocryptfs or `/dev/fuse` these tests are skipped, with a line that says so; with `CI=true` they fail.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

mod common {
    pub(crate) mod command;
    pub(crate) mod gocryptfs;
    pub(crate) mod tree;
}

use common::command::{KEY, Place};
use common::gocryptfs::{self, Mount};
use common::tree::{Tree, assert_same, make_everything, snapshot, supports_xattrs, write};

/// Both ways, for a vault made by gocryptfs with `options` and one made by the command with `ours`.
fn both_ways(options: &[&str], ours: &[&str]) {
    if !gocryptfs::is_available() {
        return;
    }
    let place = Place::new();
    let source = place.dir("source");
    let with_xattrs = supports_xattrs(&source);
    make_everything(&source, with_xattrs);
    let expected = snapshot(&source);

    written_by_gocryptfs(&place, options, with_xattrs, &expected);

    let mut args = vec!["--symlinks", "keep"];
    args.extend_from_slice(ours);
    place.seal("source", "ours", &args);
    let vault = place.path("ours");
    gocryptfs::fsck(&vault, &place.path("pw"));
    let mount = Mount::with_passfile(&vault, &place.path("mnt"), &place.path("pw"));
    assert_same("our vault, mounted", &expected, &snapshot(&place.path("mnt")));
    drop(mount);
    // Mounted for writing, our vault goes on growing.
    let mount = Mount::with_passfile(&vault, &place.path("mnt"), &place.path("pw"));
    write(place.path("mnt/empty/b/new"), b"by gocryptfs");
    drop(mount);
    let shown = place.keyed(&["cat", "ours", "empty/b/new"]).ends(0);
    assert_eq!(shown.stdout, b"by gocryptfs");
    place.keyed(&["verify", "ours"]).ends(0);
}

fn written_by_gocryptfs(place: &Place, options: &[&str], with_xattrs: bool, expected: &Tree) {
    let vault = place.path("theirs");
    gocryptfs::init(&vault, &place.path("pw"), options);
    let mount = Mount::with_passfile(&vault, &place.path("mnt"), &place.path("pw"));
    make_everything(&place.path("mnt"), with_xattrs);
    drop(mount);

    place.keyed(&["decrypt", "theirs", "opened"]).ends(0);
    assert_same(
        "their vault, decrypted",
        expected,
        &snapshot(&place.path("opened")),
    );
    let verified = place.keyed(&["verify", "--json", "theirs"]).ends(0).json();
    let of_kind = |kind| expected.values().filter(|node| node.kind == kind).count();
    assert_eq!(verified["files"], of_kind('f'));
    assert_eq!(verified["dirs"], of_kind('d') - 1);
    assert_eq!(verified["symlinks"], of_kind('l'));
    assert_eq!(verified["damaged"].as_array().map(Vec::len), Some(0));
    let bytes: usize = expected
        .values()
        .filter(|node| node.kind == 'f')
        .map(|node| node.content.len())
        .sum();
    assert_eq!(verified["bytes"], bytes);
    // The two files that are nothing but holes have 32 between them.
    assert!(verified["holes"].as_u64() >= Some(32), "{verified}");

    let sizes: Vec<_> = expected
        .iter()
        .filter(|(path, _)| path.starts_with("sizes") || path.starts_with("sparse"))
        .filter(|(_, node)| node.kind == 'f')
        .collect();
    let mut cat = place.command(["cat", "--key", "file:pw", "theirs"]);
    cat.args(sizes.iter().map(|(path, _)| path));
    let shown = common::command::Run::of(&mut cat).ends(0).stdout;
    let together: Vec<u8> = sizes.iter().flat_map(|(_, node)| node.content.clone()).collect();
    assert!(shown == together, "cat");
    listed(place, expected);
}

/// `ls --json` has every entry with all that is known of it.
fn listed(place: &Place, expected: &Tree) {
    let listed = place.keyed(&["ls", "--json", "theirs"]).ends(0).json();
    let mut count = 0;
    for entry in listed.as_array().unwrap() {
        count += 1;
        let path = entry["path"].as_str().unwrap();
        // JSON has no names that are not Unicode.
        let Some(node) = expected.get(Path::new(path)) else {
            assert!(path.contains('\u{fffd}'), "{path}");
            continue;
        };
        let stored = place.path("theirs").join(entry["stored"].as_str().unwrap());
        assert!(fs::symlink_metadata(stored).is_ok(), "{entry}");
        assert_eq!(entry["mode"], format!("{:04o}", node.mode), "{entry}");
        assert_eq!(entry["modified"], node.modified.0, "{entry}");
        let kind = match node.kind {
            'f' => "file",
            'd' => "directory",
            _ => "symlink",
        };
        assert_eq!(entry["kind"], kind);
        if node.kind != 'd' {
            assert_eq!(entry["length"], node.content.len(), "{entry}");
        }
        if node.kind == 'l' {
            assert_eq!(entry["target"], String::from_utf8_lossy(&node.content).as_ref());
        }
    }
    assert_eq!(count, expected.len() - 1, "all but the root");
}

#[test]
fn by_default() {
    both_ways(&[], &[]);
}

#[test]
fn xchacha() {
    both_ways(&["-xchacha"], &["--xchacha"]);
}

#[test]
fn aessiv() {
    both_ways(&["-aessiv"], &["--aessiv"]);
}

#[test]
fn plaintext_names() {
    both_ways(&["-plaintextnames"], &["--plaintext-names"]);
}

#[test]
fn deterministic_names() {
    both_ways(&["-deterministic-names"], &["--deterministic-names"]);
}

#[test]
fn long_name_max_62() {
    both_ways(&["-longnamemax", "62"], &["--longnamemax", "62"]);
}

#[test]
fn long_name_max_100() {
    both_ways(
        &["-longnamemax", "100", "-xchacha"],
        &["--longnamemax", "100", "--xchacha"],
    );
}

/// Plain files around both kinds of vault: gocryptfs's own as it makes them, ours as the command does.
fn two_vaults(place: &Place) {
    gocryptfs::init(&place.path("theirs"), &place.path("pw"), &[]);
    let mount = Mount::with_passfile(&place.path("theirs"), &place.path("mnt"), &place.path("pw"));
    write(place.path("mnt/file"), b"content");
    drop(mount);
    write(place.path("source/file"), b"content");
    place.seal("source", "ours", &[]);
}

/// What gocryptfs reads from `file` in a vault of ours.
fn mounted(place: &Place, passfile: &str) -> Vec<u8> {
    let mount = Mount::with_passfile(&place.path("ours"), &place.path("mnt"), &place.path(passfile));
    let content = fs::read(place.path("mnt/file")).unwrap();
    drop(mount);
    content
}

#[test]
fn passwords_are_changed_by_either() {
    if !gocryptfs::is_available() {
        return;
    }
    let place = Place::new();
    two_vaults(&place);
    // gocryptfs -passwd takes the old password from a file, and asks for the new one on its standard input.
    for vault in ["theirs", "ours"] {
        let mut child = Command::new("gocryptfs")
            .args(["-passwd", "-q", "-scryptn", "10"])
            .arg(place.path(vault))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input
            .write_all(format!("{KEY}\nby gocryptfs\n").as_bytes())
            .unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
        place.keyed(&["cat", vault, "file"]).fails(3, &["wrong password"]);
        fs::write(place.path("second"), "by gocryptfs\n").unwrap();
        let cat = place.run(["cat", "--key", "file:second", vault, "file"]).ends(0);
        assert_eq!(cat.stdout, b"content");

        fs::write(place.path("third"), "by modelseal, with \u{e9} and \r\n").unwrap();
        place
            .run(["passwd", "--key", "file:second", "--new-key", "file:third", vault])
            .ends(0);
        gocryptfs::fsck(&place.path(vault), &place.path("third"));
        let refused = gocryptfs::run([
            OsStr::new("-fsck"),
            OsStr::new("-passfile"),
            place.path("second").as_os_str(),
            place.path(vault).as_os_str(),
        ]);
        assert_eq!(refused.status.code(), Some(12), "the old password: {refused:?}");
    }
    assert_eq!(mounted(&place, "third"), b"content");
}

#[test]
fn a_key_file_is_read_as_gocryptfs_reads_it() {
    if !gocryptfs::is_available() {
        return;
    }
    let binary: Vec<u8> = (1..=255).filter(|byte| *byte != b'\n').collect();
    let long = vec![b'x'; 2048];
    let files: [&[u8]; 9] = [
        b"no newline",
        b"a newline\n",
        b"a carriage return\r\n",
        b"spaces at the end  \t\n",
        b"  spaces in front\n",
        b"several\nlines\n\n",
        b"a newline to spare\n\n",
        &binary,
        &long,
    ];
    for file in files {
        let place = Place::new();
        fs::write(place.path("key"), file).unwrap();
        let vault = place.dir("vault");
        // By the pipe, as in `cat key | gocryptfs -init`.
        let init = Command::new("gocryptfs")
            .args(["-init", "-q", "-scryptn", "10"])
            .arg(&vault)
            .stdin(fs::File::open(place.path("key")).unwrap())
            .output()
            .unwrap();
        assert!(init.status.success(), "{}: {init:?}", file.escape_ascii());
        place.run(["ls", "--key", "file:key", "vault"]).ends(0);
        // Ours, by the option.
        write(place.path("source/file"), b"content");
        place
            .run([
                "encrypt",
                "--scrypt-n",
                "10",
                "--key",
                "file:key",
                "source",
                "ours",
            ])
            .ends(0);
        gocryptfs::fsck(&place.path("ours"), &place.path("key"));
        // What differs in what gocryptfs counts is another key.
        let first = file.split(|byte| *byte == b'\n').next().unwrap();
        fs::write(place.path("other"), [&first[1..], b"\r\n"].concat()).unwrap();
        place
            .run(["ls", "--key", "file:other", "vault"])
            .fails(3, &["vault", "wrong password"]);
    }
}

#[test]
fn master_keys_go_both_ways() {
    if !gocryptfs::is_available() {
        return;
    }
    let place = Place::new();
    two_vaults(&place);
    let exported = place.keyed(&["key", "export", "ours"]).ends(0);
    let master = exported.text().trim_end().to_owned();
    let mount = Mount::new(&place.path("ours"), &place.path("mnt"), ["-masterkey", &master]);
    assert_eq!(fs::read(place.path("mnt/file")).unwrap(), b"content");
    drop(mount);

    let xray = Command::new("gocryptfs-xray")
        .arg("-dumpmasterkey")
        .arg(place.path("theirs/gocryptfs.conf"))
        .stdin(fs::File::open(place.path("pw")).unwrap())
        .output();
    // It comes with the same package.
    let dumped = String::from_utf8(xray.unwrap().stdout).unwrap();
    let theirs = dumped.split_whitespace().last().unwrap();
    fs::write(place.path("master"), theirs).unwrap();
    for vault in ["theirs", "ours"] {
        let cat = place.run(["cat", "--key", "masterkey:file:master", vault, "file"]);
        if vault == "theirs" {
            assert_eq!(cat.ends(0).stdout, b"content");
        } else {
            cat.fails(3, &["wrong master key"]);
        }
    }
    // As printed when a vault is made: with dashes.
    let export = place.keyed(&["key", "export", "theirs"]).ends(0);
    assert_eq!(export.text().trim_end().replace('-', ""), theirs.replace('-', ""));
    fs::write(place.path("master"), export.stdout).unwrap();
    let cat = place.run(["cat", "--key", "masterkey:file:master", "theirs", "file"]);
    assert_eq!(cat.ends(0).stdout, b"content");
}

#[test]
fn both_show_the_same_of_a_conf() {
    if !gocryptfs::is_available() {
        return;
    }
    let place = Place::new();
    two_vaults(&place);
    for vault in ["theirs", "ours"] {
        let info = place.run(["info", "--json", vault]).ends(0).json();
        let theirs = gocryptfs::ok([OsStr::new("-info"), place.path(vault).as_os_str()]).stdout;
        let theirs = String::from_utf8(theirs).unwrap();
        let field = |name: &str| {
            let line = theirs.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].trim().to_owned()
        };
        assert_eq!(info["creator"], field("Creator:"));
        let flags: Vec<_> = info["flags"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|flag| flag.as_str())
            .collect();
        assert_eq!(flags.join(" "), field("FeatureFlags:"));
    }
}

/// What either leaves incomplete, the other one does not take for a vault.
#[test]
fn gocryptfs_refuses_an_incomplete_vault() {
    if !gocryptfs::is_available() {
        return;
    }
    let place = Place::new();
    write(place.path("source/file"), b"content");
    place.seal("source", "vault", &[]);
    fs::rename(
        place.path("vault/gocryptfs.conf"),
        place.path("vault/gocryptfs.conf.partial"),
    )
    .unwrap();
    let refused = gocryptfs::run([
        OsStr::new("-fsck"),
        OsStr::new("-passfile"),
        place.path("pw").as_os_str(),
        place.path("vault").as_os_str(),
    ]);
    assert_eq!(refused.status.code(), Some(11), "{refused:?}");
    place.keyed(&["ls", "vault"]).fails(4, &["vault", "incomplete"]);
}
