//! Licenses of packages.

use std::path::PathBuf;

use modelseal::command::{Settings, license_json};
use modelseal::sam::{self, IssuerKey, License, LicenseConfig};
use modelseal::{Info, add_license, read_license_file};
use pyo3::prelude::*;

use crate::error::{FormatError, raise, raise_package, warn};
use crate::key::GivenKey;
use crate::model::{Options, settings, sources, taken};
use crate::wait::abandonable;

/// Makes an issuer's key, in a new file. Returns its public half.
#[pyfunction]
pub(crate) fn generate_issuer_key(path: PathBuf) -> PyResult<String> {
    let name = path.to_string_lossy();
    let failed = raise_package(&name);
    let key = IssuerKey::generate().map_err(&failed)?;
    key.write_new(&path).map_err(failed)?;
    Ok(key.public().to_string())
}

/// Issues a further license for a package. Returns its text, as it is written to a file, and as JSON without what is
/// secret.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn issue_license(
    py: Python<'_>,
    location: PathBuf,
    key: &Bound<'_, PyAny>,
    new_key: Option<&Bound<'_, PyAny>>,
    issuer_key: PathBuf,
    key_id: Option<String>,
    config: Option<Vec<u8>>,
    scrypt_n: u8,
    add: bool,
    replace: bool,
    options: Options,
) -> PyResult<(String, String)> {
    let key = GivenKey::new(key)?;
    let new_key = new_key.map(GivenKey::new).transpose()?;
    let config = config.map(|json| LicenseConfig::parse(&json));
    let config = config.transpose().map_err(raise_package("license_config"))?;
    let settings: Settings = settings(&options)?;
    let opened = settings.open_options().map_err(raise)?;
    let (sources, warnings) = sources(&settings);
    let issued = py.detach(|| {
        let key = key.resolve(&sources, "Key", false)?;
        let new_key = match new_key {
            Some(new_key) => Some(new_key.resolve(&sources, "New key", true)?),
            None => None,
        };
        let license = modelseal::command::issue_license(
            &location,
            &key,
            new_key.as_ref().unwrap_or(&key),
            key_id.as_deref(),
            config,
            scrypt_n,
            &issuer_key,
            &opened,
        )?;
        if add {
            add_license(&location, &license, replace)?;
        }
        Ok(license)
    });
    let license = issued.map_err(raise)?;
    warn(py, taken(&warnings))?;
    Ok((license.as_str().to_owned(), license_json(&license).to_string()))
}

/// Adds the license in a file to a package. Returns it as JSON.
#[pyfunction]
#[pyo3(name = "add_license")]
pub(crate) fn add_license_file(
    py: Python<'_>,
    location: PathBuf,
    license: PathBuf,
    replace: bool,
) -> PyResult<String> {
    let name = license.to_string_lossy();
    let parsed = License::parse(&read_license_file(&license).map_err(raise)?);
    let parsed = parsed.map_err(raise_package(&name))?;
    py.detach(|| add_license(&location, &parsed, replace))
        .map_err(raise)?;
    Ok(license_json(&parsed).to_string())
}

/// Checks a license, or that of a package, without its key. Returns it as JSON.
#[pyfunction]
pub(crate) fn check_license(py: Python<'_>, location: PathBuf, options: Options) -> PyResult<String> {
    let options = settings(&options)?.open_options().map_err(raise)?;
    let license = abandonable(py, move || modelseal::check_license(&location, &options))?;
    Ok(license_json(&license.map_err(raise)?).to_string())
}

/// What a license says, or all of a package, as JSON.
#[pyfunction]
pub(crate) fn show_licenses(py: Python<'_>, location: PathBuf, options: Options) -> PyResult<Vec<String>> {
    let options = settings(&options)?.open_options().map_err(raise)?;
    if !modelseal::is_url(&location) && !location.is_dir() {
        let name = location.to_string_lossy();
        let license = License::parse(&read_license_file(&location).map_err(raise)?);
        let license = license.and_then(|license| license.check_signature(&[]).map(|()| license));
        return Ok(vec![
            license_json(&license.map_err(raise_package(&name))?).to_string(),
        ]);
    }
    let place = location.clone();
    let info = abandonable(py, move || modelseal::Model::inspect(&place, &options))?;
    match info.map_err(raise)? {
        Info::Package { licenses, .. } => Ok(licenses
            .iter()
            .map(|license| license_json(license).to_string())
            .collect()),
        _ => Err(FormatError::new_err(format!(
            "{} is a vault, which has no license",
            location.display()
        ))),
    }
}

/// The identity of this machine, as licenses name it.
#[pyfunction]
pub(crate) fn machine() -> PyResult<String> {
    sam::machine::this_machine().map_err(raise_package("this machine"))
}
