//! Encrypting a directory with one big file, all of it on tmpfs.

use std::fs;
use std::path::Path;

use modelseal::SealOptions;

use super::{Context, Measured};
use crate::error::Result;
use crate::fixture::{FAST_LOG_N, FILE, Sample, key, package_options, seal_options};
use crate::measure::{Unit, compare, seconds};
use crate::memory::refresh_free;
use crate::peers::{self, Mount};

/// Seals the sample's plain directory anew as a vault, and returns the seconds that takes without removing it again.
fn seal(sample: &Sample) -> Result<f64> {
    seal_as(sample, &seal_options())
}

/// The same as a package.
pub(super) fn pack(sample: &Sample) -> Result<f64> {
    seal_as(sample, &package_options()?)
}

fn seal_as(sample: &Sample, options: &SealOptions) -> Result<f64> {
    let destination = sample.dir().join("sealed");
    refresh_free(sample.len())?;
    let time = seconds(|| {
        Ok(modelseal::seal(
            &sample.plain_dir(),
            &destination,
            &key(),
            options,
            &(),
        )?)
    })?;
    fs::remove_dir_all(&destination)?;
    Ok(time)
}

/// Copies the sample's plain file to `destination`, and returns the seconds that takes.
pub(super) fn copy(sample: &Sample, destination: &Path) -> Result<f64> {
    refresh_free(sample.len())?;
    let time = seconds(|| peers::cp(&sample.plain(), destination))?;
    fs::remove_file(destination)?;
    Ok(time)
}

pub(super) fn cp(context: &Context) -> Result<Measured> {
    let sample = context.tmpfs()?;
    let copied = sample.dir().join("copied");
    let pair = compare(context.rounds(), || seal(sample), || copy(sample, &copied))?;
    Ok(note(Measured::times(pair, Unit::Bytes(sample.len()))))
}

pub(super) fn mount(context: &Context) -> Result<Measured> {
    let sample = context.tmpfs()?;
    let (empty, vault) = (sample.dir().join("empty"), sample.dir().join("peer"));
    fs::create_dir(&empty)?;
    modelseal::seal(&empty, &vault, &key(), &seal_options(), &())?;
    let mount = Mount::new(&vault, sample.dir())?;
    let copied = mount.path().join(FILE);
    let pair = compare(context.rounds(), || seal(sample), || copy(sample, &copied))?;
    Ok(note(Measured::times(pair, Unit::Bytes(sample.len()))))
}

fn note(measured: Measured) -> Measured {
    measured.note(format!(
        "modelseal::seal as a whole, with scrypt at its cheapest, N = 2^{FAST_LOG_N}"
    ))
}
