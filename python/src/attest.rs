//! Evidence, and what brokers have.

use modelseal::KeyRef;
use modelseal::command::evidence_json;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{raise, raise_attest, warn};
use crate::model::{Options, settings, sources, taken};
use crate::wait::abandonable;

/// The evidence that this machine has for a key broker, taken apart, as JSON.
#[pyfunction]
pub(crate) fn evidence(py: Python<'_>, report_data: &[u8], options: Options) -> PyResult<String> {
    if !(1..=64).contains(&report_data.len()) {
        return Err(PyValueError::new_err("report data has 1 to 64 bytes"));
    }
    let data = report_data.to_vec();
    let settings = settings(&options)?;
    let kind = settings.evidence();
    let (sources, warnings) = sources(&settings);
    let json = abandonable(py, move || evidence_json(kind, &sources, &data))?;
    warn(py, taken(&warnings))?;
    Ok(json.map_err(raise_attest)?.to_string())
}

/// What the broker or the guest's own service has under a reference, as it is.
#[pyfunction]
pub(crate) fn get_resource<'py>(
    py: Python<'py>,
    reference: &str,
    options: Options,
) -> PyResult<Bound<'py, PyBytes>> {
    let reference: KeyRef = reference.parse().map_err(raise)?;
    let settings = settings(&options)?;
    let (sources, warnings) = sources(&settings);
    let resource = abandonable(py, move || reference.resource(&sources))?;
    warn(py, taken(&warnings))?;
    Ok(PyBytes::new(py, &resource.map_err(raise)?))
}
