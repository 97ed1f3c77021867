//! Where a model lies: a directory, or object storage.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chunk_cipher::store::{
    Attributes, Kind, LocalFile, LocalPending, LocalStore, Metadata, PendingFile, ReadAt, ReadMode, Remote,
    Store, Windows, WriteAt, WriteStore, Xattr,
};

use crate::error::{Error, Result};
#[cfg(feature = "object-store")]
use crate::object::{ObjectFile, ObjectPending, ObjectStorage, ObjectUrl};

/// How object storage is reached.
#[derive(Clone, Debug)]
pub struct ObjectOptions {
    /// Where an S3-compatible service is, `http(s)://HOST[:PORT]`: `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` where not set,
    /// else the service of AWS.
    pub endpoint: Option<String>,
    /// The region: `AWS_REGION`, `AWS_DEFAULT_REGION` or what the profile says where not set.
    pub region: Option<String>,
    /// Whether the bucket is part of the host's name and not of the path, as some services want it.
    pub virtual_hosted: Option<bool>,
    /// PEM file of authorities that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Bytes that one request of a large read is for at most: 8 MiB unless set. Less where that gives each connection
    /// something to do, but no less than 1 MiB.
    pub part_len: u64,
    /// Requests of a large read that are under way at once: 64 unless set.
    pub connections: usize,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            virtual_hosted: None,
            ca: None,
            part_len: 8 << 20,
            connections: 64,
        }
    }
}

/// Storage of a model, wherever it is.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    Local(LocalStore),
    #[cfg(feature = "object-store")]
    Object(ObjectStorage),
}

/// A file in it.
#[derive(Debug)]
pub(crate) enum StorageFile {
    Local(LocalFile),
    #[cfg(feature = "object-store")]
    Object(ObjectFile),
}

/// A file in it that is being written.
#[derive(Debug)]
pub(crate) enum StoragePending {
    Local(LocalPending),
    #[cfg(feature = "object-store")]
    Object(ObjectPending),
}

/// Whether `location` is a URL and no path: `./` in front makes it one.
#[must_use]
pub fn is_url(location: &Path) -> bool {
    let text = location.as_os_str().as_encoded_bytes();
    let scheme = text.iter().position(|byte| *byte == b':').unwrap_or(0);
    scheme > 1
        && text[..scheme]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
        && text[scheme..].starts_with(b"://")
}

impl Storage {
    /// The storage at `location`: a directory that is there, or a URL.
    pub(crate) fn open(location: &Path, options: &ObjectOptions, mode: ReadMode) -> Result<Self> {
        if is_url(location) {
            return Self::open_url(location, options);
        }
        Ok(Self::Local(open_local(location)?.read_mode(mode)))
    }

    /// As [`Self::open`], for a model that is to be written; a directory is made where it is missing.
    pub(crate) fn create(location: &Path, options: &ObjectOptions) -> Result<Self> {
        if !is_url(location) {
            make_destination(location)?;
        }
        let storage = Self::open(location, options, ReadMode::Auto)?;
        #[cfg(feature = "object-store")]
        if matches!(&storage, Self::Object(objects) if !objects.is_writable()) {
            return Err(Error::Location {
                location: location.to_path_buf(),
                what: "nothing can be written to a web server; use s3://",
            });
        }
        Ok(storage)
    }

    /// The storage at `location`, which another process has made or lists: nothing is, and no listing is asked for.
    pub(crate) fn reach(location: &Path, options: &ObjectOptions, mode: ReadMode) -> Result<Self> {
        #[cfg(feature = "object-store")]
        if is_url(location) {
            let storage = ObjectStorage::reach(&object_url(location)?, options);
            return Ok(Self::Object(
                storage.map_err(|source| Error::io(location, "reaching", source))?,
            ));
        }
        Self::open(location, options, mode)
    }

    #[cfg(feature = "object-store")]
    fn open_url(location: &Path, options: &ObjectOptions) -> Result<Self> {
        let storage = ObjectStorage::open(&object_url(location)?, options);
        Ok(Self::Object(
            storage.map_err(|source| Error::io(location, "reaching", source))?,
        ))
    }

    #[cfg(not(feature = "object-store"))]
    fn open_url(location: &Path, _: &ObjectOptions) -> Result<Self> {
        Err(Error::Location {
            location: location.to_path_buf(),
            what: "this build has no object storage (feature `object-store`)",
        })
    }

    /// Makes sure that no other run writes to `location` for as long as the storage is open. In object storage nothing
    /// can be locked; there the first object of a run refuses to replace another's.
    pub(crate) fn lock(&self, location: &Path) -> Result<()> {
        match self {
            Self::Local(store) => lock(store, location),
            #[cfg(feature = "object-store")]
            Self::Object(_) => Ok(()),
        }
    }

    /// Looks anew at what lies there, after other processes have written.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        match self {
            Self::Local(_) => Ok(()),
            #[cfg(feature = "object-store")]
            Self::Object(store) => store.refresh(),
        }
    }

    /// Whether nothing says what lies there.
    pub(crate) fn is_unlisted(&self) -> bool {
        match self {
            Self::Local(_) => false,
            #[cfg(feature = "object-store")]
            Self::Object(store) => store.is_unlisted(),
        }
    }

    /// What tells the content of the file at `path` from any other that it may have later, if anything is known.
    #[cfg_attr(not(feature = "object-store"), allow(unused_variables))]
    pub(crate) fn etag(&self, path: &Path) -> io::Result<Option<String>> {
        match self {
            Self::Local(_) => Ok(None),
            #[cfg(feature = "object-store")]
            Self::Object(store) => store.etag(path),
        }
    }

    /// Opens the file at `path`, where it still is what was found there.
    #[cfg_attr(not(feature = "object-store"), allow(unused_variables))]
    pub(crate) fn open_version(
        &self,
        path: &Path,
        len: u64,
        modified: SystemTime,
        etag: Option<&str>,
    ) -> io::Result<StorageFile> {
        match self {
            Self::Local(_) => Store::open(self, path),
            #[cfg(feature = "object-store")]
            Self::Object(store) => {
                let file = store.open_version(path, len, modified, etag.map(str::to_owned));
                file.map(StorageFile::Object)
            }
        }
    }
}

#[cfg(feature = "object-store")]
fn object_url(location: &Path) -> Result<ObjectUrl> {
    let invalid = |what| Error::Location {
        location: location.to_path_buf(),
        what,
    };
    let text = location.to_str().ok_or_else(|| invalid("it is not UTF-8"))?;
    text.parse().map_err(invalid)
}

/// The directory at `path`, which must be a local one.
pub(crate) fn open_local(path: &Path) -> Result<LocalStore> {
    if is_url(path) {
        return Err(Error::Location {
            location: path.to_path_buf(),
            what: "this can be done in a local directory only",
        });
    }
    LocalStore::open(path).map_err(|source| Error::io(path, "opening the directory", source))
}

/// Makes the directory at `path` where it is missing, for its owner alone until it is complete.
pub(crate) fn make_destination(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|source| Error::io(path, "making the directory", source)),
    }
}

/// Makes sure that no other run writes to the directory at `path` for as long as `store` lives.
pub(crate) fn lock(store: &LocalStore, path: &Path) -> Result<()> {
    match store.lock() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Busy {
            path: path.to_path_buf(),
        }),
        Err(source) => Err(Error::io(path, "locking", source)),
    }
}

/// Calls the same on whichever it is.
macro_rules! each {
    ($kind:ident, $self:ident, $inner:ident => $call:expr) => {
        match $self {
            $kind::Local($inner) => $call,
            #[cfg(feature = "object-store")]
            $kind::Object($inner) => $call,
        }
    };
}

impl Store for Storage {
    type File = StorageFile;

    fn open(&self, path: &Path) -> io::Result<StorageFile> {
        match self {
            Self::Local(store) => store.open(path).map(StorageFile::Local),
            #[cfg(feature = "object-store")]
            Self::Object(store) => store.open(path).map(StorageFile::Object),
        }
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        each!(Storage, self, store => store.metadata(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        each!(Storage, self, store => store.list(path))
    }

    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>> {
        each!(Storage, self, store => store.read_link(path))
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>> {
        each!(Storage, self, store => store.xattrs(path))
    }
}

impl ReadAt for StorageFile {
    fn len(&self) -> io::Result<u64> {
        each!(StorageFile, self, file => file.len())
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        each!(StorageFile, self, file => file.read_exact_at(offset, buf))
    }

    fn windows(&self) -> Option<Box<dyn Windows + '_>> {
        each!(StorageFile, self, file => file.windows())
    }

    fn remote(&self) -> Option<&dyn Remote> {
        each!(StorageFile, self, file => file.remote())
    }
}

impl WriteStore for Storage {
    type Pending = StoragePending;

    fn create(&self, path: &Path) -> io::Result<StoragePending> {
        match self {
            Self::Local(store) => store.create(path).map(StoragePending::Local),
            #[cfg(feature = "object-store")]
            Self::Object(store) => store.create(path).map(StoragePending::Object),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        each!(Storage, self, store => store.create_dir(path))
    }

    fn create_symlink(&self, target: &[u8], path: &Path) -> io::Result<()> {
        each!(Storage, self, store => store.create_symlink(target, path))
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        each!(Storage, self, store => store.set_attributes(path, attributes))
    }

    fn keeps_attributes(&self) -> bool {
        each!(Storage, self, store => store.keeps_attributes())
    }

    fn supports_xattrs(&self) -> bool {
        each!(Storage, self, store => store.supports_xattrs())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        each!(Storage, self, store => store.remove_file(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        each!(Storage, self, store => store.rename(from, to))
    }

    fn sync(&self) -> io::Result<()> {
        each!(Storage, self, store => store.sync())
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        each!(Storage, self, store => store.remove_leftovers())
    }
}

impl WriteAt for StoragePending {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        each!(StoragePending, self, pending => pending.write_all_at(offset, buf))
    }

    fn write_zeros_at(&self, offset: u64, len: usize) -> io::Result<()> {
        each!(StoragePending, self, pending => pending.write_zeros_at(offset, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        each!(StoragePending, self, pending => pending.set_len(len))
    }
}

impl PendingFile for StoragePending {
    fn commit(self, attributes: &Attributes) -> io::Result<()> {
        each!(StoragePending, self, pending => pending.commit(attributes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for url in ["s3://bucket/x", "HTTPS://host", "x-y://z"] {
            assert!(is_url(Path::new(url)), "{url}");
        }
        for path in ["s3:/x", "./s3://x", "/x", "://x", "a/b://c", "x://y"] {
            assert!(!is_url(Path::new(path)), "{path}");
        }
    }
}
