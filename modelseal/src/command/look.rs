//! `ls` and `info`.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::gocryptfs::{Conf, NameScheme};
use crate::store::{Kind, Metadata};
use crate::{Entry, Found, Model, sam};
use serde_json::{Value, json};

use crate::command::args::{Global, Info, Ls};
use crate::command::console::{self, Console};
use crate::command::exit::{Exit, Failure};
use crate::command::license;

pub(crate) fn ls(command: &Ls, global: &Global, console: &Console) -> Result<Exit, Failure> {
    match list(command, global, console) {
        // A reader that has seen enough closes the pipe; that is no failure of listing.
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Success),
        listed => listed,
    }
}

fn list(command: &Ls, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let key = console.key(&command.sealed.key)?;
    let sealed = &command.sealed;
    let model = console.open(&sealed.location, key, &sealed.trust, global)?;
    let start = model.lookup(&command.path)?;
    let mut lister = Lister {
        model: &model,
        console,
        long: command.long,
        json: global.json,
        listed: Vec::new(),
    };
    if start.kind() != Kind::Dir {
        lister.entry(&start)?;
        return lister.finish();
    }
    if command.flat {
        for found in model.list(&start)? {
            lister.found(found)?;
        }
    } else {
        for found in model.walk(&start)? {
            lister.found(found)?;
        }
    }
    lister.finish()
}

struct Lister<'a> {
    model: &'a Model,
    console: &'a Console,
    long: bool,
    json: bool,
    listed: Vec<Value>,
}

impl Lister<'_> {
    fn found(&mut self, found: Found) -> Result<(), Failure> {
        match found {
            Found::Entry(entry) => self.entry(&entry),
            Found::Stray(path, error) => {
                self.console.note(&format!(
                    "warning: {} is no part of the model: {}",
                    path.display(),
                    error.within_model()
                ));
                Ok(())
            }
            Found::Unreadable(_, error) => Err(error.into()),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        let details = if self.long || self.json {
            let target = match entry.kind() {
                Kind::Symlink => Some(self.model.read_link(entry)?),
                _ => None,
            };
            Some((self.model.metadata(entry)?, target))
        } else {
            None
        };
        if self.json {
            self.listed.push(to_json(entry, details));
            return Ok(());
        }
        let mut line = Vec::new();
        if let Some((metadata, _)) = &details {
            line.extend_from_slice(long(metadata).as_bytes());
        }
        line.extend_from_slice(&console::name(entry.path().as_os_str().as_bytes()));
        if entry.kind() == Kind::Dir {
            line.push(b'/');
        }
        if let Some((_, Some(target))) = &details {
            line.extend_from_slice(b" -> ");
            line.extend_from_slice(&console::name(target));
        }
        line.push(b'\n');
        std::io::stdout().lock().write_all(&line).map_err(Failure::Output)
    }

    fn finish(self) -> Result<Exit, Failure> {
        if self.json {
            console::print_json(&Value::Array(self.listed))?;
        }
        self.console.finish();
        Ok(Exit::Success)
    }
}

fn to_json(entry: &Entry, details: Option<(Metadata, Option<Vec<u8>>)>) -> Value {
    let kind = match entry.kind() {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
        Kind::Other => "other",
    };
    let mut value = json!({
        "path": entry.path().to_string_lossy(),
        "kind": kind,
        "stored": entry.stored_path().to_string_lossy(),
    });
    if let Some((metadata, target)) = details {
        value["mode"] = json!(format!("{:04o}", metadata.mode));
        value["length"] = json!(metadata.len);
        value["modified"] = json!(seconds(metadata.modified));
        if let Some(target) = target {
            value["target"] = json!(String::from_utf8_lossy(&target));
        }
    }
    value
}

/// Permissions, length and time, as `ls -l` has them; the time in UTC.
fn long(metadata: &Metadata) -> String {
    let kind = match metadata.kind {
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::File | Kind::Other => '-',
    };
    let mut text = String::from(kind);
    for (bit, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
        text.push(if metadata.mode >> bit & 1 == 1 {
            letter
        } else {
            '-'
        });
    }
    let _ = write!(text, " {:>14} {} ", metadata.len, utc(seconds(metadata.modified)));
    text
}

fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(error) => {
            let before = error.duration();
            let whole = before
                .as_secs()
                .saturating_add(u64::from(before.subsec_nanos() > 0));
            -i64::try_from(whole).unwrap_or(i64::MAX)
        }
    }
}

/// `YYYY-MM-DD hh:mm` of a Unix time, in the proleptic Gregorian calendar.
fn utc(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days are counted from 1 March of year 0, so that a leap day ends its year; 146,097 days are 400 years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}",
        rest / 3600,
        rest / 60 % 60
    )
}

pub(crate) fn info(command: &Info, global: &Global) -> Result<Exit, Failure> {
    let info = Model::inspect(&command.location, &global.open_options())?;
    if global.json {
        console::print_json(&info_json(&info))?;
    } else {
        console::print(info_text(&info).as_bytes())?;
    }
    Ok(Exit::Success)
}

/// What is known of a model without its key, as `modelseal info --json` prints it.
#[must_use]
pub fn info_json(info: &crate::Info) -> Value {
    match info {
        crate::Info::Vault(conf) => {
            let scrypt = conf.scrypt().params();
            json!({
                "format": "gocryptfs", "version": 2, "creator": conf.creator(),
                "content": conf.flags().content_cipher().to_string(), "names": names(conf),
                "long_name_max": conf.long_name_max(), "flags": conf.flags().names().collect::<Vec<_>>(),
                "scrypt": {"log_n": scrypt.log_n, "r": scrypt.r, "p": scrypt.p, "memory": scrypt.memory()},
                "block_length": crate::gocryptfs::BLOCK_LEN,
            })
        }
        crate::Info::Package {
            manifest,
            licenses,
            unusable,
        } => {
            let (files, bytes) = size(manifest);
            let unusable = unusable.iter().map(
                |(id, error)| json!({"license_id": id, "error": console::with_causes(error.within_model())}),
            );
            json!({
                "format": "sam", "version": 1, "content_id": manifest.content_id().to_string(),
                "chunk_length": manifest.chunk_len().get(), "files": files, "bytes": bytes,
                "licenses": licenses.iter().map(license::to_json).collect::<Vec<_>>(),
                "unusable": unusable.collect::<Vec<_>>(),
            })
        }
    }
}

fn info_text(info: &crate::Info) -> String {
    match info {
        crate::Info::Vault(conf) => vault_text(conf),
        crate::Info::Package {
            manifest,
            licenses,
            unusable,
        } => package_text(manifest, licenses, unusable),
    }
}

/// Number of files and bytes in a package.
fn size(manifest: &sam::Manifest) -> (u64, u64) {
    let entries = manifest.entries().iter().map(sam::Entry::metadata);
    entries
        .filter(|metadata| metadata.kind == Kind::File)
        .fold((0, 0), |(files, bytes), file| {
            (files + 1, file.len.saturating_add(bytes))
        })
}

fn package_text(
    manifest: &sam::Manifest,
    licenses: &[sam::License],
    unusable: &[(String, crate::Error)],
) -> String {
    let (files, bytes) = size(manifest);
    let mut text = format!(
        "format   Sam, version 1\ncontent  {}, chunks of {} bytes\nfiles    {files}, {}\n",
        manifest.content_id(),
        manifest.chunk_len().get(),
        console::bytes(bytes),
    );
    for license in licenses {
        text += "\n";
        text += &license::to_text(license);
    }
    for (id, error) in unusable {
        let _ = writeln!(
            text,
            "\nlicense  {id}: cannot be used: {}",
            console::with_causes(error.within_model())
        );
    }
    text
}

/// How a vault keeps names.
fn names(conf: &Conf) -> &'static str {
    match conf.flags().name_scheme() {
        NameScheme::Encrypted => "encrypted, differently in every directory",
        NameScheme::Deterministic => "encrypted, equally in every directory",
        NameScheme::Plaintext => "as they are",
    }
}

fn vault_text(conf: &Conf) -> String {
    let scrypt = conf.scrypt().params();
    let content = conf.flags().content_cipher();
    let flags: Vec<_> = conf.flags().names().collect();
    let lines = [
        ("format", "gocryptfs, version 2".to_owned()),
        ("made by", conf.creator().escape_debug().to_string()),
        (
            "content",
            format!("{content}, blocks of {} bytes", crate::gocryptfs::BLOCK_LEN),
        ),
        (
            "names",
            format!(
                "{}; hashed when longer than {} bytes",
                names(conf),
                conf.long_name_max()
            ),
        ),
        (
            "scrypt",
            format!(
                "N = 2^{}, r = {}, p = {}: {} of memory",
                scrypt.log_n,
                scrypt.r,
                scrypt.p,
                console::bytes(scrypt.memory())
            ),
        ),
        ("flags", flags.join(" ")),
    ];
    lines
        .iter()
        .map(|(name, value)| format!("{name:8} {value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_400, "2000-02-29 00:00"),
            (1_709_251_199, "2024-02-29 23:59"),
            (1_709_251_200, "2024-03-01 00:00"),
            (-1, "1969-12-31 23:59"),
            (4_102_444_800, "2100-01-01 00:00"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}
