//! Licenses of packages: issued further ones, and checked, without touching the content.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sam_format::open::{licensed_manifest, read_license, read_manifest, write_license};
use sam_format::{IssuerKey, License, Licensed, Locked, Terms};

use crate::error::{Error, Result};
use crate::key::Key;
use crate::measurements::with_measurements;
use crate::model::{OpenOptions, expect_package, lock_package, package_error, with_license};
use crate::storage::{Storage, is_url, lock, open_local};

/// Issues a further license for the content of the package at `path`, under `new_key`. The license that the options
/// choose gives the content key: where `issuer` signed it, no matter for when and for which machine; else as it would
/// open the package. The content stays as it is, and nothing is written.
///
/// # Errors
/// [`Error::Package`] where that license does not open the package or a term is out of its bounds, [`Error::Format`]
/// where it is no package, [`Error::KeyKind`] where a key is no password.
pub fn issue_license(
    path: &Path,
    key: &Key,
    new_key: &Key,
    terms: &Terms,
    issuer: &IssuerKey,
    options: &OpenOptions,
) -> Result<License> {
    let (key, new_key) = (key.password()?, new_key.password()?);
    let store = Storage::open(path, &options.objects, options.read_mode)?;
    expect_package(
        &store,
        path,
        "a vault has no license; seal it as a package with `modelseal rotate`",
    )?;
    let failed = package_error(path);
    let manifest = read_manifest(&store).map_err(&failed)?;
    let license = with_license(path, options, |choice| {
        read_license(&store, choice).map_err(&failed)
    })?;
    let content_key = if license.issuer() == issuer.public() {
        let locked = Locked::for_issuer(license.clone(), &manifest, issuer, options.scrypt_memory);
        locked.and_then(|locked| locked.unlock(key))
    } else {
        lock_package(&store, path, options)?.unlock(key)
    };
    let content_key = content_key.map_err(&failed)?.key;
    let content = Licensed {
        key: &content_key,
        content_id: license.content_id(),
        manifest_digest: *license.manifest_digest(),
    };
    License::issue(new_key, &content, terms, issuer).map_err(failed)
}

/// Writes a license into the package at `path`, in one step. With `replace` it takes the place of one with the same ID.
///
/// # Errors
/// [`Error::Package`] where it is for another package, or there is one already and it is not to be replaced;
/// [`Error::Busy`] where another run writes to the package.
pub fn add_license(path: &Path, license: &License, replace: bool) -> Result<()> {
    let local = open_local(path)?;
    lock(&local, path)?;
    let store = Storage::Local(local);
    let failed = package_error(path);
    let manifest = read_manifest(&store).map_err(&failed)?;
    licensed_manifest(license, &manifest).map_err(&failed)?;
    write_license(&store, license, replace).map_err(failed)
}

/// Checks a license without its key: that of a package, and that its manifest is the one that it is for; or one in a
/// file. Returns it.
///
/// # Errors
/// [`Error::Package`] where it would not open anything here and now, [`Error::Io`] where it cannot be read.
pub fn check_license(path: &Path, options: &OpenOptions) -> Result<License> {
    if is_url(path) || path.is_dir() {
        let store = Storage::open(path, &options.objects, options.read_mode)?;
        expect_package(&store, path, "a vault has no license")?;
        return Ok(lock_package(&store, path, options)?.license().clone());
    }
    let license = License::parse(&read_license_file(path)?).map_err(Error::package(path))?;
    license
        .check(&with_measurements(&options.checks))
        .map_err(Error::package(path))?;
    Ok(license)
}

/// The content of the license in the file at `path`.
///
/// # Errors
/// [`Error::Io`] where it cannot be read.
pub fn read_license_file(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::io(path, "reading the license", source);
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    // One byte too many of what is too long to be one.
    file.take(License::MAX_LEN as u64 + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    Ok(content)
}
