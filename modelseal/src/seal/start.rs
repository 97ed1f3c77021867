//! Where sealing begins, or goes on: the destination, and what an interrupted run left in it.

use std::path::{Path, PathBuf};

use chunk_cipher::kdf::ScryptParams;
use chunk_cipher::store::{ReadMode, WriteStore};
use gocryptfs_core::{Conf, ConfOptions, MasterKey, VaultWriter, read_conf, read_partial_conf};
use sam_format::open::read_manifest;
use sam_format::{KEY_MAX, KEY_MIN, PackageWriter, Partial, read_partial};

use super::shared::JoinOptions;
use super::{PackageOptions, SealOptions};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::storage::Storage;
use crate::writer::{PackageAt, VaultAt, package_partial, vault_partial};

/// Opens the destination, makes it where it is missing, and starts or resumes the vault in it.
pub(super) fn start_vault(
    destination: &Path,
    key: &Key,
    asked: &ConfOptions,
    options: &SealOptions,
) -> Result<VaultAt> {
    let store = Storage::create(destination, &options.objects)?;
    let writer = begin_vault(store.clone(), destination, key, asked, options)?;
    Ok(VaultAt {
        location: destination.to_path_buf(),
        store,
        writer,
    })
}

fn begin_vault(
    store: Storage,
    destination: &Path,
    key: &Key,
    asked: &ConfOptions,
    options: &SealOptions,
) -> Result<VaultWriter<Storage>> {
    let vault = Error::vault(destination);
    let engine = options.engine.clone();
    store.lock(destination)?;
    if options.resume && read_conf(&store).is_ok() {
        return Err(Error::Resume {
            path: destination.to_path_buf(),
            what: "it is complete already".to_owned(),
        });
    }
    if let Some(conf) = read_partial_conf(&store).map_err(&vault)? {
        if !options.resume {
            return Err(Error::NotEmpty {
                path: destination.to_path_buf(),
                found: PathBuf::from(gocryptfs_core::PARTIAL_CONF_NAME),
                hint: "an interrupted run left it; go on with --resume, or remove it",
            });
        }
        let master = unlock_partial(&conf, key, asked, options, destination)?;
        return VaultWriter::resume(store, &master, engine).map_err(vault);
    }
    if options.resume {
        // The run may have ended before its conf was there.
        let failed = |error| Error::io(destination, "removing leftovers in", error);
        store.remove_leftovers().map_err(failed)?;
    }
    ScryptParams {
        log_n: asked.scrypt_log_n,
        r: 8,
        p: 1,
    }
    .check(options.scrypt_memory)?;
    let master = MasterKey::generate().map_err(&vault)?;
    let conf = Conf::create(key.password()?, &master, asked).map_err(&vault)?;
    VaultWriter::create(store, &conf, &master, engine).map_err(|error| match error {
        gocryptfs_core::Error::NotEmpty { found } => Error::NotEmpty {
            path: destination.to_path_buf(),
            found,
            hint: "choose a directory that is empty or not there yet",
        },
        other => vault(other),
    })
}

/// Opens the destination, makes it where it is missing, and starts or resumes the package in it.
pub(super) fn start_package(
    destination: &Path,
    key: &Key,
    asked: &PackageOptions,
    options: &SealOptions,
) -> Result<PackageAt> {
    // What is out of its bounds is so before anything is written.
    asked.terms.check().map_err(Error::package(destination))?;
    ScryptParams {
        log_n: asked.terms.scrypt_log_n,
        r: 8,
        p: 1,
    }
    .check(options.scrypt_memory)?;
    let password = key.password()?;
    if !(KEY_MIN..=KEY_MAX).contains(&password.len()) {
        let len = password.len();
        return Err(Error::package(destination)(sam_format::Error::KeyLength { len }));
    }
    let store = Storage::create(destination, &options.objects)?;
    let writer = begin_package(store.clone(), destination, password, asked, options)?;
    Ok(PackageAt {
        location: destination.to_path_buf(),
        store,
        writer,
    })
}

fn begin_package(
    store: Storage,
    destination: &Path,
    password: &[u8],
    asked: &PackageOptions,
    options: &SealOptions,
) -> Result<PackageWriter<Storage>> {
    store.lock(destination)?;
    let engine = options.engine.clone();
    let failed = |error| match error {
        sam_format::Error::Complete => Error::Resume {
            path: destination.to_path_buf(),
            what: "it is complete already".to_owned(),
        },
        sam_format::Error::NotEmpty { found } => Error::NotEmpty {
            path: destination.to_path_buf(),
            found,
            hint: "choose a directory that is empty or not there yet",
        },
        source => Error::package(destination)(source),
    };
    if let Some(partial) = read_partial(&store).map_err(failed)? {
        if !options.resume {
            return Err(Error::NotEmpty {
                path: destination.to_path_buf(),
                found: sam_format::PARTIAL_NAME.into(),
                hint: "an interrupted run left it; go on with --resume, or remove it",
            });
        }
        if partial.chunk_len() != asked.chunk_len {
            return Err(Error::Resume {
                path: destination.to_path_buf(),
                what: format!(
                    "it was begun with chunks of {} bytes; use the same",
                    partial.chunk_len().get()
                ),
            });
        }
        return PackageWriter::resume(store, password, options.scrypt_memory, engine).map_err(failed);
    }
    if options.resume {
        if read_manifest(&store).is_ok() {
            return Err(failed(sam_format::Error::Complete));
        }
        // The run may have ended before anything was there.
        let failed = |error| Error::io(destination, "removing leftovers in", error);
        store.remove_leftovers().map_err(failed)?;
    }
    let log_n = asked.terms.scrypt_log_n;
    PackageWriter::create(store, password, asked.chunk_len, log_n, engine).map_err(failed)
}

/// Opens the destination where another process has begun the vault with this conf.
pub(super) fn join_vault(
    destination: &Path,
    partial: &str,
    key: &Key,
    options: &JoinOptions,
) -> Result<VaultAt> {
    let store = Storage::reach(destination, &options.objects, ReadMode::Auto)?;
    expect_same(destination, &vault_partial(&store, destination)?, partial)?;
    let vault = Error::vault(destination);
    let conf = Conf::parse(partial.as_bytes()).map_err(&vault)?;
    let master = conf
        .unlock(key.password()?, options.scrypt_memory)
        .map_err(&vault)?;
    let writer = VaultWriter::join(store.clone(), &conf, &master, options.engine.clone());
    Ok(VaultAt {
        location: destination.to_path_buf(),
        store,
        writer: writer.map_err(vault)?,
    })
}

/// Opens the destination where another process has begun the package with this `partial.json`.
pub(super) fn join_package(
    destination: &Path,
    partial: &str,
    key: &Key,
    options: &JoinOptions,
) -> Result<PackageAt> {
    let store = Storage::reach(destination, &options.objects, ReadMode::Auto)?;
    expect_same(destination, &package_partial(&store, destination)?, partial)?;
    let package = Error::package(destination);
    let partial = Partial::parse(partial.as_bytes()).map_err(&package)?;
    let writer = PackageWriter::join(
        store.clone(),
        &partial,
        key.password()?,
        options.scrypt_memory,
        options.engine.clone(),
    );
    Ok(PackageAt {
        location: destination.to_path_buf(),
        store,
        writer: writer.map_err(package)?,
    })
}

fn expect_same(destination: &Path, there: &str, begun: &str) -> Result<()> {
    if there == begun {
        return Ok(());
    }
    Err(Error::shared(
        destination,
        "another model is being sealed there than the one to join in; is it the same place on all machines?",
    ))
}

/// Unlocks what an interrupted run left, provided that it was made with the same options.
fn unlock_partial(
    conf: &Conf,
    key: &Key,
    asked: &ConfOptions,
    options: &SealOptions,
    destination: &Path,
) -> Result<MasterKey> {
    let flags = conf.flags();
    let same = flags.content_cipher() == asked.content
        && flags.name_scheme() == asked.names
        && conf.long_name_max() == asked.long_name_max.unwrap_or(u8::MAX);
    if !same {
        return Err(Error::Resume {
            path: destination.to_path_buf(),
            what: format!("it was begun with other options (its flags are {flags}); use the same ones"),
        });
    }
    conf.unlock(key.password()?, options.scrypt_memory)
        .map_err(Error::vault(destination))
}
