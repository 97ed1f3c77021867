//! Evidence of what this machine is (RFC 9334), to be judged by a broker's verifier.

use std::fmt;
use std::time::Instant;

use serde_json::Value;

use crate::error::Result;

mod configfs;
mod logs;
mod quote_service;
mod sample;
mod tdx;
mod tdx_guest;

pub use quote_service::QuoteService;
pub use sample::SampleEvidence;
pub use tdx::{EventLogPolicy, TdxEvidence};
pub use tdx_guest::ReportSource;

/// The versions of the KBS protocol that this crate speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// 0.1.0: Trustee up to 0.9, the openanolis fork up to 1.5.
    V0_1_0,
    /// 0.1.1: Trustee 0.10 and 0.11.
    V0_1_1,
    /// 0.2.0: Trustee 0.12 and 0.13.
    V0_2_0,
    /// 0.4.0: Trustee since 0.14, the openanolis fork since 1.6.
    V0_4_0,
}

/// What evidence is asked for.
#[derive(Clone, Copy, Debug)]
pub struct EvidenceRequest<'a> {
    /// Digest that the evidence is to be bound to: SHA-384 of the runtime data, 48 bytes.
    pub report_data: &'a [u8],
    /// The protocol that the evidence travels in; older ones want it in another shape.
    pub protocol: ProtocolVersion,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// A source of evidence.
pub trait EvidenceProvider: Send + Sync + fmt::Debug {
    /// The kind of TEE, as the protocol names it: `tdx`, `sample`.
    fn tee(&self) -> &'static str;

    /// Fresh evidence, in the shape that the broker's verifier for this kind of TEE parses.
    ///
    /// # Errors
    /// [`Error::Evidence`](crate::Error::Evidence) where there is none to be had.
    fn evidence(&self, request: &EvidenceRequest<'_>) -> Result<Value>;
}

/// Why an attempt at evidence failed.
#[derive(Debug)]
struct Trouble {
    what: String,
    source: Option<std::io::Error>,
    /// Whether another attempt may fare better.
    passing: bool,
}

impl Trouble {
    const fn lasting(what: String) -> Self {
        Self {
            what,
            source: None,
            passing: false,
        }
    }

    const fn passing(what: String) -> Self {
        Self {
            what,
            source: None,
            passing: true,
        }
    }
}
