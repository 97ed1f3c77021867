//! What a broker knows this client by.

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::evidence::ProtocolVersion;
use crate::http::Response;
use crate::tee_key::TeeKey;

/// The cookie that brokers name a session by.
pub(super) const SESSION_COOKIE: &str = "kbs-session-id";
/// Most cookies that are kept, and most bytes of one with its name.
const MAX_COOKIES: usize = 16;
const MAX_COOKIE: usize = 4096;
/// Longest token that goes into a header beside a cookie. nginx takes lines of 8 KiB, and a token with an event log
/// has two or three times that; the cookie does by itself.
const MAX_TOKEN_BESIDE_COOKIE: usize = 6 << 10;

/// A session that a broker has attested, or a token that stands for one.
pub(super) struct Session {
    version: ProtocolVersion,
    key: TeeKey,
    cookies: Cookies,
    token: Zeroizing<String>,
}

impl Session {
    pub(super) fn new(
        version: ProtocolVersion,
        key: TeeKey,
        cookies: Cookies,
        token: Zeroizing<String>,
    ) -> Result<Self> {
        // What else it is made of is the broker's matter.
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Config {
                what: "an attestation token is printable ASCII without spaces",
            });
        }
        Ok(Self {
            version,
            key,
            cookies,
            token,
        })
    }

    pub(super) fn from_token(
        version: ProtocolVersion,
        key: TeeKey,
        token: Zeroizing<String>,
    ) -> Result<Self> {
        let token = Zeroizing::new(token.trim().to_owned());
        Self::new(version, key, Cookies::default(), token)
    }

    pub(super) fn version(&self) -> ProtocolVersion {
        self.version
    }

    pub(super) fn key(&self) -> &TeeKey {
        &self.key
    }

    pub(super) fn token(&self) -> &Zeroizing<String> {
        &self.token
    }

    /// The value of `Cookie`, if there is one.
    pub(super) fn cookies(&self) -> Option<Zeroizing<String>> {
        self.cookies.header()
    }

    /// The header with the token. It goes along with the cookie, for brokers that have forgotten the session but
    /// still know their signature.
    pub(super) fn token_header(&self, headers: &Headers) -> Option<(&'static str, Zeroizing<String>)> {
        if !self.cookies.is_empty() && self.token.len() > MAX_TOKEN_BESIDE_COOKIE {
            return None;
        }
        Some(if headers.authorization.is_some() {
            ("attestation", self.token.clone())
        } else {
            // Brokers take this spelling alone.
            ("authorization", Zeroizing::new(format!("Bearer {}", *self.token)))
        })
    }
}

/// All cookies that a broker and what stands before it have set, as they were set. What expires when is left to them:
/// by this machine's clock a fresh session may seem to be over.
#[derive(Default)]
pub(super) struct Cookies(Vec<(String, Zeroizing<String>)>);

impl Cookies {
    pub(super) fn take_from(&mut self, response: &Response) {
        for cookie in &response.cookies {
            let Some((name, value)) = cookie.split(';').next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            let (name, value) = (name.trim(), Zeroizing::new(value.trim().to_owned()));
            let is_printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            let fits = name.len() + value.len() <= MAX_COOKIE;
            if name.is_empty() || !fits || !is_printable(name) || !is_printable(&value) {
                continue;
            }
            if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| known == name) {
                *known = value;
            } else if self.0.len() < MAX_COOKIES {
                self.0.push((name.to_owned(), value));
            }
        }
    }

    pub(super) fn has_session(&self) -> bool {
        self.0
            .iter()
            .any(|(name, value)| name == SESSION_COOKIE && !value.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn header(&self) -> Option<Zeroizing<String>> {
        if self.0.is_empty() {
            return None;
        }
        let mut header = Zeroizing::new(String::new());
        for (name, value) in &self.0 {
            if !header.is_empty() {
                header.push_str("; ");
            }
            header.push_str(name);
            header.push('=');
            header.push_str(value);
        }
        Some(header)
    }
}

/// Headers that do not depend on the session.
#[derive(Default)]
pub(super) struct Headers {
    /// The API key, with `Bearer` before it.
    authorization: Option<Zeroizing<String>>,
    instance_info: Option<String>,
}

impl Headers {
    pub(super) fn set_api_key(&mut self, key: &str) {
        self.authorization = Some(Zeroizing::new(format!("Bearer {}", key.trim())));
    }

    pub(super) fn set_instance_info(&mut self, json: &str) {
        self.instance_info = Some(on_one_line(json));
    }

    pub(super) fn has_api_key(&self) -> bool {
        self.authorization.is_some()
    }

    pub(super) fn check(&self) -> Result<()> {
        let is_printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let api_key = self
            .authorization
            .as_deref()
            .map(|value| value.trim_start_matches("Bearer "));
        if api_key.is_some_and(|key| key.is_empty() || key.contains(' ') || !is_printable(key)) {
            return Err(Error::Config {
                what: "an API key is printable ASCII without spaces",
            });
        }
        if self
            .instance_info
            .as_deref()
            .is_some_and(|json| !is_printable(json))
        {
            return Err(Error::Config {
                what: "the instance information is no JSON: it holds characters that JSON has no place for",
            });
        }
        Ok(())
    }

    /// What goes with every request.
    pub(super) fn for_request(&self) -> Vec<(&'static str, &str)> {
        self.authorization
            .iter()
            .map(|value| ("authorization", value.as_str()))
            .collect()
    }

    pub(super) fn instance_info(&self) -> Option<(&'static str, &str)> {
        self.instance_info.as_deref().map(|json| ("aainstanceinfo", json))
    }
}

/// JSON as a header may hold it: what is not ASCII can only stand in strings, where it is escaped, and lines only end
/// between them.
fn on_one_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for char in json.trim().chars() {
        match char {
            '\n' | '\r' | '\t' => line.push(' '),
            _ if char.is_ascii() => line.push(char),
            _ => line.extend(
                char.encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            ),
        }
    }
    line
}
