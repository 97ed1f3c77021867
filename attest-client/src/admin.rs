//! Provisioning: what an owner does once, from a machine of their own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::http::{BaseUrl, Deadline, Http, Request, Response, Retry, Settings, is_lost};
use crate::resource::ResourceUri;
use crate::shown::shown;
use crate::tee_key::decode_pem;

/// How long a token that is signed here is good for, by this machine's clock. Brokers have clocks of their own, which
/// may be an hour ahead.
const TOKEN_LIFE: Duration = Duration::from_secs(2 * 60 * 60);
/// Most bytes of an answer; those that matter are empty.
const MAX_ANSWER: usize = 64 << 10;
/// Most bytes of a request that brokers take unless told otherwise.
const MAX_BODY: usize = 2 << 20;

/// An owner's client of a broker: stores resources and sets policies.
///
/// It never speaks plain http but to this machine itself.
pub struct Admin {
    http: Http,
    credentials: Credentials,
    claims: Claims,
    deadline: Option<Duration>,
}

enum Credentials {
    Key(Box<Ed25519KeyPair>),
    Token(Zeroizing<String>),
    None,
}

/// What a token says besides when it ends. The openanolis fork and older brokers look at no more than the signature.
#[derive(Clone, Serialize)]
struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    role: String,
}

impl Admin {
    /// An owner's client of the broker at `url`: `https://host[:port][/prefix]`.
    #[must_use]
    pub fn builder(url: &str) -> AdminBuilder {
        AdminBuilder {
            url: url.to_owned(),
            settings: Ok(Settings::default()),
            credentials: None,
            claims: Claims {
                iss: None,
                aud: None,
                role: "admin".to_owned(),
            },
            deadline: Some(Duration::from_secs(120)),
        }
    }

    /// Stores a resource, or replaces it.
    ///
    /// # Errors
    /// [`Error::NotStored`] where the broker can only read its resources, as with a KMS;
    /// [`Error::AdminRefused`], [`Error::Unreachable`], [`Error::Tls`] and others.
    pub fn set_resource(&self, resource: &ResourceUri, content: &[u8]) -> Result<()> {
        let body = Some(("application/octet-stream", content));
        self.change_resource("POST", resource, body, "store")
    }

    /// Deletes a resource.
    ///
    /// # Errors
    /// As [`set_resource`](Self::set_resource).
    pub fn delete_resource(&self, resource: &ResourceUri) -> Result<()> {
        self.change_resource("DELETE", resource, None, "delete")
    }

    /// Sets the policy that decides who gets which resource, in Rego.
    ///
    /// # Errors
    /// [`Error::Broker`] where the broker does not accept the policy; else as [`set_resource`](Self::set_resource).
    pub fn set_resource_policy(&self, rego: &str) -> Result<()> {
        #[derive(Serialize)]
        struct Policy {
            policy: String,
        }
        self.set_policy(
            "/kbs/v0/resource-policy",
            &Policy {
                policy: URL_SAFE_NO_PAD.encode(rego),
            },
        )
    }

    /// Sets the policy that evidence is appraised by, in Rego. The one that applies to a machine is called
    /// `default_cpu` by Trustee since 0.14, and `default` before that and by the openanolis fork.
    ///
    /// # Errors
    /// As [`set_resource_policy`](Self::set_resource_policy).
    pub fn set_attestation_policy(&self, id: &str, rego: &str) -> Result<()> {
        #[derive(Serialize)]
        struct Policy<'a> {
            r#type: &'a str,
            policy_id: &'a str,
            policy: String,
        }
        self.set_policy(
            "/kbs/v0/attestation-policy",
            &Policy {
                r#type: "rego",
                policy_id: id,
                policy: URL_SAFE_NO_PAD.encode(rego),
            },
        )
    }

    fn change_resource(
        &self,
        method: &'static str,
        resource: &ResourceUri,
        body: Option<(&'static str, &[u8])>,
        action: &str,
    ) -> Result<()> {
        let not_stored = |detail| Error::NotStored {
            action: format!("{action} {resource}"),
            detail,
        };
        let large = body.is_some_and(|(_, content)| content.len() > MAX_BODY);
        let path = format!("/kbs/v0/resource/{}", resource.path());
        let response = match self.send(method, &path, body) {
            // A store that can only be read crashes the broker's handler.
            Err(Error::Unreachable {
                what,
                source: Some(source),
                ..
            }) if is_lost(&source) && !large => return Err(not_stored(what)),
            other => other?,
        };
        if is_done(&response) {
            return Ok(());
        }
        let Some(information) = response.verdict() else {
            return Err(if response.status >= 500 {
                not_stored(format!("status {}", response.status))
            } else {
                self.http.unexpected(&response)
            });
        };
        let detail = shown(&information.detail);
        Err(match information.name() {
            "PluginInternalError" | "SetSecretFailed" => not_stored(detail),
            _ => refused(&response, information.name(), detail, ""),
        })
    }

    fn set_policy(&self, path: &str, policy: &impl Serialize) -> Result<()> {
        let body = serde_json::to_vec(policy).expect("strings serialise");
        let response = self.send("POST", path, Some(("application/json", &body)))?;
        if is_done(&response) {
            return Ok(());
        }
        let information = response
            .verdict()
            .ok_or_else(|| self.http.unexpected(&response))?;
        Err(refused(
            &response,
            information.name(),
            shown(&information.detail),
            ": look at the policy's syntax",
        ))
    }

    fn send(
        &self,
        method: &'static str,
        path: &str,
        body: Option<(&'static str, &[u8])>,
    ) -> Result<Response> {
        let authorization = self.authorization()?;
        self.http.send(
            &Request {
                method,
                path,
                headers: authorization
                    .iter()
                    .map(|value| ("authorization", value.as_str()))
                    .collect(),
                body,
                answer: "the answer",
                max: MAX_ANSWER,
                retry: Retry::Unsent,
            },
            Deadline::after(self.deadline, self.http.clock()),
        )
    }

    fn authorization(&self) -> Result<Option<Zeroizing<String>>> {
        Ok(match &self.credentials {
            Credentials::Key(key) => Some(Zeroizing::new(format!("Bearer {}", *sign(key, &self.claims)?))),
            Credentials::Token(token) => Some(Zeroizing::new(format!("Bearer {}", **token))),
            Credentials::None => None,
        })
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("url", &self.http.base().to_string())
            .finish_non_exhaustive()
    }
}

fn is_done(response: &Response) -> bool {
    (200..300).contains(&response.status)
}

fn refused(response: &Response, name: &str, detail: String, hint: &'static str) -> Error {
    let name = name.to_owned();
    match name.as_str() {
        "AdminAuth"
        | "AdminAuthInitialization"
        | "AdminAuthAccess"
        | "FailedAuthentication"
        | "UserPublicKeyNotProvided" => Error::AdminRefused { name, detail },
        _ => Error::Broker {
            status: response.status,
            name,
            detail,
            hint,
        },
    }
}

/// A JSON Web Token (RFC 7519) signed with EdDSA (RFC 8037). It says when it ends, and not when it was made: by a
/// broker's clock that may be yet to come.
fn sign(key: &Ed25519KeyPair, claims: &Claims) -> Result<Zeroizing<String>> {
    #[derive(Serialize)]
    struct Ending<'a> {
        exp: u64,
        #[serde(flatten)]
        claims: &'a Claims,
    }
    let end = SystemTime::now()
        .checked_add(TOKEN_LIFE)
        .and_then(|end| end.duration_since(UNIX_EPOCH).ok());
    let ending = Ending {
        exp: end.unwrap_or(TOKEN_LIFE).as_secs(),
        claims,
    };
    let mut token = Zeroizing::new(URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#));
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(
        serde_json::to_vec(&ending).expect("strings and numbers serialise"),
        &mut token,
    );
    let signature = key.try_sign(token.as_bytes()).map_err(|_| Error::Config {
        what: "the admin's key does not sign",
    })?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
    Ok(token)
}

/// Makes an [`Admin`]. What is wrong with an option shows in [`build`](Self::build).
pub struct AdminBuilder {
    url: String,
    settings: Result<Settings>,
    credentials: Option<Result<Credentials>>,
    claims: Claims,
    deadline: Option<Duration>,
}

impl AdminBuilder {
    /// The private key whose public half the broker knows: Ed25519, PKCS #8 (RFC 8410) in PEM, as
    /// `openssl genpkey -algorithm ed25519` makes it. A token is signed with it for each request.
    #[must_use]
    pub fn key_pem(mut self, pem: &str) -> Self {
        let key = decode_pem(pem)
            .filter(|(label, _)| *label == "PRIVATE KEY")
            .and_then(|(_, der)| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok());
        self.credentials = Some(
            key.map(|key| Credentials::Key(Box::new(key)))
                .ok_or(Error::Config {
                    what: "the admin's key is no Ed25519 key of PKCS #8 in PEM",
                }),
        );
        self
    }

    /// A token that somebody else signed.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        let token = Zeroizing::new(token.trim().to_owned());
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        self.credentials = Some(if is_token {
            Ok(Credentials::Token(token))
        } else {
            Err(Error::Config {
                what: "an admin's token is printable ASCII without spaces",
            })
        });
        self
    }

    /// None, for a broker whose administration is open to all.
    #[must_use]
    pub fn without_credentials(mut self) -> Self {
        self.credentials = Some(Ok(Credentials::None));
        self
    }

    /// The role that signed tokens claim: `admin` unless told otherwise.
    #[must_use]
    pub fn role(mut self, role: &str) -> Self {
        role.clone_into(&mut self.claims.role);
        self
    }

    /// The issuer that signed tokens name, where the broker wants one.
    #[must_use]
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.claims.iss = Some(issuer.to_owned());
        self
    }

    /// The audience that signed tokens name, where the broker wants one.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.claims.aud = Some(audience.to_owned());
        self
    }

    /// Trusts the CA certificates in this PEM, besides those of the system.
    #[must_use]
    pub fn add_ca(self, pem: &str) -> Self {
        self.setting(|settings| settings.add_ca(pem))
    }

    /// Goes through this http or https proxy. Without it the environment decides, as for
    /// [`KbsClientBuilder::proxy`](crate::KbsClientBuilder::proxy).
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

    /// How long each call may take with all its attempts: two minutes unless told otherwise.
    #[must_use]
    pub fn deadline(mut self, time: Option<Duration>) -> Self {
        self.deadline = time;
        self
    }

    /// How often a request is made that cannot be sent: 5 times unless told otherwise, at least once. What was sent
    /// is not sent again.
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

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::PlainHttp`] where the broker is neither reached by https nor on this machine; [`Error::Config`] where
    /// an option cannot be used, or there are no credentials.
    pub fn build(self) -> Result<Admin> {
        let base = BaseUrl::parse(&self.url)?;
        if !base.is_https() && !base.is_loopback() {
            return Err(Error::PlainHttp {
                url: base.to_string(),
            });
        }
        let credentials = self.credentials.transpose()?.ok_or(Error::Config {
            what: "an admin needs a key or a token",
        })?;
        Ok(Admin {
            // Resources pass through the buffers of its connections.
            http: Http::new(base, self.settings?, false)?,
            credentials,
            claims: self.claims,
            deadline: self.deadline,
        })
    }

    fn setting(mut self, set: impl FnOnce(&mut Settings) -> Result<()>) -> Self {
        self.settings = self
            .settings
            .and_then(|mut settings| set(&mut settings).map(|()| settings));
        self
    }
}

impl fmt::Debug for AdminBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBuilder").finish_non_exhaustive()
    }
}
