//! Borrowing stored bytes straight from the page cache.
//!
//! AWS-LC reads ciphertext more than once (for the tag and for decryption). Bytes that changed in between would
//! come out unverified, and a page that vanished would raise SIGBUS. So a file is mapped only where both are
//! ruled out (short of a process that is stopped in the middle of a window until the lease is broken by force), and
//! copied everywhere else:
//!
//! - by other processes of this system: a read lease (`F_SETLEASE`) is held for as long as the mapping. The
//!   kernel grants it only while nobody has the file open for writing, and makes whoever wants to write or
//!   truncate wait until it is given up. A lease that is being broken is noticed before and after each window.
//! - by a host below this system, which may own the disk: file systems that keep their pages in this system's
//!   memory only (not FUSE, network, 9p, virtiofs, DAX, or overlays over any of those), each window pinned so
//!   that no page can be dropped and read again from the disk meanwhile.
//!
//! A window is pinned by the references to its pages that a pipe takes (`vmsplice`): the kernel neither drops nor
//! moves a page that is referenced. `mlock` would do as well, but splits and merges the mapping under its write
//! lock each time, costs a tenth of the speed, and is limited to 8 MiB a process on most systems.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, fstatfs, statx};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::pipe::{IoSliceRaw, PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, vmsplice};

use super::Windows;
use crate::pool::Pool;

const TMPFS_MAGIC: u64 = 0x0102_1994;
const EXT4_MAGIC: u64 = 0xef53;
const XFS_MAGIC: u64 = 0x5846_5342;
const BTRFS_MAGIC: u64 = 0x9123_683e;

/// `F_SETSIG` of Linux, which `libc` leaves out: chooses the signal that announces a writer.
const F_SETSIG: libc::c_int = 10;

/// `STATX_ATTR_DAX`: the file is memory of a device, not of the page cache.
const STATX_ATTR_DAX: u64 = 0x0020_0000;

/// Capacity that every process may give its pipes, in bytes.
const PIPE_LEN: usize = 1 << 20;

/// Bytes that one thread takes out of a mapping at a time.
const UNMAP: usize = 8 << 20;

/// Whether the file lies where its pages are this system's own memory.
fn is_safe(file: &File) -> bool {
    let attributes = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE);
    let dax = attributes.map_or(true, |statx| statx.stx_attributes.bits() & STATX_ATTR_DAX != 0);
    !dax && matches!(
        magic(file),
        Some(TMPFS_MAGIC | EXT4_MAGIC | XFS_MAGIC | BTRFS_MAGIC)
    )
}

#[allow(clippy::cast_sign_loss)] // Magic numbers, signed on some systems.
fn magic(file: &File) -> Option<u64> {
    Some(fstatfs(file).ok()?.f_type as u64)
}

/// Whether the system has swap now, to which pages of tmpfs may go.
fn has_swap() -> bool {
    rustix::system::sysinfo().totalswap != 0
}

/// A whole file mapped for reading. Nothing reads it but [`Leased`].
#[derive(Debug)]
pub(super) struct Mapping {
    data: NonNull<u8>,
    len: usize,
    page: usize,
    tmpfs: bool,
    populated: Populated,
}

// SAFETY: the mapping is read-only and private to this value.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `None` where the system refuses, or the file does not lie where this is safe.
    pub(super) fn new(file: &File) -> Option<Self> {
        if !is_safe(file) {
            return None;
        }
        let len = usize::try_from(file.metadata().ok()?.len())
            .ok()
            .filter(|len| *len > 0)?;
        // SAFETY: a fresh mapping, which affects nothing else; it is read under a lease only.
        let data = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0).ok()? };
        let data = NonNull::new(data.cast::<u8>())?;
        let tmpfs = magic(file) == Some(TMPFS_MAGIC);
        if !tmpfs {
            // What is not in the page cache yet is then read into huge pages, which are mapped 512 at a time and
            // read faster, by copying too.
            // SAFETY: advice on our own mapping; without huge pages it works all the same.
            let _ = unsafe { madvise(data.as_ptr().cast(), len, Advice::LinuxHugepage) };
        }
        Some(Self {
            data,
            len,
            page: rustix::param::page_size(),
            tmpfs,
            populated: Populated::new(len),
        })
    }

    /// The file's bytes for as long as a lease can be had.
    pub(super) fn lease(&self, file: &File) -> Option<Leased<'_>> {
        let lease = Lease::take(file)?;
        // The file may have become shorter since it was mapped, but not any more.
        let len = lease.file.metadata().ok()?.len();
        // Pages of tmpfs stay in memory where there is no swap; asked each time, as swap may be added.
        let pin = !self.tmpfs || has_swap();
        (len >= self.len as u64).then_some(Leased {
            mapping: self,
            lease,
            pin,
        })
    }

    /// Takes pages out of the mapping, until somebody reads them again.
    fn forget(&self, start: usize, len: usize) {
        debug_assert!(start + len <= self.len);
        // SAFETY: within our own mapping, which only reads what the file has anyway.
        let _ = unsafe { madvise(self.data.add(start).as_ptr().cast(), len, Advice::LinuxDontNeed) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // tmpfs has small pages, which are taken out one by one: that takes a quarter as long as reading them, so all
        // threads do it. Without threads, all is left to munmap.
        if self.tmpfs && self.len >= 4 * UNMAP {
            let this = &*self;
            let _ = Pool::shared().run(|| {
                let starts = (0..this.len).into_par_iter().step_by(UNMAP);
                starts.for_each(|start| this.forget(start, UNMAP.min(this.len - start)));
            });
        }
        // SAFETY: the mapping is ours and every borrow of it has ended.
        let _ = unsafe { munmap(self.data.as_ptr().cast(), self.len) };
    }
}

/// A mapping under a lease.
pub(super) struct Leased<'a> {
    mapping: &'a Mapping,
    lease: Lease,
    /// Whether pages may leave memory while they are read.
    pin: bool,
}

impl Windows for Leased<'_> {
    fn with(&self, range: Range<u64>, work: &mut dyn FnMut(Range<u64>, &[u8])) -> bool {
        let Mapping {
            data,
            len,
            page,
            populated,
            ..
        } = self.mapping;
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
            return false;
        };
        if start >= end || end > *len || !self.lease.is_held() {
            return false;
        }
        let first_page = start / page * page;
        // SAFETY: both within the mapping, as checked above.
        let (pages, bytes) = unsafe { (data.add(first_page), data.add(start)) };
        // Reports what would otherwise be a SIGBUS, and maps many pages at a time instead of a few a fault. Pages that
        // are not pinned stay mapped, so once is enough for them.
        if self.pin || !populated.is_known(start) {
            // SAFETY: the pages from there to `end` are mapped for as long as `self`; only page tables change.
            let mapped =
                unsafe { madvise(pages.as_ptr().cast(), end - first_page, Advice::LinuxPopulateRead) };
            if mapped.is_err() {
                return false;
            }
            populated.learn(start);
        }
        let pinned = if self.pin {
            // SAFETY: the pages from there to `end` are mapped for as long as `self`.
            unsafe { Pinned::new(pages, end - first_page) }
        } else {
            None
        };
        if self.pin && pinned.is_none() {
            return false;
        }
        // SAFETY: mapped for as long as `self`; the lease keeps every other process from changing the bytes.
        work(range, unsafe {
            slice::from_raw_parts(bytes.as_ptr(), end - start)
        });
        drop(pinned);
        self.lease.is_held()
    }
}

/// Which windows have been mapped page by page already: a bit for each [`Populated::STEP`] bytes that one started in.
/// A wrong answer costs time only.
#[derive(Debug)]
struct Populated(Box<[AtomicU64]>);

impl Populated {
    const STEP: usize = 512 << 10;

    fn new(len: usize) -> Self {
        Self((0..=len / Self::STEP / 64).map(|_| AtomicU64::new(0)).collect())
    }

    fn bit(&self, offset: usize) -> Option<(&AtomicU64, u64)> {
        let index = offset / Self::STEP;
        Some((self.0.get(index / 64)?, 1 << (index % 64)))
    }

    fn is_known(&self, offset: usize) -> bool {
        self.bit(offset)
            .is_some_and(|(bits, bit)| bits.load(Ordering::Relaxed) & bit != 0)
    }

    fn learn(&self, offset: usize) {
        if let Some((bits, bit)) = self.bit(offset) {
            bits.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

/// References to pages, held by a pipe that nobody reads.
struct Pinned {
    _pipe: (OwnedFd, OwnedFd),
}

impl Pinned {
    /// `None` where the pipe does not take them all.
    ///
    /// # Safety
    /// `len` bytes at `pages` are mapped.
    unsafe fn new(pages: NonNull<u8>, len: usize) -> Option<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        fcntl_setpipe_size(&writer, PIPE_LEN).ok()?;
        // SAFETY: the caller vouches for the range.
        let vector = unsafe { IoSliceRaw::from_slice(slice::from_raw_parts(pages.as_ptr(), len)) };
        // SAFETY: only references are taken; nobody ever reads the pipe.
        let taken = unsafe { vmsplice(&writer, &[vector], SpliceFlags::NONBLOCK).ok()? };
        (taken == len).then_some(Self {
            _pipe: (reader, writer),
        })
    }
}

/// A read lease on a file, held through an open file description of its own.
struct Lease {
    file: File,
}

impl Lease {
    /// `None` where someone has the file open for writing, or the system grants no leases here: it does so for
    /// the file's owner and for holders of CAP_LEASE.
    fn take(file: &File) -> Option<Self> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // Without O_NONBLOCK a write lease of somebody else would have to be waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let own = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        let lease = Self {
            file: File::from(own),
        };
        // The kernel announces a writer by a signal; SIGURG is one that programs ignore unless they ask for it.
        // SAFETY: plain fcntl calls on a descriptor that is open.
        let granted = unsafe {
            libc::fcntl(lease.file.as_raw_fd(), F_SETSIG, libc::SIGURG) == 0
                && libc::fcntl(lease.file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) == 0
        };
        // A lease that was not granted is not there to be given up: closing the file is enough.
        granted.then_some(lease)
    }

    /// Whether nobody has been waiting to write since the lease was taken.
    fn is_held(&self) -> bool {
        // SAFETY: a plain fcntl call on a descriptor that is open.
        unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_GETLEASE) == libc::F_RDLCK }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Closing alone would not do where a forked child has a copy of the descriptor.
        // SAFETY: a plain fcntl call on a descriptor that is open.
        unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }
}
