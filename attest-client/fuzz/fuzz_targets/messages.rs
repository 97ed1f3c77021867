//! Arbitrary JSON as each message that a broker sends or is sent: what parses is written and parsed again the same.
#![no_main]

use std::fmt::Debug;

use attest_client::messages::{
    AttestRequest, AttestResponse, AuthRequest, Challenge, ErrorInformation, Jwe, OldAttestRequest,
    TeePublicKey,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn same_again<T: DeserializeOwned + Serialize + PartialEq + Debug>(json: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(json) else {
        return;
    };
    let written = serde_json::to_vec(&message).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), message);
}

fuzz_target!(|json: &[u8]| {
    same_again::<AuthRequest>(json);
    same_again::<Challenge>(json);
    same_again::<AttestRequest>(json);
    same_again::<OldAttestRequest>(json);
    same_again::<TeePublicKey>(json);
    same_again::<Jwe>(json);
    same_again::<ErrorInformation>(json);
    if let Ok(information) = serde_json::from_slice::<ErrorInformation>(json) {
        assert!(
            information
                .name()
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric())
        );
    }
    if let Ok(response) = serde_json::from_slice::<AttestResponse>(json) {
        assert_eq!(format!("{response:?}"), "AttestResponse(token hidden)");
    }
});
