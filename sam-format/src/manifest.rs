//! `manifest.json`: what the content is (FORMAT.md, section 5).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use chunk_cipher::random;
use sha2::{Digest, Sha256};

use crate::canonical::{MAX_INTEGER, Member};
use crate::encoding;
use crate::error::{Error, Result};
use crate::header::{ChunkLen, FileId, MAX_FILE_LEN};
use crate::keys::KEY_LEN;

mod path;
mod read;
pub(crate) mod tree;
mod write;

pub(crate) use read::{bytes as read_bytes, chunk_length as read_chunk_length};
pub(crate) use write::bytes as write_bytes;

pub use path::{COMPONENT_MAX, PATH_MAX, TARGET_MAX, check_path, check_target};

/// The name of the file.
pub const MANIFEST_NAME: &str = "manifest.json";

/// Permission bits.
const MODE_MAX: u32 = 0o777;
const NANOSECONDS_MAX: u32 = 999_999_999;

/// What a package contains. One that exists is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    content_id: ContentId,
    content_key_commitment: [u8; KEY_LEN],
    chunk_len: ChunkLen,
    /// Ascending by path.
    entries: Vec<Entry>,
    /// Members that this version does not know.
    kept: Vec<Member>,
}

/// Something in a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path, as bytes; that of the root is empty.
    pub path: Vec<u8>,
    /// When it was last modified.
    pub modified: Modified,
    /// What it is.
    pub kind: EntryKind,
    /// Members that this version does not know.
    kept: Vec<Member>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Length of the plaintext in bytes.
        length: u64,
        /// The random identity of its content.
        file_id: FileId,
        /// Digest of the stored file.
        digest: [u8; 32],
    },
    /// A directory.
    Dir {
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Symlink {
        /// What it leads to.
        target: Vec<u8>,
    },
}

/// A time of modification, since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modified {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds on top of them, less than 10^9.
    pub nanoseconds: u32,
}

/// The random identity of a package's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId([u8; 16]);

impl Manifest {
    /// The longest manifest that is read, in bytes.
    pub const MAX_LEN: usize = 64 << 20;

    /// Reads the content of a `manifest.json`.
    ///
    /// # Errors
    /// [`Error::Document`] where it is not canonical JSON or a member is not as it must be, [`Error::Entry`] where an
    /// entry is not.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let manifest = read::manifest(content)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// A manifest of these entries, in any order.
    ///
    /// # Errors
    /// [`Error::Entry`] where an entry is not as it must be, [`Error::ManifestLength`] where there are too many.
    pub fn new(
        content_id: ContentId,
        content_key_commitment: [u8; KEY_LEN],
        chunk_len: ChunkLen,
        mut entries: Vec<Entry>,
    ) -> Result<Self> {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let manifest = Self {
            content_id,
            content_key_commitment,
            chunk_len,
            entries,
            kept: Vec::new(),
        };
        manifest.check()?;
        let len = manifest.to_json().len();
        if len > Self::MAX_LEN {
            return Err(Error::ManifestLength {
                document: MANIFEST_NAME,
                len,
                max: Self::MAX_LEN,
            });
        }
        Ok(manifest)
    }

    /// The content of the file.
    #[must_use]
    pub fn to_json(&self) -> String {
        write::manifest(self)
    }

    /// The digest by which a license names a manifest, of its file's content.
    #[must_use]
    pub fn digest(content: &[u8]) -> [u8; 32] {
        Sha256::digest(content).into()
    }

    /// The identity of the content.
    #[must_use]
    pub const fn content_id(&self) -> ContentId {
        self.content_id
    }

    /// The commitment of the content key: [`ContentKey::commitment`](crate::keys::ContentKey::commitment).
    #[must_use]
    pub const fn content_key_commitment(&self) -> &[u8; KEY_LEN] {
        &self.content_key_commitment
    }

    /// Length of the chunks of every file.
    #[must_use]
    pub const fn chunk_len(&self) -> ChunkLen {
        self.chunk_len
    }

    /// All entries, ascending by the bytes of the path; the first is the root.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at `path`.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        tree::find(&self.entries, path)
    }

    /// The entries below the directory at `path`, at any depth, ascending by path.
    #[must_use]
    pub fn below(&self, path: &[u8]) -> &[Entry] {
        tree::below(&self.entries, path)
    }

    /// Checks what concerns more than one entry, and each entry.
    fn check(&self) -> Result<()> {
        let bad = |(path, what)| Error::entry(MANIFEST_NAME, path, what);
        tree::check(&self.entries).map_err(bad)?;
        let mut ids = HashSet::with_capacity(self.entries.len());
        for entry in &self.entries {
            entry.check().map_err(|what| bad((&entry.path, what)))?;
            if let EntryKind::File { file_id, .. } = &entry.kind
                && !ids.insert(file_id)
            {
                return Err(bad((&entry.path, "it has the file ID of another file")));
            }
        }
        Ok(())
    }
}

impl tree::Node for Entry {
    fn path(&self) -> &[u8] {
        &self.path
    }

    fn is_dir(&self) -> bool {
        self.is_dir()
    }
}

impl Entry {
    /// An entry; whether it is as it must be shows in [`Manifest::new`].
    #[must_use]
    pub const fn new(path: Vec<u8>, modified: Modified, kind: EntryKind) -> Self {
        Self {
            path,
            modified,
            kind,
            kept: Vec::new(),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// Whether it is a directory.
    #[must_use]
    pub const fn is_dir(&self) -> bool {
        matches!(self.kind, EntryKind::Dir { .. })
    }

    /// The entry as it stands in the document, on its own.
    #[must_use]
    pub fn to_json(&self) -> String {
        write::entry(self)
    }

    /// Reads an entry that stands on its own.
    ///
    /// # Errors
    /// [`Error::Document`] where it is not canonical JSON or a member is not as it must be, [`Error::Entry`] where it is
    /// none that a package can hold.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let entry = read::lone_entry(content)?;
        entry.check_alone()?;
        Ok(entry)
    }

    /// Refuses it where no package can hold it.
    pub(crate) fn check_alone(&self) -> Result<()> {
        let checked = check_path(&self.path).and_then(|()| self.check());
        checked.map_err(|what| Error::entry(MANIFEST_NAME, &self.path, what))
    }

    /// What is wrong with it on its own.
    fn check(&self) -> Result<(), &'static str> {
        self.modified.check()?;
        match &self.kind {
            EntryKind::File { length, .. } if *length > MAX_FILE_LEN => {
                return Err("it is longer than 2^53 - 1 bytes");
            }
            EntryKind::Symlink { target } => check_target(&self.path, target)?,
            _ => {}
        }
        match self.kind {
            EntryKind::File { mode, .. } | EntryKind::Dir { mode } if mode > MODE_MAX => {
                Err("its mode is more than the permission bits")
            }
            _ => Ok(()),
        }
    }
}

impl Modified {
    /// What is wrong with it.
    pub(crate) const fn check(self) -> Result<(), &'static str> {
        if self.nanoseconds > NANOSECONDS_MAX {
            return Err("it has 10^9 nanoseconds or more");
        }
        if self.seconds.unsigned_abs() > MAX_INTEGER {
            return Err("its time of modification is beyond 2^53 - 1 seconds");
        }
        Ok(())
    }
}

impl ContentId {
    /// A fresh one.
    ///
    /// # Errors
    /// [`Error::Cipher`] where the system has no random bytes to give.
    pub fn generate() -> Result<Self> {
        let mut id = [0; 16];
        random::fill(&mut id)?;
        Ok(Self(id))
    }

    /// The one with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encoding::hex(&self.0))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
