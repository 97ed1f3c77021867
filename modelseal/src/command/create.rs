//! `encrypt`, `sam-pack` and `rotate`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::sam::{ChunkLen, IssuerKey, LicenseConfig, Terms};
use crate::{Key, KeyRef, Model, PackageOptions, SealFormat, SealOptions, Summary, Symlinks, reseal, seal};
use serde_json::json;
use zeroize::Zeroizing;

use crate::command::args::{Encrypt, Format, Global, Package, Rotate, SamPack, Sealing};
use crate::command::console::{self, Console};
use crate::command::exit::{Exit, Failure};
use crate::command::license::terms;

pub(crate) fn encrypt(command: &Encrypt, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let destination = command.destination()?;
    let options = seal_options(&command.how, None, global, &|text| {
        console.note(text);
    })?;
    let key = console.new_key(&command.key)?;
    console.catch_signals();
    let begin = Instant::now();
    let summary = seal(&command.source, &destination, &key, &options, console).map_err(Failure::writing)?;
    report("sealed", &summary, begin, global, console)
}

/// How a directory is sealed, where `config` is what a license shall be like if no file says so.
pub(crate) fn seal_options(
    how: &Sealing,
    config: Option<LicenseConfig>,
    global: &Global,
    note: &dyn Fn(&str),
) -> Result<SealOptions, Failure> {
    let format = match how.format {
        Format::Gocryptfs if config.is_some() => {
            return Err(Failure::usage("--license-config is for --format sam only"));
        }
        Format::Gocryptfs => SealFormat::Gocryptfs(how.conf()?),
        Format::Sam => {
            how.refuse_vault_options()?;
            SealFormat::Sam(package(&how.package, config, how.scrypt_n, note)?)
        }
    };
    Ok(SealOptions {
        format,
        symlinks: how.symlinks(),
        resume: how.resume,
        scrypt_memory: global.open_options().scrypt_memory,
        engine: global.engine(),
        objects: global.objects(),
    })
}

pub(crate) fn sam_pack(command: &SamPack, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let key = if command.key == "-" {
        console.new_key(&KeyRef::File("/dev/stdin".into()))?
    } else {
        console.note(
            "warning: a key on the command line is visible to every user of this machine and may be kept in the \
             shell's history; give - and the key on standard input",
        );
        Key::from_password(Zeroizing::new(command.key.clone().into_bytes()))
    };
    let asked = Package {
        key_id: Some(command.key_id.clone()),
        license_config: None,
        issuer_key: None,
        chunk_size: None,
    };
    let options = SealOptions {
        format: SealFormat::Sam(package(&asked, None, Terms::DEFAULT_LOG_N, &|text| {
            console.note(text);
        })?),
        symlinks: Symlinks::default(),
        engine: global.engine(),
        objects: global.objects(),
        ..SealOptions::default()
    };
    console.catch_signals();
    let begin = Instant::now();
    let destination = Path::new(&command.key_id);
    let summary = seal(&command.source, destination, &key, &options, console).map_err(Failure::writing)?;
    report("sealed", &summary, begin, global, console)
}

pub(crate) fn rotate(command: &Rotate, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let format = SealFormat::Sam(package(&command.package, None, command.scrypt_n, &|text| {
        console.note(text);
    })?);
    let key = console.key(&command.sealed.key)?;
    let new_key = console.new_key(&command.new_key)?;
    let destination = match (&command.destination, &command.package.key_id) {
        (Some(destination), _) => destination.as_path(),
        (None, Some(key_id)) => Path::new(key_id),
        (None, None) => return Err(Failure::Usage("DST is missing: where to seal to".to_owned())),
    };
    let options = SealOptions {
        format,
        resume: command.resume,
        scrypt_memory: global.open_options().scrypt_memory,
        engine: global.engine(),
        objects: global.objects(),
        ..SealOptions::default()
    };
    console.catch_signals();
    let begin = Instant::now();
    let model = Model::open(
        &command.sealed.location,
        key,
        &command.sealed.trust.options(global)?,
    )?;
    console.warn_of_trust(&model, &command.sealed.trust);
    let summary = reseal(&model, destination, &new_key, &options, console).map_err(Failure::writing)?;
    report("sealed", &summary, begin, global, console)
}

/// What a package shall be like. Says which issuer signs it.
fn package(
    asked: &Package,
    config: Option<LicenseConfig>,
    scrypt_log_n: u8,
    note: &dyn Fn(&str),
) -> Result<Box<PackageOptions>, Failure> {
    let key_id = asked.key_id.as_ref().ok_or_else(|| {
        Failure::Usage("--key-id is missing: the name of the key and of the package".to_owned())
    })?;
    let config = match (&asked.license_config, config) {
        (Some(path), _) => Some(license_config(path)?),
        (None, config) => config,
    };
    let of = asked.license_config.as_deref().unwrap_or(Path::new(key_id));
    let terms = terms(Some(key_id), config, of, scrypt_log_n)?;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Failure::Model(crate::Error::Package { path, source })
    };
    let issuer = match &asked.issuer_key {
        Some(path) => IssuerKey::read(path).map_err(failed(path))?,
        None => IssuerKey::generate().map_err(failed(Path::new(key_id)))?,
    };
    if asked.issuer_key.is_none() {
        note(&format!(
            "the license is signed by {}, a key made for it alone and thrown away: no further license of that issuer can \
             follow; `modelseal license keygen` makes one to keep, for --issuer-key",
            issuer.public()
        ));
    }
    let mut options = PackageOptions::new(terms, issuer);
    if let Some(bytes) = asked.chunk_size {
        options.chunk_len = ChunkLen::new(bytes).ok_or_else(|| {
            Failure::Usage("--chunk-size must be a power of two from 4096 to 16777216".to_owned())
        })?;
    }
    Ok(Box::new(options))
}

/// A serial that counts up by itself from one license or manifest to the next: the seconds since 1970.
pub(crate) fn next_serial() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Reads what a license shall be like.
pub(crate) fn license_config(path: &Path) -> Result<LicenseConfig, Failure> {
    let failed = |source| Failure::io(path, "reading the license configuration", source);
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(LicenseConfig::MAX_LEN as u64 + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    LicenseConfig::parse(&content).map_err(|source| {
        let path = path.to_path_buf();
        crate::Error::Package { path, source }.into()
    })
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
