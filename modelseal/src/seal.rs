//! Sealing a directory.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;
use chunk_cipher::store::{Attributes, Kind, LocalFile, ReadMode, Source, Xattr};
use chunk_cipher::{Engine, Uncounted};
use gocryptfs_core::ConfOptions;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rustix::fs::{Mode, OFlags, open};
use sam_format::{ChunkLen, IssuerKey, Terms};

use crate::error::{Error, Result};
use crate::key::Key;
use crate::model::Model;
use crate::plan::{Origin, PlanDir, PlanEntry, PlanFile, Symlinks};
use crate::storage::ObjectOptions;
use crate::tree::Entry;
use crate::writer::{PackageAt, VaultAt, Writer};
use crate::{Progress, Summary};

mod start;

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

/// Seals the directory `source` into `destination`, a directory that is empty or not there yet.
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
    let (plan, followed) = PlanDir::read(source, options.symlinks)?;
    refuse_nested(source, destination)?;
    let sealing = Sealing {
        plan: &plan,
        model: None,
        followed,
        destination,
        options,
        progress,
    };
    sealing.start(key)
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
    let plan = PlanDir::of_model(model)?;
    let sealing = Sealing {
        plan: &plan,
        model: Some(model),
        followed: 0,
        destination,
        options,
        progress,
    };
    sealing.start(key)
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

/// A run of [`seal`] or [`reseal`], whatever the format.
struct Sealing<'a> {
    plan: &'a PlanDir,
    /// The model that the plan is of, if it is of one.
    model: Option<&'a Model>,
    followed: u64,
    destination: &'a Path,
    options: &'a SealOptions,
    progress: &'a dyn Progress,
}

impl Sealing<'_> {
    fn start(self, key: &Key) -> Result<Summary> {
        let (destination, options) = (self.destination, self.options);
        match &options.format {
            SealFormat::Gocryptfs(conf) => self.run(VaultAt {
                location: destination,
                writer: start_vault(destination, key, conf, options)?,
            }),
            SealFormat::Sam(package) => {
                self.plan.check_for_package()?;
                self.run(PackageAt {
                    location: destination,
                    writer: start_package(destination, key, package, options)?,
                    key: key.password()?,
                    options: package,
                })
            }
        }
    }

    fn run<W: Writer>(self, writer: W) -> Result<Summary> {
        let size = self.plan.size();
        self.progress.begin(size.files, size.bytes);
        let job = Job {
            writer: &writer,
            model: self.model,
            destination: self.destination,
            resume: self.options.resume,
            progress: self.progress,
            xattrs: OnceLock::new(),
        };
        let mut tree = Tree::default();
        job.make_dirs(self.plan, writer.root()?, &mut tree)?;
        let kept = AtomicU64::new(0);
        self.options.engine.pool().run(|| {
            tree.files.into_par_iter().with_max_len(1).try_for_each(|file| {
                let was_kept = job.file(&file)?;
                kept.fetch_add(u64::from(was_kept), Ordering::Relaxed);
                Ok::<_, Error>(())
            })
        })??;
        // What lies deeper comes first, so that no directory changes after its times are set.
        for (dir, plan) in tree.dirs.iter().rev() {
            writer.finish_dir(dir, &job.dir_attributes(plan)?)?;
        }
        let attributes = job.dir_attributes(self.plan)?;
        writer.finish(&attributes)?;
        Ok(Summary {
            files: size.files,
            dirs: tree.dirs.len() as u64,
            symlinks: tree.symlinks,
            bytes: size.bytes,
            kept: kept.into_inner(),
            followed: self.followed,
            strays: 0,
        })
    }
}

/// Refuses a destination within its own source, which would then be changed while it is read.
pub(crate) fn refuse_nested(source: &Path, destination: &Path) -> Result<()> {
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

/// What is left to do once all directories are there.
struct Tree<'a, D> {
    dirs: Vec<(D, &'a PlanDir)>,
    files: Vec<FileJob<'a, D>>,
    symlinks: u64,
}

impl<D> Default for Tree<'_, D> {
    fn default() -> Self {
        Self {
            dirs: Vec::new(),
            files: Vec::new(),
            symlinks: 0,
        }
    }
}

struct FileJob<'a, D> {
    parent: D,
    name: &'a OsStr,
    plan: &'a PlanFile,
}

struct Job<'a, W> {
    writer: &'a W,
    model: Option<&'a Model>,
    destination: &'a Path,
    resume: bool,
    progress: &'a dyn Progress,
    /// Whether the destination can hold extended attributes, once that matters.
    xattrs: OnceLock<bool>,
}

impl<W: Writer> Job<'_, W> {
    /// Makes the directories and symlinks of `plan` in `dir`, and collects its files.
    fn make_dirs<'p>(&self, plan: &'p PlanDir, dir: W::Dir, tree: &mut Tree<'p, W::Dir>) -> Result<()> {
        if self.resume {
            let names: Vec<_> = plan.entries.iter().map(|(name, _)| name.as_bytes()).collect();
            if let Some(found) = self.writer.find_stale(&dir, &names)? {
                return Err(Error::Resume {
                    path: self.destination.to_path_buf(),
                    what: format!(
                        "it holds {}, which is not in the source any more; remove the destination and start afresh",
                        found.display()
                    ),
                });
            }
        }
        for (name, entry) in &plan.entries {
            match entry {
                PlanEntry::Dir(child) => {
                    self.there(&dir, name, Kind::Dir)?;
                    let made = self.writer.create_dir(&dir, name.as_bytes())?;
                    tree.dirs.push((made.clone(), child));
                    self.make_dirs(child, made, tree)?;
                }
                PlanEntry::File(plan) => {
                    tree.files.push(FileJob {
                        parent: dir.clone(),
                        name,
                        plan,
                    });
                }
                PlanEntry::Symlink { target, modified } => {
                    tree.symlinks += 1;
                    if self.there(&dir, name, Kind::Symlink)? {
                        self.writer.remove(&dir, name.as_bytes())?;
                    }
                    let attributes = Attributes {
                        modified: Some(*modified),
                        ..Attributes::default()
                    };
                    let target = target.as_os_str().as_bytes();
                    self.writer
                        .write_symlink(&dir, name.as_bytes(), target, &attributes)?;
                }
            }
        }
        Ok(())
    }

    /// Seals one file. Returns whether an earlier run had done so.
    fn file(&self, job: &FileJob<'_, W::Dir>) -> Result<bool> {
        match &job.plan.origin {
            Origin::Local { followed, id } => self.local_file(job, *followed, *id),
            Origin::Sealed(entry) => self.sealed_file(job, entry),
        }
    }

    fn local_file(&self, job: &FileJob<'_, W::Dir>, followed: bool, id: (u64, u64)) -> Result<bool> {
        let path = job.plan.source.as_path();
        let failed = |error| Error::io(path, "reading", error);
        // Whatever has taken the file's place since, opening it neither waits nor leads elsewhere.
        let links = if followed {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | links;
        let file = File::from(open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?);
        let before = file.metadata().map_err(failed)?;
        if (before.dev(), before.ino()) != id {
            return Err(Error::File {
                path: path.to_path_buf(),
                source: chunk_cipher::Error::Changed,
            });
        }
        let xattrs = chunk_cipher::store::read_xattrs(&file);
        let xattrs = xattrs.map_err(|error| Error::io(path, XATTRS, error))?;
        let attributes = Attributes {
            mode: Some(before.mode() & 0o777),
            modified: Some(before.modified().map_err(failed)?),
            xattrs: self.sealable_xattrs(xattrs, path),
        };
        let content = LocalFile::new(file, ReadMode::Copy).map_err(failed)?;
        let unchanged = || {
            content
                .file()
                .metadata()
                .is_ok_and(|now| stamp(&now) == stamp(&before))
        };
        let source = Source {
            content: &content,
            len: before.len(),
            attributes: &attributes,
            unchanged: &unchanged,
        };
        self.write(job, &source)
    }

    fn sealed_file(&self, job: &FileJob<'_, W::Dir>, entry: &Entry) -> Result<bool> {
        let model = self.model.ok_or(chunk_cipher::Error::Changed)?;
        let content = model.open_file(entry)?;
        let metadata = model.metadata(entry)?;
        let attributes = Attributes {
            mode: Some(metadata.mode & 0o777),
            modified: Some(metadata.modified),
            xattrs: self.sealable_xattrs(model.xattrs(entry)?, &job.plan.source),
        };
        let source = Source {
            content: &content,
            len: content.len(),
            attributes: &attributes,
            // Every chunk of it was authenticated.
            unchanged: &|| true,
        };
        self.write(job, &source)
    }

    /// Writes one file, unless an earlier run did. Returns whether it did.
    fn write(&self, job: &FileJob<'_, W::Dir>, source: &Source<'_>) -> Result<bool> {
        let name = job.name.as_bytes();
        if self.there(&job.parent, job.name, Kind::File)? {
            if self
                .writer
                .is_complete(&job.parent, name, source, self.progress)?
            {
                self.progress.advance(source.len);
                return Ok(true);
            }
            self.writer.remove(&job.parent, name)?;
        }
        self.writer
            .write_file(&job.parent, name, source, self.progress)
            .map_err(|error| {
                // What is wrong is with the source: name that.
                error.of_file(&job.plan.source, |source| {
                    matches!(
                        source,
                        chunk_cipher::Error::Changed | chunk_cipher::Error::Read { .. }
                    )
                })
            })?;
        Ok(false)
    }

    /// Whether an earlier run has written `name` in `parent`, as the kind that it is now.
    fn there(&self, parent: &W::Dir, name: &OsStr, kind: Kind) -> Result<bool> {
        if !self.resume {
            return Ok(false);
        }
        match self.writer.existing(parent, name.as_bytes())? {
            Some(there) if there != kind => Err(Error::Resume {
                path: self.destination.to_path_buf(),
                what: format!(
                    "{} was a file, a directory or a link and is something else now; \
                     remove the destination and start afresh",
                    name.display()
                ),
            }),
            there => Ok(there.is_some()),
        }
    }

    fn dir_attributes(&self, dir: &PlanDir) -> Result<Attributes> {
        let xattrs = match (self.model, &dir.sealed) {
            (Some(model), Some(entry)) => model.xattrs(entry)?,
            _ => {
                let opened =
                    File::open(&dir.source).map_err(|error| Error::io(&dir.source, "opening", error))?;
                chunk_cipher::store::read_xattrs(&opened)
                    .map_err(|error| Error::io(&dir.source, XATTRS, error))?
            }
        };
        Ok(Attributes {
            mode: Some(dir.mode),
            modified: Some(dir.modified),
            xattrs: self.sealable_xattrs(xattrs, &dir.source),
        })
    }

    /// Those of the extended attributes of `path` that a model can hold (the user's, and access control lists), if the
    /// destination can.
    fn sealable_xattrs(&self, mut xattrs: Vec<Xattr>, path: &Path) -> Vec<Xattr> {
        xattrs.retain(|(name, _)| gocryptfs_core::is_sealable_xattr(name));
        if !xattrs.is_empty() && !*self.xattrs.get_or_init(|| self.writer.supports_xattrs()) {
            self.progress.warn(&format!(
                "the extended attributes of {} are left out: the destination cannot hold them",
                path.display()
            ));
            xattrs.clear();
        }
        xattrs
    }
}

/// What is attempted when extended attributes cannot be had.
const XATTRS: &str = "reading the extended attributes of";

/// What differs once somebody wrote to a file.
fn stamp(metadata: &Metadata) -> (u64, i64, i64, i64, i64) {
    (
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}
