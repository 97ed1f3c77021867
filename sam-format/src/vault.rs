//! The signed manifest of a gocryptfs vault (`modelseal/MANIFEST.md`): what a vault by itself does not tell, by the
//! stored names and the stored bytes. To make one takes no key but the issuer's.

use std::ops::Range;
use std::sync::Arc;

use crate::canonical::{MAX_INTEGER, array, object, string, without};
use crate::encoding::{base64, hex};
use crate::error::{Error, Result};
use crate::issuer::{IssuerKey, IssuerPublicKey};
use crate::manifest::{tree, write_bytes};

mod digest;
mod read;

use read::DOCUMENT;

pub use digest::{Blocks, SEGMENT_LEN, Scanned, scan, short_digest, target_digest};

/// Domain of what the issuer signs.
const LABEL_SIGNATURE: &str = "modelseal/1 vault manifest signature";

/// The longest plaintext of a block, in bytes: a stored block is longer.
const BLOCK_LEN: u64 = 4096;

/// What a vault holds. One that exists was signed by its issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultManifest {
    serial: u64,
    issuer: IssuerPublicKey,
    /// Ascending by path.
    entries: Vec<StoredEntry>,
}

/// Something in a vault, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its stored path, as bytes; that of the root is empty.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: StoredKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredKind {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// Its stored length in bytes.
        length: u64,
        /// Its digest: see [`scan`].
        digest: [u8; 32],
        /// What is known of its blocks. None for what has no blocks: the configuration, the IV of a directory, a long
        /// name, and the content of an empty file. Those are short.
        content: Option<StoredContent>,
    },
    /// A symbolic link.
    Symlink {
        /// Digest of its stored target: see [`target_digest`].
        digest: [u8; 32],
    },
}

/// What is known of the blocks of a file without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredContent {
    /// The file ID in its header.
    pub file_id: [u8; 16],
    /// The blocks that are holes: ascending ranges of their indices that do not touch.
    pub holes: Arc<[Range<u64>]>,
}

impl VaultManifest {
    /// The longest one that is read, in bytes.
    pub const MAX_LEN: usize = 64 << 20;
    /// Longest file without blocks, in bytes: as long as a configuration may be.
    pub const SHORT_MAX: u64 = 1 << 20;

    /// Signs a list of what a vault holds, in any order. Returns the document.
    ///
    /// # Errors
    /// [`Error::Entry`] where an entry is not as it must be, [`Error::ManifestLength`] where there are too many, and
    /// [`Error::SerialRange`].
    pub fn sign(mut entries: Vec<StoredEntry>, serial: u64, issuer: &IssuerKey) -> Result<String> {
        if serial > MAX_INTEGER {
            return Err(Error::SerialRange { serial });
        }
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        check(&entries)?;
        let mut members = vec![
            ("format", string(DOCUMENT.format)),
            ("version", DOCUMENT.version.to_string()),
            ("serial", serial.to_string()),
            ("issuer_key", string(&issuer.public().to_string())),
            ("entries", array(entries.iter().map(StoredEntry::to_json))),
        ];
        let signature = issuer.sign(&[LABEL_SIGNATURE.as_bytes(), object(members.clone()).as_bytes()]);
        members.push(("signature", string(&base64(&signature))));
        let text = object(members);
        if text.len() > Self::MAX_LEN {
            return Err(Error::ManifestLength {
                document: DOCUMENT.name,
                len: text.len(),
                max: Self::MAX_LEN,
            });
        }
        Ok(text)
    }

    /// Reads a manifest that its issuer signed, one of `issuers` where there are any, with at least this serial where
    /// one is given. Without an issuer, the signature says nothing about who signed.
    ///
    /// # Errors
    /// [`Error::Document`], [`Error::Signature`], [`Error::Issuer`], [`Error::Serial`], and [`Error::Entry`] where an
    /// entry is not as it must be.
    pub fn open(content: &[u8], issuers: &[IssuerPublicKey], min_serial: Option<u64>) -> Result<Self> {
        let (manifest, text, signature) = read::manifest(content)?;
        let signed = without(DOCUMENT.name, text, &["signature"])?;
        let signed = [LABEL_SIGNATURE.as_bytes(), signed.as_bytes()];
        if !manifest.issuer.verifies(&signed, &signature) {
            return Err(Error::Signature {
                document: DOCUMENT.name,
            });
        }
        if !issuers.is_empty() && !issuers.contains(&manifest.issuer) {
            return Err(Error::Issuer {
                document: DOCUMENT.name,
                issuer: manifest.issuer,
            });
        }
        if let Some(min) = min_serial
            && manifest.serial < min
        {
            return Err(Error::Serial {
                document: DOCUMENT.name,
                serial: manifest.serial,
                min,
            });
        }
        check(&manifest.entries)?;
        Ok(manifest)
    }

    /// The number that its issuer counts up with every manifest.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// Who signed it.
    #[must_use]
    pub const fn issuer(&self) -> IssuerPublicKey {
        self.issuer
    }

    /// All entries, ascending by the bytes of the path; the first is the root.
    #[must_use]
    pub fn entries(&self) -> &[StoredEntry] {
        &self.entries
    }

    /// The entry at the stored path `path`.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&StoredEntry> {
        tree::find(&self.entries, path)
    }

    /// The entries in the directory at the stored path `path`, each with its name; not what lies deeper.
    pub fn children<'a>(
        &'a self,
        path: &[u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a StoredEntry)> + use<'a> {
        let prefix = if path.is_empty() { 0 } else { path.len() + 1 };
        tree::below(&self.entries, path).iter().filter_map(move |entry| {
            let name = entry.path.get(prefix..)?;
            (!name.contains(&b'/')).then_some((name, entry))
        })
    }
}

impl StoredEntry {
    fn to_json(&self) -> String {
        let mut members = vec![write_bytes("path", "path_base64", &self.path)];
        match &self.kind {
            StoredKind::Dir => members.push(("kind", string("dir"))),
            StoredKind::Symlink { digest } => {
                members.extend([("kind", string("symlink")), ("digest", string(&hex(digest)))]);
            }
            StoredKind::File {
                length,
                digest,
                content,
            } => {
                members.extend([
                    ("kind", string("file")),
                    ("length", length.to_string()),
                    ("digest", string(&hex(digest))),
                ]);
                if let Some(content) = content {
                    members.push(("file_id", string(&hex(&content.file_id))));
                    if !content.holes.is_empty() {
                        let range = |range: &Range<u64>| format!("[{},{}]", range.start, range.end);
                        members.push(("holes", array(content.holes.iter().map(range))));
                    }
                }
            }
        }
        object(members)
    }

    /// What is wrong with it on its own, but for its path.
    fn check(&self) -> Result<(), &'static str> {
        let StoredKind::File { length, content, .. } = &self.kind else {
            return Ok(());
        };
        if *length > MAX_INTEGER {
            return Err("it is longer than 2^53 - 1 bytes");
        }
        let Some(content) = content else {
            return if *length > VaultManifest::SHORT_MAX {
                Err("it is longer than 1048576 bytes and has no file ID")
            } else {
                Ok(())
            };
        };
        let mut end = None;
        for range in content.holes.iter() {
            if range.is_empty() || end.is_some_and(|end| range.start <= end) {
                return Err("its holes are not ascending ranges that do not touch");
            }
            end = Some(range.end);
        }
        if end.is_some_and(|end| end > length / BLOCK_LEN) {
            return Err("its holes are outside of it");
        }
        Ok(())
    }
}

impl tree::Node for StoredEntry {
    fn path(&self) -> &[u8] {
        &self.path
    }

    fn is_dir(&self) -> bool {
        matches!(self.kind, StoredKind::Dir)
    }
}

fn check(entries: &[StoredEntry]) -> Result<()> {
    let bad = |(path, what)| Error::entry(DOCUMENT.name, path, what);
    tree::check(entries).map_err(bad)?;
    for entry in entries {
        entry.check().map_err(|what| bad((&entry.path, what)))?;
    }
    Ok(())
}
