//! Sam packages by the command: sealed, looked at, opened, refused, rotated.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Stdio;

use modelseal::sam::{IssuerKey, Terms};
use modelseal::{Key, PackageOptions, SealFormat, SealOptions, seal};
use serde_json::json;

mod common {
    pub(crate) mod command;
    pub(crate) mod tree;
}
#[path = "../../sam-format/tests/common/insider.rs"]
mod insider;

use common::command::{BIG, KEY, Place, Run};
use common::tree::{assert_same, bytes, flip, snapshot, write};
use insider::Insider;

const ID: &str = "LD_Demo_0001";

/// A place with a package of a small model, named after its key.
fn place() -> Place {
    let place = Place::with_model(&[]);
    pack(&place, &[]).ends(0);
    place
}

fn pack(place: &Place, more: &[&str]) -> Run {
    let args = [
        "encrypt",
        "--format",
        "sam",
        "--key-id",
        ID,
        "--scrypt-n",
        "14",
        "source",
    ];
    place.keyed(&[&args, more].concat())
}

fn stored(place: &Place, path: &str) -> std::path::PathBuf {
    place.path(ID).join("content").join(path)
}

#[test]
fn a_model_is_packed_and_unpacked() {
    let place = place();
    let expected = snapshot(&place.path("source"));
    for (n, options) in [&[][..], &["--threads", "1"], &["--read-mode", "copy"]]
        .iter()
        .enumerate()
    {
        let opened = format!("opened-{n}");
        place
            .keyed(&[&["decrypt", ID, &opened], *options].concat())
            .ends(0);
        assert_same(&opened, &expected, &snapshot(&place.path(&opened)));
    }
    let run = place.keyed(&["ls", ID]).ends(0);
    assert_eq!(
        run.text(),
        "config.json\nlink\nweights/\nweights/big\nweights/empty\n"
    );
    let run = place.keyed(&["ls", "--flat", ID, "weights"]).ends(0);
    assert_eq!(run.text(), "weights/big\nweights/empty\n");
    let run = place.keyed(&["ls", "-d", ID]).ends(0);
    assert_eq!(run.text(), "config.json\nlink\nweights/\n");
    let run = place.keyed(&["cat", ID, "config.json", "weights/big"]).ends(0);
    assert_eq!(run.stdout, [b"{\"a\": 1}\n".as_slice(), &bytes(7, BIG)].concat());
    // Names stay readable, content does not.
    let sealed = fs::read(stored(&place, "config.json")).unwrap();
    assert!(!sealed.windows(8).any(|part| part == b"{\"a\": 1}"));
}

#[test]
fn every_kind_of_file_comes_back() {
    let place = Place::new();
    common::tree::make_everything(&place.dir("source"), false);
    // Links out of the tree and into nothing have tests of their own.
    fs::remove_dir_all(place.path("source/links")).unwrap();
    let run = pack(&place, &["packed", "--symlinks", "follow"]);
    run.ends(0);
    place.keyed(&["decrypt", "packed", "opened"]).ends(0);
    assert_same(
        "opened",
        &snapshot(&place.path("source")),
        &snapshot(&place.path("opened")),
    );
}

#[test]
fn a_package_is_checked_with_and_without_its_key() {
    let place = place();
    place.keyed(&["verify", ID]).ends(0);
    place.run(["verify", ID]).ends(0);
    // A vault cannot be.
    place.run(["verify", "vault"]).fails(4, &["only with its key"]);
    flip(&stored(&place, "weights/big"), 4096 + 70_000);
    let run = place.keyed(&["verify", ID]).ends(1);
    assert!(
        run.text().contains("chunks of weights/big are damaged: 1"),
        "{}",
        run.text()
    );
    let run = place.run(["verify", ID]).ends(1);
    assert!(
        run.text().contains("its digest is not that of the manifest"),
        "{}",
        run.text()
    );
    place
        .keyed(&["decrypt", ID, "opened"])
        .fails(1, &["chunk 1 is damaged"]);
    place.keyed(&["cat", ID, "config.json"]).ends(0);
}

#[test]
fn what_lies_in_a_package_must_be_what_its_manifest_lists() {
    let place = place();
    let open = |parts: &[&str]| {
        place.keyed(&["ls", ID]).fails(1, parts);
        place.run(["verify", ID]).fails(1, parts);
    };
    write(stored(&place, "weights/more"), b"");
    open(&["weights/more is in the package, but not in the manifest"]);
    fs::remove_file(stored(&place, "weights/more")).unwrap();
    fs::rename(stored(&place, "config.json"), place.path("aside")).unwrap();
    open(&["config.json is in the manifest, but not in the package"]);
    symlink("weights/empty", stored(&place, "config.json")).unwrap();
    open(&["config.json"]);
    fs::remove_file(stored(&place, "config.json")).unwrap();
    fs::rename(place.path("aside"), stored(&place, "config.json")).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(stored(&place, "config.json"))
        .unwrap()
        .write_all(b"x")
        .unwrap();
    open(&["stored in another length"]);
}

#[test]
fn a_wrong_key_and_a_wrong_issuer_are_told_apart() {
    let place = place();
    fs::write(place.path("other"), "another key, quite as long\n").unwrap();
    place
        .run(["ls", "--key", "file:other", ID])
        .fails(3, &["wrong key"]);
    fs::write(place.path("short"), "abc\n").unwrap();
    place
        .run(["ls", "--key", "file:short", ID])
        .fails(3, &["3 bytes long, must be 4 to 128"]);
    let info = place.run(["info", "--json", ID]).ends(0).json();
    let issuer = info["licenses"][0]["issuer_key"].as_str().unwrap();
    let quiet = place
        .keyed(&["ls", ID, "--issuer", issuer, "--min-serial", "1"])
        .ends(0);
    assert!(!quiet.stderr.contains("warning"), "{}", quiet.stderr);
    let warned = place.keyed(&["ls", ID]).ends(0);
    assert!(warned.stderr.contains("without --issuer"), "{}", warned.stderr);
    let warned = place.keyed(&["ls", ID, "--issuer", issuer]).ends(0);
    assert!(
        warned.stderr.contains("without --min-serial"),
        "{}",
        warned.stderr
    );
    let other = pack(&place, &["second"]).ends(0);
    drop(other);
    let info = place.run(["info", "--json", "second"]).ends(0).json();
    let second = info["licenses"][0]["issuer_key"].as_str().unwrap();
    place
        .keyed(&["ls", ID, "--issuer", second])
        .fails(4, &["who is not a trusted issuer"]);
    place
        .keyed(&["ls", ID, "--issuer", &format!("{second},{issuer}")])
        .ends(0);
    place
        .keyed(&["ls", ID, "--min-serial", "9007199254740991"])
        .fails(4, &["has serial", "at least 9007199254740991"]);
    place
        .keyed(&["ls", ID, "--issuer", "nonsense"])
        .fails(2, &["neither the base64"]);
}

#[test]
fn the_terms_of_a_license_are_kept_to() {
    let place = Place::with_model(&[]);
    let with = |config: serde_json::Value| {
        fs::write(place.path("terms.json"), config.to_string()).unwrap();
        let name = format!("packed-{}", fs::read_dir(place.path(".")).unwrap().count());
        pack(&place, &["--license-config", "terms.json", &name]).ends(0);
        place.keyed(&["ls", &name])
    };
    with(json!({"expires": "2020-01-01T00:00:00Z"})).fails(4, &["expired at 2020-01-01T00:00:00Z"]);
    with(json!({"valid_from": "2200-01-01T00:00:00Z"})).fails(4, &["valid from 2200-01-01T00:00:00Z on"]);
    with(json!({"machines": ["some-other-machine"]})).fails(4, &["1 other"]);
    with(json!({"tdx": {"required": true, "mrtd": ["00".repeat(48)]}})).fails(4, &["a TD"]);
    with(json!({"company": "ACME", "extras": "x", "serial": 3})).ends(0);
    // Named by the caller instead.
    let machine = json!({"machines": ["some-other-machine"]});
    fs::write(place.path("terms.json"), machine.to_string()).unwrap();
    pack(&place, &["--license-config", "terms.json", "there"]).ends(0);
    place
        .keyed(&["ls", "there", "--machine", "some-other-machine"])
        .ends(0);
    for (config, parts) in [
        (json!({"company": "ACM"}), &["company"][..]),
        (json!({"extras": "x".repeat(257)}), &["extras"]),
        (json!({"serial": -1}), &["license configuration"]),
        (json!({"colour": "red"}), &["colour"]),
        (json!({"license_id": "another_one"}), &["--key-id"]),
    ] {
        fs::write(place.path("terms.json"), config.to_string()).unwrap();
        let run = pack(&place, &["--license-config", "terms.json", "refused"]);
        assert_ne!(run.code, Some(0));
        parts
            .iter()
            .for_each(|part| assert!(run.stderr.contains(part), "{}", run.stderr));
        assert!(!place.path("refused").exists());
    }
}

#[test]
fn options_of_another_format_are_refused() {
    let place = Place::with_model(&[]);
    pack(&place, &["--xchacha", "x"]).fails(2, &["--xchacha is for --format gocryptfs only"]);
    place
        .keyed(&["encrypt", "--key-id", ID, "source", "x"])
        .fails(2, &["--key-id is for --format sam only"]);
    place.keyed(&["encrypt", "source"]).fails(2, &["DST is missing"]);
    place
        .keyed(&["encrypt", "--format", "sam", "source", "x"])
        .fails(2, &["--key-id is missing"]);
    pack(&place, &["--chunk-size", "5000", "x"]).fails(2, &["--chunk-size must be a power of two"]);
    for id in ["short", "no spaces in it", ".hidden_one"] {
        place
            .keyed(&["encrypt", "--format", "sam", "--key-id", id, "source", "x"])
            .fails(4, &["license_id"]);
    }
    assert!(!place.path("x").exists());
    let place = self::place();
    let change = place.keyed(&["passwd", ID, "--new-key", "file:pw"]);
    change.fails(4, &["modelseal license issue"]);
    place.keyed(&["key", "export", ID]).fails(4, &["no master key"]);
}

#[test]
fn every_chunk_length_is_read() {
    let place = Place::with_model(&[]);
    let expected = snapshot(&place.path("source"));
    for chunk_len in ["4096", "1048576", "16777216"] {
        pack(&place, &["--chunk-size", chunk_len, chunk_len]).ends(0);
        let opened = format!("opened-{chunk_len}");
        place.keyed(&["decrypt", chunk_len, &opened]).ends(0);
        assert_same(chunk_len, &expected, &snapshot(&place.path(&opened)));
        place.run(["verify", chunk_len]).ends(0);
    }
}

#[test]
fn three_arguments_pack_as_well() {
    let place = Place::with_model(&[]);
    let run = place.run(["sam-pack", "source", "0Bn4Q1wwY9fN3P", ID]).ends(0);
    assert!(run.stderr.contains("visible to every user"), "{}", run.stderr);
    fs::write(place.path("key"), "0Bn4Q1wwY9fN3P\n").unwrap();
    place.run(["verify", "--key", "file:key", ID]).ends(0);

    let mut child = place
        .command(["sam-pack", "source", "-", "LD_Demo_0002"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{KEY}\n").as_bytes())
        .unwrap();
    let run = Run::from(child.wait_with_output().unwrap()).ends(0);
    assert!(!run.stderr.contains("visible"), "{}", run.stderr);
    place.keyed(&["verify", "LD_Demo_0002"]).ends(0);
}

/// Whatever the key looks like, no message repeats it.
#[test]
fn a_key_that_looks_like_an_option_is_none() {
    let place = Place::with_model(&[]);
    let pack = |words: &[&str]| place.run([&["sam-pack", "--quiet"], words].concat());
    for (n, key) in ["-0Bn4Q1wwY9fN3P", "--0Bn4Q1wwY9fN3P", "-q0Bn4", "--key=0Bn4"]
        .iter()
        .enumerate()
    {
        let id = format!("LD_Demo_1{n:03}");
        pack(&["source", key, &id]).ends(0);
        fs::write(place.path("key"), format!("{key}\n")).unwrap();
        place.run(["ls", "--key", "file:key", &id]).ends(0);
    }
    pack(&["--", "source", "--json", ID]).ends(0);
    for words in [
        &["source", "--0Bn4Q1wwY9fN3P"][..],
        &["--0Bn4Q1wwY9fN3P", "source", "LD_Demo_0009"],
        &["--threads=0Bn4Q1wwY9fN3P", "source", "LD_Demo_0009"],
        &["source", "--json=0Bn4Q1wwY9fN3P", "LD_Demo_0009"],
        &["source", "two", "words", "0Bn4Q1wwY9fN3P", "LD_Demo_0009"],
    ] {
        let run = pack(words).fails(2, &["DIR KEY ID"]);
        assert!(!run.stderr.contains("0Bn4"), "{}", run.stderr);
    }
    assert!(!place.path("LD_Demo_0009").exists());
    let help = place.run(["sam-pack", "--help"]).ends(0);
    assert!(help.text().contains("Usage: modelseal sam-pack"));
}

/// Whoever has the key of a package can seal other content with it, which its issuer did not sign.
#[test]
fn what_a_key_holder_altered_is_neither_unsealed_nor_signed_anew() {
    let place = place();
    let license = place.path(ID).join("licenses").join(format!("{ID}.json"));
    let insider = Insider::new(&fs::read_to_string(license).unwrap(), KEY.as_bytes());
    insider.replace_chunk(&stored(&place, "weights/big"), 1, &[b'!'; 65536]);
    // This is what a read of some of it cannot tell.
    place.keyed(&["cat", ID, "weights/big"]).ends(0);
    let altered = "weights/big was altered: its digest is not that of the manifest";
    place.keyed(&["decrypt", ID, "opened"]).fails(1, &[altered]);
    assert!(!place.path("opened/weights/big").exists());
    fs::write(place.path("new"), "the next key, kept elsewhere\n").unwrap();
    let to = ["rotate", "--new-key", "file:new", "--scrypt-n", "14", "--key-id"];
    let rotate = [&to[..], &["LD_Demo_0002", ID]].concat();
    place.keyed(&rotate).fails(1, &[altered]);
    assert!(!place.path("LD_Demo_0002").exists());
    // An earlier run had unsealed the altered file.
    fs::write(
        place.path("opened/weights/big"),
        place.keyed(&["cat", ID, "weights/big"]).stdout,
    )
    .unwrap();
    let when = fs::metadata(place.path("source/weights/big"))
        .unwrap()
        .modified()
        .unwrap();
    let there = fs::File::options()
        .write(true)
        .open(place.path("opened/weights/big"))
        .unwrap();
    there.set_modified(when).unwrap();
    place
        .keyed(&["decrypt", "--resume", ID, "opened"])
        .fails(1, &[altered]);
}

#[test]
fn content_is_rotated_to_a_new_key() {
    let place = place();
    fs::write(place.path("new"), "the next key, kept elsewhere\n").unwrap();
    for (model, id) in [(ID, "LD_Demo_0002"), ("vault", "LD_Demo_0003")] {
        let args = [
            "rotate",
            "--new-key",
            "file:new",
            "--key-id",
            id,
            "--scrypt-n",
            "14",
            model,
        ];
        place.keyed(&args).ends(0);
        place
            .run(["decrypt", "--key", "file:new", id, &format!("{id}-opened")])
            .ends(0);
        assert_same(
            id,
            &snapshot(&place.path("source")),
            &snapshot(&place.path(format!("{id}-opened"))),
        );
        place.keyed(&["ls", id]).fails(3, &["wrong key"]);
    }
    // Nothing of the old package fits the new one.
    let new = place.path("LD_Demo_0002/content/weights/big");
    fs::copy(stored(&place, "weights/big"), &new).unwrap();
    place
        .run(["cat", "--key", "file:new", "LD_Demo_0002", "weights/big"])
        .fails(1, &["its file ID differs"]);
}

#[test]
fn links_that_leave_the_package_are_followed_or_refused() {
    let place = Place::new();
    write(place.path("outside"), b"shared");
    write(place.path("source/a"), b"a");
    symlink("../outside", place.path("source/out")).unwrap();
    pack(&place, &[]).ends(0);
    let run = place.keyed(&["cat", ID, "out"]).ends(0);
    assert_eq!(run.stdout, b"shared");
    let kept = pack(&place, &["--symlinks", "keep", "kept"]);
    kept.fails(4, &["its target lies outside of the package"]);
    assert!(!place.path("kept").exists());
}

/// What no package can hold is refused before anything is made.
#[test]
fn what_no_package_can_hold_is_refused_while_planning() {
    let place = Place::with_model(&[]);
    symlink("weights/../config.json", place.path("source/through")).unwrap();
    pack(&place, &[]).fails(4, &["through", "a .. behind another component"]);
    fs::remove_file(place.path("source/through")).unwrap();
    // Not every file system can hold such a time.
    common::tree::set_modified(&place.path("source/weights/empty"), 1 << 53, 0);
    let modified = fs::metadata(place.path("source/weights/empty")).unwrap().mtime();
    if modified == 1 << 53 {
        pack(&place, &[]).fails(4, &["weights/empty", "time of modification"]);
    }
    assert!(!place.path(ID).exists());
    fs::write(place.path("short"), "abc\n").unwrap();
    let to = [
        "encrypt",
        "--format",
        "sam",
        "--key-id",
        ID,
        "--key",
        "file:short",
        "source",
    ];
    place.run(to).fails(3, &["3 bytes long, must be 4 to 128"]);
    assert!(!place.path(ID).exists());
}

/// Calls a run off as soon as something was done.
struct Stop;

impl chunk_cipher::Progress for Stop {
    fn advance(&self, _: u64) -> bool {
        false
    }
}

impl modelseal::Progress for Stop {}

/// Leaves an interrupted run in the place of the package.
fn interrupt(place: &Place, scrypt_log_n: u8) {
    let terms = Terms {
        scrypt_log_n,
        ..Terms::new(ID)
    };
    let options = SealOptions {
        format: SealFormat::Sam(Box::new(PackageOptions::new(
            terms,
            IssuerKey::generate().unwrap(),
        ))),
        ..SealOptions::default()
    };
    let key = Key::from_password(KEY.as_bytes().to_vec().into());
    let error = seal(&place.path("source"), &place.path(ID), &key, &options, &Stop).unwrap_err();
    assert!(error.is_cancelled(), "{error:?}");
}

#[test]
fn an_interrupted_run_is_gone_on_with() {
    let place = Place::with_model(&[]);
    interrupt(&place, 14);
    place.keyed(&["ls", ID]).fails(4, &["incomplete"]);
    pack(&place, &[]).fails(6, &["--resume"]);
    let resumed = pack(&place, &["--resume", "--json"]).ends(0).json();
    assert_eq!(resumed["files"], 3);
    place.keyed(&["verify", ID]).ends(0);
    assert!(!place.path(ID).join("partial.json").exists());
    pack(&place, &["--resume"]).fails(6, &["complete already"]);
}

/// What an interrupted run asks of memory is the owner's to allow.
#[test]
fn a_costly_run_is_gone_on_with_where_memory_allows() {
    let place = Place::with_model(&[]);
    interrupt(&place, 17);
    let resume = |memory| pack(&place, &["--resume", "--scrypt-memory", memory]);
    resume("64").fails(4, &["--scrypt-memory"]);
    place.keyed(&["ls", ID]).fails(4, &["incomplete"]);
    resume("256").ends(0);
    place.keyed(&["verify", ID]).ends(0);
}

#[test]
fn a_check_without_the_key_says_what_it_leaves_open() {
    let place = place();
    let info = place.run(["info", "--json", ID]).ends(0).json();
    let issuer = info["licenses"][0]["issuer_key"].as_str().unwrap();
    let warned = place.run(["verify", ID]).ends(0);
    assert!(
        warned.stderr.contains("without --issuer, anybody"),
        "{}",
        warned.stderr
    );
    let warned = place.run(["verify", ID, "--issuer", issuer]).ends(0);
    assert!(
        warned.stderr.contains("without --min-serial"),
        "{}",
        warned.stderr
    );
    let quiet = place
        .run(["verify", ID, "--issuer", issuer, "--min-serial", "1"])
        .ends(0);
    assert!(!quiet.stderr.contains("warning"), "{}", quiet.stderr);
    // It checks directories.
    for path in ["config.json", "link"] {
        place.run(["verify", ID, path]).fails(5, &["checking", path]);
        place.keyed(&["verify", ID, path]).fails(5, &["checking", path]);
    }
    place.run(["verify", ID, "weights"]).ends(0);
    place.run(["verify", ID, "none"]).fails(5, &["finding none"]);
}

/// Every command that opens a model takes them, from the environment as well.
#[test]
fn every_open_is_bound_to_issuer_serial_and_license() {
    let place = place();
    fs::write(place.path("new"), "the next key, kept elsewhere\n").unwrap();
    place.run(["license", "keygen", "--output", "other.pem"]).ends(0);
    let other = IssuerKey::read(&place.path("other.pem"))
        .unwrap()
        .public()
        .to_string();
    let rotate = [
        "rotate",
        "--new-key",
        "file:new",
        "--key-id",
        "LD_Demo_0002",
        "--scrypt-n",
        "14",
        ID,
    ];
    let issue = [
        "license",
        "issue",
        "--issuer-key",
        "other.pem",
        "--key-id",
        "LD_Demo_0003",
        ID,
    ];
    let keyed: [&[&str]; 6] = [
        &["decrypt", ID, "opened"],
        &["ls", ID],
        &["cat", ID, "config.json"],
        &["verify", ID],
        &rotate,
        &issue,
    ];
    let unkeyed: [&[&str]; 2] = [&["verify", ID], &["license", "verify", ID]];
    for (option, name, value, code, part) in [
        ("--issuer", "MODELSEAL_ISSUER", &*other, 4, "not a trusted issuer"),
        (
            "--min-serial",
            "MODELSEAL_MIN_SERIAL",
            "9007199254740991",
            4,
            "has serial",
        ),
        (
            "--license",
            "MODELSEAL_LICENSE",
            "LD_Demo_0009",
            4,
            "no license \"LD_Demo_0009\"",
        ),
    ] {
        for (args, key) in keyed
            .iter()
            .map(|args| (args, true))
            .chain(unkeyed.iter().map(|args| (args, false)))
        {
            let command = || {
                let mut command = place.command(*args);
                if key {
                    command.args(["--key", "file:pw"]);
                }
                command
            };
            Run::of(command().args([option, value])).fails(code, &[part]);
            Run::of(command().env(name, value)).fails(code, &[part]);
        }
    }
    for path in ["opened", "LD_Demo_0002"] {
        assert!(!place.path(path).exists());
    }
}

/// A file that makes it look like a vault neither hides a package nor passes for one.
#[test]
fn a_planted_configuration_is_refused() {
    let place = place();
    let planted = place.path(ID).join("gocryptfs.conf");
    fs::copy(place.path("vault/gocryptfs.conf"), &planted).unwrap();
    let refused = |run: Run| drop(run.fails(4, &["gocryptfs.conf", "manifest.json", "put one of them"]));
    for args in [
        &["ls", ID][..],
        &["cat", ID, "config.json"],
        &["verify", ID],
        &["decrypt", ID, "x"],
    ] {
        refused(place.keyed(args));
    }
    refused(place.run(["verify", ID]));
    refused(place.run(["info", ID]));
    fs::rename(&planted, place.path("vault/gocryptfs.conf")).unwrap();
    place.keyed(&["ls", ID]).ends(0);
    // The same the other way round.
    fs::copy(
        place.path(ID).join("manifest.json"),
        place.path("vault/manifest.json"),
    )
    .unwrap();
    refused(place.keyed(&["ls", "vault"]));
    // A vault may well hold a file of that name.
    write(place.path("named/manifest.json"), b"{}");
    write(place.path("named/partial.json"), b"");
    place.seal("named", "named-vault", &["--plaintext-names"]);
    assert!(place.path("named-vault/manifest.json").exists());
    let run = place.keyed(&["cat", "named-vault", "manifest.json"]).ends(0);
    assert_eq!(run.stdout, b"{}");
}

#[test]
fn a_package_behind_a_link_is_damaged() {
    let place = place();
    fs::rename(place.path(ID).join("content"), place.path("elsewhere")).unwrap();
    symlink("../elsewhere", place.path(ID).join("content")).unwrap();
    for run in [place.keyed(&["ls", ID]), place.run(["verify", ID])] {
        run.fails(1, &["content", "symlink"]);
    }
}

#[test]
fn the_tag_of_an_empty_file_is_verified() {
    let place = place();
    assert!(
        place
            .keyed(&["cat", ID, "weights/empty"])
            .ends(0)
            .stdout
            .is_empty()
    );
    flip(&stored(&place, "weights/empty"), 4096 + 2);
    place
        .keyed(&["cat", ID, "weights/empty"])
        .fails(1, &["chunk 0 is damaged"]);
}
