//! What an issuer chooses when it issues a license, and the bounds of that.

use crate::encoding::hex;
use crate::error::{Error, Result};
use crate::machine::{self, Measurement, Measurements};
use crate::time::LAST_SECOND;
use crate::wrap::LOG_N;

/// Shortest license ID in bytes.
pub const LICENSE_ID_MIN: usize = 8;
/// Longest license ID in bytes.
pub const LICENSE_ID_MAX: usize = 48;
/// Shortest name of a company in characters.
pub const COMPANY_MIN: usize = 4;
/// Longest name of a company in characters.
pub const COMPANY_MAX: usize = 8;
/// Longest extras in bytes.
pub const EXTRAS_MAX: usize = 256;
/// Most machines in one license.
pub const MACHINES_MAX: usize = 1024;
/// Most values of one TDX measurement.
pub const MEASUREMENTS_MAX: usize = 64;
/// Greatest serial.
pub const SERIAL_MAX: u64 = crate::canonical::MAX_INTEGER;

/// What an issuer chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The license's name: 8 to 48 of `[A-Za-z0-9_.-]`, the first not a dot.
    pub license_id: String,
    /// A number that the issuer counts up with every license, so that older ones can be refused.
    pub serial: u64,
    /// Who it is for, in 4 to 8 characters of printable ASCII.
    pub company: Option<String>,
    /// The first second in which it is valid, since 1970-01-01 UTC.
    pub valid_from: Option<u64>,
    /// The first second in which it no longer is.
    pub expires: Option<u64>,
    /// Identities of the machines that it is for; none for any machine.
    pub machines: Vec<String>,
    /// What the TD must be.
    pub tdx: Option<TdxTerms>,
    /// Up to 256 bytes for the caller.
    pub extras: Option<String>,
    /// Base-2 logarithm of scrypt's cost, 14 to 24.
    pub scrypt_log_n: u8,
}

/// The measurements that a TD must have: of each that is named, one of the values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TdxTerms {
    /// Whether the license is refused where there are no measurements.
    pub required: bool,
    /// Values of MRTD; none for any.
    pub mrtd: Vec<Measurement>,
    /// Values of RTMR0 to RTMR3; none for any.
    pub rtmr: [Vec<Measurement>; 4],
}

impl Terms {
    /// Base-2 logarithm of the cost that licenses get unless told otherwise: 64 MiB of memory.
    pub const DEFAULT_LOG_N: u8 = 16;

    /// Terms that allow everything, with serial 1.
    #[must_use]
    pub fn new(license_id: impl Into<String>) -> Self {
        Self {
            license_id: license_id.into(),
            serial: 1,
            company: None,
            valid_from: None,
            expires: None,
            machines: Vec::new(),
            tdx: None,
            extras: None,
            scrypt_log_n: Self::DEFAULT_LOG_N,
        }
    }

    /// Refuses what is out of its bounds. Nothing is cut to fit.
    ///
    /// # Errors
    /// [`Error::LicenseField`] and [`Error::ScryptCost`].
    pub fn check(&self) -> Result<()> {
        let bad = |field, what| Err(Error::LicenseField { field, what });
        if !is_license_id(&self.license_id) {
            return bad(
                "license_id",
                "must be 8 to 48 of A-Z a-z 0-9 _ . - and not begin with a dot",
            );
        }
        if self.serial > SERIAL_MAX {
            return bad("serial", "must be from 0 to 2^53 - 1");
        }
        if self
            .company
            .as_deref()
            .is_some_and(|company| !is_company(company))
        {
            return bad("company", "must be 4 to 8 characters of printable ASCII");
        }
        if self.valid_from.is_some_and(|time| time > LAST_SECOND) {
            return bad("valid_from", "must be from 1970 to 9999");
        }
        if self.expires.is_some_and(|time| time > LAST_SECOND) {
            return bad("expires", "must be from 1970 to 9999");
        }
        if let (Some(valid_from), Some(expires)) = (self.valid_from, self.expires)
            && valid_from >= expires
        {
            return bad("expires", "must be later than valid_from");
        }
        if self.machines.len() > MACHINES_MAX {
            return bad("machines", "must be at most 1024 identities");
        }
        if !self.machines.iter().all(|machine| machine::is_identity(machine)) {
            return bad(
                "machines",
                "must each be 8 to 128 characters of printable ASCII without spaces",
            );
        }
        if self
            .extras
            .as_deref()
            .is_some_and(|extras| extras.len() > EXTRAS_MAX)
        {
            return bad(
                "extras",
                "must be at most 256 bytes; longer ones are refused, not cut",
            );
        }
        if !LOG_N.contains(&self.scrypt_log_n) {
            return Err(Error::ScryptCost {
                log_n: self.scrypt_log_n,
            });
        }
        self.tdx.as_ref().map_or(Ok(()), TdxTerms::check_bounds)
    }
}

impl TdxTerms {
    /// The registers by name, with their values.
    pub(super) fn registers(&self) -> [(&'static str, &[Measurement]); 5] {
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &self.rtmr;
        [
            ("mrtd", &self.mrtd),
            ("rtmr0", rtmr0),
            ("rtmr1", rtmr1),
            ("rtmr2", rtmr2),
            ("rtmr3", rtmr3),
        ]
    }

    fn check_bounds(&self) -> Result<()> {
        let bad = |what| Err(Error::LicenseField { field: "tdx", what });
        let registers = self.registers();
        if registers.iter().all(|(_, values)| values.is_empty()) {
            return bad("must name at least one register");
        }
        if registers
            .iter()
            .any(|(_, values)| values.len() > MEASUREMENTS_MAX)
        {
            return bad("must have at most 64 values of each register");
        }
        Ok(())
    }

    /// Whether the TD is one of those that the license is for.
    pub(super) fn check(&self, measurements: Option<&Measurements>) -> Result<()> {
        let Some(measurements) = measurements else {
            return if self.required {
                Err(Error::LicenseTdxMissing)
            } else {
                Ok(())
            };
        };
        if measurements.debug {
            return Err(Error::LicenseTdxDebug);
        }
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &measurements.rtmr;
        let actual = [&measurements.mrtd, rtmr0, rtmr1, rtmr2, rtmr3];
        for ((register, values), actual) in self.registers().into_iter().zip(actual) {
            if !values.is_empty() && !values.contains(actual) {
                return Err(Error::LicenseTdx {
                    register,
                    value: hex(actual),
                });
            }
        }
        Ok(())
    }
}

/// Whether `text` can be a license ID.
#[must_use]
pub fn is_license_id(text: &str) -> bool {
    (LICENSE_ID_MIN..=LICENSE_ID_MAX).contains(&text.len())
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_company(text: &str) -> bool {
    (COMPANY_MIN..=COMPANY_MAX).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}
