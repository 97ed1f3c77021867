//! `attest`.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;

use crate::attest::event_log::EventLog;
use crate::attest::{
    Error, EvidenceProvider, EvidenceRequest, MeasurementLog, ProtocolVersion, Quote, RuntimeMeasurement,
    SampleEvidence,
};
use crate::{EvidenceKind, KeySources};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::command::args::{Attest, Global};
use crate::command::console::{self, Console};
use crate::command::exit::{Exit, Failure};
use crate::command::keys::deliver;

pub(crate) fn attest(command: &Attest, global: &Global, console: &Console) -> Result<Exit, Failure> {
    if command.extend {
        measure(command, console)?;
    }
    let shown = Shown::fetch(global.evidence(), console.sources(), &command.report_data.0)?;
    if let Some(path) = &command.output {
        let quote = shown
            .quote
            .as_ref()
            .ok_or_else(|| Failure::usage("there is no quote in sample evidence"))?;
        deliver(&quote.0, Some(path))?;
    }
    if global.json {
        console::print_json(&shown.json())?;
    } else {
        console::print(shown.text().as_bytes())?;
    }
    Ok(Exit::Success)
}

/// Extends RTMR3 with what is about to run.
fn measure(command: &Attest, console: &Console) -> Result<(), Failure> {
    let mut measurement = of_command(&command.command, &command.env);
    if let Some(path) = &command.license {
        let bytes = fs::read(path).map_err(|source| Failure::io(path, "reading", source))?;
        measurement = measurement.license(&bytes);
    }
    extend(&measurement, command.by_agent, console)
}

/// Extends RTMR3 with a command and variables of the environment.
#[cfg(target_os = "linux")]
pub(crate) fn measure_command(command: &[OsString], env: &[&str], console: &Console) -> Result<(), Failure> {
    extend(&of_command(command, env), false, console)
}

fn of_command(command: &[OsString], env: &[impl AsRef<str>]) -> RuntimeMeasurement {
    let measurement = RuntimeMeasurement::new(command);
    env.iter().fold(measurement, |measurement, name| {
        let name = name.as_ref();
        measurement.env(name, env::var_os(name))
    })
}

fn extend(measurement: &RuntimeMeasurement, by_agent: bool, console: &Console) -> Result<(), Failure> {
    let event = measurement.event()?;
    if by_agent {
        console.sources().guest()?.measure(&event)?;
    } else {
        MeasurementLog::new().extend(&event).map_err(offer_the_agent)?;
    }
    console.note(&format!("RTMR3 is extended with: {event}"));
    Ok(())
}

/// Where the kernel does not let us extend a register, attestation-agent may have another way.
fn offer_the_agent(error: Error) -> Failure {
    match error {
        Error::Measurement {
            what,
            source: Some(source),
        } if source.kind() == ErrorKind::NotFound => Error::Measurement {
            what: format!("{what}; where attestation-agent runs, --by-agent has it measure"),
            source: Some(source),
        }
        .into(),
        other => other.into(),
    }
}

/// The evidence that this machine has for a key broker, as `modelseal attest --json` prints it.
///
/// # Errors
/// Where there is none, or it is not as it must be.
pub fn evidence_json(
    kind: EvidenceKind,
    sources: &KeySources,
    report_data: &[u8],
) -> crate::attest::Result<Value> {
    Ok(Shown::fetch(kind, sources, report_data)?.json())
}

/// Evidence, taken apart.
struct Shown {
    tee: &'static str,
    evidence: Value,
    quote: Option<(Vec<u8>, Quote)>,
    log: Option<EventLog>,
}

impl Shown {
    fn fetch(kind: EvidenceKind, sources: &KeySources, report_data: &[u8]) -> crate::attest::Result<Self> {
        let request = EvidenceRequest {
            report_data,
            protocol: ProtocolVersion::V0_4_0,
            deadline: None,
        };
        let (tee, evidence) = match kind {
            EvidenceKind::Sample => ("sample", SampleEvidence.evidence(&request)?),
            EvidenceKind::Tdx => ("tdx", sources.tdx_evidence().evidence(&request)?),
        };
        Self::new(tee, evidence)
    }

    fn new(tee: &'static str, evidence: Value) -> crate::attest::Result<Self> {
        let decode = |member| STANDARD.decode(evidence.get(member)?.as_str()?).ok();
        let quote = match decode("quote") {
            Some(bytes) => {
                let quote = Quote::parse(&bytes)?;
                Some((bytes, quote))
            }
            None => None,
        };
        let log = decode("cc_eventlog")
            .map(|log| EventLog::parse(&log))
            .transpose()?;
        Ok(Self {
            tee,
            evidence,
            quote,
            log,
        })
    }

    /// Whether the log leads to each of RTMR0 to RTMR3.
    fn replay(&self) -> Option<[bool; 4]> {
        let (log, (_, quote)) = (self.log.as_ref()?, self.quote.as_ref()?);
        let (replayed, rtmr) = (log.replay(), quote.body.measurements.rtmr);
        Some([0, 1, 2, 3].map(|index| replayed[index] == rtmr[index]))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to memory does not fail.
        let Some((_, quote)) = &self.quote else {
            let _ = writeln!(
                text,
                "{} evidence, which proves nothing: {}",
                self.tee, self.evidence
            );
            return text;
        };
        let _ = write!(text, "{quote}");
        match (&self.log, self.replay()) {
            (Some(log), Some(replay)) => {
                let _ = writeln!(text, "event log      {} events", log.events().len());
                for (index, same) in replay.iter().enumerate() {
                    let said = if *same { "adds up to" } else { "DOES NOT add up to" };
                    let _ = writeln!(text, "               {said} RTMR{index}");
                }
                let _ = write!(text, "{log}");
            }
            _ => {
                let _ = writeln!(
                    text,
                    "event log      none; a broker cannot tell what the RTMRs stand for"
                );
            }
        }
        if quote.body.measurements.attributes.is_debug() {
            let _ = writeln!(text, "UNDER DEBUG: the host can read this machine's memory");
        }
        text
    }

    fn json(&self) -> Value {
        let mut all = json!({"tee": self.tee, "evidence": self.evidence});
        if let Some((_, quote)) = &self.quote {
            let body = &quote.body;
            let measurements = &body.measurements;
            all["quote"] = json!({
                "version": quote.header.version,
                "tee_tcb_svn": hex(&body.tee_tcb_svn),
                "mrseam": hex(&body.mrseam),
                "mrsignerseam": hex(&body.mrsignerseam),
                "attributes": format!("{:#018x}", measurements.attributes.bits()),
                "debug": measurements.attributes.is_debug(),
                "xfam": format!("{:#018x}", measurements.xfam),
                "mrtd": hex(&measurements.mrtd),
                "mrconfigid": hex(&measurements.mrconfigid),
                "mrowner": hex(&measurements.mrowner),
                "mrownerconfig": hex(&measurements.mrownerconfig),
                "rtmr": measurements.rtmr.iter().map(|rtmr| hex(rtmr)).collect::<Vec<_>>(),
                "report_data": hex(&body.report_data),
                "certification_type": quote.signature.as_ref().map(|signature| signature.certification.kind),
            });
        }
        if let (Some(log), Some(replay)) = (&self.log, self.replay()) {
            let events: Vec<_> = log.events().iter().map(ToString::to_string).collect();
            all["event_log"] = json!({"adds_up": replay, "events": events});
        }
        all
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TDX evidence with a quote by nobody.
    fn evidence(attributes: u8, rtmr: [u8; 48], log: Option<&EventLog>) -> Value {
        let mut quote = vec![0; 48 + 584 + 4];
        (quote[0], quote[2], quote[4]) = (4, 3, 0x81);
        quote[48 + 120] = attributes;
        quote[48 + 136..48 + 184].fill(0xab);
        quote[376 + 48..376 + 96].copy_from_slice(&rtmr);
        json!({
            "quote": STANDARD.encode(quote),
            "cc_eventlog": log.map(|log| STANDARD.encode(log.to_bytes())),
        })
    }

    #[test]
    fn evidence_is_shown_with_what_its_log_comes_to() {
        let shown = Shown::new("tdx", evidence(0, [0; 48], None)).unwrap();
        let text = shown.text();
        for part in [
            &format!("MRTD           {}", "ab".repeat(48)),
            "event log      none",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("DEBUG"), "{text}");
        assert_eq!(shown.json()["quote"]["mrtd"], "ab".repeat(48));
        assert!(shown.json().get("event_log").is_none());

        let log = EventLog::empty();
        let shown = Shown::new("tdx", evidence(1, [7; 48], Some(&log))).unwrap();
        let text = shown.text();
        for part in ["adds up to RTMR0\n", "DOES NOT add up to RTMR1\n", "UNDER DEBUG"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(
            shown.json()["event_log"]["adds_up"],
            json!([true, false, true, true])
        );
        assert_eq!(shown.json()["quote"]["debug"], true);

        Shown::new("tdx", json!({"quote": "AAAA"})).err().unwrap();
        let shown = Shown::new("sample", json!({"svn": "1"})).unwrap();
        assert!(shown.text().contains("proves nothing"), "{}", shown.text());
    }
}
