//! Evidence of an Intel TDX guest.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::logs::Logs;
use super::quote_service::QuoteService;
use super::tdx_guest::{Device, ReportSource};
use super::{EvidenceProvider, EvidenceRequest, ProtocolVersion, Trouble, configfs};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::lock::Patience;
use crate::quote::{Measurements, Quote};

/// How often a quote is asked for before giving up, and the pauses between: the first, and the longest.
const ATTEMPTS: u32 = 8;
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a quote is waited for where the caller sets no deadline.
const PATIENCE: Duration = Duration::from_secs(120);

/// What happens where the event log does not lead to the quote's RTMRs, or cannot be read. A verifier refuses such
/// evidence as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventLogPolicy {
    /// The log is left out, with a warning. This is what works where something extends RTMR3 and keeps no log of it; a
    /// broker whose policy needs the log refuses then.
    #[default]
    LeaveOut,
    /// The log is sent all the same, with a warning.
    Warn,
    /// No evidence is given.
    Fail,
}

impl fmt::Display for EventLogPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeaveOut => "leave-out",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

impl FromStr for EventLogPolicy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::LeaveOut, Self::Warn, Self::Fail]
            .into_iter()
            .find(|policy| policy.to_string() == name)
            .ok_or(Error::Config {
                what: "the policy of event logs is none of leave-out, warn and fail",
            })
    }
}

/// Evidence of the TDX guest that this runs in: a quote, and the event logs that explain its RTMRs.
///
/// A quote is asked for in this order:
/// 1. the kernel's configfs-tsm (Linux 6.7 and later);
/// 2. the host's quote generation service by vsock, with a TDREPORT from `/dev/tdx_guest`, where
///    `/etc/tdx-attest.conf` names its port, as Intel's library has it.
///
/// What comes back is parsed, and refused unless it carries the report data asked for: a stale quote, or one that was
/// made for somebody else, never leaves.
///
/// The paths can be moved in code only, for tests: by a flag, a file or an environment variable measurements could be
/// faked.
#[derive(Clone)]
pub struct TdxEvidence {
    configfs: PathBuf,
    report_source: Arc<dyn ReportSource>,
    device: PathBuf,
    service_conf: PathBuf,
    service: Option<QuoteService>,
    ccel: PathBuf,
    aael: PathBuf,
    policy: EventLogPolicy,
    warn: Arc<dyn Fn(&str) + Send + Sync>,
    clock: Arc<dyn Clock>,
}

impl Default for TdxEvidence {
    fn default() -> Self {
        Self::new()
    }
}

impl TdxEvidence {
    /// Evidence of this machine.
    #[must_use]
    pub fn new() -> Self {
        let device = PathBuf::from("/dev/tdx_guest");
        Self {
            configfs: "/sys/kernel/config/tsm/report".into(),
            report_source: Arc::new(Device(device.clone())),
            device,
            service_conf: "/etc/tdx-attest.conf".into(),
            service: None,
            ccel: crate::event_log::CCEL_PATH.into(),
            aael: crate::runtime_measurement::AAEL_PATH.into(),
            policy: EventLogPolicy::default(),
            warn: Arc::new(|text| log::warn!("{text}")),
            clock: Arc::new(SystemClock),
        }
    }

    /// What happens where the event log does not fit the quote.
    #[must_use]
    pub fn event_log_policy(mut self, policy: EventLogPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Is told what went wrong without stopping the evidence: a sentence without its end. Without this it is logged as a
    /// warning.
    #[must_use]
    pub fn on_warning(mut self, warn: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.warn = Arc::new(warn);
        self
    }

    /// Directory of the kernel's configfs-tsm, for tests.
    #[must_use]
    pub fn configfs_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.configfs = path.into();
        self
    }

    /// The guest driver's device, for tests.
    #[must_use]
    pub fn device_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.device = path.into();
        self.report_source = Arc::new(Device(self.device.clone()));
        self
    }

    /// Where TDREPORTs come from, for tests: in place of the device.
    #[must_use]
    pub fn reports_from(mut self, source: Arc<dyn ReportSource>) -> Self {
        self.report_source = source;
        self
    }

    /// The configuration that names the quote service's port, for tests.
    #[must_use]
    pub fn quote_service_conf_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.service_conf = path.into();
        self
    }

    /// The quote service, whatever the configuration says, for tests.
    #[must_use]
    pub fn quote_service(mut self, service: QuoteService) -> Self {
        self.service = Some(service);
        self
    }

    /// The firmware's event log, for tests.
    #[must_use]
    pub fn ccel_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.ccel = path.into();
        self
    }

    /// attestation-agent's event log, for tests. The agent's own variable `AAEL_PATH` is not read.
    #[must_use]
    pub fn aael_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.aael = path.into();
        self
    }

    /// The clock that retries and deadlines go by, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// A quote for the report data, as it came and parsed.
    ///
    /// A quote takes seconds. The deadline is looked at between attempts; the kernel itself waits up to 30 s for the
    /// host within one. Without a deadline it is two minutes.
    ///
    /// # Errors
    /// [`Error::Evidence`].
    pub fn quote(&self, report_data: &[u8; 64], deadline: Option<Instant>) -> Result<(Vec<u8>, Quote)> {
        let deadline = deadline.unwrap_or_else(|| self.clock.now() + PATIENCE);
        let mut troubles = Vec::new();
        if self.configfs.exists() {
            let attempt = || check(configfs::quote(&self.configfs, report_data)?, report_data);
            match self.persist(deadline, attempt) {
                Ok(quote) => return Ok(quote),
                Err(trouble) => troubles.push(trouble),
            }
        }
        match self.quote_from_service(report_data, deadline) {
            Ok(Some(quote)) => return Ok(quote),
            Ok(None) => {}
            Err(trouble) => troubles.push(trouble),
        }
        Err(no_quote(troubles, || self.absent()))
    }

    /// What this machine is and has been through, as it says itself: to compare with what a license allows, before any
    /// broker is asked. It is as honest as the machine's kernel.
    ///
    /// # Errors
    /// [`Error::Evidence`], also where the machine is no TDX guest.
    pub fn local_measurements(&self) -> Result<Measurements> {
        let mut nonce = [0; 64];
        rand::fill(&mut nonce).map_err(|_| Error::Evidence {
            tee: self.tee(),
            what: "the random generator failed".to_owned(),
            source: None,
        })?;
        match self.report_source.report(&nonce) {
            Ok(report) => {
                let (measurements, report_data) = Measurements::from_td_report(&report)?;
                if report_data != nonce {
                    return Err(Trouble::lasting(STALE.to_owned()).into_error());
                }
                Ok(measurements)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (_, quote) = self.quote(&nonce, None)?;
                Ok(quote.body.measurements)
            }
            Err(error) => Err(Trouble {
                what: format!("{} gives no TDREPORT; it takes root", self.device.display()),
                source: Some(error),
                passing: false,
            }
            .into_error()),
        }
    }

    /// Nothing where there is no service to ask.
    fn quote_from_service(
        &self,
        report_data: &[u8; 64],
        deadline: Instant,
    ) -> Result<Option<(Vec<u8>, Quote)>, Trouble> {
        let service = match &self.service {
            Some(service) => service.clone(),
            None => match QuoteService::configured(&self.service_conf)? {
                Some(service) => service,
                None => return Ok(None),
            },
        };
        let report = self.report_source.report(report_data).map_err(|source| Trouble {
            what: format!("{} gives no TDREPORT; it takes root", self.device.display()),
            source: Some(source),
            passing: false,
        })?;
        let quote = service.quote(&report, &*self.clock, deadline)?;
        check(quote, report_data).map(Some)
    }

    /// Tries again what may pass, a bounded number of times and with growing pauses.
    fn persist<T>(
        &self,
        deadline: Instant,
        mut attempt: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut pause = PAUSE_FIRST;
        let mut count = 1;
        loop {
            if self.clock.now() >= deadline {
                return Err(Trouble {
                    what: "the time for a quote is over".to_owned(),
                    source: Some(io::ErrorKind::TimedOut.into()),
                    passing: false,
                });
            }
            let trouble = match attempt() {
                Ok(done) => return Ok(done),
                Err(trouble) => trouble,
            };
            if !trouble.passing {
                return Err(trouble);
            }
            if count == ATTEMPTS || self.clock.now() + pause >= deadline {
                return Err(Trouble {
                    what: format!("{} (given up after {count} attempts)", trouble.what),
                    ..trouble
                });
            }
            self.clock.sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
            count += 1;
        }
    }

    fn absent(&self) -> String {
        format!(
            "this machine is no TDX guest, or its kernel has no driver: neither {} is there (Linux 6.7 and later, \
             configfs mounted, modprobe tdx_guest), nor a port in {} for the host's quote service with {}",
            self.configfs.display(),
            self.service_conf.display(),
            self.device.display()
        )
    }

    /// The event logs, as the policy has it.
    fn logs(&self, protocol: ProtocolVersion, quote: &Quote, until: Instant) -> Result<Logs> {
        let rtmr = &quote.body.measurements.rtmr;
        let patience = Patience {
            clock: &*self.clock,
            until,
        };
        let (logs, problem) = if protocol < ProtocolVersion::V0_4_0 {
            Logs::old(&self.ccel, &self.aael, rtmr, patience)
        } else {
            Logs::tcg2(&self.ccel, &self.aael, rtmr, patience)
        };
        let Some(problem) = problem else {
            return Ok(logs);
        };
        match self.policy {
            EventLogPolicy::Fail => Err(Trouble::lasting(problem).into_error()),
            EventLogPolicy::Warn => {
                (self.warn)(&problem);
                Ok(logs)
            }
            EventLogPolicy::LeaveOut => {
                (self.warn)(&format!("{problem}; it is left out"));
                Ok(Logs::default())
            }
        }
    }
}

impl EvidenceProvider for TdxEvidence {
    fn tee(&self) -> &'static str {
        "tdx"
    }

    fn evidence(&self, request: &EvidenceRequest<'_>) -> Result<Value> {
        let mut report_data = [0; 64];
        let padded = report_data.get_mut(..request.report_data.len());
        padded
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| Trouble::lasting("report data has 1 to 64 bytes".to_owned()).into_error())?
            .copy_from_slice(request.report_data);
        let deadline = request.deadline.unwrap_or_else(|| self.clock.now() + PATIENCE);
        let (bytes, quote) = self.quote(&report_data, Some(deadline))?;
        let logs = self.logs(request.protocol, &quote, deadline)?;
        let mut evidence = json!({
            "cc_eventlog": logs.cc_eventlog.map(|log| STANDARD.encode(log)),
            "quote": STANDARD.encode(bytes),
        });
        if request.protocol < ProtocolVersion::V0_4_0 {
            evidence["aa_eventlog"] = logs.aa_eventlog.into();
        }
        Ok(evidence)
    }
}

impl fmt::Debug for TdxEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TdxEvidence")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

const STALE: &str = "the quote that came back was made for other report data: it is stale or not ours";

/// A quote that parses and is bound to what was asked for.
fn check(bytes: Vec<u8>, report_data: &[u8; 64]) -> Result<(Vec<u8>, Quote), Trouble> {
    let quote = Quote::parse(&bytes).map_err(|error| Trouble::lasting(error.to_string()))?;
    if quote.body.report_data != *report_data {
        return Err(Trouble::passing(STALE.to_owned()));
    }
    Ok((bytes, quote))
}

/// What was tried, in one error.
fn no_quote(troubles: Vec<Trouble>, absent: impl FnOnce() -> String) -> Error {
    let joined = troubles.into_iter().reduce(|first, second| Trouble {
        what: match first.source {
            Some(source) => format!("{}: {source}; then {}", first.what, second.what),
            None => format!("{}; then {}", first.what, second.what),
        },
        ..second
    });
    joined.unwrap_or_else(|| Trouble::lasting(absent())).into_error()
}

impl Trouble {
    fn into_error(self) -> Error {
        Error::Evidence {
            tee: "tdx",
            what: self.what,
            source: self.source,
        }
    }
}
