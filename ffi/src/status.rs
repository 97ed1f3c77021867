//! What functions return: numbers in blocks, one for each crate below. None is ever given another meaning.

use std::ffi::{CStr, c_char};
use std::ptr;

/// Success.
pub const MODELSEAL_OK: i32 = 0;

/// A fault in the library. Nothing is known of what was asked for, and the handles can still be freed.
pub const MODELSEAL_PANIC: i32 = 1;
/// A pointer is NULL that must not be.
pub const MODELSEAL_NULL_POINTER: i32 = 2;
/// A handle is none, was freed, or is one of something else.
pub const MODELSEAL_HANDLE: i32 = 3;
/// A text is not UTF-8, or a path has a NUL in it.
pub const MODELSEAL_TEXT: i32 = 4;
/// A length is out of bounds.
pub const MODELSEAL_LENGTH: i32 = 5;
/// An argument is not one of those that there are, or not in its bounds.
pub const MODELSEAL_ARGUMENT: i32 = 6;
/// The library is another one than the header that the program was compiled with.
pub const MODELSEAL_VERSION: i32 = 7;
/// The library was built without what is asked for.
pub const MODELSEAL_UNSUPPORTED: i32 = 8;
/// Something that was verified is damaged. The error is the first that was found.
pub const MODELSEAL_DAMAGED: i32 = 9;

/// Stored bytes do not verify: they were altered, or the key is another one.
pub const MODELSEAL_AUTHENTICATION: i32 = 100;
/// A range is not within its file.
pub const MODELSEAL_RANGE: i32 = 101;
/// A file changed while it was read.
pub const MODELSEAL_CHANGED: i32 = 102;
/// A callback called it off.
pub const MODELSEAL_CANCELLED: i32 = 103;
/// Reading or writing failed; `modelseal_error_os` says why.
pub const MODELSEAL_IO: i32 = 104;
/// There is no such file.
pub const MODELSEAL_NOT_FOUND: i32 = 105;
/// Memory is short.
pub const MODELSEAL_MEMORY: i32 = 106;
/// scrypt parameters take more than `MODELSEAL_SET_SCRYPT_MEMORY` allows.
pub const MODELSEAL_SCRYPT_LIMIT: i32 = 107;
/// The system has no random bytes or threads to give, or the ciphers failed.
pub const MODELSEAL_SYSTEM: i32 = 108;

/// A vault's `gocryptfs.conf` is not valid, or of a kind that is not supported.
pub const MODELSEAL_VAULT_CONF: i32 = 200;
/// The password or the master key is another one than the vault's.
pub const MODELSEAL_VAULT_WRONG_KEY: i32 = 201;
/// A key that no vault has: empty, too long, or no master key.
pub const MODELSEAL_VAULT_KEY: i32 = 202;
/// Names of a vault are damaged, or cannot be stored in one.
pub const MODELSEAL_VAULT_NAME: i32 = 203;
/// Content of a vault is damaged.
pub const MODELSEAL_VAULT_CONTENT: i32 = 204;

/// A document of a package is not valid, or of another version.
pub const MODELSEAL_PACKAGE_DOCUMENT: i32 = 300;
/// A package has not the files that its manifest lists.
pub const MODELSEAL_PACKAGE_FILES: i32 = 301;
/// Content of a package is damaged, or not what its issuer signed.
pub const MODELSEAL_PACKAGE_CONTENT: i32 = 302;
/// A package's parts do not belong together.
pub const MODELSEAL_PACKAGE_PARTS: i32 = 303;
/// The key is another one than the license was issued for.
pub const MODELSEAL_PACKAGE_WRONG_KEY: i32 = 304;
/// A key that no package has: too short or too long.
pub const MODELSEAL_PACKAGE_KEY: i32 = 305;
/// The signature of a license or of a manifest is not its issuer's.
pub const MODELSEAL_SIGNATURE: i32 = 310;
/// A license or a manifest was issued by somebody who is not trusted.
pub const MODELSEAL_ISSUER: i32 = 311;
/// A license or a manifest is older than is allowed.
pub const MODELSEAL_SERIAL: i32 = 312;
/// A license is not valid yet, or not any more.
pub const MODELSEAL_LICENSE_WINDOW: i32 = 313;
/// A license is for other machines, or this one has no identity.
pub const MODELSEAL_LICENSE_MACHINE: i32 = 314;
/// A license is for other TDs, or there are no measurements of this one.
pub const MODELSEAL_LICENSE_TDX: i32 = 315;
/// There is no license, not that one, or more than one.
pub const MODELSEAL_LICENSE_CHOICE: i32 = 316;
/// A license cannot be issued like that.
pub const MODELSEAL_LICENSE_TERMS: i32 = 317;
/// Something that is not the key of an issuer.
pub const MODELSEAL_ISSUER_KEY: i32 = 318;

/// This machine gives no evidence of what it is.
pub const MODELSEAL_EVIDENCE: i32 = 400;
/// A setting for the broker cannot be used.
pub const MODELSEAL_BROKER_SETTING: i32 = 401;
/// Nothing answers at the broker's address.
pub const MODELSEAL_BROKER_UNREACHABLE: i32 = 402;
/// There is no TLS connection to the broker, or none to who should be there.
pub const MODELSEAL_BROKER_TLS: i32 = 403;
/// There was no answer in time.
pub const MODELSEAL_BROKER_DEADLINE: i32 = 404;
/// What answers is no key broker, or one of another version.
pub const MODELSEAL_BROKER_PROTOCOL: i32 = 405;
/// The broker does not take the evidence.
pub const MODELSEAL_BROKER_REFUSED: i32 = 406;
/// The broker's policy does not let this machine have the resource.
pub const MODELSEAL_BROKER_POLICY: i32 = 407;
/// The broker has no such resource.
pub const MODELSEAL_BROKER_RESOURCE: i32 = 408;
/// The broker, or a service of this guest, failed in another way.
pub const MODELSEAL_BROKER_FAILED: i32 = 409;

/// A key reference does not parse.
pub const MODELSEAL_KEY_REFERENCE: i32 = 500;
/// A key reference leads to no key.
pub const MODELSEAL_KEY: i32 = 501;
/// What key references need is missing or wrong.
pub const MODELSEAL_KEY_SOURCE: i32 = 502;
/// A kind of key that does not go with what is asked for.
pub const MODELSEAL_KEY_KIND: i32 = 503;
/// A location, or a path in a model, that cannot be one.
pub const MODELSEAL_LOCATION: i32 = 504;
/// What lies there is no sealed model.
pub const MODELSEAL_NOT_SEALED: i32 = 505;
/// What lies there was never completed.
pub const MODELSEAL_INCOMPLETE: i32 = 506;
/// The model's format does not have what is asked for.
pub const MODELSEAL_FORMAT: i32 = 507;
/// A vault is not as its signed manifest says.
pub const MODELSEAL_MANIFEST: i32 = 508;
/// Something cannot be sealed.
pub const MODELSEAL_SOURCE: i32 = 509;
/// A destination is not empty, or cannot be gone on with.
pub const MODELSEAL_DESTINATION: i32 = 510;
/// Another run writes to the destination.
pub const MODELSEAL_BUSY: i32 = 511;
/// The tensors of a model are not as they must be, or not what was asked for.
pub const MODELSEAL_TENSORS: i32 = 512;
/// Something else went wrong; the message says what.
pub const MODELSEAL_OTHER: i32 = 599;

macro_rules! names {
    ($($status:ident)*) => {
        /// The name of a status, with its NUL.
        fn name(status: i32) -> Option<&'static CStr> {
            let name = match status {
                $($status => concat!(stringify!($status), "\0"),)*
                _ => return None,
            };
            CStr::from_bytes_with_nul(name.as_bytes()).ok()
        }
    };
}

names! {
    MODELSEAL_OK MODELSEAL_PANIC MODELSEAL_NULL_POINTER MODELSEAL_HANDLE MODELSEAL_TEXT MODELSEAL_LENGTH
    MODELSEAL_ARGUMENT MODELSEAL_VERSION MODELSEAL_UNSUPPORTED MODELSEAL_DAMAGED MODELSEAL_AUTHENTICATION
    MODELSEAL_RANGE MODELSEAL_CHANGED MODELSEAL_CANCELLED MODELSEAL_IO MODELSEAL_NOT_FOUND MODELSEAL_MEMORY
    MODELSEAL_SCRYPT_LIMIT MODELSEAL_SYSTEM MODELSEAL_VAULT_CONF MODELSEAL_VAULT_WRONG_KEY MODELSEAL_VAULT_KEY
    MODELSEAL_VAULT_NAME MODELSEAL_VAULT_CONTENT MODELSEAL_PACKAGE_DOCUMENT MODELSEAL_PACKAGE_FILES
    MODELSEAL_PACKAGE_CONTENT MODELSEAL_PACKAGE_PARTS MODELSEAL_PACKAGE_WRONG_KEY MODELSEAL_PACKAGE_KEY
    MODELSEAL_SIGNATURE MODELSEAL_ISSUER MODELSEAL_SERIAL MODELSEAL_LICENSE_WINDOW MODELSEAL_LICENSE_MACHINE
    MODELSEAL_LICENSE_TDX MODELSEAL_LICENSE_CHOICE MODELSEAL_LICENSE_TERMS MODELSEAL_ISSUER_KEY MODELSEAL_EVIDENCE
    MODELSEAL_BROKER_SETTING MODELSEAL_BROKER_UNREACHABLE MODELSEAL_BROKER_TLS MODELSEAL_BROKER_DEADLINE
    MODELSEAL_BROKER_PROTOCOL MODELSEAL_BROKER_REFUSED MODELSEAL_BROKER_POLICY MODELSEAL_BROKER_RESOURCE
    MODELSEAL_BROKER_FAILED MODELSEAL_KEY_REFERENCE MODELSEAL_KEY MODELSEAL_KEY_SOURCE MODELSEAL_KEY_KIND
    MODELSEAL_LOCATION MODELSEAL_NOT_SEALED MODELSEAL_INCOMPLETE MODELSEAL_FORMAT MODELSEAL_MANIFEST
    MODELSEAL_SOURCE MODELSEAL_DESTINATION MODELSEAL_BUSY MODELSEAL_TENSORS MODELSEAL_OTHER
}

/// The name of a status, such as "MODELSEAL_NOT_FOUND", as text that is always there; NULL where there is none with
/// this number.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
pub extern "C" fn modelseal_status_name(status: i32) -> *const c_char {
    name(status).map_or(ptr::null(), CStr::as_ptr)
}
