//! A vault's storage that gives out nothing but what a manifest lists.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chunk_cipher::store::{Kind, Metadata, ReadAt, Remote, Store, Windows, Xattr};
use gocryptfs_core::{FileId, HEADER_LEN};
use sam_format::VaultManifest;
use sam_format::vault::{StoredContent, StoredEntry, StoredKind, short_digest, target_digest};

pub(crate) const OTHER_LENGTH: &str = "it has another length than the manifest says";
pub(crate) const OTHER_DIGEST: &str = "its content is not what the manifest says";
pub(crate) const OTHER_TARGET: &str = "its target is not what the manifest says";
const OTHER_ID: &str = "it has another file ID than the manifest says";
const OTHER_KIND: &str = "it is of another kind than the manifest says";
const UNLISTED: &str = "it is not in the manifest";
const MISSING: &str = "it is in the manifest, but not there";

/// Storage of a vault, checked against a manifest where there is one: whatever is listed, opened or asked about must be
/// as the manifest says. What has no blocks is compared byte by byte; of the rest the length and the file ID, and the
/// blocks have tags.
#[derive(Clone, Debug)]
pub(crate) struct ListedStore<S> {
    store: S,
    manifest: Option<Arc<VaultManifest>>,
}

impl<S> ListedStore<S> {
    pub(crate) const fn new(store: S, manifest: Option<Arc<VaultManifest>>) -> Self {
        Self { store, manifest }
    }

    /// The storage as it is.
    pub(crate) const fn unchecked(&self) -> &S {
        &self.store
    }

    /// What was `found` at `path`, and what the manifest says about it; that is none without a manifest.
    fn listed<T>(&self, path: &Path, found: io::Result<T>) -> io::Result<(T, Option<&StoredEntry>)> {
        let Some(manifest) = &self.manifest else {
            return Ok((found?, None));
        };
        match (manifest.get(path.as_os_str().as_bytes()), found) {
            (Some(entry), Ok(found)) => Ok((found, Some(entry))),
            (None, Ok(_)) => Err(differs(UNLISTED)),
            // What is missing must not pass for something that never was there.
            (Some(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(differs(MISSING)),
            (_, Err(error)) => Err(error),
        }
    }
}

impl<S: Store> Store for ListedStore<S> {
    type File = ListedFile<S::File>;

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        let (file, entry) = self.listed(path, self.store.open(path))?;
        let known = match entry.map(|entry| &entry.kind) {
            None => Known::Nothing,
            Some(StoredKind::File {
                length,
                digest,
                content,
            }) => Known::read(&file, *length, digest, content.as_ref())?,
            Some(_) => return Err(differs(OTHER_KIND)),
        };
        Ok(ListedFile { file, known })
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let (metadata, entry) = self.listed(path, self.store.metadata(path))?;
        if let Some(entry) = entry {
            if metadata.kind != kind(entry) {
                return Err(differs(OTHER_KIND));
            }
            if let StoredKind::File { length, .. } = entry.kind
                && metadata.len != length
            {
                return Err(differs(OTHER_LENGTH));
            }
        }
        Ok(metadata)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        let (found, _) = self.listed(path, self.store.list(path))?;
        if let Some(manifest) = &self.manifest {
            let mut first = None;
            compare(manifest, path, found.clone(), |path, what| {
                first.get_or_insert((path, what));
            });
            if let Some((path, what)) = first {
                let what = format!("{}: {what}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(found)
    }

    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (target, entry) = self.listed(path, self.store.read_link(path))?;
        match entry.map(|entry| &entry.kind) {
            Some(StoredKind::Symlink { digest }) if target_digest(&target) != *digest => {
                Err(differs(OTHER_TARGET))
            }
            None | Some(StoredKind::Symlink { .. }) => Ok(target),
            Some(_) => Err(differs(OTHER_KIND)),
        }
    }

    /// The manifest says nothing about them.
    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>> {
        self.store.xattrs(path)
    }
}

/// A file of a vault, as far as a manifest lists it.
#[derive(Debug)]
pub(crate) struct ListedFile<F> {
    file: F,
    known: Known,
}

/// What of a file was compared with the manifest, and is not read again.
#[derive(Debug)]
enum Known {
    Nothing,
    /// All of it.
    Whole(Vec<u8>),
    /// Its length and its header.
    Content {
        length: u64,
        header: [u8; HEADER_LEN],
    },
}

impl Known {
    fn read(
        file: &impl ReadAt,
        length: u64,
        digest: &[u8; 32],
        content: Option<&StoredContent>,
    ) -> io::Result<Self> {
        if file.len()? != length {
            return Err(differs(OTHER_LENGTH));
        }
        let Some(content) = content else {
            // The manifest is within its bounds: not longer than `VaultManifest::SHORT_MAX`.
            let mut whole = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?];
            file.read_exact_at(0, &mut whole)?;
            if short_digest(&whole) != *digest {
                return Err(differs(OTHER_DIGEST));
            }
            return Ok(Self::Whole(whole));
        };
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(0, &mut header)?;
        match FileId::from_header(&header) {
            Ok(id) if *id.as_bytes() == content.file_id => Ok(Self::Content { length, header }),
            _ => Err(differs(OTHER_ID)),
        }
    }
}

impl<F: ReadAt> ReadAt for ListedFile<F> {
    fn len(&self) -> io::Result<u64> {
        match &self.known {
            Known::Nothing => self.file.len(),
            Known::Whole(whole) => Ok(whole.len() as u64),
            Known::Content { length, .. } => Ok(*length),
        }
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let known = match &self.known {
            Known::Nothing => &[][..],
            Known::Whole(whole) => whole,
            Known::Content { header, .. } => header,
        };
        let start = usize::try_from(offset).map_or(known.len(), |offset| offset.min(known.len()));
        let len = buf.len().min(known.len() - start);
        let (head, rest) = buf.split_at_mut(len);
        head.copy_from_slice(&known[start..start + len]);
        match self.known {
            _ if rest.is_empty() => Ok(()),
            Known::Whole(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Known::Nothing | Known::Content { .. } => self.file.read_exact_at(offset + len as u64, rest),
        }
    }

    fn windows(&self) -> Option<Box<dyn Windows + '_>> {
        match self.known {
            Known::Whole(_) => None,
            Known::Nothing | Known::Content { .. } => self.file.windows(),
        }
    }

    fn remote(&self) -> Option<&dyn Remote> {
        match self.known {
            Known::Whole(_) => None,
            Known::Nothing | Known::Content { .. } => self.file.remote(),
        }
    }
}

/// Calls `differs` with every name in which the directory at `dir`, where `found` lies, differs from the manifest.
pub(crate) fn compare(
    manifest: &VaultManifest,
    dir: &Path,
    mut found: Vec<(OsString, Kind)>,
    mut differs: impl FnMut(PathBuf, &'static str),
) {
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut found = found.into_iter().peekable();
    for (name, entry) in manifest.children(dir.as_os_str().as_bytes()) {
        while let Some((other, _)) = found.next_if(|(other, _)| other.as_bytes() < name) {
            differs(dir.join(other), UNLISTED);
        }
        match found.next_if(|(other, _)| other.as_bytes() == name) {
            None => differs(path(&entry.path).to_path_buf(), MISSING),
            Some((other, there)) if there != kind(entry) => differs(dir.join(other), OTHER_KIND),
            Some(_) => {}
        }
    }
    for (other, _) in found {
        differs(dir.join(other), UNLISTED);
    }
}

/// The path of an entry.
pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

const fn kind(entry: &StoredEntry) -> Kind {
    match entry.kind {
        StoredKind::Dir => Kind::Dir,
        StoredKind::File { .. } => Kind::File,
        StoredKind::Symlink { .. } => Kind::Symlink,
    }
}

fn differs(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
