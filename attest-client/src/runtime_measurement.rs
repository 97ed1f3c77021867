//! Runtime measurement: RTMR3 is extended with what is about to run, and attestation-agent's event log (AAEL) says so,
//! before a key is asked for. The broker's policy can then judge the deployment by the log's entry, which the quote
//! vouches for.
//!
//! The entry is `github.com/modelseal/modelseal run <content>`. The content is a JSON object in canonical form
//! (RFC 8785), without spaces:
//!
//! | member | value |
//! | --- | --- |
//! | `command` | digest of the arguments, a zero byte after each: `printf '%s\0' vllm serve /model \| sha384sum` |
//! | `env` | for each variable the digest of its value, or `null` where it is not set: `printf %s "$NAME" \| sha384sum` |
//! | `license` | digest of the license file's bytes: `sha384sum license.json`. Left out where there is none |
//!
//! A digest is written `sha384:` and 96 hexadecimal digits. Values themselves are not in the log, but who reads it can
//! try guesses: a short secret in a variable is not hidden by its digest.
//!
//! # What a crash leaves
//! The order is attestation-agent's own, and so is its journal `.wal_event_entry` beside the log: the journal is
//! written with the entry, its offset and the register's value to come; the register is extended; the entry is
//! appended; the journal is removed. Whatever step a crash comes after, the next run (or the agent, at its start)
//! finishes the entry, or refuses where log and register no longer fit together. Meanwhile the log does not lead to the
//! quote's RTMR3, which is noticed wherever evidence is made and judged.
//!
//! Runs of this program lock the log's directory against each other. The agent locks nothing and keeps its own place in
//! the log: while it runs, leave the entry to it, by [`GuestClient::measure`](crate::GuestClient::measure).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::aael::{AaelEvent, AaelFormat, init_line, sha384};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::event_log::{EventLog, RTMR_LEN, extend};
use crate::lock::{self, Patience};
use crate::quote::Hex;

/// attestation-agent's event log.
pub const AAEL_PATH: &str = "/run/attestation-agent/eventlog";

/// The registers of the running machine, Linux 6.16 and later.
const REGISTERS: &str = "/sys/devices/virtual/misc/tdx_guest/measurements";
/// The agent's journal, beside the log.
const JOURNAL: &str = ".wal_event_entry";
/// Bytes of the journal before the entry's text: offset (big endian) and register.
const JOURNAL_HEADER: usize = 8 + RTMR_LEN;
/// The longest journal.
const JOURNAL_MAX: u64 = 128 << 10;

/// How long another run is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The processes.
const PROC: &str = "/proc";

/// Who defines the entries, and what they say was done.
const DOMAIN: &str = "github.com/modelseal/modelseal";
const OPERATION: &str = "run";

/// What is about to run.
#[derive(Clone, Debug, Default)]
pub struct RuntimeMeasurement {
    content: Content,
}

/// In the order of canonical JSON.
#[derive(Clone, Debug, Default, Serialize)]
struct Content {
    command: String,
    env: BTreeMap<String, Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
}

impl RuntimeMeasurement {
    /// A program with its arguments.
    #[must_use]
    pub fn new(command: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut bytes = Vec::new();
        for argument in command {
            bytes.extend(argument.as_ref().as_bytes());
            bytes.push(0);
        }
        Self {
            content: Content {
                command: digest(&bytes),
                ..Content::default()
            },
        }
    }

    /// And an environment variable: what it is set to, or that it is not set.
    #[must_use]
    pub fn env(mut self, name: &str, value: Option<impl AsRef<OsStr>>) -> Self {
        let value = value.map(|value| digest(value.as_ref().as_bytes()));
        self.content.env.insert(name.to_owned(), value);
        self
    }

    /// And a license, by the bytes of its file.
    #[must_use]
    pub fn license(mut self, bytes: &[u8]) -> Self {
        self.content.license = Some(digest(bytes));
        self
    }

    /// The log's entry.
    ///
    /// # Errors
    /// [`Error::Measurement`] for a variable whose name is not of letters, digits and underscores.
    pub fn event(&self) -> Result<AaelEvent> {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        for name in self.content.env.keys() {
            if name.is_empty() || !name.bytes().all(sound) {
                return Err(trouble(format!("{name:?} is no name of an environment variable")));
            }
        }
        let content = serde_json_canonicalizer::to_string(&self.content)
            .map_err(|error| trouble(format!("the entry cannot be written: {error}")))?;
        AaelEvent::new(DOMAIN, OPERATION, &content)
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha384:{}", Hex(&sha384(bytes)))
}

/// The machine's register and the log that explains it.
///
/// The paths can be moved in code only, for tests: by a flag, a file or an environment variable measurements could be
/// faked.
#[derive(Clone, Debug)]
pub struct MeasurementLog {
    registers: PathBuf,
    aael: PathBuf,
    pcr: u32,
    format: AaelFormat,
    patience: Duration,
    clock: Arc<dyn Clock>,
}

impl Default for MeasurementLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MeasurementLog {
    /// RTMR3 of this machine, and attestation-agent's log.
    #[must_use]
    pub fn new() -> Self {
        Self {
            registers: REGISTERS.into(),
            aael: AAEL_PATH.into(),
            pcr: 17,
            format: AaelFormat::default(),
            patience: PATIENCE,
            clock: Arc::new(SystemClock),
        }
    }

    /// The register, by the number of the TPM's register that it stands for: 1 and 7 are RTMR0, 2 to 6 RTMR1, 8 to 15
    /// RTMR2, all others RTMR3. TDX lets a running system extend RTMR2 and RTMR3 alone.
    #[must_use]
    pub const fn pcr(mut self, pcr: u32) -> Self {
        self.pcr = pcr;
        self
    }

    /// The form of the log where there is none yet.
    #[must_use]
    pub const fn format(mut self, format: AaelFormat) -> Self {
        self.format = format;
        self
    }

    /// How long another run that measures is waited for: half a minute unless told otherwise.
    #[must_use]
    pub const fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// The clock that this goes by, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Directory of the registers, for tests.
    #[must_use]
    pub fn registers_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.registers = path.into();
        self
    }

    /// attestation-agent's log, for tests.
    #[must_use]
    pub fn aael_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.aael = path.into();
        self
    }

    /// The number that event logs have for the register: 1 for RTMR0.
    const fn register(&self) -> u32 {
        match self.pcr {
            1 | 7 => 1,
            2..=6 => 2,
            8..=15 => 3,
            _ => 4,
        }
    }

    /// Whether this machine has the register.
    ///
    /// # Errors
    /// [`Error::Measurement`] where it has none, or this process may not read it.
    pub fn check(&self) -> Result<()> {
        self.read_register().map(drop)
    }

    /// Extends the register with an event, and logs it.
    ///
    /// # Errors
    /// [`Error::Measurement`]. Unless it says otherwise, log and register are as before.
    pub fn extend(&self, event: &AaelEvent) -> Result<()> {
        // Where there is no register, nothing is touched.
        self.check()?;
        let directory = self.aael.parent().unwrap_or(Path::new("/"));
        let io = |what: &str, source| failed(directory, what, source);
        fs::create_dir_all(directory).map_err(|error| io("cannot be made", error))?;
        // The directory is what is locked: the log may not be there yet, and opening it for writing looks like the
        // agent to whoever holds the lock.
        let locked = File::open(directory).map_err(|error| io("cannot be opened", error))?;
        // A time that no clock can hold is an hour.
        let now = self.clock.now();
        let until = now
            .checked_add(self.patience)
            .unwrap_or(now + Duration::from_secs(3600));
        let patience = Patience {
            clock: &*self.clock,
            until,
        };
        lock::exclusive(&locked, patience).map_err(|error| {
            io(
                "cannot be locked; is another process measuring, or stopped while it did?",
                error,
            )
        })?;

        self.refuse_other_writers()?;
        self.recover()?;
        let format = AaelFormat::of(&self.read_log()?);
        if format.unwrap_or(self.format) == AaelFormat::Text {
            if format.is_none() {
                self.record(&init_line(&self.read_register()?), AaelFormat::Text)?;
            }
            return self.record(&event.to_string(), AaelFormat::Text);
        }
        self.record(&event.to_string(), AaelFormat::Tcg2)
    }

    /// An agent that runs keeps its own place in the log, and would write its next entry over ours.
    fn refuse_other_writers(&self) -> Result<()> {
        match writer_of(&self.aael) {
            Ok(None) => Ok(()),
            Ok(Some(pid)) => Err(trouble(format!(
                "process {pid} (attestation-agent?) has {} open for writing: leave the entry to it (POST /aa/aael of its REST interface)",
                self.aael.display()
            ))),
            Err(source) => Err(failed(
                Path::new(PROC),
                "cannot be searched for attestation-agent",
                source,
            )),
        }
    }

    /// Finishes what a crash interrupted.
    fn recover(&self) -> Result<()> {
        let path = self.journal();
        let mut journal = Vec::new();
        match File::open(&path).and_then(|file| file.take(JOURNAL_MAX).read_to_end(&mut journal)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(&path, "cannot be read", error)),
        }
        let refused = |what: &str| {
            trouble(format!(
                "{} is left from a crash and {what}; log and register cannot be told to agree, restart the machine",
                path.display()
            ))
        };
        let (expected, offset, text) = parse_journal(&journal).ok_or_else(|| refused("is damaged"))?;
        let log = self.read_log()?;
        let at = usize::try_from(offset).ok().filter(|at| *at <= log.len());
        let (before, written) = at
            .and_then(|at| log.split_at_checked(at))
            .ok_or_else(|| refused("lies behind the log's end"))?;
        let format = if text.starts_with("INIT ") {
            AaelFormat::Text
        } else {
            AaelFormat::of(before).unwrap_or(self.format)
        };
        let entry = self.entry(text, format).ok_or_else(|| refused("is damaged"))?;
        if !entry.bytes.starts_with(written) {
            return Err(refused("does not fit the log"));
        }
        let current = self.read_register()?;
        if current != expected {
            if extend(&current, &entry.digest) != expected {
                return Err(refused(
                    "does not fit the register, which something else has extended",
                ));
            }
            self.extend_register(&entry.digest)?;
        }
        self.write_entry(offset, &entry.bytes)?;
        self.remove_journal()
    }

    fn record(&self, text: &str, format: AaelFormat) -> Result<()> {
        let log = self.read_log()?;
        let entry = self
            .entry(text, format)
            .ok_or_else(|| trouble("the entry is no event".to_owned()))?;
        if log.len() + entry.bytes.len() > EventLog::MAX_LEN {
            return Err(trouble(format!("{} is full", self.aael.display())));
        }
        let expected = extend(&self.read_register()?, &entry.digest);
        let offset = log.len() as u64;
        self.write_journal(offset, &expected, text)?;
        if let Err(error) = self.extend_register(&entry.digest)
            && self.read_register()? != expected
        {
            self.remove_journal()?;
            return Err(error);
        }
        self.write_entry(offset, &entry.bytes)?;
        self.remove_journal()?;
        if self.read_register()? != expected {
            return Err(trouble(format!(
                "{} is not what was extended and logged: something else extends it",
                self.register_path().display()
            )));
        }
        Ok(())
    }

    fn entry(&self, text: &str, format: AaelFormat) -> Option<Entry> {
        Some(match format {
            AaelFormat::Tcg2 => {
                let event = AaelEvent::from_text(text)?.to_event(self.register());
                Entry {
                    digest: sha384(&event.data),
                    bytes: event.to_bytes(),
                }
            }
            AaelFormat::Text => Entry {
                digest: sha384(text.as_bytes()),
                bytes: format!("{text}\n").into_bytes(),
            },
        })
    }

    fn register_path(&self) -> PathBuf {
        self.registers.join(format!("rtmr{}:sha384", self.register() - 1))
    }

    fn read_register(&self) -> Result<[u8; RTMR_LEN]> {
        let path = self.register_path();
        let mut value = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(RTMR_LEN as u64 + 1).read_to_end(&mut value))
            .map_err(|error| {
                failed(
                    &path,
                    "cannot be read; it takes a TDX guest and Linux 6.16",
                    error,
                )
            })?;
        value
            .try_into()
            .map_err(|_| trouble(format!("{} is not of 48 bytes", path.display())))
    }

    fn extend_register(&self, digest: &[u8; RTMR_LEN]) -> Result<()> {
        let path = self.register_path();
        let write = || {
            // In one write: a second would extend once more.
            let written = File::options().write(true).open(&path)?.write(digest)?;
            (written == RTMR_LEN)
                .then_some(())
                .ok_or_else(|| io::ErrorKind::WriteZero.into())
        };
        write().map_err(|error| failed(&path, "cannot be extended; it takes root", error))
    }

    fn read_log(&self) -> Result<Vec<u8>> {
        let mut log = Vec::new();
        match File::open(&self.aael)
            .and_then(|file| file.take(EventLog::MAX_LEN as u64 + 1).read_to_end(&mut log))
        {
            Ok(_) => Ok(log),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(log),
            Err(error) => Err(failed(&self.aael, "cannot be read", error)),
        }
    }

    /// Writes the entry where it belongs, over the part of it that a crash may have left.
    fn write_entry(&self, offset: u64, entry: &[u8]) -> Result<()> {
        let write = || {
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&self.aael)?;
            file.write_all_at(entry, offset)?;
            file.sync_data()
        };
        write().map_err(|error| {
            failed(
                &self.aael,
                "cannot be written, though the register is extended",
                error,
            )
        })
    }

    fn journal(&self) -> PathBuf {
        self.aael.with_file_name(JOURNAL)
    }

    /// Appears whole or not at all.
    fn write_journal(&self, offset: u64, expected: &[u8; RTMR_LEN], text: &str) -> Result<()> {
        let path = self.journal();
        let part = path.with_extension("part");
        let write = || {
            let mut file = File::create(&part)?;
            file.write_all(&offset.to_be_bytes())?;
            file.write_all(expected)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            fs::rename(&part, &path)
        };
        write().map_err(|error| failed(&path, "cannot be written", error))
    }

    fn remove_journal(&self) -> Result<()> {
        let path = self.journal();
        fs::remove_file(&path)
            .map_err(|error| failed(&path, "cannot be removed, though the entry is logged", error))
    }
}

/// An entry of the log and what it extends the register with.
struct Entry {
    bytes: Vec<u8>,
    digest: [u8; RTMR_LEN],
}

/// The register to come, the entry's offset and its text.
fn parse_journal(journal: &[u8]) -> Option<([u8; RTMR_LEN], u64, &str)> {
    let (header, text) = journal.split_at_checked(JOURNAL_HEADER)?;
    let (offset, expected) = header.split_first_chunk()?;
    Some((
        expected.try_into().ok()?,
        u64::from_be_bytes(*offset),
        std::str::from_utf8(text).ok()?,
    ))
}

/// A process that has the file open for writing.
fn writer_of(file: &Path) -> io::Result<Option<u32>> {
    let Some(name) = file.file_name() else {
        return Ok(None);
    };
    let file = match fs::metadata(file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for process in fs::read_dir(PROC)? {
        let process = process?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes end while we look; those of others cannot be looked into unless by root, who alone can write here.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            // By name first: what hides behind other names may be slow to answer.
            let named = fs::read_link(descriptor.path()).is_ok_and(|target| target.file_name() == Some(name));
            let is_file = |other: fs::Metadata| (other.dev(), other.ino()) == (file.dev(), file.ino());
            if named
                && fs::metadata(descriptor.path()).is_ok_and(is_file)
                && opened_for_writing(&process.path().join("fdinfo").join(descriptor.file_name()))
            {
                return Ok(Some(pid));
            }
        }
    }
    Ok(None)
}

/// Whether the flags in a file of `/proc/PID/fdinfo` have an access mode that writes.
fn opened_for_writing(fdinfo: &Path) -> bool {
    let text = fs::read_to_string(fdinfo).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0b11 != 0)
}

fn trouble(what: String) -> Error {
    Error::Measurement { what, source: None }
}

fn failed(path: &Path, what: &str, source: io::Error) -> Error {
    Error::Measurement {
        what: format!("{} {what}", path.display()),
        source: Some(source),
    }
}
