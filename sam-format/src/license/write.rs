//! Writes a license.

use super::read::DOCUMENT;
use super::{LABEL_AAD, LABEL_SIGNATURE, License, Licensed, TdxTerms, Terms};
use crate::canonical::{array, object, string};
use crate::encoding::{base64, hex};
use crate::error::{Error, Result};
use crate::issuer::IssuerKey;
use crate::time::format_time;
use crate::wrap::{Kek, Scrypt, WRAPPED_LEN};

/// Wraps the content key and signs. The terms are within their bounds.
pub(super) fn license(
    kek: &Kek,
    scrypt: &Scrypt,
    content: &Licensed<'_>,
    terms: &Terms,
    issuer: &IssuerKey,
) -> Result<License> {
    let members = bound(kek, scrypt, content, terms, issuer);
    let aad = [LABEL_AAD, &object(members.clone())].concat();
    let wrapped = kek.wrap_key(aad.as_bytes(), content.key)?;
    finish(members, &wrapped, issuer)
}

/// The members that the wrapped key is bound to.
pub(super) fn bound(
    kek: &Kek,
    scrypt: &Scrypt,
    content: &Licensed<'_>,
    terms: &Terms,
    issuer: &IssuerKey,
) -> Vec<(&'static str, String)> {
    let mut members = members(terms);
    members.extend([
        ("format", string(DOCUMENT.format)),
        ("version", DOCUMENT.version.to_string()),
        ("content_id", string(&content.content_id.to_string())),
        ("manifest_sha256", string(&hex(&content.manifest_digest))),
        ("issuer_key", string(&issuer.public().to_string())),
        ("scrypt", scrypt.to_json()),
        ("kek_commitment", string(&hex(kek.commitment()))),
    ]);
    members
}

/// Adds the wrapped key to the members that it is bound to, and signs.
pub(super) fn finish(
    mut members: Vec<(&'static str, String)>,
    wrapped: &[u8; WRAPPED_LEN],
    issuer: &IssuerKey,
) -> Result<License> {
    members.push(("wrapped_key", string(&base64(wrapped))));
    let signed = object(members.clone());
    let signature = issuer.sign(&[LABEL_SIGNATURE.as_bytes(), signed.as_bytes()]);
    members.push(("signature", string(&base64(&signature))));
    let text = object(members);
    if text.len() > License::MAX_LEN {
        return Err(Error::LicenseLength {
            len: text.len(),
            max: License::MAX_LEN,
        });
    }
    License::parse(text.as_bytes())
}

fn members(terms: &Terms) -> Vec<(&'static str, String)> {
    let mut members = vec![
        ("license_id", string(&terms.license_id)),
        ("serial", terms.serial.to_string()),
    ];
    let time = |time: Option<u64>| time.map(|time| string(&format_time(time)));
    let optional = [
        ("company", terms.company.as_deref().map(string)),
        ("valid_from", time(terms.valid_from)),
        ("expires", time(terms.expires)),
        ("tdx", terms.tdx.as_ref().map(tdx)),
        ("extras", terms.extras.as_deref().map(string)),
    ];
    members.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    if !terms.machines.is_empty() {
        let machines = terms.machines.iter().map(|machine| string(machine));
        members.push(("machines", array(machines)));
    }
    members
}

fn tdx(terms: &TdxTerms) -> String {
    let mut members = vec![("required", terms.required.to_string())];
    for (register, values) in terms.registers() {
        if !values.is_empty() {
            members.push((register, array(values.iter().map(|value| string(&hex(value))))));
        }
    }
    object(members)
}
