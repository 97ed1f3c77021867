//! Settings: what a model is opened, sealed and its key fetched with.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsString, c_char};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use modelseal::KeySources;
use zeroize::Zeroizing;

use crate::boundary::{Out, boundary, free, text};
use crate::error::{Error, Failure};
use crate::handle::{self, Object};
use crate::status;

mod options;

/// Text: the key broker of `kbs:` references, `http(s)://host[:port][/prefix]`.
pub const MODELSEAL_SET_KBS_URL: i32 = 1;
/// Text: a PEM file of CA certificates that the broker's may be signed by, besides those that the system trusts.
pub const MODELSEAL_SET_KBS_CA: i32 = 2;
/// Text: what evidence the broker is given, "tdx" unless set; "sample" proves nothing.
pub const MODELSEAL_SET_EVIDENCE: i32 = 3;
/// Text: an API key for what stands before the broker.
pub const MODELSEAL_SET_API_KEY: i32 = 4;
/// Text: where the guest's own services listen, for `cdh:` references.
pub const MODELSEAL_SET_CDH_URL: i32 = 5;
/// Text: the one version of the broker's protocol that is spoken.
pub const MODELSEAL_SET_KBS_PROTOCOL: i32 = 6;
/// Text: what the broker seals to, "p256" unless set, "p521" or "rsa-oaep-256".
pub const MODELSEAL_SET_TEE_KEY: i32 = 7;
/// Text: what becomes of an event log that does not fit the quote: "leave-out" unless set, "warn" or "fail".
pub const MODELSEAL_SET_EVENT_LOG: i32 = 8;
/// Text: the TOML file that the guest was launched with, where its digest is in the evidence.
pub const MODELSEAL_SET_INIT_DATA: i32 = 9;
/// Text: a JSON file about this instance, for the audit log of the openanolis fork.
pub const MODELSEAL_SET_INSTANCE_INFO: i32 = 10;
/// Number: seconds that a key may take.
pub const MODELSEAL_SET_KEY_TIMEOUT: i32 = 11;

/// Text: the license that a package is opened with, the ID of one in it or a file.
pub const MODELSEAL_SET_LICENSE: i32 = 20;
/// Text: the issuers that are trusted: their public keys in base64 or PEM, or files with them in PEM, with commas between
/// them. Without one, whoever knows the key can have issued the license and made the content.
pub const MODELSEAL_SET_ISSUER: i32 = 21;
/// Number: the least serial of a license, or of a vault's manifest. Without it an older package is taken as well.
pub const MODELSEAL_SET_MIN_SERIAL: i32 = 22;
/// Text: the identity of this machine, instead of its own.
pub const MODELSEAL_SET_MACHINE: i32 = 23;
/// Text: the signed manifest that a vault must agree with.
pub const MODELSEAL_SET_MANIFEST: i32 = 24;
/// Number: bytes of memory that the scrypt parameters of a model may ask for, 1 GiB unless set.
pub const MODELSEAL_SET_SCRYPT_MEMORY: i32 = 25;
/// Text: how stored bytes are read: "auto" unless set, "copy" never borrows the page cache.
pub const MODELSEAL_SET_READ_MODE: i32 = 26;

/// Number: threads that decrypt and encrypt, at most 1024; 0 unless set, for the pool that the process shares, with one
/// for each core.
pub const MODELSEAL_SET_THREADS: i32 = 30;
/// Number: bytes that a stream of `modelseal_fopen` decrypts at once into a buffer that it keeps, from 64 KiB to 1 GiB; 4 MiB
/// unless set, and never more than its file has. There is no other cache.
pub const MODELSEAL_SET_READ_AHEAD: i32 = 31;

/// Text: where an S3-compatible service is, `http(s)://HOST[:PORT]`.
pub const MODELSEAL_SET_S3_ENDPOINT: i32 = 40;
/// Text: the region of `s3://` locations.
pub const MODELSEAL_SET_S3_REGION: i32 = 41;
/// Number: 1 where the bucket is part of the host's name, else 0.
pub const MODELSEAL_SET_S3_VIRTUAL_HOSTED: i32 = 42;
/// Text: a PEM file of authorities that object storage may have, besides those that the system trusts.
pub const MODELSEAL_SET_STORAGE_CA: i32 = 43;
/// Number: bytes that one request of a large read is for at most, from 1 MiB to 1 GiB; 8 MiB unless set.
pub const MODELSEAL_SET_PART_LEN: i32 = 44;
/// Number: requests of a large read that are under way at once, from 1 to 1024; 64 unless set. At most this many parts are
/// in memory besides the caller's.
pub const MODELSEAL_SET_CONNECTIONS: i32 = 45;

/// Text: the format to seal in, "gocryptfs" unless set, or "sam".
pub const MODELSEAL_SET_FORMAT: i32 = 60;
/// Text: the ID of a package's key and license. A package needs one.
pub const MODELSEAL_SET_KEY_ID: i32 = 61;
/// Text: a JSON file of what a package's license shall be like.
pub const MODELSEAL_SET_LICENSE_CONFIG: i32 = 62;
/// Text: the PEM file with the key that signs a package's license. A package needs one.
pub const MODELSEAL_SET_ISSUER_KEY: i32 = 63;
/// Number: length of a package's chunks, a power of two from 4 KiB to 16 MiB; 64 KiB unless set.
pub const MODELSEAL_SET_CHUNK_LEN: i32 = 64;
/// Number: base-2 logarithm of scrypt's cost, 16 unless set.
pub const MODELSEAL_SET_SCRYPT_LOG_N: i32 = 65;
/// Text: what becomes of symbolic links that lead out of what is sealed: "follow" unless set, "keep" or "refuse".
pub const MODELSEAL_SET_SYMLINKS: i32 = 66;
/// Number: 1 to go on with what an interrupted run left in the destination, else 0.
pub const MODELSEAL_SET_RESUME: i32 = 67;

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// From one number to another.
    Number(u64, u64),
}

/// A setting: what it takes, and the variable that it can come from, with what a number there is to be multiplied by.
#[derive(Clone, Copy, Debug)]
struct Setting {
    id: i32,
    kind: Kind,
    variable: Option<(&'static str, u64)>,
}

const MIB: u64 = 1 << 20;
const BROKER: bool = cfg!(feature = "attest");
const OBJECTS: bool = cfg!(feature = "object-store");

#[rustfmt::skip]
const SETTINGS: [Setting; 34] = [
    text_of(MODELSEAL_SET_KBS_URL, Some("MODELSEAL_KBS_URL")),
    text_of(MODELSEAL_SET_KBS_CA, Some("MODELSEAL_KBS_CA")),
    text_of(MODELSEAL_SET_EVIDENCE, Some("MODELSEAL_EVIDENCE")),
    text_of(MODELSEAL_SET_API_KEY, Some("TRUSTEE_API_KEY")),
    text_of(MODELSEAL_SET_CDH_URL, Some("MODELSEAL_CDH_URL")),
    text_of(MODELSEAL_SET_KBS_PROTOCOL, Some("MODELSEAL_KBS_PROTOCOL")),
    text_of(MODELSEAL_SET_TEE_KEY, Some("MODELSEAL_TEE_KEY")),
    text_of(MODELSEAL_SET_EVENT_LOG, Some("MODELSEAL_EVENT_LOG")),
    text_of(MODELSEAL_SET_INIT_DATA, Some("MODELSEAL_INIT_DATA")),
    text_of(MODELSEAL_SET_INSTANCE_INFO, Some("MODELSEAL_INSTANCE_INFO")),
    number(MODELSEAL_SET_KEY_TIMEOUT, 1, u32::MAX as u64, Some(("MODELSEAL_KEY_TIMEOUT", 1))),
    text_of(MODELSEAL_SET_LICENSE, Some("MODELSEAL_LICENSE")),
    text_of(MODELSEAL_SET_ISSUER, Some("MODELSEAL_ISSUER")),
    number(MODELSEAL_SET_MIN_SERIAL, 0, u64::MAX, Some(("MODELSEAL_MIN_SERIAL", 1))),
    text_of(MODELSEAL_SET_MACHINE, Some("MODELSEAL_MACHINE")),
    text_of(MODELSEAL_SET_MANIFEST, Some("MODELSEAL_MANIFEST")),
    number(MODELSEAL_SET_SCRYPT_MEMORY, 0, u64::MAX, Some(("MODELSEAL_SCRYPT_MEMORY", MIB))),
    text_of(MODELSEAL_SET_READ_MODE, Some("MODELSEAL_READ_MODE")),
    number(MODELSEAL_SET_THREADS, 0, 1024, Some(("MODELSEAL_THREADS", 1))),
    number(MODELSEAL_SET_READ_AHEAD, 64 << 10, 1 << 30, None),
    text_of(MODELSEAL_SET_S3_ENDPOINT, Some("MODELSEAL_S3_ENDPOINT")),
    text_of(MODELSEAL_SET_S3_REGION, Some("MODELSEAL_S3_REGION")),
    number(MODELSEAL_SET_S3_VIRTUAL_HOSTED, 0, 1, None),
    text_of(MODELSEAL_SET_STORAGE_CA, Some("MODELSEAL_STORAGE_CA")),
    number(MODELSEAL_SET_PART_LEN, MIB, 1 << 30, Some(("MODELSEAL_PART_SIZE", MIB))),
    number(MODELSEAL_SET_CONNECTIONS, 1, 1024, Some(("MODELSEAL_CONNECTIONS", 1))),
    text_of(MODELSEAL_SET_FORMAT, None),
    text_of(MODELSEAL_SET_KEY_ID, None),
    text_of(MODELSEAL_SET_LICENSE_CONFIG, None),
    text_of(MODELSEAL_SET_ISSUER_KEY, Some("MODELSEAL_ISSUER_KEY")),
    number(MODELSEAL_SET_CHUNK_LEN, 4 << 10, 16 << 20, None),
    number(MODELSEAL_SET_SCRYPT_LOG_N, 10, 28, None),
    text_of(MODELSEAL_SET_SYMLINKS, None),
    number(MODELSEAL_SET_RESUME, 0, 1, None),
];

const fn text_of(id: i32, variable: Option<&'static str>) -> Setting {
    let variable = match variable {
        Some(name) => Some((name, 1)),
        None => None,
    };
    Setting {
        id,
        kind: Kind::Text,
        variable,
    }
}

const fn number(id: i32, least: u64, most: u64, variable: Option<(&'static str, u64)>) -> Setting {
    Setting {
        id,
        kind: Kind::Number(least, most),
        variable,
    }
}

/// What a model is opened, sealed and its key fetched with. Where a function takes settings, NULL stands for those that
/// `modelseal_settings_new` makes.
///
/// Any number of threads may use it, and change it meanwhile. What was opened with it keeps what it was opened with. One
/// attestation serves all keys that are fetched with the same settings, until a setting of the broker changes.
#[derive(Default)]
pub struct Settings(Mutex<Values>);

impl Object for Settings {
    const NAME: &'static str = "settings object";
}

/// Texts may be secret, and are left out.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values();
        f.debug_map()
            .entries(values.texts.keys().map(|setting| (setting, "hidden")))
            .entries(&values.numbers)
            .finish()
    }
}

/// What is set, and what was made of it.
#[derive(Default)]
struct Values {
    texts: BTreeMap<i32, Zeroizing<String>>,
    numbers: BTreeMap<i32, u64>,
    engine: Option<modelseal::Engine>,
    sources: Option<Arc<KeySources>>,
}

/// Makes settings in which nothing is set.
///
/// # Safety
/// `settings` and `error` must be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_settings_new(settings: *mut *mut Settings, error: *mut *mut Error) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { Out::new(settings, "settings")? };
        out.hand_over(Settings::default())
    })
}

/// Makes settings as the environment says: from the variables that the command `modelseal` reads, where they are set and
/// not empty.
///
/// # Safety
/// `settings` and `error` must be valid for writing; `error` may be NULL. No other thread may change the environment
/// meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_settings_from_env(
    settings: *mut *mut Settings,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { Out::new(settings, "settings")? };
        out.hand_over(Settings::from_env(|name| env::var_os(name))?)
    })
}

/// Frees settings, and wipes what is secret in them. NULL is nothing.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_settings_free(settings: *mut Settings) {
    free(settings);
}

/// Sets what takes a text, one of `MODELSEAL_SET_...`, as UTF-8. An empty text unsets it.
///
/// `MODELSEAL_ARGUMENT` where there is no such setting, it takes a number, or the text is none that it can have.
///
/// # Safety
/// `value` must be `len` bytes, or end with a NUL where `len` is `MODELSEAL_NUL_TERMINATED`; `error` must be valid for
/// writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_settings_set_text(
    settings: *mut Settings,
    setting: i32,
    value: *const c_char,
    len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let value = unsafe { text(value, len, "the value")? };
        handle::get(settings)?.set_text(setting, value)
    })
}

/// Sets what takes a number, one of `MODELSEAL_SET_...`.
///
/// `MODELSEAL_ARGUMENT` where there is no such setting, it takes a text, or the number is out of its bounds.
///
/// # Safety
/// `error` must be valid for writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_settings_set_number(
    settings: *mut Settings,
    setting: i32,
    value: u64,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || handle::get(settings)?.set_number(setting, value))
}

/// Calls `work` with the settings of a handle, or with new ones for NULL.
pub(crate) fn with<R>(
    settings: *const Settings,
    work: impl FnOnce(&Settings) -> Result<R, Failure>,
) -> Result<R, Failure> {
    if settings.is_null() {
        work(&Settings::default())
    } else {
        work(&*handle::get(settings)?)
    }
}

impl Settings {
    fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let settings = Self::default();
        let set = |name: &str| -> Result<Option<Zeroizing<String>>, Failure> {
            let value = variable(name).map(OsString::into_string).transpose();
            let value = value.map_err(|_| {
                let text = format!("the variable {name} is not UTF-8");
                Failure::new(status::MODELSEAL_TEXT, text)
            })?;
            Ok(value.map(Zeroizing::new).filter(|value| !value.is_empty()))
        };
        for setting in SETTINGS {
            let Some((name, unit)) = setting.variable else {
                continue;
            };
            let (name, value) = match (set(name)?, setting.id) {
                (None, MODELSEAL_SET_KBS_URL) => ("TRUSTEE_URL", set("TRUSTEE_URL")?),
                (value, _) => (name, value),
            };
            let Some(value) = value else {
                continue;
            };
            let done = match setting.kind {
                Kind::Text => settings.set_text(setting.id, &value),
                Kind::Number(..) => value
                    .parse::<u64>()
                    .ok()
                    .and_then(|value| value.checked_mul(unit))
                    .ok_or_else(|| Failure::argument("it is no number, or too large"))
                    .and_then(|value| settings.set_number(setting.id, value)),
            };
            done.map_err(|failure| {
                let code = failure.code();
                failure.within(code, format!("the variable {name} cannot be used"))
            })?;
        }
        if let Some(value) = set("MODELSEAL_S3_VIRTUAL_HOSTED")? {
            let value = bool::from_str(&value).map_err(|_| {
                Failure::argument("the variable MODELSEAL_S3_VIRTUAL_HOSTED is neither true nor false")
            })?;
            settings.set_number(MODELSEAL_SET_S3_VIRTUAL_HOSTED, value.into())?;
        }
        Ok(settings)
    }

    fn set_text(&self, setting: i32, value: &str) -> Result<(), Failure> {
        match find(setting)?.kind {
            Kind::Number(..) => return Err(Failure::argument(format!("setting {setting} takes a number"))),
            Kind::Text if value.is_empty() => {
                let mut values = self.values();
                values.texts.remove(&setting);
                values.forget(setting);
                return Ok(());
            }
            Kind::Text => {}
        }
        options::check_text(setting, value)?;
        let mut values = self.values();
        values.texts.insert(setting, Zeroizing::new(value.to_owned()));
        values.forget(setting);
        Ok(())
    }

    fn set_number(&self, setting: i32, value: u64) -> Result<(), Failure> {
        match find(setting)?.kind {
            Kind::Text => return Err(Failure::argument(format!("setting {setting} takes a text"))),
            Kind::Number(least, most) if !(least..=most).contains(&value) => {
                let text = format!("setting {setting} cannot be {value}, but from {least} to {most}");
                return Err(Failure::argument(text));
            }
            Kind::Number(..) => {}
        }
        if setting == MODELSEAL_SET_CHUNK_LEN && !value.is_power_of_two() {
            return Err(Failure::argument("the length of chunks is no power of two"));
        }
        let mut values = self.values();
        values.numbers.insert(setting, value);
        values.forget(setting);
        Ok(())
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Values {
    /// Forgets what was made of a setting.
    fn forget(&mut self, setting: i32) {
        match setting {
            MODELSEAL_SET_KBS_URL..=MODELSEAL_SET_KEY_TIMEOUT => self.sources = None,
            MODELSEAL_SET_THREADS => self.engine = None,
            _ => {}
        }
    }

    fn text(&self, setting: i32) -> Option<&str> {
        self.texts.get(&setting).map(|text| text.as_str())
    }

    fn number(&self, setting: i32) -> Option<u64> {
        self.numbers.get(&setting).copied()
    }
}

fn find(setting: i32) -> Result<Setting, Failure> {
    let found = SETTINGS.iter().find(|known| known.id == setting);
    let found = found.ok_or_else(|| Failure::argument(format!("there is no setting {setting}")))?;
    let supported = match setting {
        MODELSEAL_SET_KBS_URL..=MODELSEAL_SET_INSTANCE_INFO => BROKER,
        MODELSEAL_SET_S3_ENDPOINT..=MODELSEAL_SET_CONNECTIONS => OBJECTS,
        _ => true,
    };
    if supported {
        Ok(*found)
    } else {
        let text = format!("setting {setting} is for what this library was built without");
        Err(Failure::new(status::MODELSEAL_UNSUPPORTED, text))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn code(result: Result<(), Failure>) -> i32 {
        result.map_or_else(|failure| failure.code(), |()| status::MODELSEAL_OK)
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let settings = Settings::default();
        let argument = status::MODELSEAL_ARGUMENT;
        for (setting, value) in [
            (0, "x"),
            (MODELSEAL_SET_THREADS, "2"),
            (MODELSEAL_SET_EVIDENCE, "snp"),
            (MODELSEAL_SET_TEE_KEY, "p384"),
            (MODELSEAL_SET_EVENT_LOG, "ignore"),
            (MODELSEAL_SET_READ_MODE, "map"),
            (MODELSEAL_SET_FORMAT, "zip"),
            (MODELSEAL_SET_SYMLINKS, "break"),
        ] {
            assert_eq!(
                code(settings.set_text(setting, value)),
                argument,
                "{setting} {value}"
            );
        }
        for (setting, value) in [
            (-1, 0),
            (MODELSEAL_SET_KBS_URL, 0),
            (MODELSEAL_SET_THREADS, 1025),
            (MODELSEAL_SET_KEY_TIMEOUT, 0),
            (MODELSEAL_SET_CHUNK_LEN, 4097),
            (MODELSEAL_SET_SCRYPT_LOG_N, 256 + 16),
        ] {
            assert_eq!(
                code(settings.set_number(setting, value)),
                argument,
                "{setting} {value}"
            );
        }
    }

    #[test]
    fn an_api_key_is_not_shown() {
        let settings = Settings::default();
        settings.set_text(MODELSEAL_SET_API_KEY, "a secret").unwrap();
        let sources = settings.sources().unwrap();
        assert!(!format!("{sources:?}").contains("a secret"));
        assert!(!format!("{settings:?}").contains("a secret"));
    }

    #[test]
    fn the_environment_is_that_of_the_command() {
        let from = |name: &'static str, value: &'static str| {
            Settings::from_env(move |wanted| (wanted == name).then(|| value.into()))
        };
        let settings = from("MODELSEAL_SCRYPT_MEMORY", "64").unwrap();
        assert_eq!(settings.open_options().unwrap().scrypt_memory, 64 << 20);
        let settings = from("TRUSTEE_URL", "https://broker.example").unwrap();
        assert!(format!("{:?}", settings.sources().unwrap()).contains("broker.example"));
        let settings = from("MODELSEAL_S3_VIRTUAL_HOSTED", "true").unwrap();
        assert_eq!(
            settings.open_options().unwrap().objects.virtual_hosted,
            Some(true)
        );
        let failure = from("MODELSEAL_THREADS", "many").unwrap_err();
        assert!(
            failure.text().starts_with("the variable MODELSEAL_THREADS"),
            "{}",
            failure.text()
        );
        assert!(from("MODELSEAL_THREADS", "").is_ok());
        let settings = from("MODELSEAL_ISSUER_KEY", "issuer.pem").unwrap();
        assert_eq!(
            settings.values().text(MODELSEAL_SET_ISSUER_KEY),
            Some("issuer.pem")
        );
    }

    /// A check that cannot be understood is not left out.
    #[test]
    fn a_variable_that_is_no_text_is_told() {
        for name in ["MODELSEAL_ISSUER", "TRUSTEE_URL", "MODELSEAL_S3_VIRTUAL_HOSTED"] {
            let latin = |wanted: &str| (wanted == name).then(|| OsString::from_vec(vec![0xe9]));
            let failure = Settings::from_env(latin).unwrap_err();
            assert_eq!(failure.code(), status::MODELSEAL_TEXT);
            assert!(failure.text().contains(name), "{}", failure.text());
        }
    }
}
