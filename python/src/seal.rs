//! Sealing and unsealing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use modelseal::command::SealSettings;
use modelseal::sam::{IssuerKey, LicenseConfig};
use modelseal::{Engine, Summary, UnsealOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::{raise, raise_package};
use crate::key::GivenKey;
use crate::model::{Model, Options, taken};
use crate::wait::{Meter, metered};

/// What was done, by name.
pub(crate) type Counts = Vec<(&'static str, u64)>;

/// Seals a directory. `how` has the options of `modelseal encrypt`, `options` those of keys of brokers; `config` is the JSON
/// of what a license shall be like.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn seal(
    py: Python<'_>,
    source: PathBuf,
    destination: PathBuf,
    key: &Bound<'_, PyAny>,
    how: Options,
    config: Option<Vec<u8>>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Counts> {
    let job = Job::new(key, &how, config)?;
    let sealed = job.run(py, progress, |key, options, meter| {
        modelseal::seal(&source, &destination, key, options, meter)
    })?;
    Ok(counts(&sealed))
}

/// Seals what a model holds anew; else as `seal`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn reseal(
    py: Python<'_>,
    model: &Model,
    destination: PathBuf,
    key: &Bound<'_, PyAny>,
    how: Options,
    config: Option<Vec<u8>>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Counts> {
    let job = Job::new(key, &how, config)?;
    let model = model.model();
    let sealed = job.run(py, progress, |key, options, meter| {
        modelseal::reseal(model, &destination, key, options, meter)
    })?;
    Ok(counts(&sealed))
}

pub(crate) struct Job {
    key: GivenKey,
    settings: SealSettings,
    config: Option<LicenseConfig>,
}

impl Job {
    pub(crate) fn new(key: &Bound<'_, PyAny>, how: &Options, config: Option<Vec<u8>>) -> PyResult<Self> {
        let how = how.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let config = config.map(|json| LicenseConfig::parse(&json));
        Ok(Self {
            key: GivenKey::new(key)?,
            settings: SealSettings::new(how).map_err(PyValueError::new_err)?,
            config: config.transpose().map_err(raise_package("license_config"))?,
        })
    }

    pub(crate) fn run<T: Send>(
        self,
        py: Python<'_>,
        progress: Option<&Bound<'_, PyAny>>,
        work: impl FnOnce(&modelseal::Key, &modelseal::SealOptions, &Meter) -> modelseal::Result<T> + Send,
    ) -> PyResult<T> {
        let done = metered(py, progress, |meter| {
            let options = self
                .settings
                .seal_options(self.config, &|text| meter.note(text))?;
            let key = new_key(self.key, &self.settings, meter, true)?;
            if let Some(weakness) = key.weakness() {
                meter.note(weakness);
            }
            work(&key, &options, meter)
        })?;
        done.map_err(raise)
    }
}

/// The key that something is sealed with. `confirm` has a person who is asked for it answer twice.
pub(crate) fn new_key(
    given: GivenKey,
    settings: &SealSettings,
    meter: &Meter,
    confirm: bool,
) -> modelseal::Result<modelseal::Key> {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&noted);
    let sources = settings.key_sources(move |warning| {
        if let Ok(mut heard) = heard.lock() {
            heard.push(warning.to_owned());
        }
    });
    let key = given.resolve(&sources, "New key", confirm)?;
    for warning in taken(&noted) {
        meter.note(&warning);
    }
    Ok(key)
}

/// Unseals a whole model into a directory.
#[pyfunction]
pub(crate) fn unseal(
    py: Python<'_>,
    model: &Model,
    destination: PathBuf,
    resume: bool,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Counts> {
    let model = model.model();
    let done = metered(py, progress, |meter| {
        modelseal::unseal(model, &destination, &UnsealOptions { resume }, meter)
    })?;
    Ok(counts(&done.map_err(raise)?))
}

/// Signs what a vault holds. Returns the number of entries.
#[pyfunction]
pub(crate) fn sign_manifest(
    py: Python<'_>,
    location: PathBuf,
    manifest: Option<PathBuf>,
    issuer_key: PathBuf,
    serial: u64,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<u64> {
    let issuer = IssuerKey::read(&issuer_key).map_err(raise_package(&issuer_key.to_string_lossy()))?;
    let manifest = manifest.unwrap_or_else(|| modelseal::default_manifest_path(&location));
    let signed = metered(py, progress, |meter| {
        modelseal::sign_vault(&location, &manifest, &issuer, serial, &Engine::default(), meter)
    })?;
    signed.map_err(raise)
}

pub(crate) fn counts(summary: &Summary) -> Counts {
    vec![
        ("files", summary.files),
        ("dirs", summary.dirs),
        ("symlinks", summary.symlinks),
        ("bytes", summary.bytes),
        ("kept", summary.kept),
        ("followed", summary.followed),
        ("strays", summary.strays),
    ]
}
