//! Request, challenge, attestation, response: how a session comes to be.

use serde_json::Value;
use zeroize::Zeroizing;

use super::session::{Cookies, SESSION_COOKIE, Session};
use super::{KbsClient, verdict};
use crate::canonical;
use crate::error::{Error, Result};
use crate::evidence::{EvidenceProvider, EvidenceRequest, ProtocolVersion};
use crate::http::{Deadline, Request, Response, Retry};
use crate::messages::{
    AttestRequest, AttestResponse, AuthRequest, Challenge, CompositeEvidence, ErrorInformation, InitData,
    OldAttestRequest, RuntimeData,
};
use crate::shown::shown;
use crate::tee_key::{TeeKey, TeeKeyKind};

/// Most bytes of the answer to auth.
const MAX_CHALLENGE: usize = 64 << 10;
/// Most bytes of the answer to attest. Tokens of machines with many devices have hundreds of KiB.
const MAX_TOKEN: usize = 4 << 20;

impl KbsClient {
    pub(super) fn handshake(&self, deadline: Deadline) -> Result<Session> {
        let evidence = self.evidence.as_deref().ok_or(Error::Config {
            what: "the token was dropped, and there is no evidence to get another with",
        })?;
        let (version, challenge, mut cookies) = self.challenge(evidence.tee(), deadline)?;

        let kind = if version.seals_in_old_form() {
            TeeKeyKind::Rsa1_5
        } else {
            self.options.key_kind
        };
        if kind == TeeKeyKind::Rsa1_5 && !version.seals_in_old_form() {
            return Err(Error::Config {
                what: "RSA1_5 is for brokers of 0.1.x alone; choose P-256 or RSA-OAEP-256",
            });
        }
        let key = TeeKey::generate(kind)?;
        // Evidence of devices would go here, as the very string that is hashed and sent.
        let additional = "";
        let report_data = canonical::report_data(version, &challenge.nonce, key.public(), additional);
        let primary = evidence.evidence(&EvidenceRequest {
            report_data: &report_data,
            protocol: version,
            deadline: deadline.0,
        })?;

        let body = if version >= ProtocolVersion::V0_4_0 {
            serde_json::to_vec(&AttestRequest {
                init_data: self.options.init_data.clone().map(|body| InitData {
                    format: "toml".to_owned(),
                    body,
                }),
                runtime_data: RuntimeData {
                    nonce: challenge.nonce,
                    tee_pubkey: key.public().clone(),
                },
                tee_evidence: CompositeEvidence {
                    primary_evidence: primary,
                    additional_evidence: additional.to_owned(),
                },
            })
        } else {
            if self.options.init_data.is_some() {
                self.warn(&format!(
                    "the broker speaks {version}, which has no init data; it is left out"
                ));
            }
            serde_json::to_vec(&OldAttestRequest {
                tee_pubkey: key.public().clone(),
                tee_evidence: if version == ProtocolVersion::V0_1_0 {
                    Value::String(primary.to_string())
                } else {
                    primary
                },
            })
        }
        .expect("JSON values serialise");
        let token = self.attest(&body, &mut cookies, evidence, deadline)?;
        log::debug!("attested with protocol {version}");
        Session::new(version, key, cookies, token).map_err(|_| {
            self.http
                .malformed("the token in its answer to attest is not printable")
        })
    }

    /// Finds the version that the broker speaks, and begins a session in it.
    pub(super) fn challenge(
        &self,
        tee: &str,
        deadline: Deadline,
    ) -> Result<(ProtocolVersion, Challenge, Cookies)> {
        let mut version = self.protocol_version().unwrap_or(ProtocolVersion::V0_4_0);
        let mut tried = Vec::new();
        loop {
            tried.push(version);
            let response = self.auth(version, tee, deadline)?;
            if response.is_success() {
                let (challenge, cookies) = self.read_challenge(&response)?;
                self.state().version = Some(version);
                return Ok((version, challenge, cookies));
            }
            let information = response
                .verdict()
                .ok_or_else(|| self.http.unexpected(&response))?;
            if !verdict::refuses_version(&information) {
                return Err(refused(&information, response.status, verdict::AUTH_CAUSES));
            }
            // Brokers that do not say so speak the oldest.
            let told = verdict::expected_version(&information.detail);
            let next = told.map_or(Ok(ProtocolVersion::V0_1_0), str::parse);
            match next {
                Ok(next) if self.options.version.is_none() && !tried.contains(&next) => {
                    log::debug!("the broker speaks protocol {next}, not {version}");
                    self.warn_of(next);
                    version = next;
                }
                _ => {
                    return Err(Error::Version {
                        theirs: told.unwrap_or("another").to_owned(),
                        ours: self.spoken(),
                        detail: shown(&information.detail),
                    });
                }
            }
        }
    }

    /// Says once what an old version means: whoever answers in the broker's place can ask for it.
    fn warn_of(&self, version: ProtocolVersion) {
        if version.seals_in_old_form() && !std::mem::replace(&mut self.state().warned_of_version, true) {
            self.warn(&format!(
                "{} asks for protocol {version}, which seals with RSA1_5 and does not bind the header of what it \
                 seals; if the broker is newer, give its version, and something else answered in its place",
                self.http.base()
            ));
        }
    }

    fn auth(&self, version: ProtocolVersion, tee: &str, deadline: Deadline) -> Result<Response> {
        let body = serde_json::to_vec(&AuthRequest {
            version: version.as_str().to_owned(),
            tee: tee.to_owned(),
            // A string, or brokers of 0.1.0 fail before they look at the version.
            extra_params: Value::String(String::new()),
        })
        .expect("JSON values serialise");
        self.http.send(
            &Request {
                method: "POST",
                path: "/kbs/v0/auth",
                headers: self.options.headers.for_request(),
                body: Some(("application/json", &body)),
                answer: "the answer to auth",
                max: MAX_CHALLENGE,
                retry: Retry::Transient,
            },
            deadline,
        )
    }

    fn read_challenge(&self, response: &Response) -> Result<(Challenge, Cookies)> {
        let challenge: Challenge = serde_json::from_slice(&response.body)
            .map_err(|_| self.http.malformed("its answer to auth is no challenge in JSON"))?;
        if let Some(hash) = challenge.extra_params.get("selected-hash-algorithm")
            && !hash
                .as_str()
                .is_some_and(|hash| hash.eq_ignore_ascii_case("sha384"))
        {
            return Err(self
                .http
                .malformed("its answer to auth asks for a digest other than SHA-384"));
        }
        let mut cookies = Cookies::default();
        cookies.take_from(response);
        if !cookies.has_session() {
            return Err(self
                .http
                .malformed(format_args!("its answer to auth sets no cookie {SESSION_COOKIE}")));
        }
        Ok((challenge, cookies))
    }

    fn attest(
        &self,
        body: &[u8],
        cookies: &mut Cookies,
        evidence: &dyn EvidenceProvider,
        deadline: Deadline,
    ) -> Result<Zeroizing<String>> {
        let cookie = cookies.header();
        let mut headers = self.options.headers.for_request();
        headers.extend(cookie.as_ref().map(|cookies| ("cookie", cookies.as_str())));
        headers.extend(self.options.headers.instance_info());
        let response = self.http.send(
            &Request {
                method: "POST",
                path: "/kbs/v0/attest",
                headers,
                body: Some(("application/json", body)),
                answer: "the answer to attest",
                max: MAX_TOKEN,
                retry: Retry::Transient,
            },
            deadline,
        )?;
        if !response.is_success() {
            let information = response
                .verdict()
                .ok_or_else(|| self.http.unexpected(&response))?;
            log::debug!("the broker refused evidence of the kind {}", evidence.tee());
            return Err(refused(&information, response.status, verdict::ATTEST_CAUSES));
        }
        cookies.take_from(&response);
        let mut answer: AttestResponse = serde_json::from_slice(&response.body)
            .map_err(|_| self.http.malformed("its answer to attest holds no token in JSON"))?;
        Ok(Zeroizing::new(std::mem::take(&mut answer.token)))
    }

    /// The versions that it would speak.
    fn spoken(&self) -> String {
        let all = ProtocolVersion::ALL.map(ProtocolVersion::as_str);
        self.options
            .version
            .map_or_else(|| all.join(", "), |version| version.to_string())
    }
}

fn refused(information: &ErrorInformation, status: u16, causes: &'static str) -> Error {
    Error::AttestationRefused {
        status,
        name: information.name().to_owned(),
        detail: shown(&information.detail),
        causes,
    }
}
