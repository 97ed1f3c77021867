//! What a machine is: its identity, and the measurements of a TD (FORMAT.md, sections 6.3 and 6.4).

use std::fs;
use std::path::Path;

use chunk_cipher::kdf;

use crate::encoding::{from_hex, hex};
use crate::error::{Error, Result};

/// Shortest identity in bytes.
pub const IDENTITY_MIN: usize = 8;
/// Longest identity in bytes.
pub const IDENTITY_MAX: usize = 128;
/// Length of a measurement in bytes.
pub const MEASUREMENT_LEN: usize = 48;

const MACHINE_ID: &str = "/etc/machine-id";
const INFO_IDENTITY: &[u8] = b"sam/1 machine identity";

/// A measurement of a TD: SHA-384.
pub type Measurement = [u8; MEASUREMENT_LEN];

/// What the TDX module says of the TD that this program runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurements {
    /// What was there when the TD was built.
    pub mrtd: Measurement,
    /// What was measured at run time, RTMR0 to RTMR3.
    pub rtmr: [Measurement; 4],
    /// Whether the host can look into the TD.
    pub debug: bool,
}

/// Where the measurements come from that a license may name.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::large_enum_variant)] // One for each opening.
pub enum MeasurementSource {
    /// There are none: this is no TD.
    #[default]
    None,
    /// They are these.
    Known(Measurements),
    /// They are asked for once a license names any: none where this is no TD, and whatever else keeps them from being
    /// had is an error.
    Ask(fn() -> std::result::Result<Option<Measurements>, BoxError>),
}

/// Why measurements cannot be had.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl MeasurementSource {
    pub(crate) fn get(&self) -> Result<Option<Measurements>> {
        match self {
            Self::None => Ok(None),
            Self::Known(measurements) => Ok(Some(*measurements)),
            Self::Ask(ask) => ask().map_err(|source| Error::LicenseTdxUnreadable { source }),
        }
    }
}

/// The identity of the machine that this program runs on, which does not show its machine ID.
///
/// # Errors
/// [`Error::MachineId`] where it has no machine-id(5).
pub fn this_machine() -> Result<String> {
    let unknown = |source| Error::MachineId {
        path: MACHINE_ID,
        source,
    };
    let text = fs::read_to_string(Path::new(MACHINE_ID)).map_err(|source| unknown(Some(source)))?;
    let id = parse_machine_id(&text).ok_or_else(|| unknown(None))?;
    identity(&id)
}

/// The identity of the machine with this machine-id(5).
///
/// # Errors
/// None in practice: those of HKDF.
pub fn identity(machine_id: &[u8; 16]) -> Result<String> {
    let mut hashed = [0; 16];
    kdf::hkdf_sha256(None, machine_id, INFO_IDENTITY, &mut hashed)?;
    Ok(format!("mid-{}", hex(&hashed)))
}

/// Whether `text` can be the identity of a machine.
#[must_use]
pub fn is_identity(text: &str) -> bool {
    (IDENTITY_MIN..=IDENTITY_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The ID in the content of a machine-id(5): none before it is set.
fn parse_machine_id(text: &str) -> Option<[u8; 16]> {
    let id = from_hex(text.strip_suffix('\n').unwrap_or(text))?;
    (id != [0; 16]).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4c4c4544005931108048b4c04f4d3732";

    #[test]
    fn machine_ids() {
        assert!(parse_machine_id(ID).is_some());
        assert_eq!(parse_machine_id(&format!("{ID}\n")), parse_machine_id(ID));
        for text in [
            "",
            "\n",
            "uninitialized\n",
            &ID.to_uppercase(),
            &ID[1..],
            &format!("{ID}\n\n"),
            &"0".repeat(32),
        ] {
            assert_eq!(parse_machine_id(text), None, "{text}");
        }
    }

    /// Computed with Python's `hmac` module.
    #[test]
    fn identities() -> Result<()> {
        let id = parse_machine_id(ID).expect("an ID");
        let identity = identity(&id)?;
        assert_eq!(identity, "mid-a3f7b0d3c597c9dd3598b7f8dfbe36ad");
        assert!(is_identity(&identity) && !identity.contains(&ID[..8]));
        for (text, valid) in [
            ("i-123456", true),
            ("i-12345", false),
            ("i- 23456", false),
            ("i-12345\u{e9}", false),
            ("i-12345\t", false),
            (&"x".repeat(128), true),
            (&"x".repeat(129), false),
        ] {
            assert_eq!(is_identity(text), valid, "{text}");
        }
        Ok(())
    }
}
