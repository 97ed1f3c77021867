//! Plaintext in sealed memory that other programs can open and map.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::slice;
use std::thread;

use chunk_cipher::store::WriteAt;
use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::error::{Error, Result};
use crate::file::SealedFile;
use crate::memory::MemoryProbe;

/// The name that `/proc` shows for such memory.
const NAME: &str = "modelseal";

/// Up to this many cores, decrypting into scratch memory and copying from there is faster than decrypting into a
/// mapping: the system neither clears pages first nor takes a fault for each. But it copies on one core at a time.
const COPYING_CORES: usize = 2;

/// The whole plaintext of a file in memory that nobody can change any more: not written to, not made longer or
/// shorter, and not executed where the system knows that.
///
/// It is gone when the last descriptor is closed and the last mapping removed. It may be swapped out where swap is on.
#[derive(Debug)]
pub struct Memfd {
    fd: OwnedFd,
    len: u64,
}

impl SealedFile {
    /// Decrypts the whole file, on all cores, into a memory file of its own. Every chunk of it was verified when this
    /// returns.
    ///
    /// The descriptor closes on exec; whoever shall have it opens [`Memfd::path`], or inherits a duplicate.
    ///
    /// # Errors
    /// [`Error::Memory`] where more is needed than is available, [`Error::Io`] where the system has no such memory to
    /// give, and as [`Self::read_into`]. Nothing is left of the memory then.
    pub fn memfd(&self) -> Result<Memfd> {
        self.memfd_within(MemoryProbe::system().available(), cores())
    }

    fn memfd_within(&self, available: Option<u64>, cores: usize) -> Result<Memfd> {
        let len = self.len();
        if let Some(available) = available
            && len > available
        {
            return Err(Error::Memory {
                path: self.path().to_path_buf(),
                needed: len,
                available,
            });
        }
        let failed = |source: io::Error| Error::io(self.path(), "making a memory file for", source);
        let file = create().map_err(|source| failed(source.into()))?;
        ftruncate(&file, len).map_err(|source| failed(source.into()))?;
        // Of a package, unsealing compares the digest besides; then that is the way on any number of cores.
        if cores <= COPYING_CORES || len == 0 || self.has_digest() {
            self.unseal(&Memory(&file), &())?;
        } else {
            let mut mapping = Mapping::new(&file, len).map_err(failed)?;
            self.read_into(0, mapping.bytes())?;
        }
        seal(&file).map_err(|source| failed(source.into()))?;
        Ok(Memfd { fd: file.into(), len })
    }
}

impl Memfd {
    /// Length of the plaintext in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the plaintext is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A path under which this process can open it again for as long as this descriptor is open: `/proc/self/fd/N`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Memfd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<Memfd> for OwnedFd {
    fn from(memory: Memfd) -> Self {
        memory.fd
    }
}

impl From<Memfd> for File {
    fn from(memory: Memfd) -> Self {
        memory.fd.into()
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// An empty memory file that can be sealed.
fn create() -> Result<File, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3.
        Err(Errno::INVAL) => memfd_create(NAME, flags),
        made => made,
    };
    made.map(File::from)
}

/// Makes `file` what it is for good. No writable mapping of it may be left.
fn seal(file: &File) -> Result<(), Errno> {
    fchmod(file, Mode::RUSR | Mode::RGRP | Mode::ROTH)?;
    fcntl_add_seals(
        file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )
}

/// Writes to a memory file.
#[derive(Debug)]
struct Memory<'a>(&'a File);

impl WriteAt for Memory<'_> {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }
}

/// A memory file mapped to be written to, and by nobody else.
struct Mapping {
    data: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// `len` must be the file's, and not 0.
    fn new(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping; nothing else is affected.
        let data = unsafe { mmap(ptr::null_mut(), len, prot, flags, file, 0)? };
        let data = NonNull::new(data.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { data, len };
        for advice in [
            Advice::LinuxHugepage,
            Advice::LinuxDontDump,
            Advice::LinuxDontFork,
        ] {
            // Advice only: the mapping works all the same.
            // SAFETY: the range is ours.
            let _ = unsafe { madvise(data.as_ptr().cast(), len, advice) };
        }
        Ok(mapping)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes, zero at first, that live as long as `self`. Nobody else has the file, so that it is
        // neither cut nor written to meanwhile, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody can refer to it any more.
        let _ = unsafe { munmap(self.data.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;
    use crate::{Key, Model, OpenOptions, SealOptions};

    fn sealed(content: &[u8]) -> (tempfile::TempDir, SealedFile) {
        let dir = tempfile::tempdir().unwrap();
        let (source, vault) = (dir.path().join("source"), dir.path().join("vault"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), content).unwrap();
        let key = || Key::from_password(b"password".to_vec().into());
        let options = SealOptions {
            format: crate::SealFormat::Gocryptfs(crate::gocryptfs::ConfOptions {
                scrypt_log_n: 10,
                ..Default::default()
            }),
            ..SealOptions::default()
        };
        crate::seal(&source, &vault, &key(), &options, &()).unwrap();
        let model = Model::open(&vault, key(), &OpenOptions::default()).unwrap();
        let file = model.file("file").unwrap();
        (dir, file)
    }

    #[test]
    fn both_ways_of_filling_give_the_same() {
        for len in [0, 1, 5000, (3 << 20) + 7] {
            let content: Vec<u8> = (0..len).map(|n: u32| n.to_le_bytes()[n as usize % 3]).collect();
            let (_dir, file) = sealed(&content);
            for cores in [1, 64] {
                let memory = file.memfd_within(None, cores).unwrap();
                assert_eq!(memory.len(), u64::from(len));
                let mut read = Vec::new();
                File::open(memory.path()).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == content, "{len} bytes on {cores} cores");
            }
        }
    }

    #[test]
    fn more_than_is_available_is_refused_before_it_is_made() {
        let (_dir, file) = sealed(&[7; 5000]);
        assert!(file.memfd_within(Some(5000), 1).is_ok());
        let error = file.memfd_within(Some(4999), 1).unwrap_err();
        assert!(matches!(
            error,
            Error::Memory {
                needed: 5000,
                available: 4999,
                ..
            }
        ));
    }
}
