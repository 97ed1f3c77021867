//! The command that the model is for.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::KeyRef;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

use super::VARIABLE;
use super::signals::{Event, Forwarded};
use crate::command::args::{RunArgs, secret_variables};
use crate::command::exit::{Exit, Failure};

/// What a shell says where a command cannot be run, or is not there.
const NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The command, while it runs.
pub(super) struct Child {
    child: std::process::Child,
}

impl Child {
    /// Starts `parts`, with the model at `place`. It ends when this process does, and knows nothing of the key: not by
    /// a variable that a reference names, and not by a descriptor.
    pub(super) fn start(parts: &[OsString], place: &Path, args: &RunArgs) -> Result<Self, Failure> {
        let [program, rest @ ..] = parts else {
            return Err(Failure::usage("there is no command to run"));
        };
        let mut command = Command::new(program);
        command.args(rest).env(VARIABLE, place);
        for name in secret_variables() {
            command.env_remove(name);
        }
        if reads_stdin(&args.sealed.key) {
            command.stdin(Stdio::null());
        }
        close_on_exec().map_err(|source| {
            Failure::io(Path::new(program), "closing descriptors before running", source)
        })?;
        let supervisor = getpid();
        // SAFETY: only system calls are made between fork and exec, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // It may have ended before that.
                if getppid() == Some(supervisor) {
                    Ok(())
                } else {
                    Err(io::ErrorKind::BrokenPipe.into())
                }
            });
        }
        let child = command.spawn().map_err(|source| Failure::Command {
            program: program.clone(),
            exit: match source.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_RUN,
            },
            source,
        })?;
        Ok(Self { child })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Passes signals on until it has ended. Returns how.
    pub(super) fn wait(&mut self, signals: &mut Forwarded) -> Result<Exit, Failure> {
        let failed = |source| Failure::io(Path::new("/proc"), "waiting for the command of", source);
        loop {
            if let Some(status) = self.child.try_wait().map_err(failed)? {
                return Ok(Exit::Child(code(status)));
            }
            for event in signals.wait() {
                if let Event::Signal(signal) = event {
                    self.signal(signal);
                }
            }
        }
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// As a shell has it.
fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Whether the key came from standard input, where the command could read it again.
fn reads_stdin(reference: &KeyRef) -> bool {
    let path = reference.path();
    path.is_some_and(|path| {
        ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"]
            .iter()
            .any(|stdin| path == Path::new(stdin))
    })
}

/// Marks every descriptor but the standard ones, whoever opened it: the key may have come by one.
fn close_on_exec() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<RawFd>().ok())
        else {
            continue;
        };
        if number <= 2 {
            continue;
        }
        // SAFETY: it is only borrowed for this, and one that is closed meanwhile gives an error that does not matter.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if let Ok(flags) = fcntl_getfd(descriptor) {
            let _ = fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC);
        }
    }
    Ok(())
}
