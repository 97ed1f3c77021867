//! HTTP written out by hand, and what a client of the broker has to work out, without the crate's own client.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::TcpStream;

use attest_client::dev_kbs::{Builder, DevKbs};
use attest_client::messages::Jwe;
use attest_client::{ProtocolVersion, TeeKey, TeeKeyKind};
use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A broker that keeps its notes to itself.
pub(crate) fn start(builder: Builder) -> DevKbs {
    builder.notes(|_| ()).start().unwrap()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Reads one, up to the length that it states.
    pub(crate) fn read(mut from: impl Read) -> Self {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        let head_len = loop {
            if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
            let len = from.read(&mut part).unwrap();
            assert!(len > 0, "the head is cut off: {}", bytes.escape_ascii());
            bytes.extend_from_slice(&part[..len]);
        };
        let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, length)| length.parse().unwrap());
        while bytes.len() < head_len + length {
            let len = from.read(&mut part).unwrap();
            assert!(len > 0, "the body is cut off");
            bytes.extend_from_slice(&part[..len]);
        }
        Self {
            status,
            headers,
            body: String::from_utf8(bytes[head_len..].to_vec()).unwrap(),
        }
    }
}

/// Sends these bytes on a connection of their own.
pub(crate) fn send(broker: &DevKbs, request: &[u8]) -> Reply {
    let host = broker.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host.split('/').next().unwrap()).unwrap();
    stream.write_all(request).unwrap();
    Reply::read(stream)
}

/// `METHOD /path` with headers, each ending in CRLF, and a body.
pub(crate) fn request(broker: &DevKbs, line: &str, headers: &str, body: &str) -> Reply {
    let text = format!(
        "{line} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    send(broker, text.as_bytes())
}

/// One client by hand: its key, and after `auth` its session.
pub(crate) struct Hand<'a> {
    broker: &'a DevKbs,
    pub(crate) key: TeeKey,
    version: ProtocolVersion,
    tee: &'static str,
    pub(crate) cookie: String,
    pub(crate) nonce: String,
    pub(crate) token: String,
}

pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

impl<'a> Hand<'a> {
    /// Begins a session.
    pub(crate) fn auth(
        broker: &'a DevKbs,
        version: ProtocolVersion,
        tee: &'static str,
        kind: TeeKeyKind,
    ) -> Self {
        let body = format!(r#"{{"version":"{version}","tee":"{tee}","extra-params":""}}"#);
        let reply = request(broker, "POST /kbs/v0/auth", JSON, &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap();
        Self {
            broker,
            key: TeeKey::generate(kind).unwrap(),
            version,
            tee,
            cookie: cookie.to_owned(),
            nonce: reply.json()["nonce"].as_str().unwrap().to_owned(),
            token: String::new(),
        }
    }

    /// The JWK of its key.
    pub(crate) fn jwk(&self) -> Value {
        serde_json::to_value(self.key.public()).unwrap()
    }

    /// What the evidence has to be bound to. All of it is ASCII, so that sorting by name is RFC 8785.
    pub(crate) fn digest(&self) -> Vec<u8> {
        let runtime = if self.version == ProtocolVersion::V0_4_0 {
            json!({"additional-evidence": "", "nonce": self.nonce, "tee-pubkey": self.jwk()})
        } else {
            json!({"nonce": self.nonce, "tee-pubkey": self.jwk()})
        };
        digest(&SHA384, sorted(&runtime).as_bytes()).as_ref().to_vec()
    }

    /// Evidence that fits.
    pub(crate) fn evidence(&self) -> Value {
        match self.tee {
            "tdx" => json!({"quote": STANDARD.encode(quote(&self.digest(), &[0; 48], &[[0; 48]; 4]))}),
            _ => json!({
                "svn": "1", "report_data": STANDARD.encode(self.digest()), "measure_register": "0".repeat(64),
            }),
        }
    }

    /// The message that brings `evidence`.
    pub(crate) fn message(&self, evidence: &Value) -> Value {
        match self.version {
            ProtocolVersion::V0_4_0 => json!({
                "init-data": null,
                "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.jwk()},
                "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
            }),
            ProtocolVersion::V0_1_0 => {
                json!({"tee-pubkey": self.jwk(), "tee-evidence": evidence.to_string()})
            }
            _ => json!({"tee-pubkey": self.jwk(), "tee-evidence": evidence}),
        }
    }

    pub(crate) fn attest_with(&self, message: &Value) -> Reply {
        let headers = format!("{JSON}Cookie: {}\r\n", self.cookie);
        request(self.broker, "POST /kbs/v0/attest", &headers, &message.to_string())
    }

    /// Attests with evidence that fits.
    pub(crate) fn attest(mut self) -> Self {
        let reply = self.attest_with(&self.message(&self.evidence()));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["token"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.token);
        self
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        let headers = format!("Cookie: {}\r\n", self.cookie);
        request(self.broker, &format!("GET /kbs/v0/resource/{path}"), &headers, "")
    }

    /// Opens a resource.
    pub(crate) fn open(&self, reply: &Reply) -> Vec<u8> {
        assert_eq!(reply.status, 200, "{reply:?}");
        let jwe: Jwe = serde_json::from_str(&reply.body).unwrap();
        jwe.open(&self.key, self.version).unwrap().to_vec()
    }
}

/// JSON with the members of its objects in order.
pub(crate) fn sorted(value: &Value) -> String {
    let Some(object) = value.as_object() else {
        return value.to_string();
    };
    let mut members: Vec<_> = object
        .iter()
        .map(|(name, value)| format!("\"{name}\":{}", sorted(value)))
        .collect();
    members.sort();
    format!("{{{}}}", members.join(","))
}

/// A quote of version 4 with these fields. It has no signature, and says that its key is on P-384.
pub(crate) fn quote(report_data: &[u8], config_id: &[u8; 48], rtmr: &[[u8; 48]; 4]) -> Vec<u8> {
    let mut quote = vec![0; 48 + 584 + 4];
    quote[0] = 4;
    quote[2] = 3;
    quote[4] = 0x81;
    quote[232..280].copy_from_slice(config_id);
    for (index, rtmr) in rtmr.iter().enumerate() {
        quote[376 + 48 * index..][..48].copy_from_slice(rtmr);
    }
    quote[568..568 + report_data.len()].copy_from_slice(report_data);
    quote
}

/// An administrator.
pub(crate) struct Admin(Ed25519KeyPair);

impl Admin {
    pub(crate) fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    /// The public key (RFC 8410).
    pub(crate) fn pem(&self) -> String {
        let mut der = vec![
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        der.extend_from_slice(self.0.public_key().as_ref());
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        )
    }

    /// The header that brings a token with these claims.
    pub(crate) fn header(&self, claims: &Value) -> String {
        let parts = [json!({"alg": "EdDSA", "typ": "JWT"}), claims.clone()];
        let signed = parts
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
            .join(".");
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()).as_ref());
        format!("Authorization: Bearer {signed}.{signature}\r\n")
    }
}
