//! Opening what a broker sealed (RFC 7516), in the forms that brokers of each version send.
//!
//! | version | `alg` | header | additional data | tag |
//! | --- | --- | --- | --- | --- |
//! | 0.1.x | `RSA1_5` | plain JSON | none | end of the ciphertext |
//! | 0.2.0, 0.4.0 | `ECDH-ES+A256KW`, `RSA-OAEP-256` | base64url | `protected` as received | a member |
//!
//! `enc` is `A256GCM` in all of them. Which form is expected follows from the version that was agreed on, and the
//! algorithm from the key: what is received chooses neither.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap as _};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::evidence::ProtocolVersion;
use crate::messages::Jwe;
use crate::tee_key::TeeKey;

/// Bytes of a content key.
const CEK_LEN: usize = 32;
/// Bytes of a wrapped content key (RFC 3394).
const WRAPPED_LEN: usize = CEK_LEN + 8;
/// Bytes that RSA decrypts to at most, with 2048 bits.
const RSA_LEN: usize = 256;

impl Jwe {
    /// Opens it with the key that it was sealed to.
    ///
    /// # Errors
    /// [`Error::Jwe`], whatever is wrong with it.
    pub fn open(&self, key: &TeeKey, version: ProtocolVersion) -> Result<Zeroizing<Vec<u8>>> {
        self.try_open(key, version).map_err(|Unspecified| Error::Jwe)
    }

    fn try_open(&self, key: &TeeKey, version: ProtocolVersion) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let old = version.seals_in_old_form();
        let header = if old {
            Header::parse(self.protected.as_bytes())?
        } else {
            Header::parse(&decode(&self.protected)?)?
        };
        header.check(key)?;

        let encrypted_key = decode(&self.encrypted_key)?;
        let iv: [u8; NONCE_LEN] = decode(&self.iv)?.as_slice().try_into().map_err(|_| Unspecified)?;
        let mut ciphertext = decode(&self.ciphertext)?;
        let tag = if old {
            if !self.tag.is_empty() {
                return Err(Unspecified);
            }
            let at = ciphertext.len().checked_sub(MAX_TAG_LEN).ok_or(Unspecified)?;
            ciphertext.split_off(at)
        } else {
            decode(&self.tag)?
        };
        if tag.len() != MAX_TAG_LEN {
            return Err(Unspecified);
        }
        let aad = match (old, &self.aad) {
            (true, None) => String::new(),
            (true, Some(_)) => return Err(Unspecified),
            (false, None) => self.protected.clone(),
            (false, Some(aad)) => format!("{}.{aad}", self.protected),
        };

        let cek = content_key(key, &header, &encrypted_key)?;
        let cek = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, cek.as_slice())?);
        let mut plain = Zeroizing::new(vec![0; ciphertext.len()]);
        cek.open_separate_gather(
            Nonce::assume_unique_for_key(iv),
            Aad::from(aad),
            &ciphertext,
            &tag,
            &mut plain,
        )?;
        Ok(plain)
    }
}

/// The protected header, as far as this crate understands one.
#[derive(Deserialize)]
struct Header {
    alg: String,
    enc: String,
    epk: Option<EphemeralKey>,
    // What would have to be understood if it were there, were it `null`.
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
    #[serde(default, deserialize_with = "is_there")]
    zip: bool,
    #[serde(default, deserialize_with = "is_there")]
    apu: bool,
    #[serde(default, deserialize_with = "is_there")]
    apv: bool,
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[derive(Deserialize)]
struct EphemeralKey {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

impl Header {
    fn parse(json: &[u8]) -> Result<Self, Unspecified> {
        serde_json::from_slice(json).map_err(|_| Unspecified)
    }

    fn check(&self, key: &TeeKey) -> Result<(), Unspecified> {
        let foreign = self.crit || self.zip || self.apu || self.apv;
        if foreign || self.alg != key.kind().algorithm() || self.enc != "A256GCM" {
            return Err(Unspecified);
        }
        Ok(())
    }
}

impl EphemeralKey {
    /// The point, uncompressed (SEC 1, 2.3.3).
    fn point(&self, key: &TeeKey) -> Result<Vec<u8>, Unspecified> {
        let curve = key.curve().ok_or(Unspecified)?;
        let (x, y) = (decode(&self.x)?, decode(&self.y)?);
        let len = curve.coordinate_len();
        if self.kty != "EC" || self.crv != curve.name() || x.len() != len || y.len() != len {
            return Err(Unspecified);
        }
        Ok([&[0x04], x.as_slice(), y.as_slice()].concat())
    }
}

/// The content key. Where it does not decrypt, or not to one, a random one takes its place (RFC 7516, 11.5): what
/// is wrong then shows as a wrong tag, as all else does, and not by itself.
fn content_key(
    key: &TeeKey,
    header: &Header,
    encrypted: &[u8],
) -> Result<Zeroizing<[u8; CEK_LEN]>, Unspecified> {
    let mut cek = Zeroizing::new([0; CEK_LEN]);
    let mut random = Zeroizing::new([0; CEK_LEN]);
    rand::fill(random.as_mut_slice())?;
    let found = if key.curve().is_some() {
        unwrap_agreed(key, header.epk.as_ref().ok_or(Unspecified)?, encrypted, &mut cek)
    } else {
        decrypt_rsa(key, encrypted, &mut cek)
    };
    if found.is_err() {
        *cek = *random;
    }
    Ok(cek)
}

fn decrypt_rsa(key: &TeeKey, encrypted: &[u8], cek: &mut [u8; CEK_LEN]) -> Result<(), Unspecified> {
    let mut plain = Zeroizing::new([0; RSA_LEN]);
    if key.rsa_decrypt(encrypted, plain.as_mut_slice())? != CEK_LEN {
        return Err(Unspecified);
    }
    cek.copy_from_slice(&plain[..CEK_LEN]);
    Ok(())
}

fn unwrap_agreed(
    key: &TeeKey,
    epk: &EphemeralKey,
    encrypted: &[u8],
    cek: &mut [u8; CEK_LEN],
) -> Result<(), Unspecified> {
    let encrypted: &[u8; WRAPPED_LEN] = encrypted.try_into().map_err(|_| Unspecified)?;
    let point = epk.point(key)?;
    key.agree(&point, |z| {
        let kek = concat_kdf(z, key.kind().algorithm());
        let kek = AesKek::new(&AES_256, kek.as_slice())?;
        kek.unwrap(encrypted, cek)?;
        Ok(())
    })
}

/// The one round of Concat KDF (NIST SP 800-56A; RFC 7518, 4.6.2) that 256 bits take, without party information.
fn concat_kdf(z: &[u8], algorithm: &str) -> Zeroizing<[u8; CEK_LEN]> {
    let len = u32::try_from(algorithm.len()).unwrap_or(u32::MAX);
    let mut context = Context::new(&SHA256);
    context.update(&1u32.to_be_bytes());
    context.update(z);
    context.update(&len.to_be_bytes());
    context.update(algorithm.as_bytes());
    context.update(&0u32.to_be_bytes());
    context.update(&0u32.to_be_bytes());
    context.update(&256u32.to_be_bytes());
    let mut kek = Zeroizing::new([0; CEK_LEN]);
    kek.copy_from_slice(context.finish().as_ref());
    kek
}

fn decode(base64url: &str) -> Result<Vec<u8>, Unspecified> {
    URL_SAFE_NO_PAD.decode(base64url).map_err(|_| Unspecified)
}
