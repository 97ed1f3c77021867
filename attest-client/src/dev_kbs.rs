//! A key broker in this process, for development, demos and tests. **Never for real keys.**
//!
//! It answers as a Trustee KBS does, and as the openanolis fork does, in their statuses and words; judges `sample` and
//! TDX evidence; keeps resources in memory or in a directory; and listens on loopback addresses only. Whatever it did
//! not verify it says, in notes that go to standard error unless [`Builder::notes`] takes them.
//!
//! What it is not: there are no reference values and no policy language ([`Policy`] is all), it attests no device
//! beside the processor, and what HTTP and TLS had in their buffers is not wiped.
//!
//! ```
//! use attest_client::dev_kbs::DevKbs;
//!
//! # fn main() -> attest_client::Result<()> {
//! let broker = DevKbs::builder()
//!     .self_signed()
//!     .resource("default/model/key", b"correct horse, 4 batteries\n")
//!     .start()?;
//! assert!(broker.url().starts_with("https://127.0.0.1:"));
//! // Clients add this to the roots that they trust.
//! assert!(broker.ca_pem().is_some());
//! // Dropping it ends it.
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Response, StatusCode};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::messages::ProtocolVersion;
use crate::resource::ResourceUri;

mod answer;
mod broker;
mod policy;
mod seal;
mod session;
mod store;
mod tls;
mod token;
mod verifier;

pub use policy::Policy;

use answer::Answer;
use broker::Broker;
use store::Store;
use token::{Admin, Issuer};
use verifier::Verifier;

/// Longest body of a request, in bytes.
const BODY_MAX: usize = 2 << 20;

/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 128 << 10;

/// Longest life of a session or a token: what no date can tell would be no end.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Whose servers it speaks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Trustee.
    #[default]
    Trustee,
    /// The openanolis fork of it.
    Openanolis,
}

/// A running broker. Dropping it ends it, and all that it knew is gone.
pub struct DevKbs {
    url: String,
    ca: Option<String>,
    handle: Handle<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for DevKbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevKbs")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl DevKbs {
    /// A broker that serves protocol 0.4.0 as Trustee does, over plain HTTP, on a free port of 127.0.0.1, and keeps
    /// resources in memory.
    pub fn builder() -> Builder {
        Builder {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            family: Family::default(),
            versions: vec![ProtocolVersion::V0_4_0],
            prefix: String::new(),
            tls: Tls::Off,
            directory: None,
            resources: Vec::new(),
            policy: Policy::default(),
            admin: None,
            collateral: None,
            unverified: false,
            session: Duration::from_secs(300),
            token: Duration::from_secs(300),
            clock: Arc::new(SystemTime::now),
            notes: Arc::new(|note| eprintln!("dev-kbs: {note}")),
        }
    }

    /// Where it is: the base URL that clients are given.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// PEM of the authority that signed its certificate, where it made that itself.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca.as_deref()
    }
}

impl Drop for DevKbs {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Hears what the broker has to say, from any thread.
type Notes = Arc<dyn Fn(&str) + Send + Sync>;

/// Tells the time.
type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

enum Tls {
    Off,
    SelfSigned,
    Given { chain: Vec<u8>, key: Zeroizing<Vec<u8>> },
}

/// What a broker is to be like.
#[must_use]
pub struct Builder {
    address: SocketAddr,
    family: Family,
    versions: Vec<ProtocolVersion>,
    prefix: String,
    tls: Tls,
    directory: Option<PathBuf>,
    resources: Vec<(String, Zeroizing<Vec<u8>>)>,
    policy: Policy,
    admin: Option<String>,
    collateral: Option<Vec<u8>>,
    unverified: bool,
    session: Duration,
    token: Duration,
    clock: Clock,
    notes: Notes,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("address", &self.address)
            .field("family", &self.family)
            .field("versions", &self.versions)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// The address to listen on, of the loopback network; port 0 for a free one.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Whose servers to speak like.
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// The versions of the protocol to serve. A real server serves one; where there are more, the first is the one
    /// that refusals name.
    pub fn versions(mut self, versions: &[ProtocolVersion]) -> Self {
        versions.clone_into(&mut self.versions);
        self
    }

    /// Serves below a path, such as `/trustee`, as a server behind a proxy does.
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.trim_end_matches('/').clone_into(&mut self.prefix);
        self
    }

    /// TLS with a certificate for `localhost`, `127.0.0.1` and `::1` by an authority made for it:
    /// [`DevKbs::ca_pem`].
    pub fn self_signed(mut self) -> Self {
        self.tls = Tls::SelfSigned;
        self
    }

    /// TLS with this certificate and its chain, and its key, both PEM.
    pub fn certificate(mut self, chain: &[u8], key: &[u8]) -> Self {
        self.tls = Tls::Given {
            chain: chain.to_vec(),
            key: Zeroizing::new(key.to_vec()),
        };
        self
    }

    /// Keeps resources in a directory, as the files `repository/type/tag`, instead of memory. No link in it is
    /// followed.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Begins with a resource, named `repository/type/tag`.
    pub fn resource(mut self, name: &str, content: &[u8]) -> Self {
        self.resources
            .push((name.to_owned(), Zeroizing::new(content.to_vec())));
        self
    }

    /// Who may have a resource.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The Ed25519 public key, in PEM, of who may set and delete resources and policies. Without one nobody may.
    pub fn admin_key(mut self, pem: &str) -> Self {
        self.admin = Some(pem.to_owned());
        self
    }

    /// What quotes are verified with: the JSON form of `dcap-qvl`'s `QuoteCollateralV3`.
    pub fn collateral(mut self, json: &[u8]) -> Self {
        self.collateral = Some(json.to_vec());
        self
    }

    /// Takes quotes on faith where there is no collateral: their report data is checked, their signature is not, so
    /// anybody can make one up. Each time is noted.
    pub fn accept_unverified_quotes(mut self) -> Self {
        self.unverified = true;
        self
    }

    /// How long a session lasts: 5 minutes unless set, ten years at most.
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.session = lifetime.min(LONGEST_LIFE);
        self
    }

    /// How long a token is good for: 5 minutes unless set, ten years at most.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token = lifetime.min(LONGEST_LIFE);
        self
    }

    /// Another clock than the system's.
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Takes the notes, which else go to standard error: that this is for development, why requests are refused, and
    /// what was not verified. None holds a secret.
    pub fn notes(mut self, notes: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.notes = Arc::new(notes);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`Error::DevKbs`] where the address is not of the loopback network or in use, or a setting makes no sense.
    pub fn start(self) -> Result<DevKbs> {
        if !self.address.ip().is_loopback() {
            return Err(Error::dev_kbs(format!(
                "{} is not an address of the loopback network, and this broker serves nobody else",
                self.address.ip()
            )));
        }
        let identity = match &self.tls {
            Tls::Off => None,
            Tls::SelfSigned => Some(tls::made()?),
            Tls::Given { chain, key } => Some(tls::given(chain, key)?),
        };
        let listen = |source| io_error("listening", source);
        let listener = TcpListener::bind(self.address).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let scheme = if identity.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}{}", self.prefix);
        let notes = Arc::clone(&self.notes);
        let app = Router::new()
            .fallback(handle_request)
            .with_state(Arc::new(self.into_broker()?));

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("dev-kbs")
            .enable_all()
            .build()
            .map_err(|source| io_error("starting threads", source))?;
        let handle = Handle::new();
        let (tls, ca) = identity.map_or((None, None), |identity| {
            (Some(RustlsConfig::from_config(identity.config)), identity.ca)
        });
        let served = handle.clone();
        let serve = async move {
            macro_rules! serve {
                ($server:expr) => {{
                    let mut server = $server?;
                    server.http_builder().http1().max_buf_size(HEAD_MAX);
                    server.handle(served).serve(app.into_make_service()).await
                }};
            }
            match tls {
                None => serve!(axum_server::from_tcp(listener)),
                Some(config) => serve!(axum_server::from_tcp_rustls(listener, config)),
            }
        };
        let failures = Arc::clone(&notes);
        let thread = std::thread::Builder::new()
            .name("dev-kbs".into())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve) {
                    failures(&format!("it has ended: {error}"));
                }
                runtime.shutdown_background();
            })
            .map_err(|source| io_error("starting a thread", source))?;
        notes(&format!(
            "for development only, at {url}: what it holds is as safe as whoever can reach this machine's loopback"
        ));
        Ok(DevKbs {
            url,
            ca,
            handle,
            thread: Some(thread),
        })
    }

    fn into_broker(self) -> Result<Broker> {
        let [version, ..] = *self.versions else {
            return Err(Error::dev_kbs(
                "it has to serve a version of the protocol".to_owned(),
            ));
        };
        let store = self
            .directory
            .as_deref()
            .map_or_else(|| Ok(Store::memory()), directory)?;
        for (name, content) in self.resources {
            store
                .set(&ResourceUri::from_path(&name)?, &content)
                .map_err(|source| io_error("storing a resource", source))?;
        }
        let collateral = self
            .collateral
            .as_deref()
            .map(serde_json::from_slice)
            .transpose()
            .map_err(|error| Error::dev_kbs(format!("the collateral is not that of a quote: {error}")))?;
        Ok(Broker {
            family: self.family,
            version,
            versions: self.versions,
            prefix: self.prefix,
            store,
            policy: self.policy.into(),
            admin: self.admin.as_deref().map(Admin::from_pem).transpose()?,
            verifier: Verifier {
                collateral,
                unverified: self.unverified,
            },
            sessions: std::sync::Mutex::default(),
            session_lifetime: self.session,
            issuer: Issuer::new(self.token)?,
            clock: self.clock,
            notes: self.notes,
        })
    }
}

/// A new Ed25519 key for an administrator, in PEM: the private half (PKCS #8) for
/// [`AdminBuilder::key_pem`](crate::AdminBuilder::key_pem), and the public one for [`Builder::admin_key`].
///
/// # Errors
/// [`Error::DevKbs`] where the system has no random bytes.
pub fn new_admin_key() -> Result<(Zeroizing<String>, String)> {
    token::new_admin_key().ok_or_else(|| Error::dev_kbs("no key can be made".to_owned()))
}

fn directory(path: &Path) -> Result<Store> {
    Store::directory(path).map_err(|source| io_error(&format!("opening {}", path.display()), source))
}

impl Error {
    fn dev_kbs(what: String) -> Self {
        Self::DevKbs { what, source: None }
    }
}

fn io_error(action: &str, source: io::Error) -> Error {
    Error::DevKbs {
        what: format!("{action} failed"),
        source: Some(source),
    }
}

/// Reads a request whole and has it answered.
async fn handle_request(State(broker): State<Arc<Broker>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let length = head.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let body = if length.is_some_and(|length| length > BODY_MAX as u64) {
        None
    } else {
        // Too long is the only failure that anybody lives to hear of.
        to_bytes(body, BODY_MAX).await.ok()
    };
    body.map_or_else(
        || Answer::framework(StatusCode::PAYLOAD_TOO_LARGE, "payload reached size limit"),
        |body| broker.answer(&head, &body),
    )
    .into_response()
}
