//! Memory for large plaintexts, backed by huge pages where the system gives them.
#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::{fmt, io, slice};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Size and alignment of a huge page on x86-64 and on most aarch64 systems, in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Anonymous memory, all zero at first and not yet touched, aligned to huge pages when large.
///
/// First touch of 4 KiB pages costs more than the cipher, so a large buffer is advised to huge pages before
/// it is filled.
pub struct Buffer {
    data: NonNull<u8>,
    len: usize,
    mapping: NonNull<u8>,
    mapping_len: usize,
}

// SAFETY: the mapping is private to this value.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of `len` zero bytes.
    ///
    /// # Errors
    /// Where the system has no address space or memory to give.
    pub fn new(len: usize) -> io::Result<Self> {
        if len == 0 {
            let empty = NonNull::dangling();
            return Ok(Self {
                data: empty,
                len,
                mapping: empty,
                mapping_len: 0,
            });
        }
        let slack = if len >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let mapping_len = len.checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh private mapping; nothing else is affected.
        let mapping = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                mapping_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let shift = if slack == 0 {
            0
        } else {
            mapping.as_ptr().align_offset(HUGE_PAGE)
        };
        // SAFETY: `shift` is below the slack, so `data` and `len` bytes behind it are in the mapping.
        let data = unsafe { mapping.add(shift) };
        let buffer = Self {
            data,
            len,
            mapping,
            mapping_len,
        };
        if slack > 0 {
            // Advice only: without huge pages the buffer works all the same.
            // SAFETY: the range is ours.
            let _ = unsafe { madvise(data.as_ptr().cast(), len, Advice::LinuxHugepage) };
        }
        Ok(buffer)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.mapping_len > 0 {
            // SAFETY: the mapping is ours and nobody can refer to it any more.
            let _ = unsafe { munmap(self.mapping.as_ptr().cast(), self.mapping_len) };
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that live as long as `self`.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zero_writable_and_aligned_when_large() {
        for len in [0, 1, 4097, HUGE_PAGE - 1, HUGE_PAGE, 5 * HUGE_PAGE + 3] {
            let mut buffer = Buffer::new(len).unwrap();
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(7);
            assert_eq!(
                buffer.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
                7 * len as u64
            );
            if len >= HUGE_PAGE {
                assert_eq!(buffer.as_ptr().align_offset(HUGE_PAGE), 0);
            }
        }
        assert!(Buffer::new(usize::MAX).is_err());
    }
}
