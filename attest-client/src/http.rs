//! Requests to a broker: bounded, within their time, and again where that may help.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::messages::ErrorInformation;
use crate::shown::shown;

mod base_url;
mod exchange;
mod proxy;
mod stream;
mod tls;

pub(crate) use base_url::BaseUrl;
use exchange::{Connection, MAX_HEAD};
use proxy::Proxy;
use stream::{ProxyTrouble, Route};

/// Most bytes of an answer that says what went wrong; the rest is not looked at.
const MAX_ERROR_BODY: usize = 64 << 10;
/// Most connections that are kept for the next request.
const MAX_IDLE: usize = 4;
/// First pause before another attempt, doubled for each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest that they become.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

const USER_AGENT: &str = concat!("modelseal-attest-client/", env!("CARGO_PKG_VERSION"));

/// How requests are made.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) added_roots: Vec<CertificateDer<'static>>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) request_timeout: Duration,
    pub(crate) attempts: u32,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            added_roots: Vec::new(),
            proxy: None,
            request_timeout: Duration::from_secs(60),
            attempts: 5,
            clock: Arc::new(SystemClock),
        }
    }
}

impl Settings {
    /// Trusts the CA certificates in this PEM besides the system's.
    pub(crate) fn add_ca(&mut self, pem: &str) -> Result<()> {
        self.added_roots.extend(tls::parse_ca(pem)?);
        Ok(())
    }

    /// Goes through this proxy, whatever the environment says.
    pub(crate) fn set_proxy(&mut self, url: &str) -> Result<()> {
        self.proxy = Some(Proxy::parse(url)?);
        Ok(())
    }

    /// The proxy on the way to `base`: none to this machine, else the one set, else the environment's.
    fn proxy_to(&self, base: &BaseUrl) -> Result<Option<Proxy>> {
        if base.is_loopback() {
            return Ok(None);
        }
        self.proxy
            .clone()
            .map_or_else(|| Proxy::from_environment(base), |proxy| Ok(Some(proxy)))
    }
}

/// What to do about an attempt that came to nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Try again whenever that may help.
    Transient,
    /// Try again where nothing can have been done yet.
    Unsent,
}

/// When to stop waiting, if ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(pub(crate) Option<Instant>);

impl Deadline {
    /// So much time from now on; one that no clock can hold is none.
    pub(crate) fn after(time: Option<Duration>, clock: &dyn Clock) -> Self {
        Self(time.and_then(|time| clock.now().checked_add(time)))
    }

    /// What is left of it.
    fn left(self, clock: &dyn Clock) -> Duration {
        self.0
            .map_or(Duration::MAX, |at| at.saturating_duration_since(clock.now()))
    }
}

/// A request.
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    /// Begins with a slash.
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'static str, &'a str)>,
    /// Its type and its content.
    pub(crate) body: Option<(&'static str, &'a [u8])>,
    /// The answer, as errors name it.
    pub(crate) answer: &'static str,
    /// Most bytes of the answer.
    pub(crate) max: usize,
    pub(crate) retry: Retry,
}

/// An answer, whatever its status.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Zeroizing<Vec<u8>>,
    /// The values of `Set-Cookie`.
    pub(crate) cookies: Vec<Zeroizing<String>>,
    pub(crate) content_type: String,
    location: Option<String>,
    retry_after: Option<Duration>,
}

impl Response {
    pub(crate) fn is_success(&self) -> bool {
        self.status == 200
    }

    /// What a broker says went wrong. Proxies and gateways do not talk like this.
    pub(crate) fn verdict(&self) -> Option<ErrorInformation> {
        if self.status < 400 {
            return None;
        }
        let information: ErrorInformation = serde_json::from_slice(&self.body).ok()?;
        (!information.name().is_empty()).then_some(information)
    }

    /// Whether a broker may well answer differently in a moment.
    fn is_transient(&self) -> bool {
        self.status == 429 || (self.status >= 500 && self.verdict().is_none())
    }
}

/// Why there is no answer.
enum Failure {
    /// There is no connection.
    Unconnected(Error),
    /// The connection ended.
    Lost(Error),
    /// It took too long: to connect, or to answer.
    Late { connected: bool },
    /// And there will be none.
    Final(Error),
}

/// Makes requests to one broker.
pub(crate) struct Http {
    base: BaseUrl,
    route: Route,
    settings: Settings,
    /// Connections for the next request, where any are kept.
    idle: Option<Mutex<Vec<Connection>>>,
}

impl Http {
    /// With connections that are kept for the next request, where `keep` says so.
    pub(crate) fn new(base: BaseUrl, settings: Settings, keep: bool) -> Result<Self> {
        let proxy = settings.proxy_to(&base)?;
        let needs_tls = base.is_https() || proxy.as_ref().is_some_and(|proxy| proxy.https);
        let route = Route {
            target: base.authority().clone(),
            https: base.is_https(),
            proxy,
            tls: if needs_tls {
                Some(tls::config(&settings.added_roots)?)
            } else {
                None
            },
            loopback_only: base.is_loopback(),
        };
        Ok(Self {
            base,
            route,
            settings,
            idle: keep.then(Mutex::default),
        })
    }

    pub(crate) fn base(&self) -> &BaseUrl {
        &self.base
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.settings.clock
    }

    /// Makes the request, more than once where that may help.
    pub(crate) fn send(&self, request: &Request<'_>, deadline: Deadline) -> Result<Response> {
        let mut attempt = 1;
        loop {
            let left = deadline.left(self.clock());
            if left.is_zero() {
                return Err(self.late(request));
            }
            let outcome = self.once(request, left.min(self.settings.request_timeout));
            let again = match &outcome {
                Ok(response) => {
                    response.status == 429 || (response.is_transient() && request.retry == Retry::Transient)
                }
                Err(Failure::Unconnected(_)) => true,
                Err(Failure::Late { connected: false }) => true,
                Err(Failure::Lost(_) | Failure::Late { .. }) => request.retry == Retry::Transient,
                Err(Failure::Final(_)) => false,
            };
            let asked = outcome
                .as_ref()
                .ok()
                .and_then(|response| response.retry_after)
                .unwrap_or_default();
            let pause = pause(attempt).max(asked.min(MAX_RETRY_AFTER));
            if !again || attempt >= self.settings.attempts || pause >= deadline.left(self.clock()) {
                return outcome.map_err(|failure| match failure {
                    Failure::Unconnected(error) | Failure::Lost(error) | Failure::Final(error) => error,
                    Failure::Late { .. } => self.late(request),
                });
            }
            log::debug!(
                "{} {}: attempt {attempt} came to nothing",
                request.method,
                without_query(request.path)
            );
            self.clock().sleep(pause);
            attempt += 1;
        }
    }

    /// The error for an answer that is no verdict.
    pub(crate) fn unexpected(&self, response: &Response) -> Error {
        let what = match response.status {
            200..=299 => format!("its type is {}", shown_or(&response.content_type, "not given")),
            300..=399 => {
                let target = response.location.as_deref().map(without_query);
                format!(
                    "a redirect to {}, which is not followed; give the address itself",
                    shown_or(target.unwrap_or_default(), "nowhere")
                )
            }
            400 | 414 | 431 | 494 => {
                "a head that is too long, or plain http to a port of TLS".to_owned()
            }
            401 | 403 => "a gateway wants credentials, such as an API key".to_owned(),
            404 | 405 => {
                "no broker is there; look at the URL's path, before which a proxy may want a prefix such as /trustee \
                 or /api"
                    .to_owned()
            }
            407 => "the proxy wants credentials".to_owned(),
            413 => "a request that is too long; brokers take 2 MiB unless told otherwise, and an event log may be \
                    most of it"
                .to_owned(),
            429 => "too many requests".to_owned(),
            500.. => gateway_error(&response.body).unwrap_or_else(|| "something before the broker failed, or it did".to_owned()),
            _ => "an unknown status".to_owned(),
        };
        Error::Status {
            url: self.base.to_string(),
            status: response.status,
            what,
        }
    }

    /// The error for an answer with status 200 that does not hold what it should.
    pub(crate) fn malformed(&self, what: impl fmt::Display) -> Error {
        Error::Malformed {
            url: self.base.to_string(),
            what: what.to_string(),
        }
    }

    fn late(&self, request: &Request<'_>) -> Error {
        Error::Deadline {
            what: format!("{} from {}", request.answer, self.base),
        }
    }

    fn once(&self, request: &Request<'_>, timeout: Duration) -> Result<Response, Failure> {
        // A timeout that no clock can hold is an hour at a time.
        let now = Instant::now();
        let give_up_at = now
            .checked_add(timeout)
            .unwrap_or(now + Duration::from_secs(3600));
        if let Some(mut connection) = self.kept_connection() {
            let outcome = self.exchange(&mut connection, request, give_up_at);
            // One that the broker was just about to close: it has seen nothing of the request.
            if !(matches!(outcome, Err(Failure::Lost(_))) && connection.is_unanswered()) {
                self.keep(connection);
                return outcome;
            }
        }
        let stream = self
            .route
            .connect(give_up_at)
            .map_err(|error| self.unconnected(error, request))?;
        let mut connection = Connection::new(stream);
        let outcome = self.exchange(&mut connection, request, give_up_at);
        self.keep(connection);
        outcome
    }

    fn exchange(
        &self,
        connection: &mut Connection,
        request: &Request<'_>,
        give_up_at: Instant,
    ) -> Result<Response, Failure> {
        let target = self.base.target(request.path);
        let target = if self.route.is_forwarded() {
            format!("http://{}{target}", self.base.authority().text)
        } else {
            target
        };
        let mut headers = vec![
            ("host", self.base.authority().text.as_str()),
            ("user-agent", USER_AGENT),
            ("accept", "*/*"),
        ];
        if self.idle.is_none() {
            headers.push(("connection", "close"));
        }
        if self.route.is_forwarded() {
            let proxy = self.route.proxy.as_ref();
            let authorization = proxy.and_then(|proxy| proxy.authorization.as_ref());
            headers.extend(authorization.map(|value| ("proxy-authorization", value.as_str())));
        }
        headers.extend(request.headers.iter().copied());
        headers.extend(
            request
                .body
                .map(|(content_type, _)| ("content-type", content_type)),
        );
        if headers
            .iter()
            .any(|(_, value)| value.bytes().any(|byte| !matches!(byte, b' '..=b'~')))
        {
            return Err(Failure::Final(Error::Config {
                what: "the value of a header must be printable ASCII",
            }));
        }

        // There was a connection, so something of the request may have arrived.
        let failed = |error| match self.failure(error, request) {
            Failure::Unconnected(error) => Failure::Lost(error),
            other => other,
        };
        connection.give_up_at(give_up_at);
        let sent = connection.write_request(
            request.method,
            &target,
            &headers,
            request.body.map(|(_, content)| content),
        );
        let head = match sent {
            Ok(()) => connection.read_head().map_err(failed)?,
            // It may have said why before it hung up.
            Err(error) if is_lost(&error) => match connection.read_head() {
                Ok(head) if head.status >= 400 => head,
                _ => return Err(failed(error)),
            },
            Err(error) => return Err(failed(error)),
        };
        let mut response = Response {
            status: head.status,
            body: Zeroizing::default(),
            cookies: head
                .values("set-cookie")
                .map(|value| Zeroizing::new(value.to_owned()))
                .collect(),
            content_type: head.values("content-type").next().unwrap_or_default().to_owned(),
            location: head.values("location").next().map(str::to_owned),
            retry_after: head
                .values("retry-after")
                .next()
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        };
        let max = if response.is_success() {
            request.max
        } else {
            MAX_ERROR_BODY
        };
        match connection.read_body(&head, max).map_err(failed)? {
            Some(body) => response.body = body,
            None if response.is_success() => {
                return Err(Failure::Final(Error::TooLarge {
                    what: request.answer,
                    max,
                }));
            }
            // The status tells enough.
            None => {}
        }
        Ok(response)
    }

    fn kept_connection(&self) -> Option<Connection> {
        let mut idle = self.idle.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(Connection::is_reusable)
    }

    fn keep(&self, connection: Connection) {
        if let Some(idle) = &self.idle
            && connection.is_reusable()
        {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < MAX_IDLE {
                idle.push(connection);
            }
        }
    }

    fn unconnected(&self, error: io::Error, request: &Request<'_>) -> Failure {
        match self.failure(error, request) {
            Failure::Late { .. } => Failure::Late { connected: false },
            Failure::Lost(error) => Failure::Unconnected(error),
            other => other,
        }
    }

    fn failure(&self, error: io::Error, request: &Request<'_>) -> Failure {
        let url = self.base.to_string();
        let or_tls = if self.base.is_https() {
            "; if the port speaks no TLS, the address must begin with http://"
        } else {
            "; if the port speaks TLS, the address must begin with https://"
        };
        match ProxyTrouble::of(&error) {
            Some(ProxyTrouble::Refused { status, passing }) => {
                let error = Error::Unreachable {
                    url,
                    what: match status {
                        407 => "the proxy wants credentials, or others (status 407)".to_owned(),
                        _ => format!("the proxy does not connect to it (status {status})"),
                    },
                    source: None,
                };
                return if *passing {
                    Failure::Unconnected(error)
                } else {
                    Failure::Final(error)
                };
            }
            Some(ProxyTrouble::Tls { proxy, error }) => {
                return Failure::Final(Error::Tls {
                    url: format!("the proxy https://{proxy}"),
                    what: tls::advice(error),
                    source: Box::new(error.clone()),
                });
            }
            None => {}
        }
        if let Some(error) = tls_error(&error) {
            return Failure::Final(Error::Tls {
                url,
                what: tls::advice(error),
                source: Box::new(error.clone()),
            });
        }
        match error.kind() {
            io::ErrorKind::TimedOut => Failure::Late { connected: true },
            io::ErrorKind::FileTooLarge => Failure::Final(Error::TooLarge {
                what: "the head of an answer",
                max: MAX_HEAD,
            }),
            io::ErrorKind::InvalidData => Failure::Final(
                self.malformed(format_args!("{} is no HTTP ({error}){or_tls}", request.answer)),
            ),
            io::ErrorKind::InvalidInput => Failure::Final(Error::Config {
                what: "TLS needs a DNS name or an address as the broker's host",
            }),
            _ if is_lost(&error) => Failure::Lost(Error::Unreachable {
                url,
                what: format!("the connection ended before {} was whole{or_tls}", request.answer),
                source: Some(error),
            }),
            _ => Failure::Unconnected(Error::Unreachable {
                url,
                what: format!("no connection ({error})"),
                source: Some(error),
            }),
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// The longest pause that an answer may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// The pause after so many attempts: exponential, and up to half of it by chance, so that clients that failed together
/// do not come back together.
fn pause(attempt: u32) -> Duration {
    let whole = FIRST_PAUSE
        .saturating_mul(1 << (attempt - 1).min(16))
        .min(LONGEST_PAUSE);
    let mut chance = [0; 1];
    // Without chance it is the whole pause.
    let _ = rand::fill(&mut chance);
    whole - whole * u32::from(chance[0]) / 512
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether a connection that there was has ended.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// What the openanolis fork's gateway says when it fails itself.
fn gateway_error(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    json.get("error")?
        .as_str()
        .map(|error| format!("the gateway before the broker failed: {}", shown(error)))
}

/// A URL's query may hold what is nobody's business.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

fn shown_or(text: &str, otherwise: &str) -> String {
    if text.is_empty() {
        otherwise.to_owned()
    } else {
        shown(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that fails, in writing or in reading.
    struct Failing {
        writing: bool,
        error: fn() -> io::Error,
    }

    impl io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err((self.error)())
        }
    }

    impl io::Write for Failing {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            if self.writing {
                Err((self.error)())
            } else {
                Ok(from.len())
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl stream::Stream for Failing {
        fn give_up_at(&mut self, _: Instant) {}

        fn is_quiet(&self) -> bool {
            true
        }
    }

    /// What was sent may have been done: to connect anew and send it again is another matter.
    #[test]
    fn what_may_have_been_sent_is_never_unconnected() {
        let base = BaseUrl::parse("http://127.0.0.1:1").unwrap();
        let http = Http::new(base, Settings::default(), true).unwrap();
        let request = Request {
            method: "POST",
            path: "/kbs/v0/resource/a/b/c",
            headers: Vec::new(),
            body: Some(("application/octet-stream", b"content")),
            answer: "the answer",
            max: 100,
            retry: Retry::Unsent,
        };
        let errors: [fn() -> io::Error; 8] = [
            || io::ErrorKind::ConnectionRefused.into(),
            || io::ErrorKind::NotConnected.into(),
            || io::ErrorKind::HostUnreachable.into(),
            || io::ErrorKind::NetworkUnreachable.into(),
            || io::ErrorKind::PermissionDenied.into(),
            || io::ErrorKind::ConnectionReset.into(),
            || io::ErrorKind::TimedOut.into(),
            || io::Error::other("odd"),
        ];
        for writing in [false, true] {
            for error in errors {
                let mut connection = Connection::new(Box::new(Failing { writing, error }));
                let later = Instant::now() + Duration::from_secs(60);
                let failure = http.exchange(&mut connection, &request, later).err();
                assert!(
                    matches!(
                        failure,
                        Some(Failure::Lost(_) | Failure::Late { connected: true })
                    ),
                    "{writing} {}",
                    error()
                );
                assert!(!connection.is_reusable());
            }
        }
    }
}
