//! Tokens (RFC 7515, RFC 7519): those that the broker issues to who attested, and those that administrators bring.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize as _;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Family;
use super::tls::pem;
use crate::error::{Error, Result};
use crate::messages::{ProtocolVersion, TeePublicKey};

/// How long a token is good after its end: for clocks that differ.
const LEEWAY: Duration = Duration::from_secs(60);

/// Name of the claim that says how a token came to be. There is none like it on real servers.
const MARK: &str = "dev-kbs";

/// Signs tokens with a key that lives as long as the broker.
pub(super) struct Issuer {
    key: EcdsaKeyPair,
    header: String,
    pub(super) lifetime: Duration,
}

/// What the broker found out about who attested.
pub(super) struct Appraisal<'a> {
    pub(super) family: Family,
    pub(super) version: ProtocolVersion,
    pub(super) tee: &'a str,
    /// What the evidence was bound to.
    pub(super) runtime: &'a Value,
    /// What the evidence says.
    pub(super) claims: Value,
}

/// What a token tells whoever serves a resource.
pub(super) struct Bearer {
    pub(super) version: ProtocolVersion,
    pub(super) tee: String,
    pub(super) key: TeePublicKey,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer(key hidden)")
    }
}

impl Issuer {
    pub(super) fn new(lifetime: Duration) -> Result<Self> {
        let failed = || Error::dev_kbs("no key for tokens can be made".to_owned());
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| failed())?;
        let point = key.public_key().as_ref();
        let (x, y) = point
            .get(1..)
            .and_then(|point| point.split_at_checked(32))
            .ok_or_else(failed)?;
        let header = json!({
            "typ": "JWT",
            "alg": "ES256",
            "jwk": {
                "kty": "EC", "crv": "P-256", "alg": "ES256",
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            },
        });
        Ok(Self {
            header: URL_SAFE_NO_PAD.encode(header.to_string()),
            key,
            lifetime,
        })
    }

    /// A token in the shape of the Entity Attestation Results that Trustee issues.
    pub(super) fn issue(&self, appraisal: Appraisal<'_>, now: SystemTime) -> Option<String> {
        let Appraisal {
            family,
            version,
            tee,
            runtime,
            claims,
        } = appraisal;
        let now = seconds(now);
        let mut evidence = json!({"runtime_data_claims": runtime});
        evidence[tee] = claims;
        let cpu = match (family, version) {
            (Family::Openanolis, ProtocolVersion::V0_1_0) => "cpu",
            _ => "cpu0",
        };
        let claims = json!({
            "eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
            "iss": "dev-kbs",
            "iat": now,
            "exp": now.saturating_add(self.lifetime.as_secs()),
            "ear.verifier-id": {"developer": "modelseal, for development only", "build": env!("CARGO_PKG_VERSION")},
            "submods": {cpu: {
                // There are no reference values to hold it against.
                "ear.status": "contraindicated",
                "ear.trustworthiness-vector": {},
                "ear.appraisal-policy-id": "none",
                "ear.veraison.annotated-evidence": evidence,
            }},
            MARK: {"protocol": version.as_str(), "tee": tee},
        });
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// Checks a token of this broker's.
    pub(super) fn verify(&self, token: &str, now: SystemTime) -> Result<Bearer, &'static str> {
        let (header, claims, verified) = split(token).ok_or("it is not a JWT")?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        if header.get("alg") != Some(&json!("ES256"))
            || !verified(&|message, signature| key.verify(message, signature).is_ok())
        {
            return Err("it was not signed by this broker");
        }
        if is_over(&claims, now).unwrap_or(true) {
            return Err("it has expired");
        }
        let mark = claims.get(MARK).ok_or("it is not of this broker")?;
        let member = |name| mark.get(name).and_then(Value::as_str);
        let version = member("protocol").and_then(|version| version.parse().ok());
        let key = ["cpu0", "cpu"].iter().find_map(|cpu| {
            let evidence = claims
                .get("submods")?
                .get(cpu)?
                .get("ear.veraison.annotated-evidence")?;
            TeePublicKey::deserialize(evidence.get("runtime_data_claims")?.get("tee-pubkey")?).ok()
        });
        match (version, member("tee"), key) {
            (Some(version), Some(tee), Some(key)) => Ok(Bearer {
                version,
                tee: tee.to_owned(),
                key,
            }),
            _ => Err("it names no key"),
        }
    }
}

/// What stands before the 32 bytes of an Ed25519 public key (RFC 8410, SubjectPublicKeyInfo).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Both halves of a new key for an administrator, in PEM.
pub(super) fn new_admin_key() -> Option<(Zeroizing<String>, String)> {
    let key = Ed25519KeyPair::generate().ok()?;
    let private = Zeroizing::new(pem("PRIVATE KEY", key.to_pkcs8v1().ok()?.as_ref()));
    let public = [&ED25519_SPKI, key.public_key().as_ref()].concat();
    Some((private, pem("PUBLIC KEY", &public)))
}

/// An administrator's public key.
#[derive(Clone)]
pub(super) struct Admin([u8; 32]);

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admin")
    }
}

impl Admin {
    /// From the PEM of an Ed25519 public key (RFC 8410).
    pub(super) fn from_pem(pem: &str) -> Result<Self> {
        let body: String = pem
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != "-----BEGIN PUBLIC KEY-----")
            .skip(1)
            .take_while(|line| *line != "-----END PUBLIC KEY-----")
            .collect();
        let der = STANDARD.decode(body).unwrap_or_default();
        der.strip_prefix(&ED25519_SPKI)
            .and_then(|key| key.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                Error::dev_kbs("the administrator's key is not a PEM Ed25519 public key".to_owned())
            })
    }

    /// Checks an administrator's token. Trustee wants an end and a role in it; the fork wants neither.
    pub(super) fn verify(&self, family: Family, token: &str, now: SystemTime) -> Result<(), &'static str> {
        let (header, claims, verified) = split(token).ok_or("the token is not a JWT")?;
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        if header.get("alg") != Some(&json!("EdDSA"))
            || !verified(&|message, signature| key.verify(message, signature).is_ok())
        {
            return Err("the token was not signed with the administrator's key");
        }
        let over = is_over(&claims, now);
        if over == Some(true) {
            return Err("the token has expired");
        }
        if family == Family::Trustee {
            if over.is_none() {
                return Err("the token has no exp");
            }
            if claims
                .get("role")
                .and_then(Value::as_str)
                .is_none_or(str::is_empty)
            {
                return Err("Missing required `role` claim in JWT");
            }
        }
        Ok(())
    }
}

/// What asks whether a signature over a message is good.
type Check<'a> = dyn Fn(&[u8], &[u8]) -> bool + 'a;

/// Header and claims of a token, and what lets a check see what was signed.
fn split(token: &str) -> Option<(Value, Value, impl Fn(&Check<'_>) -> bool + '_)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let parse = |part| serde_json::from_slice(&decode(part)?).ok();
    let signature = decode(signature)?;
    Some((parse(header)?, parse(claims)?, move |check: &Check<'_>| {
        check(signed.as_bytes(), &signature)
    }))
}

/// Whether a token's end has come, if it has one.
fn is_over(claims: &Value, now: SystemTime) -> Option<bool> {
    let end = claims.get("exp")?.as_u64()?;
    Some(seconds(now) > end.saturating_add(LEEWAY.as_secs()))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
