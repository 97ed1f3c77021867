//! The example in PROTOCOL.md is what this crate makes and reads.
#![allow(clippy::unwrap_used)]

use attest_client::canonical::{report_data, runtime_data};
use attest_client::messages::{AttestRequest, Challenge, Jwe};
use attest_client::{ProtocolVersion, TeeKey, TeeKeyKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The block of the document that is called so.
fn block(name: &str) -> &'static str {
    let document = include_str!("../PROTOCOL.md");
    let (_, rest) = ["json", "text"]
        .iter()
        .find_map(|kind| document.split_once(&format!("```{kind} {name}\n")))
        .unwrap();
    rest.split_once("\n```").unwrap().0
}

#[test]
fn the_example_decodes() {
    let recorded: Value = serde_json::from_str(include_str!("vectors/kbs_jwe_vectors.json")).unwrap();
    let entry = recorded
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["name"] == "get_p256")
        .unwrap();
    let key = TeeKey::from_pem(
        entry["tee_private_key_pem"].as_str().unwrap(),
        TeeKeyKind::RsaOaep256,
    )
    .unwrap();
    let version = ProtocolVersion::V0_4_0;

    let challenge: Challenge = serde_json::from_str(block("challenge")).unwrap();
    let data = runtime_data(version, &challenge.nonce, key.public(), "");
    assert_eq!(str::from_utf8(&data).unwrap(), block("runtime-data"));
    let digest = report_data(version, &challenge.nonce, key.public(), "");
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, block("report-data"));

    let attest: AttestRequest = serde_json::from_str(block("attest")).unwrap();
    assert_eq!(attest.runtime_data.nonce, challenge.nonce);
    assert_eq!(&attest.runtime_data.tee_pubkey, key.public());
    assert_eq!(
        attest.tee_evidence.primary_evidence["report_data"],
        STANDARD.encode(digest)
    );
    let again: Value = serde_json::to_value(&attest).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(block("attest")).unwrap());

    let jwe: Jwe = serde_json::from_str(block("resource")).unwrap();
    let plain = jwe.open(&key, version).unwrap();
    assert_eq!(str::from_utf8(&plain).unwrap(), block("plaintext"));
}
