//! What brokers sealed opens, and nothing else does.
#![allow(clippy::unwrap_used)]

use attest_client::messages::{Jwe, TeePublicKey};
use attest_client::{Error, ProtocolVersion, TeeKey, TeeKeyKind};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

#[path = "common/seal.rs"]
mod seal;

use seal::{decode, encode, seal, seal_old, seal_old_with, seal_with_header};

#[derive(Deserialize)]
struct Recorded {
    name: String,
    #[serde(default)]
    protocol: Option<String>,
    tee_private_key_pem: String,
    response: Jwe,
    plaintext: String,
}

impl Recorded {
    fn all() -> Vec<Self> {
        let files = [
            include_str!("vectors/kbs_jwe_vectors.json"),
            include_str!("vectors/kbs_jwe_vectors_rsa.json"),
        ];
        files
            .iter()
            .flat_map(|file| serde_json::from_str::<Vec<Self>>(file).unwrap())
            .collect()
    }

    fn version(&self) -> ProtocolVersion {
        self.protocol.as_deref().unwrap_or("0.4.0").parse().unwrap()
    }

    fn key(&self) -> TeeKey {
        let rsa = if self.name.contains("rsa1_5") {
            TeeKeyKind::Rsa1_5
        } else {
            TeeKeyKind::RsaOaep256
        };
        TeeKey::from_pem(&self.tee_private_key_pem, rsa).unwrap()
    }
}

#[track_caller]
fn assert_refused(jwe: &Jwe, key: &TeeKey, version: ProtocolVersion, what: &str) {
    assert!(matches!(jwe.open(key, version), Err(Error::Jwe)), "{what}");
}

#[test]
fn every_recorded_answer_opens() {
    let all = Recorded::all();
    assert_eq!(all.len(), 9);
    for recorded in &all {
        let plain = recorded
            .response
            .open(&recorded.key(), recorded.version())
            .unwrap();
        assert_eq!(
            plain.as_slice(),
            recorded.plaintext.as_bytes(),
            "{}",
            recorded.name
        );
    }
}

type Member = fn(&mut Jwe) -> &mut String;

const MEMBERS: [(&str, Member); 5] = [
    ("protected", |jwe| &mut jwe.protected),
    ("encrypted_key", |jwe| &mut jwe.encrypted_key),
    ("iv", |jwe| &mut jwe.iv),
    ("ciphertext", |jwe| &mut jwe.ciphertext),
    ("tag", |jwe| &mut jwe.tag),
];

#[test]
fn every_bit_flip_is_refused() {
    for recorded in Recorded::all() {
        let (key, version) = (recorded.key(), recorded.version());
        for (name, member) in MEMBERS {
            let text = member(&mut recorded.response.clone()).clone();
            let mut variants = Vec::new();
            for bit in 0..text.len() * 8 {
                let mut flipped = text.clone().into_bytes();
                flipped[bit / 8] ^= 1 << (bit % 8);
                variants.extend(String::from_utf8(flipped));
            }
            if name != "protected" {
                // Text that is base64url still stands for other bytes; those follow, bit by bit.
                variants.retain(|variant| URL_SAFE_NO_PAD.decode(variant).is_err());
                let bytes = decode(&text);
                for bit in 0..bytes.len() * 8 {
                    let mut flipped = bytes.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    variants.push(encode(&flipped));
                }
            }
            for variant in variants {
                let mut jwe = recorded.response.clone();
                *member(&mut jwe) = variant;
                assert_refused(&jwe, &key, version, &format!("{} {name}", recorded.name));
            }
        }
    }
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    for recorded in Recorded::all() {
        let (key, version) = (recorded.key(), recorded.version());
        for (name, member) in MEMBERS {
            let text = member(&mut recorded.response.clone()).clone();
            let mut variants: Vec<String> = (0..text.len()).map(|len| text[..len].to_owned()).collect();
            variants.extend([
                format!("{text}A"),
                format!("{text}AAAA"),
                format!("{text}="),
                format!(" {text}"),
            ]);
            for variant in variants {
                if variant.trim_start() == text && variant.trim_start().starts_with('{') {
                    continue;
                }
                let mut jwe = recorded.response.clone();
                *member(&mut jwe) = variant;
                assert_refused(&jwe, &key, version, &format!("{} {name}", recorded.name));
            }
        }
    }
}

#[test]
fn the_agreed_version_decides_the_form_and_the_key_the_algorithm() {
    let all = Recorded::all();
    for recorded in &all {
        let other = if recorded.version() == ProtocolVersion::V0_1_0 {
            [ProtocolVersion::V0_2_0, ProtocolVersion::V0_4_0]
        } else {
            [ProtocolVersion::V0_1_0, ProtocolVersion::V0_1_1]
        };
        for version in other {
            assert_refused(&recorded.response, &recorded.key(), version, &recorded.name);
        }
    }
    // All RSA recordings have one key: what is sealed by RSA1_5 does not open with a key for RSA-OAEP-256.
    let [oaep, rsa1_5] = ["get_rsa_oaep256", "own_01_rsa1_5"]
        .map(|name| all.iter().find(|recorded| recorded.name == name).unwrap());
    assert_refused(
        &rsa1_5.response,
        &oaep.key(),
        ProtocolVersion::V0_4_0,
        "RSA1_5 to an OAEP key",
    );
    assert_refused(
        &oaep.response,
        &rsa1_5.key(),
        ProtocolVersion::V0_4_0,
        "OAEP to an RSA1_5 key",
    );
}

const KINDS: [TeeKeyKind; 4] = [
    TeeKeyKind::P256,
    TeeKeyKind::P521,
    TeeKeyKind::RsaOaep256,
    TeeKeyKind::Rsa1_5,
];

#[test]
fn fresh_keys_open_what_is_sealed_to_them() {
    let version = ProtocolVersion::V0_4_0;
    for kind in KINDS {
        let (key, other) = (TeeKey::generate(kind).unwrap(), TeeKey::generate(kind).unwrap());
        assert_ne!(key.public(), other.public(), "{kind:?}");
        assert_eq!(key.kind(), kind);
        for plain in [b"".as_slice(), b"x", &[7; 100_000]] {
            let jwe = seal(key.public(), plain);
            assert_eq!(jwe.open(&key, version).unwrap().as_slice(), plain, "{kind:?}");
            assert_eq!(
                jwe.open(&key, ProtocolVersion::V0_2_0).unwrap().as_slice(),
                plain,
                "{kind:?}"
            );
            assert_refused(&jwe, &other, version, "another key");
        }
    }
    let key = TeeKey::generate(TeeKeyKind::Rsa1_5).unwrap();
    for version in [ProtocolVersion::V0_1_0, ProtocolVersion::V0_1_1] {
        assert_eq!(
            seal_old(key.public(), b"")
                .open(&key, version)
                .unwrap()
                .as_slice(),
            b""
        );
        assert_eq!(
            seal_old(key.public(), b"key\n")
                .open(&key, version)
                .unwrap()
                .as_slice(),
            b"key\n"
        );
    }
}

#[test]
fn a_content_key_of_another_length_is_refused_as_a_wrong_one_is() {
    let key = TeeKey::generate(TeeKeyKind::Rsa1_5).unwrap();
    let TeePublicKey::Rsa { n, .. } = key.public() else {
        panic!("not RSA")
    };
    for len in [0, 1, 16, 31, 33, 64] {
        let jwe = seal_old_with(n, b"key", &vec![9; len]);
        assert_refused(&jwe, &key, ProtocolVersion::V0_1_0, &format!("{len} bytes"));
    }
}

#[test]
fn headers_that_ask_for_more_are_refused() {
    let version = ProtocolVersion::V0_4_0;
    for kind in KINDS {
        let key = TeeKey::generate(kind).unwrap();
        let with = |member: &str| {
            seal_with_header(key.public(), b"key", |json| {
                json.replacen('{', &format!("{{{member},"), 1)
            })
        };
        assert_eq!(
            with(r#""kid":"any""#).open(&key, version).unwrap().as_slice(),
            b"key"
        );
        for member in [
            r#""crit":["exp"]"#,
            r#""crit":null"#,
            r#""zip":null"#,
            r#""apu":null"#,
            r#""apv":null"#,
            r#""zip":"DEF""#,
            r#""apu":"QQ""#,
            r#""apv":"QQ""#,
            r#""alg":"dir""#,
            r#""enc":"A128GCM""#,
        ] {
            assert_refused(&with(member), &key, version, member);
        }
        let other_enc = seal_with_header(key.public(), b"key", |json| json.replace("A256GCM", "A128GCM"));
        assert_refused(&other_enc, &key, version, "A128GCM");
    }
    // A coordinate without its leading zeros or with one more, and a point off the curve.
    let key = TeeKey::generate(TeeKeyKind::P256).unwrap();
    for (x_len, x) in [(31, 1), (33, 0), (32, 1)] {
        let jwe = seal_with_header(key.public(), b"key", |json| {
            let start = json.find(r#""x":""#).unwrap() + 5;
            let end = start + json[start..].find('"').unwrap();
            format!("{}{}{}", &json[..start], encode(&vec![x; x_len]), &json[end..])
        });
        assert_refused(&jwe, &key, version, &format!("x of {x_len} bytes"));
    }
}

#[test]
fn additional_data_is_authenticated_as_rfc_7516_says() {
    let key = TeeKey::generate(TeeKeyKind::P256).unwrap();
    let mut jwe = seal(key.public(), b"key");
    jwe.aad = Some(encode(b"more"));
    assert_refused(
        &jwe,
        &key,
        ProtocolVersion::V0_4_0,
        "data that was not authenticated",
    );
    let key = TeeKey::generate(TeeKeyKind::Rsa1_5).unwrap();
    let mut jwe = seal_old(key.public(), b"key");
    jwe.aad = Some(String::new());
    assert_refused(&jwe, &key, ProtocolVersion::V0_1_0, "the old form has none");
}

#[test]
fn public_keys_have_their_full_length() {
    for (kind, len) in [(TeeKeyKind::P256, 32), (TeeKeyKind::P521, 66)] {
        let key = TeeKey::generate(kind).unwrap();
        let TeePublicKey::Ec { x, y, alg, .. } = key.public() else {
            panic!("not on a curve")
        };
        assert_eq!((decode(x).len(), decode(y).len()), (len, len));
        assert_eq!(alg, "ECDH-ES+A256KW");
    }
    for kind in [TeeKeyKind::RsaOaep256, TeeKeyKind::Rsa1_5] {
        let key = TeeKey::generate(kind).unwrap();
        let TeePublicKey::Rsa { alg, n, e } = key.public() else {
            panic!("not RSA")
        };
        assert_eq!((decode(n).len(), decode(n)[0] >> 7, e.as_str()), (256, 1, "AQAB"));
        assert_eq!(alg, kind.algorithm());
    }
}

#[test]
fn keys_from_pem() {
    for bad in [
        "",
        "-----BEGIN PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ] {
        assert!(
            matches!(
                TeeKey::from_pem(bad, TeeKeyKind::RsaOaep256),
                Err(Error::TeeKey { .. })
            ),
            "{bad}"
        );
    }
}

#[test]
fn debug_shows_no_secret() {
    let key = TeeKey::generate(TeeKeyKind::P256).unwrap();
    let jwe = seal(key.public(), b"key");
    let shown = format!("{jwe:?}");
    assert!(
        !shown.contains(&jwe.ciphertext) && !shown.contains(&jwe.encrypted_key),
        "{shown}"
    );
    assert!(format!("{key:?}").starts_with("TeeKey { public: Ec {"));
}
