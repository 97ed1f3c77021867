//! `encrypt`.

use std::time::Instant;

use modelseal::{SealFormat, SealOptions, Summary, seal};
use serde_json::json;

use crate::args::{Encrypt, Format, Global};
use crate::console::{self, Console};
use crate::exit::{Exit, Failure};

pub(crate) fn encrypt(command: &Encrypt, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let Format::Gocryptfs = command.format;
    let key = console.new_key(&command.key)?;
    let options = SealOptions {
        format: SealFormat::Gocryptfs(command.conf()),
        symlinks: command.symlinks(),
        resume: command.resume,
        scrypt_memory: global.open_options().scrypt_memory,
        engine: global.engine(),
    };
    console.catch_signals();
    let begin = Instant::now();
    let summary =
        seal(&command.source, &command.destination, &key, &options, console).map_err(Failure::writing)?;
    report("sealed", &summary, begin, global, console)
}

/// Tells what was done.
pub(crate) fn report(
    done: &str,
    summary: &Summary,
    begin: Instant,
    global: &Global,
    console: &Console,
) -> Result<Exit, Failure> {
    console.finish();
    let seconds = begin.elapsed().as_secs_f64();
    if global.json {
        console::print_json(&json!({
            "files": summary.files, "dirs": summary.dirs, "symlinks": summary.symlinks,
            "bytes": summary.bytes, "kept": summary.kept, "followed": summary.followed,
            "strays": summary.strays, "seconds": seconds,
        }))?;
    } else {
        let mut more = String::new();
        if summary.kept > 0 {
            more += &format!("; {} files kept from an earlier run", summary.kept);
        }
        if summary.followed > 0 {
            more += &format!("; {} links out of the directory followed", summary.followed);
        }
        console.note(&format!(
            "{done} {} files, {} directories and {} symlinks: {} in {seconds:.2} s{more}",
            summary.files,
            summary.dirs,
            summary.symlinks,
            console::bytes(summary.bytes),
        ));
    }
    if summary.strays > 0 {
        return Err(Failure::Strays {
            count: summary.strays,
        });
    }
    Ok(Exit::Success)
}
