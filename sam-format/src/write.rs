//! Writing a package: every file complete or not there, the package complete only once its manifest is in place.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use chunk_cipher::store::{Attributes, Compare, Kind, PendingFile, ReadAt, Source, WriteAt, WriteStore};
use chunk_cipher::{Engine, Progress, Uncounted};

use crate::error::{Error, Result};
use crate::file::{self, PackageFile, Sealed};
use crate::header::{ChunkLen, FileId, HEADER_LEN, Header};
use crate::issuer::IssuerKey;
use crate::keys::ContentKey;
use crate::license::{License, Licensed, Terms};
use crate::manifest::{
    ContentId, Entry, EntryKind, MANIFEST_NAME, Manifest, Modified, check_path, check_target,
};
use crate::open::{LICENSES_DIR, license_path, list_licenses, read_whole, write_license};
use crate::package::{CONTENT_DIR, content_path};
use crate::partial::{PARTIAL_NAME, Partial};

/// Permission bits of what is stored: all of it is encrypted, or signed for everyone to read.
const STORED_MODE: u32 = 0o644;
/// Permission bits of entries whose source has none.
const FILE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;

/// A package that is being written, by any number of threads.
///
/// `manifest.json` appears last, so an interrupted run is never taken for a package. What that leaves can be gone on with:
/// `partial.json` holds the wrapped content key. No chunk is ever sealed twice under one file ID: what is written again
/// takes a fresh one.
#[derive(Debug)]
pub struct PackageWriter<S> {
    store: S,
    engine: Engine,
    content_key: ContentKey,
    content_id: ContentId,
    chunk_len: ChunkLen,
    entries: Mutex<Vec<Entry>>,
    /// File IDs of the files among them.
    ids: Mutex<HashSet<FileId>>,
}

impl<S: WriteStore> PackageWriter<S> {
    /// Starts a package in the empty directory `store`.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] where it is not, [`Error::KeyLength`] and [`Error::ScryptCost`], [`Error::Io`] where writing
    /// fails.
    pub fn create(
        store: S,
        key: &[u8],
        chunk_len: ChunkLen,
        scrypt_log_n: u8,
        engine: Engine,
    ) -> Result<Self> {
        let root = Path::new("");
        let listed = store.list(root);
        let listed = listed.map_err(|source| Error::io(root, "listing", source))?;
        if let Some((name, _)) = listed.into_iter().next() {
            return Err(Error::NotEmpty { found: name.into() });
        }
        let content_key = ContentKey::generate()?;
        let partial = Partial::new(key, &content_key, ContentId::generate()?, chunk_len, scrypt_log_n)?;
        put(&store, Path::new(PARTIAL_NAME), partial.as_str().as_bytes())?;
        Self::go_on(store, &partial, content_key, engine)
    }

    /// Goes on with a package that was never completed.
    ///
    /// # Errors
    /// [`Error::NotAPackage`] where nothing was begun, [`Error::Complete`] where it is complete, [`Error::WrongKey`],
    /// [`Error::Cipher`] where scrypt would take more than `scrypt_memory` bytes, [`Error::Io`] where what an interrupted
    /// run left cannot be removed.
    pub fn resume(store: S, key: &[u8], scrypt_memory: u64, engine: Engine) -> Result<Self> {
        if exists(&store, Path::new(MANIFEST_NAME))? {
            // The very last step of a run may be missing.
            remove_if_there(&store, Path::new(PARTIAL_NAME))?;
            return Err(Error::Complete);
        }
        let partial = read_partial(&store)?.ok_or_else(|| Error::NotAPackage {
            path: PathBuf::from(PARTIAL_NAME),
        })?;
        let content_key = partial.unlock(key, scrypt_memory)?;
        let root = Path::new("");
        store
            .remove_leftovers()
            .map_err(|source| Error::io(root, "removing leftovers in", source))?;
        // Licenses of a run that came to its last steps: they are for a manifest that never was.
        for id in list_licenses(&store)? {
            remove_if_there(&store, &license_path(&id))?;
        }
        Self::go_on(store, &partial, content_key, engine)
    }

    /// Helps another process with the package that it began: [`Self::seal_file`] and [`Self::complete_file`] do for files
    /// here what that one lists. Nothing in `store` is changed by it.
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::Cipher`] where scrypt would take more than `scrypt_memory` bytes.
    pub fn join(store: S, partial: &Partial, key: &[u8], scrypt_memory: u64, engine: Engine) -> Result<Self> {
        let content_key = partial.unlock(key, scrypt_memory)?;
        Ok(Self::new(store, partial, content_key, engine))
    }

    fn go_on(store: S, partial: &Partial, content_key: ContentKey, engine: Engine) -> Result<Self> {
        make_dir(&store, Path::new(CONTENT_DIR))?;
        Ok(Self::new(store, partial, content_key, engine))
    }

    fn new(store: S, partial: &Partial, content_key: ContentKey, engine: Engine) -> Self {
        Self {
            store,
            engine,
            content_key,
            content_id: partial.content_id(),
            chunk_len: partial.chunk_len(),
            entries: Mutex::default(),
            ids: Mutex::default(),
        }
    }

    /// Length of the chunks.
    #[must_use]
    pub const fn chunk_len(&self) -> ChunkLen {
        self.chunk_len
    }

    /// Makes the directory at `path`, whose parent was made before. What it shall be like follows in
    /// [`Self::finish_dir`].
    ///
    /// # Errors
    /// [`Error::Entry`] where `path` is none, [`Error::Io`].
    pub fn create_dir(&self, path: &[u8]) -> Result<()> {
        check_path(path).map_err(|what| Error::entry(MANIFEST_NAME, path, what))?;
        make_dir(&self.store, &content_path(path))
    }

    /// Lists the directory at `path` with its attributes; the root has the empty path.
    ///
    /// # Errors
    /// [`Error::Entry`] where `path` is none.
    pub fn finish_dir(&self, path: &[u8], attributes: &Attributes) -> Result<()> {
        let kind = EntryKind::Dir {
            mode: attributes.mode.unwrap_or(DIR_MODE) & 0o777,
        };
        self.add(path, attributes, kind)
    }

    /// Lists the symlink at `path`. It lies in the manifest alone.
    ///
    /// # Errors
    /// [`Error::Entry`] where `path` is none, or the target is none that stays in the package.
    pub fn write_symlink(&self, path: &[u8], target: &[u8], attributes: &Attributes) -> Result<()> {
        check_entry(path, attributes.modified, Some(target))?;
        let target = target.to_vec();
        self.add(path, attributes, EntryKind::Symlink { target })
    }

    /// Seals `source` as the file at `path`, which is not there yet, and lists it.
    ///
    /// # Errors
    /// [`Error::Entry`] where `path` is none, [`Error::Io`] and [`Error::File`] where reading or writing fails.
    pub fn write_file(&self, path: &[u8], source: &Source<'_>, progress: &dyn Progress) -> Result<()> {
        let entry = self.seal_file(path, source, progress)?;
        if !self.list(entry)? {
            return Err(Error::entry(
                MANIFEST_NAME,
                path,
                "it has the file ID of another file",
            ));
        }
        Ok(())
    }

    /// Seals `source` as the file at `path`, which is not there yet. Returns what [`Self::list`] is to list, here or where
    /// the package was begun.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub fn seal_file(&self, path: &[u8], source: &Source<'_>, progress: &dyn Progress) -> Result<Entry> {
        check_entry(path, source.attributes.modified, None)?;
        let stored = content_path(path);
        let failed = |source| Error::io(&stored, "writing", source);
        let pending = self.store.create(&stored).map_err(failed)?;
        let sealed = file::seal(
            &self.engine,
            &self.content_key,
            source.content,
            source.len,
            self.chunk_len,
            &pending,
            progress,
        )
        .map_err(|source| Error::file(&stored, source))?;
        if !(source.unchanged)() {
            return Err(Error::file(&stored, chunk_cipher::Error::Changed));
        }
        pending.commit(&stored_attributes()).map_err(failed)?;
        Ok(file_entry(path, source, &sealed))
    }

    /// What an earlier run has stored at `path`, if anything.
    ///
    /// # Errors
    /// [`Error::Entry`] where `path` is none, [`Error::Io`].
    pub fn existing(&self, path: &[u8]) -> Result<Option<Kind>> {
        check_path(path).map_err(|what| Error::entry(MANIFEST_NAME, path, what))?;
        let stored = content_path(path);
        match self.store.metadata(&stored) {
            Ok(metadata) => Ok(Some(metadata.kind)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io(&stored, "finding", source)),
        }
    }

    /// Whether the file stored at `path` is what an earlier run made of `source`: it opens to every byte of it. Lists it
    /// then.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] where it cannot be read.
    pub fn is_complete(&self, path: &[u8], source: &Source<'_>, progress: &dyn Progress) -> Result<bool> {
        match self.complete_file(path, source, progress)? {
            Some(entry) => self.list(entry),
            None => Ok(false),
        }
    }

    /// What [`Self::list`] is to list of the file stored at `path`, if that is what an earlier run made of `source`: it
    /// opens to every byte of it.
    ///
    /// # Errors
    /// As [`Self::is_complete`].
    pub fn complete_file(
        &self,
        path: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<Option<Entry>> {
        let stored = content_path(path);
        let file = self.store.open(&stored);
        let file = file.map_err(|source| Error::io(&stored, "reading", source))?;
        let mut header = [0; HEADER_LEN];
        match file.read_exact_at(0, &mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read.map_err(|source| Error::io(&stored, "reading", source))?,
        }
        let Ok(header) = Header::parse(&header) else {
            return Ok(None);
        };
        if header.len != source.len || header.chunk_len != self.chunk_len {
            return Ok(None);
        }
        let engine = self.engine.clone();
        let file = match PackageFile::open(stored.clone(), file, &header, None, &self.content_key, engine) {
            Err(Error::Header { .. } | Error::Mismatch { .. }) => return Ok(None),
            opened => opened?,
        };
        let digest = match file.unseal_and_digest(&Compare(source.content), &Uncounted(progress)) {
            Err(Error::File {
                source: chunk_cipher::Error::Chunk { .. } | chunk_cipher::Error::Write { .. },
                ..
            }) => return Ok(None),
            compared => compared?,
        };
        let sealed = Sealed {
            file_id: header.id,
            digest,
        };
        Ok(Some(file_entry(path, source, &sealed)))
    }

    /// Lists a file that was sealed. Returns whether its file ID is its own, as somebody may have copied one stored file
    /// over another; it is not listed where it is not.
    ///
    /// # Errors
    /// [`Error::Entry`] where no package can hold it.
    pub fn list(&self, entry: Entry) -> Result<bool> {
        entry.check_alone()?;
        if let EntryKind::File { file_id, .. } = &entry.kind {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            if !ids.insert(*file_id) {
                return Ok(false);
            }
        }
        self.push(entry);
        Ok(true)
    }

    /// Whether a file of `len` bytes of plaintext is stored at `path` in all its length.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be looked up.
    pub fn is_stored(&self, path: &[u8], len: u64) -> Result<bool> {
        let stored = content_path(path);
        let header = Header {
            len,
            chunk_len: self.chunk_len,
            id: FileId::from_bytes([0; 32]),
        };
        match self.store.metadata(&stored) {
            Ok(there) => Ok(there.kind == Kind::File && there.len == file::stored_len(&header)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::io(&stored, "finding", source)),
        }
    }

    /// Something stored in the directory at `dir` that none of `names` accounts for, if there is any.
    ///
    /// # Errors
    /// [`Error::Io`] where the directory cannot be read.
    pub fn find_stale(&self, dir: &[u8], names: &[&[u8]]) -> Result<Option<PathBuf>> {
        let known: HashSet<&[u8]> = names.iter().copied().collect();
        let stored = content_path(dir);
        let listed = self.store.list(&stored);
        let listed = listed.map_err(|source| Error::io(&stored, "listing", source))?;
        let stale = listed
            .into_iter()
            .find(|(name, _)| !known.contains(name.as_bytes()));
        Ok(stale.map(|(name, _)| stored.join(name)))
    }

    /// Removes the file stored at `path`, which an earlier run left.
    ///
    /// # Errors
    /// [`Error::Io`] where it is not there.
    pub fn remove(&self, path: &[u8]) -> Result<()> {
        let stored = content_path(path);
        let removed = self.store.remove_file(&stored);
        removed.map_err(|source| Error::io(&stored, "removing", source))
    }

    /// Makes the package complete, once everything written would survive a power cut: its first license, for `key`, then
    /// `manifest.json`.
    ///
    /// # Errors
    /// [`Error::Entry`] where an entry does not go with the others, those of [`License::issue`], [`Error::Io`].
    pub fn finish(self, key: &[u8], terms: &Terms, issuer: &IssuerKey) -> Result<License> {
        let entries = self.entries.into_inner().unwrap_or_else(PoisonError::into_inner);
        let dirs: Vec<_> = entries
            .iter()
            .filter(|entry| entry.is_dir())
            .map(|entry| entry.path.clone())
            .collect();
        let commitment = self.content_key.commitment()?;
        let manifest = Manifest::new(self.content_id, commitment, self.chunk_len, entries)?.to_json();
        let content = Licensed {
            key: &self.content_key,
            content_id: self.content_id,
            manifest_digest: Manifest::digest(manifest.as_bytes()),
        };
        let license = License::issue(key, &content, terms, issuer)?;
        let store = &self.store;
        let sync = |path: &Path| {
            store
                .sync()
                .map_err(|source| Error::io(path, "completing", source))
        };
        let path = Path::new(MANIFEST_NAME);
        sync(path)?;
        write_license(store, &license, true)?;
        // Until now they were for their owner alone.
        let public = Attributes {
            mode: Some(DIR_MODE),
            ..Attributes::default()
        };
        let dirs = dirs.iter().map(|dir| content_path(dir));
        for dir in dirs.chain([PathBuf::from(LICENSES_DIR), PathBuf::new()]) {
            match store.set_attributes(&dir, &public) {
                // A directory without files need not be there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                set => set.map_err(|source| Error::io(&dir, "setting the attributes of", source))?,
            }
        }
        put(store, path, manifest.as_bytes())?;
        sync(path)?;
        remove_if_there(store, Path::new(PARTIAL_NAME))?;
        sync(path)?;
        Ok(license)
    }

    fn add(&self, path: &[u8], attributes: &Attributes, kind: EntryKind) -> Result<()> {
        check_entry(path, attributes.modified, None)?;
        let modified = attributes.modified.map(Modified::from).unwrap_or_default();
        self.push(Entry::new(path.to_vec(), modified, kind));
        Ok(())
    }

    fn push(&self, entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(entry);
    }
}

/// What the manifest says of a file that was sealed.
fn file_entry(path: &[u8], source: &Source<'_>, sealed: &Sealed) -> Entry {
    let Attributes { mode, modified, .. } = source.attributes;
    let kind = EntryKind::File {
        mode: mode.unwrap_or(FILE_MODE) & 0o777,
        length: source.len,
        file_id: sealed.file_id,
        digest: sealed.digest,
    };
    let modified = modified.map(Modified::from).unwrap_or_default();
    Entry::new(path.to_vec(), modified, kind)
}

/// Refuses an entry that no package can hold, before hours go into the others: by its path, its time of modification, and
/// where it leads if it is a symlink.
///
/// # Errors
/// [`Error::Entry`].
pub fn check_entry(path: &[u8], modified: Option<SystemTime>, target: Option<&[u8]>) -> Result<()> {
    let checked = check_path(path)
        .and_then(|()| modified.map(Modified::from).unwrap_or_default().check())
        .and_then(|()| target.map_or(Ok(()), |target| check_target(path, target)));
    checked.map_err(|what| Error::entry(MANIFEST_NAME, path, what))
}

/// Reads the `partial.json` of a package that was never completed; none where there is no such thing.
///
/// # Errors
/// What is wrong with it.
pub fn read_partial(store: &impl chunk_cipher::store::Store) -> Result<Option<Partial>> {
    match read_whole(store, Path::new(PARTIAL_NAME), Partial::MAX_LEN) {
        Ok(content) => Partial::parse(&content).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn exists(store: &impl WriteStore, path: &Path) -> Result<bool> {
    match store.metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::io(path, "finding", source)),
    }
}

fn remove_if_there(store: &impl WriteStore, path: &Path) -> Result<()> {
    match store.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| Error::io(path, "removing", source)),
    }
}

/// Makes a directory; one that is there already will do.
fn make_dir(store: &impl WriteStore, path: &Path) -> Result<()> {
    let failed = |source| Error::io(path, "making the directory", source);
    match store.create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if store.metadata(path).map_err(failed)?.kind == Kind::Dir {
                Ok(())
            } else {
                Err(failed(error))
            }
        }
        made => made.map_err(failed),
    }
}

/// Writes a small file that is not there yet.
fn put(store: &impl WriteStore, path: &Path, content: &[u8]) -> Result<()> {
    let failed = |source| Error::io(path, "writing", source);
    let pending = store.create(path).map_err(failed)?;
    pending.write_all_at(0, content).map_err(failed)?;
    pending.commit(&stored_attributes()).map_err(failed)
}

fn stored_attributes() -> Attributes {
    Attributes {
        mode: Some(STORED_MODE),
        ..Attributes::default()
    }
}

impl From<SystemTime> for Modified {
    fn from(time: SystemTime) -> Self {
        let whole = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: whole(after.as_secs()),
                nanoseconds: after.subsec_nanos(),
            },
            Err(error) => {
                let before = error.duration();
                match before.subsec_nanos() {
                    0 => Self {
                        seconds: -whole(before.as_secs()),
                        nanoseconds: 0,
                    },
                    nanoseconds => Self {
                        seconds: -whole(before.as_secs()) - 1,
                        nanoseconds: 1_000_000_000 - nanoseconds,
                    },
                }
            }
        }
    }
}

impl Modified {
    /// The time, as far as the system can tell it.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        use std::time::Duration;
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let base = if self.seconds < 0 {
            UNIX_EPOCH.checked_sub(whole)
        } else {
            UNIX_EPOCH.checked_add(whole)
        };
        let fraction = Duration::from_nanos(u64::from(self.nanoseconds));
        base.and_then(|base| base.checked_add(fraction))
            .unwrap_or(UNIX_EPOCH)
    }
}

/// The path of a stored name.
pub(crate) fn to_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_go_both_ways() {
        let nanos = |nanos| Duration::from_nanos(nanos);
        for (time, seconds, nanoseconds) in [
            (UNIX_EPOCH, 0, 0),
            (UNIX_EPOCH + nanos(1_500_000_000), 1, 500_000_000),
            (UNIX_EPOCH - nanos(1), -1, 999_999_999),
            (UNIX_EPOCH - nanos(1_000_000_000), -1, 0),
            (UNIX_EPOCH - nanos(1_500_000_000), -2, 500_000_000),
        ] {
            let modified = Modified { seconds, nanoseconds };
            assert_eq!(Modified::from(time), modified);
            assert_eq!(modified.to_system_time(), time);
        }
    }
}
