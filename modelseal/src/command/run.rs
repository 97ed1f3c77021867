//! `run`: the whole deployment in one process, which ends with the command that it was for.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
#[cfg(feature = "fuse")]
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "fuse")]
use crate::mount::{Mount, MountOptions};
use crate::store::Kind;
use crate::{Found, Model, UnsealOptions, unseal};
use rustix::mount::{MountFlags, mount, mount_remount};
#[cfg(feature = "fuse")]
use rustix::process::geteuid;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::command::args::{Global, RunArgs, Via};
use crate::command::console::{self, Console};
use crate::command::exit::{Exit, Failure};

mod child;
pub(crate) mod namespace;
mod place;
mod signals;

use child::Child;
use place::Place;
use signals::{Forwarded, Interruptible};

/// What stands for the place of the model in the command.
const PLACEHOLDER: &[u8] = b"{}";

/// The variable that has it, too.
const VARIABLE: &str = "MODELSEAL_MODEL";

/// Attests, fetches the key, opens the model, makes it readable, and runs a command with it until that ends.
pub(crate) fn run(command: &RunArgs, global: &Global, console: &Console) -> Result<Exit, Failure> {
    #[cfg(feature = "attest")]
    let variables = command.measured_variables()?;
    // Before anything starts a thread, and before a key is asked for in vain.
    namespace::enter()?;
    // No core dump, and nobody of the same user may look into this memory.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    #[cfg(feature = "attest")]
    if command.measure {
        crate::command::attest::measure_command(&command.command, &variables, console)?;
    }
    let begin = Instant::now();
    let key = console.key(&command.sealed.key)?;
    let fetched = begin.elapsed();
    let model = console.open(&command.sealed.location, key, &command.sealed.trust, global)?;
    let opened = begin.elapsed() - fetched;
    let place = Place::new(command.at.as_deref())?;
    let mut signals = Forwarded::catch()?;
    let size = Size::of(&model)?;
    let begin = Instant::now();
    let shown = Shown::new(Arc::new(model), &place, command.via, &size, &mut signals, console)?;
    let shown_in = begin.elapsed();
    let mut child = Child::start(&prepare(&command.command, place.path()), place.path(), command)?;
    console.note(&format!(
        "ready: {} at {} ({}; {} files, {}); key {}, opening {}, {} {}; process {}",
        command.sealed.location.display(),
        place.path().display(),
        shown.how(),
        size.files,
        console::bytes(size.bytes),
        seconds(fetched),
        seconds(opened),
        shown.how(),
        seconds(shown_in),
        child.id(),
    ));
    let exit = child.wait(&mut signals)?;
    drop(shown);
    Ok(exit)
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// The command with the place of the model in it.
fn prepare(command: &[OsString], place: &Path) -> Vec<OsString> {
    command
        .iter()
        .map(|part| replace(part, place.as_os_str()))
        .collect()
}

fn replace(part: &OsStr, place: &OsStr) -> OsString {
    let mut rest = part.as_bytes();
    let mut replaced = Vec::with_capacity(rest.len());
    while let Some(at) = rest
        .windows(PLACEHOLDER.len())
        .position(|window| window == PLACEHOLDER)
    {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(place.as_bytes());
        rest = &rest[at + PLACEHOLDER.len()..];
    }
    replaced.extend_from_slice(rest);
    OsString::from_vec(replaced)
}

/// How much a model holds.
struct Size {
    files: u64,
    bytes: u64,
    /// Memory that all of it takes as plain files, in bytes.
    memory: u64,
}

impl Size {
    fn of(model: &Model) -> Result<Self, Failure> {
        /// Bytes a page, and about what the system needs for an entry besides.
        const PAGE: u64 = 4096;
        let mut size = Self {
            files: 0,
            bytes: 0,
            memory: PAGE,
        };
        for found in model.walk(&model.lookup("")?)? {
            let Found::Entry(entry) = found else { continue };
            size.memory = size.memory.saturating_add(PAGE);
            if entry.kind() == Kind::File {
                let len = model.metadata(&entry)?.len;
                size.files += 1;
                size.bytes = size.bytes.saturating_add(len);
                size.memory = size
                    .memory
                    .saturating_add(len.div_ceil(PAGE).saturating_mul(PAGE));
            }
        }
        Ok(size)
    }
}

/// A model that any program in the namespace can read.
enum Shown {
    #[cfg(feature = "fuse")]
    Mounted(#[allow(dead_code)] Mount),
    Staged,
}

impl Shown {
    fn new(
        model: Arc<Model>,
        place: &Place,
        via: Option<Via>,
        size: &Size,
        signals: &mut Forwarded,
        console: &Console,
    ) -> Result<Self, Failure> {
        let reason: Option<String> = match via {
            Some(Via::Stage) => None,
            #[cfg(feature = "fuse")]
            Some(Via::Mount) => return Self::mounted(model, place),
            #[cfg(feature = "fuse")]
            None => match Self::mounted(Arc::clone(&model), place) {
                Ok(mounted) => return Ok(mounted),
                Err(error) => Some(console::with_causes(&error)),
            },
            #[cfg(not(feature = "fuse"))]
            Some(Via::Mount) => return Err(Failure::usage("this build has no FUSE; use --via stage")),
            #[cfg(not(feature = "fuse"))]
            None => None,
        };
        if let Some(reason) = &reason {
            console.note(&format!(
                "it cannot be mounted, so it is staged in memory: {reason}"
            ));
        }
        stage(&model, place, size, signals, console).map_err(|error| match reason {
            None => error,
            Some(reason) => Failure::Place(format!(
                "the model can be made readable neither by FUSE ({reason}) nor in memory ({}); `modelseal doctor` says \
                 what this machine has",
                console::with_causes(&error)
            )),
        })?;
        Ok(Self::Staged)
    }

    #[cfg(feature = "fuse")]
    fn mounted(model: Arc<Model>, place: &Place) -> Result<Self, Failure> {
        let options = MountOptions {
            // All that can see it belongs to the command.
            allow_other: geteuid().is_root(),
            readable: true,
            log: Some(Arc::new(|line: &str| {
                let _ = writeln!(io::stderr(), "modelseal: {}", console::printable(line));
            })),
            ..MountOptions::default()
        };
        Ok(Self::Mounted(Mount::new(model, place.path(), options)?))
    }

    const fn how(&self) -> &'static str {
        match self {
            #[cfg(feature = "fuse")]
            Self::Mounted(_) => "mounted",
            Self::Staged => "staged",
        }
    }
}

/// Writes the whole model to a file system in memory, which goes with the namespace.
fn stage(
    model: &Model,
    place: &Place,
    size: &Size,
    signals: &mut Forwarded,
    console: &Console,
) -> Result<(), Failure> {
    let path = place.path();
    if let Some(available) = crate::available_memory()
        && available < size.memory
    {
        return Err(Failure::Place(format!(
            "staging takes {} of memory, and {} are available; use --via mount, or give it more",
            console::bytes(size.memory),
            console::bytes(available)
        )));
    }
    mount_memory(path, size.memory, console)?;
    let progress = Interruptible::new(console, signals);
    let unsealed = unseal(model, path, &UnsealOptions { resume: false }, &progress);
    // Where a signal has called it off, that is the reason.
    progress.finish()?;
    unsealed?;
    make_readable(path).map_err(|source| Failure::io(path, "setting permissions at", source))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(path, flags, c"").map_err(|error| Failure::io(path, "write-protecting", error.into()))
}

/// Mounts a file system in memory that swapping leaves alone, where the kernel has that.
fn mount_memory(path: &Path, size: u64, console: &Console) -> Result<(), Failure> {
    // Directories are not counted as files are, and the last pages not as the first.
    let size = size.saturating_add(size / 64).saturating_add(16 << 20);
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let base = format!("size={size},nr_inodes=0,mode=0755");
    let mut failed = rustix::io::Errno::INVAL;
    for more in [",noswap,huge=within_size", ",noswap", ",huge=within_size", ""] {
        let options = std::ffi::CString::new(format!("{base}{more}")).unwrap_or_default();
        match mount("modelseal", path, "tmpfs", flags, &*options) {
            Ok(()) => {
                if !more.contains("noswap") && has_swap() {
                    console.note(
                        "warning: this machine has swap, and the kernel gives no memory that is never swapped: \
                         plaintext may reach it (swapoff -a, or a Linux from 6.4 on and root)",
                    );
                }
                return Ok(());
            }
            Err(error) => failed = error,
        }
    }
    Err(Failure::io(path, "mounting memory at", failed.into()))
}

/// Whether memory may go to a disk; also where the system does not tell.
pub(crate) fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").map_or(true, |swaps| swaps.lines().count() > 1)
}

/// Lets everybody in the namespace read what is below `path`: it is there for the command, whoever that runs as.
fn make_readable(path: &Path) -> io::Result<()> {
    let mut dirs = vec![path.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                let mode = entry.metadata()?.permissions().mode();
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(readable(mode)))?;
            }
        }
        let mode = fs::metadata(&dir)?.permissions().mode();
        fs::set_permissions(&dir, fs::Permissions::from_mode(readable(mode) | 0o111))?;
    }
    Ok(())
}

/// Readable by all, executable by all where it is by anybody, writable by nobody.
const fn readable(mode: u32) -> u32 {
    let executable = if mode & 0o111 == 0 { 0 } else { 0o111 };
    0o444 | executable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_placeholder_is_replaced_wherever_it_stands() {
        let place = OsStr::new("/run/x");
        for (part, expected) in [
            ("{}", "/run/x"),
            ("--model={}/a", "--model=/run/x/a"),
            ("{}{}", "/run/x/run/x"),
            ("{", "{"),
            ("{ }", "{ }"),
            ("", ""),
        ] {
            assert_eq!(replace(OsStr::new(part), place), expected, "{part}");
        }
    }

    #[test]
    fn staged_files_are_for_all_to_read() {
        assert_eq!(readable(0o100_600), 0o444);
        assert_eq!(readable(0o100_700), 0o555);
    }
}
