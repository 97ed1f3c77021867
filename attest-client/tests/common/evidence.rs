//! Asking for evidence in tests.
#![allow(dead_code, clippy::unwrap_used)]

use std::error::Error as _;

use attest_client::{Error, EvidenceProvider, EvidenceRequest, ProtocolVersion, Quote, TdxEvidence};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What evidence is bound to.
pub(crate) const DIGEST: [u8; 48] = [0x5a; 48];

/// 48 bytes, padded as REPORTDATA is.
pub(crate) fn padded() -> [u8; 64] {
    let mut report_data = [0; 64];
    report_data[..48].copy_from_slice(&DIGEST);
    report_data
}

/// Evidence of a machine that has none of the real paths.
pub(crate) fn nowhere() -> TdxEvidence {
    TdxEvidence::new()
        .configfs_at("/nowhere/report")
        .device_at("/nowhere/tdx_guest")
        .quote_service_conf_at("/nowhere/tdx-attest.conf")
        .ccel_at("/nowhere/CCEL")
        .aael_at("/nowhere/eventlog")
}

pub(crate) fn ask(evidence: &TdxEvidence, protocol: ProtocolVersion) -> Result<Value, Error> {
    evidence.evidence(&EvidenceRequest {
        report_data: &DIGEST,
        protocol,
        deadline: None,
    })
}

pub(crate) fn evidence(evidence: &TdxEvidence) -> Result<Value, Error> {
    ask(evidence, ProtocolVersion::V0_4_0)
}

pub(crate) fn quote_in(evidence: &Value) -> Quote {
    Quote::parse(&STANDARD.decode(evidence["quote"].as_str().unwrap()).unwrap()).unwrap()
}

/// What an error says, with the system's reason behind.
pub(crate) fn text(error: &Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
