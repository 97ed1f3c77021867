//! A TDX guest's kernel, as far as evidence needs it, in FUSE: configfs-tsm and the files of the registers.
//!
//! As in the kernel, a write to `inblob` takes effect when the file is closed, the quote is made by the first read of
//! `outblob`, attribute files go with their directory, and each write to a register extends it. A write of another
//! length than 64 and 48 bytes, or in two parts, is refused at once; the kernel refuses some of those only when the
//! quote is read.
#![allow(dead_code, clippy::cast_possible_truncation, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use attest_client::event_log::extend;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};

/// Whether FUSE can be used. Where it cannot, a test is skipped, but not in CI.
pub(crate) fn is_available() -> bool {
    let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") else {
        return true;
    };
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "/dev/fuse: {error}"
    );
    eprintln!("SKIPPED: /dev/fuse cannot be opened: {error}");
    false
}

/// What goes wrong with an attempt at a quote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing: the attempt succeeds.
    None,
    /// The directory cannot be made.
    Mkdir(Errno),
    /// `inblob` cannot be written.
    Inblob(Errno),
    /// `outblob` cannot be read.
    Outblob(Errno),
    /// The quote is empty.
    Empty,
    /// The quote is longer than any.
    Oversized,
    /// The quote is not one.
    Garbage,
    /// The quote is cut off.
    Cut,
    /// Another process writes its report data to our directory before the quote is made.
    ForeignWrite,
    /// Another process writes after the quote was made.
    ForeignWriteLater,
    /// The quote is one that was made before, for other report data.
    Stale,
    /// The driver counts no generations.
    NoGeneration,
}

/// The mounted kernel.
pub(crate) struct Guest {
    state: Arc<Mutex<State>>,
    root: tempfile::TempDir,
    session: Option<BackgroundSession>,
}

pub(crate) struct State {
    pub(crate) provider: String,
    pub(crate) registers: [[u8; 48]; 4],
    /// Faults of the attempts to come; afterwards there are none.
    pub(crate) faults: VecDeque<Fault>,
    /// Directories of reports that were made.
    pub(crate) attempts: usize,
    /// Quotes that were made.
    pub(crate) quotes: usize,
    /// Whether registers can be written.
    pub(crate) extendable: bool,
    /// What a write to a register fails with after it was extended.
    pub(crate) extended_but: Option<Errno>,
    /// A directory whose files are looked at before a register is extended.
    pub(crate) watched: Option<PathBuf>,
    /// The files then, by name.
    pub(crate) seen: BTreeMap<String, Vec<u8>>,
    directories: BTreeMap<u64, Directory>,
    next: u64,
}

struct Directory {
    name: String,
    fault: Fault,
    inblob: Option<[u8; 64]>,
    /// Written, and the file not closed yet.
    pending: Option<[u8; 64]>,
    generation: u64,
    outblob: Vec<u8>,
}

impl Guest {
    pub(crate) fn mount() -> Self {
        let state = Arc::new(Mutex::new(State {
            provider: "tdx_guest\n".to_owned(),
            registers: [[0; 48]; 4],
            faults: VecDeque::new(),
            attempts: 0,
            quotes: 0,
            extendable: true,
            extended_but: None,
            watched: None,
            seen: BTreeMap::new(),
            directories: BTreeMap::new(),
            next: FIRST_DIRECTORY,
        }));
        let root = tempfile::tempdir().unwrap();
        let session = fuser::spawn_mount(Kernel(state.clone()), root.path(), &Config::default()).unwrap();
        Self {
            state,
            root,
            session: Some(session),
        }
    }

    pub(crate) fn with_faults(faults: impl IntoIterator<Item = Fault>) -> Self {
        let guest = Self::mount();
        guest.state().faults.extend(faults);
        guest
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What is `/sys/kernel/config/tsm/report` in a real guest.
    pub(crate) fn configfs(&self) -> PathBuf {
        self.root.path().join("report")
    }

    /// What is `/sys/devices/virtual/misc/tdx_guest/measurements` in a real guest.
    pub(crate) fn registers(&self) -> PathBuf {
        self.root.path().join("measurements")
    }

    /// Directories of reports that were made, and that are there.
    pub(crate) fn directories(&self) -> (usize, usize) {
        let state = self.state();
        (state.attempts, state.directories.len())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.umount_and_join().unwrap();
        }
    }
}

/// A quote of a real machine with other report data and registers; its signature no longer fits.
pub(crate) fn quote(report_data: &[u8; 64], registers: &[[u8; 48]; 4]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/tdx_quote_v4.bin");
    let mut quote = fs::read(path).unwrap();
    for (index, register) in registers.iter().enumerate() {
        quote[376 + 48 * index..][..48].copy_from_slice(register);
    }
    quote[568..632].copy_from_slice(report_data);
    quote
}

/// The files of a directory, by name.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

struct Kernel(Arc<Mutex<State>>);

const ROOT: u64 = 1;
const REPORT: u64 = 2;
const MEASUREMENTS: u64 = 3;
const FIRST_REGISTER: u64 = 4;
/// Directories are as far apart as they have files and more.
const FIRST_DIRECTORY: u64 = 16;
const STRIDE: u64 = 16;
const FILES: [&str; 4] = ["provider", "inblob", "outblob", "generation"];

/// What an inode is.
#[derive(Clone, Copy)]
enum Node {
    Directory,
    Register(usize),
    /// A file of the directory of reports with that inode.
    File(u64, &'static str),
}

impl State {
    fn node(&self, ino: u64) -> Option<Node> {
        match ino {
            ROOT | REPORT | MEASUREMENTS => Some(Node::Directory),
            FIRST_REGISTER..8 => Some(Node::Register((ino - FIRST_REGISTER) as usize)),
            _ => {
                let directory = ino - ino % STRIDE;
                self.directories.get(&directory)?;
                match ino % STRIDE {
                    0 => Some(Node::Directory),
                    file => Some(Node::File(directory, FILES.get(file as usize - 1)?)),
                }
            }
        }
    }

    fn child(&self, parent: u64, name: &str) -> Option<u64> {
        match (parent, name) {
            (ROOT, "report") => Some(REPORT),
            (ROOT, "measurements") => Some(MEASUREMENTS),
            (REPORT, _) => {
                let mut directories = self.directories.iter();
                directories
                    .find(|(_, directory)| directory.name == name)
                    .map(|(ino, _)| *ino)
            }
            (MEASUREMENTS, _) => (0..4)
                .find(|index| name == format!("rtmr{index}:sha384"))
                .map(|index| FIRST_REGISTER + index),
            (parent, _) => {
                self.directories.get(&parent)?;
                let position = FILES.iter().position(|file| *file == name)?;
                Some(parent + 1 + position as u64)
            }
        }
    }

    fn attributes(&self, ino: u64) -> Option<FileAttr> {
        let (kind, perm) = match self.node(ino)? {
            Node::Directory => (FileType::Directory, 0o755),
            Node::Register(2 | 3) => (FileType::RegularFile, 0o644),
            Node::Register(_) => (FileType::RegularFile, 0o444),
            Node::File(_, "inblob") => (FileType::RegularFile, 0o200),
            Node::File(..) => (FileType::RegularFile, 0o400),
        };
        Some(FileAttr {
            ino: INodeNo(ino),
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 512,
            flags: 0,
        })
    }

    fn content(&mut self, node: Node, offset: u64) -> Result<Vec<u8>, Errno> {
        match node {
            Node::Directory => Err(Errno::EISDIR),
            Node::Register(index) => Ok(self.registers[index].to_vec()),
            Node::File(_, "provider") => Ok(self.provider.clone().into_bytes()),
            Node::File(directory, "generation") => {
                let directory = &self.directories[&directory];
                Ok(match directory.fault {
                    Fault::NoGeneration => b"none\n".to_vec(),
                    _ => format!("{}\n", directory.generation).into_bytes(),
                })
            }
            Node::File(directory, "outblob") => {
                if offset == 0 {
                    let quote = self.make_quote(directory)?;
                    self.directories.get_mut(&directory).unwrap().outblob = quote;
                }
                Ok(self.directories[&directory].outblob.clone())
            }
            Node::File(..) => Err(Errno::EACCES),
        }
    }

    fn make_quote(&mut self, directory: u64) -> Result<Vec<u8>, Errno> {
        let registers = self.registers;
        let directory = self.directories.get_mut(&directory).unwrap();
        let report_data = directory.inblob.ok_or(Errno::EINVAL)?;
        self.quotes += 1;
        Ok(match directory.fault {
            Fault::Outblob(errno) => return Err(errno),
            Fault::Empty => Vec::new(),
            Fault::Oversized => vec![4; 1 << 20],
            Fault::Garbage => b"no quote".repeat(600),
            Fault::Cut => quote(&report_data, &registers)[..4000].to_vec(),
            Fault::Stale => quote(&[0xee; 64], &registers),
            Fault::ForeignWrite => {
                directory.generation += 1;
                quote(&[0xff; 64], &registers)
            }
            Fault::ForeignWriteLater => {
                directory.generation += 1;
                quote(&report_data, &registers)
            }
            _ => quote(&report_data, &registers),
        })
    }
}

impl Kernel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

const TTL: Duration = Duration::ZERO;

impl Filesystem for Kernel {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        let ino = name.to_str().and_then(|name| state.child(parent.0, name));
        match ino.and_then(|ino| state.attributes(ino)) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attributes(ino.0) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let mut state = self.state();
        if parent.0 != REPORT {
            return reply.error(Errno::EPERM);
        }
        state.attempts += 1;
        let fault = state.faults.pop_front().unwrap_or(Fault::None);
        if let Fault::Mkdir(errno) = fault {
            return reply.error(errno);
        }
        let ino = state.next;
        state.next += STRIDE;
        state.directories.insert(
            ino,
            Directory {
                name: name.to_str().unwrap().to_owned(),
                fault,
                inblob: None,
                pending: None,
                generation: 0,
                outblob: Vec::new(),
            },
        );
        reply.entry(&TTL, &state.attributes(ino).unwrap(), Generation(0));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state();
        match name.to_str().and_then(|name| state.child(parent.0, name)) {
            Some(ino) if parent.0 == REPORT => {
                state.directories.remove(&ino);
                reply.ok();
            }
            Some(_) => reply.error(Errno::EPERM),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The sizes of the files are not known before they are read.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.state();
        let Some(node) = state.node(ino.0) else {
            return reply.error(Errno::ENOENT);
        };
        match state.content(node, offset) {
            Ok(content) => {
                let from = content.len().min(offset as usize);
                let to = content.len().min(from + size as usize);
                reply.data(&content[from..to]);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        match state.node(ino.0) {
            Some(Node::Register(index)) => match <&[u8; 48]>::try_from(data) {
                Ok(_) if index < 2 || !state.extendable => reply.error(Errno::EPERM),
                Ok(digest) if offset == 0 => {
                    if let Some(directory) = &state.watched {
                        state.seen = files(directory);
                    }
                    state.registers[index] = extend(&state.registers[index], digest);
                    match state.extended_but {
                        Some(errno) => reply.error(errno),
                        None => reply.written(48),
                    }
                }
                _ => reply.error(Errno::EINVAL),
            },
            Some(Node::File(directory, "inblob")) => {
                let directory = state.directories.get_mut(&directory).unwrap();
                match (directory.fault, <[u8; 64]>::try_from(data)) {
                    (Fault::Inblob(errno), _) => reply.error(errno),
                    (_, Ok(inblob)) if offset == 0 && directory.pending.is_none() => {
                        directory.pending = Some(inblob);
                        reply.written(64);
                    }
                    _ => reply.error(Errno::EINVAL),
                }
            }
            _ => reply.error(Errno::EACCES),
        }
    }

    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let mut state = self.state();
        if let Some(Node::File(directory, "inblob")) = state.node(ino.0) {
            let directory = state.directories.get_mut(&directory).unwrap();
            if let Some(inblob) = directory.pending.take() {
                directory.inblob = Some(inblob);
                directory.generation += 1;
            }
        }
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.state();
        if ino.0 == REPORT {
            for (number, (ino, directory)) in (1..).zip(&state.directories).skip(offset as usize) {
                if reply.add(INodeNo(*ino), number, FileType::Directory, &directory.name) {
                    break;
                }
            }
        }
        reply.ok();
    }
}
