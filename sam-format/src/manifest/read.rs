//! Reads `manifest.json`.

use super::MANIFEST_NAME;
use super::{ContentId, Entry, EntryKind, MODE_MAX, Manifest, Modified, NANOSECONDS_MAX};
use crate::canonical::{MAX_INTEGER, Reader};
use crate::document::Document;
use crate::encoding::from_base64;
use crate::error::Result;
use crate::header::{ChunkLen, FileId};

/// Members of an object that are kept though this version does not know them.
const KEPT_MAX: usize = 8;

/// The longest entry that stands on its own, in bytes: its path and its target as base64, and what is said of it.
const ENTRY_MAX_LEN: usize = 16 << 10;

pub(super) const DOCUMENT: Document = Document {
    name: MANIFEST_NAME,
    format: "sam-manifest",
    version: 1,
    known: &KNOWN,
    max_len: Manifest::MAX_LEN,
    kept_max: KEPT_MAX,
};

/// All members, of the document and of its entries.
const KNOWN: [&str; 17] = [
    "chunk_length",
    "content_id",
    "content_key_commitment",
    "critical",
    "digest",
    "entries",
    "file_id",
    "format",
    "kind",
    "length",
    "mode",
    "modified",
    "path",
    "path_base64",
    "target",
    "target_base64",
    "version",
];

/// All but what concerns more than one entry, and the bounds of a path.
pub(super) fn manifest(content: &[u8]) -> Result<Manifest> {
    let (mut content_id, mut commitment, mut chunk_len, mut entries) = (None, None, None, None);
    let (_, kept) = DOCUMENT.read(content, |reader, name| {
        match name {
            "content_id" => content_id = Some(ContentId(reader.hex()?)),
            "content_key_commitment" => commitment = Some(reader.hex()?),
            "chunk_length" => chunk_len = Some(chunk_length(reader)?),
            "entries" => entries = Some(reader.entries(entry)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let missing = |name| DOCUMENT.missing(name);
    Ok(Manifest {
        content_id: content_id.ok_or_else(|| missing("content_id"))?,
        content_key_commitment: commitment.ok_or_else(|| missing("content_key_commitment"))?,
        chunk_len: chunk_len.ok_or_else(|| missing("chunk_length"))?,
        entries: entries.ok_or_else(|| missing("entries"))?,
        kept,
    })
}

pub(crate) fn chunk_length(reader: &mut Reader<'_>) -> Result<ChunkLen> {
    let start = reader.here();
    let len = reader.unsigned(u64::from(ChunkLen::MAX.get()))?;
    let len = u32::try_from(len).ok().and_then(ChunkLen::new);
    len.ok_or_else(|| {
        reader.error_at(
            start,
            "a chunk length must be a power of two from 4096 to 16777216",
        )
    })
}

/// Members of an entry as they come, whatever its kind.
#[derive(Default)]
struct Members {
    digest: Option<[u8; 32]>,
    file_id: Option<FileId>,
    kind: Option<String>,
    length: Option<u64>,
    mode: Option<u32>,
    modified: Option<Modified>,
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

/// An entry that stands on its own, without members that this version does not know.
pub(super) fn lone_entry(content: &[u8]) -> Result<Entry> {
    let mut reader = Reader::new(MANIFEST_NAME, content, ENTRY_MAX_LEN)?;
    let entry = entry(&mut reader)?;
    reader.end()?;
    match entry.kept.first() {
        Some(member) => Err(reader.unknown(&member.name)),
        None => Ok(entry),
    }
}

fn entry(reader: &mut Reader<'_>) -> Result<Entry> {
    let start = reader.here();
    let mut members = Members::default();
    let mut kept = Vec::new();
    reader.object(|reader, name| {
        match name {
            "digest" => members.digest = Some(reader.hex()?),
            "file_id" => members.file_id = Some(FileId::from_bytes(reader.hex()?)),
            "kind" => members.kind = Some(reader.string()?.into_owned()),
            "length" => members.length = Some(reader.unsigned(MAX_INTEGER)?),
            "mode" => members.mode = Some(small(reader, MODE_MAX)?),
            "modified" => members.modified = Some(modified(reader)?),
            "path" | "path_base64" => bytes(reader, name == "path_base64", &mut members.path)?,
            "target" | "target_base64" => bytes(reader, name == "target_base64", &mut members.target)?,
            _ => reader.keep(&mut kept, name, KEPT_MAX)?,
        }
        Ok(())
    })?;
    let missing = |name| reader.missing(start, name);
    let other = |there| reader.refuse_other(start, there);
    let Members {
        digest,
        file_id,
        length,
        mode,
        target,
        ..
    } = members;
    let kind = match members.kind.as_deref() {
        Some("file") => {
            other(target.is_some())?;
            EntryKind::File {
                mode: mode.ok_or_else(|| missing("mode"))?,
                length: length.ok_or_else(|| missing("length"))?,
                file_id: file_id.ok_or_else(|| missing("file_id"))?,
                digest: digest.ok_or_else(|| missing("digest"))?,
            }
        }
        Some("dir") => {
            other(target.is_some() || digest.is_some() || file_id.is_some() || length.is_some())?;
            EntryKind::Dir {
                mode: mode.ok_or_else(|| missing("mode"))?,
            }
        }
        Some("symlink") => {
            other(mode.is_some() || digest.is_some() || file_id.is_some() || length.is_some())?;
            EntryKind::Symlink {
                target: target.ok_or_else(|| missing("target"))?,
            }
        }
        kind => return Err(reader.no_kind(start, kind)),
    };
    Ok(Entry {
        path: members.path.ok_or_else(|| missing("path"))?,
        modified: members.modified.ok_or_else(|| missing("modified"))?,
        kind,
        kept,
    })
}

fn small(reader: &mut Reader<'_>, max: u32) -> Result<u32> {
    let value = reader.unsigned(u64::from(max))?;
    Ok(u32::try_from(value).unwrap_or(max))
}

fn modified(reader: &mut Reader<'_>) -> Result<Modified> {
    let start = reader.here();
    let (mut modified, mut count) = (Modified::default(), 0);
    reader.array(|reader| {
        match count {
            0 => modified.seconds = reader.integer()?,
            1 => modified.nanoseconds = small(reader, NANOSECONDS_MAX)?,
            _ => return Err(reader.error_at(start, "expected seconds and nanoseconds")),
        }
        count += 1;
        Ok(())
    })?;
    if count == 2 {
        Ok(modified)
    } else {
        Err(reader.error_at(start, "expected seconds and nanoseconds"))
    }
}

/// Reads a path or a target, as text or in base64, which is for what is no text.
pub(crate) fn bytes(reader: &mut Reader<'_>, in_base64: bool, out: &mut Option<Vec<u8>>) -> Result<()> {
    let start = reader.here();
    let text = reader.string()?;
    let read = if in_base64 {
        let read = from_base64(&text).filter(|read| std::str::from_utf8(read).is_err());
        read.ok_or_else(|| reader.error_at(start, "expected base64 of what is not UTF-8"))?
    } else {
        text.into_owned().into_bytes()
    };
    match out.replace(read) {
        None => Ok(()),
        Some(_) => Err(reader.error_at(start, "an entry has it both as text and in base64")),
    }
}
