//! Borrowing stored bytes straight from the page cache.
//!
//! AWS-LC reads ciphertext more than once (for the tag and for decryption). Bytes that changed in between would
//! come out unverified, and a page that vanished would raise SIGBUS. So a file is mapped only where both are
//! ruled out, and copied everywhere else:
//!
//! - by other processes of this system: a read lease (`F_SETLEASE`) is held for as long as the mapping. The
//!   kernel grants it only while nobody has the file open for writing, and makes whoever wants to write or
//!   truncate wait until it is given up. A lease that is being broken is noticed before and after each window.
//! - by a host below this system, which may own the disk: file systems that keep their pages in this system's
//!   memory only (not FUSE, network, 9p, virtiofs, DAX, or overlays over any of those), each window locked
//!   (`mlock`) so that no page can be dropped and read again from the disk meanwhile.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::slice;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, fstatfs, statx};
use rustix::mm::{MapFlags, ProtFlags, mlock, mmap, munlock, munmap};

use super::Windows;

const TMPFS_MAGIC: u64 = 0x0102_1994;
const EXT4_MAGIC: u64 = 0xef53;
const XFS_MAGIC: u64 = 0x5846_5342;
const BTRFS_MAGIC: u64 = 0x9123_683e;

/// `F_SETSIG` of Linux, which `libc` leaves out: chooses the signal that announces a writer.
const F_SETSIG: libc::c_int = 10;

/// `STATX_ATTR_DAX`: the file is memory of a device, not of the page cache.
const STATX_ATTR_DAX: u64 = 0x0020_0000;

/// Whether the file lies where its pages are this system's own memory.
pub(super) fn is_safe(file: &File) -> bool {
    let attributes = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE);
    let dax = attributes.map_or(true, |statx| statx.stx_attributes.bits() & STATX_ATTR_DAX != 0);
    !dax && matches!(magic(file), Some(TMPFS_MAGIC | EXT4_MAGIC | XFS_MAGIC | BTRFS_MAGIC))
}

#[allow(clippy::cast_sign_loss)] // Magic numbers, signed on some systems.
fn magic(file: &File) -> Option<u64> {
    Some(fstatfs(file).ok()?.f_type as u64)
}

/// Whether pages of the file may leave memory while they are read: not on tmpfs without swap.
fn needs_pinning(file: &File) -> bool {
    magic(file) != Some(TMPFS_MAGIC) || rustix::system::sysinfo().totalswap != 0
}

/// A whole file mapped for reading, under a lease.
pub(super) struct Mapped {
    lease: Lease,
    data: NonNull<u8>,
    len: usize,
    page: usize,
    pin: bool,
}

// SAFETY: the mapping is read-only and private to this value.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// `None` where the lease or the mapping is refused.
    pub(super) fn new(file: &File) -> Option<Self> {
        let lease = Lease::take(file)?;
        let len = usize::try_from(lease.file.metadata().ok()?.len()).ok().filter(|len| *len > 0)?;
        // SAFETY: a fresh mapping, which affects nothing else; it is read under the lease only.
        let data =
            unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, &lease.file, 0).ok()? };
        let data = NonNull::new(data.cast::<u8>())?;
        Some(Self { lease, data, len, page: rustix::param::page_size(), pin: needs_pinning(file) })
    }

    /// The part of the bytes `range` that this window alone can hold still.
    ///
    /// Unlocking a page unlocks it for everyone, so a window that is locked takes only the pages that lie wholly
    /// within its range; no other window of this mapping has those.
    fn own_part(&self, range: Range<usize>) -> Range<usize> {
        if !self.pin {
            return range;
        }
        let start = range.start.next_multiple_of(self.page);
        let end = if range.end == self.len { range.end } else { range.end / self.page * self.page };
        start..end
    }
}

impl Windows for Mapped {
    fn with(&self, range: Range<u64>, work: &mut dyn FnMut(Range<u64>, &[u8])) -> bool {
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
            return false;
        };
        if start >= end || end > self.len {
            return false;
        }
        let part = self.own_part(start..end);
        if part.is_empty() || !self.lease.is_held() {
            return false;
        }
        // SAFETY: within the mapping, as checked above.
        let at = unsafe { self.data.add(part.start) };
        // SAFETY: the pages are ours. Fails cleanly where the limit is reached or a page cannot be read.
        if self.pin && unsafe { mlock(at.as_ptr().cast(), part.len()) }.is_err() {
            return false;
        }
        // SAFETY: mapped for as long as `self`; the lease keeps every other process from changing the bytes.
        let bytes = unsafe { slice::from_raw_parts(at.as_ptr(), part.len()) };
        work(part.start as u64..part.end as u64, bytes);
        if self.pin {
            // SAFETY: as for mlock; `bytes` is not used any more.
            let _ = unsafe { munlock(at.as_ptr().cast(), part.len()) };
        }
        self.lease.is_held()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and every borrow of it has ended.
        let _ = unsafe { munmap(self.data.as_ptr().cast(), self.len) };
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
        let own = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let lease = Self { file: File::from(own) };
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
