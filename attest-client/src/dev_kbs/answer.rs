//! What the broker answers, in the statuses and words of the servers it stands for.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::Family;
use crate::messages::ProtocolVersion;

/// An answer that is not a failure.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    content_type: Option<&'static str>,
    cookie: Option<String>,
    body: String,
}

impl Answer {
    pub(super) fn json(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: Some("application/json"),
            cookie: None,
            body,
        }
    }

    /// What stands for success where there is nothing to say.
    pub(super) fn done(content_type: Option<&'static str>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            cookie: None,
            body: String::new(),
        }
    }

    /// What the web framework itself answers, and not the broker: no JSON.
    pub(super) fn framework(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            content_type: (!text.is_empty()).then_some("text/plain; charset=utf-8"),
            cookie: None,
            body: text.to_owned(),
        }
    }

    pub(super) fn with_cookie(self, cookie: String) -> Self {
        Self {
            cookie: Some(cookie),
            ..self
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        // Digits, letters and a date: always a header's value.
        if let Some(Ok(cookie)) = self.cookie.map(HeaderValue::try_from) {
            headers.insert(SET_COOKIE, cookie);
        }
        response
    }
}

/// Why a request is refused, by what the answer tells of it. The rest goes to the notes.
#[derive(Debug)]
pub(super) enum Fault {
    /// The request to authenticate is not one.
    AuthRequest { why: String },
    /// Its version is not a version.
    AuthVersionText,
    /// Its version is not the one that is served.
    AuthVersion { served: ProtocolVersion, asked: String },
    /// The evidence is refused, for whatever reason.
    Attest { why: Refusal },
    /// Neither an attested session nor a token.
    NoToken,
    /// The token is not good.
    Token { why: &'static str },
    /// The policy says no.
    Policy,
    /// No such resource, no such path, no such method, or the storage failed.
    Resource { why: String },
    /// The key of the session cannot be encrypted to.
    Jwe { why: &'static str },
    /// No such endpoint.
    Endpoint { name: String },
    /// The administrator's token is missing or not good.
    Admin {
        endpoint: AdminEndpoint,
        why: AdminRefusal,
    },
    /// A policy that cannot be set.
    SetPolicy { why: String },
    /// An attestation policy that cannot be set.
    SetAttestationPolicy { why: String },
    /// What the framework refuses before the broker hears of it.
    Framework(StatusCode, &'static str),
}

/// Why evidence is refused. Old servers tell some of it by name.
#[derive(Debug)]
pub(super) enum Refusal {
    NoCookie,
    /// It is unknown, or has expired.
    NoSession,
    /// No such message.
    Malformed(String),
    Evidence(String),
}

/// Where an administrator is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminEndpoint {
    Resource,
    ResourcePolicy,
    AttestationPolicy,
}

/// Why an administrator is refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum AdminRefusal {
    NoHeader,
    BadToken(&'static str),
}

impl Fault {
    /// For the notes: what a real server writes to its log only.
    pub(super) fn cause(&self) -> Option<String> {
        Some(match self {
            Self::AuthRequest { why } => format!("auth: not a request: {why}"),
            Self::Attest {
                why: Refusal::NoCookie,
            } => "attest: no session cookie".into(),
            Self::Attest {
                why: Refusal::NoSession,
            } => "attest: the session is unknown or has expired".into(),
            Self::Attest {
                why: Refusal::Malformed(why) | Refusal::Evidence(why),
            } => format!("attest: {why}"),
            Self::Token { why } => format!("token: {why}"),
            Self::Policy => "resource: the policy denies it".into(),
            Self::Resource { why } => format!("resource: {why}"),
            Self::Jwe { why } => format!("resource: it cannot be encrypted to the session's key: {why}"),
            Self::Admin {
                why: AdminRefusal::BadToken(why),
                ..
            } => format!("admin: {why}"),
            Self::Admin {
                why: AdminRefusal::NoHeader,
                ..
            } => "admin: no token".into(),
            Self::SetPolicy { why } | Self::SetAttestationPolicy { why } => format!("policy: {why}"),
            _ => return None,
        })
    }

    /// The answer that a server of this family and version gives.
    pub(super) fn answer(&self, dialect: Dialect) -> Answer {
        if let Self::Framework(status, text) = self {
            return Answer::framework(*status, text);
        }
        let (status, name, detail) = match dialect {
            Dialect::Trustee | Dialect::TrusteePlugins => self.trustee(dialect),
            Dialect::TrusteeFirst => match self.trustee_first() {
                Ok(answer) => answer,
                Err(answer) => return answer,
            },
            Dialect::Openanolis { attestation } => self.openanolis(attestation),
        };
        let kind = format!("https://github.com/confidential-containers/kbs/errors/{name}");
        Answer {
            status,
            content_type: None,
            cookie: None,
            body: ordered(&[("type", json!(kind)), ("detail", json!(detail))]),
        }
    }

    /// Trustee since 0.12: 401 for everything but what is not there at all.
    fn trustee(&self, dialect: Dialect) -> (StatusCode, &'static str, String) {
        let refused = StatusCode::UNAUTHORIZED;
        match self {
            Self::Endpoint { name } => (
                StatusCode::NOT_FOUND,
                "PluginNotFound",
                format!("Plugin {name} not found"),
            ),
            Self::Admin { endpoint, why } => {
                let why = match why {
                    AdminRefusal::NoHeader => "Failed to parse HTTP Auth Bearer header".to_owned(),
                    AdminRefusal::BadToken(why) => format!("Admin access denied: {why}"),
                };
                match (dialect, endpoint.name()) {
                    (Dialect::TrusteePlugins, _) => {
                        (refused, "AdminAuth", format!("Admin auth error: {why}"))
                    }
                    (_, None) => (
                        refused,
                        "AdminAuthInitialization",
                        format!("failed to initialize [admin] configuration: {why}"),
                    ),
                    (_, Some(endpoint)) => (
                        refused,
                        "AdminAuthAccess",
                        format!("admin access denied for endpoint {endpoint}: {why}"),
                    ),
                }
            }
            Self::SetPolicy { .. } => (
                refused,
                "PolicyEngineError",
                "Policy engine error: Failed to load policy".into(),
            ),
            _ => (refused, self.name(), self.detail()),
        }
    }

    /// The openanolis fork: a status for each kind; its older servers have 500 for what is wrong with an attestation.
    fn openanolis(&self, attestation: StatusCode) -> (StatusCode, &'static str, String) {
        let status = match self {
            Self::AuthRequest { .. }
            | Self::AuthVersionText
            | Self::AuthVersion { .. }
            | Self::Attest { .. } => attestation,
            Self::Policy => StatusCode::FORBIDDEN,
            Self::Resource { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Jwe { .. } | Self::SetAttestationPolicy { .. } => StatusCode::BAD_REQUEST,
            Self::Endpoint { name } => {
                return (
                    StatusCode::NOT_FOUND,
                    "PluginNotFound",
                    format!("Plugin {name} not found"),
                );
            }
            Self::Admin { why, .. } => {
                let why = match why {
                    AdminRefusal::NoHeader => "Failed to parse HTTP Auth Bearer header",
                    AdminRefusal::BadToken(_) => "Admin Token verification failed",
                };
                return (
                    StatusCode::UNAUTHORIZED,
                    "AdminAuth",
                    format!("Admin auth error: {why}"),
                );
            }
            Self::SetPolicy { .. } => {
                return (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "PolicyEngine",
                    "Policy engine error".into(),
                );
            }
            Self::NoToken | Self::Token { .. } | Self::Framework(..) => StatusCode::UNAUTHORIZED,
        };
        (status, self.name(), self.detail())
    }

    /// Trustee 0.8 to 0.11, which had no plugins: other names, 404 for a resource that is not there, and what is no
    /// JSON is refused by the framework.
    fn trustee_first(&self) -> Result<(StatusCode, &'static str, String), Answer> {
        let (name, detail) = match self {
            Self::AuthRequest { .. }
            | Self::Attest {
                why: Refusal::Malformed(_),
            } => {
                return Err(Answer::framework(
                    StatusCode::BAD_REQUEST,
                    "Json deserialize error",
                ));
            }
            Self::Endpoint { .. } | Self::Framework(..) => {
                return Err(Answer::framework(StatusCode::NOT_FOUND, ""));
            }
            Self::Resource { .. } => {
                return Ok((
                    StatusCode::NOT_FOUND,
                    "ReadSecretFailed",
                    "Read secret failed: No such file or directory (os error 2)".into(),
                ));
            }
            Self::AuthVersionText => (
                "FailedAuthentication",
                "Authentication failed: Session: not a version".into(),
            ),
            Self::AuthVersion {
                served: ProtocolVersion::V0_1_1,
                asked,
            } => (
                "ProtocolVersion",
                format!(
                    "KBS Client Protocol Version Mismatch: expected version: =0.1.1, requested version: {asked}"
                ),
            ),
            Self::AuthVersion { asked, .. } => (
                "FailedAuthentication",
                format!("Authentication failed: Session: Invalid Request version {asked}"),
            ),
            Self::Attest {
                why: Refusal::NoCookie,
            } => ("MissingCookie", "The cookie is missing".into()),
            Self::Attest {
                why: Refusal::NoSession,
            } => ("InvalidCookie", "The cookie is invalid".into()),
            Self::Attest {
                why: Refusal::Evidence(why),
            } => ("AttestationFailed", format!("Attestation failed: {why}")),
            Self::NoToken => (
                "InvalidRequest",
                "The request is invalid: parse Authorization header failed".into(),
            ),
            Self::Token { why } => (
                "TokenParseFailed",
                format!("Received an illegal token: verify token failed: {why}"),
            ),
            Self::Policy => ("PolicyReject", "Resource not permitted.".into()),
            Self::Jwe { why } => ("JWEFailed", format!("Json Web Encryption failed: {why}")),
            Self::Admin { .. } => (
                "FailedAuthentication",
                "Authentication failed: Requester is not an authorized user".into(),
            ),
            Self::SetPolicy { why } | Self::SetAttestationPolicy { why } => {
                ("PolicyEndpoint", format!("Policy error: {why}"))
            }
        };
        Ok((StatusCode::UNAUTHORIZED, name, detail))
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::AuthRequest { .. }
            | Self::AuthVersionText
            | Self::AuthVersion { .. }
            | Self::Attest { .. }
            | Self::SetAttestationPolicy { .. } => "AttestationError",
            Self::NoToken => "TokenNotFound",
            Self::Token { .. } => "TokenVerifierError",
            Self::Policy => "PolicyDeny",
            Self::Jwe { .. } => "JweError",
            _ => "PluginInternalError",
        }
    }

    fn detail(&self) -> String {
        let auth = "Attestation error: RCAR handshake Auth failed:";
        match self {
            Self::AuthRequest { .. } => format!("{auth} deserialize Request"),
            Self::AuthVersionText => format!("{auth} failed to parse KBS version"),
            Self::AuthVersion { served, asked } => format!(
                "{auth} KBS Client Protocol Version Mismatch: expect ={} while the request is {asked}",
                served.as_str()
            ),
            Self::Attest { .. } => "Attestation error: RCAR handshake Attest failed".into(),
            Self::SetAttestationPolicy { .. } => "Attestation error: Set Attestation Policy failed".into(),
            Self::NoToken => "Attestation Token not found".into(),
            Self::Token { .. } => "Token Verifier error".into(),
            Self::Policy => "Access denied by policy".into(),
            Self::Jwe { .. } => "JWE failed".into(),
            _ => "Plugin internal error".into(),
        }
    }
}

impl AdminEndpoint {
    /// As Trustee names it in its answer, if it does.
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Resource => None,
            Self::ResourcePolicy => Some("resource-policy"),
            Self::AttestationPolicy => Some("attestation-policy"),
        }
    }
}

/// How a server speaks: its family, and what changed over its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Trustee since 0.14.
    Trustee,
    /// Trustee 0.12 and 0.13.
    TrusteePlugins,
    /// Trustee 0.8 to 0.11.
    TrusteeFirst,
    /// The openanolis fork, and its status for what is wrong with an attestation.
    Openanolis { attestation: StatusCode },
}

impl Dialect {
    pub(super) const fn of(family: Family, version: ProtocolVersion) -> Self {
        match (family, version) {
            (Family::Trustee, ProtocolVersion::V0_1_0 | ProtocolVersion::V0_1_1) => Self::TrusteeFirst,
            (Family::Trustee, ProtocolVersion::V0_2_0) => Self::TrusteePlugins,
            (Family::Trustee, ProtocolVersion::V0_4_0) => Self::Trustee,
            (Family::Openanolis, ProtocolVersion::V0_4_0) => Self::Openanolis {
                attestation: StatusCode::BAD_GATEWAY,
            },
            (Family::Openanolis, _) => Self::Openanolis {
                attestation: StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }
}

/// A JSON object with its members in the order that servers write them.
pub(super) fn ordered(members: &[(&str, Value)]) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|(name, value)| format!("{}:{value}", json!(name)))
        .collect();
    format!("{{{}}}", members.join(","))
}
