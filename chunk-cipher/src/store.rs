//! Where stored bytes come from and go to. The formats are generic over these traits, so a new kind of storage
//! needs no change in them.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

mod local;
mod mapped;
mod pending;

pub use local::{LocalFile, LocalStore, ReadMode, read_xattrs};
pub use pending::LocalPending;

/// Positional reads of one open file, from any number of threads.
pub trait ReadAt: Send + Sync + fmt::Debug {
    /// The file's length in bytes, as it is now.
    ///
    /// # Errors
    /// Where the storage cannot tell.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty now.
    ///
    /// # Errors
    /// As [`ReadAt::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the file ends before, and whatever the storage reports.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Starts a read that borrows the stored bytes instead of copying them.
    ///
    /// `None` where that is not safe or not worth it; then [`ReadAt::read_exact_at`] is the way.
    fn windows(&self) -> Option<Box<dyn Windows + '_>> {
        None
    }

    /// How large reads are done where each request waits for a network.
    ///
    /// `None` where it does not; then [`ReadAt::read_exact_at`] is the way.
    fn remote(&self) -> Option<&dyn Remote> {
        None
    }
}

/// Stored bytes that are far away: many requests must be under way at once, and their answers arrive bit by bit.
pub trait Remote: Sync {
    /// Bytes that one request is best made for, where `len` bytes are read.
    fn part_len(&self, len: u64) -> u64;

    /// Reads `parts`, as many at once as is best, and calls `sink` with the index of a part and the bytes that come
    /// next in it: one call at a time for each part, from any thread.
    ///
    /// Bytes that `sink` was given are never given again, so what is repeated after an interruption goes on behind
    /// them.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the file ends before, whatever the storage reports, and the first error
    /// of `sink`, after which it is not called for any further part.
    fn fetch(&self, parts: &[Range<u64>], sink: &Sink<'_>) -> io::Result<()>;
}

/// Takes the bytes that come next in the part with an index.
pub type Sink<'a> = dyn Fn(usize, &[u8]) -> io::Result<()> + Sync + 'a;

/// Stored bytes that can be borrowed for a while, piece by piece.
pub trait Windows: Send + Sync {
    /// Calls `work` with as much of the stored `range` as can be held still: the part, and its bytes.
    ///
    /// Returns whether the bytes certainly stayed the same all the while. After `false` whatever came of them
    /// must be thrown away; `work` may not have been called at all.
    fn with(&self, range: Range<u64>, work: &mut dyn FnMut(Range<u64>, &[u8])) -> bool;
}

/// Positional writes to one open file, from any number of threads.
pub trait WriteAt: Send + Sync + fmt::Debug {
    /// Writes all of `buf` at `offset`.
    ///
    /// # Errors
    /// Whatever the storage reports.
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Writes `len` zeros at `offset`. Where a file reads as zeros until it is written, there is nothing to do.
    ///
    /// # Errors
    /// Whatever the storage reports.
    fn write_zeros_at(&self, offset: u64, len: usize) -> io::Result<()> {
        self.write_all_at(offset, &vec![0; len])
    }

    /// Says how long the file will be, before more than its beginning is written. Whatever is not written then reads as
    /// zero, where it is a [`PendingFile`].
    ///
    /// # Errors
    /// Whatever the storage reports.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let _ = len;
        Ok(())
    }
}

/// Compares what is written to it with another file, and fails where they differ.
#[derive(Debug)]
pub struct Compare<'a>(pub &'a dyn ReadAt);

impl WriteAt for Compare<'_> {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let mut there = vec![0; buf.len()];
        self.0.read_exact_at(offset, &mut there)?;
        if there == buf {
            Ok(())
        } else {
            Err(io::Error::other("the files differ"))
        }
    }
}

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// What is known of an entry without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Stored length in bytes (of a symbolic link: of its target).
    pub len: u64,
    /// Permission bits, as in `chmod`.
    pub mode: u32,
    /// Time of the last modification.
    pub modified: SystemTime,
}

/// An extended attribute: its full name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// A tree of files that can be read. Paths are relative to its root; the empty path is the root.
///
/// No method follows a symbolic link, in any component of the path, nor leaves the tree.
pub trait Store: Send + Sync + fmt::Debug {
    /// An open file.
    type File: ReadAt;

    /// Opens the regular file at `path` for reading.
    ///
    /// # Errors
    /// Where there is none, or it cannot be read.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// What the entry at `path` is.
    ///
    /// # Errors
    /// Where there is none.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// The entries of the directory at `path`, in no particular order, without `.` and `..`.
    ///
    /// # Errors
    /// Where it is no directory, or cannot be read.
    fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Kind)>>;

    /// The target of the symbolic link at `path`.
    ///
    /// # Errors
    /// Where it is no symbolic link.
    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The extended attributes of the entry at `path`; none where the storage has no such thing.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>>;
}

/// What is set on an entry once its content is in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, as in `chmod`.
    pub mode: Option<u32>,
    /// Time of the last modification.
    pub modified: Option<SystemTime>,
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
}

/// A tree of files that can be written as well.
pub trait WriteStore: Store {
    /// A file that is being written.
    type Pending: PendingFile;

    /// Starts the file at `path`. It is to be seen there not before [`PendingFile::commit`], and gone when dropped
    /// before.
    ///
    /// # Errors
    /// Whatever the storage reports.
    fn create(&self, path: &Path) -> io::Result<Self::Pending>;

    /// Makes a directory that its owner may write to.
    ///
    /// # Errors
    /// Where something is there already, or the storage refuses.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes a symbolic link to `target`.
    ///
    /// # Errors
    /// Where something is there already, or the storage refuses.
    fn create_symlink(&self, target: &[u8], path: &Path) -> io::Result<()>;

    /// Sets attributes of the entry at `path`.
    ///
    /// # Errors
    /// Whatever the storage reports.
    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()>;

    /// Whether entries have the permission bits and times that they were given.
    fn keeps_attributes(&self) -> bool {
        true
    }

    /// Whether entries can have extended attributes of the user's.
    fn supports_xattrs(&self) -> bool;

    /// Removes the file or symbolic link at `path`.
    ///
    /// # Errors
    /// Where there is none.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Gives the file at `from` the name `to`, replacing what is there, in one step.
    ///
    /// # Errors
    /// Whatever the storage reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Waits until everything written so far would survive a power cut.
    ///
    /// # Errors
    /// Where writing failed, now or before.
    fn sync(&self) -> io::Result<()>;

    /// Removes what interrupted runs left of files that they never committed.
    ///
    /// # Errors
    /// Whatever the storage reports.
    fn remove_leftovers(&self) -> io::Result<()>;
}

/// A file that is being written and has no name yet.
pub trait PendingFile: WriteAt {
    /// Sets the attributes and gives the file its name, in one step. Nothing may be there already.
    ///
    /// # Errors
    /// Where something is there, or the storage refuses; the file is gone then.
    fn commit(self, attributes: &Attributes) -> io::Result<()>;
}

/// A file to be sealed.
pub struct Source<'a> {
    /// Its plaintext.
    pub content: &'a dyn ReadAt,
    /// Length of the plaintext in bytes.
    pub len: u64,
    /// Its attributes.
    pub attributes: &'a Attributes,
    /// Whether it still is what it was; asked when all of it was read, before the sealed file gets its name.
    pub unchanged: &'a dyn Fn() -> bool,
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
