//! A model that is begun and not complete yet, whatever its format.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use chunk_cipher::Engine;
use chunk_cipher::store::WriteStore;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use super::job::{Job, Sources, Tree};
use super::text::{Record, SealTask, Task, Text, Ticket};
use super::{Planned, SealOptions};
use crate::error::{Error, Result};
use crate::writer::Writer;
use crate::{Progress, Summary};

pub(super) trait Begun: Send + Sync {
    /// Seals all files in this process.
    fn seal_all(&self, engine: &Engine, progress: &dyn Progress) -> Result<()>;

    /// What lets other processes join in.
    fn ticket(&self, job: &str) -> Result<Ticket>;

    /// What there is for them to do, the longest files first.
    fn tasks(&self, job: &str) -> Result<Vec<SealTask>>;

    /// Takes what one of them has done. Returns whether the file can be a part of the model; else it is gone, and to be
    /// sealed again.
    fn take(&self, record: &Record) -> Result<bool>;

    /// Makes sure that all files were taken, and are stored in all their length.
    fn check(&self) -> Result<()>;

    /// Makes the model complete.
    fn finish(self: Box<Self>, progress: &dyn Progress) -> Result<Summary>;
}

pub(super) struct Sealing<'a, W: Writer> {
    writer: W,
    finish: W::Finish,
    sources: Sources<'a>,
    followed: u64,
    destination: PathBuf,
    resume: bool,
    tree: Tree<W::Dir>,
    kept: AtomicU64,
    /// Files that no other process has sealed yet, by their index.
    awaited: Mutex<HashMap<PathBuf, usize>>,
}

impl<'a, W: Writer> Sealing<'a, W> {
    pub(super) fn begin(
        planned: Planned<'a>,
        writer: W,
        finish: W::Finish,
        destination: &Path,
        options: &SealOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let Planned {
            plan,
            sources,
            followed,
        } = planned;
        let tree = Job::new(&writer, &sources, destination, options.resume, progress).make_tree(plan)?;
        let files = tree.files.iter().enumerate();
        let awaited = files.map(|(index, file)| (file.path.clone(), index)).collect();
        Ok(Self {
            writer,
            finish,
            sources,
            followed,
            destination: destination.to_path_buf(),
            resume: options.resume,
            tree,
            kept: AtomicU64::new(0),
            awaited: Mutex::new(awaited),
        })
    }

    fn job<'j>(&'j self, progress: &'j dyn Progress) -> Job<'j, W> {
        Job::new(
            &self.writer,
            &self.sources,
            &self.destination,
            self.resume,
            progress,
        )
    }

    fn refresh(&self) -> Result<()> {
        let refreshed = self.writer.store().refresh();
        refreshed.map_err(|source| Error::io(&self.destination, "listing", source))
    }
}

impl<W: Writer> Begun for Sealing<'_, W> {
    fn seal_all(&self, engine: &Engine, progress: &dyn Progress) -> Result<()> {
        let job = self.job(progress);
        engine.pool().run(|| {
            self.tree.files.par_iter().with_max_len(1).try_for_each(|file| {
                let kept = job.list_file(file)?;
                self.kept.fetch_add(u64::from(kept), Ordering::Relaxed);
                Ok(())
            })
        })?
    }

    fn ticket(&self, job: &str) -> Result<Ticket> {
        let (format, partial) = self.writer.partial()?;
        Ok(Ticket {
            job: job.to_owned(),
            format,
            partial,
        })
    }

    fn tasks(&self, job: &str) -> Result<Vec<SealTask>> {
        let files = self.tree.files.iter();
        let tasks = files.map(|file| {
            Ok(SealTask {
                len: file.plan.len,
                text: Task::new(job, &file.path, &file.plan)?.to_text(),
            })
        });
        let mut tasks = tasks.collect::<Result<Vec<_>>>()?;
        // Those that are as long keep their order.
        tasks.sort_by_key(|task| std::cmp::Reverse(task.len));
        Ok(tasks)
    }

    fn take(&self, record: &Record) -> Result<bool> {
        let path = record.path();
        let wrong = |what: String| Error::shared(&path, format!("its record cannot be taken: {what}"));
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(&index) = awaited.get(&path) else {
            return Err(wrong("no such file is waited for".to_owned()));
        };
        let file = self
            .tree
            .files
            .get(index)
            .ok_or_else(|| wrong("no such file".to_owned()))?;
        let listed = self
            .writer
            .unpack(record.entry.as_deref(), &path, &file.plan)
            .map_err(wrong)?;
        if !self.writer.list(listed)? {
            self.refresh()?;
            self.writer.remove(&file.parent, file.name())?;
            return Ok(false);
        }
        awaited.remove(&path);
        self.kept.fetch_add(u64::from(record.kept), Ordering::Relaxed);
        Ok(true)
    }

    fn check(&self) -> Result<()> {
        let awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = awaited.keys().min() {
            return Err(Error::shared(
                &self.destination,
                format!(
                    "{} files are not sealed yet, {} first",
                    awaited.len(),
                    path.display()
                ),
            ));
        }
        drop(awaited);
        self.refresh()?;
        let store = self.writer.store();
        let removed = store.remove_leftovers();
        removed.map_err(|source| Error::io(&self.destination, "removing leftovers in", source))?;
        for file in &self.tree.files {
            if !self.writer.is_stored(&file.parent, file.name(), file.plan.len)? {
                return Err(Error::shared(
                    &self.destination,
                    format!(
                        "{} was sealed, but is not stored there in all its length; do all machines write to the same \
                         place? Go on with --resume",
                        file.path.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, progress: &dyn Progress) -> Result<Summary> {
        let root = self.job(progress).finish_dirs(&self.tree)?;
        let kept = self.kept.load(Ordering::Relaxed);
        let summary = self.tree.summary(kept, self.followed);
        let Self { writer, finish, .. } = *self;
        writer.finish(&root, finish)?;
        Ok(summary)
    }
}
