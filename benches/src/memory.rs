//! Memory as others get it, and how much of it a process holds.
#![allow(unsafe_code)]

use std::fs;
use std::fs::File;
use std::hint::black_box;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use modelseal::Buffer;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::error::Result;

/// Fresh anonymous memory in 4 KiB pages, whatever the system's default is.
pub(crate) struct Unprepared {
    data: NonNull<u8>,
    len: usize,
}

impl Unprepared {
    pub(crate) fn new(len: usize) -> Result<Self> {
        // SAFETY: a fresh private mapping; nothing else is affected.
        let data = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let data = NonNull::new(data.cast::<u8>()).ok_or("no memory")?;
        let memory = Self { data, len };
        // Kernels without huge pages do not know the advice, nor need it.
        // SAFETY: the range is ours.
        let _ = unsafe { madvise(data.as_ptr().cast(), len, Advice::LinuxNoHugepage) };
        Ok(memory)
    }
}

impl Drop for Unprepared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody can refer to it any more.
        let _ = unsafe { munmap(self.data.as_ptr().cast(), self.len) };
    }
}

impl Deref for Unprepared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that live as long as `self`.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl DerefMut for Unprepared {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

/// A memory file mapped to be filled, as our own is.
pub(crate) struct Mapped {
    data: NonNull<u8>,
    len: usize,
}

impl Mapped {
    /// `len` must be the file's, which nobody else may have open.
    pub(crate) fn new(file: &File, len: usize) -> Result<Self> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping; nothing else is affected.
        let data = unsafe { mmap(ptr::null_mut(), len, prot, flags, file, 0)? };
        let data = NonNull::new(data.cast::<u8>()).ok_or("no memory")?;
        // SAFETY: the range is ours.
        let _ = unsafe { madvise(data.as_ptr().cast(), len, Advice::LinuxHugepage) };
        Ok(Self { data, len })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody can refer to it any more.
        let _ = unsafe { munmap(self.data.as_ptr().cast(), self.len) };
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes of a file that is neither cut nor written to meanwhile.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl DerefMut for Mapped {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

/// Touches `len` bytes and gives them back, so that what the system hands out next is memory that it really has. The
/// host of a virtual machine may have taken back what was free, and fetching it again, which takes several times as
/// long as the rest of a page fault, would hit one side and not the other.
pub(crate) fn refresh_free(len: usize) -> Result<()> {
    let mut buffer = Buffer::new(len)?;
    buffer.fill(1);
    black_box(&buffer);
    Ok(())
}

/// By how many bytes this process's own memory (anonymous and shared, not what it has mapped of files) grows at
/// most while `work` runs, seen every millisecond and when it is done.
pub(crate) fn growth<T>(work: impl FnOnce() -> Result<T>) -> Result<u64> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (ready, started) = mpsc::channel();
        let done = &done;
        let watch = scope.spawn(move || -> Result<u64> {
            // The first look makes what looking takes; the second is the one to compare with.
            own_memory()?;
            let before = own_memory()?;
            let mut most = before;
            let _ = ready.send(());
            loop {
                let last = done.load(Ordering::Acquire);
                most = most.max(own_memory()?);
                if last {
                    return Ok(most - before);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let _ = started.recv();
        let made = work();
        done.store(true, Ordering::Release);
        let growth = watch.join().map_err(|_| "the watching thread panicked")??;
        made.map(|_| growth)
    })
}

/// `RssAnon` and `RssShmem` of this process in bytes.
fn own_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mut sum = 0;
    for line in status.lines() {
        if let Some(value) = line
            .strip_prefix("RssAnon:")
            .or_else(|| line.strip_prefix("RssShmem:"))
        {
            let kib = value.trim().trim_end_matches(" kB").parse::<u64>()?;
            sum += kib << 10;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_was_touched_meanwhile() {
        let grown = growth(|| {
            let mut memory = Unprepared::new(64 << 20)?;
            memory.fill(1);
            Ok(memory)
        });
        let grown = grown.unwrap();
        assert!((60 << 20..80 << 20).contains(&grown), "{grown}");
    }
}
