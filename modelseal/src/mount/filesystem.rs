//! The answers to the kernel.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use chunk_cipher::store::Kind;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use rustix::process::{getgid, getuid};

use crate::error::{Error, Result};
use crate::file::SealedFile;
use crate::model::Model;

use super::buffers::Buffers;
use super::files::Files;
use super::inodes::{Inode, Inodes};
use super::log::Log;

/// Bytes that the kernel asks for at most at a time: the 256 pages that it allows without being told otherwise.
pub(super) const MAX_READ: usize = 1 << 20;

/// How long the kernel may keep what it knows: nothing ever changes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What programs take as the size of their buffers. The kernel reads ahead however small those are.
const BLOCK_LEN: u32 = 128 << 10;

/// Bytes a block of [`FileAttr::blocks`].
const STAT_BLOCK: u64 = 512;

const GENERATION: Generation = Generation(0);

/// A model, as the kernel asks for it.
pub(super) struct SealedFilesystem {
    model: Arc<Model>,
    /// Whether all may read, whatever the permissions in the model.
    readable: bool,
    inodes: OnceLock<Inodes>,
    files: Files,
    buffers: Buffers,
    log: Log,
    /// Everything belongs to whoever mounts it.
    owner: (u32, u32),
    threads: usize,
    /// Whether the kernel need not ask before it reads a file or a directory.
    no_open: bool,
    no_opendir: bool,
    totals: OnceLock<Totals>,
}

/// What the whole model holds.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    entries: u64,
    bytes: u64,
}

impl SealedFilesystem {
    pub(super) fn new(model: Arc<Model>, log: Log, threads: usize, readable: bool) -> Self {
        Self {
            model,
            readable,
            inodes: OnceLock::new(),
            files: Files::default(),
            buffers: Buffers::default(),
            log,
            owner: (getuid().as_raw(), getgid().as_raw()),
            threads,
            no_open: false,
            no_opendir: false,
            totals: OnceLock::new(),
        }
    }

    fn inodes(&self) -> Result<&Inodes> {
        if let Some(inodes) = self.inodes.get() {
            return Ok(inodes);
        }
        let root = self.model.lookup("")?;
        Ok(self.inodes.get_or_init(|| Inodes::new(root)))
    }

    /// The inode that the kernel names.
    fn inode(&self, number: INodeNo) -> Result<Arc<Inode>, Errno> {
        let inodes = self.inodes().map_err(|error| self.failed(&error))?;
        inodes.get(number.0).ok_or(Errno::ESTALE)
    }

    /// Says what is wrong, and what to tell the kernel.
    fn failed(&self, error: &Error) -> Errno {
        self.log.error(error);
        Errno::EIO
    }

    fn attributes(&self, inode: &Inode) -> Result<FileAttr, Errno> {
        let metadata = inode.metadata(&self.model).map_err(|error| self.failed(&error))?;
        let kind = file_type(metadata.kind);
        // Links have no permissions of their own.
        let perm = match metadata.kind {
            Kind::Symlink => 0o777,
            _ => permissions(metadata.kind, metadata.mode, self.readable),
        };
        Ok(FileAttr {
            ino: INodeNo(inode.number),
            size: metadata.len,
            blocks: metadata.len.div_ceil(STAT_BLOCK),
            atime: metadata.modified,
            mtime: metadata.modified,
            ctime: metadata.modified,
            crtime: metadata.modified,
            kind,
            perm,
            // For a directory that says that its subdirectories are not counted.
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: BLOCK_LEN,
            flags: 0,
        })
    }

    /// An entry whose attributes cannot be read: the kernel asks again when somebody wants to have it.
    fn unknown(&self, inode: &Inode) -> FileAttr {
        FileAttr {
            ino: INodeNo(inode.number),
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: file_type(inode.entry.kind()),
            perm: 0,
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: BLOCK_LEN,
            flags: 0,
        }
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<Option<FileAttr>, Errno> {
        let dir = self.dir(parent)?;
        let inodes = self.inodes().map_err(|error| self.failed(&error))?;
        let found = inodes.lookup(&dir, name, &self.model, &self.log);
        match found.map_err(|error| self.failed(&error))? {
            Some(inode) => self.attributes(&inode).map(Some),
            None => Ok(None),
        }
    }

    fn dir(&self, number: INodeNo) -> Result<Arc<Inode>, Errno> {
        let inode = self.inode(number)?;
        match inode.entry.kind() {
            Kind::Dir => Ok(inode),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Calls `add` with what the directory holds from `offset` on, with the offset behind each, until it is full. The
    /// first two are the directory itself and the one that it is in.
    fn each_entry(
        &self,
        number: INodeNo,
        offset: u64,
        mut add: impl FnMut(&Inode, u64, &OsStr) -> bool,
    ) -> Result<(), Errno> {
        let dir = self.dir(number)?;
        let inodes = self.inodes().map_err(|error| self.failed(&error))?;
        let listing = inodes.list(&dir, &self.model, &self.log);
        let listing = listing.map_err(|error| self.failed(&error))?;
        let parent = self.inode(INodeNo(dir.parent))?;
        let dots = [(&*dir, OsStr::new(".")), (&*parent, OsStr::new(".."))];
        let entries = listing.entries.iter().map(|inode| (&**inode, inode.name()));
        let all = dots.into_iter().chain(entries);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (offset, (inode, name)) in (offset + 1..).zip(all.skip(start)) {
            if add(inode, offset, name) {
                break;
            }
        }
        Ok(())
    }

    fn read_file(&self, number: INodeNo, offset: u64, len: usize, reply: ReplyData) {
        let read = || {
            let inode = self.inode(number)?;
            let file = self.files.get(inode.number, || self.open_file(&inode));
            let file = file.map_err(|error| self.failed(&error))?;
            let mut plain = self.buffers.take(len).map_err(|_| Errno::ENOMEM)?;
            let read = file.read_at(offset, &mut plain);
            read.map(|len| (plain, len)).map_err(|error| self.failed(&error))
        };
        match read() {
            Ok((plain, len)) => reply.data(&plain[..len]),
            Err(errno) => reply.error(errno),
        }
    }

    /// The kernel would take a shorter file for the end of the one that it knows.
    fn open_file(&self, inode: &Inode) -> Result<SealedFile> {
        let file = self.model.open_file(&inode.entry)?;
        if file.len() == inode.metadata(&self.model)?.len {
            return Ok(file);
        }
        Err(Error::differs(
            inode.entry.path(),
            "it has another length than when the model was mounted",
        ))
    }

    fn extended_attributes(&self, number: INodeNo) -> Result<Arc<Inode>, Errno> {
        // The kernel never asks again then.
        if self.model.license().is_some() {
            return Err(Errno::ENOSYS);
        }
        self.inode(number)
    }

    fn totals(&self) -> Result<Totals> {
        if let Some(totals) = self.totals.get() {
            return Ok(*totals);
        }
        let inodes = self.inodes()?;
        let mut totals = Totals::default();
        let mut dirs: Vec<_> = inodes.get(INodeNo::ROOT.0).into_iter().collect();
        while let Some(dir) = dirs.pop() {
            totals.entries += 1;
            for inode in &inodes.list(&dir, &self.model, &self.log)?.entries {
                if inode.entry.kind() == Kind::Dir {
                    dirs.push(Arc::clone(inode));
                    continue;
                }
                totals.entries += 1;
                let len = inode.metadata(&self.model)?.len;
                totals.bytes = totals.bytes.saturating_add(len);
            }
        }
        Ok(*self.totals.get_or_init(|| totals))
    }
}

impl Filesystem for SealedFilesystem {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What a kernel does not have it goes without.
        for flag in [
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            let _ = config.add_capabilities(flag);
        }
        self.no_open = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok();
        self.no_opendir = config
            .add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT)
            .is_ok();
        // Nothing is written, but the pages of a request are counted by this.
        let _ = config.set_max_write(u32::try_from(MAX_READ).unwrap_or(u32::MAX));
        // Reads ahead of every thread may wait at the same time.
        let background = u16::try_from(4 * self.threads).unwrap_or(u16::MAX).max(64);
        let _ = config.set_max_background(background);
        let _ = config.set_congestion_threshold(background);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Ok(Some(attributes)) => reply.entry(&FOREVER, &attributes, GENERATION),
            Ok(None) => {
                // Number 0 lets the kernel remember that there is no such name.
                let nothing = self.inode(parent).map(|dir| FileAttr {
                    ino: INodeNo(0),
                    ..self.unknown(&dir)
                });
                match nothing {
                    Ok(nothing) => reply.entry(&FOREVER, &nothing, GENERATION),
                    Err(errno) => reply.error(errno),
                }
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.inode(number).and_then(|inode| self.attributes(&inode)) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.inode(number).and_then(|inode| {
            let target = self.model.read_link(&inode.entry);
            target.map_err(|error| self.failed(&error))
        });
        match target {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            // From now on the kernel reads without opening and closing, and keeps what it has read.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.read_file(number, offset, size as usize, reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // From now on the kernel does not tell.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.no_opendir {
            reply.error(Errno::ENOSYS);
        } else {
            let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
            reply.opened(FileHandle(0), flags);
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let added = self.each_entry(number, offset, |inode, offset, name| {
            let kind = file_type(inode.entry.kind());
            reply.add(INodeNo(inode.number), offset, kind, name)
        });
        match added {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let added = self.each_entry(number, offset, |inode, offset, name| {
            let (attributes, known) = match self.attributes(inode) {
                Ok(attributes) => (attributes, FOREVER),
                Err(_) => (self.unknown(inode), Duration::ZERO),
            };
            let number = INodeNo(inode.number);
            reply.add(number, offset, name, &known, &attributes, GENERATION)
        });
        match added {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        match self.totals() {
            Ok(totals) => {
                let blocks = totals.bytes.div_ceil(u64::from(BLOCK));
                reply.statfs(blocks, 0, 0, totals.entries, 0, BLOCK, 255, BLOCK);
            }
            Err(error) => reply.error(self.failed(&error)),
        }
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let inode = match self.extended_attributes(number) {
            Ok(inode) => inode,
            Err(errno) => return reply.error(errno),
        };
        match inode.xattrs(&self.model) {
            Ok(xattrs) => match xattrs.iter().find(|(known, _)| known == name.as_bytes()) {
                Some((_, value)) => answer(value, size, reply),
                None => reply.error(Errno::ENODATA),
            },
            Err(error) => reply.error(self.failed(&error)),
        }
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let inode = match self.extended_attributes(number) {
            Ok(inode) => inode,
            Err(errno) => return reply.error(errno),
        };
        match inode.xattrs(&self.model) {
            Ok(xattrs) => {
                let names: Vec<u8> = xattrs
                    .iter()
                    .flat_map(|(name, _)| name.iter().copied().chain([0]))
                    .collect();
                answer(&names, size, reply);
            }
            Err(error) => reply.error(self.failed(&error)),
        }
    }
}

/// The answer to a question about extended attributes, which with a size of 0 is for the length alone.
fn answer(value: &[u8], size: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

const fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::File | Kind::Other => FileType::RegularFile,
    }
}

/// What is allowed by `mode`: nobody may write. Where all is `readable`, what its owner may run or enter, all may.
fn permissions(kind: Kind, mode: u32, readable: bool) -> u16 {
    let mode = mode & 0o7555;
    let mode = match (readable, kind) {
        (false, _) => mode,
        (true, Kind::Dir) => mode | 0o555,
        (true, _) if mode & 0o111 == 0 => mode | 0o444,
        (true, _) => mode | 0o555,
    };
    u16::try_from(mode).unwrap_or(0o555)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_and_all_read_where_all_may() {
        assert_eq!(permissions(Kind::File, 0o640, false), 0o440);
        assert_eq!(permissions(Kind::File, 0o640, true), 0o444);
        assert_eq!(permissions(Kind::File, 0o700, true), 0o555);
        assert_eq!(permissions(Kind::Dir, 0o600, true), 0o555);
    }
}
