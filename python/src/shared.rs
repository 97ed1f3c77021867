//! Sealing by several processes.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use modelseal::command::SealSettings;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::raise;
use crate::key::GivenKey;
use crate::model::Options;
use crate::seal::{Counts, Job, counts, new_key};
use crate::wait::metered;

/// A model that several processes seal together: the one that begins and finishes it.
#[pyclass(frozen, module = "modelseal._modelseal")]
pub(crate) struct SharedSeal {
    shared: Mutex<Option<modelseal::SharedSeal>>,
}

impl SharedSeal {
    fn lock(&self) -> MutexGuard<'_, Option<modelseal::SharedSeal>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for the lock, or has it, who keeps others from Python meanwhile.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&modelseal::SharedSeal) -> modelseal::Result<T> + Send,
    ) -> PyResult<T> {
        let done = py.detach(|| self.lock().as_ref().map(work));
        done.ok_or_else(ended)?.map_err(raise)
    }
}

fn ended() -> PyErr {
    PyValueError::new_err("the sealing has ended")
}

#[pymethods]
impl SharedSeal {
    /// Starts or resumes it. Arguments as those of `seal`.
    #[staticmethod]
    fn begin(
        py: Python<'_>,
        source: PathBuf,
        destination: PathBuf,
        key: &Bound<'_, PyAny>,
        how: Options,
        config: Option<Vec<u8>>,
    ) -> PyResult<Self> {
        let job = Job::new(key, &how, config)?;
        let shared = job.run(py, None, |key, options, meter| {
            modelseal::SharedSeal::begin(&source, &destination, key, options, meter)
        })?;
        Ok(Self {
            shared: Mutex::new(Some(shared)),
        })
    }

    /// What lets other processes join in. Nothing in it is secret.
    #[getter]
    fn ticket(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |shared| Ok(shared.ticket().to_owned()))
    }

    /// All files, the longest first: their lengths, and what a member takes.
    fn tasks(&self, py: Python<'_>) -> PyResult<Vec<(u64, String)>> {
        self.with(py, |shared| {
            let tasks = shared.tasks().iter();
            Ok(tasks.map(|task| (task.len, task.text.clone())).collect())
        })
    }

    /// Takes what a member has answered. Returns whether the file is done; else its task is to be given out again.
    fn take(&self, py: Python<'_>, record: &str) -> PyResult<bool> {
        self.with(py, |shared| shared.take(record))
    }

    /// Makes the model complete.
    fn finish(&self, py: Python<'_>) -> PyResult<Counts> {
        let shared = py.detach(|| self.lock().take()).ok_or_else(ended)?;
        let done = metered(py, None, |meter| shared.finish(meter))?;
        Ok(counts(&done.map_err(raise)?))
    }

    /// Lets go of the destination; what is there can be gone on with.
    fn close(&self, py: Python<'_>) {
        py.detach(|| *self.lock() = None);
    }
}

/// A process that seals files of a model.
#[pyclass(frozen, module = "modelseal._modelseal")]
pub(crate) struct SealMember {
    member: modelseal::SealMember,
}

#[pymethods]
impl SealMember {
    /// Joins in what was begun at `destination`.
    #[staticmethod]
    fn join(
        py: Python<'_>,
        source: PathBuf,
        destination: PathBuf,
        key: &Bound<'_, PyAny>,
        ticket: &str,
        options: Options,
    ) -> PyResult<Self> {
        let key = GivenKey::new(key)?;
        let options = options.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let settings = SealSettings::new(options).map_err(PyValueError::new_err)?;
        let joined = metered(py, None, |meter| {
            let key = new_key(key, &settings, meter, false)?;
            let options = settings.join_options();
            modelseal::SealMember::join(&source, &destination, &key, ticket, &options)
        })?;
        let member = joined.map_err(raise)?;
        Ok(Self { member })
    }

    /// Seals the file of a task. Returns what `SharedSeal.take` takes. `progress` is told how many bytes are done.
    fn seal(&self, py: Python<'_>, task: &str, progress: Option<&Bound<'_, PyAny>>) -> PyResult<String> {
        metered(py, progress, |meter| self.member.seal(task, meter))?.map_err(raise)
    }
}
