//! Our mount beside the one of gocryptfs, read by the same programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chunk_cipher::store::ReadMode;
use modelseal::mount::{Mount, MountOptions};
use modelseal::{Model, OpenOptions};
use tempfile::TempDir;

use super::{Context, Measured, TMPFS};
use crate::error::{Result, missing};
use crate::fixture::{FILE, key, seal_options, temp_dir, write_random};
use crate::measure::{Unit, compare, seconds};
use crate::memory::refresh_free;
use crate::peers::{Prepared, cp_all, dd};

/// Small files, and their length in bytes.
const COUNT: usize = 2_000;
const LEN: usize = 8 << 10;

fn mount(model: Model, at: &Path) -> Result<Mount> {
    if !Path::new("/dev/fuse").exists() {
        return Err(missing("there is no /dev/fuse"));
    }
    fs::create_dir_all(at)?;
    Ok(Mount::new(Arc::new(model), at, MountOptions::default())?)
}

/// Both mounted anew each round; the ciphertext is in the page cache.
pub(super) fn cold(context: &Context) -> Result<Measured> {
    let sample = context.disk()?;
    let gocryptfs = Prepared::new(&sample.vault(), sample.dir())?;
    let ours = sample.dir().join("ours");
    let mounted = || mount(sample.open(ReadMode::Auto)?, &ours);
    let checked = mounted()?;
    sample.expect_plain(&ours.join(FILE))?;
    drop(checked);
    let pair = compare(
        context.rounds(),
        || {
            let mount = mounted()?;
            refresh_free(sample.len())?;
            seconds(|| dd(&mount.mountpoint().join(FILE)))
        },
        || {
            let mount = gocryptfs.mount()?;
            refresh_free(sample.len())?;
            seconds(|| dd(&mount.path().join(FILE)))
        },
    )?;
    Ok(Measured::times(pair, Unit::Bytes(sample.len()))
        .note("bs=4M, both mounted anew each round, the ciphertext on disk and in the page cache"))
}

/// Mounted once, and read before.
pub(super) fn warm(context: &Context) -> Result<Measured> {
    let sample = context.tmpfs()?;
    let ours = mount(sample.open(ReadMode::Auto)?, &sample.dir().join("ours"))?;
    let file = ours.mountpoint().join(FILE);
    sample.expect_plain(&file)?;
    let pair = compare(
        context.rounds(),
        || seconds(|| dd(&file)),
        || seconds(|| dd(&sample.plain())),
    )?;
    Ok(Measured::times(pair, Unit::Bytes(sample.len())).note("bs=4M"))
}

/// Many small files, copied to tmpfs.
pub(super) fn small(context: &Context) -> Result<Measured> {
    context.expect_tmpfs(4 * (COUNT * LEN))?;
    let files = Files::new()?;
    let gocryptfs = Prepared::new(&files.vault(), files.dir.path())?;
    let ours = files.dir.path().join("ours");
    let pair = compare(
        context.rounds(),
        || {
            let model = Model::open(&files.vault(), key(), &OpenOptions::default())?;
            let mount = mount(model, &ours)?;
            files.copy(mount.mountpoint())
        },
        || files.copy(gocryptfs.mount()?.path()),
    )?;
    Ok(Measured::times(pair, Unit::Whole)
        .note("both mounted anew each round, copied to tmpfs, vault there too"))
}

/// A directory of small files, and its vault.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Result<Self> {
        let files = Self {
            dir: temp_dir(Path::new(TMPFS))?,
        };
        let plain = files.dir.path().join("plain");
        fs::create_dir(&plain)?;
        for n in 0..COUNT {
            write_random(&plain.join(format!("layer-{n:04}.bin")), LEN)?;
        }
        modelseal::seal(&plain, &files.vault(), &key(), &seal_options(), &())?;
        Ok(files)
    }

    fn vault(&self) -> PathBuf {
        self.dir.path().join("vault")
    }

    /// Copies what is mounted at `from`, compares a file of it, and returns the seconds that copying took.
    fn copy(&self, from: &Path) -> Result<f64> {
        let to = self.dir.path().join("copied");
        let time = seconds(|| cp_all(from, &to))?;
        if fs::read_dir(&to)?.count() != COUNT {
            return Err("files are missing from the copy".into());
        }
        for n in [0, COUNT / 2, COUNT - 1] {
            let name = format!("layer-{n:04}.bin");
            if fs::read(to.join(&name))? != fs::read(self.dir.path().join("plain").join(&name))? {
                return Err(format!("{name} was copied wrongly").into());
            }
        }
        fs::remove_dir_all(&to)?;
        Ok(time)
    }
}
