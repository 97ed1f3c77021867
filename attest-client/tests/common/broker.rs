//! A broker made of the literal bytes that brokers send, which a test may replace one by one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use attest_client::messages::TeePublicKey;
use attest_client::{EvidenceProvider, EvidenceRequest};
use aws_lc_rs::digest::{SHA384, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::seal;
use crate::server::{Answer, Request, Server, answer};

/// What the broker has at [`RESOURCE`].
pub(crate) const SECRET: &[u8] = b"0Bn4Q1wwY9fN3P";
pub(crate) const RESOURCE: &str = "kbs:///default/key/one";
const RESOURCE_PATH: &str = "/kbs/v0/resource/default/key/one";

/// An error as brokers send it: without a type of content.
pub(crate) fn error(status: &str, name: &str, detail: &str) -> Answer {
    let body = format!(
        r#"{{"type":"https://github.com/confidential-containers/kbs/errors/{name}","detail":"{detail}"}}"#
    );
    answer(status, "", body)
}

/// How brokers of each line refuse a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Trustee since 0.12, and the openanolis fork 1.1.3 to 1.3.
    Upstream,
    /// The fork 1.4 to 1.6.
    Fork500,
    /// The fork since 1.6.2.
    Fork502,
    /// Trustee 0.10 and 0.11.
    Upstream010,
    /// The fork up to 1.1.2.
    Fork10,
    /// Trustee 0.8 and 0.9.
    Upstream08,
}

impl Line {
    fn refusal(self, expected: &str, requested: &str) -> Answer {
        let detail = format!(
            "Attestation error: RCAR handshake Auth failed: KBS Client Protocol Version Mismatch: expect ={expected} \
             while the request is {requested}"
        );
        match self {
            Self::Upstream => error("401 Unauthorized", "AttestationError", &detail),
            Self::Fork500 => error("500 Internal Server Error", "AttestationError", &detail),
            Self::Fork502 => error("502 Bad Gateway", "AttestationError", &detail),
            Self::Upstream010 => error(
                "401 Unauthorized",
                "ProtocolVersion",
                &format!(
                    "KBS Client Protocol Version Mismatch: expected version: ={expected}, requested version: {requested}"
                ),
            ),
            Self::Fork10 => error(
                "401 Unauthorized",
                "ProtocolVersion",
                &format!(
                    "KBS Client Protocol Version Mismatch: expected version: <={expected}, requested version: \
                     {requested}"
                ),
            ),
            Self::Upstream08 => error(
                "401 Unauthorized",
                "FailedAuthentication",
                &format!("Authentication failed: Session: Invalid Request version {requested}"),
            ),
        }
    }
}

/// What a test changes.
type Fault = dyn Fn(&Request) -> Option<Answer> + Send + Sync;

pub(crate) struct Broker {
    version: Mutex<&'static str>,
    line: Line,
    /// What `Set-Cookie` says after the session's name.
    cookie_attributes: Mutex<String>,
    sessions: Mutex<HashMap<String, Session>>,
    /// Keys by the token that names them.
    tokens: Mutex<HashMap<String, TeePublicKey>>,
    token_padding: usize,
    secret: Vec<u8>,
    made: AtomicUsize,
    fault: Box<Fault>,
}

#[derive(Clone)]
struct Session {
    nonce: String,
    key: Option<TeePublicKey>,
}

impl Broker {
    /// One that speaks the version and does what it should, unless `fault` answers first.
    pub(crate) fn new(
        version: &'static str,
        line: Line,
        fault: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self {
            version: Mutex::new(version),
            line,
            cookie_attributes: Mutex::new("; Expires=Mon, 23 Nov 2026 02:55:23 GMT".to_owned()),
            sessions: Mutex::default(),
            tokens: Mutex::default(),
            token_padding: 0,
            secret: SECRET.to_vec(),
            made: AtomicUsize::new(0),
            fault: Box::new(fault),
        }
    }

    pub(crate) fn with_cookie_attributes(self, attributes: &str) -> Self {
        attributes.clone_into(&mut self.cookie_attributes.lock().unwrap());
        self
    }

    /// With tokens so many bytes longer, as event logs make them.
    pub(crate) fn with_token_padding(mut self, bytes: usize) -> Self {
        self.token_padding = bytes;
        self
    }

    /// With another resource than [`SECRET`].
    pub(crate) fn with_secret(mut self, secret: &[u8]) -> Self {
        self.secret = secret.to_vec();
        self
    }

    pub(crate) fn start(self) -> (Server, Arc<Self>) {
        let broker = Arc::new(self);
        let server = Server::new({
            let broker = Arc::clone(&broker);
            move |request| broker.handle(request)
        });
        (server, broker)
    }

    /// Forgets the sessions, as a broker does that is started again, and its tokens unless it kept its signing key.
    pub(crate) fn restart(&self, keeps_signing_key: bool) {
        self.sessions.lock().unwrap().clear();
        if !keeps_signing_key {
            self.tokens.lock().unwrap().clear();
        }
    }

    pub(crate) fn upgrade(&self, version: &'static str) {
        *self.version.lock().unwrap() = version;
        self.restart(false);
    }

    pub(crate) fn handle(&self, request: &Request) -> Answer {
        if let Some(answer) = (self.fault)(request) {
            return answer;
        }
        // What stands before a broker strips its prefix.
        let path = request.target.find("/kbs/v0/").map(|at| &request.target[at..]);
        match (request.method.as_str(), path) {
            ("POST", Some("/kbs/v0/auth")) => self.auth(request),
            ("POST", Some("/kbs/v0/attest")) => self.attest(request),
            ("GET", Some(path)) if path.starts_with("/kbs/v0/resource/") => self.resource(request, path),
            _ => answer("404 Not Found", "", ""),
        }
    }

    fn auth(&self, request: &Request) -> Answer {
        let version = *self.version.lock().unwrap();
        let json = request.json();
        if version == "0.1.0" && !json["extra-params"].is_string() {
            return error(
                "401 Unauthorized",
                "AttestationError",
                "RCAR handshake Auth failed: deserialize Request",
            );
        }
        if json["version"] != version {
            return self.line.refusal(version, json["version"].as_str().unwrap());
        }
        assert_eq!(json.as_object().unwrap().len(), 3, "{json}");
        assert_eq!(json["tee"], "sample");
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        let id = format!("77cd86b52a294f1aa7c7435a2f46{number:04x}");
        let nonce = STANDARD.encode(
            digest(&SHA384, id.as_bytes())
                .as_ref()
                .first_chunk::<32>()
                .unwrap(),
        );
        let body = format!(r#"{{"nonce":"{nonce}","extra-params":""}}"#);
        let cookie = self.set_cookie(&id);
        self.sessions
            .lock()
            .unwrap()
            .insert(id, Session { nonce, key: None });
        answer(
            "200 OK",
            &format!("content-type: application/json\r\n{cookie}"),
            body,
        )
    }

    fn attest(&self, request: &Request) -> Answer {
        let version = *self.version.lock().unwrap();
        let failed = || match self.line {
            Line::Fork500 => error("500 Internal Server Error", "AttestationError", ATTEST_FAILED),
            Line::Fork502 => error("502 Bad Gateway", "AttestationError", ATTEST_FAILED),
            _ => error("401 Unauthorized", "AttestationError", ATTEST_FAILED),
        };
        let Some((id, session)) = self.session(request) else {
            return failed();
        };
        let json = request.json();
        let (key, additional, evidence) = if version == "0.4.0" {
            if json["runtime-data"]["nonce"] != session.nonce {
                return failed();
            }
            let evidence = &json["tee-evidence"];
            (
                json["runtime-data"]["tee-pubkey"].clone(),
                Some(evidence["additional_evidence"].as_str().unwrap().to_owned()),
                evidence["primary_evidence"].clone(),
            )
        } else {
            let evidence = match &json["tee-evidence"] {
                Value::String(text) if version == "0.1.0" => serde_json::from_str(text).unwrap(),
                Value::Object(_) if version != "0.1.0" => json["tee-evidence"].clone(),
                _ => return failed(),
            };
            (json["tee-pubkey"].clone(), None, evidence)
        };
        if evidence["report_data"] != expected_report_data(additional.as_deref(), &session.nonce, &key) {
            return failed();
        }
        let token = format!(
            "eyJhbGciOiJFUzI1NiJ9.{id}.{}",
            "A".repeat(64 + self.token_padding)
        );
        let key: TeePublicKey = serde_json::from_value(key).unwrap();
        self.tokens.lock().unwrap().insert(token.clone(), key.clone());
        let cookie = self.set_cookie(&id);
        self.sessions.lock().unwrap().insert(
            id,
            Session {
                nonce: session.nonce,
                key: Some(key),
            },
        );
        let body = json!({ "token": token }).to_string();
        answer(
            "200 OK",
            &format!("content-type: application/json\r\n{cookie}"),
            body,
        )
    }

    fn resource(&self, request: &Request, path: &str) -> Answer {
        let by_cookie = self.session(request).and_then(|(_, session)| session.key);
        let token = request
            .header("attestation")
            .or_else(|| request.header("authorization")?.strip_prefix("Bearer "));
        let by_token = token.map(|token| self.tokens.lock().unwrap().get(token).cloned());
        let key = match (by_cookie, by_token) {
            (Some(key), _) | (None, Some(Some(key))) => key,
            (None, Some(None)) => {
                return error("401 Unauthorized", "TokenVerifierError", "Token Verifier error");
            }
            (None, None) => {
                return error("401 Unauthorized", "TokenNotFound", "Attestation Token not found");
            }
        };
        if path != RESOURCE_PATH {
            return error("401 Unauthorized", "PluginInternalError", "Plugin internal error");
        }
        answer(
            "200 OK",
            "content-type: application/json\r\n",
            self.sealed(&key, &self.secret),
        )
    }

    /// The resource as this version seals it, in JSON.
    pub(crate) fn sealed(&self, key: &TeePublicKey, secret: &[u8]) -> String {
        let old = matches!(*self.version.lock().unwrap(), "0.1.0" | "0.1.1");
        let jwe = if old {
            seal::seal_old(key, secret)
        } else {
            seal::seal(key, secret)
        };
        serde_json::to_string(&jwe).unwrap()
    }

    fn session(&self, request: &Request) -> Option<(String, Session)> {
        let cookies = request.header("cookie")?;
        let id = cookies
            .split("; ")
            .find_map(|cookie| cookie.strip_prefix("kbs-session-id="))?;
        Some((id.to_owned(), self.sessions.lock().unwrap().get(id)?.clone()))
    }

    fn set_cookie(&self, id: &str) -> String {
        format!(
            "set-cookie: kbs-session-id={id}{}\r\n",
            self.cookie_attributes.lock().unwrap()
        )
    }
}

pub(crate) const ATTEST_FAILED: &str = "Attestation error: RCAR handshake Attest failed";

/// Put together by hand, in the order that RFC 8785 sorts to.
fn expected_report_data(additional: Option<&str>, nonce: &str, key: &Value) -> String {
    let members: &[&str] = if key["kty"] == "EC" {
        &["alg", "crv", "kty", "x", "y"]
    } else {
        &["alg", "e", "kty", "n"]
    };
    assert_eq!(key.as_object().unwrap().len(), members.len(), "{key}");
    let key: Vec<String> = members
        .iter()
        .map(|name| format!(r#""{name}":"{}""#, key[*name].as_str().unwrap()))
        .collect();
    let additional = additional.map_or(String::new(), |text| {
        format!(r#""additional-evidence":"{text}","#)
    });
    let data = format!(
        r#"{{{additional}"nonce":"{nonce}","tee-pubkey":{{{}}}}}"#,
        key.join(",")
    );
    STANDARD.encode(digest(&SHA384, data.as_bytes()))
}

/// Evidence of the sample kind, and how often it was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct CountedEvidence(pub(crate) Arc<AtomicUsize>);

impl EvidenceProvider for CountedEvidence {
    fn tee(&self) -> &'static str {
        "sample"
    }

    fn evidence(&self, request: &EvidenceRequest<'_>) -> attest_client::Result<Value> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(json!({"svn": "1", "report_data": STANDARD.encode(request.report_data)}))
    }
}
