//! Models in object storage: S3 and what is compatible with it, and plain web servers.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use chunk_cipher::store::{Attributes, Kind, Metadata, Store, WriteStore, Xattr};
use futures_util::stream::StreamExt;
use gocryptfs_core::names::DIR_IV_NAME;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{CopyMode, CopyOptions, ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;

mod bounded;
mod connect;
mod error;
mod file;
mod listing;
mod profile;
mod runtime;
mod upload;
mod url;

use connect::{Connected, connect};
use error::io_error;
pub(crate) use file::ObjectFile;
use file::{Blocks, Shared, invalid};
use listing::{Listing, Pin};
use sam_format::LICENSES_DIR;
pub(crate) use upload::ObjectPending;
pub(crate) use url::ObjectUrl;
use url::Scheme;

use crate::storage::ObjectOptions;

/// Objects below one location, as a tree of files.
#[derive(Clone)]
pub(crate) struct ObjectStorage {
    shared: Arc<Shared>,
    /// Where parts are uploaded to, if the server takes any.
    multipart: Option<Arc<dyn MultipartStore>>,
    uploads: Arc<Semaphore>,
    prefix: Key,
    tree: Arc<RwLock<Tree>>,
}

/// What is known of the objects.
#[derive(Debug)]
enum Tree {
    /// All of them.
    Listed(Listing),
    /// Those that were asked for, as the server gives no listing.
    Asked(Listing),
}

impl ObjectStorage {
    /// Reaches a location, and lists what lies there.
    pub(crate) fn open(url: &ObjectUrl, options: &ObjectOptions) -> io::Result<Self> {
        let storage = Self::reach(url, options)?;
        let listed = storage.shared.wait(list(&storage.shared.client, &storage.prefix));
        let tree = match (listed, url.scheme) {
            // Most web servers do not list.
            (Err(error), Scheme::Http | Scheme::Https) if error.kind() != io::ErrorKind::InvalidData => {
                log::debug!("the server gives no listing: {error}");
                Tree::Asked(Listing::default())
            }
            // Some of those that do not, know of nothing where they are asked for one.
            (Ok(listing), Scheme::Http | Scheme::Https) if listing.is_empty() => Tree::Asked(listing),
            (listed, _) => Tree::Listed(listed?),
        };
        storage.set(tree);
        if storage.is_unlisted()
            && let Some((_, name)) = url.path.rsplit_once('/').or(Some(("", url.path.as_str())))
        {
            // The license that a package is opened with where none is named.
            let _ = storage.metadata(&Path::new(LICENSES_DIR).join(format!("{name}.json")));
        }
        Ok(storage)
    }

    /// Reaches a location without listing what lies there: it is asked for each object.
    pub(crate) fn reach(url: &ObjectUrl, options: &ObjectOptions) -> io::Result<Self> {
        let handle = runtime::handle()?;
        let entered = handle.enter();
        let Connected {
            client,
            multipart,
            prefix,
        } = connect(url, options)?;
        drop(entered);
        let shared = Shared {
            client,
            handle,
            process: std::process::id(),
            part_len: options.part_len.clamp(1 << 16, 1 << 30),
            connections: options.connections.clamp(1, 1024),
            blocks: Mutex::new(Blocks::default()),
            gate: Semaphore::new(options.connections.clamp(1, 1024)),
        };
        Ok(Self {
            shared: Arc::new(shared),
            multipart,
            uploads: Arc::new(Semaphore::new(upload::AT_ONCE)),
            prefix,
            tree: Arc::new(RwLock::new(Tree::Asked(Listing::default()))),
        })
    }

    fn set(&self, tree: Tree) {
        *self.tree.write().unwrap_or_else(PoisonError::into_inner) = tree;
    }

    /// Looks anew at what lies there, after others have written.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        let tree = if self.is_unlisted() {
            Tree::Asked(Listing::default())
        } else {
            Tree::Listed(self.shared.wait(list(&self.shared.client, &self.prefix))?)
        };
        self.set(tree);
        Ok(())
    }

    /// The entity tag of the object at `path`, if it is known.
    pub(crate) fn etag(&self, path: &Path) -> io::Result<Option<String>> {
        let (_, name) = self.key(path)?;
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let (Tree::Listed(listing) | Tree::Asked(listing)) = &*tree;
        Ok(listing.get(&name).and_then(|pin| pin.etag.clone()))
    }

    /// Opens the object at `path` with the content that another process has found there.
    pub(crate) fn open_version(
        &self,
        path: &Path,
        len: u64,
        modified: SystemTime,
        etag: Option<String>,
    ) -> io::Result<ObjectFile> {
        let (key, name) = self.key(path)?;
        let pin = Pin { len, etag, modified };
        if pin.etag.is_some() {
            return Ok(ObjectFile::new(&self.shared, key, pin));
        }
        self.insert(name, pin);
        let (key, found) = self.pin(path)?;
        // A listing may tell the time more precisely than an answer does.
        if whole_seconds(found.modified) != whole_seconds(modified) {
            return Err(file::replaced());
        }
        Ok(ObjectFile::new(&self.shared, key, found))
    }

    /// Whether the server gives no listing.
    pub(crate) fn is_unlisted(&self) -> bool {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        matches!(*tree, Tree::Asked(_))
    }

    pub(crate) const fn is_writable(&self) -> bool {
        self.multipart.is_some()
    }

    fn multipart(&self) -> io::Result<Arc<dyn MultipartStore>> {
        self.multipart
            .clone()
            .ok_or_else(|| unsupported("nothing can be written to a web server; use s3://"))
    }

    /// The key of `path`, and how the listing calls it.
    fn key(&self, path: &Path) -> io::Result<(Key, String)> {
        let path = listing::key(path)?;
        let whole = match (self.prefix.as_ref(), path.as_str()) {
            (prefix, "") => prefix.to_owned(),
            ("", path) => path.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        };
        let key = Key::parse(&whole).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok((key, path))
    }

    /// Which content of the object at `path` is meant from now on.
    fn pin(&self, path: &Path) -> io::Result<(Key, Pin)> {
        let (key, name) = self.key(path)?;
        let known = {
            let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
            match &*tree {
                Tree::Listed(listing) => {
                    let metadata = listing.metadata(&name)?;
                    if metadata.kind != Kind::File {
                        return Err(io::ErrorKind::IsADirectory.into());
                    }
                    listing.get(&name).cloned()
                }
                Tree::Asked(listing) => listing.get(&name).cloned(),
            }
        };
        if let Some(pin) = known.clone()
            && pin.etag.is_some()
        {
            return Ok((key, pin));
        }
        // A time of modification alone may be too coarse to tell two contents apart.
        let meta = self.shared.wait(async {
            let head = self.shared.client.head(&key).await;
            head.map_err(io_error)
        })?;
        let pin = Pin::of(&meta)?;
        if known.is_some_and(|known| known.len != pin.len) {
            return Err(file::replaced());
        }
        if pin.etag.is_none() && pin.modified == SystemTime::UNIX_EPOCH {
            return Err(unsupported(
                "the server says neither which content it gives (ETag) nor how old it is (Last-Modified), so a change \
                 would not be noticed",
            ));
        }
        self.insert(name, pin.clone());
        Ok((key, pin))
    }

    fn insert(&self, name: String, pin: Pin) {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let (Tree::Listed(listing) | Tree::Asked(listing)) = &mut *tree;
        listing.insert(name, pin);
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An object was written.
    fn written(&self, path: &Path, key: &Key, len: u64, etag: Option<String>) -> io::Result<()> {
        let (_, name) = self.key(path)?;
        let meta = self.shared.wait(async {
            let head = self.shared.client.head(key).await;
            head.map_err(io_error)
        })?;
        let pin = Pin::of(&meta)?;
        if pin.len != len || etag.is_some() && pin.etag.is_some() && pin.etag != etag {
            return Err(invalid("somebody else writes to the same object"));
        }
        self.insert(name, pin);
        Ok(())
    }
}

impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStorage")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Store for ObjectStorage {
    type File = ObjectFile;

    fn open(&self, path: &Path) -> io::Result<ObjectFile> {
        let (key, pin) = self.pin(path)?;
        Ok(ObjectFile::new(&self.shared, key, pin))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let (_, name) = self.key(path)?;
        {
            let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
            match &*tree {
                Tree::Listed(listing) => return listing.metadata(&name),
                Tree::Asked(listing) => {
                    if let Ok(metadata) = listing.metadata(&name) {
                        return Ok(metadata);
                    }
                }
            }
        }
        match self.pin(path) {
            // A directory of a vault is there if its IV is.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.pin(&path.join(DIR_IV_NAME)).is_ok() =>
            {
                let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
                let (Tree::Listed(listing) | Tree::Asked(listing)) = &*tree;
                listing.metadata(&name)
            }
            pin => Ok(listing::file(&pin?.1)),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        let (_, name) = self.key(path)?;
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        match &*tree {
            Tree::Listed(listing) => listing.list(&name),
            Tree::Asked(listing) if name == LICENSES_DIR && listing.metadata(&name).is_ok() => {
                listing.list(&name)
            }
            // A package needs none: its manifest says what there is.
            Tree::Asked(_) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "this web server gives no listing; name a file in the vault, or use a package",
            )),
        }
    }

    fn read_link(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no symlink"))
    }

    fn xattrs(&self, _: &Path) -> io::Result<Vec<Xattr>> {
        Ok(Vec::new())
    }
}

impl WriteStore for ObjectStorage {
    type Pending = ObjectPending;

    fn create(&self, path: &Path) -> io::Result<ObjectPending> {
        self.multipart()?;
        let (key, _) = self.key(path)?;
        Ok(ObjectPending::new(self.clone(), path, key))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.multipart()?;
        if self.exists(path)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (_, name) = self.key(path)?;
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let (Tree::Listed(listing) | Tree::Asked(listing)) = &mut *tree;
        listing.make_dir(&name);
        Ok(())
    }

    fn create_symlink(&self, _: &[u8], _: &Path) -> io::Result<()> {
        Err(unsupported(
            "object storage has no symlinks; seal as a package (--format sam), which keeps them in its manifest",
        ))
    }

    /// There are none.
    fn set_attributes(&self, _: &Path, _: &Attributes) -> io::Result<()> {
        Ok(())
    }

    fn keeps_attributes(&self) -> bool {
        false
    }

    fn supports_xattrs(&self) -> bool {
        false
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (key, name) = self.key(path)?;
        if self.metadata(path)?.kind != Kind::File {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.shared
            .wait(async { self.shared.client.delete(&key).await.map_err(io_error) })?;
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let (Tree::Listed(listing) | Tree::Asked(listing)) = &mut *tree;
        listing.remove(&name);
        Ok(())
    }

    /// The new name holds all of it before the old one goes.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_key, _) = self.key(from)?;
        let (to_key, _) = self.key(to)?;
        let len = self.metadata(from)?.len;
        self.shared.wait(async {
            let options = CopyOptions {
                mode: CopyMode::Overwrite,
                ..CopyOptions::default()
            };
            let copied = self.shared.client.copy_opts(&from_key, &to_key, options).await;
            copied.map_err(io_error)
        })?;
        self.written(to, &to_key, len, None)?;
        self.remove_file(from)
    }

    /// What a server has acknowledged, it keeps.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// An upload that was not completed is no object; servers remove them by a rule of the bucket's life cycle.
    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }
}

/// All objects below `prefix`.
async fn list(client: &Arc<dyn ObjectStore>, prefix: &Key) -> io::Result<Listing> {
    let whole = Some(prefix).filter(|prefix| !prefix.as_ref().is_empty());
    let mut found = client.list(whole);
    let mut listing = Listing::default();
    while let Some(meta) = found.next().await {
        let meta = meta.map_err(io_error)?;
        listing.count(&meta)?;
        let Some(mut parts) = meta.location.prefix_match(prefix) else {
            continue;
        };
        let mut path = String::new();
        for part in &mut parts {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part.as_ref());
        }
        if !path.is_empty() {
            listing.insert(path, Pin::of(&meta)?);
        }
    }
    Ok(listing)
}

fn whole_seconds(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}
