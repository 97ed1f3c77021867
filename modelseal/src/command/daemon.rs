//! A process in the background.
//!
//! It is made first and does all the work: it asks for the key while it still has the terminal, and leaves for the
//! background once it is ready. Whoever started the command sees it end then, or fail as it would have in the foreground.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};

use rustix::process::{Pid, WaitOptions, chdir, setsid, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::command::exit::{Exit, Failure};

/// The process that [`fork`] returns in.
pub(crate) enum Side {
    /// The one that was started.
    Parent(Child),
    /// The one that goes on.
    Child(Parent),
}

/// The child, as its parent has it.
pub(crate) struct Child {
    pid: Pid,
    ready: PipeReader,
}

/// The parent, as its child has it.
pub(crate) struct Parent {
    ready: PipeWriter,
}

/// Makes a copy of this process, which must have one thread only.
pub(crate) fn fork() -> io::Result<Side> {
    let (reader, writer) = pipe()?;
    // SAFETY: no other thread runs, so the child finds no lock held by one that it does not have.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid) {
        None => Ok(Side::Child(Parent { ready: writer })),
        Some(_) if pid < 0 => Err(io::Error::last_os_error()),
        Some(pid) => Ok(Side::Parent(Child { pid, ready: reader })),
    }
}

impl Child {
    /// Waits until the child is ready, or has ended; then this process ends as the child did.
    pub(crate) fn finish(mut self) -> Result<Exit, Failure> {
        let mut byte = [0];
        if self.ready.read_exact(&mut byte).is_ok() {
            return Ok(Exit::Success);
        }
        let status = loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(Some((_, status))) => break status,
                Ok(None) | Err(_) => {
                    return Err(Failure::Usage("the process in the background is lost".to_owned()));
                }
            }
        };
        // It has said why.
        let code = status.exit_status();
        let killed = status.terminating_signal().map(|signal| 128 + signal);
        std::process::exit(code.or(killed).unwrap_or(1));
    }
}

impl Parent {
    /// Leaves the terminal and the current directory, and tells the parent that all is ready.
    ///
    /// # Errors
    /// Where the parent is gone, so that nobody knows of this process.
    pub(crate) fn detach(mut self) -> io::Result<()> {
        // Fails where it leads a session already, which is as good.
        let _ = setsid();
        chdir("/")?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        self.ready.write_all(&[1])
    }
}
