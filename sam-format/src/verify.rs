//! Checking a whole package.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use chunk_cipher::store::{ReadAt, Store};
use chunk_cipher::{Engine, Progress};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::digest;
use crate::error::{Error, Result};
use crate::file;
use crate::manifest::{Entry, EntryKind, Manifest};
use crate::package::{Package, content_path, header_of};
use crate::write::to_path;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Directories, without the one where it began.
    pub dirs: u64,
    /// Regular files.
    pub files: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Plaintext bytes of the files.
    pub bytes: u64,
    /// Things that are damaged.
    pub damaged: u64,
}

/// Something damaged.
#[derive(Debug)]
pub struct Damage {
    /// Its path in the package.
    pub path: PathBuf,
    /// What is wrong.
    pub error: Error,
}

/// Reads every stored file below the directory at `start` and compares its digest with that of the manifest, which takes
/// no key. Calls `report` with whatever is damaged, and goes on.
///
/// # Errors
/// [`Error::Io`] where `start` is no directory, [`Error::Cipher`] where the threads could not be started, or `progress`
/// calls it off.
pub fn verify_digests<S: Store>(
    store: &S,
    manifest: &Manifest,
    start: &[u8],
    engine: &Engine,
    progress: &dyn Progress,
    report: &(dyn Fn(Damage) + Sync),
) -> Result<Verified> {
    each_file(manifest, start, engine, report, &|entry| {
        check_digest(store, manifest, entry, engine, progress)
    })
}

impl<S: Store> Package<S> {
    /// Opens every chunk of every file below the directory at `start`, and compares digests as [`verify_digests`] does:
    /// tags alone say nothing against someone who has the key.
    ///
    /// # Errors
    /// As [`verify_digests`].
    pub fn verify(
        &self,
        start: &[u8],
        progress: &dyn Progress,
        report: &(dyn Fn(Damage) + Sync),
    ) -> Result<Verified> {
        each_file(self.manifest(), start, self.engine(), report, &|entry| {
            self.open_file(entry)?.verify(progress)
        })
    }
}

fn each_file(
    manifest: &Manifest,
    start: &[u8],
    engine: &Engine,
    report: &(dyn Fn(Damage) + Sync),
    check: &(dyn Fn(&Entry) -> Result<()> + Sync),
) -> Result<Verified> {
    if !manifest.get(start).is_some_and(Entry::is_dir) {
        let source = io::ErrorKind::NotADirectory.into();
        return Err(Error::io(to_path(start), "checking", source));
    }
    let entries = manifest.below(start);
    let mut verified = Verified::default();
    for entry in entries {
        match &entry.kind {
            EntryKind::File { length, .. } => {
                verified.files += 1;
                verified.bytes = verified.bytes.saturating_add(*length);
            }
            EntryKind::Dir { .. } => verified.dirs += 1,
            EntryKind::Symlink { .. } => verified.symlinks += 1,
        }
    }
    let damaged = AtomicU64::new(0);
    engine.pool().run(|| {
        entries.par_iter().try_for_each(|entry| {
            if !matches!(entry.kind, EntryKind::File { .. }) {
                return Ok(());
            }
            match check(entry) {
                Ok(()) => Ok(()),
                Err(Error::File {
                    source: chunk_cipher::Error::Cancelled,
                    ..
                }) => Err(chunk_cipher::Error::Cancelled),
                Err(error) => {
                    damaged.fetch_add(1, Ordering::Relaxed);
                    report(Damage {
                        path: entry.path().to_path_buf(),
                        error,
                    });
                    Ok(())
                }
            }
        })
    })??;
    verified.damaged = damaged.into_inner();
    Ok(verified)
}

fn check_digest<S: Store>(
    store: &S,
    manifest: &Manifest,
    entry: &Entry,
    engine: &Engine,
    progress: &dyn Progress,
) -> Result<()> {
    let (EntryKind::File { digest, .. }, Some(header)) = (&entry.kind, header_of(entry, manifest)) else {
        return Ok(());
    };
    let path = content_path(&entry.path);
    let failed = |source| Error::stored(&path, "reading", source);
    let file = store.open(&path).map_err(failed)?;
    if file.len().map_err(failed)? != file::stored_len(&header) {
        let what = "it is stored in another length";
        return Err(Error::Mismatch { path, what });
    }
    let found = digest::digest(engine, &file, &header, progress);
    if found.map_err(|source| Error::file(&path, source))? == *digest {
        Ok(())
    } else {
        Err(Error::Digest { path })
    }
}
