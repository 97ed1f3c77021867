//! `license`; what licenses say, for a person and for a program.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use crate::sam::{self, IssuerKey, License, LicenseConfig, Terms, format_time};
use crate::{Error, Info, Key, Model, add_license, check_license, issue_license, read_license_file};
use serde_json::{Value, json};

use crate::command::args::{CheckLicense, Global, Issue, Keygen, Show};
use crate::command::console::{self, Console};
use crate::command::create::{license_config, next_serial};
use crate::command::exit::{Exit, Failure};
use crate::command::manifest::read_issuer_key;

pub(crate) fn keygen(command: &Keygen, console: &Console) -> Result<Exit, Failure> {
    let failed = package_error(&command.output);
    let key = IssuerKey::generate().map_err(&failed)?;
    key.write_new(&command.output).map_err(failed)?;
    console::print(format!("{}\n", key.public()).as_bytes())?;
    console.note("that is the public key, for --issuer; whoever has the file can issue licenses in its name");
    Ok(Exit::Success)
}

pub(crate) fn issue_command(command: &Issue, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let location = &command.sealed.location;
    let config = match &command.license_config {
        Some(path) => Some(license_config(path)?),
        None => None,
    };
    let of = command.license_config.as_deref().unwrap_or(location);
    let terms = terms(command.key_id.as_deref(), config, of, command.scrypt_n)?;
    let issuer = read_issuer_key(&command.issuer_key)?;
    let options = command.sealed.trust.options(global)?;
    let key = console.key(&command.sealed.key)?;
    let new_key = match &command.new_key {
        Some(reference) => &console.new_key(reference)?,
        None => &key,
    };
    let license = issue_license(location, &key, new_key, &terms, &issuer, &options)?;
    match &command.output {
        Some(path) => write_new(path, &license)?,
        None => add_license(location, &license, command.replace)?,
    }
    print(&license, global)
}

/// What a license shall be like: that of this name, as `config` says, which is from the file `of`.
pub(crate) fn terms(
    key_id: Option<&str>,
    config: Option<LicenseConfig>,
    of: &Path,
    scrypt_log_n: u8,
) -> Result<Terms, Failure> {
    let mut defaults = Terms::new(key_id.unwrap_or_default());
    defaults.serial = next_serial();
    defaults.scrypt_log_n = scrypt_log_n;
    let named = key_id.is_some();
    let terms = match config {
        Some(config) => config.terms(defaults).map_err(package_error(of))?,
        None if named => {
            defaults.check().map_err(package_error(of))?;
            defaults
        }
        None => defaults,
    };
    if terms.license_id.is_empty() {
        return Err(Failure::Usage(
            "--key-id is missing: the name of the license".to_owned(),
        ));
    }
    if key_id.is_some_and(|id| *id != terms.license_id) {
        return Err(Failure::Usage(format!(
            "the license configuration has another license_id ({}) than --key-id",
            terms.license_id
        )));
    }
    Ok(terms)
}

/// Issues a further license for the package at `location` as `modelseal license issue` does: of this name, as `config` says,
/// signed with the key in the file `issuer_key`. Nothing is written.
///
/// # Errors
/// As [`issue_license`], and where the terms are not as they must be.
#[allow(clippy::too_many_arguments)]
pub fn issue(
    location: &Path,
    key: &Key,
    new_key: &Key,
    key_id: Option<&str>,
    config: Option<LicenseConfig>,
    scrypt_log_n: u8,
    issuer_key: &Path,
    options: &crate::OpenOptions,
) -> crate::Result<License> {
    let terms = terms(key_id, config, location, scrypt_log_n).map_err(Failure::into_error)?;
    let issuer = read_issuer_key(issuer_key).map_err(Failure::into_error)?;
    issue_license(location, key, new_key, &terms, &issuer, options)
}

pub(crate) fn show(command: &Show, global: &Global) -> Result<Exit, Failure> {
    let location = &command.location;
    if !crate::is_url(location) && !location.is_dir() {
        let license = License::parse(&read_license_file(location)?).map_err(package_error(location))?;
        license.check_signature(&[]).map_err(package_error(location))?;
        return print(&license, global);
    }
    let Info::Package {
        licenses, unusable, ..
    } = Model::inspect(location, &global.open_options())?
    else {
        return Err(Failure::Usage(format!(
            "{} is a vault, which has no license",
            location.display()
        )));
    };
    if global.json {
        console::print_json(&licenses.iter().map(to_json).collect())?;
    } else {
        let texts: Vec<_> = licenses.iter().map(to_text).collect();
        console::print(texts.join("\n").as_bytes())?;
    }
    match unusable.into_iter().next() {
        Some((_, error)) => Err(error.into()),
        None => Ok(Exit::Success),
    }
}

pub(crate) fn verify(command: &CheckLicense, global: &Global, console: &Console) -> Result<Exit, Failure> {
    let license = check_license(&command.location, &command.trust.options(global)?)?;
    if let Some(warning) = command.trust.keyless_warning() {
        console.note(warning);
    }
    print(&license, global)
}

pub(crate) fn machine(global: &Global) -> Result<Exit, Failure> {
    let identity = sam::machine::this_machine().map_err(package_error(Path::new("this machine")))?;
    if global.json {
        console::print_json(&json!({ "machine": identity }))?;
    } else {
        console::print(format!("{identity}\n").as_bytes())?;
    }
    Ok(Exit::Success)
}

fn print(license: &License, global: &Global) -> Result<Exit, Failure> {
    if global.json {
        console::print_json(&to_json(license))?;
    } else {
        console::print(to_text(license).as_bytes())?;
    }
    Ok(Exit::Success)
}

/// Writes a license to a new file.
fn write_new(path: &Path, license: &License) -> Result<(), Failure> {
    let failed = |source| Failure::io(path, "writing the license", source);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(license.as_str().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

fn package_error(path: &Path) -> impl Fn(sam::Error) -> Failure + use<'_> {
    |source| {
        let path = path.to_path_buf();
        Error::Package { path, source }.into()
    }
}

/// What a license says, as lines of text.
pub(crate) fn to_text(license: &License) -> String {
    let terms = license.terms();
    let mut lines = vec![
        (
            "license",
            format!("{}, serial {}", terms.license_id, terms.serial),
        ),
        ("issuer", license.issuer().to_string()),
    ];
    if let Some(company) = &terms.company {
        lines.push(("company", company.clone()));
    }
    let window = match (terms.valid_from, terms.expires) {
        (None, None) => "always".to_owned(),
        (Some(from), None) => format!("from {}", format_time(from)),
        (None, Some(to)) => format!("until {}", format_time(to)),
        (Some(from), Some(to)) => format!("from {} until {}", format_time(from), format_time(to)),
    };
    lines.push(("valid", window));
    if !terms.machines.is_empty() {
        lines.push(("machines", terms.machines.join(", ")));
    }
    if let Some(tdx) = &terms.tdx {
        let named = tdx
            .rtmr
            .iter()
            .enumerate()
            .filter(|(_, values)| !values.is_empty());
        let mut registers: Vec<_> = named.map(|(n, _)| format!("RTMR{n}")).collect();
        if !tdx.mrtd.is_empty() {
            registers.insert(0, "MRTD".to_owned());
        }
        let when = if tdx.required {
            "a TD, with"
        } else {
            "where it is a TD, with"
        };
        lines.push((
            "machine",
            format!("{when} the values given of {}", registers.join(", ")),
        ));
    }
    if let Some(extras) = &terms.extras {
        lines.push(("extras", extras.escape_debug().to_string()));
    }
    lines.push(("content", license.content_id().to_string()));
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:8} {value}");
    }
    text
}

/// What a license says, as JSON.
#[must_use]
pub fn to_json(license: &License) -> Value {
    // A license is canonical JSON.
    let mut value: Value = serde_json::from_str(license.as_str()).unwrap_or_else(|_| json!({}));
    if let Some(members) = value.as_object_mut() {
        // Of no use to whoever looks, and best not spread.
        for secret in ["wrapped_key", "kek_commitment"] {
            members.remove(secret);
        }
    }
    value
}
