//! An open package: its tree, by the manifest, and its files.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use chunk_cipher::Engine;
use chunk_cipher::store::{Kind, Metadata, Store};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::error::{Error, Result};
use crate::file::{PackageFile, stored_len};
use crate::header::Header;
use crate::license::License;
use crate::manifest::{Entry, EntryKind, Manifest};
use crate::open::Unlocked;
use crate::write::to_path;

/// The directory with the stored files.
pub const CONTENT_DIR: &str = "content";

/// A package, open for reading. Any number of threads may share it.
#[derive(Debug)]
pub struct Package<S> {
    store: S,
    unlocked: Unlocked,
    engine: Engine,
}

impl<S: Store> Package<S> {
    /// Opens the package in `store` with what [`Locked::unlock`](crate::Locked::unlock) gave: `content` must hold just the
    /// files of the manifest, at their lengths.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unlisted`] and [`Error::Mismatch`] where it does not, [`Error::Io`].
    pub fn open(store: S, unlocked: Unlocked, engine: Engine) -> Result<Self> {
        engine
            .pool()
            .run(|| check_content(&store, &unlocked.manifest))??;
        Ok(Self {
            store,
            unlocked,
            engine,
        })
    }

    /// The license that it was opened with.
    #[must_use]
    pub const fn license(&self) -> &License {
        &self.unlocked.license
    }

    /// What the package holds.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.unlocked.manifest
    }

    /// The engine that reads file content.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The entry at `path`: [`lookup`].
    ///
    /// # Errors
    /// As [`lookup`].
    pub fn lookup(&self, path: &Path) -> Result<&Entry> {
        lookup(self.manifest(), path)
    }

    /// Opens the content of a file.
    ///
    /// # Errors
    /// [`Error::Io`] where it is none or cannot be opened, [`Error::Header`] and [`Error::Mismatch`] where what is
    /// stored is not the file of the manifest.
    pub fn open_file(&self, entry: &Entry) -> Result<PackageFile<S::File>> {
        let stored = content_path(&entry.path);
        let (Some(header), EntryKind::File { digest, .. }) = (header_of(entry, self.manifest()), &entry.kind)
        else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no file");
            return Err(Error::io(&stored, "opening", source));
        };
        let file = self.store.open(&stored);
        let file = file.map_err(|source| Error::stored(&stored, "opening", source))?;
        let (key, engine) = (&self.unlocked.key, self.engine.clone());
        PackageFile::open(
            entry.path().to_path_buf(),
            file,
            &header,
            Some(*digest),
            key,
            engine,
        )
    }
}

/// The entry at `path` in a manifest. Symlinks are not followed.
///
/// # Errors
/// [`Error::Io`] with [`io::ErrorKind::NotFound`] where there is none.
pub fn lookup<'a>(manifest: &'a Manifest, path: &Path) -> Result<&'a Entry> {
    let mut wanted = Vec::new();
    for part in path.components() {
        let name = match part {
            Component::CurDir | Component::RootDir => continue,
            Component::Normal(name) => name.as_bytes(),
            Component::ParentDir | Component::Prefix(_) => {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "it leads out of the package");
                return Err(Error::io(path, "finding", source));
            }
        };
        if !wanted.is_empty() {
            wanted.push(b'/');
        }
        wanted.extend_from_slice(name);
    }
    let missing = || Error::io(path, "finding", io::ErrorKind::NotFound.into());
    manifest.get(&wanted).ok_or_else(missing)
}

impl Entry {
    /// Where a file or a directory is stored, from the root of the package.
    #[must_use]
    pub fn stored_path(&self) -> PathBuf {
        content_path(&self.path)
    }

    /// What is known of it. The length of a symlink is that of its target.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        let (kind, len, mode) = match &self.kind {
            EntryKind::File { mode, length, .. } => (Kind::File, *length, *mode),
            EntryKind::Dir { mode } => (Kind::Dir, 0, *mode),
            EntryKind::Symlink { target } => (Kind::Symlink, target.len() as u64, 0o777),
        };
        Metadata {
            kind,
            len,
            mode,
            modified: self.modified.to_system_time(),
        }
    }
}

/// The header that the stored file of `entry` must have; none where it is no file.
pub(crate) fn header_of(entry: &Entry, manifest: &Manifest) -> Option<Header> {
    match &entry.kind {
        EntryKind::File { length, file_id, .. } => Some(Header {
            len: *length,
            chunk_len: manifest.chunk_len(),
            id: *file_id,
        }),
        EntryKind::Dir { .. } | EntryKind::Symlink { .. } => None,
    }
}

/// Where the content of the entry at `path` is stored.
pub(crate) fn content_path(path: &[u8]) -> PathBuf {
    Path::new(CONTENT_DIR).join(to_path(path))
}

/// Makes sure that `content` holds a file of the right length for every file of the manifest, and nothing else.
///
/// # Errors
/// [`Error::Missing`], [`Error::Unlisted`], [`Error::Mismatch`] and [`Error::Io`].
pub fn check_content<S: Store>(store: &S, manifest: &Manifest) -> Result<()> {
    let files: Vec<_> = manifest
        .entries()
        .iter()
        .filter_map(|entry| header_of(entry, manifest).map(|header| (entry, header)))
        .collect();
    let kinds: HashMap<&[u8], Kind> = manifest
        .entries()
        .iter()
        .map(|entry| (entry.path.as_slice(), entry.metadata().kind))
        .collect();
    let (listed, measured) = rayon::join(
        || check_listing(store, &kinds),
        || {
            files
                .par_iter()
                .try_for_each(|(entry, header)| check_length(store, entry, header))
        },
    );
    listed.and(measured)
}

/// Refuses whatever lies in `content` and is not in the manifest.
fn check_listing<S: Store>(store: &S, kinds: &HashMap<&[u8], Kind>) -> Result<()> {
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let stored = content_path(dir.as_os_str().as_bytes());
        let listed = match store.list(&stored) {
            // Nothing lies there that would be too much; files that belong there are missed on their own.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listed => listed.map_err(|source| Error::stored(&stored, "listing", source))?,
        };
        for (name, kind) in listed {
            let path = dir.join(&name);
            match kinds.get(path.as_os_str().as_bytes()) {
                Some(Kind::File) if kind == Kind::File => {}
                Some(Kind::Dir) if kind == Kind::Dir => dirs.push(path),
                _ => {
                    return Err(Error::Unlisted {
                        path: stored.join(name),
                    });
                }
            }
        }
    }
    Ok(())
}

fn check_length<S: Store>(store: &S, entry: &Entry, header: &Header) -> Result<()> {
    let stored = content_path(&entry.path);
    let metadata = store.metadata(&stored);
    let metadata = metadata.map_err(|source| Error::stored(&stored, "finding", source))?;
    let what = match metadata.kind {
        Kind::File if metadata.len == stored_len(header) => return Ok(()),
        Kind::File => "it is stored in another length",
        _ => "it is no file",
    };
    Err(Error::Mismatch { path: stored, what })
}
