//! Licenses: who may open a package (FORMAT.md, section 6).

use std::time::{SystemTime, UNIX_EPOCH};

use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;

use crate::canonical::Member;
use crate::error::{Error, Result};
use crate::issuer::{IssuerKey, IssuerPublicKey, SIGNATURE_LEN};
use crate::keys::{ContentKey, KEY_LEN};
use crate::machine::{self, MeasurementSource};
use crate::manifest::ContentId;
use crate::time::format_time;
use crate::wrap::{Kek, Scrypt, WRAPPED_LEN};

mod config;
mod read;
mod terms;
mod write;

pub use config::LicenseConfig;
pub use terms::{
    COMPANY_MAX, COMPANY_MIN, EXTRAS_MAX, LICENSE_ID_MAX, LICENSE_ID_MIN, MACHINES_MAX, MEASUREMENTS_MAX,
    SERIAL_MAX, TdxTerms, Terms, is_license_id,
};

/// Domain of the AAD under which the content key is wrapped.
const LABEL_AAD: &str = "sam/1 license";
/// Domain of what the issuer signs.
const LABEL_SIGNATURE: &str = "sam/1 license signature";

/// A license. One that exists is within the bounds of the format; its signature is checked when it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct License {
    /// The document, in canonical form.
    text: String,
    terms: Terms,
    content_id: ContentId,
    manifest_digest: [u8; 32],
    issuer: IssuerPublicKey,
    scrypt: Scrypt,
    kek_commitment: [u8; KEY_LEN],
    wrapped_key: [u8; WRAPPED_LEN],
    signature: [u8; SIGNATURE_LEN],
    /// Members that this version does not know.
    kept: Vec<Member>,
}

/// What a license is for: the content of one package.
#[derive(Clone, Copy, Debug)]
pub struct Licensed<'a> {
    /// The content key.
    pub key: &'a ContentKey,
    /// The identity of the content, as the manifest gives it.
    pub content_id: ContentId,
    /// [`Manifest::digest`](crate::Manifest::digest) of `manifest.json`.
    pub manifest_digest: [u8; 32],
}

/// What a license is checked against when it is used.
#[derive(Clone, Debug)]
pub struct Checks {
    /// The time in seconds since 1970-01-01 UTC; none for that of the system's clock, which a host can set.
    pub now: Option<u64>,
    /// The identity of the machine; none for that of this one, which a host can set.
    pub machine: Option<String>,
    /// The measurements of the TD.
    pub measurements: MeasurementSource,
    /// The issuers that are trusted. With none, the signature says nothing about who issued the license.
    pub issuers: Vec<IssuerPublicKey>,
    /// The least serial. With none, an older license with an older package is accepted.
    pub min_serial: Option<u64>,
    /// Memory that the license's scrypt parameters may ask for, in bytes: 1 GiB unless set.
    pub scrypt_memory: u64,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            now: None,
            machine: None,
            measurements: MeasurementSource::None,
            issuers: Vec::new(),
            min_serial: None,
            scrypt_memory: DEFAULT_SCRYPT_MEMORY,
        }
    }
}

impl License {
    /// The longest license that is read, in bytes.
    pub const MAX_LEN: usize = 64 << 10;

    /// Reads a license. Whether its issuer signed it shows when it is used.
    ///
    /// # Errors
    /// [`Error::Document`] where it is not canonical JSON or a member is not as it must be, [`Error::LicenseField`]
    /// where one is out of its bounds.
    pub fn parse(content: &[u8]) -> Result<Self> {
        read::license(content)
    }

    /// A new license for `content` under `key`, of 4 to 128 bytes.
    ///
    /// # Errors
    /// [`Error::KeyLength`]; [`Error::LicenseField`] and [`Error::ScryptCost`] where a term is out of its bounds,
    /// [`Error::LicenseLength`] where all together are too long, and [`Error::Cipher`].
    pub fn issue(key: &[u8], content: &Licensed<'_>, terms: &Terms, issuer: &IssuerKey) -> Result<Self> {
        terms.check()?;
        let scrypt = Scrypt::generate(terms.scrypt_log_n)?;
        // The issuer chose the cost.
        let kek = Kek::derive(key, &scrypt, u64::MAX)?;
        write::license(&kek, &scrypt, content, terms, issuer)
    }

    /// Checks all that does not need the key, in this order: signature and issuer, serial, window, machine,
    /// measurements.
    ///
    /// # Errors
    /// One of the `Error::License*`.
    pub fn check(&self, checks: &Checks) -> Result<()> {
        self.check_signature(&checks.issuers)?;
        if let Some(min) = checks.min_serial
            && self.terms.serial < min
        {
            return Err(Error::Serial {
                document: read::DOCUMENT.name,
                serial: self.terms.serial,
                min,
            });
        }
        self.check_window(checks.now.unwrap_or_else(system_time))?;
        self.check_machine(checks.machine.as_deref())?;
        match &self.terms.tdx {
            Some(tdx) => tdx.check(checks.measurements.get()?.as_ref()),
            None => Ok(()),
        }
    }

    /// Checks that the license's issuer signed it, and is one of `issuers` where there are any.
    ///
    /// # Errors
    /// [`Error::Signature`] and [`Error::Issuer`].
    pub fn check_signature(&self, issuers: &[IssuerPublicKey]) -> Result<()> {
        let signed = self.without(&["signature"])?;
        let signed = [LABEL_SIGNATURE.as_bytes(), signed.as_bytes()];
        if !self.issuer.verifies(&signed, &self.signature) {
            return Err(Error::Signature {
                document: read::DOCUMENT.name,
            });
        }
        if issuers.is_empty() || issuers.contains(&self.issuer) {
            Ok(())
        } else {
            Err(Error::Issuer {
                document: read::DOCUMENT.name,
                issuer: self.issuer,
            })
        }
    }

    /// Checks the license, and unwraps the content key.
    ///
    /// # Errors
    /// As [`License::check`]; [`Error::KeyLength`] and [`Error::WrongKey`]; [`Error::Cipher`] where scrypt would take
    /// more memory than it may.
    pub fn unlock(&self, key: &[u8], checks: &Checks) -> Result<ContentKey> {
        self.check(checks)?;
        self.unwrap_key(key, checks.scrypt_memory)
    }

    /// The document.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the issuer chose.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The identity of the content that it is for.
    #[must_use]
    pub const fn content_id(&self) -> ContentId {
        self.content_id
    }

    /// The digest of the `manifest.json` that it is for.
    #[must_use]
    pub const fn manifest_digest(&self) -> &[u8; 32] {
        &self.manifest_digest
    }

    /// Who issued it, if the signature verifies.
    #[must_use]
    pub const fn issuer(&self) -> IssuerPublicKey {
        self.issuer
    }

    /// The names of members that this version does not know.
    pub fn unknown_members(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(|member| member.name.as_str())
    }

    fn check_window(&self, now: u64) -> Result<()> {
        match (self.terms.valid_from, self.terms.expires) {
            (Some(valid_from), _) if now < valid_from => Err(Error::LicenseNotYetValid {
                valid_from: format_time(valid_from),
                now: format_time(now),
            }),
            (_, Some(expires)) if now >= expires => Err(Error::LicenseExpired {
                expires: format_time(expires),
                now: format_time(now),
            }),
            _ => Ok(()),
        }
    }

    fn check_machine(&self, given: Option<&str>) -> Result<()> {
        if self.terms.machines.is_empty() {
            return Ok(());
        }
        let machine = given.map_or_else(machine::this_machine, |machine| Ok(machine.to_owned()))?;
        if self.terms.machines.contains(&machine) {
            Ok(())
        } else {
            Err(Error::LicenseMachine {
                machine,
                others: self.terms.machines.len(),
            })
        }
    }

    pub(crate) fn unwrap_key(&self, key: &[u8], max_memory: u64) -> Result<ContentKey> {
        let kek = Kek::derive(key, &self.scrypt, max_memory)?;
        if !kek.is_committed_by(&self.kek_commitment) {
            return Err(Error::WrongKey);
        }
        kek.unwrap_key(&self.aad()?, &self.wrapped_key)
    }

    /// What the wrapped key is bound to.
    fn aad(&self) -> Result<Vec<u8>> {
        let bound = self.without(&["signature", "wrapped_key"])?;
        Ok([LABEL_AAD.as_bytes(), bound.as_bytes()].concat())
    }

    fn without(&self, names: &[&str]) -> Result<String> {
        crate::canonical::without(read::DOCUMENT.name, &self.text, names)
    }
}

/// Seconds since 1970-01-01 UTC.
fn system_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrap::tests::collision;

    /// A license signed by its issuer whose wrapped key opens under two keys: each would give another model.
    #[test]
    fn the_second_of_two_keys_is_refused() {
        let issuer = IssuerKey::generate().expect("a key");
        let content = Licensed {
            key: &ContentKey::generate().expect("a key"),
            content_id: ContentId::from_bytes([1; 16]),
            manifest_digest: [2; 32],
        };
        let terms = Terms {
            scrypt_log_n: 14,
            ..Terms::new("LD_Demo_0001")
        };
        let scrypt = Scrypt::generate(terms.scrypt_log_n).expect("a salt");
        let kek = |key| Kek::derive(key, &scrypt, u64::MAX).expect("a key");
        let (first, second) = (kek(b"first"), kek(b"second"));
        let members = write::bound(&first, &scrypt, &content, &terms, &issuer);
        let aad = [LABEL_AAD, &crate::canonical::object(members.clone())].concat();
        let wrapped = collision(&first, &second, aad.as_bytes());
        let license = write::finish(members, &wrapped, &issuer).expect("a license");

        let checks = Checks::default();
        assert!(license.unlock(b"first", &checks).is_ok());
        // Without the commitment this one would open as well.
        assert!(second.unwrap_key(aad.as_bytes(), &license.wrapped_key).is_ok());
        let refused = license.unlock(b"second", &checks);
        assert!(matches!(refused, Err(Error::WrongKey)), "{refused:?}");
    }
}
