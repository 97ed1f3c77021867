//! Canonical JSON (RFC 8785), and the digest that binds evidence to a handshake.

use aws_lc_rs::digest::{SHA384, digest};
use serde::Serialize;

use crate::evidence::ProtocolVersion;
use crate::messages::TeePublicKey;

/// Bytes of the report data: SHA-384.
pub const REPORT_DATA_LEN: usize = 48;

/// Canonical JSON: members sorted, nothing between the tokens. For messages of this crate alone.
pub(crate) fn to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).expect("the messages have string keys and no floats")
}

/// The runtime data that evidence is bound to, as canonical JSON.
///
/// `additional_evidence` is a member since 0.4.0, empty or not, as the very string that is sent.
#[must_use]
pub fn runtime_data(
    version: ProtocolVersion,
    nonce: &str,
    tee_pubkey: &TeePublicKey,
    additional_evidence: &str,
) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct RuntimeData<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        additional_evidence: Option<&'a str>,
        nonce: &'a str,
        tee_pubkey: &'a TeePublicKey,
    }
    to_vec(&RuntimeData {
        additional_evidence: (version >= ProtocolVersion::V0_4_0).then_some(additional_evidence),
        nonce,
        tee_pubkey,
    })
}

/// What evidence has to hold: SHA-384 of the [`runtime_data`].
///
/// The sample kind takes the 48 bytes as they are; TDX pads them with zeros to 64.
#[must_use]
pub fn report_data(
    version: ProtocolVersion,
    nonce: &str,
    tee_pubkey: &TeePublicKey,
    additional_evidence: &str,
) -> [u8; REPORT_DATA_LEN] {
    let runtime_data = runtime_data(version, nonce, tee_pubkey, additional_evidence);
    let mut report_data = [0; REPORT_DATA_LEN];
    report_data.copy_from_slice(digest(&SHA384, &runtime_data).as_ref());
    report_data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_data_of_each_version() {
        // Base64 and keys as a broker and a client sent them; digests by Python's hashlib.
        let nonce = "pk9CBgEO4+ZdCDFF/ufS2uub/ZA0zCDRgD4eNE6JES8=";
        let p256 = TeePublicKey::Ec {
            crv: "P-256".to_owned(),
            alg: "ECDH-ES+A256KW".to_owned(),
            x: "WWdX4h4JzRQMymnssCTYkQmozB7fGu4pKG1bzfzumyg".to_owned(),
            y: "-aZnTAuu1xp6IMdxUhbjpS9WjuLW5GvNMMw1bXYkcfU".to_owned(),
        };
        let json = r#"{"additional-evidence":"","nonce":"pk9CBgEO4+ZdCDFF/ufS2uub/ZA0zCDRgD4eNE6JES8=","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"WWdX4h4JzRQMymnssCTYkQmozB7fGu4pKG1bzfzumyg","y":"-aZnTAuu1xp6IMdxUhbjpS9WjuLW5GvNMMw1bXYkcfU"}}"#;
        let version = ProtocolVersion::V0_4_0;
        assert_eq!(
            String::from_utf8(runtime_data(version, nonce, &p256, "")).unwrap(),
            json
        );
        assert_eq!(
            hex(&report_data(version, nonce, &p256, "")),
            "66e71c2c4ff69aa628771e724ddf77e1f5a509da06bbbbc96671b807973f52b68049544434eb78654dcfe929c9d0aaed"
        );

        let json = json.replace(
            r#""additional-evidence":"""#,
            r#""additional-evidence":"{\"tpm\":1}""#,
        );
        assert_eq!(
            String::from_utf8(runtime_data(version, nonce, &p256, r#"{"tpm":1}"#)).unwrap(),
            json
        );
        assert_eq!(
            hex(&report_data(version, nonce, &p256, r#"{"tpm":1}"#)),
            "f94b28d3d82430e75f81fec3ee146fc0679cd3539858e5a7a71eb5fa74984ec329b080f6ff4e9cc13400331233b8c8d6"
        );

        let rsa = TeePublicKey::Rsa {
            alg: "RSA1_5".to_owned(),
            n: "lqos".to_owned(),
            e: "AQAB".to_owned(),
        };
        let json = r#"{"nonce":"bm9uY2U=","tee-pubkey":{"alg":"RSA1_5","e":"AQAB","kty":"RSA","n":"lqos"}}"#;
        for version in [
            ProtocolVersion::V0_1_0,
            ProtocolVersion::V0_1_1,
            ProtocolVersion::V0_2_0,
        ] {
            assert_eq!(
                String::from_utf8(runtime_data(version, "bm9uY2U=", &rsa, "")).unwrap(),
                json
            );
            assert_eq!(
                hex(&report_data(version, "bm9uY2U=", &rsa, "")),
                "7d45055b6f3b999cd803682564f1871db927f8e8e98f9e62e318c3e6a99beae87ca4c25bda9c76cc248bd7273aca4ac8"
            );
        }
    }

    #[test]
    fn a_nonce_is_escaped_as_rfc_8785_says() {
        let rsa = TeePublicKey::Rsa {
            alg: String::new(),
            n: String::new(),
            e: String::new(),
        };
        let data = runtime_data(
            ProtocolVersion::V0_1_0,
            "\"\\/\u{8}\n\u{1}\u{7f}\u{e9}\u{2028}",
            &rsa,
            "",
        );
        let text = String::from_utf8(data).unwrap();
        assert!(
            text.starts_with("{\"nonce\":\"\\\"\\\\/\\b\\n\\u0001\u{7f}\u{e9}\u{2028}\",\"tee-pubkey\":"),
            "{text}"
        );
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
