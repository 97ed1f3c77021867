//! Sealing as brokers do it, written apart from the code that opens.

use attest_client::messages::{Jwe, TeePublicKey};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, ECDH_P521, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap as _};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const IV: [u8; 12] = *b"twelve bytes";

/// A resource sealed to the key as since 0.2.0.
pub(crate) fn seal(key: &TeePublicKey, plain: &[u8]) -> Jwe {
    seal_with_header(key, plain, |header| header)
}

/// The same, with the header's JSON as `edit` leaves it.
pub(crate) fn seal_with_header(key: &TeePublicKey, plain: &[u8], edit: impl Fn(String) -> String) -> Jwe {
    let cek = *b"thirty-two bytes of content key.";
    let (header, encrypted_key) = match key {
        TeePublicKey::Ec { crv, x, y, .. } => {
            let (algorithm, len) = if crv == "P-256" {
                (&ECDH_P256, 32)
            } else {
                (&ECDH_P521, 66)
            };
            let ephemeral = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).unwrap();
            let public = ephemeral.compute_public_key().unwrap();
            let (epk_x, epk_y) = public.as_ref()[1..].split_at(len);
            let header = format!(
                r#"{{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{{"crv":"{crv}","kty":"EC","x":"{}","y":"{}"}}}}"#,
                encode(epk_x),
                encode(epk_y),
            );
            let point = [vec![4], decode(x), decode(y)].concat();
            let wrapped = agree_ephemeral(
                ephemeral,
                UnparsedPublicKey::new(algorithm, point),
                Unspecified,
                |z| {
                    let kek = [
                        b"\0\0\0\x01".as_slice(),
                        z,
                        b"\0\0\0\x0eECDH-ES+A256KW\0\0\0\0\0\0\0\0\0\0\x01\0",
                    ]
                    .concat();
                    let kek = AesKek::new(&AES_256, digest(&SHA256, &kek).as_ref())?;
                    Ok(kek.wrap(&cek, &mut [0; 40])?.to_vec())
                },
            );
            (header, wrapped.unwrap())
        }
        TeePublicKey::Rsa { alg, n, .. } => {
            (format!(r#"{{"alg":"{alg}","enc":"A256GCM"}}"#), rsa(alg, n, &cek))
        }
    };
    let protected = encode(edit(header).as_bytes());
    let mut ciphertext = plain.to_vec();
    let tag = gcm(&cek, &mut ciphertext, protected.as_bytes());
    Jwe {
        protected,
        encrypted_key: encode(&encrypted_key),
        iv: encode(&IV),
        ciphertext: encode(&ciphertext),
        tag: encode(&tag),
        aad: None,
    }
}

/// A resource sealed as in 0.1.x.
pub(crate) fn seal_old(key: &TeePublicKey, plain: &[u8]) -> Jwe {
    let TeePublicKey::Rsa { n, .. } = key else {
        panic!("brokers of 0.1.x know RSA alone")
    };
    seal_old_with(n, plain, &[0xa5; 32])
}

/// The same with any content key, of any length.
pub(crate) fn seal_old_with(n: &str, plain: &[u8], cek: &[u8]) -> Jwe {
    let mut ciphertext = plain.to_vec();
    let tag = gcm(&cek.try_into().unwrap_or([0; 32]), &mut ciphertext, b"");
    Jwe {
        protected: r#"{"alg":"RSA1_5","enc":"A256GCM"}"#.to_owned(),
        encrypted_key: encode(&rsa("RSA1_5", n, cek)),
        iv: encode(&IV),
        ciphertext: encode(&[ciphertext, tag].concat()),
        tag: String::new(),
        aad: None,
    }
}

fn gcm(cek: &[u8; 32], plain: &mut [u8], aad: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, cek).unwrap());
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(IV), Aad::from(aad), plain);
    tag.unwrap().as_ref().to_vec()
}

fn rsa(alg: &str, n: &str, cek: &[u8]) -> Vec<u8> {
    // SubjectPublicKeyInfo with 2048 bits and the exponent 65537.
    let spki = [
        b"\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x0f\x00"
            .as_slice(),
        b"\x30\x82\x01\x0a\x02\x82\x01\x01\x00",
        &decode(n),
        b"\x02\x03\x01\x00\x01",
    ]
    .concat();
    let key = PublicEncryptingKey::from_der(&spki).unwrap();
    let mut sealed = [0; 256];
    if alg == "RSA1_5" {
        Pkcs1PublicEncryptingKey::new(key)
            .unwrap()
            .encrypt(cek, &mut sealed)
            .unwrap();
    } else {
        let key = OaepPublicEncryptingKey::new(key).unwrap();
        key.encrypt(&OAEP_SHA256_MGF1SHA256, cek, &mut sealed, None)
            .unwrap();
    }
    sealed.to_vec()
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}
