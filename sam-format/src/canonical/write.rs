//! The canonical form, written.

use super::{Reader, compare_names};
use crate::error::Result;

/// The canonical form of an object: `members` are names and values in canonical form, in any order.
pub(crate) fn object<N: AsRef<str>, V: AsRef<str>>(mut members: Vec<(N, V)>) -> String {
    members.sort_by(|a, b| compare_names(a.0.as_ref(), b.0.as_ref()));
    let mut out = String::from("{");
    for (n, (name, value)) in members.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        push_string(&mut out, name.as_ref());
        out.push(':');
        out.push_str(value.as_ref());
    }
    out.push('}');
    out
}

/// The canonical form of the object `text`, which is in canonical form, without the members called `names`.
pub(crate) fn without(document: &'static str, text: &str, names: &[&str]) -> Result<String> {
    let mut reader = Reader::new(document, text.as_bytes(), text.len())?;
    let mut members = Vec::new();
    reader.object(|reader, name| {
        let value = reader.any()?;
        if !names.contains(&name) {
            members.push((name.to_owned(), value));
        }
        Ok(())
    })?;
    Ok(object(members))
}

/// The canonical form of an array of values in canonical form.
pub(crate) fn array<V: AsRef<str>>(values: impl IntoIterator<Item = V>) -> String {
    let mut out = String::from("[");
    for value in values {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(value.as_ref());
    }
    out.push(']');
    out
}

/// The canonical form of a string.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    out
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte @ (b'"' | b'\\')) => out.extend(['\\', char::from(byte)]),
            Ok(byte @ 0..0x20) => match short_escape(byte) {
                Some(letter) => out.extend(['\\', letter]),
                None => *out += &format!("\\u{byte:04x}"),
            },
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// The letter that stands for a control character, where there is one.
pub(super) const fn short_escape(byte: u8) -> Option<char> {
    match byte {
        0x08 => Some('b'),
        0x09 => Some('t'),
        0x0a => Some('n'),
        0x0c => Some('f'),
        0x0d => Some('r'),
        _ => None,
    }
}
