//! Keys, and whatever else a broker keeps.
#![allow(unsafe_code)]

use std::ffi::c_char;

use modelseal::KeyRef;
use modelseal::gocryptfs::MasterKey;
use zeroize::Zeroizing;

use crate::boundary::{Out, boundary, bytes, free, text};
use crate::buffer::Buffer;
use crate::error::{Error, Failure};
use crate::handle::{self, Object};
use crate::settings::{self, Settings};
use crate::{sigpipe, status};

/// Bytes that are a password: what scrypt stretches.
pub const MODELSEAL_PASSWORD: i32 = 0;
/// Bytes that are a binary key: a password as well, or the secret of a FIDO2 token.
pub const MODELSEAL_BINARY_KEY: i32 = 1;
/// 32 bytes that are the master key of a vault.
pub const MODELSEAL_MASTER_KEY: i32 = 2;

/// A key. Any number of models can be opened and sealed with it, from any number of threads; it is wiped when it is freed.
#[derive(Debug)]
pub struct Key(modelseal::Key);

impl Object for Key {
    const NAME: &'static str = "key";
}

impl Key {
    pub(crate) fn duplicate(&self) -> modelseal::Key {
        self.0.duplicate()
    }

    pub(crate) const fn inner(&self) -> &modelseal::Key {
        &self.0
    }
}

/// Fetches the key that a reference leads to: `file:PATH`, `env:NAME`, `cmd:PROGRAM`, `prompt:`,
/// `kbs:///REPOSITORY/TYPE/TAG` or `cdh:///REPOSITORY/TYPE/TAG`, with `hex:`, `base64:` or `masterkey:` in front where
/// needed. `settings`, which may be NULL, say which broker. May take as long as `MODELSEAL_SET_KEY_TIMEOUT` says.
///
/// # Safety
/// `reference` must be `len` bytes, or end with a NUL where `len` is `MODELSEAL_NUL_TERMINATED`; `key` and `error` must be
/// valid for writing; `error` may be NULL. For `env:`, no other thread may change the environment meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_key_from_reference(
    settings: *const Settings,
    reference: *const c_char,
    len: usize,
    key: *mut *mut Key,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (reference, out) = unsafe { (text(reference, len, "the key reference")?, Out::new(key, "key")?) };
        let reference: KeyRef = reference.parse()?;
        let sources = settings::with(settings, Settings::sources)?;
        let resolve = || reference.resolve(&sources, "Key", false);
        let key = if runs_program(&reference) {
            sigpipe::released(resolve)
        } else {
            resolve()
        };
        out.hand_over(Key(key?))
    })
}

/// Makes a key of `len` bytes, which are copied; `kind` is `MODELSEAL_PASSWORD`, `MODELSEAL_BINARY_KEY` or
/// `MODELSEAL_MASTER_KEY`. The caller's own copy is best overwritten by `modelseal_wipe`.
///
/// # Safety
/// `data` must be `len` bytes; `key` and `error` must be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_key_from_bytes(
    data: *const u8,
    len: usize,
    kind: i32,
    key: *mut *mut Key,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (data, out) = unsafe { (bytes(data, len, "the key")?, Out::new(key, "key")?) };
        if data.is_empty() {
            return Err(Failure::argument("the key is empty"));
        }
        let key = match kind {
            MODELSEAL_PASSWORD => modelseal::Key::from_password(copied(data)?),
            MODELSEAL_BINARY_KEY => modelseal::Key::from_binary(copied(data)?),
            MODELSEAL_MASTER_KEY => {
                let data = data.try_into().map_err(|_| {
                    let text = format!("a master key is 32 bytes long, and not {len}");
                    Failure::new(status::MODELSEAL_LENGTH, text)
                })?;
                modelseal::Key::from_master_key(MasterKey::from_bytes(data))
            }
            _ => return Err(Failure::argument(format!("there is no kind of key {kind}"))),
        };
        out.hand_over(Key(key))
    })
}

/// Wipes a key and frees it. NULL is nothing.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_key_free(key: *mut Key) {
    free(key);
}

/// Fetches the whole of a resource that a key broker (`kbs:///...`) or the guest's own service (`cdh:///...`) hands out,
/// once it has judged this machine. `settings`, which may be NULL, say which.
///
/// # Safety
/// `reference` must be `len` bytes, or end with a NUL where `len` is `MODELSEAL_NUL_TERMINATED`; `resource` and `error`
/// must be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_fetch(
    settings: *const Settings,
    reference: *const c_char,
    len: usize,
    resource: *mut *mut Buffer,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (reference, out) = unsafe {
            (
                text(reference, len, "the reference")?,
                Out::new(resource, "resource")?,
            )
        };
        let reference: KeyRef = reference.parse()?;
        let sources = settings::with(settings, Settings::sources)?;
        out.hand_over(Buffer::new(sources.fetch(&reference)?))
    })
}

/// Whether the reference is to what a program prints.
fn runs_program(reference: &KeyRef) -> bool {
    match reference {
        KeyRef::Cmd(_) => true,
        KeyRef::Hex(inner) | KeyRef::Base64(inner) | KeyRef::MasterKey(inner) => runs_program(inner),
        _ => false,
    }
}

/// A key longer than this is no key, in bytes.
const KEY_MAX: usize = 64 << 10;

fn copied(data: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if data.len() > KEY_MAX {
        let text = format!("the key is longer than {KEY_MAX} bytes");
        return Err(Failure::new(status::MODELSEAL_LENGTH, text));
    }
    Ok(Zeroizing::new(data.to_vec()))
}

/// Calls `work` with the key of a handle.
pub(crate) fn with<R>(key: *const Key, work: impl FnOnce(&Key) -> Result<R, Failure>) -> Result<R, Failure> {
    work(&*handle::get(key)?)
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::boundary::MODELSEAL_NUL_TERMINATED;

    /// The shell ends by the signal before it prints anything.
    #[test]
    fn programs_have_sigpipe() {
        let reference = c"hex:cmd:kill -PIPE $$; echo ab";
        let mut key = ptr::null_mut();
        // SAFETY: a text that lives, and a place of this function.
        let status = unsafe {
            let (text, len) = (reference.as_ptr(), MODELSEAL_NUL_TERMINATED);
            modelseal_key_from_reference(ptr::null(), text, len, &mut key, ptr::null_mut())
        };
        assert_eq!(status, status::MODELSEAL_KEY);
    }
}
