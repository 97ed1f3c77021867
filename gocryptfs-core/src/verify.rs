//! Checking a whole vault.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use chunk_cipher::Progress;
use chunk_cipher::store::{Kind, Store};
use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::error::{Error, Result};
use crate::tree::{Dir, Entry, Found, Vault};

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
    /// Blocks that are holes: they read as zeros, and nothing shows whether they always did.
    pub holes: u64,
    /// Things that are damaged.
    pub damaged: u64,
}

/// Something damaged.
#[derive(Debug)]
pub struct Damage {
    /// Where: its path in the vault, or its stored path where the name does not decrypt.
    pub path: PathBuf,
    /// What is wrong.
    pub error: Error,
}

#[derive(Default)]
struct Counters {
    dirs: AtomicU64,
    files: AtomicU64,
    symlinks: AtomicU64,
    bytes: AtomicU64,
    holes: AtomicU64,
    damaged: AtomicU64,
}

impl<S: Store> Vault<S> {
    /// Reads `dir` and everything below it: names, file content, symlinks and extended attributes. Calls `report` with
    /// whatever is damaged, and goes on.
    ///
    /// # Errors
    /// [`Error::Cipher`] where the threads could not be started, or `progress` calls it off.
    pub fn verify(
        &self,
        dir: Dir,
        progress: &dyn Progress,
        report: &(dyn Fn(Damage) + Sync),
    ) -> Result<Verified> {
        let counters = Counters::default();
        let damaged = |damage| {
            counters.damaged.fetch_add(1, Ordering::Relaxed);
            report(damage);
        };
        if let Err(error) = self.xattrs(&dir.to_entry()) {
            let path = dir.path().to_path_buf();
            damaged(Damage { path, error });
        }
        let walk = self.walk(dir);
        self.engine().pool().run(|| {
            walk.par_bridge().try_for_each(|found| {
                let checked = match found {
                    Found::Entry(entry) => self.verify_entry(&entry, &counters, progress),
                    Found::Stray(path, error) | Found::Unreadable(path, error) => Err(Damage { path, error }),
                };
                match checked {
                    Err(Damage {
                        error:
                            Error::File {
                                source: chunk_cipher::Error::Cancelled,
                                ..
                            },
                        ..
                    }) => Err(chunk_cipher::Error::Cancelled),
                    Err(damage) => {
                        damaged(damage);
                        Ok(())
                    }
                    Ok(()) => Ok(()),
                }
            })
        })??;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Verified {
            dirs: get(&counters.dirs),
            files: get(&counters.files),
            symlinks: get(&counters.symlinks),
            bytes: get(&counters.bytes),
            holes: get(&counters.holes),
            damaged: get(&counters.damaged),
        })
    }

    fn verify_entry(
        &self,
        entry: &Entry,
        counters: &Counters,
        progress: &dyn Progress,
    ) -> std::result::Result<(), Damage> {
        let damage = |error| Damage {
            path: entry.path().to_path_buf(),
            error,
        };
        let count = |counter: &AtomicU64, n| {
            counter.fetch_add(n, Ordering::Relaxed);
        };
        match entry.kind() {
            Kind::Dir => count(&counters.dirs, 1),
            Kind::Symlink => {
                count(&counters.symlinks, 1);
                self.read_link(entry).map_err(damage)?;
            }
            Kind::File => {
                count(&counters.files, 1);
                let file = self.open_file(entry).map_err(damage)?;
                let scan = file.scan(progress).map_err(damage)?;
                count(&counters.bytes, file.len());
                count(
                    &counters.holes,
                    scan.holes.iter().map(|range| range.end - range.start).sum(),
                );
                if !scan.damaged.is_empty() {
                    let path = entry.path().to_path_buf();
                    return Err(damage(Error::Blocks {
                        path,
                        blocks: scan.damaged,
                    }));
                }
            }
            Kind::Other => {}
        }
        self.xattrs(entry).map_err(damage)?;
        Ok(())
    }
}
