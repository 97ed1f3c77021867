//! The work itself: directories first, then file by file, whoever does them.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chunk_cipher::store::{Attributes, Kind, LocalFile, ReadAt, ReadMode, Source, Xattr};
use rustix::fs::{Mode, OFlags, open};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::plan::{DirOrigin, Origin, PlanDir, PlanEntry, PlanFile};
use crate::storage::Storage;
use crate::tree::Entry;
use crate::writer::Writer;
use crate::{Progress, Summary};

/// Where files are read from.
pub(super) enum Sources<'a> {
    Local,
    Stored(Storage),
    Model(&'a Model),
}

/// What is to be sealed, once all its directories are there.
pub(super) struct Tree<D> {
    /// Without entries, as those below.
    root: PlanDir,
    dirs: Vec<(D, PlanDir)>,
    pub(super) files: Vec<FileJob<D>>,
    symlinks: u64,
}

impl<D> Tree<D> {
    pub(super) fn summary(&self, kept: u64, followed: u64) -> Summary {
        Summary {
            files: self.files.len() as u64,
            dirs: self.dirs.len() as u64,
            symlinks: self.symlinks,
            bytes: self
                .files
                .iter()
                .fold(0, |sum, file| file.plan.len.saturating_add(sum)),
            kept,
            followed,
            strays: 0,
        }
    }
}

/// A file to be sealed.
pub(super) struct FileJob<D> {
    pub(super) parent: D,
    /// In the model.
    pub(super) path: PathBuf,
    pub(super) plan: PlanFile,
}

impl<D> FileJob<D> {
    pub(super) fn name(&self) -> &[u8] {
        self.path.file_name().unwrap_or_default().as_bytes()
    }
}

/// A file that is sealed.
pub(super) struct Done<R> {
    pub(super) record: R,
    /// Whether an earlier run had done so.
    pub(super) kept: bool,
}

pub(super) struct Job<'a, W> {
    writer: &'a W,
    sources: &'a Sources<'a>,
    destination: &'a Path,
    /// Whether something may be there already.
    resume: bool,
    progress: &'a dyn Progress,
    /// Whether the destination can hold extended attributes, once that matters.
    xattrs: OnceLock<bool>,
}

impl<'a, W: Writer> Job<'a, W> {
    pub(super) const fn new(
        writer: &'a W,
        sources: &'a Sources<'a>,
        destination: &'a Path,
        resume: bool,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            writer,
            sources,
            destination,
            resume,
            progress,
            xattrs: OnceLock::new(),
        }
    }

    /// Makes the directories and symlinks of `plan`.
    pub(super) fn make_tree(&self, mut plan: PlanDir) -> Result<Tree<W::Dir>> {
        let entries = mem::take(&mut plan.entries);
        let mut tree = Tree {
            root: plan,
            dirs: Vec::new(),
            files: Vec::new(),
            symlinks: 0,
        };
        self.make_dirs(entries, &self.writer.root()?, Path::new(""), &mut tree)?;
        Ok(tree)
    }

    fn make_dirs(
        &self,
        entries: Vec<(OsString, PlanEntry)>,
        dir: &W::Dir,
        path: &Path,
        tree: &mut Tree<W::Dir>,
    ) -> Result<()> {
        if self.resume {
            let names: Vec<_> = entries.iter().map(|(name, _)| name.as_bytes()).collect();
            if let Some(found) = self.writer.find_stale(dir, &names)? {
                return Err(Error::Resume {
                    path: self.destination.to_path_buf(),
                    what: format!(
                        "it holds {}, which is not in the source any more; remove the destination and start afresh",
                        found.display()
                    ),
                });
            }
        }
        for (name, entry) in entries {
            let path = path.join(&name);
            match entry {
                PlanEntry::Dir(mut child) => {
                    self.there(dir, &name, Kind::Dir)?;
                    let made = self.writer.create_dir(dir, name.as_bytes())?;
                    let entries = mem::take(&mut child.entries);
                    tree.dirs.push((made.clone(), child));
                    self.make_dirs(entries, &made, &path, tree)?;
                }
                PlanEntry::File(plan) => {
                    tree.files.push(FileJob {
                        parent: dir.clone(),
                        path,
                        plan,
                    });
                }
                PlanEntry::Symlink { target, modified } => {
                    tree.symlinks += 1;
                    if self.there(dir, &name, Kind::Symlink)? {
                        self.writer.remove(dir, name.as_bytes())?;
                    }
                    let attributes = Attributes {
                        modified: Some(modified),
                        ..Attributes::default()
                    };
                    let target = target.as_os_str().as_bytes();
                    self.writer
                        .write_symlink(dir, name.as_bytes(), target, &attributes)?;
                }
            }
        }
        Ok(())
    }

    /// Sets the attributes of all directories but the root, after everything in them was written. Returns those of the root.
    pub(super) fn finish_dirs(&self, tree: &Tree<W::Dir>) -> Result<Attributes> {
        // What lies deeper comes first, so that no directory changes after its times are set.
        for (dir, plan) in tree.dirs.iter().rev() {
            self.writer.finish_dir(dir, &self.dir_attributes(plan)?)?;
        }
        self.dir_attributes(&tree.root)
    }

    /// Seals one file and lists it. Returns whether an earlier run had sealed it.
    pub(super) fn list_file(&self, job: &FileJob<W::Dir>) -> Result<bool> {
        let mut done = self.file(job)?;
        while !self.writer.list(done.record)? {
            self.writer.remove(&job.parent, job.name())?;
            done = self.file(job)?;
        }
        Ok(done.kept)
    }

    /// Seals one file.
    pub(super) fn file(&self, job: &FileJob<W::Dir>) -> Result<Done<W::Record>> {
        match (&job.plan.origin, self.sources) {
            (Origin::Local { followed, id }, _) => self.local_file(job, *followed, *id),
            (Origin::Stored { etag }, Sources::Stored(store)) => {
                self.stored_file(job, store, etag.as_deref())
            }
            (Origin::Sealed(entry), Sources::Model(model)) => self.sealed_file(job, model, entry),
            _ => Err(Error::file(&job.plan.source)(chunk_cipher::Error::Changed)),
        }
    }

    fn local_file(
        &self,
        job: &FileJob<W::Dir>,
        followed: bool,
        id: Option<(u64, u64)>,
    ) -> Result<Done<W::Record>> {
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
        let modified = before.modified().map_err(failed)?;
        let same = match id {
            Some(id) => (before.dev(), before.ino()) == id,
            None => (before.len(), modified) == (job.plan.len, job.plan.modified),
        };
        if !same {
            return Err(Error::file(path)(chunk_cipher::Error::Changed));
        }
        let xattrs = chunk_cipher::store::read_xattrs(&file);
        let xattrs = xattrs.map_err(|error| Error::io(path, XATTRS, error))?;
        let attributes = Attributes {
            mode: Some(before.mode() & 0o777),
            modified: Some(modified),
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

    fn stored_file(
        &self,
        job: &FileJob<W::Dir>,
        store: &Storage,
        etag: Option<&str>,
    ) -> Result<Done<W::Record>> {
        let PlanFile {
            source,
            len,
            modified,
            ..
        } = &job.plan;
        let failed = |error| Error::io(source, "reading", error);
        let content = store
            .open_version(&job.path, *len, *modified, etag)
            .map_err(failed)?;
        let attributes = Attributes {
            mode: Some(STORED_MODE),
            modified: Some(*modified),
            xattrs: Vec::new(),
        };
        let source = Source {
            content: &content,
            len: content.len().map_err(failed)?,
            attributes: &attributes,
            // Each answer was of this one content.
            unchanged: &|| true,
        };
        self.write(job, &source)
    }

    fn sealed_file(&self, job: &FileJob<W::Dir>, model: &Model, entry: &Entry) -> Result<Done<W::Record>> {
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

    /// Writes one file, unless an earlier run or another process did.
    fn write(&self, job: &FileJob<W::Dir>, source: &Source<'_>) -> Result<Done<W::Record>> {
        match self.write_once(job, source) {
            // Somebody else was given the same file and was faster.
            Err(error) if self.resume && is_already_there(&error) => self.write_once(job, source),
            written => written,
        }
    }

    fn write_once(&self, job: &FileJob<W::Dir>, source: &Source<'_>) -> Result<Done<W::Record>> {
        let FileJob { parent, plan, .. } = job;
        let name = job.name();
        if self.there(parent, OsStr::from_bytes(name), Kind::File)? {
            if let Some(record) = self.writer.complete_file(parent, name, source, self.progress)? {
                self.progress.advance(source.len);
                return Ok(Done { record, kept: true });
            }
            self.writer.remove(parent, name)?;
        }
        let written = self.writer.write_file(parent, name, source, self.progress);
        let record = written.map_err(|error| {
            // What is wrong is with the source: name that.
            error.of_file(&plan.source, |source| {
                matches!(
                    source,
                    chunk_cipher::Error::Changed | chunk_cipher::Error::Read { .. }
                )
            })
        })?;
        Ok(Done { record, kept: false })
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
        let xattrs = match (&dir.origin, self.sources) {
            (DirOrigin::Sealed(entry), Sources::Model(model)) => model.xattrs(entry)?,
            (DirOrigin::Stored, _) => Vec::new(),
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

/// Permission bits of what has none of its own.
const STORED_MODE: u32 = 0o644;

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

fn is_already_there(error: &Error) -> bool {
    let source = error.io_source();
    source.is_some_and(|source| source.kind() == io::ErrorKind::AlreadyExists)
}
