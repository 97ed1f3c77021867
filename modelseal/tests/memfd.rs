//! Sealed files as memory that other programs can open and map.
#![allow(clippy::unwrap_used, unsafe_code)]

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use modelseal::{Error, Memfd};
use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals};
use rustix::io::{Errno, FdFlags, fcntl_getfd};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

mod common {
    pub(crate) mod formats;
    pub(crate) mod sealed;
    pub(crate) mod tree;
}

use common::sealed::{FORMATS, Sealed};
use common::tree::bytes;

const LENGTHS: [usize; 6] = [0, 1, 4096, 70_000, 1 << 20, (5 << 20) + 7];

/// One test at a time, as they count what the process has open.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory files that this process has open.
fn open_memory() -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    descriptors
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("/memfd:modelseal"))
        .count()
}

fn sealed() -> Sealed {
    Sealed::new(LENGTHS.map(|len| (len.to_string(), bytes(len as u64, len))))
}

/// What is seen of it mapped.
fn mapped(memory: &Memfd) -> Vec<u8> {
    let len = usize::try_from(memory.len()).unwrap();
    // SAFETY: a fresh mapping of a file that nobody can change, read before it is removed.
    unsafe {
        let data = mmap(
            std::ptr::null_mut(),
            len,
            ProtFlags::READ,
            MapFlags::SHARED,
            memory,
            0,
        )
        .unwrap();
        let content = std::slice::from_raw_parts(data.cast::<u8>(), len).to_vec();
        munmap(data, len).unwrap();
        content
    }
}

#[test]
fn whoever_opens_or_maps_it_sees_the_plaintext() {
    let _alone = alone();
    let sealed = sealed();
    for format in FORMATS {
        let model = sealed.open(format);
        for len in LENGTHS {
            let memory = model.file(len.to_string()).unwrap().memfd().unwrap();
            let expected = bytes(len as u64, len);
            assert_eq!((memory.len(), memory.is_empty()), (len as u64, len == 0));
            if len > 0 {
                assert!(mapped(&memory) == expected, "{format:?} {len}");
            }
            let mut read = Vec::new();
            File::open(memory.path()).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == expected, "{format:?} {len}");
            let other = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
            let child = Command::new("cat").arg(other).output().unwrap();
            assert!(
                child.status.success() && child.stdout == expected,
                "{format:?} {len}"
            );
        }
    }
    assert_eq!(open_memory(), 0);
}

#[test]
fn a_child_opens_what_it_inherits_by_its_own_path() {
    let _alone = alone();
    let sealed = sealed();
    let memory = sealed.open(FORMATS[0]).file("70000").unwrap().memfd().unwrap();
    // As standard input, which is a duplicate that stays open on exec.
    let child = Command::new("cat")
        .arg("/proc/self/fd/0")
        .stdin(File::from(memory))
        .output()
        .unwrap();
    assert!(child.stdout == bytes(70_000, 70_000), "{child:?}");
}

#[test]
fn nobody_can_change_it_and_no_child_has_it() {
    let _alone = alone();
    let sealed = sealed();
    for format in FORMATS {
        let memory = sealed.open(format).file("70000").unwrap().memfd().unwrap();
        assert!(fcntl_getfd(&memory).unwrap().contains(FdFlags::CLOEXEC));
        let seals = fcntl_get_seals(&memory).unwrap();
        let expected = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        assert!(seals.contains(expected), "{seals:?}");
        assert_eq!(
            fcntl_add_seals(&memory, SealFlags::FUTURE_WRITE),
            Err(Errno::PERM)
        );
        // SAFETY: refused; were it not, nobody would use it.
        let map = unsafe {
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            mmap(std::ptr::null_mut(), 4096, prot, MapFlags::SHARED, &memory, 0)
        };
        assert_eq!(map, Err(Errno::PERM));
        let file = File::from(memory);
        let refused = |result: std::io::Result<()>| {
            assert_eq!(
                result.unwrap_err().raw_os_error(),
                Some(Errno::PERM.raw_os_error())
            );
        };
        refused(file.write_all_at(b"x", 0));
        refused(file.write_all_at(b"x", 70_000));
        refused(file.set_len(69_999));
        refused(file.set_len(70_001));
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o444);
        // Where the system knows the seal, nobody can make it a program either.
        let executable = file.set_permissions(fs::Permissions::from_mode(0o555));
        if seals.contains(SealFlags::EXEC) {
            refused(executable);
        }
    }
}

#[test]
fn a_damaged_file_leaves_nothing() {
    let _alone = alone();
    let sealed = sealed();
    for format in FORMATS {
        for (path, chunk) in [("70000", 1), ("5242887", 0), ("5242887", 79)] {
            sealed.damage(format, path, chunk);
            let file = sealed.open(format).file(path).unwrap();
            let error = file.memfd().unwrap_err();
            let cipher = error.cipher();
            assert!(
                cipher.is_some_and(|error| error.to_string().contains("damaged")),
                "{format:?}: {error:?}"
            );
            assert_eq!(open_memory(), 0);
        }
    }
}

#[test]
fn more_than_the_memory_there_is_is_refused_at_once() {
    let _alone = alone();
    let sealed = sealed();
    let vault = FORMATS[0];
    let stored = sealed.stored(vault, "70000");
    fs::set_permissions(&stored, fs::Permissions::from_mode(0o600)).unwrap();
    // 1 TiB of holes.
    let file = File::options().write(true).open(stored).unwrap();
    file.set_len(18 + (1 << 28) * 4128).unwrap();
    let error = sealed.open(vault).file("70000").unwrap().memfd().unwrap_err();
    let message = error.to_string();
    let Error::Memory {
        needed, available, ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(needed, 1 << 40);
    assert!(available > 0 && available < needed);
    assert!(message.contains("70000 takes 1099511627776 bytes"), "{message}");
    assert_eq!(open_memory(), 0);
}
