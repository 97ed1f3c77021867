//! Sessions, by their cookies.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;

use crate::messages::ProtocolVersion;

/// Sessions that are kept. The oldest goes first.
const MAX: usize = 4096;

/// Bytes of tokens that are kept with them. They grow with evidence and init data, which clients choose.
const MAX_TOKENS: usize = 64 << 20;

/// Name of the cookie.
const COOKIE: &str = "kbs-session-id";

/// One client on its way to a token.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) version: ProtocolVersion,
    pub(super) tee: String,
    pub(super) nonce: String,
    /// Once it has attested.
    pub(super) token: Option<String>,
    expires: SystemTime,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: HashMap<String, Session>,
    /// As they came, and as all live equally long, as they expire.
    order: VecDeque<String>,
    /// Bytes of all their tokens.
    tokens: usize,
}

impl Sessions {
    /// Begins one. Returns its `Set-Cookie`.
    pub(super) fn begin(
        &mut self,
        version: ProtocolVersion,
        tee: String,
        nonce: String,
        now: SystemTime,
        lifetime: Duration,
    ) -> String {
        while let Some(oldest) = self.order.front()
            && (self.order.len() >= MAX || self.by_id.get(oldest).is_none_or(|session| session.expires < now))
        {
            self.drop_oldest();
        }
        let id = new_id();
        let session = Session {
            version,
            tee,
            nonce,
            token: None,
            expires: now + lifetime,
        };
        let cookie = session.cookie(&id);
        self.by_id.insert(id.clone(), session);
        self.order.push_back(id);
        cookie
    }

    /// The session with this ID, unless it has expired.
    pub(super) fn get(&self, id: &str, now: SystemTime) -> Option<&Session> {
        self.by_id.get(id).filter(|session| session.expires >= now)
    }

    /// Notes that a session has attested.
    pub(super) fn attested(&mut self, id: &str, token: &str) {
        let Some(session) = self.by_id.get_mut(id) else {
            return;
        };
        let before = session.token.replace(token.to_owned());
        self.tokens += token.len();
        self.tokens -= before.map_or(0, |token| token.len());
        while self.tokens > MAX_TOKENS && self.order.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.order.pop_front();
        let dropped = oldest.and_then(|oldest| self.by_id.remove(&oldest));
        self.tokens -= dropped
            .and_then(|session| session.token)
            .map_or(0, |token| token.len());
    }
}

impl Session {
    /// The `Set-Cookie` of this session. There is no path and nothing else in it: so it is on real servers.
    pub(super) fn cookie(&self, id: &str) -> String {
        format!("{COOKIE}={id}; Expires={}", httpdate::fmt_http_date(self.expires))
    }
}

/// The ID in the `Cookie` headers of a request.
pub(super) fn id_of<'a>(cookies: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    cookies
        .flat_map(|header| header.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// A random UUID (RFC 9562, version 4) without its dashes.
fn new_id() -> String {
    let mut bytes = [0; 16];
    // AWS-LC's generator aborts rather than fail.
    let _ = rand::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes.iter().fold(String::with_capacity(32), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn begin(sessions: &mut Sessions, now: SystemTime) -> String {
        let cookie = sessions.begin(
            ProtocolVersion::V0_4_0,
            "tdx".into(),
            "n".into(),
            now,
            10 * SECOND,
        );
        let (id, rest) = cookie.split_once("; Expires=").unwrap();
        assert!(rest.ends_with(" GMT"), "{rest}");
        id_of([id].into_iter()).unwrap().to_owned()
    }

    #[test]
    fn sessions_expire_and_make_room() {
        let now = SystemTime::UNIX_EPOCH + 1_000_000 * SECOND;
        let mut sessions = Sessions::default();
        let first = begin(&mut sessions, now);
        assert_eq!((first.len(), &first[12..13]), (32, "4"));
        assert!(sessions.get(&first, now + 10 * SECOND).is_some());
        assert!(sessions.get(&first, now + 11 * SECOND).is_none());
        let second = begin(&mut sessions, now + 11 * SECOND);
        assert_eq!(sessions.by_id.len(), 1, "the expired one is gone");
        for _ in 0..MAX {
            begin(&mut sessions, now + 11 * SECOND);
        }
        assert_eq!((sessions.by_id.len(), sessions.order.len()), (MAX, MAX));
        assert!(sessions.get(&second, now + 11 * SECOND).is_none());
    }

    #[test]
    fn tokens_make_room_too() {
        let now = SystemTime::UNIX_EPOCH + 1_000_000 * SECOND;
        let mut sessions = Sessions::default();
        let token = "x".repeat(MAX_TOKENS / 3);
        let ids: Vec<_> = (0..5).map(|_| begin(&mut sessions, now)).collect();
        for id in &ids {
            sessions.attested(id, &token);
            // And the same again is no more.
            sessions.attested(id, &token);
            assert!(sessions.tokens <= MAX_TOKENS);
        }
        let kept = ids.iter().filter(|id| sessions.get(id, now).is_some()).count();
        assert_eq!((kept, sessions.tokens), (3, 3 * token.len()));
        begin(&mut sessions, now + 60 * SECOND);
        assert_eq!((sessions.by_id.len(), sessions.tokens), (1, 0));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        for (headers, id) in [
            (vec!["kbs-session-id=a"], Some("a")),
            (vec!["x=1; kbs-session-id=b ; y=2"], Some("b")),
            (vec!["x=1", "kbs-session-id=c"], Some("c")),
            (vec!["kbs-session-idx=d", "Kbs-session-id=e", ""], None),
        ] {
            assert_eq!(id_of(headers.into_iter()), id);
        }
    }
}
