//! Canonical JSON: RFC 8785 with integers alone (FORMAT.md, section 1).
//!
//! The reader takes nothing but the canonical form and refuses the first byte that departs from it, so nothing has
//! to be written again and compared, and what is skipped costs no memory.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::error::{Error, Result};

mod write;

pub(crate) use write::{array, object, string, without};

use write::short_escape;

/// Deepest nesting of objects and arrays.
const MAX_DEPTH: usize = 32;
/// The largest integer that every reader of JSON keeps exact, 2^53 - 1.
pub(crate) const MAX_INTEGER: u64 = (1 << 53) - 1;

/// A member of an object that this version does not know: its name, and its value in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The name.
    pub(crate) name: String,
    /// The value.
    pub(crate) json: String,
}

/// Position in a document, and what can be read there.
pub(crate) struct Reader<'a> {
    document: &'static str,
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// At the start of `text`, of at most `max` bytes. `document` names it in errors.
    pub(crate) fn new(document: &'static str, text: &'a [u8], max: usize) -> Result<Self> {
        let refused = |offset, what: String| Error::Document {
            document,
            offset,
            what,
        };
        if text.len() > max {
            return Err(refused(max, format!("it is longer than {max} bytes")));
        }
        let text = std::str::from_utf8(text)
            .map_err(|error| refused(error.valid_up_to(), "it is not UTF-8".to_owned()))?;
        Ok(Self {
            document,
            text,
            at: 0,
            depth: 0,
        })
    }

    /// Where the next value begins, for [`Reader::error_at`].
    pub(crate) const fn here(&self) -> usize {
        self.at
    }

    /// An error about the value that begins at `offset`.
    pub(crate) fn error_at(&self, offset: usize, what: impl Into<String>) -> Error {
        Error::Document {
            document: self.document,
            offset,
            what: what.into(),
        }
    }

    fn error(&self, what: impl Into<String>) -> Error {
        self.error_at(self.at, what)
    }

    /// Refuses anything up to the end, and returns the whole document.
    pub(crate) fn end(&self) -> Result<&'a str> {
        if self.at == self.text.len() {
            Ok(self.text)
        } else {
            Err(self.error("there is more after the end of the document"))
        }
    }

    /// Reads an object; `member` gets each name and must read the value.
    pub(crate) fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        self.open(b'{', "an object")?;
        let mut before: Option<Cow<'a, str>> = None;
        if !self.eat(b'}') {
            loop {
                let start = self.at;
                let name = self.string()?;
                match before.map(|before| compare_names(&before, &name)) {
                    None | Some(Ordering::Less) => {}
                    Some(Ordering::Equal) => {
                        return Err(self.error_at(start, format!("{name:?} is there twice")));
                    }
                    Some(Ordering::Greater) => {
                        return Err(self.error_at(start, "members are not in order"));
                    }
                }
                self.expect(b':', "a colon")?;
                member(self, &name)?;
                before = Some(name);
                if self.close_or_comma(b'}')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array; `element` must read one element.
    pub(crate) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.open(b'[', "an array")?;
        if !self.eat(b']') {
            loop {
                element(self)?;
                if self.close_or_comma(b']')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>> {
        self.expect(b'"', "a string")?;
        let mut text = Cow::Borrowed("");
        loop {
            let rest = &self.text[self.at..];
            let plain = rest
                .bytes()
                .position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20);
            let plain = plain.ok_or_else(|| self.error("a string without an end"))?;
            // Borrowed as long as there is but one piece.
            text += &rest[..plain];
            self.at += plain;
            match rest.as_bytes().get(plain) {
                Some(b'"') => break,
                Some(b'\\') => text.to_mut().push(self.escape()?),
                _ => return Err(self.error("a control character in a string")),
            }
        }
        self.at += 1;
        Ok(text)
    }

    /// Reads an integer.
    pub(crate) fn integer(&mut self) -> Result<i64> {
        let start = self.at;
        let negative = self.eat(b'-');
        let digits = self.text[self.at..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count();
        let digits = &self.text[self.at..self.at + digits];
        match (digits.as_bytes(), negative) {
            ([], _) => return Err(self.error_at(start, "expected an integer")),
            ([b'0'], false) | ([b'1'..=b'9', ..], _) => {}
            _ => return Err(self.error_at(start, "a number that is not in canonical form")),
        }
        self.at += digits.len();
        if let Some(b'.' | b'e' | b'E') = self.peek() {
            return Err(self.error_at(start, "a number that is not an integer"));
        }
        match digits.parse::<u64>() {
            Ok(value) if value <= MAX_INTEGER => {
                let value = value.cast_signed();
                Ok(if negative { -value } else { value })
            }
            _ => Err(self.error_at(start, "a number beyond 2^53 - 1")),
        }
    }

    /// Reads an integer that is not negative, of at most `max`.
    pub(crate) fn unsigned(&mut self, max: u64) -> Result<u64> {
        let start = self.at;
        let value = u64::try_from(self.integer()?).ok();
        value
            .filter(|value| *value <= max)
            .ok_or_else(|| self.error_at(start, format!("a number that is not from 0 to {max}")))
    }

    /// Reads `true` or `false`.
    pub(crate) fn boolean(&mut self) -> Result<bool> {
        match self.word() {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            _ => Err(self.error("expected true or false")),
        }
    }

    /// Reads any value, and returns it as it stands.
    pub(crate) fn any(&mut self) -> Result<&'a str> {
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.object(|reader, _| reader.any().map(drop))?,
            Some(b'[') => self.array(|reader| reader.any().map(drop))?,
            Some(b'"') => drop(self.string()?),
            Some(b'-' | b'0'..=b'9') => drop(self.integer()?),
            _ => drop(self.word().ok_or_else(|| self.error("expected a value"))?),
        }
        Ok(&self.text[start..self.at])
    }

    /// Reads an integer that must be `expected`.
    pub(crate) fn integer_of(&mut self, expected: u64) -> Result<()> {
        let start = self.at;
        if self.unsigned(MAX_INTEGER)? == expected {
            Ok(())
        } else {
            Err(self.error_at(start, format!("expected {expected}")))
        }
    }

    /// Reads any value of a member called `name`, to be kept with at most `max` others: few, so that a document cannot
    /// take many times its length of memory.
    pub(crate) fn keep(&mut self, kept: &mut Vec<Member>, name: &str, max: usize) -> Result<()> {
        if kept.len() >= max {
            return Err(self.error(format!("more than {max} members that are not known")));
        }
        kept.push(self.member(name)?);
        Ok(())
    }

    /// Reads any value of a member called `name`, to be kept.
    fn member(&mut self, name: &str) -> Result<Member> {
        Ok(Member {
            name: name.to_owned(),
            json: self.any()?.to_owned(),
        })
    }

    /// The member called `name` whose value, from `start` on, was read already.
    pub(crate) fn member_from(&self, name: &str, start: usize) -> Member {
        Member {
            name: name.to_owned(),
            json: self.text[start..self.at].to_owned(),
        }
    }

    /// Reads a string that must be `expected`.
    pub(crate) fn literal(&mut self, expected: &str) -> Result<()> {
        let start = self.at;
        if self.string()? == expected {
            Ok(())
        } else {
            Err(self.error_at(start, format!("expected {expected:?}")))
        }
    }

    /// Reads the names of members that a reader must know, and refuses those that are not `known`.
    pub(crate) fn critical(&mut self, known: &[&str]) -> Result<()> {
        self.array(|reader| {
            let start = reader.at;
            let name = reader.string()?;
            if known.contains(&&*name) {
                Ok(())
            } else {
                let what = format!("{name:?} is critical, but not known; a newer version may know it");
                Err(reader.error_at(start, what))
            }
        })
    }

    /// An error about the member called `name`, just before its value.
    pub(crate) fn unknown(&self, name: &str) -> Error {
        self.error(format!("{name:?} is not known here; a newer version may know it"))
    }

    /// An error about the object that begins at `offset` and lacks the member called `name`.
    pub(crate) fn missing(&self, offset: usize, name: &str) -> Error {
        self.error_at(offset, format!("{name:?} is missing"))
    }

    /// Skips `true`, `false` or `null`.
    fn word(&mut self) -> Option<&'static str> {
        let rest = &self.text[self.at..];
        let word = ["true", "false", "null"]
            .into_iter()
            .find(|word| rest.starts_with(word))?;
        self.at += word.len();
        Some(word)
    }

    /// Reads an escape: those that RFC 8785 writes, and no other.
    fn escape(&mut self) -> Result<char> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        let (escaped, len) = match rest {
            [byte @ (b'"' | b'\\'), ..] => (*byte, 2),
            [b'b', ..] => (0x08, 2),
            [b't', ..] => (0x09, 2),
            [b'n', ..] => (0x0a, 2),
            [b'f', ..] => (0x0c, 2),
            [b'r', ..] => (0x0d, 2),
            [
                b'u',
                b'0',
                b'0',
                high @ (b'0' | b'1'),
                low @ (b'0'..=b'9' | b'a'..=b'f'),
                ..,
            ] => {
                let low = if low.is_ascii_digit() {
                    low - b'0'
                } else {
                    low - b'a' + 10
                };
                ((high - b'0') << 4 | low, 6)
            }
            _ => return Err(self.error("an escape that is not in canonical form")),
        };
        if len == 6 && short_escape(escaped).is_some() {
            return Err(self.error("an escape that is not in canonical form"));
        }
        self.at += len;
        Ok(char::from(escaped))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.eat(byte) {
            Ok(())
        } else {
            Err(self.error(format!("expected {what}")))
        }
    }

    fn open(&mut self, bracket: u8, what: &str) -> Result<()> {
        self.expect(bracket, what)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            Err(self.error(format!("nested deeper than {MAX_DEPTH}")))
        } else {
            Ok(())
        }
    }

    /// True at `close`, false at a comma.
    fn close_or_comma(&mut self, close: u8) -> Result<bool> {
        if self.eat(close) {
            Ok(true)
        } else if self.eat(b',') {
            Ok(false)
        } else {
            Err(self.error(format!("expected a comma or {}", char::from(close))))
        }
    }
}

/// RFC 8785 orders names by their UTF-16 code units.
fn compare_names(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        a.cmp(b)
    } else {
        a.encode_utf16().cmp(b.encode_utf16())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    /// Whether the reader takes all of `text`.
    fn taken(text: &[u8]) -> Result<()> {
        let mut reader = Reader::new("test", text, 1 << 20)?;
        reader.any()?;
        reader.end().map(drop)
    }

    /// Whether `text` is canonical, by another implementation.
    fn oracle(text: &[u8]) -> bool {
        fn within(value: &Value, depth: usize) -> bool {
            match value {
                Value::Number(number) => number
                    .as_i64()
                    .is_some_and(|value| value.unsigned_abs() <= MAX_INTEGER),
                Value::Array(values) => depth > 0 && values.iter().all(|value| within(value, depth - 1)),
                Value::Object(members) => depth > 0 && members.values().all(|value| within(value, depth - 1)),
                _ => true,
            }
        }
        serde_json::from_slice(text).is_ok_and(|value: Value| {
            within(&value, MAX_DEPTH)
                && serde_json_canonicalizer::to_vec(&value).is_ok_and(|canonical| canonical == text)
        })
    }

    /// What this module writes for `value`.
    fn written(value: &Value) -> String {
        match value {
            Value::String(text) => string(text),
            Value::Array(values) => array(values.iter().map(written)),
            Value::Object(members) => object(
                members
                    .iter()
                    .rev()
                    .map(|(name, value)| (name, written(value)))
                    .collect(),
            ),
            other => other.to_string(),
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let max = MAX_INTEGER.cast_signed();
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            prop_oneof![-max..=max, Just(max), Just(-max), -3..3_i64].prop_map(Value::from),
            any::<String>().prop_map(Value::String),
            "[\"\\\\/\\x00-\\x20\\x7f-\\xa0]{0,8}".prop_map(Value::String),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            // Short names, so that some differ late, and beyond the first plane, where orders differ.
            let name = "[ab\u{e000}-\u{e002}\u{10000}-\u{10002}\\n\"]{0,3}";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec((name, inner), 0..6)
                    .prop_map(|members| Value::Object(Map::from_iter(members))),
            ]
        })
    }

    proptest! {
        #[test]
        fn writes_what_another_implementation_writes(value in values()) {
            let text = written(&value);
            prop_assert_eq!(&text, &serde_json_canonicalizer::to_string(&value).unwrap());
            prop_assert!(taken(text.as_bytes()).is_ok());
        }

        #[test]
        fn takes_what_another_implementation_would_write(value in values(), edits in edits()) {
            let mut text = written(&value).into_bytes();
            for (at, edit) in edits {
                let at = at.index(text.len() + 1);
                text.splice(at..(at + edit.0).min(text.len()), edit.1.bytes());
            }
            prop_assert_eq!(taken(&text).is_ok(), oracle(&text), "{}", String::from_utf8_lossy(&text));
        }
    }

    /// Places, each with how many bytes go there and what comes in their place.
    fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, (usize, String))>> {
        let token = "[\\[\\]{},:\"\\\\/ntbu0-9a-fA-F.e\\-+ \\t\\n\\x00\\x7f\u{e9}]{0,3}";
        let token = prop_oneof![
            token.prop_map(|text| text),
            Just("\\u001f".to_owned()),
            Just("\\ud800".to_owned()),
            Just("null".to_owned()),
        ];
        prop::collection::vec((any::<prop::sample::Index>(), (0..3_usize, token)), 1..3)
    }

    #[test]
    fn one_form_for_each_value() {
        for text in [
            "null",
            "{}",
            "[]",
            "[1,-1,0,9007199254740991,-9007199254740991]",
            r#"{"":1,"a":{"b":[]},"aa":"\u0000\u001f\b\t\n\f\r\"\\/"}"#,
            // By code units, not by code points.
            "{\"\u{10000}\":1,\"\u{e000}\":1}",
        ] {
            assert!(taken(text.as_bytes()).is_ok(), "{text}");
            assert!(oracle(text.as_bytes()), "{text}");
        }
        let deepest = [b"[".repeat(MAX_DEPTH), b"]".repeat(MAX_DEPTH)].concat();
        assert!(taken(&deepest).is_ok());
        let deeper = [b"[".as_slice(), &deepest, b"]"].concat();
        let much_deeper = b"[".repeat(1 << 20);
        for text in [
            &deeper[..],
            &much_deeper,
            b"",
            b" 1",
            b"1 ",
            b"1\n",
            b"[1, 2]",
            b"[1,]",
            b"[,1]",
            b"{\"a\":1,}",
            b"{\"a\":1,\"a\":1}",
            b"{\"b\":1,\"a\":1}",
            b"{\"aa\":1,\"a\":1}",
            "{\"\u{e000}\":1,\"\u{10000}\":1}".as_bytes(),
            b"{a:1}",
            b"-0",
            b"00",
            b"01",
            b"-01",
            b"+1",
            b"-",
            b"1.0",
            b"1e0",
            b"1E0",
            b"0.5",
            b"9007199254740992",
            b"-9007199254740992",
            b"99999999999999999999999999",
            b"NaN",
            b"nul",
            b"True",
            b"'a'",
            b"\"a",
            b"\"\n\"",
            b"\"\0\"",
            br#""\/""#,
            br#""\u0041""#,
            br#""\u000a""#,
            br#""\u001F""#,
            br#""\u00e9""#,
            br#""\ud83d\ude00""#,
            br#""\ud800""#,
            br#""\x""#,
            br#""\u00"#,
            b"\"\\",
            b"\"\xff\"",
            b"\"\xed\xa0\x80\"",
            b"\xef\xbb\xbf1",
        ] {
            assert!(taken(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn errors_say_where() {
        let error = taken(br#"{"a":1,"b":1.5}"#).expect_err("a fraction");
        assert_eq!(
            error.to_string(),
            "test, byte 11: a number that is not an integer"
        );
        let error = taken(b"[\xff]").expect_err("no text");
        assert_eq!(error.to_string(), "test, byte 1: it is not UTF-8");
        let error = Reader::new("test", b"[1]", 2).err().expect("too long");
        assert_eq!(error.to_string(), "test, byte 2: it is longer than 2 bytes");
    }
}
