//! Files that are open.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::file::SealedFile;

/// Files that are kept open: the kernel does not say when it opens and closes them.
const CAPACITY: usize = 128;

/// The files that were read last, by inode.
#[derive(Default)]
pub(super) struct Files {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    files: HashMap<u64, (Arc<SealedFile>, u64)>,
    /// Counts uses: what was used longest ago is closed first.
    clock: u64,
}

impl Files {
    /// The file of `inode`, opened by `open` where it is not.
    pub(super) fn get(
        &self,
        inode: u64,
        open: impl FnOnce() -> Result<SealedFile>,
    ) -> Result<Arc<SealedFile>> {
        if let Some(file) = self.lock().touch(inode) {
            return Ok(file);
        }
        // Not under the lock: storage may be slow. Two threads may both open it, which does no harm.
        let file = Arc::new(open()?);
        self.lock().insert(inode, &file);
        Ok(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn touch(&mut self, inode: u64) -> Option<Arc<SealedFile>> {
        self.clock += 1;
        let (file, used) = self.files.get_mut(&inode)?;
        *used = self.clock;
        Some(Arc::clone(file))
    }

    fn insert(&mut self, inode: u64, file: &Arc<SealedFile>) {
        self.clock += 1;
        self.files.insert(inode, (Arc::clone(file), self.clock));
        if self.files.len() > CAPACITY {
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(inode, _)| *inode) {
                self.files.remove(&oldest);
            }
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}
