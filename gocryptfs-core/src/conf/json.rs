//! Reads JSON as Go's `encoding/json` does, since that decides which `gocryptfs.conf` is valid.
//!
//! `serde_json` refuses some of what Go accepts (lone surrogates, bytes that are not UTF-8) and does not give
//! what Go's rules for repeated keys need.

use crate::error::{Error, Result};

/// Deepest nesting that Go accepts.
const MAX_DEPTH: usize = 10_000;

/// Position in a document, and what can be read there.
pub(super) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// Where the next value begins, for [`Reader::error_at`].
    pub(super) fn here(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// An error about the value that begins at `at`.
    pub(super) fn error_at(&self, at: usize, what: impl Into<String>) -> Error {
        let before = &self.text[..at.min(self.text.len())];
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        Error::ConfJson {
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            column: before.len() - line_start + 1,
            what: what.into(),
        }
    }

    /// An error at the current position.
    fn error(&self, what: impl Into<String>) -> Error {
        self.error_at(self.at, what)
    }

    /// Refuses anything but white space up to the end.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("there is more after the end of the document")),
        }
    }

    /// Skips `null` if that is what follows.
    pub(super) fn null(&mut self) -> Result<bool> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.word()?;
        Ok(true)
    }

    /// Whether a string follows.
    pub(super) fn is_string(&mut self) -> bool {
        self.peek() == Some(b'"')
    }

    /// Reads an object; `member` gets each key and must read the value.
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        self.open(b'{', "an object")?;
        if !self.eat(b'}') {
            loop {
                let key = self.key()?;
                member(self, &key)?;
                if self.close_or_comma(b'}')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array; `element` must read one element.
    pub(super) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
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

    /// Reads a string. What is not Unicode becomes U+FFFD.
    pub(super) fn string(&mut self) -> Result<String> {
        self.expect(b'"', "a string")?;
        let mut bytes = Vec::new();
        loop {
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    let mut buffer = [0; 4];
                    bytes.extend_from_slice(self.escape()?.encode_utf8(&mut buffer).as_bytes());
                }
                Some(byte) if *byte >= 0x20 => {
                    bytes.push(*byte);
                    self.at += 1;
                }
                Some(_) => return Err(self.error("a control character in a string")),
                None => return Err(self.error("a string without an end")),
            }
        }
        self.at += 1;
        let mut string = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            string.push_str(chunk.valid());
            string.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
        }
        Ok(string)
    }

    /// Reads a number that is an integer as the type says: without fraction, exponent or overflow.
    pub(super) fn integer<T: std::str::FromStr>(&mut self) -> Result<T> {
        let start = self.number()?;
        let digits = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        digits
            .parse()
            .map_err(|_| self.error("a number that is not an integer, or out of range"))
    }

    /// Skips any value, without recursion.
    pub(super) fn skip(&mut self) -> Result<()> {
        let mut open = Vec::new();
        loop {
            let opened = match self.peek() {
                Some(b'{') => Some(b'}'),
                Some(b'[') => Some(b']'),
                Some(b'"') => self.string().map(|_| None)?,
                Some(b'-' | b'0'..=b'9') => self.number().map(|_| None)?,
                _ => self.word().map(|()| None)?,
            };
            if let Some(close) = opened {
                self.at += 1;
                self.deeper()?;
                if self.eat(close) {
                    self.depth -= 1;
                } else {
                    open.push(close);
                    if close == b'}' {
                        self.key()?;
                    }
                    continue;
                }
            }
            // A value has ended, and perhaps what it is in.
            loop {
                let Some(close) = open.last().copied() else {
                    return Ok(());
                };
                if !self.close_or_comma(close)? {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                self.depth -= 1;
                open.pop();
            }
        }
    }

    /// The next byte that is not white space, left in place.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
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
        self.deeper()
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            Err(self.error("nested too deeply"))
        } else {
            Ok(())
        }
    }

    fn key(&mut self) -> Result<String> {
        let key = self.string()?;
        self.expect(b':', "a colon")?;
        Ok(key)
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

    /// Skips `true`, `false` or `null`.
    fn word(&mut self) -> Result<()> {
        let rest = &self.text[self.at..];
        let word = ["true", "false", "null"]
            .into_iter()
            .find(|word| rest.starts_with(word.as_bytes()));
        self.at += word.ok_or_else(|| self.error("expected a value"))?.len();
        Ok(())
    }

    /// Skips a number, and returns where it began.
    fn number(&mut self) -> Result<usize> {
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.error("expected a number"));
        }
        let start = self.at;
        let next = |reader: &Self| reader.text.get(reader.at).copied();
        self.at += usize::from(next(self) == Some(b'-'));
        if next(self) == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if next(self) == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = next(self) {
            self.at += 1;
            self.at += usize::from(matches!(next(self), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(start)
    }

    fn digits(&mut self) -> Result<()> {
        let count = self.text[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.at += count;
        if count == 0 {
            Err(self.error("expected a digit"))
        } else {
            Ok(())
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<char> {
        let kind = self.text.get(self.at).copied();
        self.at += 1;
        Ok(match kind {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self
                    .hex(self.at)
                    .ok_or_else(|| self.error("expected four hexadecimal digits"))?;
                self.at += 4;
                let second = self.text[self.at..]
                    .starts_with(b"\\u")
                    .then(|| self.hex(self.at + 2))
                    .flatten();
                match (first, second) {
                    (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) => {
                        self.at += 6;
                        let pair = 0x1_0000 + ((first - 0xd800) << 10 | (second - 0xdc00));
                        char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                    _ => char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            _ => return Err(self.error("an escape that JSON does not have")),
        })
    }

    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at.checked_add(4)?)?;
        digits.iter().try_fold(0, |value, digit| {
            Some(value << 4 | char::from(*digit).to_digit(16)?)
        })
    }
}

/// Appends `text` as Go writes a string: with `<`, `>`, `&` and the separators U+2028, U+2029 escaped.
pub(super) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(text: &[u8]) -> Option<String> {
        let mut reader = Reader::new(text);
        let string = reader.string().ok()?;
        reader.end().ok()?;
        Some(string)
    }

    fn valid(text: &[u8]) -> bool {
        let mut reader = Reader::new(text);
        reader.skip().is_ok() && reader.end().is_ok()
    }

    #[test]
    fn strings_decode_as_in_go() {
        let cases: [(&[u8], &str); 9] = [
            (br#" "\"\\\/\b\f\n\r\t" "#, "\"\\/\u{8}\u{c}\n\r\t"),
            (br#""\u0041\u00e9\u00E9""#, "Aéé"),
            (br#""\ud83d\ude00""#, "\u{1f600}"),
            (br#""\ud83d""#, "\u{fffd}"),
            (br#""\ud83d\u0041""#, "\u{fffd}A"),
            (br#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (b"\"a\xffb\"", "a\u{fffd}b"),
            // One replacement for each byte, unlike Rust.
            (b"\"\xe2\x82\"", "\u{fffd}\u{fffd}"),
            (b"\"\x7f\"", "\x7f"),
        ];
        for (text, expected) in cases {
            assert_eq!(string(text).as_deref(), Some(expected), "{}", text.escape_ascii());
        }
        for text in [
            &b"\"\n\""[..],
            b"\"",
            b"\"\\x41\"",
            b"\"\\u12\"",
            b"\"\\u12g4\"",
            b"\"\\",
            b"'a'",
            b"",
        ] {
            assert_eq!(string(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn integers_are_integers() {
        let read = |text: &str| Reader::new(text.as_bytes()).integer::<i64>().ok();
        assert_eq!(read(" 65536"), Some(65536));
        assert_eq!(read("-0"), Some(0));
        assert_eq!(read("9223372036854775807"), Some(i64::MAX));
        for text in [
            "1.0",
            "1e3",
            "9223372036854775808",
            "\"1\"",
            "+1",
            "-",
            "",
            "true",
            ".5",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(Reader::new(b"-0").integer::<u8>().is_err());
        assert!(Reader::new(b"256").integer::<u8>().is_err());
    }

    #[test]
    fn nesting_is_bounded_as_in_go() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(valid(nested(10_000).as_bytes()));
        assert!(!valid(nested(10_001).as_bytes()));
        assert!(!valid("[".repeat(1 << 20).as_bytes()));
        assert!(valid(
            (String::from("[") + &"[],{},".repeat(20_000) + "0]").as_bytes()
        ));
    }

    #[test]
    fn errors_say_where() {
        let error = Reader::new(b"{\n\t\"a\": tru\n}").skip().expect_err("not JSON");
        assert_eq!(
            error.to_string(),
            "gocryptfs.conf, line 2, column 7: expected a value"
        );
    }

    /// Bytes that are JSON now and then.
    fn nearly_json() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\\u0041\"",
            "0",
            "-1.5e+3 ",
            "01",
            "1.",
            "true",
            "null",
            " ",
            "\n",
            "nul",
            "\\",
            "\"",
            "{\"k\":",
            "[1,2]",
            "{}",
            "-",
            "\x0b",
        ]);
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn valid_is_what_serde_json_calls_valid(text in nearly_json()) {
            let expected = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(valid(text.as_bytes()), expected, "{}", text);
        }

        #[test]
        fn strings_survive(text in ".*") {
            let mut written = String::new();
            write_string(&mut written, &text);
            prop_assert!(!written.contains(['<', '>', '&']));
            prop_assert_eq!(string(written.as_bytes()), Some(text));
        }

        #[test]
        fn any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            valid(&bytes);
        }
    }
}
