//! Licenses: issued, checked, unlocked, and refused.

#![allow(clippy::unwrap_used)]

use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use sam_format::{
    Checks, ChunkLen, ContentId, ContentKey, Error, IssuerKey, IssuerPublicKey, License, LicenseConfig,
    Licensed, MeasurementSource, Measurements, Partial, TdxTerms, Terms, parse_time,
};
use serde_json::{Value, json};

const KEY: &[u8] = b"0Bn4Q1wwY9fN3P";
const MACHINE: &str = "i-bp67acfmxazb4p";
/// A second within the window of [`terms`].
const NOW: u64 = 1_800_000_000;

/// Terms with everything in them.
fn terms() -> Terms {
    Terms {
        serial: 7,
        company: Some("ACME".to_owned()),
        valid_from: parse_time("2026-01-01T00:00:00Z").ok(),
        expires: parse_time("2028-01-01T00:00:00Z").ok(),
        machines: vec![
            "mid-00000000000000000000000000000000".to_owned(),
            MACHINE.to_owned(),
        ],
        tdx: Some(TdxTerms {
            required: true,
            mrtd: vec![[1; 48], [2; 48]],
            rtmr: [vec![], vec![], vec![[3; 48]], vec![]],
        }),
        extras: Some("for the caller\n\u{e9}".to_owned()),
        ..cheap("LD_Demo_0001")
    }
}

/// Terms without a condition, and with the least cost.
fn cheap(id: &str) -> Terms {
    Terms {
        scrypt_log_n: 14,
        ..Terms::new(id)
    }
}

/// What satisfies [`terms`].
fn checks() -> Checks {
    Checks {
        now: Some(NOW),
        machine: Some(MACHINE.to_owned()),
        measurements: MeasurementSource::Known(measurements()),
        ..Checks::default()
    }
}

fn measurements() -> Measurements {
    Measurements {
        mrtd: [2; 48],
        rtmr: [[0; 48], [1; 48], [3; 48], [4; 48]],
        debug: false,
    }
}

struct Issued {
    license: License,
    content: ContentKey,
    issuer: IssuerKey,
}

fn issue(terms: &Terms) -> Issued {
    let (content, issuer) = (ContentKey::generate().unwrap(), IssuerKey::generate().unwrap());
    let license = License::issue(KEY, &licensed(&content), terms, &issuer).unwrap();
    Issued {
        license,
        content,
        issuer,
    }
}

fn licensed(key: &ContentKey) -> Licensed<'_> {
    Licensed {
        key,
        content_id: ContentId::from_bytes([5; 16]),
        manifest_digest: [6; 32],
    }
}

fn value(license: &License) -> Value {
    serde_json::from_str(license.as_str()).unwrap()
}

fn canonical(value: &Value) -> String {
    serde_json_canonicalizer::to_string(value).unwrap()
}

/// The license that `value` says, signed by `issuer`, as far as it is one.
fn sign(value: &Value, issuer: &IssuerKey) -> Result<License, Error> {
    let key = SigningKey::from_pkcs8_pem(&issuer.to_pem().unwrap()).unwrap();
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove("signature");
    let signed = format!("sam/1 license signature{}", canonical(&value));
    let signature = key.sign(signed.as_bytes()).to_bytes();
    value["signature"] = json!(base64(&signature));
    License::parse(canonical(&value).as_bytes())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn issued_read_and_unlocked() {
    let Issued {
        license,
        content,
        issuer,
    } = issue(&terms());
    let read = License::parse(license.as_str().as_bytes()).unwrap();
    assert_eq!(read, license);
    assert_eq!(read.terms(), &terms());
    assert_eq!(read.content_id(), ContentId::from_bytes([5; 16]));
    assert_eq!(read.manifest_digest(), &[6; 32]);
    assert_eq!(read.issuer(), issuer.public());
    assert_eq!(canonical(&value(&license)), license.as_str());
    let pinned = Checks {
        issuers: vec![IssuerKey::generate().unwrap().public(), issuer.public()],
        min_serial: Some(7),
        ..checks()
    };
    for checks in [checks(), pinned] {
        let unlocked = read.unlock(KEY, &checks).unwrap();
        assert_eq!(unlocked.commitment().unwrap(), content.commitment().unwrap());
    }
}

#[test]
fn a_license_without_conditions_opens_everywhere() {
    let Issued { license, content, .. } = issue(&cheap("any.license-1"));
    let members = value(&license);
    for absent in [
        "company",
        "valid_from",
        "expires",
        "machines",
        "tdx",
        "extras",
        "critical",
    ] {
        assert!(members.get(absent).is_none());
    }
    let unlocked = license.unlock(KEY, &Checks::default()).unwrap();
    assert_eq!(unlocked.commitment().unwrap(), content.commitment().unwrap());
}

/// Another value for each member, within its bounds.
fn edits(license: &License) -> Vec<(&'static str, Value)> {
    let other = value(&issue(&terms()).license);
    let tdx = |from: &str, to: Value| {
        let mut tdx = value(license)["tdx"].clone();
        tdx[from] = to;
        tdx
    };
    let scrypt = |from: &str, to: Value| {
        let mut scrypt = value(license)["scrypt"].clone();
        scrypt[from] = to;
        scrypt
    };
    vec![
        ("license_id", json!("LD_Demo_0002")),
        ("serial", json!(8)),
        ("company", json!("ACNE")),
        ("company", Value::Null),
        ("valid_from", json!("2025-01-01T00:00:00Z")),
        ("valid_from", Value::Null),
        ("expires", json!("2029-01-01T00:00:00Z")),
        ("expires", Value::Null),
        ("machines", json!([MACHINE])),
        ("machines", Value::Null),
        ("tdx", tdx("required", json!(false))),
        ("tdx", tdx("mrtd", json!(["02".repeat(48)]))),
        ("tdx", tdx("rtmr0", json!(["00".repeat(48)]))),
        ("tdx", Value::Null),
        ("extras", json!("")),
        ("extras", Value::Null),
        ("content_id", json!("05".repeat(15) + "06")),
        ("manifest_sha256", json!("06".repeat(31) + "07")),
        ("scrypt", scrypt("salt", other["scrypt"]["salt"].clone())),
        ("scrypt", scrypt("p", json!(2))),
        ("scrypt", scrypt("log_n", json!(15))),
        ("kek_commitment", other["kek_commitment"].clone()),
        ("wrapped_key", other["wrapped_key"].clone()),
        ("critical", json!(["serial"])),
        ("critical", json!([])),
        ("zeta", json!(1)),
    ]
}

/// `license` with one member set, or left out.
fn edited(license: &License, name: &str, to: &Value) -> Value {
    let mut value = value(license);
    let members = value.as_object_mut().unwrap();
    if to.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), to.clone());
    }
    value
}

#[test]
fn no_member_can_be_changed() {
    let license = issue(&terms()).license;
    let mut seen = vec!["format", "version", "issuer_key", "signature"];
    for (name, to) in edits(&license) {
        let changed = License::parse(canonical(&edited(&license, name, &to)).as_bytes()).expect(name);
        assert_ne!(changed, license);
        let refused = changed.unlock(KEY, &checks());
        assert!(
            matches!(refused, Err(Error::Signature { .. })),
            "{name}: {refused:?}"
        );
        seen.push(name);
    }
    for name in value(&license).as_object().unwrap().keys() {
        assert!(seen.contains(&name.as_str()), "{name}");
    }
    let other = value(&issue(&terms()).license);
    for name in ["issuer_key", "signature"] {
        let changed = canonical(&edited(&license, name, &other[name]));
        let refused = License::parse(changed.as_bytes()).unwrap().unlock(KEY, &checks());
        assert!(
            matches!(refused, Err(Error::Signature { .. })),
            "{name}: {refused:?}"
        );
    }
}

/// Whoever has the issuer's key, but not the owner's, can sign what they like: the wrapped key does not open.
#[test]
fn no_member_can_be_changed_by_an_issuer_without_the_key() {
    let Issued { license, issuer, .. } = issue(&terms());
    for (name, to) in edits(&license) {
        let signed = sign(&edited(&license, name, &to), &issuer).unwrap();
        assert!(signed.check_signature(&[issuer.public()]).is_ok());
        let refused = signed.unlock(KEY, &checks());
        let another_kek = ["scrypt", "kek_commitment"].contains(&name);
        match refused {
            Err(Error::WrongKey) if another_kek => {}
            Err(Error::WrappedKey) if !another_kek => {}
            refused => panic!("{name}: {refused:?}"),
        }
    }
    assert!(
        sign(&value(&license), &issuer)
            .unwrap()
            .unlock(KEY, &checks())
            .is_ok()
    );
    // Another issuer that signs it as its own: refused even where no issuer is pinned.
    let other = IssuerKey::generate().unwrap();
    let stolen = edited(&license, "issuer_key", &json!(other.public().to_string()));
    let stolen = sign(&stolen, &other).unwrap();
    assert!(matches!(stolen.unlock(KEY, &checks()), Err(Error::WrappedKey)));
}

#[test]
fn every_bit_of_the_document_counts() {
    let license = issue(&terms()).license;
    let mut text = license.as_str().as_bytes().to_vec();
    for bit in 0..text.len() * 8 {
        text[bit / 8] ^= 1 << (bit % 8);
        match License::parse(&text) {
            Ok(changed) => {
                let refused = changed.check(&checks());
                assert!(
                    matches!(refused, Err(Error::Signature { .. })),
                    "bit {bit}: {refused:?}"
                );
            }
            Err(error) => {
                let bounds = matches!(
                    error,
                    Error::Document { .. }
                        | Error::Version { .. }
                        | Error::LicenseField { .. }
                        | Error::ScryptCost { .. }
                );
                assert!(bounds, "bit {bit}: {error:?}");
            }
        }
        text[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..text.len() {
        assert!(License::parse(&text[..len]).is_err());
    }
}

#[test]
fn the_issuer_is_the_pinned_one() {
    let Issued { license, issuer, .. } = issue(&terms());
    let with = |issuers: Vec<IssuerPublicKey>| license.check(&Checks { issuers, ..checks() });
    let other = IssuerKey::generate().unwrap().public();
    let refused = with(vec![other]).expect_err("another issuer");
    assert!(matches!(refused, Error::Issuer { issuer: found, .. } if found == issuer.public()));
    assert!(refused.to_string().contains(&issuer.public().to_string()));
    assert!(with(vec![other, issuer.public()]).is_ok());
    assert!(with(vec![]).is_ok());
}

#[test]
fn the_serial_is_high_enough() {
    let license = issue(&terms()).license;
    let with = |min_serial| {
        license.check(&Checks {
            min_serial,
            ..checks()
        })
    };
    for min in [None, Some(0), Some(6), Some(7)] {
        assert!(with(min).is_ok());
    }
    assert!(matches!(
        with(Some(8)),
        Err(Error::Serial {
            serial: 7,
            min: 8,
            ..
        })
    ));
}

#[test]
fn the_window_is_exact() {
    let at = |terms: &Terms, now| {
        issue(terms).license.check(&Checks {
            now: Some(now),
            ..Checks::default()
        })
    };
    let window = Terms {
        valid_from: Some(1000),
        expires: Some(2000),
        ..cheap("window.license")
    };
    for (now, fits) in [
        (0, false),
        (999, false),
        (1000, true),
        (1999, true),
        (2000, false),
        (u64::MAX, false),
    ] {
        let checked = at(&window, now);
        assert_eq!(checked.is_ok(), fits, "{now}");
        match checked {
            Err(Error::LicenseNotYetValid { .. }) => assert!(now < 1000),
            Err(Error::LicenseExpired { .. }) => assert!(now >= 2000),
            _ => {}
        }
    }
    let open = Terms {
        valid_from: None,
        ..window.clone()
    };
    assert!(at(&open, 0).is_ok() && at(&open, 2000).is_err());
    let open = Terms {
        expires: None,
        ..window
    };
    assert!(at(&open, 999).is_err() && at(&open, u64::MAX).is_ok());
    let error = at(&cheap_until(2000), 1_800_000_000)
        .expect_err("expired")
        .to_string();
    assert_eq!(
        error,
        "the license expired at 1970-01-01T00:33:20Z; now is 2027-01-15T08:00:00Z; ask its issuer for a new one"
    );
}

fn cheap_until(expires: u64) -> Terms {
    Terms {
        expires: Some(expires),
        ..cheap("window.license")
    }
}

/// 2016 ended with a leap second, 23:59:60 UTC, in which POSIX time is already that of the next second.
#[test]
fn the_window_knows_zones_and_leap_seconds() {
    let until = |text: &str| {
        let config = json!({ "expires": text }).to_string();
        let config = LicenseConfig::parse(config.as_bytes()).unwrap();
        let license = issue(&config.terms(cheap("zones.license")).unwrap()).license;
        let expires = value(&license)["expires"].as_str().unwrap().to_owned();
        let at = |now| {
            license.check(&Checks {
                now: Some(now),
                ..Checks::default()
            })
        };
        let last = (1_483_228_700..1_483_228_900)
            .filter(|now| at(*now).is_ok())
            .max();
        (expires, last)
    };
    // 2017-01-01T00:00:00Z is 1483228800.
    for (text, expires, last) in [
        ("2016-12-31T23:59:59Z", "2016-12-31T23:59:59Z", 1_483_228_798),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", 1_483_228_799),
        ("2017-01-01T00:00:00Z", "2017-01-01T00:00:00Z", 1_483_228_799),
        ("2017-01-01T08:00:00+08:00", "2017-01-01T00:00:00Z", 1_483_228_799),
        ("2016-12-31T15:59:60-08:00", "2017-01-01T00:00:00Z", 1_483_228_799),
        ("2017-01-01T05:30:01+05:30", "2017-01-01T00:00:01Z", 1_483_228_800),
    ] {
        assert_eq!(until(text), (expires.to_owned(), Some(last)), "{text}");
    }
}

#[test]
fn the_machine_is_one_of_those_named() {
    let license = issue(&terms()).license;
    let on = |machine: Option<&str>| {
        license.check(&Checks {
            machine: machine.map(str::to_owned),
            ..checks()
        })
    };
    assert!(on(Some(MACHINE)).is_ok());
    for other in ["i-bp67acfmxazb4", "i-bp67acfmxazb4p ", "I-BP67ACFMXAZB4P", ""] {
        let refused = on(Some(other));
        assert!(
            matches!(refused, Err(Error::LicenseMachine { others: 2, .. })),
            "{refused:?}"
        );
    }
    // This machine, whatever it is, is none of them.
    let refused = on(None);
    assert!(
        matches!(
            refused,
            Err(Error::LicenseMachine { .. } | Error::MachineId { .. })
        ),
        "{refused:?}"
    );
    if let Ok(this) = sam_format::machine::this_machine() {
        let license = issue(&Terms {
            machines: vec![this],
            ..cheap("for.this.machine")
        });
        assert!(license.license.check(&Checks::default()).is_ok());
    }
}

#[test]
fn the_td_is_one_of_those_measured() {
    let license = |required| {
        let mut terms = terms();
        terms.tdx.as_mut().unwrap().required = required;
        issue(&terms).license
    };
    let (required, optional) = (license(true), license(false));
    let on = |license: &License, measurements: Option<Measurements>| {
        license.check(&Checks {
            measurements: measurements.map_or(MeasurementSource::None, MeasurementSource::Known),
            ..checks()
        })
    };
    let edit = |edit: &dyn Fn(&mut Measurements)| {
        let mut measurements = measurements();
        edit(&mut measurements);
        Some(measurements)
    };
    for license in [&required, &optional] {
        assert!(on(license, Some(measurements())).is_ok());
        // Either value of MRTD; registers that are not named may be anything.
        assert!(on(license, edit(&|td| td.mrtd = [1; 48])).is_ok());
        assert!(on(license, edit(&|td| td.rtmr[0] = [9; 48])).is_ok());
        let refused = on(license, edit(&|td| td.mrtd[47] ^= 1));
        assert!(
            matches!(refused, Err(Error::LicenseTdx { register: "mrtd", .. })),
            "{refused:?}"
        );
        let refused = on(license, edit(&|td| td.rtmr[2][0] ^= 1));
        assert!(
            matches!(
                refused,
                Err(Error::LicenseTdx {
                    register: "rtmr2",
                    ..
                })
            ),
            "{refused:?}"
        );
        let refused = on(license, edit(&|td| td.debug = true));
        assert!(matches!(refused, Err(Error::LicenseTdxDebug)), "{refused:?}");
    }
    assert!(matches!(on(&required, None), Err(Error::LicenseTdxMissing)));
    assert!(on(&optional, None).is_ok());
    // A license without a word on it does not mind a debugger either.
    let plain = issue(&cheap("plain.license"));
    assert!(on(&plain.license, edit(&|td| td.debug = true)).is_ok());
}

/// Measurements are asked for where a license names any, and what keeps them from being had is no reason to go on.
#[test]
fn measurements_are_asked_for_when_they_matter() {
    let ask = |license: &License, ask| {
        license.check(&Checks {
            measurements: MeasurementSource::Ask(ask),
            ..checks()
        })
    };
    let mut optional = terms();
    optional.tdx.as_mut().unwrap().required = false;
    let (required, optional) = (issue(&terms()).license, issue(&optional).license);
    for license in [&required, &optional] {
        assert!(ask(license, || Ok(Some(measurements()))).is_ok());
        let refused = ask(license, || Err("the device takes root".into())).unwrap_err();
        assert!(
            matches!(refused, Error::LicenseTdxUnreadable { .. }),
            "{refused:?}"
        );
        let source = std::error::Error::source(&refused).unwrap();
        assert_eq!(source.to_string(), "the device takes root");
    }
    assert!(matches!(
        ask(&required, || Ok(None)),
        Err(Error::LicenseTdxMissing)
    ));
    assert!(ask(&optional, || Ok(None)).is_ok());
    let plain = issue(&cheap("plain.license")).license;
    assert!(ask(&plain, || panic!("nobody wants to know")).is_ok());
}

/// Whatever else another version changes, it is told by its number.
#[test]
fn another_version_is_told_by_its_number() {
    let Issued { license, issuer, .. } = issue(&terms());
    for (name, to) in [
        ("version", json!(2)),
        ("company", json!(["any", "number", "of", "them"])),
        ("serial", Value::Null),
        ("critical", json!(["seal"])),
        ("extras", json!(1.5)),
    ] {
        let mut value = value(&license);
        value["version"] = json!(2);
        value[name] = to;
        let refused = sign(&value, &issuer).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Version {
                    document: "license",
                    version: 2,
                    known: 1
                }
            ),
            "{name}: {refused:?}"
        );
    }
    let mut partial: Value = serde_json::from_str(partial().as_str()).unwrap();
    partial["version"] = json!(7);
    partial["colour"] = json!("red");
    let refused = Partial::parse(canonical(&partial).as_bytes()).unwrap_err();
    assert!(
        matches!(refused, Error::Version { version: 7, .. }),
        "{refused:?}"
    );
    // That is no member of it.
    partial["version"] = json!(1);
    partial.as_object_mut().unwrap().remove("colour");
    partial["critical"] = json!([]);
    let refused = Partial::parse(canonical(&partial).as_bytes()).unwrap_err();
    assert!(refused.to_string().contains("critical"), "{refused}");
}

fn partial() -> Partial {
    let (key, id) = (ContentKey::generate().unwrap(), ContentId::generate().unwrap());
    Partial::new(KEY, &key, id, ChunkLen::MIN, 14).unwrap()
}

/// `critical` may name any member of FORMAT.md's table.
#[test]
fn every_member_may_be_critical() {
    let Issued { license, issuer, .. } = issue(&terms());
    let spec = include_str!("../FORMAT.md");
    let table = spec.split("## 6. Licenses").nth(1).unwrap();
    let table = table.split("- scrypt gives").next().unwrap();
    let names: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(names.len(), 18, "{names:?}");
    assert!(names.contains(&"version") && names.contains(&"critical"));
    let mut value = value(&license);
    value["critical"] = json!(names);
    assert!(sign(&value, &issuer).is_ok());
    value["critical"] = json!(["mrtd"]);
    assert!(sign(&value, &issuer).is_err());
}

#[test]
fn checks_come_in_order() {
    let Issued { license, .. } = issue(&terms());
    let mut checks = Checks {
        now: Some(0),
        machine: Some("another-machine".to_owned()),
        measurements: MeasurementSource::None,
        issuers: vec![IssuerKey::generate().unwrap().public()],
        min_serial: Some(8),
        scrypt_memory: 0,
    };
    let changed = edited(&license, "serial", &json!(9));
    let changed = License::parse(canonical(&changed).as_bytes()).unwrap();
    assert!(matches!(
        changed.unlock(b"bad key", &checks),
        Err(Error::Signature { .. })
    ));
    assert!(matches!(
        license.unlock(b"bad key", &checks),
        Err(Error::Issuer { .. })
    ));
    checks.issuers.clear();
    assert!(matches!(
        license.unlock(b"bad key", &checks),
        Err(Error::Serial { .. })
    ));
    checks.min_serial = None;
    assert!(matches!(
        license.unlock(b"bad key", &checks),
        Err(Error::LicenseNotYetValid { .. })
    ));
    checks.now = Some(NOW);
    assert!(matches!(
        license.unlock(b"bad key", &checks),
        Err(Error::LicenseMachine { .. })
    ));
    checks.machine = Some(MACHINE.to_owned());
    assert!(matches!(
        license.unlock(b"bad key", &checks),
        Err(Error::LicenseTdxMissing)
    ));
    checks.measurements = MeasurementSource::Known(measurements());
    let refused = license.unlock(b"bad key", &checks);
    assert!(matches!(
        refused,
        Err(Error::Cipher {
            source: chunk_cipher::Error::ScryptLimit { .. }
        })
    ));
    checks.scrypt_memory = 16 << 20;
    assert!(matches!(
        license.unlock(b"bad key", &checks),
        Err(Error::WrongKey)
    ));
    assert!(license.unlock(KEY, &checks).is_ok());
}

#[test]
fn keys_are_4_to_128_bytes() {
    let Issued {
        license,
        content,
        issuer,
    } = issue(&cheap("any.license"));
    for (len, fits) in [(0, false), (3, false), (4, true), (128, true), (129, false)] {
        let key = vec![b'k'; len];
        let issued = License::issue(&key, &licensed(&content), &cheap("any.license"), &issuer);
        let unlocked = license.unlock(&key, &Checks::default());
        if fits {
            assert!(issued.unwrap().unlock(&key, &Checks::default()).is_ok());
            assert!(matches!(unlocked, Err(Error::WrongKey)));
        } else {
            assert!(matches!(issued, Err(Error::KeyLength { len: found }) if found == len));
            assert!(matches!(unlocked, Err(Error::KeyLength { len: found }) if found == len));
        }
    }
}

#[test]
fn terms_have_limits_on_both_sides() {
    type Edit = Box<dyn Fn(&mut Terms)>;
    let id = |id: &str| -> Edit {
        let id = id.to_owned();
        Box::new(move |terms| terms.license_id.clone_from(&id))
    };
    let company = |company: &str| -> Edit {
        let company = company.to_owned();
        Box::new(move |terms| terms.company = Some(company.clone()))
    };
    let extras = |extras: &str| -> Edit {
        let extras = extras.to_owned();
        Box::new(move |terms| terms.extras = Some(extras.clone()))
    };
    let machines = |machine: &str, count: usize| -> Edit {
        let machines = vec![machine.to_owned(); count];
        Box::new(move |terms| terms.machines.clone_from(&machines))
    };
    let window = |valid_from: u64, expires: u64| -> Edit {
        Box::new(move |terms| {
            terms.valid_from = Some(valid_from);
            terms.expires = Some(expires);
        })
    };
    let tdx = |mrtd: usize, rtmr3: usize| -> Edit {
        let rtmr = [vec![], vec![], vec![], vec![[7; 48]; rtmr3]];
        let mrtd = vec![[8; 48]; mrtd];
        Box::new(move |terms| {
            terms.tdx = Some(TdxTerms {
                required: false,
                mrtd: mrtd.clone(),
                rtmr: rtmr.clone(),
            });
        })
    };
    let serial = |serial: u64| -> Edit { Box::new(move |terms| terms.serial = serial) };
    let last = parse_time("9999-12-31T23:59:59Z").unwrap();
    let cases: Vec<(Edit, Option<&str>)> = vec![
        (id("Az_09.-8"), None),
        (id(&"x".repeat(48)), None),
        (id("1234567"), Some("license_id")),
        (id(&"x".repeat(49)), Some("license_id")),
        (id(".2345678"), Some("license_id")),
        (id("1234567/"), Some("license_id")),
        (id("1234567 "), Some("license_id")),
        (id("123456\u{e9}"), Some("license_id")),
        (company("A CO"), None),
        (company("12345678"), None),
        (company("ABC"), Some("company")),
        (company("123456789"), Some("company")),
        (company("ACM\n"), Some("company")),
        (company("ACM\u{e9}"), Some("company")),
        (extras(""), None),
        (extras(&"\u{e9}".repeat(128)), None),
        (extras(&"x".repeat(257)), Some("extras")),
        (extras(&("\u{e9}".repeat(128) + "x")), Some("extras")),
        (machines("12345678", 1024), None),
        (machines(&"x".repeat(128), 1), None),
        (machines("12345678", 1025), Some("machines")),
        (machines("1234567", 1), Some("machines")),
        (machines(&"x".repeat(129), 1), Some("machines")),
        (machines("1234 5678", 1), Some("machines")),
        (machines("", 1), Some("machines")),
        (window(0, 1), None),
        (window(last - 1, last), None),
        (window(1, 1), Some("expires")),
        (window(2, 1), Some("expires")),
        (window(0, last + 1), Some("expires")),
        (window(last + 1, last), Some("valid_from")),
        (tdx(1, 0), None),
        (tdx(64, 64), None),
        (tdx(0, 0), Some("tdx")),
        (tdx(65, 0), Some("tdx")),
        (tdx(0, 65), Some("tdx")),
        (serial(0), None),
        (serial((1 << 53) - 1), None),
        (serial(1 << 53), Some("serial")),
    ];
    let (content, issuer) = (ContentKey::generate().unwrap(), IssuerKey::generate().unwrap());
    for (n, (edit, refused)) in cases.iter().enumerate() {
        let mut terms = cheap("LD_Demo_0001");
        edit(&mut terms);
        let issued = License::issue(KEY, &licensed(&content), &terms, &issuer);
        match (issued, refused) {
            (Ok(license), None) => assert_eq!(license.terms(), &terms),
            (Err(Error::LicenseField { field, .. }), Some(expected)) => assert_eq!(field, *expected),
            (issued, _) => panic!("case {n}: {issued:?}"),
        }
    }
    let mut terms = cheap("LD_Demo_0001");
    for log_n in [13, 25] {
        terms.scrypt_log_n = log_n;
        let issued = License::issue(KEY, &licensed(&content), &terms, &issuer);
        assert!(matches!(issued, Err(Error::ScryptCost { .. })));
    }
    terms.scrypt_log_n = 14;
    terms.machines = vec!["x".repeat(128); 500];
    let issued = License::issue(KEY, &licensed(&content), &terms, &issuer);
    assert!(matches!(issued, Err(Error::LicenseLength { .. })));
}

/// The same limits where a license is read, with a good signature.
#[test]
fn documents_out_of_bounds_are_refused() {
    let Issued { license, issuer, .. } = issue(&terms());
    let scrypt = |from: &str, to: Value| {
        let mut scrypt = value(&license)["scrypt"].clone();
        scrypt[from] = to;
        scrypt
    };
    let tdx = |from: &str, to: Value| {
        let mut tdx = value(&license)["tdx"].clone();
        tdx[from] = to;
        tdx
    };
    let without = |object: &str, name: &str| {
        let mut object = value(&license)[object].clone();
        object.as_object_mut().unwrap().remove(name);
        object
    };
    let salt = value(&license)["scrypt"]["salt"].as_str().unwrap().to_owned();
    for (name, to, word) in [
        ("license_id", json!("short"), "license_id"),
        ("license_id", json!("../../etc/x"), "license_id"),
        ("license_id", json!(12_345_678), "string"),
        ("serial", json!(-1), "9007199254740991"),
        ("serial", json!("7"), "integer"),
        ("company", json!("ABC"), "company"),
        ("valid_from", json!("2026-01-01T00:00:00+00:00"), "time"),
        ("valid_from", json!("2026-01-01T00:00:00.5Z"), "time"),
        ("valid_from", json!("2026-01-01"), "time"),
        ("valid_from", json!(0), "string"),
        ("expires", json!("2016-12-31T23:59:60Z"), "time"),
        ("expires", json!("2025-01-01T00:00:00Z"), "later"),
        ("machines", json!([]), "machine"),
        ("machines", json!(["short"]), "machines"),
        ("machines", json!(MACHINE), "array"),
        ("machines", json!(vec!["12345678"; 1025]), "1024"),
        ("tdx", without("tdx", "required"), "required"),
        ("tdx", json!({"required": true}), "at least one register"),
        ("tdx", tdx("mrtd", json!([])), "at least one measurement"),
        ("tdx", tdx("mrtd", json!(["01".repeat(47)])), "96"),
        ("tdx", tdx("mrtd", json!(["AB".repeat(48)])), "96"),
        ("tdx", tdx("mrtd", json!(vec!["01".repeat(48); 65])), "64"),
        ("tdx", tdx("rtmr4", json!(["01".repeat(48)])), "rtmr4"),
        ("tdx", tdx("required", json!(1)), "true or false"),
        ("extras", json!("x".repeat(257)), "256"),
        ("content_id", json!("05".repeat(15)), "32"),
        ("manifest_sha256", json!("05".repeat(33)), "64"),
        ("manifest_sha256", json!("0F".repeat(32)), "64"),
        ("issuer_key", json!(base64(&[0; 31])), "32 bytes"),
        ("issuer_key", json!(base64(&[0; 32])), "honest"),
        ("scrypt", scrypt("log_n", json!(13)), "14 to 24"),
        ("scrypt", scrypt("log_n", json!(25)), "14 to 24"),
        ("scrypt", scrypt("log_n", json!(270)), "14 to 24"),
        ("scrypt", scrypt("r", json!(7)), "8 to 8"),
        ("scrypt", scrypt("r", json!(16)), "8 to 8"),
        ("scrypt", scrypt("p", json!(0)), "1 to 16"),
        ("scrypt", scrypt("p", json!(17)), "1 to 16"),
        ("scrypt", scrypt("salt", json!(base64(&[0; 31]))), "32 bytes"),
        (
            "scrypt",
            scrypt("salt", json!(salt.trim_end_matches('='))),
            "32 bytes",
        ),
        (
            "scrypt",
            scrypt("salt", json!(salt.replace('=', "") + "\n")),
            "32 bytes",
        ),
        ("scrypt", scrypt("x", json!(1)), "\"x\""),
        ("scrypt", without("scrypt", "salt"), "salt"),
        ("scrypt", without("scrypt", "log_n"), "log_n"),
        ("scrypt", without("scrypt", "p"), "\"p\""),
        ("scrypt", without("scrypt", "r"), "\"r\""),
        ("kek_commitment", json!(""), "64"),
        ("wrapped_key", json!(base64(&[0; 59])), "60 bytes"),
        ("wrapped_key", json!(base64(&[0; 61])), "60 bytes"),
        ("critical", json!(["zeta"]), "zeta"),
        ("critical", json!(["serial", "zeta", "company"]), "zeta"),
        ("critical", json!("serial"), "array"),
        ("critical", json!([1]), "string"),
        ("format", json!("sam-manifest"), "sam-license"),
        ("version", json!(2), "version 2"),
        ("format", Value::Null, "format"),
        ("version", Value::Null, "version"),
        ("license_id", Value::Null, "license_id"),
        ("serial", Value::Null, "serial"),
        ("content_id", Value::Null, "content_id"),
        ("manifest_sha256", Value::Null, "manifest_sha256"),
        ("issuer_key", Value::Null, "issuer_key"),
        ("scrypt", Value::Null, "scrypt"),
        ("kek_commitment", Value::Null, "kek_commitment"),
        ("wrapped_key", Value::Null, "wrapped_key"),
    ] {
        let error = sign(&edited(&license, name, &to), &issuer).expect_err(name);
        assert!(error.to_string().contains(word), "{name}: {error}");
    }
    // What signing would mend, and what is no canonical JSON.
    let text = license.as_str();
    let sloppy = text.replacen("==\",\"tdx", "\",\"tdx", 1);
    for (changed, word) in [
        (sloppy, "64 bytes"),
        (text.replacen("{\"company\"", "{ \"company\"", 1), "string"),
        (text.replacen("\"serial\":7", "\"serial\":7.0", 1), "integer"),
        (text.replacen("\"serial\":7", "\"serial\":7e0", 1), "integer"),
        (text.replacen("\"serial\":7", "\"serial\":07", 1), "canonical"),
        (
            text.replacen("\"serial\":7", "\"serial\":7,\"serial\":8", 1),
            "twice",
        ),
        (
            text.replacen("{\"company\":\"ACME\",", "{", 1).replacen(
                "\"version\":1",
                "\"version\":1,\"company\":\"ACME\"",
                1,
            ),
            "order",
        ),
        (text.replacen("ACME", "AC\\u004dE", 1), "escape"),
        (text.replacen("ACME", "AC\\ud800E", 1), "escape"),
        (
            text.replacen("\"ACME\"", &format!("{}1{}", "[".repeat(40), "]".repeat(40)), 1),
            "expected a string",
        ),
        (
            text.replacen(
                "\"version\":1",
                &format!("\"version\":1,\"zeta\":{}1{}", "[".repeat(40), "]".repeat(40)),
                1,
            ),
            "deeper",
        ),
        (format!("{text}\n"), "after the end"),
        (format!("\u{feff}{text}"), "object"),
        (
            text.replacen("ACME", &"x".repeat(License::MAX_LEN), 1),
            "longer than 65536",
        ),
    ] {
        assert_ne!(changed, text);
        let error = License::parse(changed.as_bytes()).expect_err(word);
        assert!(matches!(
            error,
            Error::Document {
                document: "license",
                ..
            }
        ));
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[test]
fn configurations() {
    let full = json!({
        "license_id": "LD_Demo_0001",
        "serial": 7,
        "company": "ACME",
        "valid_from": "2026-01-01T08:00:00+08:00",
        "expires": "2027-12-31T19:00:00-05:00",
        "machines": ["mid-00000000000000000000000000000000", MACHINE],
        "tdx": {"required": true, "mrtd": ["01".repeat(48), "02".repeat(48)], "rtmr2": ["03".repeat(48)]},
        "extras": "for the caller\n\u{e9}",
        "scrypt_log_n": 14,
    });
    let parse = |value: &Value| LicenseConfig::parse(value.to_string().as_bytes());
    let config = parse(&full).unwrap();
    assert_eq!(config.terms(Terms::new("overruled")).unwrap(), terms());
    assert!(config.has_serial());
    // Nothing said: what the caller says.
    let empty = parse(&json!({})).unwrap();
    assert_eq!(empty.terms(terms()).unwrap(), terms());
    assert!(!empty.has_serial());
    assert!(LicenseConfig::parse(b"\xef\xbb\xbf { }").is_ok());
    // One machine, or none, as other packagers have it.
    let machine = |machine: &str| {
        parse(&json!({ "machine": machine }))
            .unwrap()
            .terms(cheap("LD_Demo_0001"))
    };
    assert_eq!(machine(MACHINE).unwrap().machines, [MACHINE]);
    assert!(machine("").unwrap().machines.is_empty());
    let hex = parse(&json!({"tdx": {"mrtd": ["AB".repeat(48)]}})).unwrap();
    assert_eq!(
        hex.terms(Terms::new("LD_Demo_0001")).unwrap().tdx.unwrap().mrtd,
        [[0xab; 48]]
    );

    for (name, to, word) in [
        ("extras", json!("x".repeat(257)), "256"),
        ("company", json!("a name too long"), "company"),
        ("valid_from", json!("tomorrow"), "valid_from expected a time"),
        (
            "expires",
            json!("2026-02-30T00:00:00Z"),
            "expires there is no such day",
        ),
        ("machine", json!(MACHINE), "along with machines"),
        ("tdx", json!({"mrtd": ["01"]}), "96"),
        ("tdx", json!({"required": true}), "at least one register"),
        ("scrypt_log_n", json!(30), "2^30"),
    ] {
        let mut value = full.clone();
        value[name] = to;
        let error = parse(&value)
            .unwrap()
            .terms(Terms::new("LD_Demo_0001"))
            .expect_err(name);
        assert!(error.to_string().contains(word), "{name}: {error}");
    }
    for (text, word) in [
        ("", "EOF"),
        ("[]", "invalid"),
        ("{\"serail\":1}", "serail"),
        ("{\"tdx\":{\"rtmr4\":[]}}", "rtmr4"),
        ("{\"serial\":1,\"serial\":2}", "duplicate"),
        ("{\"serial\":-1}", "-1"),
        ("{\"serial\":1.5}", "1.5"),
        ("{\"extras\":1}", "string"),
        ("{} x", "trailing"),
    ] {
        let error = LicenseConfig::parse(text.as_bytes()).expect_err(text);
        assert!(matches!(error, Error::LicenseConfig { .. }));
        assert!(error.to_string().contains(word), "{text}: {error}");
    }
    let longer = vec![b' '; LicenseConfig::MAX_LEN + 1];
    assert!(LicenseConfig::parse(&longer).is_err());
}

#[test]
fn an_interrupted_packing_leaves_no_license() {
    let content = ContentKey::generate().unwrap();
    let id = ContentId::from_bytes([5; 16]);
    let partial = Partial::new(KEY, &content, id, ChunkLen::default(), 14).unwrap();
    let text = partial.as_str();
    assert_eq!(Partial::parse(text.as_bytes()).unwrap(), partial);
    assert_eq!(
        (partial.content_id(), partial.chunk_len()),
        (id, ChunkLen::default())
    );
    assert_eq!(
        partial
            .unlock(KEY, DEFAULT_SCRYPT_MEMORY)
            .unwrap()
            .commitment()
            .unwrap(),
        content.commitment().unwrap()
    );
    assert!(matches!(
        partial.unlock(b"another", DEFAULT_SCRYPT_MEMORY),
        Err(Error::WrongKey)
    ));
    assert!(matches!(
        partial.unlock(b"no", DEFAULT_SCRYPT_MEMORY),
        Err(Error::KeyLength { len: 2 })
    ));
    assert!(matches!(
        Partial::new(KEY, &content, id, ChunkLen::default(), 13),
        Err(Error::ScryptCost { log_n: 13 })
    ));

    assert!(License::parse(text.as_bytes()).is_err());
    let license = issue(&cheap("LD_Demo_0001")).license;
    assert!(Partial::parse(license.as_str().as_bytes()).is_err());
    // Nor can what it wraps be moved into a license, not even by the issuer.
    let parsed: Value = serde_json::from_str(text).unwrap();
    let issuer = IssuerKey::generate().unwrap();
    let mut moved = value(&license);
    for name in ["kek_commitment", "scrypt", "wrapped_key"] {
        moved[name] = parsed[name].clone();
    }
    moved["issuer_key"] = json!(issuer.public().to_string());
    let moved = sign(&moved, &issuer).unwrap();
    assert!(matches!(
        moved.unlock(KEY, &Checks::default()),
        Err(Error::WrappedKey)
    ));

    let with = |name: &str, to: Value| {
        let mut value = parsed.clone();
        value[name] = to;
        Partial::parse(canonical(&value).as_bytes())
    };
    for (name, to) in [
        ("content_id", json!("06".repeat(16))),
        ("chunk_length", json!(4096)),
    ] {
        assert!(matches!(
            with(name, to).unwrap().unlock(KEY, DEFAULT_SCRYPT_MEMORY),
            Err(Error::WrappedKey)
        ));
    }
    for (name, to) in [
        ("zeta", json!(1)),
        ("version", json!(2)),
        ("format", json!("sam-license")),
        ("chunk_length", json!(5)),
    ] {
        assert!(matches!(
            with(name, to),
            Err(Error::Document { .. } | Error::Version { .. })
        ));
    }
    for name in parsed.as_object().unwrap().keys() {
        let mut value = parsed.clone();
        value.as_object_mut().unwrap().remove(name);
        assert!(Partial::parse(canonical(&value).as_bytes()).is_err());
    }
}
