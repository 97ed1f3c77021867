//! Key derivation against the vectors of its RFCs, and its limits.
#![allow(clippy::unwrap_used)]

use chunk_cipher::Error;
use chunk_cipher::kdf::{DEFAULT_SCRYPT_MEMORY, ScryptParams, hkdf_sha256, scrypt};

fn hex(text: &str) -> Vec<u8> {
    let text = text.trim_matches('-');
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').collect())
}

#[test]
fn scrypt_known_answers() {
    let mut count = 0;
    for line in lines(include_str!("vectors/scrypt.txt")) {
        let [password, salt, log_n, r, p, expected] = line[..] else {
            panic!("not six fields: {line:?}")
        };
        let params = ScryptParams {
            log_n: log_n.parse().unwrap(),
            r: r.parse().unwrap(),
            p: p.parse().unwrap(),
        };
        let mut out = [0; 64];
        scrypt(
            &hex(password),
            &hex(salt),
            params,
            DEFAULT_SCRYPT_MEMORY,
            &mut out,
        )
        .unwrap();
        assert_eq!(out[..], hex(expected));
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn hkdf_known_answers() {
    let mut count = 0;
    for line in lines(include_str!("vectors/hkdf.txt")) {
        let fields: Vec<_> = line.into_iter().map(hex).collect();
        let [salt, ikm, info, expected] = &fields[..] else {
            panic!("not four fields")
        };
        let mut okm = vec![0; expected.len()];
        hkdf_sha256(Some(salt), ikm, info, &mut okm).unwrap();
        assert_eq!(okm, *expected);
        if salt.is_empty() {
            hkdf_sha256(None, ikm, info, &mut okm).unwrap();
            assert_eq!(okm, *expected);
        }
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn hkdf_output_is_limited() {
    assert!(hkdf_sha256(None, b"key", b"", &mut [0; 255 * 32]).is_ok());
    assert!(matches!(
        hkdf_sha256(None, b"key", b"", &mut [0; 255 * 32 + 1]),
        Err(Error::TooLong)
    ));
}

fn refused(log_n: u8, r: u32, p: u32, max_memory: u64) -> Error {
    let params = ScryptParams { log_n, r, p };
    let mut out = [7; 32];
    let error = scrypt(b"password", b"salt", params, max_memory, &mut out).unwrap_err();
    assert_eq!(out, [7; 32]);
    error
}

#[test]
fn scrypt_memory_is_limited() {
    let error = refused(21, 8, 1, DEFAULT_SCRYPT_MEMORY);
    assert!(matches!(error, Error::ScryptLimit { memory, max_memory, .. }
        if memory > 2 << 30 && max_memory == DEFAULT_SCRYPT_MEMORY));
    let text = error.to_string();
    assert!(
        text.contains("N = 2^21") && text.contains("2048 MiB") && text.contains("limit"),
        "{text}"
    );
    // A limit of what the large table takes is enough, but no less than a mebibyte below all that is taken.
    let params = ScryptParams {
        log_n: 16,
        r: 8,
        p: 1,
    };
    assert_eq!(params.memory(), 128 * 8 * (65_536 + 1 + 2));
    assert!(params.check(64 << 20).is_ok());
    assert!(params.check(params.memory() - (1 << 20)).is_ok());
    assert!(params.check(params.memory() - (1 << 20) - 1).is_err());
    // The largest parameters of RFC 7914 are within the default of 1 GiB.
    assert_eq!(DEFAULT_SCRYPT_MEMORY, 1 << 30);
    assert!(
        ScryptParams {
            log_n: 20,
            r: 8,
            p: 1
        }
        .check(DEFAULT_SCRYPT_MEMORY)
        .is_ok()
    );
    assert!(matches!(
        refused(1, u32::MAX, u32::MAX, DEFAULT_SCRYPT_MEMORY),
        Error::ScryptLimit { .. }
    ));
}

#[test]
fn scrypt_repeated_work_is_limited() {
    // Little memory, but 2^19 times over.
    let error = refused(10, 8, 1 << 19, DEFAULT_SCRYPT_MEMORY);
    assert!(matches!(error, Error::ScryptWork { .. }));
    assert!(error.to_string().contains("p = 524288"), "{error}");
    assert!(
        ScryptParams {
            log_n: 16,
            r: 8,
            p: 16
        }
        .check(DEFAULT_SCRYPT_MEMORY)
        .is_ok()
    );
}

#[test]
fn scrypt_exponents_beyond_64_bits_are_refused() {
    for log_n in [63, 64, 65, 255] {
        assert!(matches!(
            refused(log_n, 8, 1, DEFAULT_SCRYPT_MEMORY),
            Error::ScryptLimit { .. }
        ));
        // Without a limit as well.
        assert!(matches!(refused(log_n, 8, 1, u64::MAX), Error::ScryptWork { .. }));
    }
}

#[test]
fn scrypt_parameters_that_the_rfc_forbids_are_refused() {
    // N of 1, nothing at all, N not below 2^(128 r / 8), and r p not below 2^30.
    for (log_n, r, p) in [
        (0, 8, 1),
        (10, 0, 1),
        (10, 8, 0),
        (16, 1, 1),
        (17, 1, 1),
        (1, 1 << 15, 1 << 15),
    ] {
        let error = refused(log_n, r, p, 1 << 50);
        assert!(
            matches!(error, Error::ScryptParams { .. }),
            "{log_n} {r} {p}: {error:?}"
        );
        assert!(error.to_string().contains("not valid"));
    }
}
