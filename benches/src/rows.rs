//! The rows of the table: what is measured, against what, and what must be reached.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chunk_cipher::Pool;

use crate::error::{Missing, Result, missing};
use crate::fixture::Sample;
use crate::interrupt;
use crate::machine::{self, FileSystem};
use crate::measure::{Pair, Unit};
use crate::options::Options;

use self::Target::{MibPerThread, Times};

mod blocks;
mod broker;
mod ffi;
mod memfd;
mod memory;
mod mount;
pub(crate) mod object;
mod package;
pub(crate) mod read;
mod run;
mod seal;
mod unlock;
mod walk;

/// What a row must reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// So many times the speed of the peer.
    Times(f64),
    /// At most so many MiB of memory a thread.
    MibPerThread(f64),
}

/// A row before it is measured.
pub(crate) struct Spec {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What we do.
    pub(crate) work: &'static str,
    /// What it is compared with.
    pub(crate) against: &'static str,
    pub(crate) target: Target,
    measure: fn(&Context) -> Result<Measured>,
}

/// What came out.
pub(crate) struct Measured {
    pub(crate) figures: Figures,
    /// What else a reader should know.
    pub(crate) note: Option<String>,
}

pub(crate) enum Figures {
    /// Both sides, and what their seconds are for.
    Times(Pair, Unit),
    /// Bytes a thread.
    Memory(u64),
}

impl Measured {
    fn times(pair: Pair, unit: Unit) -> Self {
        Self {
            figures: Figures::Times(pair, unit),
            note: None,
        }
    }

    fn note(self, note: impl Into<String>) -> Self {
        Self {
            note: Some(note.into()),
            ..self
        }
    }
}

/// A row that was measured, or why not.
pub(crate) struct Row {
    pub(crate) spec: &'static Spec,
    pub(crate) result: std::result::Result<Measured, String>,
    /// Whether something went wrong, as opposed to being absent.
    pub(crate) failed: bool,
}

impl Row {
    /// How much of the target was reached: 1 is all of it.
    pub(crate) fn reached(&self) -> Option<f64> {
        let measured = self.result.as_ref().ok()?;
        Some(match (&measured.figures, self.spec.target) {
            (Figures::Times(pair, _), Times(target)) => pair.ratio() / target,
            (Figures::Memory(bytes), MibPerThread(limit)) => limit / mib(*bytes),
            _ => return None,
        })
    }
}

/// MiB of so many bytes.
#[allow(clippy::cast_precision_loss)] // Far from 2^52.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

const fn row(
    name: &'static str,
    work: &'static str,
    against: &'static str,
    target: Target,
    measure: fn(&Context) -> Result<Measured>,
) -> Spec {
    Spec {
        name,
        work,
        against,
        target,
        measure,
    }
}

/// All rows, in the order of the table.
#[rustfmt::skip]
static ROWS: [Spec; 41] = [
    row("blocks", "decrypt 4 KiB blocks in cache, 1 thread", "AWS-LC called directly", Times(0.95), blocks::open),
    row("disk-read", "read from disk's cache, memory touched before", "parallel pread of the plain file", Times(0.9), |c| read::touched(c, c.disk()?)),
    row("disk-mount", "read from disk's cache, memory touched before", "dd from a gocryptfs mount", Times(6.0), |c| read::mount(c, c.disk()?)),
    row("disk-fresh", "read from disk's cache into a fresh Buffer", "parallel pread, same memory", Times(0.8), |c| read::fresh(c, c.disk()?)),
    row("disk-small-pages", "read from disk's cache into a fresh Buffer", "parallel pread, fresh 4 KiB pages", Times(1.7), |c| read::fresh_small_pages(c, c.disk()?)),
    row("memfd", "decrypt from disk's cache into a sealed memory file", "the plain file into the same kind", Times(0.9), |c| memfd::fill(c, c.disk()?)),
    row("memfd-large", "the same with a file four times as big", "the plain file into the same kind", Times(0.9), memfd::fill_large),
    row("tmpfs-read", "read from tmpfs, memory touched before", "parallel pread of the plain file", Times(1.0), |c| read::touched(c, c.tmpfs()?)),
    row("tmpfs-mount", "read from tmpfs, memory touched before", "dd from a gocryptfs mount", Times(6.0), |c| read::mount(c, c.tmpfs()?)),
    row("tmpfs-fresh", "read from tmpfs into a fresh Buffer", "parallel pread, same memory", Times(0.8), |c| read::fresh(c, c.tmpfs()?)),
    row("tmpfs-small-pages", "read from tmpfs into a fresh Buffer", "parallel pread, fresh 4 KiB pages", Times(1.7), |c| read::fresh_small_pages(c, c.tmpfs()?)),
    row("seal-cp", "encrypt a directory, tmpfs to tmpfs", "cp of the plain file", Times(0.5), seal::cp),
    row("seal-mount", "encrypt a directory, tmpfs to tmpfs", "cp into a gocryptfs mount", Times(8.0), seal::mount),
    row("package-chunks", "decrypt a package's chunks of 64 KiB in cache, 1 thread", "AWS-LC called directly", Times(0.95), package::chunks),
    row("package-disk-read", "read a package from disk's cache, memory touched before", "parallel pread of the plain file", Times(1.05), |c| package::read(c, c.disk()?)),
    row("package-tmpfs-read", "read a package from tmpfs, memory touched before", "parallel pread of the plain file", Times(1.2), |c| package::read(c, c.tmpfs()?)),
    row("package-random", "read 4 KiB anywhere in a package", "the whole chunk it lies in", Times(1.0), package::random),
    row("package-cp", "pack a directory, tmpfs to tmpfs", "cp of the plain file", Times(0.4), package::cp),
    row("package-open", "open a package of 10,000 files", "its scrypt alone", Times(0.5), package::many),
    row("mount-cold", "dd from our mount, nothing of the plaintext cached", "dd from a gocryptfs mount", Times(3.0), mount::cold),
    row("mount-warm", "dd from our mount, all of the plaintext cached", "dd from tmpfs", Times(0.9), mount::warm),
    row("mount-small", "cp -r of 2,000 files of 8 KiB from our mount", "cp -r from a gocryptfs mount", Times(1.5), mount::small),
    row("ffi-read", "modelseal_file_read, memory touched before", "the Rust call", Times(0.98), |c| ffi::read(c, c.disk()?)),
    row("ffi-stream-large", "fread of 64 MiB at a time from modelseal_fopen", "one Rust call for all of it", Times(0.9), |c| ffi::stream(c, c.disk()?, 64 << 20)),
    row("ffi-stream-small", "fread of 64 KiB at a time from modelseal_fopen", "one Rust call for all of it", Times(0.5), |c| ffi::stream(c, c.disk()?, 64 << 10)),
    row("object-read", "read a package from an S3 server on loopback", "its stored bytes by the client alone", Times(0.85), object::from_s3),
    row("object-memory", "read a package from a web server on loopback", "its stored bytes by the client alone", Times(0.85), object::from_memory),
    row("run-ready", "`modelseal run --via mount` until ready", "fetching the key, unlocking, and 50 ms", Times(1.0), run::ready),
    row("unlock-mount", "unlock, scrypt N = 2^16", "gocryptfs until mounted", Times(1.0), unlock::mount),
    row("unlock-openssl", "unlock, scrypt N = 2^16", "OpenSSL's scrypt alone", Times(1.0 / 1.2), unlock::openssl),
    row("broker-p256", "attest and fetch a key on loopback, P-256", "its cryptography alone", Times(0.05), broker::p256),
    row("broker-rsa", "attest and fetch a key on loopback, RSA-2048", "its cryptography alone", Times(0.5), broker::rsa),
    row("broker-rate", "attest and fetch keys from many threads, P-256", "their cryptography alone", Times(0.05), broker::rate),
    row("walk-dirs", "list 100,000 names, 1,000 a directory", "the same with 10,000 names", Times(0.8), walk::dirs),
    row("walk-flat", "list 100,000 names in one directory", "the same with 10,000 names", Times(0.8), walk::flat),
    row("memory-read", "memory to read a big file", "", MibPerThread(8.0), |c| memory::probe(c, "read")),
    row("memory-scan", "memory to verify a big file", "", MibPerThread(8.0), |c| memory::probe(c, "scan")),
    row("memory-seal", "memory to encrypt a big file", "", MibPerThread(8.0), |c| memory::probe(c, "seal")),
    row("memory-read-package", "memory to read a big file of a package", "", MibPerThread(8.0), |c| memory::probe(c, "read-package")),
    row("memory-pack", "memory to pack a big file, with 16 MiB of scrypt", "", MibPerThread(16.0), |c| memory::probe(c, "pack")),
    row("memory-unseal", "memory to decrypt a big file to a file", "", MibPerThread(8.0), |c| memory::probe(c, "unseal")),
];

/// The names of all rows.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|spec| spec.name)
}

/// Measures the rows that are wanted, and shows how it gets on.
///
/// # Errors
/// Where the run is interrupted.
pub(crate) fn measure(context: &Context, options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for spec in ROWS.iter().filter(|spec| options.wants(spec.name)) {
        eprintln!("measuring {}: {}", spec.name, spec.work);
        let result = (spec.measure)(context);
        interrupt::check()?;
        let failed = result.as_ref().is_err_and(|error| !error.is::<Missing>());
        rows.push(Row {
            spec,
            result: result.map_err(|error| error.to_string()),
            failed,
        });
    }
    Ok(rows)
}

/// What the rows share: made when first needed.
pub(crate) struct Context {
    pub(crate) options: Options,
    /// Where files on disk are made.
    pub(crate) disk_dir: PathBuf,
    pub(crate) pool: Pool,
    disk: OnceLock<Sample>,
    tmpfs: OnceLock<Sample>,
    big: OnceLock<Sample>,
}

/// Where Linux systems have memory as a file system.
pub(crate) const TMPFS: &str = "/dev/shm";

impl Context {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        Ok(Self {
            options: options.clone(),
            disk_dir: disk_dir(options)?,
            pool: Pool::shared(),
            disk: OnceLock::new(),
            tmpfs: OnceLock::new(),
            big: OnceLock::new(),
        })
    }

    pub(crate) fn rounds(&self) -> usize {
        self.options.rounds
    }

    /// The big file on disk.
    pub(crate) fn disk(&self) -> Result<&Sample> {
        self.expect_disk()?;
        self.make(&self.disk, &self.disk_dir, self.options.size)
    }

    /// A file twice as big, on disk: what is mapped of it counts as memory of a file there, not of this process.
    pub(crate) fn big(&self) -> Result<&Sample> {
        self.expect_disk()?;
        self.make(&self.big, &self.disk_dir, 2 * self.options.size)
    }

    /// The big file on tmpfs.
    pub(crate) fn tmpfs(&self) -> Result<&Sample> {
        self.expect_tmpfs(5 * self.options.size)?;
        self.make(&self.tmpfs, Path::new(TMPFS), self.options.size)
    }

    fn make<'a>(&self, cell: &'a OnceLock<Sample>, parent: &Path, len: usize) -> Result<&'a Sample> {
        if let Some(sample) = cell.get() {
            sample.warm_up()?;
            return Ok(sample);
        }
        let sample = Sample::make(parent, len)?;
        Ok(cell.get_or_init(|| sample))
    }

    /// Fails where the disk's file system is none whose page cache the engine borrows, or too full.
    pub(crate) fn expect_disk(&self) -> Result<()> {
        let found = FileSystem::of(&self.disk_dir)?;
        if !found.is_disk() {
            return Err(missing(format!(
                "{found} is no ext4, xfs or btrfs; choose one by --dir"
            )));
        }
        // The file, its vault, its package, what is made of them, and the same twice as big.
        let (room, needed) = (machine::room(&self.disk_dir)?, 11 * self.options.size as u64);
        if self.disk.get().is_none() && self.big.get().is_none() && room < needed {
            return Err(missing(format!(
                "the disk has room for {:.0} MiB only",
                mib(room)
            )));
        }
        Ok(())
    }

    /// Fails where there is no tmpfs with room for `len` bytes.
    pub(crate) fn expect_tmpfs(&self, len: usize) -> Result<()> {
        let dir = Path::new(TMPFS);
        if !FileSystem::of(dir).is_ok_and(|found| found == FileSystem::Tmpfs) {
            return Err(missing(format!("{TMPFS} is no tmpfs")));
        }
        let room = machine::room(dir)?;
        // What lies there already was counted when it was made.
        if self.tmpfs.get().is_none() && room < len as u64 {
            return Err(missing(format!("{TMPFS} has room for {:.0} MiB only", mib(room))));
        }
        Ok(())
    }
}

/// The directory that was asked for, or the first of the usual ones that is on a disk.
fn disk_dir(options: &Options) -> Result<PathBuf> {
    if let Some(dir) = &options.dir {
        return Ok(dir.clone());
    }
    let program = std::env::current_exe()?;
    let candidates = [
        Some(std::env::temp_dir()),
        program.parent().map(Path::to_path_buf),
    ];
    let on_disk = |dir: &PathBuf| FileSystem::of(dir).is_ok_and(FileSystem::is_disk);
    let found = candidates.into_iter().flatten().find(on_disk);
    Ok(found.unwrap_or_else(std::env::temp_dir))
}
