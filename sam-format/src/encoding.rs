//! Bytes as text: lower-case hexadecimal, and base64 with padding and without slack (FORMAT.md, section 1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::canonical::Reader;
use crate::error::Result;

/// `bytes` in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    bytes.iter().flat_map(digits).collect()
}

/// The `N` bytes that `text` is the lower-case hexadecimal of.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// `bytes` in base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes that `text` is the base64 of. Padding is as it must be, and bits that carry nothing are zero.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

impl Reader<'_> {
    /// Reads `N` bytes in hexadecimal.
    pub(crate) fn hex<const N: usize>(&mut self) -> Result<[u8; N]> {
        let start = self.here();
        let text = self.string()?;
        from_hex(&text)
            .ok_or_else(|| self.error_at(start, format!("expected {} lower-case hexadecimal digits", 2 * N)))
    }

    /// Reads `N` bytes in base64.
    pub(crate) fn base64_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let start = self.here();
        let bytes = from_base64(&self.string()?).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| {
            self.error_at(
                start,
                format!("expected {N} bytes in base64, padded and without slack"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_each_string_of_bytes() {
        assert_eq!(hex(&[0, 0xaf, 0xff]), "00afff");
        assert_eq!(from_hex("00afff"), Some([0, 0xaf, 0xff]));
        for text in ["00aff", "00afff0", "00AFFF", "00affg", "0 afff", "00af\u{e9}"] {
            assert_eq!(from_hex::<3>(text), None, "{text}");
        }
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"\xfb\xff\xfe", "+//+"),
        ] {
            assert_eq!(base64(bytes), text);
            assert_eq!(from_base64(text).as_deref(), Some(bytes));
        }
        for text in [
            "Zg", "Zg=", "Zh==", "Zm9=", "Zm8=\n", " Zm8=", "-__-", "Zg==Zg==", "====",
        ] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }
}
