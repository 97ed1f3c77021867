//! The broker for development, asked by hand: it answers as the servers that it stands for, and lets nobody out of its
//! directory or on to anything but loopback.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attest_client::dev_kbs::{DevKbs, Family, Policy};
use attest_client::{ProtocolVersion, TeeKeyKind};
use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

mod common {
    pub(crate) mod raw;
}

use common::raw::{Admin, Hand, JSON, Reply, quote, request, send, sorted, start};

use ProtocolVersion::{V0_1_0, V0_1_1, V0_2_0, V0_4_0};

const SECRET: &[u8] = b"a key with a newline\n";
const PATH: &str = "default/model/key";

/// The body of an error.
fn error(name: &str, detail: &str) -> String {
    format!(
        r#"{{"type":"https://github.com/confidential-containers/kbs/errors/{name}","detail":"{detail}"}}"#
    )
}

#[test]
fn every_key_of_every_version_opens_what_was_sealed_to_it() {
    use TeeKeyKind::{P256, P521, Rsa1_5, RsaOaep256};
    for (family, version, kinds) in [
        (Family::Trustee, V0_4_0, &[P256, P521, RsaOaep256, Rsa1_5][..]),
        (Family::Openanolis, V0_4_0, &[P256, RsaOaep256, Rsa1_5]),
        (Family::Trustee, V0_2_0, &[P256, RsaOaep256, Rsa1_5]),
        (Family::Trustee, V0_1_1, &[Rsa1_5]),
        (Family::Trustee, V0_1_0, &[Rsa1_5]),
        (Family::Openanolis, V0_1_0, &[Rsa1_5]),
    ] {
        let builder = DevKbs::builder().family(family).versions(&[version]);
        let broker = start(builder.resource(PATH, SECRET).resource("a/b/empty", b""));
        for kind in kinds {
            let hand = Hand::auth(&broker, version, "sample", *kind).attest();
            let reply = hand.get(PATH);
            assert_eq!(reply.header("content-type"), Some("application/json"));
            assert_eq!(hand.open(&reply), SECRET, "{version} {kind:?}");
            assert_eq!(hand.open(&hand.get("a/b/empty")), b"");
            // The token alone does as well, in one header or the other.
            let bearer = format!("Authorization: Bearer {}\r\n", hand.token);
            let line = format!("GET /kbs/v0/resource/{PATH}");
            assert_eq!(hand.open(&request(&broker, &line, &bearer, "")), SECRET);
            let header = format!(
                "Authorization: Bearer some API key\r\nAttestation: {}\r\n",
                hand.token
            );
            let reply = request(&broker, &line, &header, "");
            match family {
                Family::Openanolis => assert_eq!(hand.open(&reply), SECRET),
                _ => assert_eq!(reply.status, 401, "{reply:?}"),
            }
        }
    }
}

#[test]
fn a_session_is_a_cookie_and_a_nonce() {
    // 5 minutes later it is Mon, 23 Nov 2026 02:55:23 GMT.
    let broker = start(DevKbs::builder().clock(|| UNIX_EPOCH + Duration::from_secs(1_795_402_523 - 300)));
    let body =
        r#"{"version":"0.4.0","tee":"tdx","extra-params":{"supported-hash-algorithms":["sha384"]},"more":1}"#;
    let reply = request(&broker, "POST /kbs/v0/auth", "", body);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let cookie = reply.header("set-cookie").unwrap();
    let (id, rest) = cookie.split_once("; ").unwrap();
    let id = id.strip_prefix("kbs-session-id=").unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    assert_eq!(rest, "Expires=Mon, 23 Nov 2026 02:55:23 GMT");
    let nonce = reply.json()["nonce"].as_str().unwrap().to_owned();
    assert_eq!(STANDARD.decode(&nonce).unwrap().len(), 32);
    assert_eq!(reply.body, format!(r#"{{"nonce":"{nonce}","extra-params":""}}"#));
    // None is like another.
    let other = request(&broker, "POST /kbs/v0/auth", "", body);
    assert_ne!(other.json()["nonce"], nonce.as_str());
    assert_ne!(other.header("set-cookie").unwrap(), cookie);
    // Attesting sets it once more, with the same end.
    let hand = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256);
    let first = hand.attest_with(&hand.message(&hand.evidence()));
    let again = first.header("set-cookie").unwrap();
    assert_eq!(
        again,
        format!("{}; Expires=Mon, 23 Nov 2026 02:55:23 GMT", hand.cookie)
    );
    // And once attested, the same token comes back whatever is sent.
    let second = hand.attest_with(&json!("nonsense"));
    assert_eq!((second.status, second.body), (200, first.body));
}

#[test]
fn sessions_and_tokens_end() {
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let now = Arc::clone(&clock);
    let broker = start(
        DevKbs::builder()
            .resource(PATH, SECRET)
            .session_lifetime(Duration::from_secs(100))
            .token_lifetime(Duration::from_secs(200))
            .clock(move || UNIX_EPOCH + Duration::from_secs(now.load(Ordering::SeqCst))),
    );
    let waiting = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256);
    let hand = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256).attest();
    let bearer = format!("Authorization: Bearer {}\r\n", hand.token);
    let by_token = || request(&broker, &format!("GET /kbs/v0/resource/{PATH}"), &bearer, "");
    clock.store(1_000_100, Ordering::SeqCst);
    assert_eq!(hand.open(&hand.get(PATH)), SECRET);
    clock.store(1_000_101, Ordering::SeqCst);
    let late = hand.get(PATH);
    assert_eq!(
        (late.status, late.body),
        (401, error("TokenNotFound", "Attestation Token not found"))
    );
    assert_eq!(
        waiting.attest_with(&waiting.message(&waiting.evidence())).status,
        401
    );
    // The token outlives it, with a minute's grace.
    clock.store(1_000_260, Ordering::SeqCst);
    assert_eq!(hand.open(&by_token()), SECRET);
    clock.store(1_000_261, Ordering::SeqCst);
    let late = by_token();
    assert_eq!(
        (late.status, late.body),
        (401, error("TokenVerifierError", "Token Verifier error"))
    );
}

/// What is sent, and the status and body that come back.
type Row<'a> = (&'a str, String, String, (u16, String));

/// Sends every row and compares.
fn compare(broker: &DevKbs, rows: Vec<Row<'_>>) {
    for (line, headers, body, (status, expected)) in rows {
        let reply = request(broker, line, &headers, &body);
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (status, expected.as_str()),
            "{line} {headers} {body}"
        );
        if expected.starts_with('{') {
            assert_eq!(reply.header("content-type"), None, "errors have none");
        }
    }
}

/// A message to authenticate.
fn auth(version: &str, tee: &str) -> String {
    format!(r#"{{"version":"{version}","tee":"{tee}","extra-params":""}}"#)
}

const AUTH: &str = "POST /kbs/v0/auth";
const ATTEST: &str = "POST /kbs/v0/attest";
const GET: &str = "GET /kbs/v0/resource/default/model/key";
const FAILED_AUTH: &str = "Attestation error: RCAR handshake Auth failed: deserialize Request";
const FAILED_ATTEST: &str = "Attestation error: RCAR handshake Attest failed";

fn mismatch(theirs: &str, ours: &str) -> String {
    format!(
        "Attestation error: RCAR handshake Auth failed: KBS Client Protocol Version Mismatch: expect ={theirs} while \
         the request is {ours}"
    )
}

#[test]
fn trustee_refuses_in_its_own_words() {
    let broker = start(DevKbs::builder().resource(PATH, SECRET));
    let hand = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256).attest();
    let fresh = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256);
    let cookie = format!("Cookie: {}\r\n", hand.cookie);
    let unattested = format!("Cookie: {}\r\n", fresh.cookie);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let tampered = hand.token.replacen('.', ".e", 1);
    let lower = format!("Authorization: bearer {}\r\n", hand.token);
    let none = String::new;
    let no_token = || (401, error("TokenNotFound", "Attestation Token not found"));
    let bad_token = || (401, error("TokenVerifierError", "Token Verifier error"));
    let plugin = || (401, error("PluginInternalError", "Plugin internal error"));
    let bad_auth = || (401, error("AttestationError", FAILED_AUTH));
    let bad_attest = || (401, error("AttestationError", FAILED_ATTEST));
    let not_found = |name: &str| (404, error("PluginNotFound", &format!("Plugin {name} not found")));
    compare(
        &broker,
        vec![
            (GET, none(), none(), no_token()),
            (GET, "Cookie: kbs-session-id=0123\r\n".into(), none(), no_token()),
            (GET, unattested.clone(), none(), no_token()),
            (GET, "Authorization: Basic dTpw\r\n".into(), none(), no_token()),
            (GET, lower, none(), no_token()),
            (GET, bearer("x.y.z"), none(), bad_token()),
            (GET, bearer(&tampered), none(), bad_token()),
            (GET, bearer("tampered"), none(), bad_token()),
            (
                "GET /kbs/v0/resource/default/model/other",
                cookie.clone(),
                none(),
                plugin(),
            ),
            (
                "GET /kbs/v0/resource/default/model",
                cookie.clone(),
                none(),
                plugin(),
            ),
            (
                "GET /kbs/v0/resource/default//key",
                cookie.clone(),
                none(),
                plugin(),
            ),
            (
                "GET /kbs/v0/resource/default/model/key/",
                cookie.clone(),
                none(),
                plugin(),
            ),
            (
                "GET /kbs/v0/resource/default/model/.key",
                cookie.clone(),
                none(),
                plugin(),
            ),
            (
                "GET /kbs/v0/resource/../../etc/passwd",
                cookie.clone(),
                none(),
                plugin(),
            ),
            (
                "GET /kbs/v0/resource/%2e%2e/etc/passwd",
                cookie.clone(),
                none(),
                plugin(),
            ),
            (
                "PUT /kbs/v0/resource/default/model/key",
                cookie.clone(),
                none(),
                plugin(),
            ),
            (
                "PATCH /kbs/v0/resource/default/model/key",
                cookie.clone(),
                none(),
                (405, none()),
            ),
            (
                AUTH,
                none(),
                auth("0.1.0", "tdx"),
                (401, error("AttestationError", &mismatch("0.4.0", "0.1.0"))),
            ),
            (
                AUTH,
                none(),
                auth("0.4", "tdx"),
                (
                    401,
                    error(
                        "AttestationError",
                        &FAILED_AUTH.replace("deserialize Request", "failed to parse KBS version"),
                    ),
                ),
            ),
            (AUTH, none(), auth("0.4.0", "TDX"), bad_auth()),
            (AUTH, none(), auth("0.4.0", "azsnpvtpm"), bad_auth()),
            (
                AUTH,
                none(),
                r#"{"version":"0.4.0","tee":"tdx"}"#.into(),
                bad_auth(),
            ),
            (AUTH, none(), "{".into(), bad_auth()),
            (
                ATTEST,
                none(),
                fresh.message(&fresh.evidence()).to_string(),
                bad_attest(),
            ),
            (
                ATTEST,
                "Cookie: kbs-session-id=0123\r\n".into(),
                none(),
                bad_attest(),
            ),
            (ATTEST, unattested, "{}".into(), bad_attest()),
            ("GET /kbs/v0/auth", none(), none(), not_found("auth")),
            ("GET /kbs/v0/attest", none(), none(), not_found("attest")),
            ("GET /kbs/v0/nebula-ca/x", none(), none(), not_found("nebula-ca")),
            ("GET /", none(), none(), (404, none())),
            ("GET /kbs/v1/auth", none(), none(), (404, none())),
            (
                "POST /trustee/kbs/v0/auth",
                none(),
                auth("0.4.0", "tdx"),
                (404, none()),
            ),
        ],
    );
    // The query is for policies, escapes are undone, and a session that is none gives way to a token.
    for line in [
        "GET /kbs/v0/resource/default/model/key?a=b",
        "GET /kbs/v0/resource/default/mod%65l/key",
    ] {
        assert_eq!(hand.open(&request(&broker, line, &cookie, "")), SECRET);
    }
    let both = format!("Cookie: kbs-session-id=0123\r\n{}", bearer(&hand.token));
    assert_eq!(hand.open(&request(&broker, GET, &both, "")), SECRET);
}

#[test]
fn the_fork_refuses_in_its_own_words() {
    for (version, attestation) in [(V0_4_0, 502), (V0_1_0, 500)] {
        let builder = DevKbs::builder().family(Family::Openanolis).versions(&[version]);
        let broker = start(builder.resource(PATH, SECRET));
        let hand = Hand::auth(&broker, version, "sample", TeeKeyKind::Rsa1_5).attest();
        let cookie = format!("Cookie: {}\r\n", hand.cookie);
        let none = String::new;
        let other = if version == V0_4_0 { "0.1.0" } else { "0.4.0" };
        let version = version.as_str();
        let attestation = |detail: &str| (attestation, error("AttestationError", detail));
        compare(
            &broker,
            vec![
                (
                    GET,
                    none(),
                    none(),
                    (401, error("TokenNotFound", "Attestation Token not found")),
                ),
                (
                    GET,
                    "Attestation: x.y.z\r\n".into(),
                    none(),
                    (401, error("TokenVerifierError", "Token Verifier error")),
                ),
                (
                    "GET /kbs/v0/resource/default/model/other",
                    cookie,
                    none(),
                    (500, error("PluginInternalError", "Plugin internal error")),
                ),
                (
                    AUTH,
                    none(),
                    auth(other, "tdx"),
                    attestation(&mismatch(version, other)),
                ),
                (
                    AUTH,
                    none(),
                    auth(version, "az-snp-vtpm"),
                    attestation(FAILED_AUTH),
                ),
                (ATTEST, none(), none(), attestation(FAILED_ATTEST)),
                (
                    "GET /kbs/v0/auth",
                    none(),
                    none(),
                    (404, error("PluginNotFound", "Plugin auth not found")),
                ),
                (
                    "PUT /kbs/v0/resource/default/model/key",
                    none(),
                    none(),
                    (405, none()),
                ),
            ],
        );
        assert_eq!(
            request(&broker, AUTH, "", &auth(version, "azsnpvtpm")).status,
            200
        );
    }
    // What 0.1.0 cannot read fails before its version is looked at.
    let broker = start(DevKbs::builder().family(Family::Openanolis).versions(&[V0_1_0]));
    let body = r#"{"version":"0.4.0","tee":"tdx","extra-params":{}}"#.into();
    compare(
        &broker,
        vec![(
            AUTH,
            String::new(),
            body,
            (500, error("AttestationError", FAILED_AUTH)),
        )],
    );
}

#[test]
fn first_servers_refuse_in_their_own_words() {
    for (version, name, detail) in [
        (
            V0_1_0,
            "FailedAuthentication",
            "Authentication failed: Session: Invalid Request version 0.4.0",
        ),
        (
            V0_1_1,
            "ProtocolVersion",
            "KBS Client Protocol Version Mismatch: expected version: =0.1.1, requested version: 0.4.0",
        ),
    ] {
        let broker = start(DevKbs::builder().versions(&[version]).resource(PATH, SECRET));
        let hand = Hand::auth(&broker, version, "sample", TeeKeyKind::Rsa1_5).attest();
        let cookie = format!("Cookie: {}\r\n", hand.cookie);
        let none = String::new;
        compare(
            &broker,
            vec![
                (
                    AUTH,
                    JSON.into(),
                    auth("0.4.0", "tdx"),
                    (401, error(name, detail)),
                ),
                (
                    AUTH,
                    JSON.into(),
                    "{".into(),
                    (400, "Json deserialize error".into()),
                ),
                (
                    AUTH,
                    none(),
                    auth("0.1.0", "tdx"),
                    (400, "Content type error".into()),
                ),
                (
                    ATTEST,
                    JSON.into(),
                    "{}".into(),
                    (401, error("MissingCookie", "The cookie is missing")),
                ),
                (
                    ATTEST,
                    format!("{JSON}Cookie: kbs-session-id=0123\r\n"),
                    "{}".into(),
                    (401, error("InvalidCookie", "The cookie is invalid")),
                ),
                (
                    "GET /kbs/v0/resource/default/model/other",
                    cookie,
                    none(),
                    (
                        404,
                        error(
                            "ReadSecretFailed",
                            "Read secret failed: No such file or directory (os error 2)",
                        ),
                    ),
                ),
                ("GET /kbs/v0/nebula-ca/x", none(), none(), (404, none())),
            ],
        );
        let hand = Hand::auth(&broker, version, "sample", TeeKeyKind::Rsa1_5);
        let reply = hand.attest_with(&hand.message(&json!({"svn": "1"})));
        assert_eq!(reply.status, 401);
        assert!(reply.body.contains("/AttestationFailed"), "{reply:?}");
    }
}

#[test]
fn two_versions_at_once() {
    let broker = start(
        DevKbs::builder()
            .versions(&[V0_4_0, V0_1_0])
            .resource(PATH, SECRET),
    );
    for (version, kind) in [(V0_4_0, TeeKeyKind::P256), (V0_1_0, TeeKeyKind::Rsa1_5)] {
        let hand = Hand::auth(&broker, version, "sample", kind).attest();
        assert_eq!(hand.open(&hand.get(PATH)), SECRET, "{version}");
    }
    let refused = (401, error("AttestationError", &mismatch("0.4.0", "0.2.0")));
    compare(
        &broker,
        vec![(AUTH, String::new(), auth("0.2.0", "tdx"), refused)],
    );
}

#[test]
fn keys_that_are_not_served_get_a_token_and_no_resource() {
    let broker = start(DevKbs::builder().resource(PATH, SECRET));
    let point = URL_SAFE_NO_PAD.encode([1; 32]);
    let short = URL_SAFE_NO_PAD.encode([1; 31]);
    let modulus = URL_SAFE_NO_PAD.encode([0xff; 128]);
    for jwk in [
        json!({"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": point, "y": point}),
        json!({"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": short, "y": point}),
        json!({"kty": "EC", "crv": "P-256", "alg": "ECDH-ES", "x": point, "y": point}),
        json!({"kty": "EC", "crv": "P-384", "alg": "ECDH-ES+A256KW", "x": point, "y": point}),
        json!({"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "=", "y": point}),
        json!({"kty": "RSA", "alg": "RSA-OAEP", "n": modulus, "e": "AQAB"}),
        json!({"kty": "RSA", "alg": "RSA1_5", "n": modulus, "e": "AQAB"}),
        json!({"kty": "RSA", "alg": "RSA1_5", "n": "", "e": ""}),
    ] {
        let hand = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256);
        let runtime = json!({"additional-evidence": "", "nonce": hand.nonce, "tee-pubkey": jwk});
        let report_data = STANDARD.encode(digest(&SHA384, sorted(&runtime).as_bytes()));
        let mut message = hand.message(&json!({"svn": "1", "report_data": report_data}));
        message["runtime-data"]["tee-pubkey"] = jwk.clone();
        let attested = hand.attest_with(&message);
        assert_eq!(attested.status, 200, "{jwk}: {attested:?}");
        let reply = hand.get(PATH);
        assert_eq!(
            (reply.status, reply.body),
            (401, error("JweError", "JWE failed")),
            "{jwk}"
        );
    }
    // A kind of key that nobody knows fails at once.
    let hand = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256);
    let mut message = hand.message(&hand.evidence());
    message["runtime-data"]["tee-pubkey"]["kty"] = json!("OKP");
    assert_eq!(hand.attest_with(&message).status, 401);
    // The fork has neither P-521 nor, in its old form, anything but RSA1_5.
    for (family, version, kind, answer) in [
        (Family::Openanolis, V0_4_0, TeeKeyKind::P521, 400),
        (Family::Openanolis, V0_1_0, TeeKeyKind::RsaOaep256, 400),
        (Family::Trustee, V0_2_0, TeeKeyKind::P521, 401),
    ] {
        let builder = DevKbs::builder().family(family).versions(&[version]);
        let broker = start(builder.resource(PATH, SECRET));
        let reply = Hand::auth(&broker, version, "sample", kind).attest().get(PATH);
        assert_eq!(
            (reply.status, reply.body),
            (answer, error("JweError", "JWE failed"))
        );
    }
    let broker = start(DevKbs::builder().family(Family::Openanolis).versions(&[V0_1_0]));
    let hand = Hand::auth(&broker, V0_1_0, "sample", TeeKeyKind::P256);
    assert_eq!(hand.attest_with(&hand.message(&hand.evidence())).status, 500);
}

#[test]
fn evidence_is_bound_to_the_handshake() {
    for (family, refused) in [(Family::Trustee, 401), (Family::Openanolis, 502)] {
        let broker = start(DevKbs::builder().family(family).accept_unverified_quotes());
        for tee in ["sample", "tdx"] {
            let hand = || Hand::auth(&broker, V0_4_0, tee, TeeKeyKind::P256);
            hand().attest();
            let mutations: [fn(&Hand<'_>, &mut Value); 6] = [
                // Evidence of another session.
                |hand, message| message["tee-evidence"]["primary_evidence"] = other_evidence(hand),
                |_, message| message["runtime-data"]["nonce"] = json!("AAAA"),
                |_, message| message["runtime-data"]["tee-pubkey"]["x"] = json!("AAAA"),
                |_, message| message["tee-evidence"]["primary_evidence"] = json!({}),
                |_, message| message["tee-evidence"]["additional_evidence"] = json!("{\"nvidia\":{}}"),
                |_, message| message["init-data"] = json!({"format": "json", "body": "{}"}),
            ];
            for (index, mutate) in mutations.iter().enumerate() {
                let hand = hand();
                let mut message = hand.message(&hand.evidence());
                mutate(&hand, &mut message);
                let reply = hand.attest_with(&message);
                let expected = (refused, error("AttestationError", FAILED_ATTEST));
                assert_eq!((reply.status, reply.body), expected, "{tee} {index}");
            }
        }
    }
    // The fork's sample evidence has a register.
    let broker = start(DevKbs::builder().family(Family::Openanolis));
    let hand = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256);
    let mut evidence = hand.evidence();
    evidence["measure_register"] = json!("00");
    assert_eq!(hand.attest_with(&hand.message(&evidence)).status, 502);
    // Servers know of more kinds than they can verify.
    let broker = start(DevKbs::builder());
    let hand = Hand::auth(&broker, V0_4_0, "snp", TeeKeyKind::P256);
    assert_eq!(hand.attest_with(&hand.message(&hand.evidence())).status, 401);
}

/// Evidence of its kind that is bound to something else.
fn other_evidence(hand: &Hand<'_>) -> Value {
    let mut evidence = hand.evidence();
    let wrong = [7; 48];
    if evidence.get("quote").is_some() {
        evidence["quote"] = json!(STANDARD.encode(quote(&wrong, &[0; 48], &[[0; 48]; 4])));
    } else {
        evidence["report_data"] = json!(STANDARD.encode(wrong));
    }
    evidence
}

#[test]
fn quotes_are_taken_on_faith_only_when_told_to() {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let builder = || {
        let notes = Arc::clone(&notes);
        DevKbs::builder()
            .resource(PATH, SECRET)
            .notes(move |note| notes.lock().unwrap().push(note.to_owned()))
    };
    let broker = builder().start().unwrap();
    let hand = Hand::auth(&broker, V0_4_0, "tdx", TeeKeyKind::P256);
    assert_eq!(hand.attest_with(&hand.message(&hand.evidence())).status, 401);
    assert!(
        notes
            .lock()
            .unwrap()
            .iter()
            .any(|note| note.contains("no collateral"))
    );

    let broker = builder().accept_unverified_quotes().start().unwrap();
    let hand = Hand::auth(&broker, V0_4_0, "tdx", TeeKeyKind::P256);
    // Nothing may stand behind the digest.
    let mut padded = hand.digest();
    padded.push(1);
    let evidence = json!({"quote": STANDARD.encode(quote(&padded, &[0; 48], &[[0; 48]; 4]))});
    assert_eq!(hand.attest_with(&hand.message(&evidence)).status, 401);
    let hand = hand.attest();
    assert_eq!(hand.open(&hand.get(PATH)), SECRET);
    let notes = notes.lock().unwrap();
    for part in [
        "for development only",
        "NOT VERIFIED: the quote's signature",
        "NOT VERIFIED: the RTMRs",
    ] {
        assert!(
            notes.iter().any(|note| note.contains(part)),
            "{part} in {notes:?}"
        );
    }
}

/// A log with one event for each of RTMR0 to RTMR3, and the registers that it leads to.
fn event_log() -> (Vec<u8>, [[u8; 48]; 4]) {
    let mut log = Vec::new();
    // The first record: EV_NO_ACTION of register 1, with "Spec ID Event03" and SHA-384.
    log.extend([1_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat());
    log.extend([0; 20]);
    log.extend(33_u32.to_le_bytes());
    log.extend(b"Spec ID Event03\0");
    log.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    log.extend(1_u32.to_le_bytes());
    log.extend([0x0c, 0, 48, 0]);
    log.push(0);
    let mut registers = [[0; 48]; 4];
    for (index, register) in registers.iter_mut().enumerate() {
        let event = [u8::try_from(index).unwrap() + 1; 48];
        // Type EV_EVENT_TAG.
        log.extend((u32::try_from(index).unwrap() + 1).to_le_bytes());
        log.extend(6_u32.to_le_bytes());
        log.extend(1_u32.to_le_bytes());
        log.extend([0x0c, 0]);
        log.extend(event);
        log.extend(0_u32.to_le_bytes());
        register.copy_from_slice(digest(&SHA384, &[[0; 48], event].concat()).as_ref());
    }
    log.extend([0xff; 8]);
    (log, registers)
}

#[test]
fn an_event_log_has_to_add_up() {
    let (log, registers) = event_log();
    for (family, refused) in [(Family::Trustee, 401), (Family::Openanolis, 502)] {
        let broker = start(DevKbs::builder().family(family).accept_unverified_quotes());
        let status = |log: Value, registers: &[[u8; 48]; 4]| {
            let hand = Hand::auth(&broker, V0_4_0, "tdx", TeeKeyKind::P256);
            let quote = STANDARD.encode(quote(&hand.digest(), &[0; 48], registers));
            hand.attest_with(&hand.message(&json!({"quote": quote, "cc_eventlog": log})))
                .status
        };
        let encoded = json!(STANDARD.encode(&log));
        assert_eq!(status(encoded.clone(), &registers), 200);
        for index in 0..4 {
            let mut others = registers;
            others[index][5] ^= 1;
            assert_eq!(status(encoded.clone(), &others), refused, "RTMR{index}");
        }
        assert_eq!(status(json!(null), &registers), 200);
        assert_eq!(status(json!("="), &registers), refused);
        assert_eq!(status(json!(STANDARD.encode(&log[..40])), &registers), refused);
        let empty = if family == Family::Trustee { 200 } else { refused };
        assert_eq!(status(json!(""), &registers), empty);
    }
}

#[test]
fn init_data_has_to_be_the_guests() {
    let broker = start(DevKbs::builder().accept_unverified_quotes());
    for (name, algorithm) in [("sha256", &SHA256), ("sha384", &SHA384), ("sha512", &SHA512)] {
        let body = format!("version = \"0.1.0\"\nalgorithm = \"{name}\"\n\n[data]\n\"x\" = '''y'''\n");
        // With zeros behind it, or cut.
        let hashed = digest(algorithm, body.as_bytes());
        let mut config_id = [0; 48];
        let len = hashed.as_ref().len().min(48);
        config_id[..len].copy_from_slice(&hashed.as_ref()[..len]);
        for (config_id, status) in [(config_id, 200), ([0; 48], 401)] {
            let hand = Hand::auth(&broker, V0_4_0, "tdx", TeeKeyKind::P256);
            let quote = STANDARD.encode(quote(&hand.digest(), &config_id, &[[0; 48]; 4]));
            let mut message = hand.message(&json!({"quote": quote}));
            message["init-data"] = json!({"format": "toml", "body": body});
            assert_eq!(hand.attest_with(&message).status, status);
        }
    }
}

#[test]
fn policies_decide() {
    for (family, status) in [(Family::Trustee, 401), (Family::Openanolis, 403)] {
        for (policy, sample, tdx) in [
            (Policy::Allow, true, true),
            (Policy::DenySample, false, true),
            (Policy::Deny, false, false),
        ] {
            let builder = DevKbs::builder()
                .family(family)
                .policy(policy)
                .accept_unverified_quotes();
            let broker = start(builder.resource(PATH, SECRET));
            for (tee, allowed) in [("sample", sample), ("tdx", tdx)] {
                let hand = Hand::auth(&broker, V0_4_0, tee, TeeKeyKind::P256).attest();
                // What is denied is not even said to be there or not.
                for path in [PATH, "default/model/other"] {
                    let reply = hand.get(path);
                    let denied = (status, error("PolicyDeny", "Access denied by policy"));
                    assert_eq!(
                        (reply.status, reply.body) == denied,
                        !allowed,
                        "{policy:?} {tee} {path}"
                    );
                }
            }
        }
    }
}

#[test]
fn administrators_set_and_delete() {
    let admin = Admin::new();
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let rego = |text: &str| json!({"policy": URL_SAFE_NO_PAD.encode(text)}).to_string();
    for family in [Family::Trustee, Family::Openanolis] {
        let builder = DevKbs::builder().family(family).admin_key(&admin.pem());
        let broker = start(builder.directory(dir.path()));
        let claims = match family {
            Family::Trustee => json!({"role": "admin", "exp": now + 60}),
            _ => json!({}),
        };
        let header = admin.header(&claims);
        let line = format!("POST /kbs/v0/resource/{PATH}");
        let reply = request(&broker, &line, &header, "set by hand");
        assert_eq!((reply.status, reply.body.as_str()), (200, ""));
        assert_eq!(fs::read(dir.path().join(PATH)).unwrap(), b"set by hand");
        let hand = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256).attest();
        assert_eq!(hand.open(&hand.get(PATH)), b"set by hand");
        let deny = request(
            &broker,
            "POST /kbs/v0/resource-policy",
            &header,
            &rego("package policy\ndefault allow = false"),
        );
        assert_eq!((deny.status, deny.body.as_str()), (200, ""));
        assert!(hand.get(PATH).body.contains("PolicyDeny"));
        request(
            &broker,
            "POST /kbs/v0/resource-policy",
            &header,
            &rego("package policy\ndefault allow = true"),
        );
        assert_eq!(hand.get(PATH).status, 200);
        let body = json!({"policy_id": "default", "policy": URL_SAFE_NO_PAD.encode("package policy")});
        let set = request(
            &broker,
            "POST /kbs/v0/attestation-policy",
            &header,
            &body.to_string(),
        );
        assert_eq!((set.status, set.body.as_str()), (200, ""));
        assert_eq!(
            request(&broker, &line.replace("POST", "DELETE"), &header, "").status,
            200
        );
        assert!(!dir.path().join(PATH).exists());

        let failed = request(&broker, &line.replace("POST", "DELETE"), &header, "");
        assert_eq!(failed.status, if family == Family::Trustee { 401 } else { 500 });
        assert!(failed.body.contains("PluginInternalError"), "{failed:?}");
        let rules = rego("package policy\ndefault allow = false\nallow if { true }");
        let failed = request(&broker, "POST /kbs/v0/resource-policy", &header, &rules);
        assert!(failed.body.contains("/PolicyEngine"), "{failed:?}");
    }
}

#[test]
fn nobody_else_is_an_administrator() {
    let (admin, other) = (Admin::new(), Admin::new());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let good = json!({"role": "admin", "exp": now + 60});
    let mut none = admin.header(&good);
    none.replace_range(
        "Authorization: Bearer ".len()..none.find('.').unwrap(),
        &URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
    );
    let trustee = [
        String::new(),
        "Authorization: Bearer x.y.z\r\n".into(),
        other.header(&good),
        none,
        admin.header(&json!({"role": "admin", "exp": now - 100})),
        admin.header(&json!({"role": "admin"})),
        admin.header(&json!({"exp": now + 60})),
    ];
    // The fork asks for less.
    for (family, headers) in [
        (Family::Trustee, &trustee[..]),
        (Family::Openanolis, &trustee[..5]),
    ] {
        let builder = DevKbs::builder().family(family).resource(PATH, SECRET);
        let broker = start(builder.admin_key(&admin.pem()));
        for header in headers {
            for (line, body) in [
                ("POST /kbs/v0/resource/default/model/key", "forged".to_owned()),
                ("DELETE /kbs/v0/resource/default/model/key", String::new()),
                ("POST /kbs/v0/resource-policy", json!({"policy": ""}).to_string()),
                (
                    "POST /kbs/v0/attestation-policy",
                    json!({"policy_id": "a", "policy": ""}).to_string(),
                ),
            ] {
                let reply = request(&broker, line, header, &body);
                assert_eq!(reply.status, 401, "{line} {header}");
                assert!(reply.body.contains("/AdminAuth"), "{reply:?}");
            }
        }
        let hand = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256).attest();
        assert_eq!(hand.open(&hand.get(PATH)), SECRET);
    }
    let broker = start(DevKbs::builder());
    let reply = request(&broker, "POST /kbs/v0/resource/a/b/c", &admin.header(&good), "x");
    let detail = "failed to initialize [admin] configuration: Admin access denied: there is no administrator";
    assert_eq!(
        (reply.status, reply.body),
        (401, error("AdminAuthInitialization", detail))
    );
    let reply = request(&broker, "POST /kbs/v0/resource-policy", &admin.header(&good), "x");
    assert!(reply.body.contains("/AdminAuthAccess"), "{reply:?}");
    for pem in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        DevKbs::builder().admin_key(pem).start().unwrap_err();
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let broker = start(DevKbs::builder());
    // Only the length is sent, so that nothing is left unread when the broker hangs up.
    let head = format!(
        "POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        (2 << 20) + 1
    );
    let reply = send(&broker, head.as_bytes());
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (413, "payload reached size limit")
    );
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(128 << 10));
    let reply = send(&broker, head.as_bytes());
    assert_eq!((reply.status, reply.body.as_str()), (431, ""));
    // A body of just the limit is read.
    let body = " ".repeat(2 << 20);
    assert_eq!(request(&broker, AUTH, "", &body).status, 401);
}

#[test]
fn only_loopback_is_served() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "[2001:db8::1]:0"] {
        let refused = DevKbs::builder()
            .address(address.parse().unwrap())
            .notes(|_| ())
            .start();
        assert!(refused.unwrap_err().to_string().contains("loopback"), "{address}");
    }
    let broker = start(DevKbs::builder().address("127.0.0.2:0".parse().unwrap()));
    assert!(broker.url().starts_with("http://127.0.0.2:"), "{}", broker.url());
}

#[test]
fn it_ends_when_it_is_dropped() {
    let broker = start(DevKbs::builder());
    let address: std::net::SocketAddr = broker.url().strip_prefix("http://").unwrap().parse().unwrap();
    // With a connection open, and half of a request on it.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"POST /kbs/v0/auth HTTP/1.1\r\n").unwrap();
    drop(broker);
    TcpStream::connect(address).unwrap_err();
    // The port is free: another broker takes it, and knows nothing of the first.
    let broker = start(DevKbs::builder().address(address));
    assert_eq!(broker.url(), format!("http://{address}"));
    let taken = DevKbs::builder().address(address).notes(|_| ()).start();
    assert!(taken.is_err());
    drop(broker);
    TcpListener::bind(address).unwrap();
}

#[test]
fn it_serves_below_a_path() {
    let broker = start(DevKbs::builder().prefix("/trustee/"));
    assert!(broker.url().ends_with("/trustee"), "{}", broker.url());
    let reply = request(&broker, "POST /trustee/kbs/v0/auth", "", &auth("0.4.0", "tdx"));
    assert_eq!(reply.status, 200);
    for line in [
        "POST /kbs/v0/auth",
        "POST /trusteekbs/v0/auth",
        "POST /api/kbs/v0/auth",
    ] {
        assert_eq!(
            request(&broker, line, "", &auth("0.4.0", "tdx")).status,
            404,
            "{line}"
        );
    }
}

/// A TLS connection that trusts only `ca`.
fn connect(
    url: &str,
    name: &str,
    ca: &str,
) -> Result<rustls::StreamOwned<rustls::ClientConnection, TcpStream>, rustls::Error> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap())?;
    let stream = TcpStream::connect(url.strip_prefix("https://").unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        let handshake = stream.conn.complete_io(&mut stream.sock);
        handshake.map_err(|error| rustls::Error::General(error.to_string()))?;
    }
    Ok(stream)
}

#[test]
fn tls_with_a_certificate_of_its_own() {
    let broker = start(DevKbs::builder().self_signed());
    let ca = broker.ca_pem().unwrap();
    for name in ["127.0.0.1", "localhost", "::1"] {
        let mut stream = connect(broker.url(), name, ca).unwrap();
        stream
            .write_all(b"GET /kbs/v0/x HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        assert_eq!(Reply::read(stream).status, 404, "{name}");
    }
    let wrong = connect(broker.url(), "192.0.2.1", ca).unwrap_err();
    assert!(
        wrong.to_string().contains("NotValidForName") || wrong.to_string().contains("not valid for name"),
        "{wrong}"
    );
    // Another broker's authority is another one.
    let other = start(DevKbs::builder().self_signed());
    connect(other.url(), "localhost", ca).unwrap_err();
    assert!(start(DevKbs::builder()).ca_pem().is_none());
    for (chain, key) in [
        ("", ""),
        (ca, ""),
        (
            ca,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ),
    ] {
        let builder = DevKbs::builder().certificate(chain.as_bytes(), key.as_bytes());
        builder.notes(|_| ()).start().unwrap_err();
    }
}

#[test]
fn no_secret_is_in_a_note_or_in_debug() {
    let notes = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&notes);
    let admin = Admin::new();
    let builder = DevKbs::builder().resource(PATH, SECRET).admin_key(&admin.pem());
    let shown = format!("{builder:?}");
    let broker = builder
        .notes(move |note| *heard.lock().unwrap() += note)
        .start()
        .unwrap();
    let hand = Hand::auth(&broker, V0_4_0, "sample", TeeKeyKind::P256).attest();
    hand.get(PATH);
    hand.get("default/model/other");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = admin.header(&json!({"role": "admin", "exp": now + 60}));
    request(
        &broker,
        "POST /kbs/v0/resource/a/b/c",
        &header,
        "a key with a second newline",
    );
    let text = format!("{shown}{broker:?}{}", notes.lock().unwrap());
    assert!(
        text.contains("default/model/key") && text.contains("a/b/c"),
        "{text}"
    );
    let token = header.trim().rsplit(' ').next().unwrap();
    for secret in ["a key with", &hand.token, token, hand.cookie.as_str()] {
        assert!(!text.contains(secret), "{text}");
    }
}
