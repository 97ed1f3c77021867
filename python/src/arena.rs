//! Memory of shards, and what is kept of it for the next one.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use modelseal::Buffer;
use pyo3::prelude::*;
use rustix::mm::{Advice, madvise};

use crate::buffer::with_bytes;

/// Bytes a page, at least: what is not a multiple of the system's is refused by it.
const PAGE: usize = 4096;

/// Bytes a huge page, on x86-64 and on most aarch64 systems.
const HUGE_PAGE: usize = 2 << 20;

/// Memory that was given back and is kept for what is loaded next, as the system would clear it first; the system may take
/// it whenever it is short of memory. It goes with the model, or with whatever else loads, and so does what was decrypted there:
/// up to then whoever reads this process's memory finds the key as well.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The oldest first.
    buffers: Mutex<VecDeque<Buffer>>,
    /// So many bytes at most.
    most: usize,
}

impl Kept {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            buffers: Mutex::default(),
            most,
        })
    }

    /// Memory of `len` bytes, with anything in it, if there is any.
    pub(crate) fn take(&self, len: usize) -> Option<Buffer> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let place = buffers.iter().position(|buffer| buffer.len() == len)?;
        buffers.remove(place)
    }

    fn keep(&self, mut buffer: Buffer) {
        if buffer.len() < HUGE_PAGE || buffer.len() > self.most {
            return;
        }
        let pages = (&raw mut *buffer).cast::<u8>();
        // SAFETY: whole pages of a mapping that nobody else refers to; what is in it does not matter.
        let _ = unsafe { madvise(pages.cast(), buffer.len() / PAGE * PAGE, Advice::LinuxFree) };
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        // The oldest make room.
        while held > self.most - buffer.len() {
            held -= buffers.pop_front().map_or(held, |oldest| oldest.len());
        }
        buffers.push_back(buffer);
    }
}

/// Asks the system for huge pages where a buffer of which nothing was written to yet lies: it clears them several times as fast.
#[pyfunction]
pub(crate) fn prefer_huge_pages(buffer: &Bound<'_, PyAny>) -> PyResult<()> {
    with_bytes(buffer, |bytes| {
        let address = bytes.as_ptr().addr();
        let first = address.next_multiple_of(PAGE) - address;
        let end = ((address + bytes.len()) / PAGE * PAGE).saturating_sub(address);
        if let Some(pages) = bytes.get_mut(first..end) {
            // Advice only: a system without huge pages refuses it.
            // SAFETY: whole pages of a mapping, which is borrowed meanwhile; what is in them stays there.
            let _ = unsafe { madvise(pages.as_mut_ptr().cast(), pages.len(), Advice::LinuxHugepage) };
        }
        Ok(())
    })
}

/// Memory that several objects of Python may each have a part of.
pub(crate) struct Arena {
    /// Of the buffer, which is not used itself any more.
    data: NonNull<u8>,
    len: usize,
    /// Called before the memory goes.
    on_release: Mutex<Vec<Py<PyAny>>>,
    buffer: Option<Buffer>,
    kept: Weak<Kept>,
}

// SAFETY: the memory is the buffer's, which may be sent; what Python does with it is by Python's own rules.
unsafe impl Send for Arena {}
// SAFETY: nothing here reads or writes it.
unsafe impl Sync for Arena {}

impl Arena {
    /// Memory that goes back to `kept`, if that is still there.
    pub(crate) fn new(mut buffer: Buffer, kept: Weak<Kept>) -> Arc<Self> {
        let len = buffer.len();
        Arc::new(Self {
            data: NonNull::from(&mut *buffer).cast(),
            len,
            on_release: Mutex::new(Vec::new()),
            buffer: Some(buffer),
            kept,
        })
    }

    /// Where it begins.
    pub(crate) const fn data(&self) -> NonNull<u8> {
        self.data
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Has `call` called before the memory goes.
    pub(crate) fn on_release(&self, call: Py<PyAny>) {
        let mut calls = self.on_release.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(call);
    }

    /// Lets the system have `len` bytes from `data` on, while other parts are in use. Where the memory is kept, it may; else it
    /// does at once. Only whole pages go, so that no other part is touched.
    ///
    /// # Safety
    /// They lie in this, and nobody refers to them any more.
    pub(crate) unsafe fn give_back(&self, data: NonNull<u8>, len: usize) {
        let (page, advice) = if self.kept.strong_count() == 0 {
            (PAGE, Advice::LinuxDontNeed)
        } else {
            // One of which a part is taken falls apart.
            (HUGE_PAGE, Advice::LinuxFree)
        };
        let address = data.as_ptr().addr();
        let first = address.next_multiple_of(page);
        let end = (address + len) / page * page;
        if first < end {
            let at = data.as_ptr().wrapping_add(first - address);
            // Advice only: without it the memory goes with the last part.
            // SAFETY: the caller has promised it.
            let _ = unsafe { madvise(at.cast(), end - first, advice) };
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let calls = std::mem::take(self.on_release.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !calls.is_empty() {
            // Where the interpreter is going, so are those who would have to know.
            Python::try_attach(|py| {
                for call in calls {
                    if let Err(error) = call.call0(py) {
                        error.write_unraisable(py, None);
                    }
                }
            });
        }
        if let (Some(buffer), Some(kept)) = (self.buffer.take(), self.kept.upgrade()) {
            kept.keep(buffer);
        }
    }
}
