//! Texts of others, fit to be shown.

/// Most characters of them that are shown.
const MAX: usize = 500;

/// The text on one line, without what would steer a terminal or turn its direction, and cut where it is long.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.trim().chars();
    for char in chars.by_ref().take(MAX) {
        if char.is_control() || is_invisible(char) {
            out.extend(char.escape_unicode());
        } else {
            out.push(char);
        }
    }
    if chars.next().is_some() {
        out.push_str("...");
    }
    out
}

/// Line separators, marks of direction, joiners and the byte order mark.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers() {
        assert_eq!(shown(" plain \u{e9} text\n"), "plain \u{e9} text");
        assert_eq!(
            shown("a\x1b[31mb\r\nc\u{202e}d\u{9b}e"),
            r"a\u{1b}[31mb\u{d}\u{a}c\u{202e}d\u{9b}e"
        );
        let long = "\u{e9}".repeat(MAX);
        assert_eq!(shown(&long), long);
        assert_eq!(shown(&format!("{long}x")), format!("{long}..."));
    }
}
