//! Unlocking a vault with the cost of a new one.

use std::fs;

use gocryptfs_core::ConfOptions;
use modelseal::{Model, OpenOptions, SealFormat, SealOptions};
use tempfile::TempDir;

use super::{Context, Measured};
use crate::error::Result;
use crate::fixture::{key, temp_dir};
use crate::measure::{Unit, compare, seconds};
use crate::peers::{self, Prepared};

/// A vault with nothing in it, in a directory of its own.
fn empty_vault(context: &Context) -> Result<TempDir> {
    let dir = temp_dir(&context.disk_dir)?;
    let empty = dir.path().join("empty");
    fs::create_dir(&empty)?;
    let conf = ConfOptions {
        scrypt_log_n: 16,
        ..ConfOptions::default()
    };
    let options = SealOptions {
        format: SealFormat::Gocryptfs(conf),
        ..SealOptions::default()
    };
    modelseal::seal(&empty, &dir.path().join("vault"), &key(), &options, &())?;
    Ok(dir)
}

/// Opens the vault, and returns the seconds that takes.
fn unlock(dir: &TempDir) -> Result<f64> {
    let vault = dir.path().join("vault");
    seconds(|| Ok(Model::open(&vault, key(), &OpenOptions::default())?))
}

pub(super) fn mount(context: &Context) -> Result<Measured> {
    let dir = empty_vault(context)?;
    let gocryptfs = Prepared::new(&dir.path().join("vault"), dir.path())?;
    let pair = compare(
        context.rounds(),
        || unlock(&dir),
        || seconds(|| gocryptfs.mount()),
    )?;
    Ok(Measured::times(pair, Unit::Whole))
}

pub(super) fn openssl(context: &Context) -> Result<Measured> {
    let dir = empty_vault(context)?;
    let pair = compare(context.rounds(), || unlock(&dir), peers::openssl_scrypt)?;
    Ok(Measured::times(pair, Unit::Whole).note("Python's hashlib.scrypt, timed by itself"))
}
