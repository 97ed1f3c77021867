//! Evidence that proves nothing, for demos and tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{EvidenceProvider, EvidenceRequest};
use crate::error::{Error, Result};

/// The evidence kind `sample`: an unsigned JSON object with the report data in it. Whoever runs a broker that takes it
/// hands its keys to anybody.
///
/// It is used only where it is named; nothing in this crate falls back to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampleEvidence;

impl EvidenceProvider for SampleEvidence {
    fn tee(&self) -> &'static str {
        "sample"
    }

    /// One form for all brokers: upstream's verifier takes `svn` and `report_data` and ignores the rest, the openanolis
    /// fork's of 1.8 needs `measure_register` too, 32 bytes in hexadecimal. The event log is left out, which both take.
    fn evidence(&self, request: &EvidenceRequest<'_>) -> Result<Value> {
        if request.report_data.is_empty() || request.report_data.len() > 64 {
            return Err(Error::Evidence {
                tee: self.tee(),
                what: format!("report data has 1 to 64 bytes, not {}", request.report_data.len()),
                source: None,
            });
        }
        Ok(json!({
            "svn": "1",
            "report_data": STANDARD.encode(request.report_data),
            "measure_register": "0".repeat(64),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::ProtocolVersion;

    #[test]
    fn both_families_find_their_fields() {
        let evidence = |report_data: &[u8]| {
            SampleEvidence.evidence(&EvidenceRequest {
                report_data,
                protocol: ProtocolVersion::V0_4_0,
                deadline: None,
            })
        };
        let sample = evidence(&[0xfb; 48]).unwrap();
        assert_eq!(sample["svn"], "1");
        // Upstream compares the string with base64 of the 48 bytes: no padding to 64.
        assert_eq!(sample["report_data"], STANDARD.encode([0xfb; 48]));
        // The fork decodes hexadecimal digits and wants the length of SHA-256.
        let register = sample["measure_register"].as_str().unwrap();
        assert_eq!((register.len(), register.trim_matches('0')), (64, ""));
        assert_eq!(sample.as_object().unwrap().len(), 3);

        for len in [0, 65] {
            assert!(matches!(
                evidence(&vec![1; len]),
                Err(Error::Evidence { tee: "sample", .. })
            ));
        }
    }
}
