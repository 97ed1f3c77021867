//! Encrypts a resource to the key of the one who attested: JWE (RFC 7516), and what servers before 0.2.0 made of it.
//!
//! Written apart from the code that opens them, so that each checks the other.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P521, EphemeralPrivateKey, UnparsedPublicKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
    PublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Family;
use super::answer::ordered;
use crate::messages::{ProtocolVersion, TeePublicKey};

/// A content key, wrapped, and what the header says of that.
struct Wrapped {
    header: Value,
    encrypted_key: Vec<u8>,
}

/// Encrypts `plain` in place of it. Returns the answer's body.
pub(super) fn seal(
    family: Family,
    version: ProtocolVersion,
    key: &TeePublicKey,
    plain: Zeroizing<Vec<u8>>,
) -> Result<String, &'static str> {
    let mut content_key = Zeroizing::new([0; 32]);
    let mut iv = [0; 12];
    rand::fill(content_key.as_mut_slice())
        .and_then(|()| rand::fill(&mut iv))
        .map_err(|_| "no random bytes")?;
    let Wrapped {
        header,
        encrypted_key,
    } = wrap(family, version, key, &content_key)?;
    let old = version.seals_in_old_form();
    let header = header.to_string();
    let protected = if old {
        header
    } else {
        URL_SAFE_NO_PAD.encode(header)
    };

    let cipher = UnboundKey::new(&AES_256_GCM, content_key.as_slice()).map_err(|_| "no cipher")?;
    let aad: &[u8] = if old { b"" } else { protected.as_bytes() };
    let mut text = plain;
    let tag = LessSafeKey::new(cipher)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(iv),
            Aad::from(aad),
            text.as_mut_slice(),
        )
        .map_err(|_| "it is too long")?;
    let (ciphertext, tag) = if old {
        (
            URL_SAFE_NO_PAD.encode([text.as_slice(), tag.as_ref()].concat()),
            String::new(),
        )
    } else {
        (
            URL_SAFE_NO_PAD.encode(text.as_slice()),
            URL_SAFE_NO_PAD.encode(tag.as_ref()),
        )
    };
    Ok(ordered(&[
        ("protected", json!(protected)),
        ("encrypted_key", json!(URL_SAFE_NO_PAD.encode(encrypted_key))),
        ("iv", json!(URL_SAFE_NO_PAD.encode(iv))),
        ("ciphertext", json!(ciphertext)),
        ("tag", json!(tag)),
    ]))
}

fn wrap(
    family: Family,
    version: ProtocolVersion,
    key: &TeePublicKey,
    content_key: &[u8; 32],
) -> Result<Wrapped, &'static str> {
    let old = version.seals_in_old_form();
    match key {
        TeePublicKey::Rsa { alg, n, e } => {
            let encrypted_key = match alg.as_str() {
                "RSA1_5" => rsa1_5(rsa(n, e)?, content_key)?,
                "RSA-OAEP-256" if !old => rsa_oaep(rsa(n, e)?, content_key)?,
                _ => return Err("its alg is not served"),
            };
            Ok(Wrapped {
                header: json!({"alg": alg, "enc": "A256GCM"}),
                encrypted_key,
            })
        }
        TeePublicKey::Ec { crv, alg, x, y } if !old && alg == "ECDH-ES+A256KW" => {
            let (algorithm, len) = match (crv.as_str(), family, version) {
                ("P-256", _, _) => (&ECDH_P256, 32),
                ("P-521", Family::Trustee, ProtocolVersion::V0_4_0) => (&ECDH_P521, 66),
                _ => return Err("its curve is not served"),
            };
            ecdh(algorithm, len, (crv, x, y), content_key)
        }
        TeePublicKey::Ec { .. } => Err("its alg is not served"),
    }
}

/// ECDH-ES+A256KW (RFC 7518, section 4.6) with a key of its own.
fn ecdh(
    algorithm: &'static agreement::Algorithm,
    len: usize,
    (crv, x, y): (&str, &str, &str),
    content_key: &[u8; 32],
) -> Result<Wrapped, &'static str> {
    let mut point = vec![0x04];
    for coordinate in [x, y] {
        let bytes = decode(coordinate)?;
        if bytes.len() != len {
            return Err("a coordinate is not of its curve's length");
        }
        point.extend_from_slice(&bytes);
    }
    let mine =
        EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).map_err(|_| "no random bytes")?;
    let public = mine.compute_public_key().map_err(|_| "no public key")?;
    let (epk_x, epk_y) = public
        .as_ref()
        .get(1..)
        .and_then(|point| point.split_at_checked(len))
        .ok_or("no public key")?;
    let header = json!({
        "alg": "ECDH-ES+A256KW",
        "enc": "A256GCM",
        "epk": {
            "crv": crv, "kty": "EC", "x": URL_SAFE_NO_PAD.encode(epk_x), "y": URL_SAFE_NO_PAD.encode(epk_y),
        },
    });
    let off = "its point is not on the curve";
    let peer = UnparsedPublicKey::new(algorithm, point);
    let encrypted_key = agreement::agree_ephemeral(mine, peer, off, |shared| {
        let kek = kek(shared);
        let mut wrapped = vec![0; 40];
        AesKek::new(&AES_256, kek.as_slice())
            .and_then(|kek| kek.wrap(content_key, &mut wrapped).map(|_| ()))
            .map_err(|_| "the content key cannot be wrapped")?;
        Ok(wrapped)
    })?;
    Ok(Wrapped {
        header,
        encrypted_key,
    })
}

/// The one round of Concat KDF (NIST SP 800-56A, RFC 7518 section 4.6.2) that 256 bits take.
fn kek(shared: &[u8]) -> Zeroizing<[u8; 32]> {
    let alg = b"ECDH-ES+A256KW";
    let mut input = Zeroizing::new(Vec::with_capacity(128));
    input.extend_from_slice(&[0, 0, 0, 1]);
    input.extend_from_slice(shared);
    input.extend_from_slice(&[0, 0, 0, 14]);
    input.extend_from_slice(alg);
    // No apu, no apv, 256 bits.
    input.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let mut kek = Zeroizing::new([0; 32]);
    kek.copy_from_slice(digest(&SHA256, &input).as_ref());
    kek
}

fn rsa(n: &str, e: &str) -> Result<PublicEncryptingKey, &'static str> {
    let (n, e) = (decode(n)?, decode(e)?);
    PublicKeyComponents { n, e }
        .try_into()
        .map_err(|_| "it is no RSA key of 2048 to 8192 bits")
}

fn rsa_oaep(key: PublicEncryptingKey, content_key: &[u8]) -> Result<Vec<u8>, &'static str> {
    let failed = |_| "it cannot be encrypted to";
    let key = OaepPublicEncryptingKey::new(key).map_err(failed)?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, content_key, &mut encrypted, None)
        .map_err(failed)?;
    Ok(encrypted)
}

fn rsa1_5(key: PublicEncryptingKey, content_key: &[u8]) -> Result<Vec<u8>, &'static str> {
    let failed = |_| "it cannot be encrypted to";
    let key = Pkcs1PublicEncryptingKey::new(key).map_err(failed)?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    key.encrypt(content_key, &mut encrypted).map_err(failed)?;
    Ok(encrypted)
}

fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "it is not base64url")
}
