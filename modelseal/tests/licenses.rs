//! Licenses and signed manifests by the command: issuers' keys, further licenses, what is shown, what is refused.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

mod common {
    pub(crate) mod command;
    pub(crate) mod tree;
}

use common::command::{Place, Run, members};
use common::tree::{bytes, flip, write};

const ID: &str = "LD_Demo_0001";
const CONFIG: &str =
    r#"{"machines": ["another-machine"], "expires": "2020-01-01T00:00:00+08:00", "company": "ACME"}"#;

/// A place with an issuer's key and a package that it signed, for another machine and another time. Returns the public
/// key as well.
fn place() -> (Place, String) {
    let place = Place::new();
    write(place.path("source/config.json"), b"{\"a\": 1}\n");
    write(place.path("source/model.bin"), bytes(1, 100_000));
    let issuer = keygen(&place, "issuer.pem");
    fs::write(place.path("license.json"), CONFIG).unwrap();
    let pack = [
        "encrypt",
        "--format",
        "sam",
        "--key-id",
        ID,
        "--scrypt-n",
        "14",
        "--issuer-key",
        "issuer.pem",
        "--license-config",
        "license.json",
        "source",
    ];
    place.keyed(&pack).ends(0);
    (place, issuer)
}

fn keygen(place: &Place, name: &str) -> String {
    place
        .run(["license", "keygen", "-o", name])
        .ends(0)
        .text()
        .trim_end()
        .to_owned()
}

/// Issues a license for the package.
fn issue(place: &Place, issuer: &str, more: &[&str]) -> Run {
    let args = ["license", "issue", "--scrypt-n", "14", "--issuer-key", issuer, ID];
    place.keyed(&[&args, more].concat())
}

#[test]
fn issuers_keys_are_made_once_and_kept_private() {
    let place = Place::new();
    let public = keygen(&place, "issuer.pem");
    assert_eq!(public.len(), 44);
    let mode = fs::metadata(place.path("issuer.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let pem = fs::read_to_string(place.path("issuer.pem")).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    place
        .run(["license", "keygen", "-o", "issuer.pem"])
        .fails(5, &["writing the issuer's key to"]);
    assert_eq!(fs::read_to_string(place.path("issuer.pem")).unwrap(), pem);
    assert_ne!(keygen(&place, "other.pem"), public);
}

#[test]
fn further_licenses_open_the_same_content() {
    let (place, issuer) = place();
    place
        .keyed(&["cat", ID, "config.json"])
        .fails(4, &["expired at 2019-12-31T16:00:00Z"]);
    let before = fs::read(place.path(ID).join("content/model.bin")).unwrap();
    // The issuer is bound neither by the time nor by the machine.
    fs::write(place.path("other key"), "another key\n").unwrap();
    let run = issue(
        &place,
        "issuer.pem",
        &[
            "--key-id",
            "second.license",
            "--new-key",
            "file:other key",
            "--json",
        ],
    );
    let license = run.ends(0).json();
    assert_eq!(license["license_id"], "second.license");
    assert_eq!(license["issuer_key"], issuer);
    assert!(!members(&license).contains(&"wrapped_key"));
    let opened = |key: &str, options: &[&str]| {
        let args = [
            "cat",
            "--license",
            "second.license",
            "--key",
            key,
            ID,
            "config.json",
        ];
        place.run([&args, options].concat())
    };
    assert_eq!(
        opened("file:other key", &["--issuer", &issuer]).ends(0).stdout,
        b"{\"a\": 1}\n"
    );
    opened("file:pw", &[]).fails(3, &["wrong key"]);
    assert_eq!(
        fs::read(place.path(ID).join("content/model.bin")).unwrap(),
        before
    );

    // Also apart from the package.
    let more = ["--key-id", "apart.license", "-o", "apart.json", "--license", ID];
    issue(&place, "issuer.pem", &more).ends(0);
    let apart = ["cat", "--license", "apart.json", ID, "config.json"];
    assert_eq!(place.keyed(&apart).ends(0).stdout, b"{\"a\": 1}\n");
    issue(&place, "issuer.pem", &more).fails(5, &["apart.json"]);

    // One with the same name only where it is to be replaced.
    let same = ["--key-id", ID, "--license", ID];
    issue(&place, "issuer.pem", &same).fails(5, &["licenses/LD_Demo_0001.json"]);
    place.keyed(&["cat", ID, "config.json"]).ends(4);
    issue(&place, "issuer.pem", &[&same[..], &["--replace"]].concat()).ends(0);
    place.keyed(&["cat", ID, "config.json"]).ends(0);
}

#[test]
fn whoever_is_not_the_issuer_is_bound_by_the_license() {
    let (place, _) = place();
    keygen(&place, "other.pem");
    let more = ["--key-id", "stolen.license"];
    issue(&place, "other.pem", &more).fails(4, &["expired"]);
    issue(
        &place,
        "issuer.pem",
        &[&more[..], &["--new-key", "file:none"]].concat(),
    )
    .ends(3);
    let wrong = place.run([
        "license",
        "issue",
        "--scrypt-n",
        "14",
        "--issuer-key",
        "issuer.pem",
        "--key-id",
        "stolen.license",
        "--key",
        "file:license.json",
        ID,
    ]);
    wrong.fails(3, &["wrong key"]);
    issue(&place, "issuer.pem", &[]).fails(2, &["--key-id"]);
    issue(&place, "issuer.pem", &["--key-id", "short"]).fails(4, &["license_id"]);
    issue(&place, "license.json", &more).fails(4, &["not an Ed25519 private key"]);
    issue(&place, "none.pem", &more).fails(5, &["none.pem"]);
    // A manifest that is not the license's is not signed anew.
    let manifest = place.path(ID).join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("100000", "100001")).unwrap();
    issue(&place, "issuer.pem", &more).fails(1, &["another manifest.json"]);
    place.seal("source", "vault", &[]);
    place
        .keyed(&[
            "license",
            "issue",
            "--issuer-key",
            "issuer.pem",
            "--key-id",
            ID,
            "vault",
        ])
        .fails(4, &["a vault has no license"]);
}

#[test]
fn licenses_are_shown() {
    let (place, issuer) = place();
    let file = format!("{ID}/licenses/{ID}.json");
    for location in [ID, &file] {
        let run = place.run(["license", "show", location]).ends(0);
        for part in [
            ID,
            &issuer,
            "ACME",
            "until 2019-12-31T16:00:00Z",
            "another-machine",
        ] {
            assert!(run.text().contains(part), "{part}: {}", run.text());
        }
    }
    issue(&place, "issuer.pem", &["--key-id", "second.license"]).ends(0);
    let shown = place.run(["license", "show", "--json", ID]).ends(0).json();
    let ids: Vec<_> = shown
        .as_array()
        .unwrap()
        .iter()
        .map(|license| &license["license_id"])
        .collect();
    assert_eq!(ids, [ID, "second.license"]);
    let shown = place.run(["license", "show", "--json", &file]).ends(0).json();
    assert_eq!(shown["company"], "ACME");

    flip(&place.path(&file), 20);
    place.run(["license", "show", &file]).ends(4);
    place.run(["license", "show", ID]).ends(4);
    place.run(["license", "show", "none"]).fails(5, &["none"]);
    place.seal("source", "vault", &[]);
    place
        .run(["license", "show", "vault"])
        .fails(2, &["has no license"]);
}

#[test]
fn licenses_are_checked_without_their_keys() {
    let (place, issuer) = place();
    let check = |location: &str, more: &[&str]| place.run([&["license", "verify", location], more].concat());
    let file = format!("{ID}/licenses/{ID}.json");
    for location in [ID, &file] {
        check(location, &["--machine", "another-machine"]).fails(4, &["expired"]);
    }
    fs::write(
        place.path("license.json"),
        r#"{"machine": "another-machine", "serial": 7}"#,
    )
    .unwrap();
    let more = ["--key-id", ID, "--replace", "--license-config", "license.json"];
    issue(&place, "issuer.pem", &more).ends(0);
    for location in [ID, &file] {
        let machine = ["--machine", "another-machine"];
        let run = check(location, &machine).fails(0, &["without --issuer"]);
        assert!(run.text().contains("serial 7"));
        check(location, &["--machine", "this-machine"]).fails(4, &["this machine is this-machine"]);
        check(
            location,
            &[&machine[..], &["--issuer", &issuer, "--min-serial", "7"]].concat(),
        )
        .ends(0);
        check(location, &[&machine[..], &["--min-serial", "8"]].concat()).fails(4, &["serial 7"]);
        let other = keygen(&place, &format!("{}.pem", location.len()));
        check(location, &[&machine[..], &["--issuer", &other]].concat()).fails(4, &["not a trusted issuer"]);
    }
    // The manifest of the package must be the one that the license is for.
    let manifest = place.path(ID).join("manifest.json");
    fs::write(
        &manifest,
        fs::read_to_string(&manifest).unwrap().replace("100000", "100001"),
    )
    .unwrap();
    check(ID, &["--machine", "another-machine"]).fails(1, &["another manifest.json"]);
    check(&file, &["--machine", "another-machine"]).ends(0);
}

#[test]
fn the_machine_tells_its_identity() {
    let place = Place::new();
    let run = place.run(["license", "machine"]);
    if fs::metadata("/etc/machine-id").is_ok_and(|id| id.len() > 32) {
        let run = run.ends(0);
        let identity = run.text().trim_end().to_owned();
        assert!(identity.starts_with("mid-") && identity.len() == 36, "{identity}");
        let shown = place.run(["license", "machine", "--json"]).ends(0).json();
        assert_eq!(shown, json!({ "machine": identity }));
    } else {
        run.fails(4, &["/etc/machine-id"]);
    }
}

#[test]
fn vaults_are_signed_and_opened_as_signed() {
    let place = Place::with_model(&[]);
    let issuer = keygen(&place, "issuer.pem");
    let sign = [
        "manifest",
        "sign",
        "--issuer-key",
        "issuer.pem",
        "--serial",
        "7",
        "vault",
    ];
    let signed = place.run([&sign[..], &["--json"]].concat()).ends(0).json();
    assert_eq!(signed["manifest"], "vault.manifest.json");
    assert_eq!(
        (&signed["serial"], &signed["issuer"]),
        (&json!(7), &json!(issuer))
    );
    let verify = |more: &[&str]| place.run([&["manifest", "verify", "vault"], more].concat());
    verify(&["--issuer", &issuer]).ends(0);
    verify(&[]).fails(0, &["without --issuer"]);
    verify(&["--issuer", &issuer, "--min-serial", "8"]).fails(4, &["serial 7"]);
    let manifest = ["--manifest", "vault.manifest.json", "--issuer", issuer.as_str()];
    let opened = |args: &[&str]| place.keyed(&[args, &manifest].concat());
    opened(&["cat", "vault", "config.json"]).ends(0);
    opened(&["verify", "vault"]).ends(0);
    // Without its key it can be checked as a whole.
    place.run([&["verify", "vault"], &manifest[..]].concat()).ends(0);
    place
        .run([&["verify", "vault", "weights"], &manifest[..]].concat())
        .fails(4, &["only as a whole"]);
    // Whoever asks for an issuer does not get a vault of whoever likes.
    place
        .keyed(&["ls", "vault", "--issuer", &issuer])
        .fails(4, &["--manifest"]);

    let big = place.stored("vault", "weights/big");
    let sound = fs::read(&big).unwrap();
    flip(&big, 5_000_000);
    let run = verify(&["--issuer", &issuer]).ends(1);
    assert!(
        run.text().contains("its content is not what the manifest says"),
        "{}",
        run.text()
    );
    let run = opened(&["verify", "vault"]).ends(1);
    assert!(run.text().contains("damaged"), "{}", run.text());
    fs::write(&big, &sound[..sound.len() - 4128]).unwrap();
    opened(&["ls", "vault", "--long"]).fails(1, &["another length"]);
    place.keyed(&["ls", "vault", "--long"]).ends(0);
    fs::write(&big, &sound).unwrap();
    fs::write(place.path("vault/added"), b"").unwrap();
    opened(&["ls", "vault"]).fails(1, &["not in the manifest"]);
    let run = verify(&["--json"]).ends(1).json();
    assert_eq!(run["damaged"][0]["path"], "added");
    fs::remove_file(place.path("vault/added")).unwrap();
    opened(&["decrypt", "vault", "opened"]).ends(0);

    // A new password makes another configuration, and needs another manifest.
    opened(&["passwd", "vault", "--new-key", "file:source/config.json"]).fails(0, &["sign a new one"]);
    opened(&["ls", "vault"]).fails(1, &["gocryptfs.conf"]);
    place.run(sign).ends(0);
    verify(&["--issuer", &issuer]).ends(0);

    write(
        place.path("vault/README"),
        b"not sealed, and longer than a header",
    );
    place.run(sign).fails(4, &["is no part of a vault"]);
    place
        .run(["manifest", "verify", "source"])
        .fails(5, &["source.manifest.json"]);
}

#[test]
fn a_package_has_a_manifest_of_its_own() {
    let (place, _) = place();
    issue(&place, "issuer.pem", &["--key-id", ID, "--replace"]).ends(0);
    place
        .keyed(&["ls", ID, "--manifest", "license.json"])
        .fails(4, &["of its own"]);
    place
        .run(["manifest", "sign", "--issuer-key", "issuer.pem", ID])
        .fails(4, &["not a sealed model"]);
}
