//! Memory beyond the caller's own while a file of twice the usual size is worked on, each time in a fresh process.

use std::fs;

use chunk_cipher::store::ReadMode;

use super::{Context, Figures, Measured};
use crate::error::Result;
use crate::{interrupt, probe};

pub(super) fn probe(context: &Context, job: &str) -> Result<Measured> {
    let sample = context.big()?;
    let from = match job {
        "seal" | "pack" => sample.plain_dir(),
        "read-package" => {
            sample.open_package(ReadMode::Auto)?;
            sample.package()
        }
        _ => sample.vault(),
    };
    let to = sample.dir().join(job);
    let bytes = probe::start(job, &from, &to);
    interrupt::check()?;
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    let threads = context.pool.threads()?;
    let figures = Figures::Memory(bytes? / threads as u64);
    let note = format!(
        "file of {} MiB, {threads} threads, the most that RssAnon + RssShmem grew by, seen each ms",
        sample.len() >> 20
    );
    Ok(Measured {
        figures,
        note: Some(note),
    })
}
