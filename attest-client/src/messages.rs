//! What the KBS protocol's messages hold, version by version.
//!
//! The crate `kbs-types` defines them too, but pulls OpenSSL in and is of one protocol version a release.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroize;

use crate::error::{Error, Result};
pub use crate::evidence::ProtocolVersion;

impl ProtocolVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_1_0, Self::V0_1_1, Self::V0_2_0, Self::V0_4_0];

    /// As it is written in [`AuthRequest::version`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_1_1 => "0.1.1",
            Self::V0_2_0 => "0.2.0",
            Self::V0_4_0 => "0.4.0",
        }
    }

    /// Whether a broker of this version seals resources in the form of before RFC 7516, and to RSA keys with
    /// PKCS #1 v1.5 alone.
    #[must_use]
    pub fn seals_in_old_form(self) -> bool {
        self < Self::V0_2_0
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProtocolVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or(Error::Config {
                what: "a protocol version is one of 0.1.0, 0.1.1, 0.2.0 and 0.4.0",
            })
    }
}

/// `POST /kbs/v0/auth`. All members must be there, whatever they hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AuthRequest {
    /// The one version that the client will speak.
    pub version: String,
    /// The kind of TEE, such as `tdx`.
    pub tee: String,
    /// Up to 0.1.0 a string; any value later. The empty string serves every version.
    pub extra_params: Value,
}

/// The answer to an [`AuthRequest`], with the session's cookie beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Challenge {
    /// Goes into the runtime data as it is, whatever it holds.
    pub nonce: String,
    /// Empty for the kinds of TEE that this crate has evidence of.
    #[serde(default)]
    pub extra_params: Value,
}

/// The public half of a TEE key, as JSON Web Key (RFC 7517). No member beside these is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub enum TeePublicKey {
    /// On an elliptic curve.
    #[serde(rename = "EC")]
    Ec {
        /// `P-256` or `P-521`.
        crv: String,
        /// `ECDH-ES+A256KW`.
        alg: String,
        /// Coordinate, big endian at full length, in base64url without padding.
        x: String,
        /// The other.
        y: String,
    },
    /// RSA.
    #[serde(rename = "RSA")]
    Rsa {
        /// `RSA-OAEP-256`, or `RSA1_5`.
        alg: String,
        /// Modulus, big endian, in base64url without padding.
        n: String,
        /// Exponent, likewise.
        e: String,
    },
}

/// `POST /kbs/v0/attest` since 0.4.0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AttestRequest {
    /// What the evidence's launch configuration digest is the digest of.
    #[serde(default)]
    pub init_data: Option<InitData>,
    /// What the evidence is bound to.
    pub runtime_data: RuntimeData,
    /// The evidence.
    pub tee_evidence: CompositeEvidence,
}

/// The text that configured the guest at its launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitData {
    /// `toml`: brokers take no other.
    pub format: String,
    /// The text, as it is.
    pub body: String,
}

/// What evidence is bound to, as it is sent since 0.4.0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuntimeData {
    /// [`Challenge::nonce`].
    pub nonce: String,
    /// The key that resources shall be sealed to.
    pub tee_pubkey: TeePublicKey,
}

/// Evidence of the machine and of its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompositeEvidence {
    /// The machine's, in a shape of its kind.
    pub primary_evidence: Value,
    /// The devices', as JSON in a string, empty for none. It is hashed as this very string.
    #[serde(default)]
    pub additional_evidence: String,
}

/// `POST /kbs/v0/attest` up to 0.2.0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OldAttestRequest {
    /// The key that resources shall be sealed to.
    pub tee_pubkey: TeePublicKey,
    /// The evidence: in 0.1.0 as JSON in a string, later as it is.
    pub tee_evidence: Value,
}

/// The answer to either attest request.
#[derive(Serialize, Deserialize)]
pub struct AttestResponse {
    /// The attestation token, a JWT. It speaks for who holds it.
    pub token: String,
}

impl Drop for AttestResponse {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

impl fmt::Debug for AttestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttestResponse(token hidden)")
    }
}

/// The answer to `GET /kbs/v0/resource/...`: a JSON Web Encryption in the flattened form (RFC 7516, 7.2.2).
///
/// All members are base64url without padding, but for [`protected`](Self::protected) up to 0.1.1.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwe {
    /// The header. Up to 0.1.1 plain JSON and not authenticated.
    pub protected: String,
    /// The content key, encrypted to the TEE key.
    pub encrypted_key: String,
    /// Nonce of AES-256-GCM, 12 bytes.
    pub iv: String,
    /// The encrypted resource. Up to 0.1.1 with the tag at its end.
    pub ciphertext: String,
    /// The tag, 16 bytes. Empty up to 0.1.1.
    pub tag: String,
    /// More that was authenticated. Never seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<String>,
}

impl Drop for Jwe {
    fn drop(&mut self) {
        for member in [
            &mut self.encrypted_key,
            &mut self.iv,
            &mut self.ciphertext,
            &mut self.tag,
        ] {
            member.zeroize();
        }
    }
}

impl fmt::Debug for Jwe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwe")
            .field("protected", &self.protected)
            .finish_non_exhaustive()
    }
}

/// What a broker answers instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInformation {
    /// A URL that ends with the error's name; see [`name`](Self::name).
    #[serde(rename = "type")]
    pub error_type: String,
    /// For a person.
    #[serde(default)]
    pub detail: String,
}

impl ErrorInformation {
    /// What stands before the name.
    pub const TYPE_PREFIX: &'static str = "https://github.com/confidential-containers/kbs/errors/";

    /// The error's name, such as `PolicyDeny`: a word at the end of a path `.../errors/`, or empty where it is not.
    #[must_use]
    pub fn name(&self) -> &str {
        let mut segments = self.error_type.rsplit('/');
        let name = segments.next().unwrap_or_default();
        let is_name = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_name && segments.next() == Some("errors") {
            name
        } else {
            ""
        }
    }
}
