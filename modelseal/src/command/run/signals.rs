//! Signals that are for the command.

use std::fs;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Progress;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin, Sent};

use crate::command::console::Console;
use crate::command::exit::Failure;

/// Those that are passed on.
const FORWARDED: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];

/// Those that end the work while there is no command yet.
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Signals of this process, as they come.
pub(super) struct Forwarded(SignalsInfo<WithOrigin>);

/// What has come.
pub(super) enum Event {
    /// A child has ended, or may have.
    Child,
    /// A signal for the command.
    Signal(i32),
}

impl Forwarded {
    /// From now on they do nothing on their own. Those that this process is to ignore, as by `nohup`, the command ignores too.
    pub(super) fn catch() -> Result<Self, Failure> {
        let ignored = ignored();
        let heeded = FORWARDED
            .into_iter()
            .filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let signals = heeded.chain([SIGCHLD]);
        SignalsInfo::new(signals)
            .map(Self)
            .map_err(|error: io::Error| Failure::Place(format!("signals cannot be caught: {error}")))
    }

    /// Waits for the next ones.
    pub(super) fn wait(&mut self) -> Vec<Event> {
        self.0.wait().filter_map(|origin| event(&origin)).collect()
    }

    /// Whether one has come that ends the work.
    fn is_ended(&mut self) -> bool {
        self.0.pending().any(|origin| ENDING.contains(&origin.signal))
    }
}

/// Signals that whoever started this process has it ignore: a bit for each, the first for signal 1. None where `/proc` is not there.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// What a signal is for. What a terminal sends, it sends to the command as well.
fn event(origin: &Origin) -> Option<Event> {
    match (origin.signal, origin.cause) {
        (SIGCHLD, _) => Some(Event::Child),
        (_, Cause::Kernel) => None,
        (signal, Cause::Sent(Sent::User | Sent::TKill | Sent::Queue) | _) => Some(Event::Signal(signal)),
    }
}

/// Progress that a signal ends.
pub(super) struct Interruptible<'a> {
    console: &'a Console,
    signals: Mutex<&'a mut Forwarded>,
    ended: AtomicBool,
}

impl<'a> Interruptible<'a> {
    pub(super) fn new(console: &'a Console, signals: &'a mut Forwarded) -> Self {
        Self {
            console,
            signals: Mutex::new(signals),
            ended: AtomicBool::new(false),
        }
    }

    /// The work is over.
    pub(super) fn finish(self) -> Result<(), Failure> {
        self.console.finish();
        if self.ended.into_inner() {
            return Err(Failure::Interrupted { hint: "" });
        }
        Ok(())
    }
}

impl chunk_cipher::Progress for Interruptible<'_> {
    fn advance(&self, bytes: u64) -> bool {
        if let Ok(mut signals) = self.signals.try_lock()
            && signals.is_ended()
        {
            self.ended.store(true, Ordering::Relaxed);
        }
        self.console.advance(bytes) && !self.ended.load(Ordering::Relaxed)
    }
}

impl Progress for Interruptible<'_> {
    fn begin(&self, files: u64, bytes: u64) {
        self.console.begin(files, bytes);
    }

    fn warn(&self, warning: &str) {
        self.console.warn(warning);
    }
}
