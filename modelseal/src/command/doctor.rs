//! `doctor`: what this machine can do.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;

#[cfg(feature = "attest")]
use crate::attest::event_log::CCEL_PATH;
#[cfg(feature = "attest")]
use crate::attest::{MeasurementLog, TdxEvidence};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, geteuid, getrlimit};
use rustix::system::uname;
use serde_json::json;

use crate::command::args::Global;
use crate::command::console::{self, Console};
use crate::command::exit::{Exit, Failure};
use crate::command::run::{self, namespace};

/// The first kernel whose pages can be made present before they are read through a mapping.
const BORROWS: (u32, u32) = (5, 14);
/// The first kernel with tmpfs that is never swapped.
const NOSWAP: (u32, u32) = (6, 4);

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is as it should be.
    Good,
    /// It is not there, which only some need.
    Absent,
    /// It is a reason to look closer.
    Bad,
}

impl State {
    const fn text(self) -> &'static str {
        match self {
            Self::Good => "yes",
            Self::Absent => "no",
            Self::Bad => "!",
        }
    }
}

/// A line of the table: what was looked at, how it is, and what follows.
struct Line {
    what: &'static str,
    state: State,
    detail: String,
}

impl Line {
    fn new(what: &'static str, state: State, detail: impl Into<String>) -> Self {
        Self {
            what,
            state,
            detail: detail.into(),
        }
    }

    /// Good or absent.
    fn present(what: &'static str, present: bool, yes: impl Into<String>, no: impl Into<String>) -> Self {
        if present {
            Self::new(what, State::Good, yes)
        } else {
            Self::new(what, State::Absent, no)
        }
    }
}

pub(crate) fn doctor(global: &Global, console: &Console) -> Result<Exit, Failure> {
    let mut lines = vec![
        kernel(),
        aes(),
        vector(),
        memory(),
        mlock(),
        huge_pages(),
        swap(),
        memfd(),
        memory_file_systems(),
        fuse(),
    ];
    #[cfg(feature = "attest")]
    lines.extend([tdx_guest(), event_log(), runtime_measurement()]);
    // For good, and only before anything starts a thread.
    lines.push(namespaces());
    #[cfg(feature = "attest")]
    lines.push(broker(console));
    #[cfg(not(feature = "attest"))]
    let _ = console;
    if global.json {
        let all: Vec<_> = lines
            .iter()
            .map(|line| json!({"check": line.what, "state": line.state.text(), "detail": line.detail}))
            .collect();
        console::print_json(&json!(all))?;
    } else {
        let mut text = String::new();
        for line in &lines {
            // Writing to memory does not fail.
            let _ = writeln!(
                text,
                "{:<22} {:<4} {}",
                line.what,
                line.state.text(),
                console::printable(&line.detail)
            );
        }
        console::print(text.as_bytes())?;
    }
    let bad = lines.iter().any(|line| line.state == State::Bad);
    Ok(if bad { Exit::Damaged } else { Exit::Success })
}

fn kernel() -> Line {
    let name = uname();
    let release = name.release().to_string_lossy().into_owned();
    let enough = version(&release) >= BORROWS;
    let detail = format!(
        "Linux {release} on {}{}",
        name.machine().to_string_lossy(),
        if enough {
            ""
        } else {
            "; from 5.14 on, reads borrow the page cache"
        }
    );
    Line::new("kernel", if enough { State::Good } else { State::Absent }, detail)
}

/// The first two numbers of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn aes() -> Line {
    #[cfg(target_arch = "x86_64")]
    let there = is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let there = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let there = false;
    if there {
        Line::new("AES instructions", State::Good, "ciphers run at full speed")
    } else {
        Line::new(
            "AES instructions",
            State::Bad,
            "none: ciphers are many times slower, and may leak by timing",
        )
    }
}

fn vector() -> Line {
    #[cfg(target_arch = "x86_64")]
    {
        let wide = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx512f");
        Line::present(
            "AVX-512 with VAES",
            wide,
            "a core opens about three times as much as without",
            "none: with it a core opens about three times as much",
        )
    }
    #[cfg(not(target_arch = "x86_64"))]
    Line::new("AVX-512 with VAES", State::Absent, "another architecture")
}

fn memory() -> Line {
    match crate::available_memory() {
        Some(bytes) => Line::new(
            "available memory",
            State::Good,
            format!(
                "{}, within the limits of this control group",
                console::bytes(bytes)
            ),
        ),
        None => Line::new(
            "available memory",
            State::Bad,
            "the system does not tell (is /proc mounted?)",
        ),
    }
}

fn mlock() -> Line {
    let limit = getrlimit(Resource::Memlock).current;
    let enough = limit.is_none_or(|limit| limit >= 1 << 20);
    let detail = match limit {
        None => "unlimited".to_owned(),
        Some(limit) => console::bytes(limit),
    };
    Line::present(
        "mlock limit",
        enough,
        detail.clone(),
        format!("{detail}: buffers with plaintext may be swapped out"),
    )
}

fn huge_pages() -> Line {
    let chosen = |file: &str| {
        let text = fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{file}")).ok()?;
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    };
    let (memory, shared) = (chosen("enabled"), chosen("shmem_enabled"));
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    let good = matches!(memory.as_deref(), Some("always" | "madvise"));
    let detail = format!(
        "for memory {}, for memfd and tmpfs {}",
        text(&memory),
        text(&shared)
    );
    Line::present(
        "huge pages",
        good,
        detail.clone(),
        format!("{detail}: filling large buffers takes twice as long"),
    )
}

fn swap() -> Line {
    if run::has_swap() {
        Line::new(
            "swap",
            State::Bad,
            "on, or /proc is not there to tell: plaintext in memory may reach a disk (swapoff -a, or encrypt it)",
        )
    } else {
        Line::new("swap", State::Good, "off: nothing in memory reaches a disk")
    }
}

fn memfd() -> Line {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(c"modelseal-doctor", flags) {
        Ok(_) => Line::new(
            "memfd",
            State::Good,
            "plaintext can be handed to other runtimes as a sealed file",
        ),
        Err(error) => Line::new("memfd", State::Absent, error.to_string()),
    }
}

fn memory_file_systems() -> Line {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let tmpfs = known.lines().any(|line| line.ends_with("\ttmpfs"));
    let release = uname().release().to_string_lossy().into_owned();
    let unswapped = version(&release) >= NOSWAP && geteuid().is_root();
    Line::present(
        "tmpfs",
        tmpfs,
        if unswapped {
            "and such that is never swapped"
        } else {
            "but none that is never swapped (for root, from Linux 6.4 on)"
        },
        "none: nothing can be staged",
    )
}

fn fuse() -> Line {
    let device = Path::new("/dev/fuse");
    match File::options().read(true).write(true).open(device) {
        Ok(_) if !cfg!(feature = "fuse") => Line::new("FUSE", State::Absent, "this build has none"),
        Ok(_) if geteuid().is_root() || has_program("fusermount3") => {
            Line::new("FUSE", State::Good, "models can be mounted")
        }
        Ok(_) => Line::new(
            "FUSE",
            State::Good,
            "`run` can mount a model; for `mount`, fusermount3 is not there (package fuse3)",
        ),
        Err(error) => Line::new(
            "FUSE",
            State::Absent,
            format!(
                "{}: {error}; `run --via stage` and the library need none",
                device.display()
            ),
        ),
    }
}

/// Whether there is such a program in the path.
fn has_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Tries what `run` does first, and leaves this process in a namespace of its own.
fn namespaces() -> Line {
    match namespace::enter() {
        Ok(()) => Line::new("mount namespaces", State::Good, "`run` may make one of its own"),
        Err(error) => Line::new("mount namespaces", State::Absent, console::with_causes(&error)),
    }
}

#[cfg(feature = "attest")]
fn tdx_guest() -> Line {
    match TdxEvidence::new().local_measurements() {
        Ok(_) => Line::new(
            "TDX guest",
            State::Good,
            "it measures itself; `modelseal attest` shows the evidence",
        ),
        Err(error) => Line::new("TDX guest", State::Absent, console::with_causes(&error)),
    }
}

#[cfg(feature = "attest")]
fn event_log() -> Line {
    Line::present(
        "event log",
        Path::new(CCEL_PATH).exists(),
        "the firmware's (CCEL)",
        "none: a broker cannot tell what was booted",
    )
}

#[cfg(feature = "attest")]
fn runtime_measurement() -> Line {
    match MeasurementLog::new().check() {
        Ok(()) => Line::new(
            "runtime measurement",
            State::Good,
            "there is RTMR3 for `--measure` to extend",
        ),
        Err(error) => Line::new("runtime measurement", State::Absent, console::with_causes(&error)),
    }
}

#[cfg(feature = "attest")]
fn broker(console: &Console) -> Line {
    let name = "key broker";
    match console.sources().probe_broker() {
        Ok(Some(version)) => Line::new(name, State::Good, format!("answers, and speaks {version}")),
        Ok(None) => Line::new(
            name,
            State::Absent,
            "none is named (--kbs-url, MODELSEAL_KBS_URL or TRUSTEE_URL)",
        ),
        Err(error) => Line::new(name, State::Bad, console::with_causes(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.16.3-arch1"), (6, 16));
        assert_eq!(version("5.9"), (5, 9));
        assert!(version("5.9") < BORROWS);
        assert_eq!(version("x"), (0, 0));
    }
}
