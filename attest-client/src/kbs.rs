//! The client of a key broker: attests, and fetches what the broker has for this machine.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::evidence::{EvidenceProvider, ProtocolVersion};
use crate::http::{BaseUrl, Deadline, Http, Request, Retry, Settings};
use crate::messages::Jwe;
use crate::resource::ResourceUri;
use crate::tee_key::{TeeKey, TeeKeyKind};

mod handshake;
mod session;
mod verdict;

use session::{Headers, Session};
use verdict::Verdict;

/// Most bytes of an answer that holds a resource, unless told otherwise.
const MAX_RESOURCE: usize = 16 << 20;
/// And at most, whatever was told.
const LARGEST_RESOURCE: usize = 1 << 30;
/// How often a call goes on with another session before it gives up: the first was made by an earlier call, and the
/// second, it may be, by another thread.
const SESSIONS: usize = 3;

/// What is told that deserves a person's attention.
type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// A blocking client of one broker.
///
/// It attests when it first has to, with a fresh TEE key, and keeps the session for as long as the broker takes it.
/// When it does not any longer, there is one more handshake. Any number of threads may share the client.
pub struct KbsClient {
    http: Http,
    evidence: Option<Box<dyn EvidenceProvider>>,
    options: Options,
    state: Mutex<State>,
    /// Held during a handshake, so that threads that share the client share that too.
    handshaking: Mutex<()>,
}

/// What the builder collects besides [`Settings`].
struct Options {
    deadline: Option<Duration>,
    version: Option<ProtocolVersion>,
    key_kind: TeeKeyKind,
    headers: Headers,
    init_data: Option<String>,
    max_resource: usize,
    warn: Option<Warn>,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    /// The version that the broker was found to speak.
    version: Option<ProtocolVersion>,
    /// Whether it was said that this one is old.
    warned_of_version: bool,
}

impl KbsClient {
    /// A client of the broker at `url`: `http(s)://host[:port][/prefix]`, to which `/kbs/v0/...` is appended.
    #[must_use]
    pub fn builder(url: &str) -> KbsClientBuilder {
        KbsClientBuilder {
            url: url.to_owned(),
            settings: Ok(Settings::default()),
            evidence: None,
            session: None,
            options: Options {
                deadline: Some(Duration::from_secs(300)),
                version: None,
                key_kind: TeeKeyKind::default(),
                headers: Headers::default(),
                init_data: None,
                max_resource: MAX_RESOURCE,
                warn: None,
            },
        }
    }

    /// Fetches a resource. Attests first where there is no session yet, or none that the broker still takes.
    ///
    /// # Errors
    /// [`Error::PolicyDenied`], [`Error::ResourceNotFound`] and other verdicts after one handshake at most,
    /// [`Error::AttestationRefused`], [`Error::Version`], [`Error::Evidence`], [`Error::Unreachable`],
    /// [`Error::Tls`], [`Error::Deadline`], [`Error::Jwe`], and what else the variants of [`Error`] say.
    pub fn get_resource(&self, resource: &ResourceUri) -> Result<Zeroizing<Vec<u8>>> {
        let deadline = self.deadline();
        let mut stale = None;
        for _ in 0..SESSIONS {
            let (session, fresh) = self.session(stale.as_ref(), deadline)?;
            match self.fetch(&session, resource, deadline)? {
                Fetched::Resource(resource) => return Ok(resource),
                Fetched::SessionGone { name, detail } if fresh => {
                    return Err(Error::SessionLost { name, detail });
                }
                Fetched::SessionGone { name, detail } => {
                    if self.evidence.is_none() {
                        return Err(Error::TokenRefused { name, detail });
                    }
                    log::debug!("the broker does not take the session any longer ({name})");
                    stale = Some(session);
                }
            }
        }
        Err(Error::SessionLost {
            name: "TokenNotFound".to_owned(),
            detail: format!("{SESSIONS} sessions in a row"),
        })
    }

    /// The attestation token of this session: attests where there is none. It may have expired; only the broker can
    /// tell, and [`forget`](Self::forget) makes room for another.
    ///
    /// # Errors
    /// As [`get_resource`](Self::get_resource), but for those of the resource.
    pub fn token(&self) -> Result<Zeroizing<String>> {
        let (session, _) = self.session(None, self.deadline())?;
        Ok(session.token().clone())
    }

    /// Drops the session with its key and token. The next call attests anew.
    pub fn forget(&self) {
        self.state().session = None;
    }

    /// The version of the protocol that the broker was found to speak, once there was a handshake.
    #[must_use]
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.options.version.or(self.state().version)
    }

    /// Asks the broker for a challenge and goes no further: whether it can be reached, and which version of the protocol
    /// it speaks. It is shown nothing but the kind of the evidence; whether it would hand out a key stays open.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Tls`], [`Error::Version`], [`Error::AttestationRefused`] where it takes no such
    /// evidence, [`Error::Deadline`], and what else the variants of [`Error`] say.
    pub fn probe(&self) -> Result<ProtocolVersion> {
        let evidence = self.evidence.as_deref().ok_or(Error::Config {
            what: "a broker is asked for a challenge to evidence of some kind, and there is none",
        })?;
        let (version, _, _) = self.challenge(evidence.tee(), self.deadline())?;
        Ok(version)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.options.deadline, self.http.clock())
    }

    /// A session other than `stale`, and whether it was made just now.
    fn session(&self, stale: Option<&Arc<Session>>, deadline: Deadline) -> Result<(Arc<Session>, bool)> {
        if let Some(session) = self.kept_session(stale) {
            return Ok((session, false));
        }
        let _turn = self.handshaking.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have made one while this one waited for its turn.
        if let Some(session) = self.kept_session(stale) {
            return Ok((session, false));
        }
        let session = Arc::new(self.handshake(deadline)?);
        self.state().session = Some(Arc::clone(&session));
        Ok((session, true))
    }

    fn kept_session(&self, stale: Option<&Arc<Session>>) -> Option<Arc<Session>> {
        self.state()
            .session
            .clone()
            .filter(|session| !stale.is_some_and(|stale| Arc::ptr_eq(stale, session)))
    }

    fn fetch(&self, session: &Session, resource: &ResourceUri, deadline: Deadline) -> Result<Fetched> {
        let path = format!("/kbs/v0/resource/{}", resource.path());
        let cookies = session.cookies();
        let token = session.token_header(&self.options.headers);
        let mut headers = self.options.headers.for_request();
        headers.extend(cookies.as_ref().map(|cookies| ("cookie", cookies.as_str())));
        headers.extend(token.as_ref().map(|(name, value)| (*name, value.as_str())));
        headers.extend(self.options.headers.instance_info());
        let response = self.http.send(
            &Request {
                method: "GET",
                path: &path,
                headers,
                body: None,
                answer: "the resource",
                max: self.options.max_resource,
                retry: Retry::Transient,
            },
            deadline,
        )?;
        if response.is_success() {
            let jwe: Jwe = serde_json::from_slice(&response.body).map_err(|_| {
                self.http
                    .malformed("what it sent in place of the resource is no JWE in JSON")
            })?;
            return jwe.open(session.key(), session.version()).map(Fetched::Resource);
        }
        let Some(information) = response.verdict() else {
            // A head that is too long for a proxy may be so for its token.
            if cookies.is_none()
                && matches!(response.status, 400 | 414 | 431 | 494)
                && self.evidence.is_some()
            {
                return Ok(Fetched::SessionGone {
                    name: response.status.to_string(),
                    detail: "the token is too long for a header".to_owned(),
                });
            }
            return Err(self.http.unexpected(&response));
        };
        match verdict::of_resource(&information, response.status, resource, session.key().kind()) {
            Verdict::SessionGone { name, detail } => Ok(Fetched::SessionGone { name, detail }),
            Verdict::Final(error) => Err(error),
        }
    }

    fn warn(&self, text: &str) {
        match &self.options.warn {
            Some(warn) => warn(text),
            None => log::warn!("{text}"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KbsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KbsClient")
            .field("url", &self.http.base().to_string())
            .field("evidence", &self.evidence)
            .finish_non_exhaustive()
    }
}

enum Fetched {
    Resource(Zeroizing<Vec<u8>>),
    SessionGone { name: String, detail: String },
}

/// Makes a [`KbsClient`]. What is wrong with an option shows in [`build`](Self::build).
pub struct KbsClientBuilder {
    url: String,
    settings: Result<Settings>,
    evidence: Option<Box<dyn EvidenceProvider>>,
    session: Option<(Zeroizing<String>, TeeKey)>,
    options: Options,
}

impl KbsClientBuilder {
    /// Where evidence comes from.
    #[must_use]
    pub fn evidence(mut self, evidence: impl EvidenceProvider + 'static) -> Self {
        self.evidence = Some(Box::new(evidence));
        self
    }

    /// A token from elsewhere, such as [`GuestClient::token`](crate::GuestClient::token), and the key that it
    /// speaks of. While the broker takes it there is no handshake.
    #[must_use]
    pub fn token(mut self, token: Zeroizing<String>, key: TeeKey) -> Self {
        self.session = Some((token, key));
        self
    }

    /// Trusts the CA certificates in this PEM, besides those of the system.
    #[must_use]
    pub fn add_ca(self, pem: &str) -> Self {
        self.setting(|settings| settings.add_ca(pem))
    }

    /// Goes through this http or https proxy. Without it the environment decides: `HTTPS_PROXY` or `HTTP_PROXY`, as
    /// the broker's URL begins, else `ALL_PROXY`, but for what `NO_PROXY` names; each in small letters first. There is
    /// never a proxy to this machine itself.
    #[must_use]
    pub fn proxy(self, url: &str) -> Self {
        self.setting(|settings| settings.set_proxy(url))
    }

    /// How long each request may take: 60 seconds unless told otherwise.
    #[must_use]
    pub fn request_timeout(self, time: Duration) -> Self {
        self.setting(|settings| {
            settings.request_timeout = time;
            Ok(())
        })
    }

    /// How long each call may take with all its requests, evidence and pauses; none for as long as it takes. Five
    /// minutes, the life of a session, unless told otherwise.
    #[must_use]
    pub fn deadline(mut self, time: Option<Duration>) -> Self {
        self.options.deadline = time;
        self
    }

    /// How often a request is made where it may help to make it again: 5 times unless told otherwise, at least once.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        self.setting(|settings| {
            settings.attempts = attempts.max(1);
            Ok(())
        })
    }

    /// What tells the time and waits.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        self.setting(|settings| {
            settings.clock = clock;
            Ok(())
        })
    }

    /// Speaks this version of the protocol and no other. Unless told so it begins with 0.4.0 and goes by what the
    /// broker answers.
    #[must_use]
    pub fn protocol_version(mut self, version: ProtocolVersion) -> Self {
        self.options.version = Some(version);
        self
    }

    /// The kind of TEE key that resources shall be sealed to. Brokers of before 0.2.0 know RSA1_5 alone, and get
    /// that whatever is asked for here.
    #[must_use]
    pub fn tee_key_kind(mut self, kind: TeeKeyKind) -> Self {
        self.options.key_kind = kind;
        self
    }

    /// An API key for what stands before the broker: it goes as `Authorization: Bearer`, and the attestation token
    /// in a header of its own, as the openanolis fork has it.
    #[must_use]
    pub fn api_key(mut self, key: &str) -> Self {
        self.options.headers.set_api_key(key);
        self
    }

    /// What the attestation agent knows of this instance, in JSON, for the audit log of the openanolis fork.
    #[must_use]
    pub fn instance_info(mut self, json: &str) -> Self {
        self.options.headers.set_instance_info(json);
        self
    }

    /// The TOML that the guest was launched with, if its digest is in the evidence.
    #[must_use]
    pub fn init_data(mut self, toml: &str) -> Self {
        self.options.init_data = Some(toml.to_owned());
        self
    }

    /// Most bytes of an answer that holds a resource: a third more than the resource itself. 16 MiB unless told
    /// otherwise, and never more than 1 GiB: memory for as much as a broker announces is taken at once.
    #[must_use]
    pub fn max_resource(mut self, bytes: usize) -> Self {
        self.options.max_resource = bytes.min(LARGEST_RESOURCE);
        self
    }

    /// Told what deserves a person's attention, such as a broker that is reached over plain http. Without this it
    /// is logged as a warning.
    #[must_use]
    pub fn on_warning(mut self, warn: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.options.warn = Some(Arc::new(warn));
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Config`] where an option cannot be used, or there is neither evidence nor a token.
    pub fn build(self) -> Result<KbsClient> {
        let base = BaseUrl::parse(&self.url)?;
        if self.evidence.is_none() && self.session.is_none() {
            return Err(Error::Config {
                what: "a client of a key broker needs evidence, or a token",
            });
        }
        self.options.headers.check()?;
        let plain = !base.is_https() && !base.is_loopback();
        let http = Http::new(base, self.settings?, true)?;
        let mut state = State::default();
        if let Some((token, key)) = self.session {
            let version = self.options.version.unwrap_or(ProtocolVersion::V0_4_0);
            state.session = Some(Arc::new(Session::from_token(version, key, token)?));
        }
        let client = KbsClient {
            http,
            evidence: self.evidence,
            options: self.options,
            state: Mutex::new(state),
            handshaking: Mutex::new(()),
        };
        if plain {
            client.warn(&format!(
                "{} is plain http: who can read what travels there has the session's cookie and the attestation \
                 token{}, and who can change it can hand out a key of their own, and a model to match. Use https, or \
                 have the model's issuer checked",
                client.http.base(),
                if client.options.headers.has_api_key() {
                    ", and the API key"
                } else {
                    ""
                }
            ));
        }
        Ok(client)
    }

    fn setting(mut self, set: impl FnOnce(&mut Settings) -> Result<()>) -> Self {
        self.settings = self
            .settings
            .and_then(|mut settings| set(&mut settings).map(|()| settings));
        self
    }
}

impl fmt::Debug for KbsClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KbsClientBuilder")
            .field("evidence", &self.evidence)
            .finish_non_exhaustive()
    }
}
