//! Plaintext in memory files.

use std::fs::File;
use std::os::unix::fs::FileExt;

use chunk_cipher::Pool;
use chunk_cipher::store::ReadMode;
use modelseal::{Memfd, available_memory};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::{Context, Measured, mib};
use crate::error::{Result, missing};
use crate::fixture::{FILE, Sample};
use crate::machine;
use crate::measure::{Unit, compare, seconds};
use crate::memory::{Mapped, refresh_free};
use crate::peers::read_plain;

/// Bytes that one thread copies in order, and at a time.
const GROUP: u64 = 1 << 20;
const BATCH: usize = 128 << 10;

/// Beside the plain file in a memory file that is sealed as well, filled in the faster of two ways: through scratch
/// memory, or mapped.
pub(super) fn fill(context: &Context, sample: &Sample) -> Result<Measured> {
    let model = sample.open(ReadMode::Auto)?;
    let fill = || -> Result<Memfd> { Ok(model.file(FILE)?.memfd()?) };
    let pair = compare(
        context.rounds(),
        || {
            refresh_free(sample.len())?;
            seconds(fill)
        },
        || {
            refresh_free(sample.len())?;
            let copied = seconds(|| plain(sample, |file| copy(&context.pool, sample, file)))?;
            refresh_free(sample.len())?;
            let mapped = seconds(|| {
                plain(sample, |file| {
                    let mut mapped = Mapped::new(file, sample.len())?;
                    read_plain(&context.pool, &sample.plain(), &mut mapped)
                })
            })?;
            Ok(copied.min(mapped))
        },
    )?;
    sample.expect_plain(&fill()?.path())?;
    Ok(Measured::times(pair, Unit::Bytes(sample.len()))
        .note("the peer is the faster of pwrite and a mapping"))
}

/// The same with a file of its own, four times as big as the others.
pub(super) fn fill_large(context: &Context) -> Result<Measured> {
    let len = 4 * context.options.size;
    let room = machine::room(&context.disk_dir)?;
    // The plain file and its vault.
    if room < 5 * len as u64 / 2 || available_memory().is_some_and(|memory| memory < 3 * len as u64) {
        return Err(missing(format!(
            "a file of {:.0} MiB takes that three times in memory, and twice on disk",
            mib(len as u64)
        )));
    }
    fill(context, &Sample::make(&context.disk_dir, len)?)
}

/// A memory file of the sample's length, filled and sealed.
fn plain(sample: &Sample, fill: impl FnOnce(&File) -> Result<()>) -> Result<File> {
    let file = File::from(memfd_create(
        "modelseal-bench",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?);
    ftruncate(&file, sample.len() as u64)?;
    fill(&file)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

/// Fills `to` from the plain file through scratch memory, on all threads.
fn copy(pool: &Pool, sample: &Sample, to: &File) -> Result<()> {
    let (from, len) = (File::open(sample.plain())?, sample.len() as u64);
    let copied = pool.run(|| {
        (0..len.div_ceil(GROUP)).into_par_iter().try_for_each_init(
            || vec![0; BATCH],
            |scratch, group| {
                let end = len.min((group + 1) * GROUP);
                for at in (group * GROUP..end).step_by(BATCH) {
                    let part = &mut scratch[..BATCH.min(usize::try_from(end - at).unwrap_or(BATCH))];
                    from.read_exact_at(part, at)?;
                    to.write_all_at(part, at)?;
                }
                Ok::<_, std::io::Error>(())
            },
        )
    });
    Ok(copied??)
}
