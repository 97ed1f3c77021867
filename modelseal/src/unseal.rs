//! Unsealing a model into a directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use chunk_cipher::Uncounted;
use chunk_cipher::store::{
    Attributes, Compare, Kind, LocalStore, Metadata, PendingFile, Store, WriteAt, WriteStore,
};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::seal::refuse_nested;
use crate::storage::{lock, make_destination, open_local};
use crate::tree::{Entry, Found};
use crate::{Progress, Summary};

/// File in a destination that is not complete yet.
pub(crate) const MARKER: &str = ".modelseal-partial";

/// How a model is unsealed.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnsealOptions {
    /// Goes on with what an interrupted run left in the destination.
    pub resume: bool,
}

/// Unseals the whole model into `destination`, a directory that is empty or not there yet.
///
/// Every file appears under its name only when all of it was verified and written. A file named
/// `.modelseal-partial` lies in the destination until everything is there. Nothing is ever written outside of it,
/// whatever names and links the model holds: links are made, never followed.
///
/// # Errors
/// [`Error::NotEmpty`] and [`Error::Resume`] for a destination that does not do, [`Error::Vault`] where something is
/// damaged, [`Error::Io`] where writing fails.
pub fn unseal(
    model: &Model,
    destination: &Path,
    options: &UnsealOptions,
    progress: &dyn Progress,
) -> Result<Summary> {
    refuse_nested(model.location(), destination)?;
    let plan = Plan::read(model, progress)?;
    let store = start(destination, options)?;
    progress.begin(plan.files.len() as u64, plan.bytes);
    let xattrs = OnceLock::new();
    let job = Job {
        model,
        store: &store,
        destination,
        resume: options.resume,
        progress,
        xattrs,
    };
    job.refuse_strangers(&plan)?;
    for entry in &plan.dirs {
        job.make_dir(entry)?;
    }
    let kept = AtomicU64::new(0);
    model.engine().pool().run(|| {
        (&plan.files)
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(|(entry, metadata)| {
                let was_kept = job.file(entry, metadata)?;
                kept.fetch_add(u64::from(was_kept), Ordering::Relaxed);
                Ok::<_, Error>(())
            })
    })??;
    for entry in &plan.symlinks {
        job.symlink(entry)?;
    }
    for entry in plan.dirs.iter().rev() {
        job.finish_dir(entry)?;
    }
    let failed = |error| Error::io(destination, "completing", error);
    store.sync().map_err(failed)?;
    store.remove_file(Path::new(MARKER)).map_err(failed)?;
    job.finish_root()?;
    store.sync().map_err(failed)?;
    Ok(Summary {
        files: plan.files.len() as u64,
        dirs: plan.dirs.len() as u64,
        symlinks: plan.symlinks.len() as u64,
        bytes: plan.bytes,
        kept: kept.into_inner(),
        followed: 0,
        strays: plan.strays,
    })
}

/// Opens the destination, makes it where it is missing, and marks it as not complete.
fn start(destination: &Path, options: &UnsealOptions) -> Result<LocalStore> {
    make_destination(destination)?;
    let store = open_local(destination)?;
    let failed = |error| Error::io(destination, "preparing", error);
    let marker = Path::new(MARKER);
    lock(&store, destination)?;
    if store.metadata(marker).is_ok() {
        if !options.resume {
            return Err(Error::NotEmpty {
                path: destination.to_path_buf(),
                found: marker.to_path_buf(),
                hint: "an interrupted run left it; go on with --resume, or remove it",
            });
        }
        store.remove_leftovers().map_err(failed)?;
        return Ok(store);
    }
    if options.resume {
        // The run may have ended before its marker was there.
        store.remove_leftovers().map_err(failed)?;
    }
    if let Some((found, _)) = store.list(Path::new("")).map_err(failed)?.into_iter().next() {
        return Err(Error::NotEmpty {
            path: destination.to_path_buf(),
            found: found.into(),
            hint: "choose a directory that is empty or not there yet",
        });
    }
    let pending = store.create(marker).map_err(failed)?;
    pending.commit(&Attributes::default()).map_err(failed)?;
    Ok(store)
}

/// What is to be unsealed.
#[derive(Default)]
struct Plan {
    dirs: Vec<Entry>,
    files: Vec<(Entry, Metadata)>,
    symlinks: Vec<Entry>,
    bytes: u64,
    strays: u64,
}

impl Plan {
    fn read(model: &Model, progress: &dyn Progress) -> Result<Self> {
        let mut plan = Self::default();
        for found in model.walk(&model.lookup("")?)? {
            match found {
                Found::Entry(entry) if entry.path() == Path::new(MARKER) => {
                    return Err(Error::io(
                        &model.location().join(entry.path()),
                        "unsealing",
                        io::Error::other("the name is taken by what marks an incomplete destination"),
                    ));
                }
                Found::Entry(entry) => match entry.kind() {
                    Kind::Dir => plan.dirs.push(entry),
                    Kind::Symlink => plan.symlinks.push(entry),
                    Kind::File => {
                        let metadata = model.metadata(&entry)?;
                        plan.bytes = plan.bytes.saturating_add(metadata.len);
                        plan.files.push((entry, metadata));
                    }
                    Kind::Other => {
                        plan.strays += 1;
                        progress.warn(&format!(
                            "{} is left out, as it is a device, pipe or socket",
                            entry.path().display()
                        ));
                    }
                },
                Found::Stray(path, error) => {
                    plan.strays += 1;
                    progress.warn(&format!(
                        "{} is left out, as its name does not decrypt: {}",
                        model.location().join(path).display(),
                        error.within_model(),
                    ));
                }
                Found::Unreadable(_, error) => return Err(error),
            }
        }
        Ok(plan)
    }
}

struct Job<'a> {
    model: &'a Model,
    store: &'a LocalStore,
    destination: &'a Path,
    resume: bool,
    progress: &'a dyn Progress,
    /// Whether the destination can hold extended attributes, once that matters.
    xattrs: OnceLock<bool>,
}

impl Job<'_> {
    fn write_error(&self, entry: &Entry, action: &'static str) -> impl Fn(io::Error) -> Error + use<> {
        let path = self.destination.join(entry.path());
        move |source| Error::Io {
            path: path.clone(),
            action,
            source,
        }
    }

    /// Refuses to resume where something lies in the destination that the model does not have.
    fn refuse_strangers(&self, plan: &Plan) -> Result<()> {
        if !self.resume {
            return Ok(());
        }
        let known: std::collections::HashSet<&Path> = plan
            .dirs
            .iter()
            .chain(plan.files.iter().map(|(entry, _)| entry))
            .chain(&plan.symlinks)
            .map(Entry::path)
            .chain([Path::new(MARKER)])
            .collect();
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            let listed = self.store.list(&dir);
            for (name, kind) in
                listed.map_err(|error| Error::io(&self.destination.join(&dir), "listing", error))?
            {
                let path = dir.join(name);
                if !known.contains(path.as_path()) {
                    return Err(Error::Resume {
                        path: self.destination.to_path_buf(),
                        what: format!(
                            "it holds {}, which is not in the model; remove the destination and start afresh",
                            path.display()
                        ),
                    });
                }
                if kind == Kind::Dir {
                    dirs.push(path);
                }
            }
        }
        Ok(())
    }

    fn make_dir(&self, entry: &Entry) -> Result<()> {
        match self.store.create_dir(entry.path()) {
            Err(error) if self.resume && error.kind() == io::ErrorKind::AlreadyExists => {
                let writable = Attributes {
                    mode: Some(0o700),
                    ..Attributes::default()
                };
                self.store
                    .set_attributes(entry.path(), &writable)
                    .map_err(self.write_error(entry, "opening the directory"))
            }
            made => made.map_err(self.write_error(entry, "making the directory")),
        }
    }

    /// Unseals one file. Returns whether an earlier run had done so.
    fn file(&self, entry: &Entry, metadata: &Metadata) -> Result<bool> {
        let file = self.model.open_file(entry)?;
        let attributes = self.attributes(entry, metadata)?;
        if self.resume && self.store.metadata(entry.path()).is_ok() {
            if self.is_complete(entry, metadata)? {
                // The content was compared; the rest costs less to set than to compare.
                self.store
                    .set_attributes(entry.path(), &attributes)
                    .map_err(self.write_error(entry, "setting the attributes of"))?;
                return Ok(true);
            }
            self.store
                .remove_file(entry.path())
                .map_err(self.write_error(entry, "removing"))?;
        }
        let failed = self.write_error(entry, "writing");
        let pending = self.store.create(entry.path()).map_err(&failed)?;
        pending.set_len(file.len()).map_err(&failed)?;
        file.unseal(&pending, self.progress).map_err(|error| {
            // What is wrong is with the destination: name that.
            let path = self.destination.join(entry.path());
            error.of_file(&path, |source| {
                matches!(source, chunk_cipher::Error::Write { .. })
            })
        })?;
        pending.commit(&attributes).map_err(failed)?;
        Ok(false)
    }

    /// Whether the destination holds this very file: length, time, and every byte.
    ///
    /// After a power cut a file may have the length and the time but not the bytes.
    fn is_complete(&self, entry: &Entry, metadata: &Metadata) -> Result<bool> {
        let failed = self.write_error(entry, "reading");
        let there = self.store.metadata(entry.path()).map_err(&failed)?;
        if (there.kind, there.len, there.modified) != (Kind::File, metadata.len, metadata.modified) {
            return Ok(false);
        }
        let there = self.store.open(entry.path()).map_err(&failed)?;
        let file = self.model.open_file(entry)?;
        match file.unseal(&Compare(&there), &Uncounted(self.progress)) {
            Ok(()) => {
                self.progress.advance(metadata.len);
                Ok(true)
            }
            Err(error) if matches!(error.cipher(), Some(chunk_cipher::Error::Write { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn symlink(&self, entry: &Entry) -> Result<()> {
        let target = self.model.read_link(entry)?;
        let metadata = self.model.metadata(entry)?;
        let failed = self.write_error(entry, "making the symlink");
        if self.resume && self.store.metadata(entry.path()).is_ok() {
            self.store.remove_file(entry.path()).map_err(&failed)?;
        }
        self.store
            .create_symlink(&target, entry.path())
            .map_err(&failed)?;
        let attributes = Attributes {
            modified: Some(metadata.modified),
            ..Attributes::default()
        };
        self.store
            .set_attributes(entry.path(), &attributes)
            .map_err(failed)
    }

    fn finish_dir(&self, entry: &Entry) -> Result<()> {
        let metadata = self.model.metadata(entry)?;
        let attributes = self.attributes(entry, &metadata)?;
        self.store
            .set_attributes(entry.path(), &attributes)
            .map_err(self.write_error(entry, "setting the attributes of"))
    }

    fn finish_root(&self) -> Result<()> {
        self.finish_dir(&self.model.lookup("")?)
    }

    /// The attributes of `entry`, as far as the destination can hold them and the model may ask for them.
    fn attributes(&self, entry: &Entry, metadata: &Metadata) -> Result<Attributes> {
        let mut xattrs = self.model.xattrs(entry)?;
        // Nothing that the system gives a meaning, such as capabilities.
        xattrs.retain(|(name, _)| gocryptfs_core::is_sealable_xattr(name));
        if !xattrs.is_empty() && !*self.xattrs.get_or_init(|| self.store.supports_xattrs()) {
            self.progress.warn(&format!(
                "the extended attributes of {} are left out: the destination's file system has none",
                entry.path().display()
            ));
            xattrs.clear();
        }
        Ok(Attributes {
            mode: Some(metadata.mode & 0o777),
            modified: Some(metadata.modified),
            xattrs,
        })
    }
}
