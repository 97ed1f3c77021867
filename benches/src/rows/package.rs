//! Sam packages: the big file sealed as one, and a package of many files.

use std::cell::RefCell;
use std::path::Path;

use chunk_cipher::kdf::{self, DEFAULT_SCRYPT_MEMORY, ScryptParams};
use chunk_cipher::store::{LocalStore, ReadMode};
use chunk_cipher::{Buffer, Engine, Pool};
use modelseal::{Model, OpenOptions};
use sam_format::{Checks, LicenseChoice, Locked, Package, Terms};

use super::{Context, Measured, seal};
use crate::direct::Gcm;
use crate::error::Result;
use crate::fixture::{FILE, LoadedStore, PACKAGE, PASSWORD, Sample, key, many_files, one_file, temp_dir};
use crate::measure::{Unit, compare, seconds};
use crate::peers::read_plain;

const CHUNK_LEN: usize = 64 << 10;

/// Just enough chunks for the engine to borrow them.
const LEN: usize = 5 * CHUNK_LEN;

/// Bytes a round.
const ROUND: usize = 512 << 20;

/// Files of the package that is opened.
const FILES: usize = 10_000;

/// Random reads a round.
const READS: usize = 20_000;

/// Into memory touched before, beside the plain file into the same memory.
pub(super) fn read(context: &Context, sample: &Sample) -> Result<Measured> {
    let model = sample.open_package(ReadMode::Auto)?;
    let mut buffer = Buffer::new(sample.len())?;
    buffer.fill(1);
    let buffer = RefCell::new(buffer);
    let read = || Ok(model.file(FILE)?.read_into(0, &mut buffer.borrow_mut())?);
    let pair = compare(
        context.rounds(),
        || seconds(read),
        || seconds(|| read_plain(&context.pool, &sample.plain(), &mut buffer.borrow_mut())),
    )?;
    read()?;
    sample.expect_bytes(&buffer.borrow())?;
    Ok(Measured::times(pair, Unit::Bytes(sample.len())))
}

/// On one thread, source and destination in the processor's cache, beside AWS-LC called once for each chunk.
pub(super) fn chunks(context: &Context) -> Result<Measured> {
    let pool = Pool::with_threads(1);
    let engine = Engine::new(pool.clone());
    // On the pool's only thread all the while: what counts is the work, not waking it.
    pool.run(|| {
        let dir = temp_dir(&std::env::temp_dir())?;
        let store = one_file(dir.path(), LEN)?;
        let package = open(store, &engine)?;
        let file = package.open_file(package.lookup(Path::new(FILE))?)?;
        let direct = Direct::new()?;
        let out = RefCell::new(vec![0; LEN]);
        let times = ROUND / LEN;
        let pair = compare(
            context.rounds(),
            || seconds(|| (0..times).try_for_each(|_| Ok(file.read_into(0, &mut out.borrow_mut())?))),
            || seconds(|| (0..times).try_for_each(|_| direct.open(&mut out.borrow_mut()))),
        )?;
        Ok(Measured::times(pair, Unit::Bytes(times * LEN)).note(format!(
            "{} KiB over and over, both sides on the same thread",
            LEN >> 10
        )))
    })?
}

/// Chunks that AWS-LC opens with nothing around it.
struct Direct {
    gcm: Gcm,
    sealed: Vec<u8>,
    tags: Vec<[u8; 16]>,
}

impl Direct {
    fn new() -> Result<Self> {
        let gcm = Gcm::new(&[7; 32]).ok_or("no memory for a key")?;
        let mut sealed = vec![0; LEN];
        let plain = vec![1; CHUNK_LEN];
        let mut tags = Vec::new();
        for (index, sealed) in (0..).zip(sealed.chunks_mut(CHUNK_LEN)) {
            let mut tag = [0; 16];
            if !gcm.seal(&nonce(index), &[], &plain, sealed, &mut tag) {
                return Err("sealing a chunk failed".into());
            }
            tags.push(tag);
        }
        Ok(Self { gcm, sealed, tags })
    }

    fn open(&self, out: &mut [u8]) -> Result<()> {
        let chunks = self.sealed.chunks(CHUNK_LEN).zip(out.chunks_mut(CHUNK_LEN));
        for (index, ((sealed, plain), tag)) in (0..).zip(chunks.zip(&self.tags)) {
            if !self.gcm.open(&nonce(index), &[], sealed, tag, plain) {
                return Err("a chunk does not verify".into());
            }
        }
        Ok(())
    }
}

fn nonce(index: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&index.to_be_bytes());
    nonce
}

/// Reads of 4 KiB anywhere in the big file, beside reads of the whole chunks that they lie in: one chunk is decrypted
/// for each, and no more.
pub(super) fn random(context: &Context) -> Result<Measured> {
    let sample = context.tmpfs()?;
    let model = sample.open_package(ReadMode::Auto)?;
    let file = model.file(FILE)?;
    let chunks = sample.len() / CHUNK_LEN;
    let offset = |n: usize| (n.wrapping_mul(0x9e37_79b9) % chunks * CHUNK_LEN) as u64;
    let out = RefCell::new(vec![0; CHUNK_LEN]);
    let read = |len: usize, within: u64| {
        seconds(|| {
            (0..READS).try_for_each(|n| Ok(file.read_into(offset(n) + within, &mut out.borrow_mut()[..len])?))
        })
    };
    let pair = compare(context.rounds(), || read(4 << 10, 8 << 10), || read(CHUNK_LEN, 0))?;
    Ok(Measured::times(pair, Unit::Reads(READS)).note("on one thread, file on tmpfs"))
}

/// Packs a directory with the big file, all of it on tmpfs, beside `cp` of the file.
pub(super) fn cp(context: &Context) -> Result<Measured> {
    let sample = context.tmpfs()?;
    let copied = sample.dir().join("copied");
    let pair = compare(
        context.rounds(),
        || seal::pack(sample),
        || seal::copy(sample, &copied),
    )?;
    Ok(Measured::times(pair, Unit::Bytes(sample.len())).note("digests included"))
}

/// Opens a package of many files, beside the scrypt in it alone.
pub(super) fn many(context: &Context) -> Result<Measured> {
    let dir = temp_dir(&context.disk_dir)?;
    let path = dir.path().join(PACKAGE);
    many_files(&path, FILES, Terms::DEFAULT_LOG_N)?;
    let params = ScryptParams {
        log_n: Terms::DEFAULT_LOG_N,
        r: 8,
        p: 1,
    };
    let mut out = [0; 32];
    let pair = compare(
        context.rounds(),
        || seconds(|| Ok(Model::open(&path, key(), &OpenOptions::default())?)),
        || {
            seconds(|| {
                Ok(kdf::scrypt(
                    PASSWORD.as_bytes(),
                    &[1; 32],
                    params,
                    DEFAULT_SCRYPT_MEMORY,
                    &mut out,
                )?)
            })
        },
    )?;
    Ok(Measured::times(pair, Unit::Whole).note(format!("{FILES} files, N = 2^{}", params.log_n)))
}

/// The package in `store`, unlocked, its stored bytes in memory.
fn open(store: LocalStore, engine: &Engine) -> Result<Package<LoadedStore>> {
    let locked = Locked::read(&store, LicenseChoice::Only(PACKAGE), &Checks::default())?;
    let unlocked = locked.unlock(PASSWORD.as_bytes())?;
    Ok(Package::open(LoadedStore::new(store), unlocked, engine.clone())?)
}
