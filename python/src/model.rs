//! Sealed models and their files.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use modelseal::command::{Settings, info_json, license_json};
use modelseal::safetensors::SafeTensors;
use modelseal::store::Kind;
use modelseal::{Error, Found, with_causes};
use pyo3::exceptions::{PyIsADirectoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyBytes;

use crate::arena::Kept;
use crate::buffer::with_bytes;
use crate::error::{raise, warn};
use crate::key::GivenKey;
use crate::tensors::Tensors;
use crate::wait::{abandonable, fill, metered};

/// Options of the command by their names, each with its value.
pub(crate) type Options = Vec<(String, OsString)>;

/// Memory that is kept for a model, in bytes.
const MOST_KEPT: usize = 4 << 30;

/// What all that is made of a model shares.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What was decrypted, in bytes: whole chunks, as none is decrypted in part.
    decrypted: AtomicU64,
    pub(crate) chunk_len: u64,
    pub(crate) kept: Arc<Kept>,
}

impl Shared {
    /// Counts the chunks that these bytes lie in.
    pub(crate) fn count(&self, offset: u64, len: usize) {
        if len > 0 {
            let chunk = self.chunk_len.max(1);
            let end = (offset + len as u64).next_multiple_of(chunk);
            self.decrypted
                .fetch_add(end - offset / chunk * chunk, Ordering::Relaxed);
        }
    }
}

/// A sealed model, unlocked.
#[pyclass(frozen, module = "modelseal._modelseal")]
pub(crate) struct Model {
    model: Arc<modelseal::Model>,
    shared: Arc<Shared>,
    /// Those that were asked for last: their files stay open and mapped.
    tensors: Mutex<Option<(PathBuf, Py<Tensors>)>>,
}

/// Unlocks a sealed model. The key is a reference, bytes, or what returns one of both.
#[pyfunction]
pub(crate) fn open(
    py: Python<'_>,
    location: PathBuf,
    key: &Bound<'_, PyAny>,
    options: Options,
) -> PyResult<Model> {
    let key = GivenKey::new(key)?;
    let settings = settings(&options)?;
    let opened = settings.open_options().map_err(raise)?;
    let (sources, warnings) = sources(&settings);
    let model = abandonable(py, move || {
        let key = key.resolve(&sources, "Key", false)?;
        modelseal::Model::open(&location, key, &opened)
    })?;
    let model = model.map_err(raise)?;
    let trust = settings.warning(&model).map(str::to_owned);
    warn(py, taken(&warnings).into_iter().chain(trust))?;
    let shared = Shared {
        decrypted: AtomicU64::new(0),
        chunk_len: model.chunk_len(),
        kept: Kept::new(MOST_KEPT),
    };
    Ok(Model {
        model: Arc::new(model),
        shared: Arc::new(shared),
        tensors: Mutex::new(None),
    })
}

/// Splits a location into that of the sealed model and the path in it.
#[pyfunction]
pub(crate) fn locate(py: Python<'_>, location: PathBuf, options: Options) -> PyResult<(OsString, OsString)> {
    let options = settings(&options)?.open_options().map_err(raise)?;
    let located = abandonable(py, move || modelseal::Model::locate(&location, &options))?;
    let (place, inner) = located.map_err(raise)?;
    Ok((place.into_os_string(), inner.into_os_string()))
}

/// What is known of a model without its key, as JSON.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, location: PathBuf, options: Options) -> PyResult<String> {
    let options = settings(&options)?.open_options().map_err(raise)?;
    let info = abandonable(py, move || modelseal::Model::inspect(&location, &options))?;
    Ok(info_json(&info.map_err(raise)?).to_string())
}

/// Wraps a vault's master key under a new key.
#[pyfunction]
pub(crate) fn change_password(
    py: Python<'_>,
    location: PathBuf,
    key: &Bound<'_, PyAny>,
    new_key: &Bound<'_, PyAny>,
    scrypt_n: Option<u8>,
    options: Options,
) -> PyResult<()> {
    let (key, new_key) = (GivenKey::new(key)?, GivenKey::new(new_key)?);
    let settings = settings(&options)?;
    let opened = settings.open_options().map_err(raise)?;
    let (sources, warnings) = sources(&settings);
    // Waited for, as it changes what is stored.
    let changed = py.detach(|| {
        let key = key.resolve(&sources, "Key", false)?;
        let new_key = new_key.resolve(&sources, "New key", true)?;
        modelseal::change_password(&location, key, &new_key, scrypt_n, &opened)
    });
    changed.map_err(raise)?;
    warn(py, taken(&warnings))
}

/// Checks a package, or a vault with its signed manifest, without the key. Returns what `Model.verify` does.
#[pyfunction]
pub(crate) fn verify_without_key(
    py: Python<'_>,
    location: PathBuf,
    path: PathBuf,
    options: Options,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Checked> {
    let options = settings(&options)?.open_options().map_err(raise)?;
    let damages = Mutex::new(Vec::new());
    let verified = metered(py, progress, |meter| {
        modelseal::Model::verify_without_key(&location, &path, &options, meter, &|damage| {
            note_damage(&damages, &damage);
        })
    })?;
    checked(verified, damages)
}

/// The counts of what was checked, by name, and what is damaged: its path, and what is wrong.
type Checked = (Vec<(&'static str, u64)>, Vec<(OsString, String)>);

fn note_damage(damages: &Mutex<Vec<(OsString, String)>>, damage: &modelseal::Damage) {
    let what = with_causes(damage.error.within_model());
    let mut damages = damages.lock().unwrap_or_else(PoisonError::into_inner);
    damages.push((damage.path.clone().into_os_string(), what));
}

fn checked(
    verified: modelseal::Result<modelseal::Verified>,
    damages: Mutex<Vec<(OsString, String)>>,
) -> PyResult<Checked> {
    let verified = verified.map_err(raise)?;
    let counts = vec![
        ("files", verified.files),
        ("dirs", verified.dirs),
        ("symlinks", verified.symlinks),
        ("bytes", verified.bytes),
        ("holes", verified.holes),
    ];
    Ok((
        counts,
        damages.into_inner().unwrap_or_else(PoisonError::into_inner),
    ))
}

#[pymethods]
impl Model {
    /// Where it lies.
    #[getter]
    fn location(&self) -> OsString {
        self.model.location().as_os_str().to_owned()
    }

    /// Bytes of plaintext that are decrypted together.
    #[getter]
    fn chunk_len(&self) -> u64 {
        self.shared.chunk_len
    }

    /// Bytes decrypted up to now: whole chunks.
    #[getter]
    fn decrypted_bytes(&self) -> u64 {
        self.shared.decrypted.load(Ordering::Relaxed)
    }

    /// The license that it was opened with, as JSON, where it is a package.
    #[getter]
    fn license(&self) -> Option<String> {
        let license = self.model.license()?;
        Some(license_json(license).to_string())
    }

    /// What is known of the entry at `path`.
    fn entry(&self, py: Python<'_>, path: PathBuf) -> PyResult<Entry> {
        let entry = py.detach(|| self.model.lookup(&path).and_then(|entry| self.known(&entry)));
        entry.map_err(raise)
    }

    /// What the directory at `path` holds.
    fn list(&self, py: Python<'_>, path: PathBuf) -> PyResult<Vec<Entry>> {
        self.entries(py, |model| {
            let dir = model.lookup(&path)?;
            model.list(&dir)
        })
    }

    /// All below the directory at `path`.
    fn walk(&self, py: Python<'_>, path: PathBuf) -> PyResult<Vec<Entry>> {
        self.entries(py, |model| {
            let dir = model.lookup(&path)?;
            Ok(model.walk(&dir)?.collect())
        })
    }

    /// Where the symlink at `path` leads.
    fn read_link(&self, py: Python<'_>, path: PathBuf) -> PyResult<OsString> {
        use std::os::unix::ffi::OsStringExt;
        let target = py.detach(|| {
            let entry = self.model.lookup(&path)?;
            self.model.read_link(&entry)
        });
        target.map(OsString::from_vec).map_err(raise)
    }

    /// Opens the file at `path`.
    fn file(&self, py: Python<'_>, path: PathBuf) -> PyResult<File> {
        let file = py.detach(|| {
            let entry = self.model.lookup(&path)?;
            if entry.kind() == Kind::Dir {
                return Ok(None);
            }
            self.model.open_file(&entry).map(Some)
        });
        match file.map_err(raise)? {
            Some(file) => Ok(File {
                file: Arc::new(file),
                shared: Arc::clone(&self.shared),
            }),
            None => Err(PyIsADirectoryError::new_err((
                rustix::io::Errno::ISDIR.raw_os_error(),
                "it is a directory",
                path.into_os_string(),
            ))),
        }
    }

    /// The tensors of a shard, an index or a directory.
    fn tensors(&self, py: Python<'_>, path: PathBuf) -> PyResult<Py<Tensors>> {
        let lock = || {
            self.tensors
                .lock_py_attached(py)
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some((_, last)) = lock().as_ref().filter(|(last, _)| *last == path) {
            return Ok(last.clone_ref(py));
        }
        let opened = py.detach(|| SafeTensors::open(&self.model, &path));
        let tensors = Tensors::new(opened.map_err(raise)?, Arc::clone(&self.shared));
        let tensors = Py::new(py, tensors)?;
        let before = lock().replace((path, tensors.clone_ref(py)));
        drop(before);
        Ok(tensors)
    }

    /// Reads all below the directory at `path`. Returns counts by name, and what is damaged: its path, and what is wrong.
    fn verify(
        &self,
        py: Python<'_>,
        path: PathBuf,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Checked> {
        let damages = Mutex::new(Vec::new());
        let verified = metered(py, progress, |meter| {
            let start = self.model.lookup(&path)?;
            self.model
                .verify(&start, meter, &|damage| note_damage(&damages, &damage))
        })?;
        checked(verified, damages)
    }
}

impl Model {
    pub(crate) fn model(&self) -> &Arc<modelseal::Model> {
        &self.model
    }

    fn known(&self, entry: &modelseal::Entry) -> modelseal::Result<Entry> {
        let metadata = self.model.metadata(entry)?;
        let modified = metadata.modified.duration_since(UNIX_EPOCH);
        Ok(Entry {
            path: entry.path().as_os_str().to_owned(),
            kind: match entry.kind() {
                Kind::Dir => "directory",
                Kind::Symlink => "symlink",
                _ => "file",
            },
            size: metadata.len,
            mode: metadata.mode,
            modified: modified.map_or(0.0, |since| since.as_secs_f64()),
        })
    }

    fn entries(
        &self,
        py: Python<'_>,
        find: impl FnOnce(&modelseal::Model) -> modelseal::Result<Vec<Found>> + Send,
    ) -> PyResult<Vec<Entry>> {
        let mut warnings = Vec::new();
        let entries = py.detach(|| {
            let mut entries = Vec::new();
            for found in find(&self.model)? {
                match found {
                    Found::Entry(entry) => entries.push(self.known(&entry)?),
                    Found::Stray(path, error) => warnings.push(format!(
                        "{} is no part of the model: {}",
                        path.display(),
                        with_causes(error.within_model())
                    )),
                    Found::Unreadable(_, error) => return Err(error),
                }
            }
            Ok::<_, Error>(entries)
        });
        let entries = entries.map_err(raise)?;
        warn(py, warnings)?;
        Ok(entries)
    }
}

/// What is known of an entry of a model.
#[pyclass(frozen, get_all, eq, module = "modelseal._modelseal")]
#[derive(PartialEq)]
pub(crate) struct Entry {
    /// Its path in the model.
    path: OsString,
    /// `file`, `directory` or `symlink`.
    kind: &'static str,
    /// Length of the plaintext in bytes.
    size: u64,
    /// Permissions.
    mode: u32,
    /// When it was changed, in seconds since 1970.
    modified: f64,
}

#[pymethods]
impl Entry {
    #[new]
    fn new(path: OsString, kind: &str, size: u64, mode: u32, modified: f64) -> PyResult<Self> {
        let kinds = ["file", "directory", "symlink"];
        let kind = kinds.into_iter().find(|known| *known == kind);
        Ok(Self {
            path,
            kind: kind.ok_or_else(|| PyValueError::new_err("it is no kind of entry"))?,
            size,
            mode,
            modified,
        })
    }

    fn __getnewargs__(&self) -> (OsString, &str, u64, u32, f64) {
        (self.path.clone(), self.kind, self.size, self.mode, self.modified)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Zero is equal to minus zero.
        let modified = (self.modified + 0.0).to_bits();
        (&self.path, self.kind, self.size, self.mode, modified).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        format!("Entry({:?}, {:?}, {})", self.path, self.kind, self.size)
    }
}

/// An open file of a model.
#[pyclass(frozen, module = "modelseal._modelseal")]
pub(crate) struct File {
    file: Arc<modelseal::SealedFile>,
    shared: Arc<Shared>,
}

#[pymethods]
impl File {
    /// Length of the plaintext in bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.file.len()
    }

    /// Fills a writable buffer from `offset` on, as far as the file goes. Returns how many bytes that is.
    fn read_into(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>, offset: u64) -> PyResult<usize> {
        with_bytes(buffer, |out| {
            let len = self.available(offset, out.len());
            self.fill(py, offset, &mut out[..len])?;
            Ok(len)
        })
    }

    /// Up to `len` bytes from `offset` on.
    fn read<'py>(&self, py: Python<'py>, offset: u64, len: usize) -> PyResult<Bound<'py, PyBytes>> {
        let len = self.available(offset, len);
        PyBytes::new_with(py, len, |out| self.fill(py, offset, out))
    }

    /// The whole plaintext in a sealed memory file. Whoever gets the descriptor must close it.
    fn memfd(&self, py: Python<'_>) -> PyResult<i32> {
        let file = Arc::clone(&self.file);
        let memory = abandonable(py, move || file.memfd())?.map_err(raise)?;
        self.shared
            .count(0, usize::try_from(memory.len()).unwrap_or(usize::MAX));
        Ok(OwnedFd::from(memory).into_raw_fd())
    }
}

impl File {
    fn available(&self, offset: u64, len: usize) -> usize {
        usize::try_from(self.file.len().saturating_sub(offset)).map_or(len, |rest| rest.min(len))
    }

    fn fill(&self, py: Python<'_>, offset: u64, out: &mut [u8]) -> PyResult<()> {
        if out.is_empty() && !self.file.is_empty() {
            return Ok(());
        }
        self.shared.count(offset, out.len());
        let offset = offset.min(self.file.len());
        fill(py, offset, self.shared.chunk_len, out, |offset, piece| {
            self.file.read_into(offset, piece).map_err(raise)
        })
    }
}

/// The options of the command.
pub(crate) fn settings(options: &Options) -> PyResult<Settings> {
    let options = options.iter().map(|(name, value)| (name.as_str(), value.clone()));
    Settings::new(options).map_err(PyValueError::new_err)
}

/// Where keys come from, and what deserved attention while they were had.
pub(crate) fn sources(settings: &Settings) -> (modelseal::KeySources, Arc<Mutex<Vec<String>>>) {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&warnings);
    let sources = settings.key_sources(move |warning| {
        let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(warning.to_owned());
    });
    (sources, warnings)
}

/// What was noted.
pub(crate) fn taken(warnings: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut *warnings.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A path as Python's text.
pub(crate) fn text(path: &Path) -> OsString {
    path.as_os_str().to_owned()
}
