//! The engine on one thread, source and destination in the processor's cache.

use std::cell::RefCell;

use chunk_cipher::kdf::hkdf_sha256;
use chunk_cipher::{Engine, Pool};
use gocryptfs_core::{BLOCK_LEN, HEADER_LEN};

use super::{Context, Measured};
use crate::direct::Gcm;
use crate::error::Result;
use crate::fixture::{Loaded, MASTER_KEY, Small};
use crate::measure::{Unit, compare, seconds};

/// Small enough for the second-level cache, twice, and just large enough for the engine to borrow it.
const LEN: usize = 264 << 10;

/// Bytes a round.
const ROUND: usize = 512 << 20;

pub(super) fn open(context: &Context) -> Result<Measured> {
    let pool = Pool::with_threads(1);
    // On the pool's only thread all the while: what counts is the work, not waking it.
    let measured = pool.run(|| measure(context, &Engine::new(pool.clone())))?;
    Ok(measured?.note(format!(
        "{} KiB over and over, both sides on the same thread",
        LEN >> 10
    )))
}

fn measure(context: &Context, engine: &Engine) -> Result<Measured> {
    let vault = Small::make(LEN, engine.clone())?;
    let file = vault.file()?;
    // Both sides read the same bytes and write to the same ones: where they lie makes a difference.
    let direct = Direct::new(vault.stored()?)?;
    let out = RefCell::new(vec![0; LEN]);
    let ours = || Ok(file.read_into(0, &mut out.borrow_mut())?);
    let theirs = || direct.open(&mut out.borrow_mut());
    ours()?;
    let opened = out.replace(vec![0; LEN]);
    theirs()?;
    if opened != *out.borrow() {
        return Err("the blocks do not open to the same".into());
    }
    let times = ROUND / LEN;
    let pair = compare(
        context.rounds(),
        || seconds(|| (0..times).try_for_each(|_| ours())),
        || seconds(|| (0..times).try_for_each(|_| theirs())),
    )?;
    Ok(Measured::times(pair, Unit::Bytes(times * LEN)))
}

/// The stored blocks of a file, and the key that they open under.
struct Direct {
    gcm: Gcm,
    id: [u8; 16],
    stored: Loaded,
}

impl Direct {
    /// A stored file of a vault under [`MASTER_KEY`].
    fn new(stored: Loaded) -> Result<Self> {
        let (header, _) = stored
            .0
            .split_at_checked(HEADER_LEN)
            .ok_or("a file without a header")?;
        let id = *header.last_chunk().ok_or("a header without an ID")?;
        let mut key = [0; 32];
        hkdf_sha256(None, &MASTER_KEY, b"AES-GCM file content encryption", &mut key)?;
        let gcm = Gcm::new(&key).ok_or("no memory for a key")?;
        Ok(Self { gcm, id, stored })
    }

    /// Opens every block into `out`: nothing but the calls.
    fn open(&self, out: &mut [u8]) -> Result<()> {
        let mut aad = [0; 24];
        aad[8..].copy_from_slice(&self.id);
        let blocks = self.stored.0[HEADER_LEN..]
            .chunks(BLOCK_LEN + 32)
            .zip(out.chunks_mut(BLOCK_LEN));
        for (index, (stored, plain)) in (0_u64..).zip(blocks) {
            aad[..8].copy_from_slice(&index.to_be_bytes());
            let (nonce, body) = stored.split_at(16);
            let (body, tag) = body.split_last_chunk().ok_or("a block without a tag")?;
            if !self.gcm.open(nonce, &aad, body, tag, plain) {
                return Err("a block does not verify".into());
            }
        }
        Ok(())
    }
}
