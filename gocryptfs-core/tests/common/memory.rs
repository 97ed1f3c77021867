//! A tree of files in memory that fails where it is told to.
#![allow(dead_code)] // Not every test needs all of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use chunk_cipher::store::{
    Attributes, Kind, Metadata, PendingFile, ReadAt, Store, WriteAt, WriteStore, Xattr,
};

/// What an entry of the tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    File(Arc<Vec<u8>>),
    Dir,
    Symlink(Vec<u8>),
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) body: Body,
    pub(crate) mode: u32,
    pub(crate) modified: SystemTime,
    pub(crate) xattrs: Vec<Xattr>,
}

impl Node {
    fn new(body: Body) -> Self {
        Self {
            body,
            mode: 0o700,
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            xattrs: Vec::new(),
        }
    }

    fn kind(&self) -> Kind {
        match self.body {
            Body::File(_) => Kind::File,
            Body::Dir => Kind::Dir,
            Body::Symlink(_) => Kind::Symlink,
            Body::Other => Kind::Other,
        }
    }

    fn set(&mut self, attributes: &Attributes) {
        self.mode = attributes.mode.unwrap_or(self.mode);
        self.modified = attributes.modified.unwrap_or(self.modified);
        for (name, value) in &attributes.xattrs {
            self.xattrs.retain(|(old, _)| old != name);
            self.xattrs.push((name.clone(), value.clone()));
        }
    }
}

/// An operation that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Open,
    /// A read that ends behind this offset.
    ReadBehind(u64),
    /// Not a failure: files are this much shorter than they say.
    Short(u64),
    Metadata,
    List,
    ReadLink,
    Xattrs,
    Create,
    CreateDir,
    CreateSymlink,
    SetAttributes,
    /// A write that ends behind this offset.
    WriteBehind(u64),
    Commit,
    Remove,
    Rename,
    Sync,
}

#[derive(Debug)]
struct State {
    tree: Mutex<BTreeMap<PathBuf, Node>>,
    /// What fails at which path, at any if there is none.
    faults: Mutex<Vec<(Op, Option<PathBuf>)>>,
    /// Files that are being written.
    pending: AtomicUsize,
    /// Bytes of files that were read.
    read: AtomicU64,
    syncs: AtomicUsize,
}

/// A tree of files in memory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MemoryStore(Arc<State>);

impl MemoryStore {
    pub(crate) fn new() -> Self {
        Self(Arc::new(State {
            tree: Mutex::new(BTreeMap::from([(PathBuf::new(), Node::new(Body::Dir))])),
            faults: Mutex::default(),
            pending: AtomicUsize::new(0),
            read: AtomicU64::new(0),
            syncs: AtomicUsize::new(0),
        }))
    }

    /// Everything that is there.
    pub(crate) fn tree(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Node>> {
        self.0.tree.lock().expect("no panic before")
    }

    /// Another tree with the same content.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        copy.tree().clone_from(&self.tree());
        copy
    }

    /// Puts a file there, whatever there was.
    pub(crate) fn put(&self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) {
        let body = Body::File(Arc::new(content.into()));
        self.put_node(path, body);
    }

    pub(crate) fn put_node(&self, path: impl AsRef<Path>, body: Body) {
        self.tree()
            .entry(path.as_ref().to_path_buf())
            .or_insert_with(|| Node::new(Body::Other))
            .body = body;
    }

    /// The content of a file.
    pub(crate) fn content(&self, path: impl AsRef<Path>) -> Vec<u8> {
        match self.tree().get(path.as_ref()).map(|node| &node.body) {
            Some(Body::File(content)) => content.to_vec(),
            other => panic!("{}: {other:?}", path.as_ref().display()),
        }
    }

    /// Changes the content of a file.
    pub(crate) fn edit(&self, path: impl AsRef<Path>, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.content(&path);
        edit(&mut content);
        self.put(path, content);
    }

    /// Takes an entry away, with all that is below it.
    pub(crate) fn take(&self, path: impl AsRef<Path>) {
        let before = self.tree().len();
        self.tree().retain(|key, _| !key.starts_with(path.as_ref()));
        assert!(self.tree().len() < before, "{}", path.as_ref().display());
    }

    /// Every path but the root.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let tree = self.tree();
        tree.keys()
            .filter(|path| !path.as_os_str().is_empty())
            .cloned()
            .collect()
    }

    /// Lets `op` fail from now on at `path`.
    pub(crate) fn fail_at(&self, op: Op, path: impl AsRef<Path>) {
        self.faults().push((op, Some(path.as_ref().to_path_buf())));
    }

    /// Lets `op` fail from now on everywhere.
    pub(crate) fn fail(&self, op: Op) {
        self.faults().push((op, None));
    }

    pub(crate) fn heal(&self) {
        self.faults().clear();
    }

    /// Number of files that are being written.
    pub(crate) fn pending(&self) -> usize {
        self.0.pending.load(Ordering::SeqCst)
    }

    /// Bytes of files that were read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.0.read.load(Ordering::SeqCst)
    }

    /// How often everything was made to last.
    pub(crate) fn syncs(&self) -> usize {
        self.0.syncs.load(Ordering::SeqCst)
    }

    fn faults(&self) -> MutexGuard<'_, Vec<(Op, Option<PathBuf>)>> {
        self.0.faults.lock().expect("no panic before")
    }

    fn find_fault<T>(&self, path: &Path, find: impl Fn(Op) -> Option<T>) -> Option<T> {
        let faults = self.faults();
        let mut here = faults
            .iter()
            .filter(|(_, at)| at.as_deref().is_none_or(|at| at == path));
        here.find_map(|(op, _)| find(*op))
    }

    fn check(&self, path: &Path, fails: impl Fn(Op) -> bool) -> io::Result<()> {
        match self.find_fault(path, |op| fails(op).then_some(())) {
            Some(()) => Err(injected()),
            None => Ok(()),
        }
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        let tree = self.tree();
        // As a file system does: nothing lies below what is no directory.
        for parent in path.ancestors().skip(1) {
            if tree.get(parent).is_some_and(|node| node.body != Body::Dir) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        tree.get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn insert(&self, path: &Path, node: Node) -> io::Result<()> {
        let parent = self.node(path.parent().unwrap_or(Path::new("")))?;
        if parent.body != Body::Dir {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mut tree = self.tree();
        if tree.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        tree.insert(path.to_path_buf(), node);
        Ok(())
    }
}

/// What a store reports where it was told to fail.
pub(crate) fn injected() -> io::Error {
    io::Error::new(io::ErrorKind::HostUnreachable, "injected")
}

/// Whether `error` is what a store reports where it was told to fail.
pub(crate) fn is_injected(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::HostUnreachable
}

impl Store for MemoryStore {
    type File = MemoryFile;

    fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        self.check(path, |op| op == Op::Open)?;
        match self.node(path)?.body {
            Body::File(content) => Ok(MemoryFile {
                content,
                path: path.to_path_buf(),
                store: self.clone(),
            }),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.check(path, |op| op == Op::Metadata)?;
        let node = self.node(path)?;
        let len = match &node.body {
            Body::File(content) => content.len() as u64,
            Body::Symlink(target) => target.len() as u64,
            Body::Dir | Body::Other => 0,
        };
        Ok(Metadata {
            kind: node.kind(),
            len,
            mode: node.mode,
            modified: node.modified,
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        self.check(path, |op| op == Op::List)?;
        if self.node(path)?.body != Body::Dir {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let tree = self.tree();
        let inside = tree.iter().filter(|(key, _)| key.parent() == Some(path));
        let entry = |(key, node): (&PathBuf, &Node)| Some((key.file_name()?.to_os_string(), node.kind()));
        // Backwards, as no order is promised.
        Ok(inside.filter_map(entry).rev().collect())
    }

    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.check(path, |op| op == Op::ReadLink)?;
        match self.node(path)?.body {
            Body::Symlink(target) => Ok(target),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>> {
        self.check(path, |op| op == Op::Xattrs)?;
        Ok(self.node(path)?.xattrs)
    }
}

impl WriteStore for MemoryStore {
    type Pending = MemoryPending;

    fn create(&self, path: &Path) -> io::Result<MemoryPending> {
        self.check(Path::new(""), |op| op == Op::Create)?;
        self.0.pending.fetch_add(1, Ordering::SeqCst);
        Ok(MemoryPending {
            path: path.to_path_buf(),
            content: Mutex::default(),
            store: self.clone(),
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.check(path, |op| op == Op::CreateDir)?;
        self.insert(path, Node::new(Body::Dir))
    }

    fn create_symlink(&self, target: &[u8], path: &Path) -> io::Result<()> {
        self.check(path, |op| op == Op::CreateSymlink)?;
        self.insert(path, Node::new(Body::Symlink(target.to_vec())))
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        self.check(path, |op| op == Op::SetAttributes)?;
        let mut tree = self.tree();
        tree.get_mut(path).ok_or(io::ErrorKind::NotFound)?.set(attributes);
        Ok(())
    }

    fn supports_xattrs(&self) -> bool {
        true
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check(path, |op| op == Op::Remove)?;
        if self.node(path)?.body == Body::Dir {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.tree().remove(path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(from, |op| op == Op::Rename)?;
        let node = self.node(from)?;
        let mut tree = self.tree();
        tree.remove(from);
        tree.insert(to.to_path_buf(), node);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.check(Path::new(""), |op| op == Op::Sync)?;
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file as it was when it was opened.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    content: Arc<Vec<u8>>,
    path: PathBuf,
    store: MemoryStore,
}

impl ReadAt for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        self.store
            .check(&self.path, |op| matches!(op, Op::ReadBehind(at) if end > at))?;
        let short = |op| match op {
            Op::Short(by) => Some(by),
            _ => None,
        };
        let missing = self.store.find_fault(&self.path, short).unwrap_or(0);
        if end + missing > self.content.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        buf.copy_from_slice(&self.content[start..start + buf.len()]);
        self.store.0.read.fetch_add(buf.len() as u64, Ordering::SeqCst);
        Ok(())
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct MemoryPending {
    path: PathBuf,
    content: Mutex<Vec<u8>>,
    store: MemoryStore,
}

impl WriteAt for MemoryPending {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + buf.len();
        self.store.check(
            Path::new(""),
            |op| matches!(op, Op::WriteBehind(at) if end as u64 > at),
        )?;
        let mut content = self.content.lock().expect("no panic before");
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.content.lock().expect("no panic before").resize(len, 0);
        Ok(())
    }
}

impl PendingFile for MemoryPending {
    fn commit(self, attributes: &Attributes) -> io::Result<()> {
        self.store.check(&self.path, |op| op == Op::Commit)?;
        let content = std::mem::take(&mut *self.content.lock().expect("no panic before"));
        let mut node = Node::new(Body::File(Arc::new(content)));
        node.set(attributes);
        self.store.insert(&self.path, node)
    }
}

impl Drop for MemoryPending {
    fn drop(&mut self) {
        self.store.0.pending.fetch_sub(1, Ordering::SeqCst);
    }
}
