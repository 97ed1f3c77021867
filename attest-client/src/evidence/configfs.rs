//! Quotes from the kernel's configfs-tsm (Documentation/ABI/testing/configfs-tsm-report), Linux 6.7 and later.
//!
//! Each attempt has a directory of its own: nobody else knows its name, and its generation tells if somebody wrote to it
//! all the same. What is written to `inblob` reaches the driver when the file is closed, and the first read of `outblob`
//! makes the quote, which takes the driver up to 30 s.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use rustix::io::Errno;

use super::Trouble;
use crate::quote::{Hex, Quote};
use crate::shown::shown;

/// The driver's name, as the kernel writes it.
const PROVIDER: &[u8] = b"tdx_guest\n";

/// A quote for the report data, unchecked.
pub(super) fn quote(root: &Path, report_data: &[u8; 64]) -> Result<Vec<u8>, Trouble> {
    let directory = Directory::create(root)?;
    let provider = directory.read("provider", 64)?;
    if provider != PROVIDER {
        return Err(Trouble::lasting(format!(
            "{} is of {:?}, not of tdx_guest: this machine is no TDX guest",
            root.display(),
            shown(&String::from_utf8_lossy(&provider))
        )));
    }
    directory.write("inblob", report_data)?;
    let quote = directory.read("outblob", Quote::MAX_LEN)?;
    if quote.is_empty() {
        return Err(Trouble::passing(format!(
            "{} gave an empty quote: the host's quote generation service failed",
            directory.path.display()
        )));
    }
    let generation = directory.read("generation", 20)?;
    match std::str::from_utf8(&generation)
        .ok()
        .and_then(|text| text.trim_end().parse::<u64>().ok())
    {
        Some(1) => Ok(quote),
        Some(generation) if generation > 1 => Err(Trouble::passing(format!(
            "{} was written to by another process, its generation is {generation}",
            directory.path.display()
        ))),
        _ => Err(Trouble::lasting(format!(
            "{} has a generation that is no count of its writes",
            directory.path.display()
        ))),
    }
}

/// A directory of reports, removed when this is dropped.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn create(root: &Path) -> Result<Self, Trouble> {
        // Not by the process's number: in containers many are number 1, and one that was killed leaves its directory.
        let mut name = [0; 8];
        rand::fill(&mut name).map_err(|_| Trouble::lasting("the random generator failed".to_owned()))?;
        let path = root.join(format!("modelseal-{}", Hex(&name)));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self { path }),
            Err(error) => Err(Trouble {
                what: format!(
                    "{} cannot be made; it takes root and the driver tdx_guest (modprobe tdx_guest)",
                    path.display()
                ),
                source: Some(error),
                passing: false,
            }),
        }
    }

    /// Writes all at once, which is what the kernel takes.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Trouble> {
        let path = self.path.join(name);
        let write = || {
            let written = File::options().write(true).open(&path)?.write(bytes)?;
            (written == bytes.len())
                .then_some(())
                .ok_or_else(|| io::ErrorKind::WriteZero.into())
        };
        write().map_err(|error| trouble(&path, "cannot be written", error))
    }

    /// Reads at most `max` bytes, without starting over where a signal comes in between: the kernel would make another
    /// quote.
    fn read(&self, name: &str, max: usize) -> Result<Vec<u8>, Trouble> {
        let path = self.path.join(name);
        let read = || {
            let mut file = File::open(&path)?;
            let mut bytes = vec![0; max + 1];
            let mut len = 0;
            loop {
                match file.read(&mut bytes[len..])? {
                    0 => break,
                    more => len += more,
                }
                if len > max {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
            }
            bytes.truncate(len);
            Ok(bytes)
        };
        read().map_err(|error| trouble(&path, "cannot be read", error))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// What another attempt may cure: the driver is busy with a quote that somebody stopped waiting for, a signal came, or
/// the host's service did not answer.
fn trouble(path: &Path, what: &str, error: io::Error) -> Trouble {
    let errno = Errno::from_io_error(&error);
    let cause = match errno {
        Some(Errno::BUSY) => ": the host still makes another quote",
        Some(Errno::TIMEDOUT) => ": the host's quote generation service did not answer in time",
        Some(Errno::IO) => ": the host's quote generation service failed",
        _ => "",
    };
    Trouble {
        what: format!("{} {what}{cause}", path.display()),
        passing: matches!(
            errno,
            Some(Errno::BUSY | Errno::TIMEDOUT | Errno::IO | Errno::INTR | Errno::AGAIN)
        ),
        source: Some(error),
    }
}
