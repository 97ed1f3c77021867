//! Events of attestation-agent's log (AAEL): `<domain> <operation> <content>`.
//!
//! Two forms of the log are in use. Today's is records in TCG's format, each an event of type `EV_EVENT_TAG` whose data
//! is a tag, a length and the text; the digest is of that data. The older one, which brokers of protocol 0.1.0 and
//! 0.2.0 read, is lines of text after a line `INIT sha384/<RTMR3 before, in hexadecimal>`; the digest is of the line.

use std::fmt;

use aws_lc_rs::digest::{SHA384, digest};

use crate::error::{Error, Result};
use crate::event_log::{Digest, Event, EventKind, RTMR_LEN, SHA384_ID, extend};
use crate::quote::Hex;
use crate::reader::Reader;

/// The tag of the agent's events: `AAEL`, the first letter in the highest byte.
const TAG: u32 = 0x4141_454c;
/// The longest text of an event, in bytes.
const TEXT_MAX: usize = 64 << 10;
/// How a log of text begins.
const INIT: &str = "INIT sha384/";

/// An event of attestation-agent's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AaelEvent {
    text: String,
    /// Where the two spaces are that divide the text.
    spaces: [usize; 2],
}

impl AaelEvent {
    /// An event of printable characters. Domain and operation have no space; neither has the content, if brokers of
    /// protocol 0.1.0 are to read it.
    ///
    /// # Errors
    /// [`Error::EventLog`] where a part is empty, of other characters, or too long.
    pub fn new(domain: &str, operation: &str, content: &str) -> Result<Self> {
        let sound = |part: &str| !part.is_empty() && !part.chars().any(char::is_control);
        let spaced = |part: &str| part.chars().any(char::is_whitespace);
        Some(format!("{domain} {operation} {content}"))
            .filter(|_| [domain, operation, content].into_iter().all(sound))
            .filter(|_| !spaced(domain) && !spaced(operation))
            .and_then(|text| Self::from_text(&text))
            .ok_or(Error::EventLog {
                offset: 0,
                what: "takes no event with an empty part, a space in its domain or operation, or a control character",
            })
    }

    /// The event that a text stands for, by the agent's own rules: two spaces, and no line break.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let (domain, rest) = text.split_once(' ')?;
        let (operation, _) = rest.split_once(' ')?;
        if text.len() > TEXT_MAX || text.contains('\n') {
            return None;
        }
        Some(Self {
            spaces: [domain.len(), domain.len() + 1 + operation.len()],
            text: text.to_owned(),
        })
    }

    /// The event that a record of an event log holds, if it holds one of these.
    #[must_use]
    pub fn from_event(event: &Event) -> Option<Self> {
        if event.kind != EventKind::EVENT_TAG {
            return None;
        }
        let mut reader = Reader::new(&event.data);
        if reader.u32()? != TAG {
            return None;
        }
        Self::from_text(std::str::from_utf8(reader.sized()?.rest()).ok()?)
    }

    /// Who defines what the event means; a URI by custom.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.text.get(..self.spaces[0]).unwrap_or_default()
    }

    /// What was done.
    #[must_use]
    pub fn operation(&self) -> &str {
        self.text
            .get(self.spaces[0] + 1..self.spaces[1])
            .unwrap_or_default()
    }

    /// What it was done with.
    #[must_use]
    pub fn content(&self) -> &str {
        self.text.get(self.spaces[1] + 1..).unwrap_or_default()
    }

    /// The record for an event log, measured into the register (4 is RTMR3).
    #[must_use]
    pub fn to_event(&self, register: u32) -> Event {
        let mut data = Vec::with_capacity(8 + self.text.len());
        data.extend(TAG.to_le_bytes());
        data.extend(u32::try_from(self.text.len()).unwrap_or(u32::MAX).to_le_bytes());
        data.extend(self.text.as_bytes());
        Event {
            register,
            kind: EventKind::EVENT_TAG,
            digests: vec![Digest {
                algorithm: SHA384_ID,
                bytes: sha384(&data).to_vec(),
            }],
            data,
        }
    }
}

/// Domain, operation and content, with a space between.
impl fmt::Display for AaelEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The form of attestation-agent's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AaelFormat {
    /// Records in TCG's format: attestation-agent since 0.14.
    #[default]
    Tcg2,
    /// Lines of text: older ones, and what brokers of protocol 0.1.0 and 0.2.0 read.
    Text,
}

impl AaelFormat {
    /// The form of an existing log; none where it is empty.
    #[must_use]
    pub fn of(log: &[u8]) -> Option<Self> {
        if log.is_empty() {
            None
        } else if log.starts_with(b"INIT ") {
            Some(Self::Text)
        } else {
            Some(Self::Tcg2)
        }
    }
}

/// The first line of a log of text, newline left out.
pub(crate) fn init_line(register: &[u8; RTMR_LEN]) -> String {
    format!("{INIT}{}", Hex(register))
}

/// What RTMR3 is after a log of text, or what is wrong with the log.
pub(crate) fn replay_text(log: &str) -> Result<[u8; RTMR_LEN]> {
    let refused = |offset, what| Error::EventLog { offset, what };
    let mut lines = log.lines();
    let init = lines.next().unwrap_or_default();
    let mut register = init
        .strip_prefix(INIT)
        .and_then(|digits| <[u8; RTMR_LEN]>::try_from(unhex(digits)?).ok())
        .ok_or_else(|| refused(0, "does not begin with INIT and a SHA-384 register"))?;
    // Verifiers write the line anew from the number.
    register = extend(&register, &sha384(init_line(&register).as_bytes()));
    for line in lines {
        // Sound pointer arithmetic: `line` is a part of `log`.
        let offset = line.as_ptr().addr() - log.as_ptr().addr();
        let sections = line.trim_end().split(' ').count();
        if sections != 3 {
            return Err(refused(
                offset,
                "has a line that is not domain, operation and content",
            ));
        }
        register = extend(&register, &sha384(line.trim_end().as_bytes()));
    }
    Ok(register)
}

pub(crate) fn sha384(bytes: &[u8]) -> [u8; RTMR_LEN] {
    let mut out = [0; RTMR_LEN];
    out.copy_from_slice(digest(&SHA384, bytes).as_ref());
    out
}

/// Decodes hexadecimal digits.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logs and registers known from the tests of the verifiers that read them.
    #[test]
    fn logs_of_text_lead_to_known_registers() {
        let init = format!("INIT sha384/{}", "0".repeat(96));
        for (lines, register) in [
            (
                "image-rs CreateContainer docker.io/library/alpine",
                "71563a23b430b8637970b866169052815ef9434056516dc9f78c1b3bfb745cee18a2ca92aa53c8122be5cbe59a100764",
            ),
            (
                "github.com/confidential-containers CreateContainer docker.io/library/alpine",
                "31fa17881137923029b1da5b368e92d8b22b14bbb4deaa360da61fce7aa530bd2f4c59ac7bd27021ef64104ff4dd04f9",
            ),
            (
                "github.com/confidential-containers CreateContainer docker.io/library/alpine\n\
                 github.com/confidential-containers CreateContainer docker.io/library/busybox",
                "0de62b45b29775495d278c85ad63ff45e59406e509506b26c545a5419316e1c4bd2b00a4e803051fa98b550767e13f06",
            ),
        ] {
            for end in ["", "\n"] {
                let replayed = replay_text(&format!("{init}\n{lines}{end}")).unwrap();
                assert_eq!(Hex(&replayed).to_string(), register);
            }
        }
        assert_eq!(init_line(&[0; 48]), init);
    }

    #[test]
    fn logs_of_text_that_verifiers_refuse() {
        let init = init_line(&[0xab; 48]);
        let offset = |log: &str| match replay_text(log) {
            Err(Error::EventLog { offset, .. }) => offset,
            other => panic!("{other:?}"),
        };
        assert_eq!(offset(""), 0);
        assert_eq!(offset("a b c\n"), 0);
        assert_eq!(offset(&init[..init.len() - 1]), 0);
        assert_eq!(offset(&init.replace("ab", "gh")), 0);
        assert_eq!(offset(&format!("{init}\na b c\na b c d\n")), 115);
        assert_eq!(offset(&format!("{init}\na b\n")), 109);
    }
}
