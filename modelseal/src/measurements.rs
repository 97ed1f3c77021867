//! What the TDX module says of this machine, for licenses that name measurements.

use sam_format::{Checks, MeasurementSource};

/// `checks` with the measurements of this machine where it has none of its own, asked for where a license names any.
pub(crate) fn with_measurements(checks: &Checks) -> Checks {
    let mut checks = checks.clone();
    if matches!(checks.measurements, MeasurementSource::None) {
        checks.measurements = local();
    }
    checks
}

#[cfg(not(feature = "attest"))]
const fn local() -> MeasurementSource {
    MeasurementSource::None
}

#[cfg(feature = "attest")]
const fn local() -> MeasurementSource {
    MeasurementSource::Ask(guest::measurements)
}

#[cfg(feature = "attest")]
mod guest {
    use std::fs;
    use std::path::Path;

    use attest_client::evidence::TdxEvidence;
    use sam_format::Measurements;
    use sam_format::machine::BoxError;

    const CPU_INFO: &str = "/proc/cpuinfo";
    const DEVICE: &str = "/dev/tdx_guest";

    /// None where this is no TD. A TD that does not tell its measurements is an error: they must not count as missing.
    pub(super) fn measurements() -> Result<Option<Measurements>, BoxError> {
        if !Path::new(DEVICE).exists() && !fs::read_to_string(CPU_INFO).is_ok_and(|info| is_td(&info)) {
            return Ok(None);
        }
        let local = TdxEvidence::new().local_measurements()?;
        Ok(Some(Measurements {
            mrtd: local.mrtd,
            rtmr: local.rtmr,
            debug: local.attributes.is_debug(),
        }))
    }

    /// Whether the processor says that this is a TD, whether or not there is a driver for it.
    fn is_td(info: &str) -> bool {
        let flags = info.lines().find(|line| line.starts_with("flags"));
        flags.is_some_and(|flags| flags.split_ascii_whitespace().any(|flag| flag == "tdx_guest"))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_processor_tells_a_td() {
            let info = |flags: &str| {
                format!("processor\t: 0\nmodel name\t: tdx_guest\nflags\t\t: fpu {flags} sha_ni\n\n")
            };
            assert!(is_td(&info("tdx_guest")));
            assert!(!is_td(&info("tdx_guest_not")));
            assert!(!is_td(&info("aes")));
            assert!(!is_td(""));
        }
    }
}
