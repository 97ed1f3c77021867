//! A sealed model, open for reading.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;
use chunk_cipher::store::{Kind as EntryKind, ReadAt, ReadMode, Store};
use chunk_cipher::{Buffer, Engine};
use gocryptfs_core::{Conf, MasterKey, Vault, read_conf, replace_conf};
use sam_format::open::{read_license, read_manifest};
use sam_format::{Checks, License, LicenseChoice, Locked, Manifest, Package, VaultManifest};

use crate::error::{Error, Result};
use crate::file::SealedFile;
use crate::key::Key;
use crate::license::read_license_file;
use crate::manifest::{ListedStore, read_vault_manifest, verify_vault};
use crate::measurements::with_measurements;
use crate::storage::{ObjectOptions, Storage, lock, open_local};
use crate::tree::{Damage, Verified};

/// How a model is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Memory that the model's scrypt parameters may ask for, in bytes: 1 GiB unless set.
    pub scrypt_memory: u64,
    /// How stored bytes are read.
    pub read_mode: ReadMode,
    /// The threads that decrypt.
    pub engine: Engine,
    /// How object storage is reached.
    pub objects: ObjectOptions,
    /// Which license a package is opened with: where none is named, the only one in it, or the one called like its
    /// directory.
    pub license: Option<LicenseRef>,
    /// What a package's license is checked against. Its limit of memory is `scrypt_memory`, and its measurements are this
    /// machine's where none are given. A vault's manifest is checked against the issuers and the least serial.
    pub checks: Checks,
    /// The signed manifest that a vault must agree with.
    pub manifest: Option<PathBuf>,
}

/// A license of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LicenseRef {
    /// The one in the package with this ID.
    Id(String),
    /// The one in this file.
    File(PathBuf),
}

impl FromStr for LicenseRef {
    type Err = Infallible;

    /// What has a slash or ends in `.json` is a file.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let is_file = text.contains('/')
            || Path::new(text)
                .extension()
                .is_some_and(|extension| extension == "json");
        Ok(if is_file {
            Self::File(text.into())
        } else {
            Self::Id(text.to_owned())
        })
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            scrypt_memory: DEFAULT_SCRYPT_MEMORY,
            read_mode: ReadMode::Auto,
            engine: Engine::default(),
            objects: ObjectOptions::default(),
            license: None,
            checks: Checks::default(),
            manifest: None,
        }
    }
}

/// A sealed model, unlocked. Any number of threads may share it.
#[derive(Debug)]
pub struct Model {
    pub(crate) location: PathBuf,
    pub(crate) stored: Stored,
    /// What a vault must agree with.
    pub(crate) manifest: Option<Arc<VaultManifest>>,
}

/// The format that a model is stored in.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // One a model.
pub(crate) enum Stored {
    Vault(Vault<ListedStore<Storage>>),
    Package(Box<Package<Storage>>),
}

/// What is known of a sealed model without its key.
#[derive(Debug)]
#[non_exhaustive]
pub enum Info {
    /// It is a gocryptfs vault with this configuration, which nothing vouches for.
    Vault(Conf),
    /// It is a Sam package.
    Package {
        /// What it says that it holds.
        manifest: Manifest,
        /// The licenses in it for this manifest, whose signatures are their issuers', sorted by ID.
        licenses: Vec<License>,
        /// Those that cannot be used, by ID, and why.
        unusable: Vec<(String, Error)>,
    },
}

/// The formats that a sealed model may be stored in.
enum Kind {
    Vault,
    Package,
}

impl Model {
    /// Unlocks the model in the directory at `path`, whichever format it has.
    ///
    /// # Errors
    /// [`Error::NotSealed`] where there is none, [`Error::Incomplete`] where sealing it was interrupted,
    /// [`Error::Vault`] and [`Error::Package`] where the key is wrong, the license does not allow it or something is
    /// damaged, [`Error::Manifest`] where a vault's manifest is not as it must be, and [`Error::Format`] where there is
    /// one for a package, or none for a vault whose issuer or serial are asked for.
    pub fn open(path: &Path, key: Key, options: &OpenOptions) -> Result<Self> {
        let store = Storage::open(path, &options.objects, options.read_mode)?;
        let kind = kind(&store, path)?;
        let manifest = manifest(&kind, path, options)?.map(Arc::new);
        let stored = match kind {
            Kind::Vault => {
                let store = ListedStore::new(store, manifest.clone());
                let conf = conf(&store, path)?;
                let (vault, _) = unlock(store, conf, key, options).map_err(Error::vault(path))?;
                Stored::Vault(vault)
            }
            Kind::Package => {
                let locked = lock_package(&store, path, options)?;
                let failed = package_error(path);
                let unlocked = locked.unlock(key.password()?).map_err(&failed)?;
                let package = Package::open(store, unlocked, options.engine.clone());
                Stored::Package(Box::new(package.map_err(failed)?))
            }
        };
        Ok(Self {
            location: path.to_path_buf(),
            stored,
            manifest,
        })
    }

    /// What is known of the model in the directory at `path` without a key.
    ///
    /// # Errors
    /// [`Error::NotSealed`] where there is none.
    pub fn inspect(path: &Path, options: &OpenOptions) -> Result<Info> {
        let store = Storage::open(path, &options.objects, options.read_mode)?;
        match kind(&store, path)? {
            Kind::Vault => Ok(Info::Vault(conf(&store, path)?)),
            Kind::Package => inspect_package(&store, path),
        }
    }

    /// Checks a package without its key, against its license: signature, manifest, names, lengths, and the digest of every
    /// file; or a whole vault against its signed manifest. Calls `report` with whatever is damaged, and goes on.
    ///
    /// # Errors
    /// [`Error::Format`] where it is a vault and there is no manifest for it, or `start` is not all of it;
    /// [`Error::Manifest`] where that is not as it must be; [`Error::Package`] where the license or the manifest is not as it must be,
    /// or files are missing or added; [`Error::Engine`] where `progress` calls it off.
    pub fn verify_without_key(
        path: &Path,
        start: &Path,
        options: &OpenOptions,
        progress: &dyn crate::Progress,
        report: &(dyn Fn(Damage) + Sync),
    ) -> Result<Verified> {
        let store = Storage::open(path, &options.objects, options.read_mode)?;
        let kind = kind(&store, path)?;
        let manifest = manifest(&kind, path, options)?;
        if matches!(kind, Kind::Vault) {
            let format = |what| Error::Format {
                path: path.to_path_buf(),
                what,
            };
            let manifest = manifest.ok_or_else(|| {
                format("a vault can be checked only with its key, or against a signed manifest (--manifest)")
            })?;
            if start.components().any(|part| part != Component::CurDir) {
                return Err(format("without its key, a vault can be checked only as a whole"));
            }
            return verify_vault(path, &manifest, options, progress, report);
        }
        let failed = package_error(path);
        let locked = lock_package(&store, path, options)?;
        let (manifest, engine) = (locked.manifest(), &options.engine);
        engine
            .pool()
            .run(|| sam_format::check_content(&store, manifest))?
            .map_err(&failed)?;
        let start = sam_format::lookup(manifest, start).map_err(&failed)?;
        let size = manifest
            .below(&start.path)
            .iter()
            .map(sam_format::Entry::metadata);
        let (files, bytes) = size
            .filter(|metadata| metadata.kind == chunk_cipher::store::Kind::File)
            .fold((0, 0_u64), |(files, bytes), file| {
                (files + 1, bytes.saturating_add(file.len))
            });
        progress.begin(files, bytes);
        let report = |damage| report(Damage::of_package(path, damage));
        sam_format::verify_digests(&store, manifest, &start.path, engine, progress, &report)
            .map(Verified::from)
            .map_err(failed)
    }

    /// Unwraps the master key of the model in the directory at `path`, to be exported.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn master_key(path: &Path, key: Key, options: &OpenOptions) -> Result<MasterKey> {
        let store = Storage::open(path, &options.objects, options.read_mode)?;
        expect_vault(&store, path, "a package has no master key to export")?;
        let manifest = manifest(&Kind::Vault, path, options)?;
        let store = ListedStore::new(store, manifest.map(Arc::new));
        let conf = conf(&store, path)?;
        let (_, master) = unlock(store, conf, key, options).map_err(Error::vault(path))?;
        Ok(master)
    }

    /// Whether a sealed model lies at `path`, as far as the names there tell.
    pub(crate) fn is_at(path: &Path, options: &OpenOptions) -> Result<bool> {
        let store = Storage::open(path, &options.objects, options.read_mode)?;
        match kind(&store, path) {
            Ok(_) => Ok(true),
            Err(Error::NotSealed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Bytes of plaintext that are decrypted together: whoever reads less has as much decrypted.
    #[must_use]
    pub fn chunk_len(&self) -> u64 {
        match &self.stored {
            Stored::Vault(_) => gocryptfs_core::BLOCK_LEN as u64,
            Stored::Package(package) => package.manifest().chunk_len().get().into(),
        }
    }

    /// Where the model lies.
    #[must_use]
    pub fn location(&self) -> &Path {
        &self.location
    }

    /// The engine that reads content.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        match &self.stored {
            Stored::Vault(vault) => vault.engine(),
            Stored::Package(package) => package.engine(),
        }
    }

    /// The license that it was opened with, where it is a package.
    #[must_use]
    pub const fn license(&self) -> Option<&License> {
        match &self.stored {
            Stored::Vault(_) => None,
            Stored::Package(package) => Some(package.license()),
        }
    }

    /// Opens the file at `path` in the model.
    ///
    /// # Errors
    /// [`Error::Vault`] where there is none, or it cannot be opened.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<SealedFile> {
        self.open_file(&self.lookup(path)?)
    }

    /// The whole file at `path` in the model, in memory prepared for its size.
    ///
    /// # Errors
    /// As [`Model::file`], and where a chunk is damaged or memory is short.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Buffer> {
        let file = self.file(path)?;
        let short = |source| Error::io(&self.location.join(file.path()), "making room for", source);
        let len = usize::try_from(file.len()).map_err(|_| short(io::ErrorKind::OutOfMemory.into()))?;
        let mut plain = Buffer::new(len).map_err(short)?;
        file.read_into(0, &mut plain)?;
        Ok(plain)
    }
}

/// Wraps the master key of the model at `path` under a new key, with a new salt, in one step. The content stays as
/// it is, so whoever has the old key and the old conf can still read it. A signed manifest of the vault holds no longer.
///
/// # Errors
/// As [`Model::open`], and [`Error::KeyKind`] where `new_key` is no password. The old conf is in place then.
pub fn change_password(
    path: &Path,
    key: Key,
    new_key: &Key,
    scrypt_log_n: Option<u8>,
    options: &OpenOptions,
) -> Result<()> {
    let local = open_local(path)?;
    let store = Storage::Local(local.clone());
    expect_vault(
        &store,
        path,
        "a package's key is its license's; issue another license with `modelseal license issue`",
    )?;
    lock(&local, path)?;
    let manifest = manifest(&Kind::Vault, path, options)?;
    let listed = ListedStore::new(store.clone(), manifest.map(Arc::new));
    let mut conf = conf(&listed, path)?;
    let (_, master) = unlock(listed, conf.clone(), key, options).map_err(Error::vault(path))?;
    conf.change_password(&master, new_key.password()?, scrypt_log_n)
        .map_err(Error::vault(path))?;
    replace_conf(&store, &conf).map_err(Error::vault(path))
}

/// Unlocks a vault. A password is checked by the conf, a master key by something that was sealed under it.
fn unlock(
    store: ListedStore<Storage>,
    conf: Conf,
    key: Key,
    options: &OpenOptions,
) -> gocryptfs_core::Result<(Vault<ListedStore<Storage>>, MasterKey)> {
    let checked_by_conf = key.is_password();
    let master = key.unlock(&conf, options.scrypt_memory)?;
    let vault = Vault::open(store, conf, &master, options.engine.clone())?;
    if !checked_by_conf {
        vault.check_key()?;
    }
    Ok((vault, master))
}

/// The manifest that a vault must agree with, where there is one.
fn manifest(kind: &Kind, path: &Path, options: &OpenOptions) -> Result<Option<VaultManifest>> {
    let refused = |what| {
        Err(Error::Format {
            path: path.to_path_buf(),
            what,
        })
    };
    let checks = &options.checks;
    match (kind, &options.manifest) {
        (Kind::Package, Some(_)) => refused("a package has a manifest of its own; leave --manifest out"),
        (Kind::Package, None) => Ok(None),
        (Kind::Vault, Some(manifest)) => {
            read_vault_manifest(manifest, &checks.issuers, checks.min_serial).map(Some)
        }
        // By itself a vault has neither.
        (Kind::Vault, None) if !checks.issuers.is_empty() || checks.min_serial.is_some() => {
            refused("only a signed manifest (--manifest) says who issued a vault, and with which serial")
        }
        (Kind::Vault, None) => Ok(None),
    }
}

pub(crate) fn conf(store: &impl Store, path: &Path) -> Result<Conf> {
    read_conf(store).map_err(|error| match error {
        gocryptfs_core::Error::NotAVault { .. } => Error::NotSealed {
            path: path.to_path_buf(),
        },
        gocryptfs_core::Error::Incomplete { .. } => Error::Incomplete {
            path: path.to_path_buf(),
        },
        other => Error::Vault {
            path: path.to_path_buf(),
            source: other,
        },
    })
}

/// Which format the model in `store` has.
fn kind(store: &Storage, path: &Path) -> Result<Kind> {
    let has = |name: &str| match store.metadata(Path::new(name)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::io(path, "looking into", source)),
    };
    if has(gocryptfs_core::conf::CONF_NAME)? || has(gocryptfs_core::PARTIAL_CONF_NAME)? {
        // Where names are in plaintext a vault may hold a file of this name, but none of its files begins like JSON.
        let of_package =
            |name: &str| has_brace(store, name).map_err(|source| Error::io(path, "looking into", source));
        if of_package(sam_format::manifest::MANIFEST_NAME)? || of_package(sam_format::PARTIAL_NAME)? {
            return Err(Error::Format {
                path: path.to_path_buf(),
                what: "it has what makes a gocryptfs vault, and the manifest of a Sam package; somebody put one of them \
                       there: take away gocryptfs.conf, or manifest.json and partial.json",
            });
        }
        Ok(Kind::Vault)
    } else if has(sam_format::manifest::MANIFEST_NAME)? || has(sam_format::PARTIAL_NAME)? {
        Ok(Kind::Package)
    } else {
        Err(Error::NotSealed {
            path: path.to_path_buf(),
        })
    }
}

/// Whether `name` is a file that begins with a brace.
fn has_brace(store: &impl Store, name: &str) -> io::Result<bool> {
    let name = Path::new(name);
    match store.metadata(name) {
        Ok(found) if found.kind == EntryKind::File && found.len > 0 => {
            let mut first = [0];
            store.open(name)?.read_exact_at(0, &mut first)?;
            Ok(first == *b"{")
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(false),
    }
}

pub(crate) fn expect_package(store: &Storage, path: &Path, what: &'static str) -> Result<()> {
    match kind(store, path)? {
        Kind::Package => Ok(()),
        Kind::Vault => Err(Error::Format {
            path: path.to_path_buf(),
            what,
        }),
    }
}

fn expect_vault(store: &Storage, path: &Path, what: &'static str) -> Result<()> {
    match kind(store, path)? {
        Kind::Vault => Ok(()),
        Kind::Package => Err(Error::Format {
            path: path.to_path_buf(),
            what,
        }),
    }
}

/// Reads the license of a package and checks it, and what it is for.
pub(crate) fn lock_package(store: &Storage, path: &Path, options: &OpenOptions) -> Result<Locked> {
    let failed = package_error(path);
    with_license(path, options, |choice| {
        let mut checks = with_measurements(&options.checks);
        checks.scrypt_memory = options.scrypt_memory;
        Locked::read(store, choice, &checks).map_err(&failed)
    })
}

/// Calls `work` with the license that the package at `path` is to be opened with.
pub(crate) fn with_license<R>(
    path: &Path,
    options: &OpenOptions,
    work: impl FnOnce(LicenseChoice<'_>) -> Result<R>,
) -> Result<R> {
    match &options.license {
        Some(LicenseRef::Id(id)) => work(LicenseChoice::Id(id)),
        Some(LicenseRef::File(file)) => work(LicenseChoice::Document(&read_license_file(file)?)),
        None => {
            let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
            let named = real.file_name().unwrap_or_default().to_string_lossy();
            work(LicenseChoice::Only(&named))
        }
    }
}

fn inspect_package(store: &Storage, path: &Path) -> Result<Info> {
    let failed = package_error(path);
    let content = read_manifest(store).map_err(&failed)?;
    let manifest = Manifest::parse(&content).map_err(&failed)?;
    let mut licenses = Vec::new();
    let mut unusable = Vec::new();
    for id in sam_format::open::list_licenses(store).map_err(&failed)? {
        let license = read_license(store, LicenseChoice::Id(&id)).and_then(|license| {
            license.check_signature(&[])?;
            sam_format::open::licensed_manifest(&license, &content)?;
            Ok(license)
        });
        match license {
            Ok(license) => licenses.push(license),
            Err(error) => unusable.push((id, failed(error))),
        }
    }
    Ok(Info::Package {
        manifest,
        licenses,
        unusable,
    })
}

/// For `map_err`: an error of opening the package at `path`.
pub(crate) fn package_error(path: &Path) -> impl Fn(sam_format::Error) -> Error + use<'_> {
    |error| match error {
        sam_format::Error::NotAPackage { .. } => Error::NotSealed {
            path: path.to_path_buf(),
        },
        sam_format::Error::Incomplete => Error::Incomplete {
            path: path.to_path_buf(),
        },
        source => Error::Package {
            path: path.to_path_buf(),
            source,
        },
    }
}
