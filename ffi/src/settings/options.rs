//! What the facade is given of the settings.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "attest")]
use modelseal::attest::{ProtocolVersion, TeeKeyKind, evidence::EventLogPolicy};
use modelseal::gocryptfs::ConfOptions;
use modelseal::sam::{ChunkLen, IssuerKey, IssuerPublicKey, LicenseConfig, Terms};
use modelseal::store::ReadMode;
use modelseal::{
    Engine, EvidenceKind, KeySources, ObjectOptions, OpenOptions, PackageOptions, Pool, SealFormat,
    SealOptions, Symlinks,
};
use zeroize::Zeroizing;

use super::*;

/// Bytes that a stream decrypts at once unless told otherwise.
const READ_AHEAD: u64 = 4 << 20;

/// The longest file with an issuer's public key, in bytes.
const ISSUER_MAX: u64 = 16 << 10;

/// Refuses a text that a setting cannot have.
pub(super) fn check_text(setting: i32, value: &str) -> Result<(), Failure> {
    match setting {
        MODELSEAL_SET_EVIDENCE => drop(parse::<EvidenceKind>(value)?),
        #[cfg(feature = "attest")]
        MODELSEAL_SET_KBS_PROTOCOL => drop(parse::<ProtocolVersion>(value)?),
        #[cfg(feature = "attest")]
        MODELSEAL_SET_TEE_KEY => drop(parse::<TeeKeyKind>(value)?),
        #[cfg(feature = "attest")]
        MODELSEAL_SET_EVENT_LOG => drop(parse::<EventLogPolicy>(value)?),
        MODELSEAL_SET_ISSUER => drop(issuers(value)?),
        MODELSEAL_SET_READ_MODE => drop(read_mode(value)?),
        MODELSEAL_SET_FORMAT => drop(is_package(value)?),
        MODELSEAL_SET_SYMLINKS => drop(symlinks(value)?),
        _ => {}
    }
    Ok(())
}

impl Settings {
    pub(crate) fn open_options(&self) -> Result<OpenOptions, Failure> {
        let mut values = self.values();
        let mut options = OpenOptions {
            engine: values.engine(),
            objects: values.objects(),
            ..OpenOptions::default()
        };
        if let Some(bytes) = values.number(MODELSEAL_SET_SCRYPT_MEMORY) {
            options.scrypt_memory = bytes;
        }
        if let Some(mode) = values.text(MODELSEAL_SET_READ_MODE) {
            options.read_mode = read_mode(mode)?;
        }
        options.license = values.text(MODELSEAL_SET_LICENSE).map(|license| {
            let Ok(license) = license.parse();
            license
        });
        options.manifest = values.text(MODELSEAL_SET_MANIFEST).map(Into::into);
        options.checks.machine = values.text(MODELSEAL_SET_MACHINE).map(str::to_owned);
        options.checks.min_serial = values.number(MODELSEAL_SET_MIN_SERIAL);
        if let Some(list) = values.text(MODELSEAL_SET_ISSUER) {
            options.checks.issuers = issuers(list)?;
        }
        Ok(options)
    }

    pub(crate) fn seal_options(&self) -> Result<SealOptions, Failure> {
        let mut values = self.values();
        let mut options = SealOptions {
            format: values.format()?,
            resume: values.number(MODELSEAL_SET_RESUME) == Some(1),
            engine: values.engine(),
            objects: values.objects(),
            ..SealOptions::default()
        };
        if let Some(bytes) = values.number(MODELSEAL_SET_SCRYPT_MEMORY) {
            options.scrypt_memory = bytes;
        }
        if let Some(what) = values.text(MODELSEAL_SET_SYMLINKS) {
            options.symlinks = symlinks(what)?;
        }
        Ok(options)
    }

    /// Where keys of references come from: the same until a setting of the broker changes.
    pub(crate) fn sources(&self) -> Result<Arc<KeySources>, Failure> {
        let mut values = self.values();
        if let Some(sources) = &values.sources {
            return Ok(Arc::clone(sources));
        }
        let sources = Arc::new(values.make_sources()?);
        values.sources = Some(Arc::clone(&sources));
        Ok(sources)
    }

    /// Bytes that a stream decrypts at once.
    pub(crate) fn read_ahead(&self) -> usize {
        let bytes = self
            .values()
            .number(MODELSEAL_SET_READ_AHEAD)
            .unwrap_or(READ_AHEAD);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

impl Values {
    /// The threads, made once for all that these settings are used for.
    fn engine(&mut self) -> Engine {
        let threads = self.number(MODELSEAL_SET_THREADS).unwrap_or(0);
        let make = || match usize::try_from(threads) {
            Ok(0) | Err(_) => Engine::new(Pool::shared()),
            Ok(threads) => Engine::new(Pool::with_threads(threads)),
        };
        self.engine.get_or_insert_with(make).clone()
    }

    fn objects(&self) -> ObjectOptions {
        let mut objects = ObjectOptions {
            endpoint: self.text(MODELSEAL_SET_S3_ENDPOINT).map(str::to_owned),
            region: self.text(MODELSEAL_SET_S3_REGION).map(str::to_owned),
            virtual_hosted: self
                .number(MODELSEAL_SET_S3_VIRTUAL_HOSTED)
                .map(|number| number == 1),
            ca: self.text(MODELSEAL_SET_STORAGE_CA).map(Into::into),
            ..ObjectOptions::default()
        };
        if let Some(bytes) = self.number(MODELSEAL_SET_PART_LEN) {
            objects.part_len = bytes;
        }
        if let Some(Ok(connections)) = self.number(MODELSEAL_SET_CONNECTIONS).map(usize::try_from) {
            objects.connections = connections;
        }
        objects
    }

    fn make_sources(&self) -> Result<KeySources, Failure> {
        let mut sources = KeySources::new();
        if let Some(url) = self.text(MODELSEAL_SET_KBS_URL) {
            sources = sources.kbs_url(url);
        }
        if let Some(path) = self.text(MODELSEAL_SET_KBS_CA) {
            sources = sources.kbs_ca(path);
        }
        if let Some(kind) = self.text(MODELSEAL_SET_EVIDENCE) {
            sources = sources.evidence(parse(kind)?);
        }
        if let Some(key) = self.text(MODELSEAL_SET_API_KEY) {
            sources = sources.api_key(Zeroizing::new(key.to_owned()));
        }
        if let Some(url) = self.text(MODELSEAL_SET_CDH_URL) {
            sources = sources.cdh_url(url);
        }
        if let Some(seconds) = self.number(MODELSEAL_SET_KEY_TIMEOUT) {
            sources = sources.timeout(Duration::from_secs(seconds));
        }
        #[cfg(feature = "attest")]
        {
            sources = self.tell(sources)?.on_warning(|warning| log::warn!("{warning}"));
        }
        Ok(sources)
    }

    /// What a broker is told and shown.
    #[cfg(feature = "attest")]
    fn tell(&self, mut sources: KeySources) -> Result<KeySources, Failure> {
        if let Some(version) = self.text(MODELSEAL_SET_KBS_PROTOCOL) {
            sources = sources.protocol_version(parse(version)?);
        }
        if let Some(kind) = self.text(MODELSEAL_SET_TEE_KEY) {
            sources = sources.tee_key_kind(parse(kind)?);
        }
        if let Some(policy) = self.text(MODELSEAL_SET_EVENT_LOG) {
            sources = sources.event_log_policy(parse(policy)?);
        }
        if let Some(path) = self.text(MODELSEAL_SET_INIT_DATA) {
            sources = sources.init_data(path);
        }
        if let Some(path) = self.text(MODELSEAL_SET_INSTANCE_INFO) {
            sources = sources.instance_info(path);
        }
        Ok(sources)
    }

    fn format(&self) -> Result<SealFormat, Failure> {
        let log_n = self
            .number(MODELSEAL_SET_SCRYPT_LOG_N)
            .map(u8::try_from)
            .transpose();
        let log_n = log_n.map_err(|_| Failure::argument("scrypt's cost is out of bounds"))?;
        if !self.text(MODELSEAL_SET_FORMAT).map_or(Ok(false), is_package)? {
            let mut conf = ConfOptions::default();
            conf.scrypt_log_n = log_n.unwrap_or(conf.scrypt_log_n);
            return Ok(SealFormat::Gocryptfs(conf));
        }
        let key_id = self.needed(MODELSEAL_SET_KEY_ID, "the ID of its key (MODELSEAL_SET_KEY_ID)")?;
        let issuer = self.needed(
            MODELSEAL_SET_ISSUER_KEY,
            "the key of its issuer (MODELSEAL_SET_ISSUER_KEY)",
        )?;
        let mut defaults = Terms::new(key_id);
        // Counts up by itself from one license to the next.
        defaults.serial = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        defaults.scrypt_log_n = log_n.unwrap_or(defaults.scrypt_log_n);
        let terms = match self.text(MODELSEAL_SET_LICENSE_CONFIG) {
            None => defaults,
            Some(path) => {
                let path = Path::new(path);
                let content = read(
                    path,
                    LicenseConfig::MAX_LEN as u64,
                    "reading the license configuration",
                )?;
                let config = LicenseConfig::parse(&content);
                config
                    .and_then(|config| config.terms(defaults))
                    .map_err(of_package(path))?
            }
        };
        let mut options = PackageOptions::new(
            terms,
            IssuerKey::read(Path::new(issuer)).map_err(of_package(Path::new(issuer)))?,
        );
        if let Some(len) = self.number(MODELSEAL_SET_CHUNK_LEN) {
            let len = u32::try_from(len).ok().and_then(ChunkLen::new);
            options.chunk_len =
                len.ok_or_else(|| Failure::argument("the length of chunks is out of bounds"))?;
        }
        Ok(SealFormat::Sam(Box::new(options)))
    }

    fn needed(&self, setting: i32, what: &str) -> Result<&str, Failure> {
        self.text(setting)
            .ok_or_else(|| Failure::argument(format!("a package cannot be sealed without {what}")))
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, Failure> {
    text.parse()
        .map_err(|error: T::Err| Failure::argument(error.to_string()))
}

/// One of some words, and what it stands for.
fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Failure> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        Failure::argument(format!(
            "the setting cannot be {text:?}, but one of: {}",
            words.join(", ")
        ))
    })
}

fn read_mode(text: &str) -> Result<ReadMode, Failure> {
    word(text, &[("auto", ReadMode::Auto), ("copy", ReadMode::Copy)])
}

fn is_package(text: &str) -> Result<bool, Failure> {
    word(text, &[("gocryptfs", false), ("sam", true)])
}

fn symlinks(text: &str) -> Result<Symlinks, Failure> {
    let words = [
        ("keep", Symlinks::Keep),
        ("follow", Symlinks::Follow),
        ("refuse", Symlinks::Refuse),
    ];
    word(text, &words)
}

/// Issuers' public keys: as text, or in files.
fn issuers(list: &str) -> Result<Vec<IssuerPublicKey>, Failure> {
    list.split(',').map(issuer).collect()
}

fn issuer(text: &str) -> Result<IssuerPublicKey, Failure> {
    if let Ok(key) = IssuerPublicKey::from_text(text) {
        return Ok(key);
    }
    let path = Path::new(text);
    if text.contains('\n') || !path.exists() {
        return Err(Failure::argument(
            "an issuer is neither the base64 of an Ed25519 public key, nor one in PEM, nor a file with one",
        ));
    }
    let content = read(path, ISSUER_MAX, "reading the issuer's key")?;
    let content = String::from_utf8_lossy(&content);
    IssuerPublicKey::from_text(content.trim()).map_err(of_package(path))
}

/// The beginning of a file: one byte more than it may have, so that it shows what is too long.
fn read(path: &Path, max: u64, action: &'static str) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut content));
    let failed = |source: io::Error| modelseal::Error::Io {
        path: path.to_path_buf(),
        action,
        source,
    };
    read.map_err(failed)?;
    Ok(content)
}

fn of_package(path: &Path) -> impl Fn(modelseal::sam::Error) -> Failure + use<'_> {
    |source| {
        let path = path.to_path_buf();
        modelseal::Error::Package { path, source }.into()
    }
}
