//! The key that a broker seals resources to.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P521, UnparsedPublicKey};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey,
    PrivateDecryptingKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::messages::TeePublicKey;

/// How the broker encrypts the content key to a TEE key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TeeKeyKind {
    /// ECDH-ES+A256KW (RFC 7518, 4.6) on P-256. Every broker since 0.2.0 has it.
    #[default]
    P256,
    /// The same on P-521. Trustee has it since 0.17; the openanolis fork has not.
    P521,
    /// RSA-OAEP-256 (RFC 7518, 4.3) with 2048 bits. Every broker since 0.2.0 has it.
    RsaOaep256,
    /// RSA1_5 (RFC 7518, 4.2) with 2048 bits: all that brokers before 0.2.0 have. Not for any other.
    Rsa1_5,
}

impl TeeKeyKind {
    /// The JWE algorithm.
    #[must_use]
    pub const fn algorithm(self) -> &'static str {
        match self {
            Self::P256 | Self::P521 => "ECDH-ES+A256KW",
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::Rsa1_5 => "RSA1_5",
        }
    }
}

impl fmt::Display for TeeKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "p256",
            Self::P521 => "p521",
            Self::RsaOaep256 => "rsa-oaep-256",
            Self::Rsa1_5 => "rsa1_5",
        })
    }
}

impl FromStr for TeeKeyKind {
    type Err = Error;

    /// One to choose: RSA1_5 is what old brokers get without being chosen.
    fn from_str(name: &str) -> Result<Self> {
        [Self::P256, Self::P521, Self::RsaOaep256]
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or(Error::Config {
                what: "the kind of the TEE key is none of p256, p521 and rsa-oaep-256",
            })
    }
}

/// A private key of the TEE. AWS-LC holds it and wipes it when it is dropped.
pub struct TeeKey {
    private: Private,
    public: TeePublicKey,
}

enum Private {
    Ec(Curve, agreement::PrivateKey),
    RsaOaep256(OaepPrivateDecryptingKey),
    Rsa1_5(Pkcs1PrivateDecryptingKey),
}

/// A curve that TEE keys lie on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P521,
}

impl TeeKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`Error::TeeKey`] where AWS-LC makes none.
    pub fn generate(kind: TeeKeyKind) -> Result<Self> {
        let failed = |_| Error::TeeKey {
            what: "AWS-LC could not generate it",
        };
        match kind {
            TeeKeyKind::P256 => Self::ec(
                Curve::P256,
                agreement::PrivateKey::generate(&ECDH_P256).map_err(failed)?,
            ),
            TeeKeyKind::P521 => Self::ec(
                Curve::P521,
                agreement::PrivateKey::generate(&ECDH_P521).map_err(failed)?,
            ),
            TeeKeyKind::RsaOaep256 | TeeKeyKind::Rsa1_5 => Self::rsa(
                kind,
                PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(failed)?,
            ),
        }
    }

    /// A key from PEM: PKCS #8, or PKCS #1 as the attestation agent gives RSA keys. An RSA key is for
    /// RSA-OAEP-256, or for RSA1_5 where `rsa` says so; the text does not tell.
    ///
    /// # Errors
    /// [`Error::TeeKey`] where it holds no private key on P-256 or P-521 and none of RSA with 2048 bits, or one of
    /// RSA where `rsa` is no kind of that.
    pub fn from_pem(pem: &str, rsa: TeeKeyKind) -> Result<Self> {
        let (label, der) = decode_pem(pem).ok_or(Error::TeeKey {
            what: "it is no PEM of a private key",
        })?;
        if label == "RSA PRIVATE KEY" {
            return Self::rsa_from_pkcs8(rsa, &pkcs8_of_pkcs1(&der));
        }
        if let Ok(key) = agreement::PrivateKey::from_private_key_der(&ECDH_P256, &der) {
            return Self::ec(Curve::P256, key);
        }
        if let Ok(key) = agreement::PrivateKey::from_private_key_der(&ECDH_P521, &der) {
            return Self::ec(Curve::P521, key);
        }
        Self::rsa_from_pkcs8(rsa, &der)
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> &TeePublicKey {
        &self.public
    }

    /// How the broker encrypts to it.
    #[must_use]
    pub fn kind(&self) -> TeeKeyKind {
        match &self.private {
            Private::Ec(Curve::P256, _) => TeeKeyKind::P256,
            Private::Ec(Curve::P521, _) => TeeKeyKind::P521,
            Private::RsaOaep256(_) => TeeKeyKind::RsaOaep256,
            Private::Rsa1_5(_) => TeeKeyKind::Rsa1_5,
        }
    }

    /// The curve it lies on, if it does on one.
    pub(crate) fn curve(&self) -> Option<Curve> {
        match &self.private {
            Private::Ec(curve, _) => Some(*curve),
            Private::RsaOaep256(_) | Private::Rsa1_5(_) => None,
        }
    }

    /// Hands the secret shared with `peer`, an uncompressed point, to `derive`: the x coordinate at full length.
    pub(crate) fn agree<T>(
        &self,
        peer: &[u8],
        derive: impl FnOnce(&[u8]) -> Result<T, Unspecified>,
    ) -> Result<T, Unspecified> {
        match &self.private {
            // That the point lies on the curve is checked there.
            Private::Ec(curve, key) => agreement::agree(
                key,
                UnparsedPublicKey::new(curve.ecdh(), peer),
                Unspecified,
                derive,
            ),
            Private::RsaOaep256(_) | Private::Rsa1_5(_) => Err(Unspecified),
        }
    }

    /// Decrypts with RSA into `plain`, which has room for a whole modulus. Returns the plaintext's length.
    pub(crate) fn rsa_decrypt(&self, sealed: &[u8], plain: &mut [u8]) -> Result<usize, Unspecified> {
        match &self.private {
            Private::RsaOaep256(key) => Ok(key.decrypt(&OAEP_SHA256_MGF1SHA256, sealed, plain, None)?.len()),
            Private::Rsa1_5(key) => Ok(key.decrypt(sealed, plain)?.len()),
            Private::Ec(..) => Err(Unspecified),
        }
    }

    fn ec(curve: Curve, key: agreement::PrivateKey) -> Result<Self> {
        let public = key.compute_public_key().map_err(|_| Error::TeeKey {
            what: "it has no public half",
        })?;
        // 0x04, x, y (SEC 1, 2.3.3)
        let (x, y) = public.as_ref()[1..].split_at(curve.coordinate_len());
        let public = TeePublicKey::Ec {
            crv: curve.name().to_owned(),
            alg: TeeKeyKind::P256.algorithm().to_owned(),
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        };
        Ok(Self {
            private: Private::Ec(curve, key),
            public,
        })
    }

    fn rsa_from_pkcs8(kind: TeeKeyKind, der: &[u8]) -> Result<Self> {
        let key = PrivateDecryptingKey::from_pkcs8(der).map_err(|_| Error::TeeKey {
            what: "it is neither on P-256 nor on P-521, nor of RSA",
        })?;
        Self::rsa(kind, key)
    }

    fn rsa(kind: TeeKeyKind, key: PrivateDecryptingKey) -> Result<Self> {
        if !matches!(kind, TeeKeyKind::RsaOaep256 | TeeKeyKind::Rsa1_5) {
            return Err(Error::TeeKey {
                what: "it is of RSA, and a key on a curve was asked for",
            });
        }
        let unsuitable = || Error::TeeKey {
            what: "an RSA key must have 2048 bits and the exponent 65537",
        };
        let spki = key.public_key().as_der().map_err(|_| unsuitable())?;
        let modulus = spki
            .as_ref()
            .strip_prefix(&SPKI_RSA_2048)
            .and_then(|rest| rest.strip_suffix(&SPKI_65537))
            .ok_or_else(unsuitable)?;
        let public = TeePublicKey::Rsa {
            alg: kind.algorithm().to_owned(),
            n: URL_SAFE_NO_PAD.encode(modulus),
            e: "AQAB".to_owned(),
        };
        let private = if kind == TeeKeyKind::Rsa1_5 {
            Pkcs1PrivateDecryptingKey::new(key).map(Private::Rsa1_5)
        } else {
            OaepPrivateDecryptingKey::new(key).map(Private::RsaOaep256)
        };
        Ok(Self {
            private: private.map_err(|_| unsuitable())?,
            public,
        })
    }
}

impl fmt::Debug for TeeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeeKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl Curve {
    /// As JSON Web Keys name it (RFC 7518, 6.2.1.1).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    pub(crate) const fn coordinate_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P521 => 66,
        }
    }

    const fn ecdh(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &ECDH_P256,
            Self::P521 => &ECDH_P521,
        }
    }
}

/// SubjectPublicKeyInfo of RSA with 2048 bits (RFC 8017, A.1), up to the modulus.
const SPKI_RSA_2048: [u8; 33] = [
    0x30, 0x82, 0x01, 0x22, // SubjectPublicKeyInfo
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
    0x00, // rsaEncryption, NULL
    0x03, 0x82, 0x01, 0x0f, 0x00, // BIT STRING
    0x30, 0x82, 0x01, 0x0a, // RSAPublicKey
    0x02, 0x82, 0x01, 0x01, 0x00, // modulus; its first bit is set
];
/// And from there on: the exponent.
const SPKI_65537: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// PKCS #8 around an RSA key of PKCS #1 (RFC 5208, 5).
fn pkcs8_of_pkcs1(pkcs1: &[u8]) -> Zeroizing<Vec<u8>> {
    const VERSION_AND_ALGORITHM: [u8; 18] = [
        0x02, 0x01, 0x00, // version 0
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    // Lengths of two bytes: what is shorter or longer is no key of 2048 bits, and refused when it is parsed.
    let header = |tag: u8, len: usize| {
        let len = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        [tag, 0x82, len[0], len[1]]
    };
    let inner = VERSION_AND_ALGORITHM.len() + 4 + pkcs1.len();
    let mut pkcs8 = Zeroizing::new(Vec::with_capacity(4 + inner));
    pkcs8.extend_from_slice(&header(0x30, inner));
    pkcs8.extend_from_slice(&VERSION_AND_ALGORITHM);
    pkcs8.extend_from_slice(&header(0x04, pkcs1.len()));
    pkcs8.extend_from_slice(pkcs1);
    pkcs8
}

/// The label and the content of the first PEM block (RFC 7468), where that is some private key.
pub(crate) fn decode_pem(pem: &str) -> Option<(&str, Zeroizing<Vec<u8>>)> {
    let (label, rest) = pem.split_once("-----BEGIN ")?.1.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    if !label.ends_with("PRIVATE KEY") {
        return None;
    }
    let mut digits = Zeroizing::new(Vec::with_capacity(body.len()));
    digits.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; digits.len() / 4 * 3]);
    let len = STANDARD.decode_slice(&*digits, &mut der).ok()?;
    der.truncate(len);
    Some((label, der))
}
