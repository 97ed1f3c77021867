//! The file in which an issuer writes down what a license shall be like.

use serde::Deserialize;

use super::{TdxTerms, Terms};
use crate::encoding::from_hex;
use crate::error::{Error, Result};
use crate::machine::Measurement;
use crate::time::parse_time;

/// What a license shall be like, as far as a JSON file says. All members are optional:
///
/// ```json
/// {
///   "license_id": "LD_Demo_0001",
///   "serial": 7,
///   "company": "ACME",
///   "valid_from": "2026-01-01T00:00:00+08:00",
///   "expires": "2027-01-01T00:00:00+08:00",
///   "machines": ["mid-a3f7b0d3c597c9dd3598b7f8dfbe36ad", "i-bp67acfmxazb4p"],
///   "tdx": {"required": true, "mrtd": ["<96 hexadecimal digits>"], "rtmr2": ["..."]},
///   "extras": "for the caller",
///   "scrypt_log_n": 16
/// }
/// ```
///
/// Times are those of RFC 3339, in any zone. `machine`, with one identity or none, can stand for `machines`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenseConfig {
    license_id: Option<String>,
    serial: Option<u64>,
    company: Option<String>,
    valid_from: Option<String>,
    expires: Option<String>,
    machine: Option<String>,
    machines: Option<Vec<String>>,
    tdx: Option<TdxConfig>,
    extras: Option<String>,
    scrypt_log_n: Option<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct TdxConfig {
    #[serde(default)]
    required: bool,
    #[serde(default)]
    mrtd: Vec<String>,
    #[serde(default)]
    rtmr0: Vec<String>,
    #[serde(default)]
    rtmr1: Vec<String>,
    #[serde(default)]
    rtmr2: Vec<String>,
    #[serde(default)]
    rtmr3: Vec<String>,
}

impl LicenseConfig {
    /// The longest configuration that is read, in bytes.
    pub const MAX_LEN: usize = 1 << 20;

    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Error::LicenseConfig`] where it is not JSON, or a member is unknown, of another kind, or there twice.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let bad = |what| Error::LicenseConfig { what };
        if content.len() > Self::MAX_LEN {
            return Err(bad(format!("it is longer than {} bytes", Self::MAX_LEN)));
        }
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        serde_json::from_slice(content).map_err(|error| bad(error.to_string()))
    }

    /// The terms: what the configuration says, and the rest of `defaults`.
    ///
    /// # Errors
    /// [`Error::LicenseField`] where something is out of its bounds.
    pub fn terms(&self, defaults: Terms) -> Result<Terms> {
        let machines = match (&self.machine, &self.machines) {
            (Some(_), Some(_)) => {
                return Err(Error::LicenseField {
                    field: "machine",
                    what: "must not be given along with machines",
                });
            }
            (Some(machine), None) if machine.is_empty() => Vec::new(),
            (Some(machine), None) => vec![machine.clone()],
            (None, Some(machines)) => machines.clone(),
            (None, None) => defaults.machines,
        };
        let terms = Terms {
            license_id: self.license_id.clone().unwrap_or(defaults.license_id),
            serial: self.serial.unwrap_or(defaults.serial),
            company: self.company.clone().or(defaults.company),
            valid_from: time("valid_from", self.valid_from.as_deref())?.or(defaults.valid_from),
            expires: time("expires", self.expires.as_deref())?.or(defaults.expires),
            machines,
            tdx: self
                .tdx
                .as_ref()
                .map(TdxConfig::terms)
                .transpose()?
                .or(defaults.tdx),
            extras: self.extras.clone().or(defaults.extras),
            scrypt_log_n: self.scrypt_log_n.unwrap_or(defaults.scrypt_log_n),
        };
        terms.check()?;
        Ok(terms)
    }

    /// Whether it says which serial the license shall have.
    #[must_use]
    pub const fn has_serial(&self) -> bool {
        self.serial.is_some()
    }
}

impl TdxConfig {
    fn terms(&self) -> Result<TdxTerms> {
        Ok(TdxTerms {
            required: self.required,
            mrtd: measurements(&self.mrtd)?,
            rtmr: [
                measurements(&self.rtmr0)?,
                measurements(&self.rtmr1)?,
                measurements(&self.rtmr2)?,
                measurements(&self.rtmr3)?,
            ],
        })
    }
}

fn time(field: &'static str, text: Option<&str>) -> Result<Option<u64>> {
    let time = text.map(parse_time).transpose();
    time.map_err(|what| Error::LicenseField { field, what })
}

fn measurements(values: &[String]) -> Result<Vec<Measurement>> {
    let values = values.iter().map(|value| from_hex(&value.to_ascii_lowercase()));
    values.collect::<Option<_>>().ok_or(Error::LicenseField {
        field: "tdx",
        what: "must have measurements of 96 hexadecimal digits",
    })
}
