//! Reads a license.

use super::{License, SERIAL_MAX, TdxTerms, Terms};
use crate::canonical::Reader;
use crate::document::Document;
use crate::error::Result;
use crate::issuer::read_issuer_key;
use crate::machine::Measurement;
use crate::manifest::ContentId;
use crate::time::parse_utc;
use crate::wrap;

pub(super) const DOCUMENT: Document = Document {
    name: "license",
    format: "sam-license",
    version: 1,
    known: &KNOWN,
    max_len: License::MAX_LEN,
    // It is short.
    kept_max: usize::MAX,
};

/// All members of the document.
const KNOWN: [&str; 18] = [
    "company",
    "content_id",
    "critical",
    "expires",
    "extras",
    "format",
    "issuer_key",
    "kek_commitment",
    "license_id",
    "machines",
    "manifest_sha256",
    "scrypt",
    "serial",
    "signature",
    "tdx",
    "valid_from",
    "version",
    "wrapped_key",
];

pub(super) fn license(content: &[u8]) -> Result<License> {
    let mut terms = Terms::new("");
    let (mut license_id, mut serial) = (None, None);
    let (mut content_id, mut manifest_digest, mut issuer) = (None, None, None);
    let (mut scrypt, mut kek_commitment, mut wrapped_key, mut signature) = (None, None, None, None);
    let (text, kept) = DOCUMENT.read(content, |reader, name| {
        match name {
            "license_id" => license_id = Some(reader.string()?.into_owned()),
            "serial" => serial = Some(reader.unsigned(SERIAL_MAX)?),
            "company" => terms.company = Some(reader.string()?.into_owned()),
            "valid_from" => terms.valid_from = Some(time(reader)?),
            "expires" => terms.expires = Some(time(reader)?),
            "machines" => terms.machines = machines(reader)?,
            "tdx" => terms.tdx = Some(tdx(reader)?),
            "extras" => terms.extras = Some(reader.string()?.into_owned()),
            "content_id" => content_id = Some(ContentId::from_bytes(reader.hex()?)),
            "manifest_sha256" => manifest_digest = Some(reader.hex()?),
            "issuer_key" => issuer = Some(read_issuer_key(reader)?),
            "scrypt" => scrypt = Some(wrap::read_scrypt(reader)?),
            "kek_commitment" => kek_commitment = Some(reader.hex()?),
            "wrapped_key" => wrapped_key = Some(reader.base64_array()?),
            "signature" => signature = Some(reader.base64_array()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let missing = |name| DOCUMENT.missing(name);
    let scrypt = scrypt.ok_or_else(|| missing("scrypt"))?;
    terms.license_id = license_id.ok_or_else(|| missing("license_id"))?;
    terms.serial = serial.ok_or_else(|| missing("serial"))?;
    terms.scrypt_log_n = scrypt.params.log_n;
    terms.check()?;
    Ok(License {
        text: text.to_owned(),
        terms,
        content_id: content_id.ok_or_else(|| missing("content_id"))?,
        manifest_digest: manifest_digest.ok_or_else(|| missing("manifest_sha256"))?,
        issuer: issuer.ok_or_else(|| missing("issuer_key"))?,
        scrypt,
        kek_commitment: kek_commitment.ok_or_else(|| missing("kek_commitment"))?,
        wrapped_key: wrapped_key.ok_or_else(|| missing("wrapped_key"))?,
        signature: signature.ok_or_else(|| missing("signature"))?,
        kept,
    })
}

fn time(reader: &mut Reader<'_>) -> Result<u64> {
    let start = reader.here();
    let text = reader.string()?;
    parse_utc(&text).ok_or_else(|| reader.error_at(start, "expected a time such as \"2026-01-31T12:00:00Z\""))
}

fn machines(reader: &mut Reader<'_>) -> Result<Vec<String>> {
    let start = reader.here();
    let mut machines = Vec::new();
    reader.array(|reader| {
        machines.push(reader.string()?.into_owned());
        Ok(())
    })?;
    if machines.is_empty() {
        // Left out where the license is for any machine.
        return Err(reader.error_at(start, "expected at least one machine"));
    }
    Ok(machines)
}

/// What this version does not know is refused here: to ignore a condition would be to loosen it.
fn tdx(reader: &mut Reader<'_>) -> Result<TdxTerms> {
    let start = reader.here();
    let mut tdx = TdxTerms::default();
    let mut required = None;
    reader.object(|reader, name| {
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &mut tdx.rtmr;
        match name {
            "mrtd" => tdx.mrtd = measurements(reader)?,
            "rtmr0" => *rtmr0 = measurements(reader)?,
            "rtmr1" => *rtmr1 = measurements(reader)?,
            "rtmr2" => *rtmr2 = measurements(reader)?,
            "rtmr3" => *rtmr3 = measurements(reader)?,
            "required" => required = Some(reader.boolean()?),
            _ => return Err(reader.unknown(name)),
        }
        Ok(())
    })?;
    tdx.required = required.ok_or_else(|| reader.missing(start, "required"))?;
    Ok(tdx)
}

fn measurements(reader: &mut Reader<'_>) -> Result<Vec<Measurement>> {
    let start = reader.here();
    let mut values = Vec::new();
    reader.array(|reader| {
        values.push(reader.hex()?);
        Ok(())
    })?;
    if values.is_empty() {
        return Err(reader.error_at(start, "expected at least one measurement"));
    }
    Ok(values)
}
