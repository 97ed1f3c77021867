//! Arbitrary JSON as what a broker sealed, opened with a key of every kind at every version: an error or a
//! plaintext no longer than the ciphertext, and never a panic.
#![no_main]

use std::sync::LazyLock;

use attest_client::messages::Jwe;
use attest_client::{ProtocolVersion, TeeKey, TeeKeyKind};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Those that the seeds are sealed to.
static KEYS: LazyLock<Vec<TeeKey>> = LazyLock::new(|| {
    let recorded: Value =
        serde_json::from_str(include_str!("../../tests/vectors/kbs_jwe_vectors.json")).unwrap();
    let key = |name: &str, rsa| {
        let entry = recorded
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["name"] == name)
            .unwrap();
        TeeKey::from_pem(entry["tee_private_key_pem"].as_str().unwrap(), rsa).unwrap()
    };
    vec![
        key("get_p256", TeeKeyKind::RsaOaep256),
        key("get_p521", TeeKeyKind::RsaOaep256),
        key("get_rsa_oaep256", TeeKeyKind::RsaOaep256),
        // All RSA recordings have one key.
        key("get_rsa_oaep256", TeeKeyKind::Rsa1_5),
    ]
});

fuzz_target!(|json: &[u8]| {
    let Ok(jwe) = serde_json::from_slice::<Jwe>(json) else {
        return;
    };
    for key in KEYS.iter() {
        for version in ProtocolVersion::ALL {
            if let Ok(plain) = jwe.open(key, version) {
                assert!(plain.len() <= jwe.ciphertext.len());
            }
        }
    }
});
