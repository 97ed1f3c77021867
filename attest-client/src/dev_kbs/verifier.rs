//! Judges evidence: whether it is bound to the handshake, whether its parts agree, and, where it can, whether it is
//! genuine.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dcap_qvl::QuoteCollateralV3;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Family;
use crate::event_log::EventLog;
use crate::messages::InitData;
use crate::quote::Quote;

/// How quotes are judged.
#[derive(Debug, Default)]
pub(super) struct Verifier {
    /// What quotes are verified with.
    pub(super) collateral: Option<QuoteCollateralV3>,
    /// Whether quotes are taken on faith where there is none.
    pub(super) unverified: bool,
}

/// Evidence, and what it has to be bound to.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) family: Family,
    pub(super) tee: &'a str,
    pub(super) evidence: &'a Value,
    /// SHA-384 of the runtime data.
    pub(super) report_data: &'a [u8],
    pub(super) init_data: Option<&'a InitData>,
}

/// What the evidence says, and what was not looked at.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) claims: Value,
    pub(super) unchecked: Vec<String>,
}

#[derive(Deserialize)]
struct Sample {
    svn: String,
    #[serde(default)]
    report_data: String,
    #[serde(default)]
    measure_register: String,
}

#[derive(Deserialize)]
struct Tdx {
    quote: String,
    #[serde(default)]
    cc_eventlog: Option<String>,
}

impl Verifier {
    pub(super) fn judge(&self, evidence: &Evidence<'_>, now: SystemTime) -> Result<Verdict, String> {
        let init_data = evidence.init_data.map(digest_of).transpose()?;
        match evidence.tee {
            "sample" => sample(evidence),
            "tdx" => self.tdx(evidence, init_data.as_deref(), now),
            other => Err(format!("there is no verifier for {other} here")),
        }
    }

    fn tdx(
        &self,
        evidence: &Evidence<'_>,
        init_data: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Verdict, String> {
        let tdx =
            Tdx::deserialize(evidence.evidence).map_err(|error| format!("not TDX evidence: {error}"))?;
        let raw = STANDARD
            .decode(&tdx.quote)
            .map_err(|_| "the quote is not base64")?;
        let quote = Quote::parse(&raw).map_err(|error| error.to_string())?;
        let mut unchecked = Vec::new();

        let status = match &self.collateral {
            Some(collateral) => {
                let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let report = dcap_qvl::verify::rustcrypto::verify(&raw, collateral, now)
                    .map_err(|error| format!("the quote is not genuine: {error:#}"))?;
                report.status.to_string()
            }
            None if self.unverified => {
                unchecked.push(
                    "the quote's signature: anyone can make up a quote that this broker believes".to_owned(),
                );
                "unverified".to_owned()
            }
            None => return Err("a quote is refused where there is no collateral to verify it with".into()),
        };
        let body = &quote.body;
        if !padded(evidence.report_data, &body.report_data) {
            return Err("the quote's REPORTDATA is not the digest of the runtime data".into());
        }
        if let Some(digest) = init_data
            && !padded(&digest[..digest.len().min(48)], &body.measurements.mrconfigid)
        {
            return Err("the quote's MRCONFIGID is not the digest of the init data".into());
        }
        match tdx.cc_eventlog.as_deref() {
            None => unchecked.push("the RTMRs: no event log came with the quote".to_owned()),
            Some("") if evidence.family == Family::Trustee => {
                unchecked.push("the RTMRs: no event log came with the quote".to_owned());
            }
            Some(log) => replay(log, &body.measurements.rtmr)?,
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let measurements = &body.measurements;
        Ok(Verdict {
            claims: json!({
                "tcb_status": status,
                "report_data": hex(&body.report_data),
                "mr_td": hex(&measurements.mrtd),
                "mr_config_id": hex(&measurements.mrconfigid),
                "rtmr": measurements.rtmr.iter().map(|rtmr| hex(rtmr)).collect::<Vec<_>>(),
            }),
            unchecked,
        })
    }
}

fn sample(evidence: &Evidence<'_>) -> Result<Verdict, String> {
    let sample =
        Sample::deserialize(evidence.evidence).map_err(|error| format!("not sample evidence: {error}"))?;
    if STANDARD.decode(&sample.report_data).ok().as_deref() != Some(evidence.report_data) {
        return Err("the report data is not the digest of the runtime data".into());
    }
    let register = &sample.measure_register;
    if evidence.family == Family::Openanolis
        && !(register.len() == 64 && register.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err("the measure register is not 64 hexadecimal digits".into());
    }
    Ok(Verdict {
        claims: json!({"svn": sample.svn, "report_data": sample.report_data}),
        unchecked: vec!["anything of who asks: sample evidence proves nothing".to_owned()],
    })
}

/// Whether `field` is `value` with zeros behind it.
fn padded(value: &[u8], field: &[u8]) -> bool {
    field
        .strip_prefix(value)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

/// The digest of init data by the algorithm that the text itself names, in a line before its first table.
fn digest_of(init_data: &InitData) -> Result<Vec<u8>, String> {
    if init_data.format != "toml" {
        return Err(format!(
            "init data of the format {} is not supported",
            init_data.format
        ));
    }
    let value = init_data
        .body
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.strip_prefix("algorithm")?.trim_start().strip_prefix('='))
        .ok_or("the init data names no algorithm")?;
    let algorithm = match value.trim().trim_matches(['"', '\'']) {
        "sha256" => &SHA256,
        "sha384" => &SHA384,
        "sha512" => &SHA512,
        _ => return Err("the init data's algorithm is not supported".into()),
    };
    Ok(digest::digest(algorithm, init_data.body.as_bytes())
        .as_ref()
        .to_vec())
}

/// Refuses an event log that does not add up to the quote's registers, or that real verifiers cannot read.
fn replay(log: &str, rtmr: &[[u8; 48]; 4]) -> Result<(), String> {
    let bytes = STANDARD.decode(log).map_err(|_| "the event log is not base64")?;
    let log = EventLog::parse(&bytes).map_err(|error| error.to_string())?;
    if let Some(why) = log.refused_by_verifiers() {
        return Err(format!("the event log {why}"));
    }
    let replayed = log.replay();
    let differs = replayed
        .iter()
        .zip(rtmr)
        .position(|(replayed, rtmr)| replayed != rtmr);
    differs.map_or(Ok(()), |index| {
        Err(format!(
            "the event log does not add up to the quote's RTMR{index}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A quote of a real machine, its collateral, and a time at which that was fresh: 15 October 2026.
    const QUOTE: &[u8] = include_bytes!("../../tests/vectors/tdx_quote_v5_ex.bin");
    const COLLATERAL: &[u8] = include_bytes!("../../tests/vectors/tdx_quote_v5_ex_collateral.json");
    const FRESH: u64 = 1_792_022_400;

    fn judge(quote: &[u8], at: u64) -> Result<Verdict, String> {
        let verifier = Verifier {
            collateral: Some(serde_json::from_slice(COLLATERAL).unwrap()),
            unverified: false,
        };
        let report_data = Quote::parse(QUOTE).unwrap().body.report_data;
        let evidence = Evidence {
            family: Family::Trustee,
            tee: "tdx",
            evidence: &json!({"quote": STANDARD.encode(quote)}),
            report_data: &report_data,
            init_data: None,
        };
        verifier.judge(&evidence, UNIX_EPOCH + Duration::from_secs(at))
    }

    #[test]
    fn a_genuine_quote_is_told_from_others() {
        let verdict = judge(QUOTE, FRESH).unwrap();
        assert_ne!(verdict.claims["tcb_status"], "unverified");
        assert!(
            verdict.unchecked.iter().all(|what| what.contains("RTMR")),
            "{:?}",
            verdict.unchecked
        );
        // MRTD, RTMR3, and the signature behind the body of 885 bytes.
        for offset in [54 + 136, 54 + 472, 54 + 885 + 4 + 10] {
            let mut forged = QUOTE.to_vec();
            forged[offset] ^= 1;
            let refused = judge(&forged, FRESH).unwrap_err();
            assert!(refused.contains("not genuine"), "{offset}: {refused}");
        }
        let stale = judge(QUOTE, FRESH + 365 * 24 * 3600).unwrap_err();
        assert!(stale.contains("not genuine"), "{stale}");
    }
}
