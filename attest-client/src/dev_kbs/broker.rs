//! The broker's endpoints, from request to answer.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::rand;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{AdminEndpoint, AdminRefusal, Answer, Dialect, Fault, Refusal, ordered};
use super::policy::Policy;
use super::seal::seal;
use super::session::{Session, Sessions, id_of};
use super::store::Store;
use super::token::{Admin, Appraisal, Bearer, Issuer};
use super::verifier::{Evidence, Verdict, Verifier};
use super::{Clock, Family, Notes};
use crate::messages::{
    AttestRequest, AuthRequest, InitData, OldAttestRequest, ProtocolVersion, RuntimeData, TeePublicKey,
};
use crate::resource::ResourceUri;

/// Kinds of TEE that servers know by name, whether they can verify them or not.
const TEES: [&str; 10] = [
    "nvidia", "sgx", "snp", "tdx", "cca", "csv", "se", "hygondcu", "sample", "tpm",
];
/// Those that only Trustee knows today, and those that the fork and older servers know.
const TEES_NEW: [&str; 5] = [
    "az-snp-vtpm",
    "az-tdx-vtpm",
    "nvidia-dpu",
    "nvidiadpu",
    "sampledevice",
];
const TEES_OLD: [&str; 5] = ["azsnpvtpm", "aztdxvtpm", "sev", "system", "hygontpm"];

/// The state of a running broker.
pub(super) struct Broker {
    pub(super) family: Family,
    /// The version that refusals name.
    pub(super) version: ProtocolVersion,
    pub(super) versions: Vec<ProtocolVersion>,
    pub(super) prefix: String,
    pub(super) store: Store,
    pub(super) policy: Mutex<Policy>,
    pub(super) admin: Option<Admin>,
    pub(super) verifier: Verifier,
    pub(super) sessions: Mutex<Sessions>,
    pub(super) session_lifetime: Duration,
    pub(super) issuer: Issuer,
    pub(super) clock: Clock,
    pub(super) notes: Notes,
}

/// What an attestation comes to before it is judged.
struct Attestation {
    init_data: Option<InitData>,
    runtime: Value,
    evidence: Value,
}

#[derive(Deserialize)]
struct SetPolicy {
    policy: String,
}

#[derive(Deserialize)]
struct SetAttestationPolicy {
    policy_id: String,
    policy: String,
}

impl Broker {
    /// Answers a request. What went wrong is told to the client in a server's words and noted in plain ones.
    pub(super) fn answer(&self, head: &Parts, body: &[u8]) -> Answer {
        self.route(head, body).unwrap_or_else(|fault| {
            if let Some(cause) = fault.cause() {
                (self.notes)(&cause);
            }
            fault.answer(Dialect::of(self.family, self.version))
        })
    }

    fn route(&self, head: &Parts, body: &[u8]) -> Result<Answer, Fault> {
        let nothing = || Fault::Framework(StatusCode::NOT_FOUND, "");
        let path = decode(head.uri.path());
        let path = path.strip_prefix(self.prefix.as_str()).ok_or_else(nothing)?;
        let path = path.strip_prefix("/kbs/v0/").ok_or_else(nothing)?;
        if self.is_first() && head.method == Method::POST && !path.starts_with("resource/") {
            expect_json(head)?;
        }
        let (endpoint, rest) = path.split_once('/').unwrap_or((path, ""));
        match (endpoint, &head.method) {
            ("auth", &Method::POST) => self.auth(body),
            ("attest", &Method::POST) => self.attest(head, body),
            ("resource-policy", &Method::POST) => self.set_policy(head, body),
            ("attestation-policy", &Method::POST) => self.set_attestation_policy(head, body),
            ("resource", method) => {
                let name = ResourceUri::from_path(rest).ok();
                match *method {
                    Method::GET => self.get(head, name),
                    Method::POST => self.set(head, name, body),
                    Method::DELETE if !self.is_first() => self.delete(head, name),
                    // As it is on Trustee: a plugin that does not know the method.
                    Method::PUT if self.family == Family::Trustee && !self.is_first() => {
                        self.bearer(head).and(Err(Fault::Resource {
                            why: "the method is not one for resources".into(),
                        }))
                    }
                    _ => Err(Fault::Framework(StatusCode::METHOD_NOT_ALLOWED, "")),
                }
            }
            (name, _) => Err(Fault::Endpoint {
                name: name.to_owned(),
            }),
        }
    }

    /// Whether it speaks as the first servers did, which had no plugins.
    fn is_first(&self) -> bool {
        Dialect::of(self.family, self.version) == Dialect::TrusteeFirst
    }

    fn now(&self) -> SystemTime {
        (self.clock)()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn auth(&self, body: &[u8]) -> Result<Answer, Fault> {
        let bad = |why: String| Fault::AuthRequest { why };
        let request: AuthRequest = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
        let more = match (self.family, self.version) {
            (Family::Trustee, ProtocolVersion::V0_4_0) => &TEES_NEW,
            _ => &TEES_OLD,
        };
        let tee = request.tee.as_str();
        if !TEES.iter().chain(more).any(|known| *known == tee) {
            return Err(bad(format!("the TEE {tee:?} is not known")));
        }
        // Where only text is taken, what is none fails before anybody looks at the version.
        if self.versions == [ProtocolVersion::V0_1_0] && !request.extra_params.is_string() {
            return Err(bad("extra-params is not a string".into()));
        }
        if !is_version(&request.version) {
            return Err(Fault::AuthVersionText);
        }
        let version = self
            .versions
            .iter()
            .find(|version| version.as_str() == request.version);
        let version = *version.ok_or(Fault::AuthVersion {
            served: self.version,
            asked: request.version,
        })?;
        let mut nonce = [0; 32];
        rand::fill(&mut nonce).map_err(|_| bad("no random bytes".into()))?;
        let nonce = STANDARD.encode(nonce);
        let answer = ordered(&[("nonce", json!(nonce)), ("extra-params", json!(""))]);
        let cookie = self
            .sessions()
            .begin(version, request.tee, nonce, self.now(), self.session_lifetime);
        Ok(Answer::json(answer).with_cookie(cookie))
    }

    fn attest(&self, head: &Parts, body: &[u8]) -> Result<Answer, Fault> {
        let refused = |why| Fault::Attest { why };
        let id = session_id(head).ok_or_else(|| refused(Refusal::NoCookie))?;
        let session = self.sessions().get(id, self.now()).cloned();
        let session = session.ok_or_else(|| refused(Refusal::NoSession))?;
        let token = match &session.token {
            Some(token) => token.clone(),
            None => {
                let token = self.appraise(&session, body).map_err(refused)?;
                self.sessions().attested(id, &token);
                token
            }
        };
        Ok(Answer::json(json!({"token": token}).to_string()).with_cookie(session.cookie(id)))
    }

    /// Judges evidence and issues a token for it.
    fn appraise(&self, session: &Session, body: &[u8]) -> Result<String, Refusal> {
        let Attestation {
            init_data,
            runtime,
            evidence,
        } = attestation(session, body)?;
        let bound = serde_json_canonicalizer::to_vec(&runtime)
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let report_data = digest(&SHA384, &bound);
        let evidence = Evidence {
            family: self.family,
            tee: &session.tee,
            evidence: &evidence,
            report_data: report_data.as_ref(),
            init_data: init_data.as_ref(),
        };
        let now = self.now();
        let Verdict { claims, unchecked } = self.verifier.judge(&evidence, now).map_err(Refusal::Evidence)?;
        for what in unchecked {
            (self.notes)(&format!(
                "{} evidence accepted, NOT VERIFIED: {what}",
                session.tee
            ));
        }
        let appraisal = Appraisal {
            family: self.family,
            version: session.version,
            tee: &session.tee,
            runtime: &runtime,
            claims,
        };
        self.issuer
            .issue(appraisal, now)
            .ok_or_else(|| Refusal::Evidence("no token can be signed".into()))
    }

    /// The token of a request: that of its session, or else one that it brings.
    fn bearer(&self, head: &Parts) -> Result<Bearer, Fault> {
        let now = self.now();
        let attested = session_id(head).and_then(|id| self.sessions().get(id, now)?.token.clone());
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let brought = || match self.family {
            // The fork lets an API key take the other header.
            Family::Openanolis if head.headers.contains_key("attestation") => header("attestation"),
            _ => bearer_of(head),
        };
        let token = attested
            .map(Cow::Owned)
            .or_else(|| brought().map(Cow::Borrowed))
            .ok_or(Fault::NoToken)?;
        self.issuer
            .verify(&token, now)
            .map_err(|why| Fault::Token { why })
    }

    fn get(&self, head: &Parts, name: Option<ResourceUri>) -> Result<Answer, Fault> {
        let Bearer { version, tee, key } = self.bearer(head)?;
        if !self
            .policy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .allows(&tee)
        {
            return Err(Fault::Policy);
        }
        let name = resource(name)?;
        let failed = |error: std::io::Error| Fault::Resource {
            why: format!("{name}: {error}"),
        };
        let content = self.store.get(&name).map_err(failed)?;
        let sealed = seal(self.family, version, &key, content).map_err(|why| Fault::Jwe { why })?;
        (self.notes)(&format!("resource: {name} was handed out to {tee} evidence"));
        Ok(Answer::json(sealed))
    }

    fn set(&self, head: &Parts, name: Option<ResourceUri>, body: &[u8]) -> Result<Answer, Fault> {
        self.expect_admin(head, AdminEndpoint::Resource)?;
        let name = resource(name)?;
        let failed = |error: std::io::Error| Fault::Resource {
            why: format!("{name}: {error}"),
        };
        self.store.set(&name, body).map_err(failed)?;
        (self.notes)(&format!("resource: {name} was set, {} bytes", body.len()));
        Ok(Answer::done(Some(if self.is_first() {
            "application/json"
        } else {
            "text/xml"
        })))
    }

    fn delete(&self, head: &Parts, name: Option<ResourceUri>) -> Result<Answer, Fault> {
        self.expect_admin(head, AdminEndpoint::Resource)?;
        let name = resource(name)?;
        let failed = |error: std::io::Error| Fault::Resource {
            why: format!("{name}: {error}"),
        };
        self.store.delete(&name).map_err(failed)?;
        (self.notes)(&format!("resource: {name} was deleted"));
        Ok(Answer::done(Some("text/xml")))
    }

    fn set_policy(&self, head: &Parts, body: &[u8]) -> Result<Answer, Fault> {
        self.expect_admin(head, AdminEndpoint::ResourcePolicy)?;
        let bad = |why: &str| Fault::SetPolicy { why: why.to_owned() };
        let request: SetPolicy = serde_json::from_slice(body).map_err(|_| bad("the message is not one"))?;
        let rego = policy_text(&request.policy).ok_or_else(|| bad("it is not text in base64url"))?;
        let policy = Policy::parse(&rego).ok_or_else(|| {
            bad("all that is understood here is `package policy` and `default allow = true|false`")
        })?;
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
        (self.notes)(&format!("policy: {policy:?}"));
        Ok(Answer::done(None))
    }

    fn set_attestation_policy(&self, head: &Parts, body: &[u8]) -> Result<Answer, Fault> {
        self.expect_admin(head, AdminEndpoint::AttestationPolicy)?;
        let bad = |why: &str| Fault::SetAttestationPolicy { why: why.to_owned() };
        let request: SetAttestationPolicy =
            serde_json::from_slice(body).map_err(|_| bad("the message is not one"))?;
        policy_text(&request.policy).ok_or_else(|| bad("it is not text in base64url"))?;
        (self.notes)(&format!(
            "policy: the attestation policy {:?} was taken and is NOT EVALUATED: there is no policy engine here",
            request.policy_id
        ));
        Ok(Answer::done(None))
    }

    fn expect_admin(&self, head: &Parts, endpoint: AdminEndpoint) -> Result<(), Fault> {
        let refused = |why| Fault::Admin { endpoint, why };
        let admin = self
            .admin
            .as_ref()
            .ok_or_else(|| refused(AdminRefusal::BadToken("there is no administrator")))?;
        let token = bearer_of(head).ok_or_else(|| refused(AdminRefusal::NoHeader))?;
        admin
            .verify(self.family, token, self.now())
            .map_err(|why| refused(AdminRefusal::BadToken(why)))
    }
}

/// Reads the message of the session's version, and puts together what the evidence has to be bound to.
fn attestation(session: &Session, body: &[u8]) -> Result<Attestation, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
    match session.version {
        ProtocolVersion::V0_4_0 => {
            let request: AttestRequest = serde_json::from_slice(body).map_err(malformed)?;
            let RuntimeData { nonce, tee_pubkey } = request.runtime_data;
            if nonce != session.nonce {
                return Err(Refusal::Evidence("the nonce is not this session's".into()));
            }
            let additional = request.tee_evidence.additional_evidence;
            if !additional.is_empty() {
                return Err(Refusal::Evidence("there is no verifier for devices here".into()));
            }
            Ok(Attestation {
                init_data: request.init_data,
                runtime: json!({
                    "additional-evidence": additional, "nonce": nonce, "tee-pubkey": tee_pubkey,
                }),
                evidence: request.tee_evidence.primary_evidence,
            })
        }
        version => {
            let OldAttestRequest {
                tee_pubkey,
                tee_evidence,
            } = serde_json::from_slice(body).map_err(malformed)?;
            let evidence = match (version, tee_evidence) {
                (ProtocolVersion::V0_1_0, Value::String(text)) => {
                    serde_json::from_str(&text).map_err(|error| Refusal::Evidence(error.to_string()))?
                }
                (ProtocolVersion::V0_1_0, _) => {
                    return Err(Refusal::Malformed("tee-evidence is not a string".into()));
                }
                (_, evidence) => evidence,
            };
            if version == ProtocolVersion::V0_1_0 && !matches!(tee_pubkey, TeePublicKey::Rsa { .. }) {
                return Err(Refusal::Malformed("tee-pubkey has no n and e".into()));
            }
            Ok(Attestation {
                init_data: None,
                runtime: json!({"nonce": session.nonce, "tee-pubkey": tee_pubkey}),
                evidence,
            })
        }
    }
}

fn session_id(head: &Parts) -> Option<&str> {
    id_of(
        head.headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok()),
    )
}

/// The token behind `Bearer`, which is spelled just so.
fn bearer_of(head: &Parts) -> Option<&str> {
    let header = head.headers.get(AUTHORIZATION)?.to_str().ok()?;
    header.strip_prefix("Bearer ").filter(|token| !token.is_empty())
}

fn resource(name: Option<ResourceUri>) -> Result<ResourceUri, Fault> {
    name.ok_or_else(|| Fault::Resource {
        why: "the path is not repository/type/tag".into(),
    })
}

fn policy_text(base64: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(base64).ok()?).ok()
}

/// As the framework of the first servers wants it.
fn expect_json(head: &Parts) -> Result<(), Fault> {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return Ok(());
    }
    Err(Fault::Framework(StatusCode::BAD_REQUEST, "Content type error"))
}

/// Whether a text is three numbers with dots between them, and maybe more behind a dash or a plus (Semantic Versioning).
fn is_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let number = |part: &str| {
        part.parse::<u64>().is_ok()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
    };
    core.split('.').count() == 3 && core.split('.').all(number)
}

/// A path with its percent signs decoded, but for those that stand for a slash, a plus or a percent sign.
fn decode(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, more @ ..] = rest {
        let byte = match (first, more) {
            (b'%', [high, low, ..]) => hex_digit(*high)
                .zip(hex_digit(*low))
                .map(|(high, low)| high << 4 | low)
                .filter(|byte| !matches!(byte, b'%' | b'+' | b'/')),
            _ => None,
        };
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_digit(byte: u8) -> Option<u8> {
    u8::try_from(char::from(byte).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers() {
        for good in ["0.4.0", "0.1.0", "10.0.12", "0.4.0-rc1", "1.0.0+a"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "x", "0.4", "0.4.0.0", "0.04.0", "0.4.+1", "v0.4.0", "0.4.-0"] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn paths_are_decoded_once() {
        for (path, decoded) in [
            ("/a/%62%2e", "/a/b."),
            ("/a%2Fb", "/a%2Fb"),
            ("/%2562", "/%2562"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%zz%+1", "/%zz%+1"),
        ] {
            assert_eq!(decode(path), decoded, "{path}");
        }
    }
}
