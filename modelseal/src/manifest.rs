//! The signed manifest of a gocryptfs vault: made, enforced while the vault is open, and verified (MANIFEST.md).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chunk_cipher::Engine;
use chunk_cipher::store::{Kind, ReadAt, Store};
use gocryptfs_core::conf::CONF_NAME;
use gocryptfs_core::names::{DIR_IV_NAME, LongName, is_long_name};
use gocryptfs_core::{BLOCK_LEN, ContentCipher, FileId, HEADER_LEN, NameScheme};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use sam_format::vault::{Blocks, StoredContent, StoredEntry, StoredKind, scan, target_digest};
use sam_format::{IssuerKey, IssuerPublicKey, VaultManifest};

use crate::Progress;
use crate::error::{Error, Result};
use crate::model::{OpenOptions, conf};
use crate::storage::{Storage, open_local};
use crate::tree::{Damage, Verified};

mod listed;

pub(crate) use listed::{ListedFile, ListedStore};

/// What the manifest of the vault at `path` is called where nothing else is said: it lies beside the vault.
#[must_use]
pub fn default_manifest_path(path: &Path) -> PathBuf {
    // Without what hides the name, such as a slash at the end.
    let mut name = path.components().as_path().as_os_str().to_os_string();
    name.push(".manifest.json");
    name.into()
}

/// Reads the manifest in the file at `path`, signed by one of `issuers` where there are any, with at least this serial
/// where one is given.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::Manifest`] where it is not as it must be.
pub fn read_vault_manifest(
    path: &Path,
    issuers: &[IssuerPublicKey],
    min_serial: Option<u64>,
) -> Result<VaultManifest> {
    let failed = |source| Error::io(path, "reading the manifest", source);
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(VaultManifest::MAX_LEN as u64 + 1)
                .read_to_end(&mut content)
        })
        .map_err(failed)?;
    VaultManifest::open(&content, issuers, min_serial).map_err(Error::manifest(path))
}

/// Signs what the vault at `path` holds, and writes the manifest to `destination`, in one step. Takes no key to the vault.
/// Returns how many entries the manifest has.
///
/// Whatever is no part of a vault is refused: signed, it would have to be there for ever.
///
/// # Errors
/// [`Error::NotSealed`], [`Error::Incomplete`] and [`Error::Stray`] where there is no vault or more than a vault,
/// [`Error::Vault`] and [`Error::Io`] where something cannot be read or written, [`Error::Manifest`] where a path or the
/// manifest becomes too long.
pub fn sign_vault(
    path: &Path,
    destination: &Path,
    issuer: &IssuerKey,
    serial: u64,
    engine: &Engine,
    progress: &dyn Progress,
) -> Result<u64> {
    let store = Storage::Local(open_local(path)?);
    let signing = Signing::new(&store, path, engine, progress)?;
    let entries = signing.entries()?;
    let count = entries.len() as u64;
    let text = VaultManifest::sign(entries, serial, issuer).map_err(Error::manifest(destination))?;
    replace(destination, text.as_bytes())
        .map_err(|source| Error::io(destination, "writing the manifest", source))?;
    Ok(count)
}

/// Checks every byte of the vault at `path` against its manifest. Takes no key. Calls `report` with whatever is damaged,
/// missing or not listed, and goes on. The bytes that it counts are stored ones.
///
/// # Errors
/// [`Error::Io`] where there is no directory, [`Error::Engine`] where the threads could not be started or `progress` calls
/// it off.
pub fn verify_vault(
    path: &Path,
    manifest: &VaultManifest,
    options: &OpenOptions,
    progress: &dyn Progress,
    report: &(dyn Fn(Damage) + Sync),
) -> Result<Verified> {
    let store = Storage::open(path, &options.objects, options.read_mode)?;
    let mut verified = Verified::default();
    for entry in &manifest.entries()[1..] {
        match &entry.kind {
            StoredKind::Dir => verified.dirs += 1,
            StoredKind::Symlink { .. } => verified.symlinks += 1,
            StoredKind::File { length, content, .. } => {
                verified.files += 1;
                verified.bytes = verified.bytes.saturating_add(*length);
                let holes = content.iter().flat_map(|content| content.holes.iter());
                verified.holes += holes.map(|range| range.end - range.start).sum::<u64>();
            }
        }
    }
    progress.begin(verified.files, verified.bytes);
    verified.damaged = verify_stored(&store, manifest, Path::new(""), &options.engine, progress, report)?;
    Ok(verified)
}

/// Checks every byte at or below the stored path `start` against the manifest. Returns how much is damaged.
pub(crate) fn verify_stored(
    store: &Storage,
    manifest: &VaultManifest,
    start: &Path,
    engine: &Engine,
    progress: &dyn chunk_cipher::Progress,
    report: &(dyn Fn(Damage) + Sync),
) -> Result<u64> {
    let damaged = AtomicU64::new(0);
    let differs = |at: &Path, error| {
        damaged.fetch_add(1, Ordering::Relaxed);
        report(Damage {
            path: at.to_path_buf(),
            error,
        });
    };
    let entries = manifest.entries().into_par_iter();
    let below = entries.filter(|entry| listed::path(&entry.path).starts_with(start));
    engine.pool().run(|| {
        below.try_for_each(|entry| {
            let at = listed::path(&entry.path);
            let checked = match &entry.kind {
                StoredKind::Dir => {
                    check_names(store, manifest, at, &differs);
                    Ok(())
                }
                StoredKind::Symlink { digest } => check_link(store, at, digest),
                StoredKind::File { length, digest, .. } => {
                    check_file(store, at, *length, digest, engine, progress)
                }
            };
            match checked {
                Err(error) if error.is_cancelled() => Err(chunk_cipher::Error::Cancelled),
                // Its directory has told that it is missing.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => {
                    differs(at, error);
                    Ok(())
                }
                Ok(()) => Ok(()),
            }
        })
    })??;
    Ok(damaged.into_inner())
}

/// Checks what lies in a directory.
fn check_names(
    store: &Storage,
    manifest: &VaultManifest,
    dir: &Path,
    differs: &(dyn Fn(&Path, Error) + Sync),
) {
    match store.list(dir) {
        Ok(found) => listed::compare(manifest, dir, found, |path, what| {
            differs(&path, Error::differs(&path, what));
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => differs(dir, Error::io(dir, "listing", source)),
    }
}

fn check_link(store: &Storage, path: &Path, digest: &[u8; 32]) -> Result<()> {
    let target = store
        .read_link(path)
        .map_err(|source| Error::io(path, "reading the symlink", source))?;
    if target_digest(&target) == *digest {
        Ok(())
    } else {
        Err(Error::differs(path, listed::OTHER_TARGET))
    }
}

fn check_file(
    store: &Storage,
    path: &Path,
    length: u64,
    digest: &[u8; 32],
    engine: &Engine,
    progress: &dyn chunk_cipher::Progress,
) -> Result<()> {
    let failed = |source| Error::io(path, "reading", source);
    let file = store.open(path).map_err(failed)?;
    if file.len().map_err(failed)? != length {
        return Err(Error::differs(path, listed::OTHER_LENGTH));
    }
    let scanned = scan(engine.pool(), &file, length, None, progress).map_err(Error::file(path))?;
    if scanned.digest == *digest {
        Ok(())
    } else {
        Err(Error::differs(path, listed::OTHER_DIGEST))
    }
}

/// A vault that is being signed.
struct Signing<'a> {
    store: &'a Storage,
    location: &'a Path,
    names: NameScheme,
    blocks: Blocks,
    engine: &'a Engine,
    progress: &'a dyn Progress,
}

impl<'a> Signing<'a> {
    fn new(
        store: &'a Storage,
        location: &'a Path,
        engine: &'a Engine,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let conf = conf(store, location)?;
        let overhead = match conf.flags().content_cipher() {
            ContentCipher::XChaCha20Poly1305 => 24 + 16,
            ContentCipher::Aes256Gcm | ContentCipher::Aes256Siv => 16 + 16,
        };
        Ok(Self {
            store,
            location,
            names: conf.flags().name_scheme(),
            blocks: Blocks {
                header_len: HEADER_LEN as u64,
                stored_len: BLOCK_LEN as u64 + overhead,
            },
            engine,
            progress,
        })
    }

    fn entries(&self) -> Result<Vec<StoredEntry>> {
        let mut found = vec![(PathBuf::new(), Kind::Dir)];
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            let listed = self.store.list(&dir);
            for (name, kind) in listed.map_err(|source| self.failed(&dir, "listing", source))? {
                let path = dir.join(name);
                if kind == Kind::Dir {
                    dirs.push(path.clone());
                }
                found.push((path, kind));
            }
        }
        let (mut files, mut bytes) = (0, 0_u64);
        for (path, _) in found.iter().filter(|(_, kind)| *kind == Kind::File) {
            let metadata = self.store.metadata(path);
            let metadata =
                metadata.map_err(|source| self.failed(path, "reading the attributes of", source))?;
            files += 1;
            bytes = bytes.saturating_add(metadata.len);
        }
        self.progress.begin(files, bytes);
        self.engine.pool().run(|| {
            let entries = found.into_par_iter().map(|(path, kind)| {
                Ok(StoredEntry {
                    kind: self.entry(&path, kind)?,
                    path: path.into_os_string().into_vec(),
                })
            });
            entries.collect()
        })?
    }

    fn entry(&self, path: &Path, kind: Kind) -> Result<StoredKind> {
        match kind {
            Kind::Dir => Ok(StoredKind::Dir),
            Kind::File => self.file(path),
            Kind::Symlink => {
                let target = self.store.read_link(path);
                let target = target.map_err(|source| self.failed(path, "reading the symlink", source))?;
                Ok(StoredKind::Symlink {
                    digest: target_digest(&target),
                })
            }
            Kind::Other => Err(self.stray(path, "a device, pipe or socket")),
        }
    }

    fn file(&self, path: &Path) -> Result<StoredKind> {
        let failed = |source| self.failed(path, "reading", source);
        let file = self.store.open(path).map_err(failed)?;
        let length = file.len().map_err(failed)?;
        // A file no longer than its header is empty.
        let has_blocks = !self.is_own(path) && length > HEADER_LEN as u64;
        if !has_blocks && length > VaultManifest::SHORT_MAX {
            return Err(self.stray(path, "longer than such a file of a vault can be"));
        }
        let file_id = if has_blocks {
            let mut header = [0; HEADER_LEN];
            file.read_exact_at(0, &mut header).map_err(failed)?;
            let id = FileId::from_header(&header).map_err(|what| self.stray(path, what))?;
            Some(*id.as_bytes())
        } else {
            None
        };
        let blocks = has_blocks.then_some(self.blocks);
        let at = self.location.join(path);
        let scanned =
            scan(self.engine.pool(), &file, length, blocks, self.progress).map_err(Error::file(&at))?;
        Ok(StoredKind::File {
            length,
            digest: scanned.digest,
            content: file_id.map(|file_id| StoredContent {
                file_id,
                holes: scanned.holes.into(),
            }),
        })
    }

    /// Whether the file at `path` is one of the vault's own, which have no blocks.
    fn is_own(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().as_bytes();
        path == Path::new(CONF_NAME)
            || self.names == NameScheme::Encrypted && name == DIR_IV_NAME.as_bytes()
            || self.names != NameScheme::Plaintext && is_long_name(name) == LongName::NameFile
    }

    fn failed(&self, path: &Path, action: &'static str, source: io::Error) -> Error {
        Error::io(&self.location.join(path), action, source)
    }

    fn stray(&self, path: &Path, what: &'static str) -> Error {
        Error::Stray {
            path: self.location.join(path),
            what,
        }
    }
}

/// Writes a file whole or not at all.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut new = OsString::from(path);
    new.push(".new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}
