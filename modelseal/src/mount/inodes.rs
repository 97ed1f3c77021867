//! Inodes: the entries of a model by number, and the names in its directories.
//!
//! A directory is listed once, when something in it is first asked for; its names are found by their hashes then.
//! Numbers are given in the order in which directories are listed, and never change while the model is mounted.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use chunk_cipher::store::{Kind, Metadata, Xattr};

use crate::error::Result;
use crate::model::Model;
use crate::tree::{Entry, Found};

use super::log::Log;

/// The number of the root.
const ROOT: u64 = 1;

/// All inodes that are known so far.
pub(super) struct Inodes {
    /// The inode with number n at n - 1.
    inodes: RwLock<Vec<Arc<Inode>>>,
}

/// An entry of the model.
pub(super) struct Inode {
    pub(super) number: u64,
    /// The number of the directory that it is in; the root is in itself.
    pub(super) parent: u64,
    pub(super) entry: Entry,
    metadata: OnceLock<Metadata>,
    xattrs: OnceLock<Vec<Xattr>>,
    listing: OnceLock<Listing>,
    /// Held while the directory is being listed.
    being_listed: Mutex<()>,
}

/// What a directory holds.
pub(super) struct Listing {
    /// Sorted by name.
    pub(super) entries: Vec<Arc<Inode>>,
    by_name: HashMap<OsString, usize>,
}

impl Inodes {
    pub(super) fn new(root: Entry) -> Self {
        Self {
            inodes: RwLock::new(vec![Arc::new(Inode::new(ROOT, ROOT, root))]),
        }
    }

    /// The inode with this number, which the kernel has from us.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Inode>> {
        let inodes = self.inodes.read().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        inodes.get(index).cloned()
    }

    /// What is called `name` in the directory `dir`.
    pub(super) fn lookup(
        &self,
        dir: &Inode,
        name: &OsStr,
        model: &Model,
        log: &Log,
    ) -> Result<Option<Arc<Inode>>> {
        let listing = self.list(dir, model, log)?;
        let index = listing.by_name.get(name);
        Ok(index.map(|index| Arc::clone(&listing.entries[*index])))
    }

    /// What the directory `dir` holds.
    pub(super) fn list<'a>(&self, dir: &'a Inode, model: &Model, log: &Log) -> Result<&'a Listing> {
        if let Some(listing) = dir.listing.get() {
            return Ok(listing);
        }
        let _guard = dir.being_listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = dir.listing.get() {
            return Ok(listing);
        }
        let mut found = Vec::new();
        for entry in model.list(&dir.entry)? {
            match entry {
                Found::Entry(entry) if entry.kind() == Kind::Other => {}
                Found::Entry(entry) => found.push(entry),
                Found::Stray(_, error) | Found::Unreadable(_, error) => log.error(&error),
            }
        }
        let entries = self.add(dir.number, found);
        let by_name = entries.iter().enumerate();
        let by_name = by_name.map(|(index, inode)| (inode.name().to_os_string(), index));
        let listing = Listing {
            by_name: by_name.collect(),
            entries,
        };
        Ok(dir.listing.get_or_init(|| listing))
    }

    /// Gives numbers to entries of the directory `parent`.
    fn add(&self, parent: u64, entries: Vec<Entry>) -> Vec<Arc<Inode>> {
        let mut inodes = self.inodes.write().unwrap_or_else(PoisonError::into_inner);
        let first = inodes.len() as u64 + 1;
        let numbered = (first..).zip(entries);
        let added: Vec<_> = numbered
            .map(|(number, entry)| Arc::new(Inode::new(number, parent, entry)))
            .collect();
        inodes.extend(added.iter().cloned());
        added
    }
}

impl Inode {
    fn new(number: u64, parent: u64, entry: Entry) -> Self {
        Self {
            number,
            parent,
            entry,
            metadata: OnceLock::new(),
            xattrs: OnceLock::new(),
            listing: OnceLock::new(),
            being_listed: Mutex::new(()),
        }
    }

    /// Its name in its directory.
    pub(super) fn name(&self) -> &OsStr {
        self.entry.path().file_name().unwrap_or_default()
    }

    /// What is known of it, read once.
    pub(super) fn metadata(&self, model: &Model) -> Result<&Metadata> {
        if let Some(metadata) = self.metadata.get() {
            return Ok(metadata);
        }
        let metadata = model.metadata(&self.entry)?;
        Ok(self.metadata.get_or_init(|| metadata))
    }

    /// Its extended attributes, read once.
    pub(super) fn xattrs(&self, model: &Model) -> Result<&[Xattr]> {
        if let Some(xattrs) = self.xattrs.get() {
            return Ok(xattrs);
        }
        let xattrs = model.xattrs(&self.entry)?;
        Ok(self.xattrs.get_or_init(|| xattrs))
    }
}
