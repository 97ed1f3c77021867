//! What the machine is and what its memory can do, so that a reader can judge the figures.

use std::fmt;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::thread;
use std::time::Duration;

use modelseal::Buffer;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use crate::direct::Gcm;
use crate::error::Result;
use crate::measure::{Side, in_turns, rate, seconds};
use crate::peers;
use crate::rows::{Context, read};

/// A file system, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
    /// Another, with its magic number.
    Other(u64),
}

impl FileSystem {
    #[allow(clippy::cast_sign_loss)] // Magic numbers, signed on some systems.
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        Ok(match rustix::fs::statfs(dir)?.f_type as u64 {
            0xef53 => Self::Ext4,
            0x5846_5342 => Self::Xfs,
            0x9123_683e => Self::Btrfs,
            0x0102_1994 => Self::Tmpfs,
            other => Self::Other(other),
        })
    }

    /// Whether its page cache can be borrowed and has to be pinned.
    pub(crate) fn is_disk(self) -> bool {
        matches!(self, Self::Ext4 | Self::Xfs | Self::Btrfs)
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ext4 => f.write_str("ext4"),
            Self::Xfs => f.write_str("xfs"),
            Self::Btrfs => f.write_str("btrfs"),
            Self::Tmpfs => f.write_str("tmpfs"),
            Self::Other(magic) => write!(f, "a file system of type {magic:#x}"),
        }
    }
}

/// Bytes that files in `dir` may still take.
pub(crate) fn room(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// What the machine is, and whether others were at work, as lines of name and value.
pub(crate) fn describe(context: &Context) -> Vec<(&'static str, String)> {
    let file = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let field = |path: &str, name: &str| {
        let text = file(path)?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let unknown = || "unknown".to_owned();
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|kib| kib.trim_end_matches(" kB").parse::<u64>().ok())
        .map_or_else(unknown, |kib| format!("{:.1} GiB", crate::rows::mib(kib)));
    let threads = context
        .pool
        .threads()
        .map_or_else(|_| unknown(), |threads| threads.to_string());
    let disk = FileSystem::of(&context.disk_dir).map_or_else(|_| unknown(), |found| found.to_string());
    vec![
        (
            "processor",
            field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
        ),
        ("threads", threads),
        ("memory", memory),
        (
            "kernel",
            file("/proc/sys/kernel/osrelease").map_or_else(unknown, |release| format!("Linux {release}")),
        ),
        (
            "huge pages",
            file("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_else(unknown),
        ),
        ("disk", disk),
        (
            "free memory",
            if host_takes_free_memory() {
                "the host may take it back"
            } else {
                "kept"
            }
            .to_owned(),
        ),
        (
            "gocryptfs",
            peers::version("gocryptfs", "-version").unwrap_or_else(|| "not installed".into()),
        ),
        (
            "cp, dd",
            peers::version("cp", "--version").unwrap_or_else(unknown),
        ),
        (
            "python3",
            peers::version("python3", "--version").unwrap_or_else(|| "not installed".into()),
        ),
        ("load before", load()),
    ]
}

/// Whether this is a virtual machine that reports its free pages to its host (`VIRTIO_BALLOON_F_REPORTING`).
fn host_takes_free_memory() -> bool {
    const REPORTING: usize = 5;
    let Ok(drivers) = fs::read_dir("/sys/bus/virtio/drivers/virtio_balloon") else {
        return false;
    };
    let features = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("features")).ok();
    drivers
        .flatten()
        .filter_map(features)
        .any(|bits| bits.as_bytes().get(REPORTING) == Some(&b'1'))
}

/// The load average, and how idle the processors are right now.
pub(crate) fn load() -> String {
    let average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let average: Vec<_> = average.split(' ').take(3).collect();
    let before = cpu_times();
    thread::sleep(Duration::from_secs(1));
    let now = match (before, cpu_times()) {
        (Some(before), Some(after)) => {
            let passed: Vec<u64> = after
                .iter()
                .zip(&before)
                .map(|(after, before)| after - before)
                .collect();
            let all = passed.iter().take(8).sum::<u64>().max(1);
            let share = |column: usize| passed.get(column).copied().unwrap_or(0) * 100 / all;
            format!(
                "; processors {} % idle, {} % stolen",
                share(3) + share(4),
                share(7)
            )
        }
        _ => String::new(),
    };
    format!("average {}{now}", average.join(" "))
}

/// Ticks of all processors since the start: user, nice, system, idle, I/O wait, interrupts (2), stolen.
fn cpu_times() -> Option<Vec<u64>> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    line.split_whitespace().map(|ticks| ticks.parse().ok()).collect()
}

/// Bytes of the yardsticks that stay in cache.
const CACHED: usize = 256 << 10;

/// What memory, cipher and random numbers can do, and where the time of the big read goes, as lines of name and GB/s.
pub(crate) fn yardsticks(context: &Context) -> Result<Vec<(String, f64)>> {
    let mut lines = raw(context)?;
    for (place, sample) in [("disk", context.disk()), ("tmpfs", context.tmpfs())] {
        let Ok(sample) = sample else { continue };
        let vault = read::dissect(context, sample)?;
        let package = read::dissect_package(context, sample)?;
        for (what, times) in [("vault", vault), ("package", package)] {
            for (how, time) in times {
                lines.push((format!("{what} on {place}: {how}"), rate(sample.len(), time)));
            }
        }
    }
    Ok(lines)
}

fn raw(context: &Context) -> Result<Vec<(String, f64)>> {
    const RANDOM: usize = 64 << 20;
    const OPENED: usize = 512 << 20;
    let len = context.options.size;
    let mut from = Buffer::new(len)?;
    from.fill(1);
    let to = std::cell::RefCell::new(Buffer::new(len)?);
    to.borrow_mut().fill(2);

    let mut copy_one = || {
        seconds(|| {
            to.borrow_mut().copy_from_slice(&from);
            Ok(())
        })
    };
    let mut copy_all = || {
        let mut to = to.borrow_mut();
        let (to, from): (&mut [u8], &[u8]) = (&mut to, &from);
        let parts = to.par_chunks_mut(1 << 20).zip(from.par_chunks(1 << 20));
        seconds(|| {
            Ok(context
                .pool
                .run(|| parts.for_each(|(to, from)| to.copy_from_slice(from)))?)
        })
    };
    let gcm = Gcm::new(&[1; 32]).ok_or("no memory for a key")?;
    let mut open = || open_cached(&gcm, OPENED);
    let mut random = vec![0; CACHED];
    let mut draw = || {
        seconds(|| {
            (0..RANDOM / CACHED).try_for_each(|_| Ok(chunk_cipher::random::fill(black_box(&mut random))?))
        })
    };
    let mut all: [(&str, usize, Side<'_>); 4] = [
        ("memcpy, 1 thread", len, &mut copy_one),
        ("memcpy, all threads", len, &mut copy_all),
        (
            "AWS-LC opening 4 KiB blocks in cache, 1 thread",
            OPENED,
            &mut open,
        ),
        ("random bytes from the kernel, 1 thread", RANDOM, &mut draw),
    ];
    let names = all
        .each_ref()
        .map(|(name, bytes, _)| ((*name).to_owned(), *bytes));
    let mut sides: Vec<Side<'_>> = all
        .iter_mut()
        .map(|(_, _, side)| &mut **side as Side<'_>)
        .collect();
    let samples = in_turns(context.rounds(), &mut sides)?;
    Ok(names
        .into_iter()
        .zip(samples)
        .map(|((name, bytes), samples)| (name, rate(bytes, samples.median())))
        .collect())
}

/// Opens the same sealed blocks until `bytes` of plaintext have come out. Returns the seconds.
fn open_cached(gcm: &Gcm, bytes: usize) -> Result<f64> {
    const BLOCK: usize = 4096;
    let (plain, mut sealed, mut out) = (vec![1; CACHED], vec![0; CACHED], vec![2; CACHED]);
    let mut tags = vec![[0; 16]; CACHED / BLOCK];
    for ((plain, sealed), tag) in plain.chunks(BLOCK).zip(sealed.chunks_mut(BLOCK)).zip(&mut tags) {
        if !gcm.seal(&[3; 16], &[0; 24], plain, sealed, tag) {
            return Err("a block cannot be sealed".into());
        }
    }
    seconds(|| {
        for _ in 0..bytes / CACHED {
            for ((sealed, out), tag) in sealed.chunks(BLOCK).zip(out.chunks_mut(BLOCK)).zip(&tags) {
                if !gcm.open(&[3; 16], &[0; 24], sealed, tag, out) {
                    return Err("a block does not verify".into());
                }
            }
        }
        Ok(())
    })
}
