//! Opening a package as far as its license goes: which license, and whether the manifest and the content key belong to
//! it (FORMAT.md, section 6.1, rules 1 to 6).

use std::io;
use std::path::{Path, PathBuf};

use chunk_cipher::random;
use chunk_cipher::store::{Attributes, Kind, PendingFile, ReadAt, Store, WriteAt, WriteStore};
use subtle::ConstantTimeEq;

use crate::error::{Error, Result};
use crate::issuer::IssuerKey;
use crate::keys::ContentKey;
use crate::license::{Checks, License, is_license_id};
use crate::manifest::{MANIFEST_NAME, Manifest};
use crate::partial::PARTIAL_NAME;

/// The directory in a package that holds its licenses.
pub const LICENSES_DIR: &str = "licenses";

/// What the name of a license is followed by.
const SUFFIX: &str = ".json";
/// Permission bits of a license.
const LICENSE_MODE: u32 = 0o644;

/// Which license a package is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LicenseChoice<'a> {
    /// The only one in the package. Of several, the one of this name, which is that of the package's directory.
    Only(&'a str),
    /// The one in the package with this ID.
    Id(&'a str),
    /// The content of one that lies elsewhere.
    Document(&'a [u8]),
}

/// A package whose license and manifest belong together, and satisfy all that can be checked without the key.
#[derive(Debug)]
pub struct Locked {
    license: License,
    manifest: Manifest,
    scrypt_memory: u64,
}

/// What opens a package.
#[derive(Debug)]
pub struct Unlocked {
    /// The license that it was opened with.
    pub license: License,
    /// What it contains.
    pub manifest: Manifest,
    /// The content key.
    pub key: ContentKey,
}

impl Locked {
    /// Reads and checks the license and the manifest of the package in `store`.
    ///
    /// # Errors
    /// [`Error::NotAPackage`] and [`Error::Incomplete`] where there is no package, [`Error::NoLicense`],
    /// [`Error::LicenseChoice`], [`Error::LicenseUnknown`] and [`Error::LicenseName`] where there is not that license;
    /// those of [`License::check`] and [`Manifest::parse`]; [`Error::OtherManifest`] where the license is for another
    /// manifest.
    pub fn read(store: &impl Store, choice: LicenseChoice<'_>, checks: &Checks) -> Result<Self> {
        // Without a manifest there is no package, whatever else is missing.
        let manifest = read_manifest(store)?;
        let license = read_license(store, choice)?;
        license.check(checks)?;
        let manifest = licensed_manifest(&license, &manifest)?;
        Ok(Self {
            license,
            manifest,
            scrypt_memory: checks.scrypt_memory,
        })
    }

    /// A license for the manifest whose content is `manifest`, for its issuer itself, to issue further licenses: no matter
    /// when and where it was to be used, but only if `issuer` signed it.
    ///
    /// # Errors
    /// [`Error::Signature`] and [`Error::Issuer`]; those of [`licensed_manifest`].
    pub fn for_issuer(
        license: License,
        manifest: &[u8],
        issuer: &IssuerKey,
        scrypt_memory: u64,
    ) -> Result<Self> {
        license.check_signature(&[issuer.public()])?;
        let manifest = licensed_manifest(&license, manifest)?;
        Ok(Self {
            license,
            manifest,
            scrypt_memory,
        })
    }

    /// Unwraps the content key.
    ///
    /// # Errors
    /// [`Error::KeyLength`], [`Error::WrongKey`]; [`Error::OtherContentKey`] where the manifest is for another content
    /// key; [`Error::Cipher`] where scrypt would take more memory than it may.
    pub fn unlock(self, key: &[u8]) -> Result<Unlocked> {
        let key = self.license.unwrap_key(key, self.scrypt_memory)?;
        let commitment = key.commitment()?;
        if !bool::from(commitment.ct_eq(self.manifest.content_key_commitment())) {
            return Err(Error::OtherContentKey);
        }
        Ok(Unlocked {
            license: self.license,
            manifest: self.manifest,
            key,
        })
    }

    /// The license.
    #[must_use]
    pub const fn license(&self) -> &License {
        &self.license
    }

    /// The manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// The manifest whose content is `manifest`, where it is the one that `license` is for.
///
/// # Errors
/// [`Error::OtherManifest`] where it is not, and those of [`Manifest::parse`].
pub fn licensed_manifest(license: &License, manifest: &[u8]) -> Result<Manifest> {
    if Manifest::digest(manifest) != *license.manifest_digest() {
        return Err(Error::OtherManifest);
    }
    let manifest = Manifest::parse(manifest)?;
    if manifest.content_id() == license.content_id() {
        Ok(manifest)
    } else {
        Err(Error::OtherManifest)
    }
}

/// Reads the content of the package's manifest.
///
/// # Errors
/// [`Error::NotAPackage`] where there is none, [`Error::Incomplete`] where packing was interrupted before.
pub fn read_manifest(store: &impl Store) -> Result<Vec<u8>> {
    match read_whole(store, Path::new(MANIFEST_NAME), Manifest::MAX_LEN) {
        Err(error) if error.is_not_found() => Err(match store.metadata(Path::new(PARTIAL_NAME)) {
            Ok(_) => Error::Incomplete,
            Err(_) => Error::NotAPackage {
                path: PathBuf::from(MANIFEST_NAME),
            },
        }),
        read => read,
    }
}

/// The IDs of the licenses in the package, sorted. Whatever else lies there is left alone.
///
/// # Errors
/// [`Error::Io`] where they cannot be listed.
pub fn list_licenses(store: &impl Store) -> Result<Vec<String>> {
    let dir = Path::new(LICENSES_DIR);
    let listed = match store.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(|source| Error::io(dir, "listing", source))?,
    };
    let id = |(name, kind): &(std::ffi::OsString, Kind)| {
        let id = name.to_str()?.strip_suffix(SUFFIX)?;
        (*kind == Kind::File && is_license_id(id)).then(|| id.to_owned())
    };
    let mut ids: Vec<_> = listed.iter().filter_map(id).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Reads the chosen license. It is not checked yet.
///
/// # Errors
/// [`Error::NoLicense`], [`Error::LicenseChoice`] and [`Error::LicenseUnknown`] where there is not that license,
/// [`Error::LicenseName`] where it is called otherwise, and those of [`License::parse`].
pub fn read_license(store: &impl Store, choice: LicenseChoice<'_>) -> Result<License> {
    let id = match choice {
        LicenseChoice::Document(content) => return License::parse(content),
        LicenseChoice::Id(id) if is_license_id(id) => id.to_owned(),
        LicenseChoice::Id(id) => return Err(unknown(store, id)?),
        LicenseChoice::Only(package) => {
            let mut found = list_licenses(store)?;
            match found.iter().position(|id| id == package) {
                Some(named) => found.swap_remove(named),
                None if found.len() > 1 => return Err(Error::LicenseChoice { found }),
                None => found.pop().ok_or(Error::NoLicense)?,
            }
        }
    };
    let path = license_path(&id);
    let content = match read_whole(store, &path, License::MAX_LEN) {
        Err(error) if error.is_not_found() => return Err(unknown(store, &id)?),
        content => content?,
    };
    let license = License::parse(&content)?;
    if license.terms().license_id == id {
        Ok(license)
    } else {
        Err(Error::LicenseName {
            path,
            id: license.terms().license_id.clone(),
        })
    }
}

/// Writes a license into the package, in one step. With `replace` it takes the place of one with the same ID.
///
/// # Errors
/// [`Error::Io`], also where there is one already and it is not to be replaced.
pub fn write_license(store: &impl WriteStore, license: &License, replace: bool) -> Result<()> {
    let dir = Path::new(LICENSES_DIR);
    match store.create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(|source| Error::io(dir, "making", source))?,
    }
    let path = license_path(&license.terms().license_id);
    let failed = |source| Error::io(&path, "writing", source);
    if replace {
        // No license has such a name, nor another run that writes one.
        let mut id = [0; 8];
        random::fill(&mut id)?;
        let new = dir.join(format!(".new-{:016x}", u64::from_le_bytes(id)));
        let replaced = put(store, &new, license)
            .and_then(|()| store.sync())
            .and_then(|()| store.rename(&new, &path));
        if replaced.is_err() {
            let _ = store.remove_file(&new);
        }
        replaced.map_err(failed)?;
    } else {
        put(store, &path, license).map_err(failed)?;
    }
    store.sync().map_err(failed)
}

fn put(store: &impl WriteStore, path: &Path, license: &License) -> io::Result<()> {
    let file = store.create(path)?;
    file.write_all_at(0, license.as_str().as_bytes())?;
    let attributes = Attributes {
        mode: Some(LICENSE_MODE),
        ..Attributes::default()
    };
    file.commit(&attributes)
}

pub(crate) fn license_path(id: &str) -> PathBuf {
    Path::new(LICENSES_DIR).join(format!("{id}{SUFFIX}"))
}

fn unknown(store: &impl Store, id: &str) -> Result<Error> {
    Ok(Error::LicenseUnknown {
        id: id.to_owned(),
        found: list_licenses(store)?,
    })
}

/// Reads a whole file, and one byte too many of one that is longer than `max` bytes.
pub(crate) fn read_whole(store: &impl Store, path: &Path, max: usize) -> Result<Vec<u8>> {
    let failed = |source| Error::io(path, "reading", source);
    let file = store.open(path).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    let mut content = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(max + 1)];
    file.read_exact_at(0, &mut content).map_err(failed)?;
    Ok(content)
}
