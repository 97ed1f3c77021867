//! Packages of another implementation (`tests/vectors/PROVENANCE.md`).

#![allow(clippy::unwrap_used)]

use std::path::Path;

use chunk_cipher::store::LocalStore;
use sam_format::open::read_license;
use sam_format::{
    Checks, ContentKey, EntryKind, Error, License, LicenseChoice, Locked, MeasurementSource, Measurements,
    TdxTerms, Terms, parse_time,
};

const KEY: &[u8] = b"0Bn4Q1wwY9fN3P";

fn full() -> LocalStore {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/full");
    LocalStore::open(Path::new(path)).unwrap()
}

fn license(id: &str) -> License {
    read_license(&full(), LicenseChoice::Id(id)).unwrap()
}

fn checks() -> Checks {
    let mut rtmr = [[0; 48]; 4];
    rtmr[3] = [0x33; 48];
    Checks {
        now: parse_time("2027-01-01T00:00:00Z").ok(),
        machine: Some("i-bp67acfmxazb4p".to_owned()),
        measurements: MeasurementSource::Known(Measurements {
            mrtd: [0x22; 48],
            rtmr,
            debug: false,
        }),
        issuers: vec![license("LD_Demo_0001").issuer()],
        ..Checks::default()
    }
}

#[test]
fn both_licenses_open_it() {
    let expected = ContentKey::from_bytes(&std::array::from_fn(|i| u8::try_from(i).unwrap()));
    for id in ["LD_Demo_0001", "everything.in-it"] {
        let locked = Locked::read(&full(), LicenseChoice::Id(id), &checks()).unwrap();
        let unlocked = locked.unlock(KEY).unwrap();
        assert_eq!(unlocked.key.commitment().unwrap(), expected.commitment().unwrap());
    }
    let several = Locked::read(&full(), LicenseChoice::Only("full"), &checks());
    assert!(matches!(several, Err(Error::LicenseChoice { .. })), "{several:?}");
}

#[test]
fn licenses_say_what_was_written_there() {
    let expected = Terms {
        serial: (1 << 53) - 1,
        company: Some("ACME".to_owned()),
        valid_from: parse_time("2026-01-01T00:00:00Z").ok(),
        expires: parse_time("2028-02-29T23:59:59Z").ok(),
        machines: vec![
            "mid-a3f7b0d3c597c9dd3598b7f8dfbe36ad".to_owned(),
            "i-bp67acfmxazb4p".to_owned(),
        ],
        tdx: Some(TdxTerms {
            required: true,
            mrtd: vec![[0x11; 48], [0x22; 48]],
            rtmr: [vec![], vec![], vec![], vec![[0x33; 48]]],
        }),
        extras: Some("for the \"caller\"\n\u{e9}\u{20ac}\u{1f600}\u{7f}\u{1}".to_owned()),
        scrypt_log_n: 14,
        ..Terms::new("everything.in-it")
    };
    assert_eq!(license("everything.in-it").terms(), &expected);
    let unknown = license("LD_Demo_0001");
    assert_eq!(unknown.terms().serial, 7);
    assert_eq!(
        unknown.unknown_members().collect::<Vec<_>>(),
        ["critical", "x_unknown"]
    );
}

/// What this version does not know is authenticated all the same, and refused where it is critical.
#[test]
fn members_that_are_not_known() {
    let text = license("LD_Demo_0001").as_str().to_owned();
    for (from, to) in [
        ("[{\"a\":null},-1,", "[{\"a\":null},-2,"),
        (",\"x_unknown\":", ",\"y_unknown\":"),
    ] {
        let changed = License::parse(text.replace(from, to).as_bytes()).unwrap();
        assert_ne!(changed.as_str(), text);
        assert!(matches!(changed.check(&checks()), Err(Error::Signature { .. })));
    }
    let critical = text.replace("[\"tdx\"]", "[\"tdx\",\"x_unknown\"]");
    let refused = License::parse(critical.as_bytes()).expect_err("critical");
    assert!(
        refused.to_string().contains("\"x_unknown\" is critical"),
        "{refused}"
    );
}

#[test]
fn the_manifest_lists_everything() {
    let locked = Locked::read(&full(), LicenseChoice::Id("LD_Demo_0001"), &checks()).unwrap();
    let manifest = locked.manifest();
    let shown = manifest.entries().iter().map(|entry| {
        assert_eq!(
            (entry.modified.seconds, entry.modified.nanoseconds),
            (1_700_000_000, 123_456_789)
        );
        let what = match &entry.kind {
            EntryKind::Dir { mode } => format!("dir {mode:o}"),
            EntryKind::File { mode, length, .. } => format!("file {mode:o} {length}"),
            EntryKind::Symlink { target } => format!("symlink {}", target.escape_ascii()),
        };
        format!("{}: {what}", entry.path.escape_ascii())
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            ": dir 755",
            "a: dir 755",
            "a-b: file 644 4096",
            "a/empty: file 644 0",
            "a/empty dir: dir 755",
            "a/link: symlink ../a-b",
            "a/reserved: file 644 8292",
            "caf\\xc3\\xa9: file 644 4097",
            "two\\xffbytes\\n: symlink caf\\xe9",
        ]
    );
    let text = sam_format::open::read_manifest(&full()).unwrap();
    assert_eq!(manifest.to_json().as_bytes(), text);
}
