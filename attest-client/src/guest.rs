//! Services of Confidential Containers inside the guest, by their REST interface: the Confidential Data Hub (CDH) and
//! the Attestation Agent (AA).

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::aael::AaelEvent;
use crate::error::{Error, Result};
use crate::evidence::ProtocolVersion;
use crate::http::{BaseUrl, Deadline, Http, Request, Response, Retry, Settings};
use crate::resource::ResourceUri;
use crate::shown::shown;
use crate::tee_key::{TeeKey, TeeKeyKind};

const MAX_RESOURCE: usize = 16 << 20;
const MAX_TOKEN: usize = 4 << 20;
const MAX_EVIDENCE: usize = 8 << 20;
const MAX_ANSWER: usize = 64 << 10;
/// Most bytes that evidence of TDX is bound to.
const MAX_RUNTIME_DATA: usize = 64;

/// A client of the guest's own services. It is the guest that attests then, by its own configuration.
///
/// What it fetches travels in plaintext, so it is this machine's address or none.
pub struct GuestClient {
    http: Http,
    timeout: Duration,
}

impl GuestClient {
    /// Where `api-server-rest` listens.
    pub const DEFAULT_URL: &'static str = "http://127.0.0.1:8006";

    /// A client of the services at `url`, most likely [`DEFAULT_URL`](Self::DEFAULT_URL). They must be on this
    /// machine; a call may take `timeout` with all its attempts.
    ///
    /// # Errors
    /// [`Error::Config`] where they are not.
    pub fn new(url: &str, timeout: Duration) -> Result<Self> {
        let base = BaseUrl::parse(url)?;
        if !base.is_loopback() {
            return Err(Error::Config {
                what: "the guest's services are those of this machine: 127.0.0.1, [::1] or localhost",
            });
        }
        let settings = Settings {
            request_timeout: timeout,
            ..Settings::default()
        };
        Ok(Self {
            // Resources pass through the buffers of its connections.
            http: Http::new(base, settings, false)?,
            timeout,
        })
    }

    /// A resource by the CDH, which attests for it.
    ///
    /// # Errors
    /// [`Error::Guest`], [`Error::Unreachable`], [`Error::Deadline`], [`Error::TooLarge`].
    pub fn get_resource(&self, resource: &ResourceUri) -> Result<Zeroizing<Vec<u8>>> {
        let path = format!("/cdh/resource/{}", resource.path());
        Ok(self.get("Confidential Data Hub", &path, MAX_RESOURCE)?.body)
    }

    /// An attestation token of the broker that the AA is configured for, and the key that resources are sealed to
    /// with it: for [`KbsClientBuilder::token`](crate::KbsClientBuilder::token).
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::TeeKey`]; else as [`get_resource`](Self::get_resource).
    pub fn token(&self) -> Result<(Zeroizing<String>, TeeKey)> {
        self.token_for(ProtocolVersion::V0_4_0)
    }

    /// The same where the broker speaks this version: RSA keys of brokers before 0.2.0 are for RSA1_5, which the
    /// agent's answer does not tell. The [`KbsClient`](crate::KbsClient) has to be told the version too.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    pub fn token_for(&self, broker: ProtocolVersion) -> Result<(Zeroizing<String>, TeeKey)> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            token: &'a RawValue,
            /// Not as a string: to undo escapes the parser would leave a copy behind.
            #[serde(borrow)]
            tee_keypair: &'a RawValue,
        }
        let response = self.get(AGENT, "/aa/token?token_type=kbs", MAX_TOKEN)?;
        let answer: Option<Answer<'_>> = serde_json::from_slice(&response.body).ok();
        let (token, pem) = answer
            .and_then(|answer| Some((unescape(answer.token)?, unescape(answer.tee_keypair)?)))
            .ok_or_else(|| {
                self.http
                    .malformed("the attestation agent's answer is no token with a key in JSON")
            })?;
        let rsa = if broker.seals_in_old_form() {
            TeeKeyKind::Rsa1_5
        } else {
            TeeKeyKind::RsaOaep256
        };
        Ok((token, TeeKey::from_pem(&pem, rsa)?))
    }

    /// Evidence by the AA, bound to at most 64 bytes as they are.
    ///
    /// # Errors
    /// [`Error::Malformed`]; else as [`get_resource`](Self::get_resource).
    pub fn evidence(&self, runtime_data: &[u8]) -> Result<Value> {
        if runtime_data.len() > MAX_RUNTIME_DATA {
            return Err(Error::Config {
                what: "evidence is bound to at most 64 bytes; bind it to a digest",
            });
        }
        let path = format!(
            "/aa/evidence?runtime_data={}&encoding=base64",
            URL_SAFE_NO_PAD.encode(runtime_data)
        );
        let response = self.get(AGENT, &path, MAX_EVIDENCE)?;
        serde_json::from_slice(&response.body)
            .map_err(|_| self.http.malformed("the attestation agent's evidence is no JSON"))
    }

    /// Has the AA extend the runtime measurement with an event, and log it. Where the AA runs this is how to measure:
    /// it keeps its place in its log for itself, and a [`MeasurementLog`](crate::MeasurementLog) leaves it alone.
    ///
    /// # Errors
    /// [`Error::Guest`] also where the AA answers that it measured nothing; else as
    /// [`get_resource`](Self::get_resource). After an error without an answer the event may have been measured.
    pub fn measure(&self, event: &AaelEvent) -> Result<()> {
        #[derive(Deserialize)]
        struct Answer {
            /// `true` or `false`, as a string.
            success: String,
            #[serde(default)]
            message: String,
        }
        let body = json!({
            "domain": event.domain(),
            "operation": event.operation(),
            "content": event.content(),
        });
        let response = self.send(
            AGENT,
            "POST",
            "/aa/aael",
            Some(("application/json", body.to_string().as_bytes())),
            MAX_ANSWER,
        )?;
        let answer: Answer = serde_json::from_slice(&response.body).map_err(|_| {
            self.http
                .malformed("the attestation agent does not say whether it measured")
        })?;
        if answer.success != "true" {
            return Err(Error::Guest {
                service: AGENT,
                status: response.status,
                detail: shown(&answer.message),
            });
        }
        Ok(())
    }

    fn get(&self, service: &'static str, path: &str, max: usize) -> Result<Response> {
        self.send(service, "GET", path, None, max)
    }

    fn send(
        &self,
        service: &'static str,
        method: &'static str,
        path: &str,
        body: Option<(&'static str, &[u8])>,
        max: usize,
    ) -> Result<Response> {
        let response = self.http.send(
            &Request {
                method,
                path,
                headers: Vec::new(),
                body,
                answer: "the guest's answer",
                max,
                // Its failures have no other status than 500, attesting again would take long, and measuring again
                // would be another measurement.
                retry: Retry::Unsent,
            },
            Deadline::after(Some(self.timeout), self.http.clock()),
        )?;
        if response.is_success() {
            return Ok(response);
        }
        let words = shown(&String::from_utf8_lossy(&response.body));
        let detail = match response.status {
            // What went well but for its status may be a resource.
            200..=299 => "not the status of an answer".to_owned(),
            404 => format!("{words} (is it started with --features all ?)"),
            403 => format!("{words} (it answers callers on this machine alone)"),
            _ => words,
        };
        Err(Error::Guest {
            service,
            status: response.status,
            detail,
        })
    }
}

/// A JSON string of ASCII, as tokens and PEM are.
fn unescape(json: &RawValue) -> Option<Zeroizing<String>> {
    let inner = json.get().strip_prefix('"')?.strip_suffix('"')?;
    let mut text = Zeroizing::new(String::with_capacity(inner.len()));
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        text.push(match char {
            '\\' => match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other @ ('"' | '\\' | '/') => other,
                _ => return None,
            },
            other => other,
        });
    }
    Some(text)
}

const AGENT: &str = "Attestation Agent";

impl fmt::Debug for GuestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestClient")
            .field("url", &self.http.base().to_string())
            .finish()
    }
}
