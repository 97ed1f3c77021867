//! Requests to a broker: bounded, within their time, and again where that may help.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use rustls::pki_types::CertificateDer;
use ureq::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE};
use ureq::http::{self, HeaderMap, HeaderName, Method};
use ureq::{Agent, Proxy, ProxyProtocol};
use zeroize::Zeroizing;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::messages::ErrorInformation;
use crate::shown::shown;

mod base_url;
mod tls;
mod transport;

pub(crate) use base_url::BaseUrl;

/// Most bytes of an answer's head.
const MAX_HEAD: usize = 32 << 10;
/// Most bytes of an answer that says what went wrong; the rest is not looked at.
const MAX_ERROR_BODY: usize = 64 << 10;
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
        self.proxy = Some(Proxy::new(url).map_err(|_| Error::Config {
            what: "the proxy's URL is malformed",
        })?);
        Ok(())
    }

    /// The proxy on the way to `base`: none to this machine, else the one set, else the environment's.
    fn proxy_to(&self, base: &BaseUrl) -> Result<Option<Proxy>> {
        if base.is_loopback() {
            return Ok(None);
        }
        let proxy = self
            .proxy
            .clone()
            .or_else(Proxy::try_from_env)
            .filter(|proxy| !proxy.is_no_proxy(base.uri()));
        if proxy
            .as_ref()
            .is_some_and(|proxy| !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https))
        {
            return Err(Error::Config {
                what: "the proxy must be an http or https one; SOCKS is not supported",
            });
        }
        Ok(proxy)
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
    /// What is left of it.
    fn left(self, clock: &dyn Clock) -> Duration {
        self.0
            .map_or(Duration::MAX, |at| at.saturating_duration_since(clock.now()))
    }
}

/// A request.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
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
    pub(crate) cookies: Vec<String>,
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
    /// It took too long.
    Late,
    /// And there will be none.
    Final(Error),
}

/// Makes requests to one broker.
pub(crate) struct Http {
    agent: Agent,
    base: BaseUrl,
    settings: Settings,
}

impl Http {
    /// With connections that are kept for the next request, where `keep` says so.
    pub(crate) fn new(base: BaseUrl, settings: Settings, keep: bool) -> Result<Self> {
        // A proxy may itself be reached by TLS.
        let proxy = settings.proxy_to(&base)?;
        let proxied_by_tls = proxy
            .as_ref()
            .is_some_and(|proxy| proxy.protocol() == ProxyProtocol::Https);
        let tls = if base.is_https() || proxied_by_tls {
            Some(tls::config(&settings.added_roots)?)
        } else {
            None
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // None is followed: credentials go to the address that was given, or nowhere.
            .max_redirects(0)
            .proxy(proxy)
            .user_agent(USER_AGENT)
            .max_response_header_size(MAX_HEAD)
            .input_buffer_size(2 * MAX_HEAD)
            .output_buffer_size(MAX_HEAD)
            .max_idle_connections(if keep { 4 } else { 0 })
            .build();
        let loopback_only = base.is_loopback();
        Ok(Self {
            agent: transport::agent(config, tls, loopback_only),
            base,
            settings,
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
                Err(Failure::Lost(_) | Failure::Late) => request.retry == Retry::Transient,
                Err(Failure::Final(_)) => false,
            };
            let asked = outcome
                .as_ref()
                .ok()
                .and_then(|response| response.retry_after)
                .unwrap_or_default();
            let pause = pause(attempt).max(asked);
            if !again || attempt >= self.settings.attempts || pause >= deadline.left(self.clock()) {
                return outcome.map_err(|failure| match failure {
                    Failure::Unconnected(error) | Failure::Lost(error) | Failure::Final(error) => error,
                    Failure::Late => self.late(request),
                });
            }
            log::debug!(
                "{} {}: attempt {attempt} came to nothing",
                request.method,
                request.path
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
        let mut builder = http::Request::builder()
            .method(&request.method)
            .uri(self.base.join(request.path));
        for (name, value) in &request.headers {
            builder = builder.header(*name, *value);
        }
        if let Some((content_type, _)) = request.body {
            builder = builder.header(CONTENT_TYPE, content_type);
        }
        let malformed = |_| {
            Failure::Final(Error::Config {
                what: "a header's value (token, API key or instance information) must be printable ASCII",
            })
        };
        let response = match request.body {
            Some((_, body)) => self.run(builder.body(body).map_err(malformed)?, timeout),
            None => self.run(builder.body(()).map_err(malformed)?, timeout),
        }
        .map_err(|error| self.failure(error, request))?;

        let (head, mut body) = response.into_parts();
        let mut response = Response {
            status: head.status.as_u16(),
            body: Zeroizing::default(),
            cookies: texts(&head.headers, &SET_COOKIE),
            content_type: texts(&head.headers, &CONTENT_TYPE).pop().unwrap_or_default(),
            location: texts(&head.headers, &LOCATION).pop(),
            retry_after: texts(&head.headers, &RETRY_AFTER)
                .pop()
                .and_then(|seconds| seconds.trim().parse().ok())
                .map(Duration::from_secs),
        };
        let max = if response.is_success() {
            request.max
        } else {
            MAX_ERROR_BODY
        };
        let expected = body.content_length().unwrap_or(0);
        let read = if expected > max as u64 {
            None
        } else {
            read_capped(&mut body.as_reader(), expected, max)
                .map_err(|error| self.failure(ureq::Error::from(error), request))?
        };
        match read {
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

    fn run<B: ureq::AsSendBody>(
        &self,
        request: http::Request<B>,
        timeout: Duration,
    ) -> Result<http::Response<ureq::Body>, ureq::Error> {
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(Some(timeout))
            .build();
        self.agent.run(request)
    }

    fn failure(&self, error: ureq::Error, request: &Request<'_>) -> Failure {
        let unreachable = |what: String, source| Error::Unreachable {
            url: self.base.to_string(),
            what,
            source,
        };
        let or_tls = if self.base.is_https() {
            "; if the port speaks no TLS, the address must begin with http://"
        } else {
            "; if the port speaks TLS, the address must begin with https://"
        };
        match error {
            ureq::Error::Timeout(_) => Failure::Late,
            ureq::Error::HostNotFound => {
                Failure::Unconnected(unreachable("its host is not known".to_owned(), None))
            }
            ureq::Error::ConnectProxyFailed(what) => Failure::Unconnected(unreachable(
                format!("the proxy did not connect: {}", shown(&what)),
                None,
            )),
            ureq::Error::LargeResponseHeader(..) => Failure::Final(Error::TooLarge {
                what: "the head of an answer",
                max: MAX_HEAD,
            }),
            ureq::Error::Protocol(error) => Failure::Final(
                self.malformed(format_args!("{} is no HTTP ({error}){or_tls}", request.answer)),
            ),
            ureq::Error::Io(source) => match tls_error(&source) {
                Some(error) => Failure::Final(Error::Tls {
                    url: self.base.to_string(),
                    what: tls::advice(error),
                    source: Box::new(error.clone()),
                }),
                None if is_lost(&source) => Failure::Lost(unreachable(
                    format!("the connection ended before {} was whole{or_tls}", request.answer),
                    Some(source),
                )),
                None => Failure::Unconnected(unreachable(format!("no connection ({source})"), Some(source))),
            },
            ureq::Error::Tls(what) => Failure::Final(unreachable(what.to_owned(), None)),
            // Neither an answer nor the network can bring about the rest.
            other => Failure::Final(unreachable(other.to_string(), None)),
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

/// The whole of it, in memory of which no copy is left behind; none if it is longer than `max`.
fn read_capped(reader: &mut impl Read, expected: u64, max: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const FIRST: usize = 8 << 10;
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    // One more byte than expected, so that its end is seen without growing.
    let mut body = Zeroizing::new(vec![0; expected.max(FIRST).min(max) + 1]);
    let mut len = 0;
    loop {
        if len > max {
            return Ok(None);
        }
        if len == body.len() {
            let mut larger = Zeroizing::new(vec![0; len.saturating_mul(2).min(max + 1)]);
            larger[..len].copy_from_slice(&body);
            body = larger;
        }
        match reader.read(&mut body[len..])? {
            0 => break,
            read => len += read,
        }
    }
    body.truncate(len);
    Ok(Some(body))
}

fn texts(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect()
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
