//! Keys of issuers: made, written, read, refused.

use std::os::unix::fs::PermissionsExt;
use std::{fs, io};

use sam_format::{Error, IssuerKey, IssuerPublicKey};

/// RFC 8410, section 10.3, and its public key (section 10.1).
const RFC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
/// The same with its public key (PKCS #8 version 2).
const RFC_PRIVATE_V2: &str = "-----BEGIN PRIVATE KEY-----
MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB
Z9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PRIVATE KEY-----
";
const RFC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";
const RFC_PUBLIC_TEXT: &str = "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

#[test]
fn keys_of_the_standard() {
    for pem in [
        RFC_PRIVATE,
        RFC_PRIVATE_V2,
        &RFC_PRIVATE.replace('\n', "\r\n"),
        &format!("\n{RFC_PRIVATE}\n"),
    ] {
        let key = IssuerKey::from_pem(pem).unwrap();
        assert_eq!(key.public().to_string(), RFC_PUBLIC_TEXT);
        assert_eq!(key.to_pem().unwrap().as_str(), RFC_PRIVATE);
    }
    for text in [RFC_PUBLIC, RFC_PUBLIC_TEXT, &format!(" {RFC_PUBLIC_TEXT}\n")] {
        assert_eq!(
            IssuerPublicKey::from_text(text).unwrap().to_string(),
            RFC_PUBLIC_TEXT
        );
    }
}

#[test]
fn what_is_no_private_key_is_refused_and_not_shown() {
    let other_public = RFC_PRIVATE_V2.replace("Z9w7", "Z9w8");
    let encrypted = RFC_PRIVATE.replace("PRIVATE", "ENCRYPTED PRIVATE");
    for text in [
        "",
        "MC4C",
        RFC_PUBLIC,
        RFC_PUBLIC_TEXT,
        &RFC_PRIVATE[..90],
        &other_public,
        &encrypted,
    ] {
        let error = IssuerKey::from_pem(text).expect_err(text);
        assert!(matches!(error, Error::IssuerKey { .. }));
        assert!(!format!("{error} {error:?}").contains("MC4C"));
    }
}

#[test]
fn what_is_no_public_key_is_refused() {
    let bytes = |hex: &str| -> [u8; 32] {
        std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    };
    for text in [
        "",
        "AAAA",
        RFC_PRIVATE,
        &RFC_PUBLIC_TEXT[1..],
        &RFC_PUBLIC_TEXT.replace('=', ""),
    ] {
        assert!(
            matches!(IssuerPublicKey::from_text(text), Err(Error::IssuerKey { .. })),
            "{text}"
        );
    }
    for (hex, why) in [
        (
            "0100000000000000000000000000000000000000000000000000000000000000",
            "the neutral element",
        ),
        (
            "0000000000000000000000000000000000000000000000000000000000000000",
            "a point of order 4",
        ),
        (
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "a point of order 2",
        ),
        (
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "a point of order 8",
        ),
        (
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "1 as 1 + p",
        ),
        (
            "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "3 as 3 + p",
        ),
        (
            "0200000000000000000000000000000000000000000000000000000000000000",
            "no point",
        ),
    ] {
        let refused = IssuerPublicKey::from_bytes(bytes(hex));
        assert!(matches!(refused, Err(Error::IssuerKey { .. })), "{why}");
    }
    // 3 is a point, and not of small order: it is the encoding above that is refused.
    let three = "0300000000000000000000000000000000000000000000000000000000000000";
    assert!(IssuerPublicKey::from_bytes(bytes(three)).is_ok());
}

#[test]
fn kept_in_a_file_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("issuer.pem");
    let key = IssuerKey::generate().unwrap();
    key.write_new(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(IssuerKey::read(&path).unwrap().public(), key.public());
    let again = IssuerKey::generate().unwrap().write_new(&path);
    let Err(Error::Io { source, .. }) = again else {
        panic!("{again:?}");
    };
    assert_eq!(source.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(IssuerKey::read(&path).unwrap().public(), key.public());
    assert!(IssuerKey::read(&dir.path().join("none")).is_err());
    fs::write(&path, [0xff; 100_000]).unwrap();
    assert!(matches!(IssuerKey::read(&path), Err(Error::IssuerKey { .. })));
}

#[test]
fn never_printed() {
    let key = IssuerKey::from_pem(RFC_PRIVATE).unwrap();
    let printed = format!("{key:?} {key:#?}");
    let expected = format!("IssuerKey(hidden, public {RFC_PUBLIC_TEXT})");
    assert_eq!(printed, format!("{expected} {expected}"));
    assert_ne!(
        IssuerKey::generate().unwrap().public(),
        IssuerKey::generate().unwrap().public()
    );
}
