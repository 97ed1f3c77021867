//! Sealing a directory.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;
use chunk_cipher::store::ReadMode;
use chunk_cipher::{Engine, Uncounted};
use gocryptfs_core::ConfOptions;
use sam_format::{ChunkLen, IssuerKey, Terms};

use crate::error::{Error, Result};
use crate::key::Key;
use crate::model::Model;
use crate::plan::{PlanDir, Symlinks};
use crate::storage::{ObjectOptions, Storage, is_url};
use crate::writer::FirstLicense;
use crate::{Progress, Summary};

mod begun;
mod job;
pub(crate) mod shared;
mod start;
mod text;

use begun::{Begun, Sealing};
use job::Sources;
use start::{start_package, start_vault};

/// How a directory is sealed.
#[derive(Clone, Debug)]
pub struct SealOptions {
    /// The format to seal in.
    pub format: SealFormat,
    /// What becomes of symbolic links that lead out of the directory.
    pub symlinks: Symlinks,
    /// Goes on with what an interrupted run left in the destination.
    pub resume: bool,
    /// Memory that the scrypt parameters of a run to be resumed may ask for, in bytes: 1 GiB unless set.
    pub scrypt_memory: u64,
    /// The threads that encrypt.
    pub engine: Engine,
    /// How object storage is reached.
    pub objects: ObjectOptions,
}

impl Default for SealOptions {
    fn default() -> Self {
        Self {
            format: SealFormat::default(),
            symlinks: Symlinks::default(),
            resume: false,
            scrypt_memory: DEFAULT_SCRYPT_MEMORY,
            engine: Engine::default(),
            objects: ObjectOptions::default(),
        }
    }
}

/// The format of a model that is sealed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SealFormat {
    /// A gocryptfs v2 vault.
    Gocryptfs(ConfOptions),
    /// A Sam package.
    Sam(Box<PackageOptions>),
}

/// What a package shall be like.
#[derive(Clone, Debug)]
pub struct PackageOptions {
    /// The terms of its first license, which the key is for.
    pub terms: Terms,
    /// Who signs that license.
    pub issuer: Arc<IssuerKey>,
    /// Length of the chunks: 64 KiB unless set.
    pub chunk_len: ChunkLen,
}

impl PackageOptions {
    /// Chunks of 64 KiB, and a first license with these terms, signed by `issuer`.
    #[must_use]
    pub fn new(terms: Terms, issuer: IssuerKey) -> Self {
        Self {
            terms,
            issuer: Arc::new(issuer),
            chunk_len: ChunkLen::default(),
        }
    }
}

impl Default for SealFormat {
    fn default() -> Self {
        Self::Gocryptfs(ConfOptions::default())
    }
}

/// Seals the directory `source` into `destination`, a directory that is empty or not there yet. Both may be URLs of object
/// storage.
///
/// Every file appears under its name only when it is complete, and the vault counts as one only when all of it is.
/// After an interruption [`SealOptions::resume`] keeps the files that were finished, provided that they still
/// match their source and every block of them verifies.
///
/// # Errors
/// [`Error::Source`] where something cannot be sealed, [`Error::NotEmpty`] and [`Error::Resume`] for a destination that
/// does not do, [`Error::Vault`] and [`Error::Io`] where reading or writing fails.
pub fn seal(
    source: &Path,
    destination: &Path,
    key: &Key,
    options: &SealOptions,
    progress: &dyn Progress,
) -> Result<Summary> {
    let planned = Planned::read(source, destination, options)?;
    planned.seal(destination, key, options, progress)
}

/// Seals what a sealed model holds anew into `destination`: in the same format or another, under a new content key and
/// `key`. No plaintext touches a disk.
///
/// # Errors
/// As [`seal`], and where something in `model` is damaged.
pub fn reseal(
    model: &Model,
    destination: &Path,
    key: &Key,
    options: &SealOptions,
    progress: &dyn Progress,
) -> Result<Summary> {
    refuse_nested(model.location(), destination)?;
    refuse_altered(model, progress)?;
    let planned = Planned {
        plan: PlanDir::of_model(model)?,
        sources: Sources::Model(model),
        followed: 0,
    };
    planned.seal(destination, key, options, progress)
}

/// Refuses a package with content that its issuer did not sign: to whoever has its key, tags are no obstacle, and what is
/// sealed anew would be signed anew.
fn refuse_altered(model: &Model, progress: &dyn Progress) -> Result<()> {
    if model.license().is_none() {
        return Ok(());
    }
    let first = Mutex::new(None);
    model.verify(&model.lookup("")?, &Uncounted(progress), &|damage| {
        first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(damage.error);
    })?;
    first
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

/// What is to be sealed, and where it is read from.
struct Planned<'a> {
    plan: PlanDir,
    sources: Sources<'a>,
    /// Links out of the directory that were followed.
    followed: u64,
}

impl Planned<'static> {
    fn read(source: &Path, destination: &Path, options: &SealOptions) -> Result<Self> {
        if is_url(source) {
            let store = Storage::open(source, &options.objects, ReadMode::Copy)?;
            refuse_nested(source, destination)?;
            return Ok(Self {
                plan: PlanDir::of_store(&store, source)?,
                sources: Sources::Stored(store),
                followed: 0,
            });
        }
        let (plan, followed) = PlanDir::read(source, options.symlinks)?;
        refuse_nested(source, destination)?;
        Ok(Self {
            plan,
            sources: Sources::Local,
            followed,
        })
    }
}

impl<'a> Planned<'a> {
    /// Starts or resumes the model at `destination`, and makes its directories and symlinks.
    fn begin(
        self,
        destination: &Path,
        key: &Key,
        options: &SealOptions,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Begun + 'a>> {
        let size = self.plan.size();
        match &options.format {
            SealFormat::Gocryptfs(conf) => {
                let writer = start_vault(destination, key, conf, options)?;
                progress.begin(size.files, size.bytes);
                let sealing = Sealing::begin(self, writer, (), destination, options, progress)?;
                Ok(Box::new(sealing))
            }
            SealFormat::Sam(package) => {
                self.plan.check_for_package()?;
                let writer = start_package(destination, key, package, options)?;
                let first = FirstLicense {
                    key: key.duplicate(),
                    options: PackageOptions::clone(package),
                };
                progress.begin(size.files, size.bytes);
                let sealing = Sealing::begin(self, writer, first, destination, options, progress)?;
                Ok(Box::new(sealing))
            }
        }
    }

    /// Does all of it in this process.
    fn seal(
        self,
        destination: &Path,
        key: &Key,
        options: &SealOptions,
        progress: &dyn Progress,
    ) -> Result<Summary> {
        let begun = self.begin(destination, key, options, progress)?;
        begun.seal_all(&options.engine, progress)?;
        begun.finish(progress)
    }
}

/// Refuses a destination within its own source, which would then be changed while it is read.
pub(crate) fn refuse_nested(source: &Path, destination: &Path) -> Result<()> {
    if is_url(source) && is_url(destination) && destination.starts_with(source) {
        return Err(Error::Source {
            path: source.to_path_buf(),
            what: "the destination lies in it; choose one outside of it",
        });
    }
    let real = |path: &Path| fs::canonicalize(path).ok();
    let parent = destination
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let outer = real(destination).or_else(|| real(parent.unwrap_or(Path::new("."))));
    match (real(source), outer) {
        (Some(source), Some(outer)) if outer.starts_with(&source) => Err(Error::Source {
            path: source,
            what: "the destination lies in it; choose one outside of it",
        }),
        _ => Ok(()),
    }
}
