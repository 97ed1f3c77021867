//! `mount`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::Model;
use crate::mount::{Listener, Mount, MountOptions};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, PidfdFlags, getpid, getppid, pidfd_open, set_dumpable_behavior};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::command::args::{Global, MountArgs};
use crate::command::console::{self, Console};
use crate::command::daemon::{self, Side};
use crate::command::exit::{Exit, Failure};

/// Where the system's log is written to.
const SYSTEM_LOG: &str = "/dev/log";

/// What the system's log knows a line by: an error of a daemon.
const PRIORITY: u8 = 3 * 8 + 3;

/// Mounts a model, until it is unmounted or the command is told to end.
pub(crate) fn mount(command: &MountArgs, global: &Global, console: &Console) -> Result<Exit, Failure> {
    // No core dump, and nobody of the same user may look into its memory.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let log = match &command.log {
        Some(path) => file_log(
            File::options()
                .append(true)
                .create(true)
                .open(path)
                .map_err(|source| Failure::io(path, "opening the log", source))?,
        ),
        None if command.background => system_log(),
        None => Arc::new(|line: &str| {
            let _ = writeln!(io::stderr(), "modelseal: {}", console::printable(line));
        }),
    };
    if !command.background {
        // Looked up first: it may end while the model is being opened.
        let owner = getppid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let model = open(command, global, console)?;
        let signals = catch_signals(command)?;
        let mount = attach(command, model, log)?;
        console.note(&format!("mounted at {}", mount.mountpoint().display()));
        return serve(mount, signals, owner);
    }
    // Before anything starts a thread: in the child there is only the one that forks.
    match daemon::fork()
        .map_err(|source| Failure::io(&command.mountpoint, "starting a process for", source))?
    {
        Side::Parent(child) => child.finish(),
        Side::Child(parent) => {
            let model = open(command, global, console)?;
            let signals = catch_signals(command)?;
            let mount = attach(command, model, log)?;
            parent.detach().map_err(|source| {
                Failure::io(&command.mountpoint, "leaving for the background with", source)
            })?;
            serve(mount, signals, None)
        }
    }
}

fn open(command: &MountArgs, global: &Global, console: &Console) -> Result<Model, Failure> {
    let sealed = &command.sealed;
    // In the background there is another current directory.
    let location = fs::canonicalize(&sealed.location).unwrap_or_else(|_| sealed.location.clone());
    let key = console.key(&sealed.key)?;
    console.open(&location, key, &sealed.trust, global)
}

/// From now on signals are waited for. Before, they kill, whatever the model is waited for.
fn catch_signals(command: &MountArgs) -> Result<Signals, Failure> {
    Signals::new([SIGHUP, SIGINT, SIGTERM])
        .map_err(|source| Failure::io(&command.mountpoint, "catching signals for", source))
}

fn attach(command: &MountArgs, model: Model, log: Listener) -> Result<Arc<Mount>, Failure> {
    let options = MountOptions {
        allow_other: command.allow_other,
        guard: true,
        log: Some(log),
        ..MountOptions::default()
    };
    let mount = Mount::new(Arc::new(model), &command.mountpoint, options)?;
    Ok(Arc::new(mount))
}

/// Why it is over.
enum Over {
    Unmounted(crate::Result<()>),
    Signal,
    /// Whoever started it is no more.
    Orphaned,
}

/// Waits until it is unmounted, a signal comes, or the process `owner` ends.
fn serve(mount: Arc<Mount>, mut signals: Signals, owner: Option<OwnedFd>) -> Result<Exit, Failure> {
    let (sender, over) = channel();
    let caught = sender.clone();
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = caught.send(Over::Signal);
        }
    });
    if let Some(owner) = owner {
        watch(owner, sender.clone());
    }
    let served = Arc::clone(&mount);
    thread::spawn(move || {
        let _ = sender.send(Over::Unmounted(served.wait()));
    });
    let over = over.recv();
    // Whoever still has a file open loses it with this process.
    mount.unmount();
    match over {
        Ok(Over::Unmounted(Err(error))) => Err(error.into()),
        Ok(Over::Unmounted(Ok(())) | Over::Signal | Over::Orphaned) | Err(_) => Ok(Exit::Success),
    }
}

/// Tells when the process `owner` ends, which unlike a signal on its death does not come when only the thread ends that
/// started this process.
fn watch(owner: OwnedFd, over: Sender<Over>) {
    thread::spawn(move || {
        loop {
            match poll(&mut [PollFd::new(&owner, PollFlags::IN)], None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
                Ok(_) => break,
            }
        }
        let _ = over.send(Over::Orphaned);
    });
}

/// Lines of a file, with the number of the process.
fn file_log(file: File) -> Listener {
    Arc::new(move |line: &str| {
        let line = format!(
            "modelseal[{}]: {}\n",
            getpid().as_raw_nonzero(),
            console::printable(line)
        );
        let _ = (&file).write_all(line.as_bytes());
    })
}

/// The system's log, where there is one.
fn system_log() -> Listener {
    Arc::new(|line: &str| {
        let line = format!(
            "<{PRIORITY}>modelseal[{}]: {}",
            getpid().as_raw_nonzero(),
            console::printable(line)
        );
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.send_to(line.as_bytes(), SYSTEM_LOG);
        }
    })
}
