//! Memory for the plaintext of one read each.
#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::{fmt, io};

use chunk_cipher::Buffer;
use rustix::mm::{Advice, madvise, mlock};
use zeroize::Zeroize;

use crate::mount::filesystem::MAX_READ;

/// Buffers of [`MAX_READ`] bytes. The one that was used last is used next: it is still in the processor's cache.
#[derive(Default)]
pub(super) struct Buffers {
    idle: Mutex<Vec<Pages>>,
}

impl Buffers {
    /// Memory for `len` bytes. What it holds is what was read before, never shown to anybody.
    pub(super) fn take(&self, len: usize) -> io::Result<Lease<'_>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pages = match idle {
            Some(pages) if pages.0.len() >= len => pages,
            _ => Pages::new(len.max(MAX_READ))?,
        };
        Ok(Lease {
            buffers: self,
            pages: Some(pages),
            len,
        })
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

/// A buffer on loan.
pub(super) struct Lease<'a> {
    buffers: &'a Buffers,
    pages: Option<Pages>,
    len: usize,
}

impl Deref for Lease<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.as_ref().map_or(&[], |pages| &pages.0[..self.len])
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.pages
            .as_mut()
            .map_or(&mut [], |pages| &mut pages.0[..self.len])
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            let mut idle = self.buffers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(pages);
        }
    }
}

/// Memory that is locked where the limit allows it, and neither in core dumps nor in children of this process.
struct Pages(Buffer);

impl Pages {
    fn new(len: usize) -> io::Result<Self> {
        let mut buffer = Buffer::new(len)?;
        let (start, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the range is the buffer's own mapping. Locking changes nothing of what is in there.
        let _ = unsafe { mlock(start, len) };
        for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
            // SAFETY: as above; neither advice changes what this process finds there.
            let _ = unsafe { madvise(start, len, advice) };
        }
        Ok(Self(buffer))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_last_is_used_next() {
        let buffers = Buffers::default();
        let mut first = buffers.take(10).unwrap();
        first.fill(7);
        let second = buffers.take(MAX_READ + 1).unwrap();
        assert_eq!((first.len(), second.len()), (10, MAX_READ + 1));
        let (one, other) = (first.as_ptr(), second.as_ptr());
        assert_ne!(one, other);
        drop(second);
        drop(first);
        let next = buffers.take(4096).unwrap();
        assert_eq!(next.as_ptr(), one);
        // Too small for this one.
        let large = buffers.take(MAX_READ + 1).unwrap();
        assert_eq!(large.as_ptr(), other);
    }
}
