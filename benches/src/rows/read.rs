//! Reading the whole big file on all cores.

use std::cell::RefCell;

use chunk_cipher::store::ReadMode;
use chunk_cipher::{Buffer, Engine};
use modelseal::Model;

use super::{Context, Measured};
use crate::error::Result;
use crate::fixture::{FILE, Sample};
use crate::measure::{Samples, Side, Unit, compare, in_turns, seconds};
use crate::memory::{Unprepared, refresh_free};
use crate::peers::{Prepared, dd, read_plain};
use crate::repeating::Blocks;

/// Opens the file, reads all of it and closes it.
fn read_sealed(model: &Model, out: &mut [u8]) -> Result<()> {
    Ok(model.file(FILE)?.read_into(0, out)?)
}

/// Memory of the file's length, touched.
fn touched_buffer(sample: &Sample) -> Result<Buffer> {
    let mut buffer = Buffer::new(sample.len())?;
    buffer.fill(1);
    Ok(buffer)
}

/// Into memory touched before, beside the plain file into the same memory.
pub(super) fn touched(context: &Context, sample: &Sample) -> Result<Measured> {
    let model = sample.open(ReadMode::Auto)?;
    let buffer = RefCell::new(touched_buffer(sample)?);
    let pair = compare(
        context.rounds(),
        || seconds(|| read_sealed(&model, &mut buffer.borrow_mut())),
        || seconds(|| read_plain(&context.pool, &sample.plain(), &mut buffer.borrow_mut())),
    )?;
    read_sealed(&model, &mut buffer.borrow_mut())?;
    sample.expect_bytes(&buffer.borrow())?;
    Ok(Measured::times(pair, Unit::Bytes(sample.len())))
}

/// Into memory touched before, beside `dd` from the same vault mounted by gocryptfs, mounted anew each round so that
/// no plaintext is cached.
pub(super) fn mount(context: &Context, sample: &Sample) -> Result<Measured> {
    let gocryptfs = Prepared::new(&sample.vault(), sample.dir())?;
    // The peer reads the same bytes.
    sample.expect_plain(&gocryptfs.mount()?.path().join(FILE))?;
    let model = sample.open(ReadMode::Auto)?;
    let mut buffer = touched_buffer(sample)?;
    let pair = compare(
        context.rounds(),
        || seconds(|| read_sealed(&model, &mut buffer)),
        || {
            let mount = gocryptfs.mount()?;
            refresh_free(sample.len())?;
            seconds(|| dd(&mount.path().join(FILE)))
        },
    )?;
    Ok(Measured::times(pair, Unit::Bytes(sample.len()))
        .note("bs=4M, mounted anew each round, bytes compared once"))
}

/// Into fresh memory, beside the plain file into memory made the same way.
pub(super) fn fresh(context: &Context, sample: &Sample) -> Result<Measured> {
    against_fresh(context, sample, || {
        let mut buffer = Buffer::new(sample.len())?;
        read_plain(&context.pool, &sample.plain(), &mut buffer)?;
        Ok(buffer)
    })
}

/// Into fresh memory, beside the plain file into fresh memory as a program gets it that does not prepare it.
pub(super) fn fresh_small_pages(context: &Context, sample: &Sample) -> Result<Measured> {
    against_fresh(context, sample, || {
        let mut memory = Unprepared::new(sample.len())?;
        read_plain(&context.pool, &sample.plain(), &mut memory)?;
        Ok(memory)
    })
}

/// Both sides make their memory on the clock, and free it off the clock.
fn against_fresh<M>(
    context: &Context,
    sample: &Sample,
    mut plain: impl FnMut() -> Result<M>,
) -> Result<Measured> {
    let model = sample.open(ReadMode::Auto)?;
    let pair = compare(
        context.rounds(),
        || {
            refresh_free(sample.len())?;
            seconds(|| Ok(model.read(FILE)?))
        },
        || {
            refresh_free(sample.len())?;
            seconds(&mut plain)
        },
    )?;
    sample.expect_bytes(&model.read(FILE)?)?;
    Ok(Measured::times(pair, Unit::Bytes(sample.len())))
}

/// Where the time of the big read goes: the same with one thing less each. Returns what and its seconds.
pub(crate) fn dissect(context: &Context, sample: &Sample) -> Result<Vec<(&'static str, f64)>> {
    let blocks = Blocks::new()?;
    let repeating = blocks.file(sample.len())?;
    let cached = || chunk_cipher::Sealed::new(&repeating, &blocks, repeating.len);
    let engine = Engine::new(context.pool.clone());
    let open = |read_mode| sample.open(read_mode);
    let cached = |out: &mut [u8]| Ok(engine.read_into(cached(), 0, out)?);
    dissected(context, sample, &open, Some(&cached))
}

/// The same for its package.
pub(crate) fn dissect_package(context: &Context, sample: &Sample) -> Result<Vec<(&'static str, f64)>> {
    dissected(context, sample, &|read_mode| sample.open_package(read_mode), None)
}

/// Fills memory.
type Fill<'a> = &'a dyn Fn(&mut [u8]) -> Result<()>;

fn dissected(
    context: &Context,
    sample: &Sample,
    open: &dyn Fn(ReadMode) -> Result<Model>,
    cached: Option<Fill<'_>>,
) -> Result<Vec<(&'static str, f64)>> {
    let (model, copying) = (open(ReadMode::Auto)?, open(ReadMode::Copy)?);
    let kept = model.file(FILE)?;
    let buffer = RefCell::new(touched_buffer(sample)?);
    let out = || buffer.borrow_mut();

    let mut plain = || seconds(|| read_plain(&context.pool, &sample.plain(), &mut out()));
    let mut whole = || seconds(|| read_sealed(&model, &mut out()));
    let mut mapped = || seconds(|| Ok(kept.read_into(0, &mut out())?));
    let mut copied = || seconds(|| read_sealed(&copying, &mut out()));
    let mut scanned = || seconds(|| Ok(kept.scan(&()).map(drop)?));
    let mut repeated = || seconds(|| cached.map_or(Ok(()), |cached| cached(&mut out())));
    let mut all: Vec<(&str, Side<'_>)> = vec![
        ("parallel pread of the plain file", &mut plain),
        ("open, read, close", &mut whole),
        ("read, ciphertext already mapped", &mut mapped),
        ("read, ciphertext copied instead of mapped", &mut copied),
        ("read, destination in cache (verify)", &mut scanned),
    ];
    if cached.is_some() {
        all.push(("read, source in cache", &mut repeated));
    }
    let (names, mut sides): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let samples = in_turns(context.rounds(), &mut sides)?;
    Ok(names
        .into_iter()
        .zip(samples.iter().map(Samples::median))
        .collect())
}
