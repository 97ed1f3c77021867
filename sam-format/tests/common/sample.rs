//! Small packages, made and opened with a key and an issuer of their own.
#![allow(dead_code)] // Not every test needs all of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use chunk_cipher::store::{Attributes, LocalStore, ReadAt, Source};
use chunk_cipher::{Engine, Pool};
use sam_format::{
    Checks, ChunkLen, Damage, IssuerKey, License, LicenseChoice, Locked, Manifest, Package, PackageWriter,
    Result, Terms, Unlocked, Verified, verify_digests,
};
use tempfile::TempDir;

/// The owner's key of every package here.
pub(crate) const KEY: &[u8] = b"0Bn4Q1wwY9fN3P";

/// The license, and with it the package.
pub(crate) const ID: &str = "LD_Demo_0001";

/// Cost of scrypt: the least that there is.
pub(crate) const LOG_N: u8 = 14;

/// More than one thread wherever this runs.
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Pool::with_threads(3)));

/// The same in every process.
pub(crate) static ISSUER: LazyLock<IssuerKey> = LazyLock::new(|| {
    let seed = "MC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";
    IssuerKey::from_pem(&format!(
        "-----BEGIN PRIVATE KEY-----\n{seed}\n-----END PRIVATE KEY-----\n"
    ))
    .unwrap()
});

/// An entry to be packed.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(Vec<u8>),
    Dir,
    Link(Vec<u8>),
}

/// Paths and what is there, parents first.
pub(crate) type Tree = Vec<(Vec<u8>, Node)>;

pub(crate) fn file(path: &str, content: Vec<u8>) -> (Vec<u8>, Node) {
    (path.into(), Node::File(content))
}

pub(crate) fn dir(path: &str) -> (Vec<u8>, Node) {
    (path.into(), Node::Dir)
}

pub(crate) fn link(path: &str, target: &str) -> (Vec<u8>, Node) {
    (path.into(), Node::Link(target.into()))
}

/// A bit of everything.
pub(crate) fn tree() -> Tree {
    vec![
        file("config.json", b"{}".to_vec()),
        dir("layers"),
        file("layers/a", bytes(1, 3 * 4096 + 7)),
        file("layers/b", bytes(2, 3 * 4096 + 7)),
        dir("layers/none"),
        link("layers/latest", "../layers/b"),
        file("empty", Vec::new()),
    ]
}

/// Bytes that differ from one another wherever they are, and from those of another seed.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(len.div_ceil(8)).flatten().take(len).collect()
}

/// A file in memory.
#[derive(Debug)]
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl ReadAt for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let part = self.0.get(offset..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// What entries have that say nothing else.
pub(crate) fn attributes() -> Attributes {
    Attributes {
        mode: Some(0o640),
        modified: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
        xattrs: Vec::new(),
    }
}

/// Writes all of `tree` and finishes the package.
pub(crate) fn write_all(writer: PackageWriter<LocalStore>, tree: &Tree, terms: &Terms) -> Result<License> {
    for (path, node) in tree {
        match node {
            Node::Dir => writer.create_dir(path)?,
            Node::Link(target) => writer.write_symlink(path, target, &attributes())?,
            Node::File(content) => write_file(&writer, path, content)?,
        }
    }
    for (path, _) in tree.iter().filter(|(_, node)| matches!(node, Node::Dir)) {
        writer.finish_dir(path, &attributes())?;
    }
    writer.finish_dir(b"", &attributes())?;
    writer.finish(KEY, terms, &ISSUER)
}

pub(crate) fn write_file(writer: &PackageWriter<LocalStore>, path: &[u8], content: &[u8]) -> Result<()> {
    let source = Memory(content.to_vec());
    let attributes = attributes();
    let source = Source {
        content: &source,
        len: content.len() as u64,
        attributes: &attributes,
        unchanged: &|| true,
    };
    writer.write_file(path, &source, &())
}

pub(crate) fn terms() -> Terms {
    Terms {
        scrypt_log_n: LOG_N,
        ..Terms::new(ID)
    }
}

/// A package in a directory of its own, removed when dropped.
pub(crate) struct Sample {
    dir: TempDir,
    pub(crate) store: LocalStore,
}

impl Sample {
    pub(crate) fn new(tree: &Tree) -> Self {
        Self::in_chunks(tree, ChunkLen::MIN)
    }

    pub(crate) fn in_chunks(tree: &Tree, chunk_len: ChunkLen) -> Self {
        let sample = Self::empty();
        let writer =
            PackageWriter::create(sample.store.clone(), KEY, chunk_len, LOG_N, ENGINE.clone()).unwrap();
        write_all(writer, tree, &terms()).unwrap();
        sample
    }

    /// An empty directory.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path()).unwrap();
        Self { dir, store }
    }

    /// Files that were all written, in a package that was not finished.
    pub(crate) fn interrupted(tree: &Tree) -> Self {
        let sample = Self::empty();
        let writer =
            PackageWriter::create(sample.store.clone(), KEY, ChunkLen::MIN, LOG_N, ENGINE.clone()).unwrap();
        for (path, node) in tree {
            if let Node::File(content) = node {
                write_file(&writer, path, content).unwrap();
            }
        }
        sample
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Where a file of the package is stored.
    pub(crate) fn stored(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path("content").join(path)
    }

    /// As far as it goes without the key.
    pub(crate) fn locked(&self) -> Result<Locked> {
        let checks = Checks {
            issuers: vec![ISSUER.public()],
            ..Checks::default()
        };
        Locked::read(&self.store, LicenseChoice::Only(ID), &checks)
    }

    pub(crate) fn unlock(&self) -> Result<Unlocked> {
        self.locked()?.unlock(KEY)
    }

    pub(crate) fn open(&self) -> Result<Package<LocalStore>> {
        Package::open(self.store.clone(), self.unlock()?, ENGINE.clone())
    }

    pub(crate) fn manifest(&self) -> Manifest {
        self.locked().unwrap().manifest().clone()
    }

    /// What is damaged of what the manifest lists, found without the key.
    pub(crate) fn damaged_without_key(&self) -> Vec<Damage> {
        let damage = Mutex::new(Vec::new());
        let report = |found| damage.lock().unwrap().push(found);
        let verified = verify_digests(&self.store, &self.manifest(), b"", &ENGINE, &(), &report).unwrap();
        sorted(damage, &verified)
    }
}

/// What is damaged of an open package, by a full look at it.
pub(crate) fn damaged(package: &Package<LocalStore>) -> Vec<Damage> {
    let damage = Mutex::new(Vec::new());
    let report = |found| damage.lock().unwrap().push(found);
    let verified = package.verify(b"", &(), &report).unwrap();
    sorted(damage, &verified)
}

fn sorted(damage: Mutex<Vec<Damage>>, verified: &Verified) -> Vec<Damage> {
    let mut damage = damage.into_inner().unwrap();
    damage.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(verified.damaged, damage.len() as u64);
    damage
}

/// All of a file's plaintext; what was handed out after an error is zeros.
pub(crate) fn read(package: &Package<LocalStore>, path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let file = package.open_file(package.lookup(path.as_ref())?)?;
    let mut out = vec![0xaa; usize::try_from(file.len()).unwrap()];
    let result = file.read_into(0, &mut out);
    if result.is_err() {
        assert!(out.iter().all(|byte| *byte == 0), "output after {result:?}");
    }
    result.map(|()| out)
}

/// Changes one bit of a file in place.
pub(crate) fn flip(path: &Path, bit: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
}
