//! Sealing one model by several processes, on as many machines as there are.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use chunk_cipher::Engine;
use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;
use chunk_cipher::random;
use chunk_cipher::store::ReadMode;

use super::begun::Begun;
use super::job::{FileJob, Job, Sources};
use super::start::{join_package, join_vault};
use super::text::{Record, Task, Text, Ticket};
use super::{Planned, SealOptions};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::storage::{ObjectOptions, Storage, is_url};
use crate::writer::{Format, Writer};
use crate::{Progress, Summary};

pub use super::text::SealTask;

/// A model that several processes seal together: this one begins and finishes it, and each [`SealMember`] seals files.
///
/// What they tell each other is text without secrets; how it gets from one to the other, and who does what when, is up to
/// the caller. Source and destination must lead to the same on all machines. The result is what [`seal`](super::seal) makes,
/// and what is interrupted is gone on with as there, also by that: nobody holds anything that is not in the destination.
///
/// ```no_run
/// use std::path::Path;
/// use modelseal::{JoinOptions, Key, SealMember, SealOptions, SharedSeal};
/// # fn sealed(key: &Key) -> modelseal::Result<()> {
/// let (source, destination) = (Path::new("s3://plain/model"), Path::new("s3://sealed/model"));
/// let shared = SharedSeal::begin(source, destination, key, &SealOptions::default(), &())?;
///
/// // In any number of other processes, which have been sent the ticket:
/// let member = SealMember::join(source, destination, key, shared.ticket(), &JoinOptions::default())?;
///
/// for task in shared.tasks() {
///     // Sent to one of them, and its answer back.
///     while !shared.take(&member.seal(&task.text, &())?)? {}
/// }
/// shared.finish(&())?;
/// # Ok(())
/// # }
/// ```
pub struct SharedSeal {
    begun: Box<dyn Begun>,
    destination: PathBuf,
    job: String,
    ticket: String,
    tasks: Vec<SealTask>,
}

impl SharedSeal {
    /// Starts or resumes the model at `destination`, and makes its directories and symlinks. Nobody else can seal there for
    /// as long as this lives; in object storage the first object of a run refuses to replace another's.
    ///
    /// # Errors
    /// As [`seal`](super::seal).
    pub fn begin(
        source: &Path,
        destination: &Path,
        key: &Key,
        options: &SealOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let planned = Planned::read(source, destination, options)?;
        let begun = planned.begin(destination, key, options, progress)?;
        let mut id = [0; 16];
        random::fill(&mut id)?;
        let job = format!("{:032x}", u128::from_be_bytes(id));
        Ok(Self {
            ticket: begun.ticket(&job)?.to_text(),
            tasks: begun.tasks(&job)?,
            begun,
            destination: destination.to_path_buf(),
            job,
        })
    }

    /// What [`SealMember::join`] takes.
    #[must_use]
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// All files, the longest first: each is to be sealed by some member, those that an interrupted run has finished
    /// included, which are then only checked. No two should have the same at a time; where they do, one fails or finds it
    /// done.
    #[must_use]
    pub fn tasks(&self) -> &[SealTask] {
        &self.tasks
    }

    /// Takes what a member has answered to a task. Returns whether the file is done; if not, its task is to be given out
    /// again: somebody has put another file of the model in its place, which is removed.
    ///
    /// # Errors
    /// [`Error::Shared`] where it is the answer to no task of this sealing, or one that was taken already.
    pub fn take(&self, record: &str) -> Result<bool> {
        let record = Record::from_text(record, &self.destination)?;
        if record.job != self.job {
            return Err(Error::shared(
                &self.destination,
                "a record belongs to another sealing, or to an earlier run of this one",
            ));
        }
        self.begun.take(&record)
    }

    /// Makes the model complete, once all records were taken and all files are there in all their length. What killed
    /// members left is removed.
    ///
    /// # Errors
    /// [`Error::Shared`] where a record or a file is missing, and as [`seal`](super::seal).
    pub fn finish(self, progress: &dyn Progress) -> Result<Summary> {
        self.begun.check()?;
        self.begun.finish(progress)
    }
}

impl fmt::Debug for SharedSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSeal")
            .field("destination", &self.destination)
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

/// How a process takes part.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Memory that scrypt may take, in bytes: 1 GiB unless set.
    pub scrypt_memory: u64,
    /// The threads that encrypt.
    pub engine: Engine,
    /// How object storage is reached.
    pub objects: ObjectOptions,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self {
            scrypt_memory: DEFAULT_SCRYPT_MEMORY,
            engine: Engine::default(),
            objects: ObjectOptions::default(),
        }
    }
}

/// A process that seals files of a [`SharedSeal`]. It can be shared by threads.
pub struct SealMember {
    joined: Box<dyn Joined>,
    destination: PathBuf,
    job: String,
}

impl SealMember {
    /// Unlocks what was begun at `destination`, which takes as long as opening a model does. It has no part in the lock, and
    /// nothing is changed.
    ///
    /// # Errors
    /// [`Error::Shared`] where something else was begun there, [`Error::Vault`] and [`Error::Package`] where the key is not
    /// that of the sealing, [`Error::Io`].
    pub fn join(
        source: &Path,
        destination: &Path,
        key: &Key,
        ticket: &str,
        options: &JoinOptions,
    ) -> Result<Self> {
        let ticket = Ticket::from_text(ticket, destination)?;
        let sources = if is_url(source) {
            Sources::Stored(Storage::reach(source, &options.objects, ReadMode::Copy)?)
        } else {
            Sources::Local
        };
        let joined: Box<dyn Joined> = match ticket.format {
            Format::Gocryptfs => {
                let writer = join_vault(destination, &ticket.partial, key, options)?;
                Box::new(Member::new(writer, sources, source, destination))
            }
            Format::Sam => {
                let writer = join_package(destination, &ticket.partial, key, options)?;
                Box::new(Member::new(writer, sources, source, destination))
            }
        };
        Ok(Self {
            joined,
            destination: destination.to_path_buf(),
            job: ticket.job,
        })
    }

    /// Seals the file of a task, under a fresh file ID. One that is there already stays if it is complete, opens and is what
    /// the source holds; else it is replaced. Returns what [`SharedSeal::take`] takes.
    ///
    /// # Errors
    /// [`Error::Shared`] where the task is none of this sealing, [`Error::File`] where the file is not what it was when the
    /// sealing began, and as [`seal`](super::seal).
    pub fn seal(&self, task: &str, progress: &dyn Progress) -> Result<String> {
        let task = Task::from_text(task, &self.destination)?;
        if task.job != self.job {
            return Err(Error::shared(
                &self.destination,
                "a task belongs to another sealing, or to an earlier run of this one",
            ));
        }
        self.joined.seal(&task, progress).map(|record| record.to_text())
    }
}

impl fmt::Debug for SealMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealMember")
            .field("destination", &self.destination)
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

trait Joined: Send + Sync {
    fn seal(&self, task: &Task, progress: &dyn Progress) -> Result<Record>;
}

struct Member<W: Writer> {
    writer: W,
    sources: Sources<'static>,
    source: PathBuf,
    destination: PathBuf,
    /// Directories that were opened.
    dirs: Mutex<HashMap<PathBuf, W::Dir>>,
}

impl<W: Writer> Member<W> {
    fn new(writer: W, sources: Sources<'static>, source: &Path, destination: &Path) -> Self {
        Self {
            writer,
            sources,
            source: source.to_path_buf(),
            destination: destination.to_path_buf(),
            dirs: Mutex::default(),
        }
    }

    fn dir(&self, path: &Path) -> Result<W::Dir> {
        let known = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = known.get(path) {
            return Ok(dir.clone());
        }
        drop(known);
        let dir = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.writer.open_dir(&self.dir(parent)?, name.as_bytes())?,
            _ => self.writer.open_root()?,
        };
        let mut known = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(path.to_path_buf(), dir.clone());
        Ok(dir)
    }
}

impl<W: Writer> Joined for Member<W> {
    fn seal(&self, task: &Task, progress: &dyn Progress) -> Result<Record> {
        // Others may have written since this was last looked at.
        let refreshed = self.writer.store().refresh();
        refreshed.map_err(|source| Error::io(&self.destination, "listing", source))?;
        let path = task.path().to_path_buf();
        let file = FileJob {
            parent: self.dir(path.parent().unwrap_or(Path::new("")))?,
            path,
            plan: task.plan(&self.source),
        };
        let job = Job::new(&self.writer, &self.sources, &self.destination, true, progress);
        let done = job.file(&file)?;
        Ok(Record::new(task, done.kept, W::pack(done.record)))
    }
}
