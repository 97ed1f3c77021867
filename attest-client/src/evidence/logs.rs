//! The event logs as evidence carries them, held against the quote's RTMRs before they are sent.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::aael::{AaelFormat, replay_text};
use crate::event_log::{EventLog, RTMR_LEN};
use crate::lock::{self, Patience};

/// As much of a file as is read: firmware reserves 64 KiB to 1 MiB for its log, whatever it fills.
const FILE_MAX: u64 = 16 << 20;

/// What goes into evidence beside the quote.
#[derive(Debug, Default)]
pub(super) struct Logs {
    pub(super) cc_eventlog: Option<Vec<u8>>,
    /// For protocol 0.1.0 and 0.2.0 alone.
    pub(super) aa_eventlog: Option<String>,
}

type Rtmrs = [[u8; RTMR_LEN]; 4];

impl Logs {
    /// One log of the firmware's and attestation-agent's events, which all four RTMRs must follow from. Returns what is
    /// wrong beside it.
    pub(super) fn tcg2(
        ccel: &Path,
        aael: &Path,
        rtmr: &Rtmrs,
        patience: Patience<'_>,
    ) -> (Self, Option<String>) {
        let log = match tcg2_log(ccel, aael, rtmr, patience) {
            Ok(Some(log)) => log,
            Ok(None) => return (Self::default(), None),
            Err(problem) => return (Self::default(), Some(problem)),
        };
        let refused = log.refused_by_verifiers();
        let problem = refused.map(refusal).or_else(|| mismatch(&log, rtmr, 4));
        let logs = Self {
            cc_eventlog: Some(log.to_bytes()),
            aa_eventlog: None,
        };
        (logs, problem)
    }

    /// The firmware's log for RTMR0 to RTMR2, and attestation-agent's log of text for RTMR3. A log of records cannot be
    /// sent in this form; RTMR3 is not checked then.
    pub(super) fn old(
        ccel: &Path,
        aael: &Path,
        rtmr: &Rtmrs,
        patience: Patience<'_>,
    ) -> (Self, Option<String>) {
        let mut logs = Self::default();
        let mut problems = Vec::new();
        match firmware_log(ccel) {
            Ok(Some(log)) => {
                let refused = log.refused_by_old_verifiers();
                problems.extend(refused.map(refusal).or_else(|| mismatch(&log, rtmr, 3)));
                logs.cc_eventlog = Some(log.to_bytes());
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
        match agents_log(aael, patience) {
            Ok(Some(bytes)) if AaelFormat::of(&bytes) == Some(AaelFormat::Text) => {
                match String::from_utf8(bytes) {
                    Ok(text) => {
                        match replay_text(&text) {
                            Ok(register) if register == rtmr[3] => {}
                            Ok(_) => problems.push(format!("RTMR3 does not follow from {}", aael.display())),
                            Err(error) => problems.push(format!("{}: {error}", aael.display())),
                        }
                        logs.aa_eventlog = Some(text);
                    }
                    Err(_) => problems.push(format!("{} is not text", aael.display())),
                }
            }
            Ok(_) => {}
            Err(problem) => problems.push(problem),
        }
        (logs, (!problems.is_empty()).then(|| problems.join("; ")))
    }
}

fn tcg2_log(
    ccel: &Path,
    aael: &Path,
    rtmr: &Rtmrs,
    patience: Patience<'_>,
) -> Result<Option<EventLog>, String> {
    let firmware = firmware_log(ccel)?;
    let Some(records) = agents_log(aael, patience)? else {
        return Ok(firmware);
    };
    if AaelFormat::of(&records) == Some(AaelFormat::Text) {
        return Err(format!(
            "{} is in the form of text that only brokers of protocol 0.1.0 and 0.2.0 read",
            aael.display()
        ));
    }
    let mut log = firmware.unwrap_or_else(EventLog::empty);
    let least = log.events().len();
    log.append_records(&records)
        .map_err(|error| format!("{}: {error}", aael.display()))?;
    // Events that were measured after the quote was made are not part of what it says.
    if log.replay() != *rtmr {
        log.truncate_to(rtmr, least);
    }
    Ok(Some(log))
}

fn refusal(what: &str) -> String {
    format!("the event log {what}")
}

/// Which of the first `count` RTMRs the log does not lead to.
fn mismatch(log: &EventLog, rtmr: &Rtmrs, count: usize) -> Option<String> {
    let replayed = log.replay();
    let differ: Vec<String> = (0..count)
        .filter(|index| replayed[*index] != rtmr[*index])
        .map(|index| format!("RTMR{index}"))
        .collect();
    if differ.is_empty() {
        return None;
    }
    Some(format!(
        "{} of the quote does not follow from the event log: something was measured without an entry",
        differ.join(", ")
    ))
}

fn firmware_log(path: &Path) -> Result<Option<EventLog>, String> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    let log = EventLog::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(log))
}

/// attestation-agent's log, while no run of ours adds to it; none where it is empty.
fn agents_log(path: &Path, patience: Patience<'_>) -> Result<Option<Vec<u8>>, String> {
    // What a run of ours locks while it adds an entry. Where there are no locks there is none to wait for.
    let directory = path.parent().and_then(|directory| File::open(directory).ok());
    if let Some(directory) = &directory
        && let Err(error) = lock::shared(directory, patience)
        && error.kind() == io::ErrorKind::TimedOut
    {
        return Err(format!(
            "{} cannot be read: another process has kept its directory locked all the time",
            path.display()
        ));
    }
    Ok(read(path)?.filter(|bytes| !bytes.is_empty()))
}

/// The whole file, or none where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}
