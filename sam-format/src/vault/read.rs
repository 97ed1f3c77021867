//! Reads the manifest of a vault.

use std::ops::Range;

use super::{StoredContent, StoredEntry, StoredKind, VaultManifest};
use crate::canonical::{MAX_INTEGER, Reader};
use crate::document::Document;
use crate::error::Result;
use crate::issuer::{SIGNATURE_LEN, read_issuer_key};
use crate::manifest::read_bytes;

pub(super) const DOCUMENT: Document = Document {
    name: "vault manifest",
    format: "modelseal-vault-manifest",
    version: 1,
    known: &KNOWN,
    max_len: VaultManifest::MAX_LEN,
    kept_max: 0,
};

/// All members, of the document and of its entries.
const KNOWN: [&str; 14] = [
    "critical",
    "digest",
    "entries",
    "file_id",
    "format",
    "holes",
    "issuer_key",
    "kind",
    "length",
    "path",
    "path_base64",
    "serial",
    "signature",
    "version",
];

/// The manifest, the document, and its signature. Neither that nor the entries together are checked.
pub(super) fn manifest(content: &[u8]) -> Result<(VaultManifest, &str, [u8; SIGNATURE_LEN])> {
    let (mut serial, mut issuer, mut entries, mut signature) = (None, None, None, None);
    let (text, _) = DOCUMENT.read(content, |reader, name| {
        match name {
            "serial" => serial = Some(reader.unsigned(MAX_INTEGER)?),
            "issuer_key" => issuer = Some(read_issuer_key(reader)?),
            "signature" => signature = Some(reader.base64_array()?),
            "entries" => entries = Some(reader.entries(entry)?),
            _ => drop(reader.any()?),
        }
        Ok(true)
    })?;
    let missing = |name| DOCUMENT.missing(name);
    let manifest = VaultManifest {
        serial: serial.ok_or_else(|| missing("serial"))?,
        issuer: issuer.ok_or_else(|| missing("issuer_key"))?,
        entries: entries.ok_or_else(|| missing("entries"))?,
    };
    Ok((manifest, text, signature.ok_or_else(|| missing("signature"))?))
}

fn entry(reader: &mut Reader<'_>) -> Result<StoredEntry> {
    let start = reader.here();
    let (mut path, mut kind, mut length, mut digest) = (None, None, None, None);
    let (mut file_id, mut holes) = (None, None);
    reader.object(|reader, name| {
        match name {
            "path" | "path_base64" => read_bytes(reader, name == "path_base64", &mut path)?,
            "kind" => kind = Some(reader.string()?.into_owned()),
            "length" => length = Some(reader.unsigned(MAX_INTEGER)?),
            "digest" => digest = Some(reader.hex()?),
            "file_id" => file_id = Some(reader.hex()?),
            "holes" => holes = Some(ranges(reader)?),
            _ => drop(reader.any()?),
        }
        Ok(())
    })?;
    let missing = |name| reader.missing(start, name);
    let other = |there| reader.refuse_other(start, there);
    let kind = match kind.as_deref() {
        Some("dir") => {
            other(length.is_some() || digest.is_some() || file_id.is_some() || holes.is_some())?;
            StoredKind::Dir
        }
        Some("symlink") => {
            other(length.is_some() || file_id.is_some() || holes.is_some())?;
            StoredKind::Symlink {
                digest: digest.ok_or_else(|| missing("digest"))?,
            }
        }
        Some("file") => {
            other(file_id.is_none() && holes.is_some())?;
            let content = |file_id| StoredContent {
                file_id,
                holes: holes.unwrap_or_default().into(),
            };
            StoredKind::File {
                length: length.ok_or_else(|| missing("length"))?,
                digest: digest.ok_or_else(|| missing("digest"))?,
                content: file_id.map(content),
            }
        }
        kind => return Err(reader.no_kind(start, kind)),
    };
    Ok(StoredEntry {
        path: path.ok_or_else(|| missing("path"))?,
        kind,
    })
}

/// Reads ranges of blocks: where each starts, and where it has ended.
fn ranges(reader: &mut Reader<'_>) -> Result<Vec<Range<u64>>> {
    let start = reader.here();
    let mut ranges = Vec::new();
    reader.array(|reader| {
        let start = reader.here();
        let (mut range, mut count) = (0..0, 0);
        reader.array(|reader| {
            match count {
                0 => range.start = reader.unsigned(MAX_INTEGER)?,
                1 => range.end = reader.unsigned(MAX_INTEGER)?,
                _ => return Err(reader.error_at(start, "expected the start and the end of a range")),
            }
            count += 1;
            Ok(())
        })?;
        if count != 2 {
            return Err(reader.error_at(start, "expected the start and the end of a range"));
        }
        ranges.push(range);
        Ok(())
    })?;
    if ranges.is_empty() {
        return Err(reader.error_at(start, "expected at least one range"));
    }
    Ok(ranges)
}
