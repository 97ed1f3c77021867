//! Writes `manifest.json`.

use super::read::DOCUMENT;
use super::{Entry, EntryKind, Manifest};
use crate::canonical::{self, Member, array, string};
use crate::encoding::{base64, hex};

pub(super) fn manifest(manifest: &Manifest) -> String {
    let mut members = vec![
        ("format", string(DOCUMENT.format)),
        ("version", DOCUMENT.version.to_string()),
        ("content_id", string(&manifest.content_id.to_string())),
        (
            "content_key_commitment",
            string(&hex(&manifest.content_key_commitment)),
        ),
        ("chunk_length", manifest.chunk_len.get().to_string()),
        ("entries", array(manifest.entries.iter().map(entry))),
    ];
    keep(&mut members, &manifest.kept);
    canonical::object(members)
}

pub(super) fn entry(entry: &Entry) -> String {
    let modified = [
        entry.modified.seconds.to_string(),
        entry.modified.nanoseconds.to_string(),
    ];
    let mut members = vec![
        bytes("path", "path_base64", &entry.path),
        ("modified", array(modified)),
    ];
    match &entry.kind {
        EntryKind::File {
            mode,
            length,
            file_id,
            digest,
        } => members.extend([
            ("kind", string("file")),
            ("mode", mode.to_string()),
            ("length", length.to_string()),
            ("file_id", string(&hex(file_id.as_bytes()))),
            ("digest", string(&hex(digest))),
        ]),
        EntryKind::Dir { mode } => members.extend([("kind", string("dir")), ("mode", mode.to_string())]),
        EntryKind::Symlink { target } => members.extend([
            ("kind", string("symlink")),
            bytes("target", "target_base64", target),
        ]),
    }
    keep(&mut members, &entry.kept);
    canonical::object(members)
}

fn keep<'a>(members: &mut Vec<(&'a str, String)>, kept: &'a [Member]) {
    members.extend(
        kept.iter()
            .map(|member| (member.name.as_str(), member.json.clone())),
    );
}

/// A path or a target under the first name where it is text, else in base64 under the second.
pub(crate) fn bytes<'a>(as_text: &'a str, as_base64: &'a str, bytes: &[u8]) -> (&'a str, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (as_text, string(text)),
        Err(_) => (as_base64, string(&base64(bytes))),
    }
}
