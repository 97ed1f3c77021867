//! Every answer that brokers have for what they refuse, in the bytes that they send: the error that comes of it, and
//! that it costs one handshake.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;

use attest_client::{Error, KbsClient, ProtocolVersion, TeeKeyKind};

#[path = "common/broker.rs"]
mod broker;
#[path = "common/clock.rs"]
mod clock;
#[path = "common/seal.rs"]
mod seal;
#[path = "common/server.rs"]
mod server;

use broker::{ATTEST_FAILED, Broker, CountedEvidence, Line, RESOURCE, SECRET, error};
use clock::FakeClock;
use server::{Answer, Server, answer};

const OK: &str = "200 OK";
const BAD_REQUEST: &str = "400 Bad Request";
const UNAUTHORIZED: &str = "401 Unauthorized";
const FORBIDDEN: &str = "403 Forbidden";
const NOT_FOUND: &str = "404 Not Found";
const INTERNAL: &str = "500 Internal Server Error";
const BAD_GATEWAY: &str = "502 Bad Gateway";

/// The error that comes of it when the requests whose paths end like this are answered so, and the requests made.
fn outcome(
    version: &'static str,
    end: &'static str,
    faulty: Answer,
    kind: TeeKeyKind,
) -> (Result<(), Error>, Server, usize) {
    let (server, _broker) = Broker::new(version, Line::Upstream, move |request| {
        request.target.ends_with(end).then(|| faulty.clone())
    })
    .start();
    let evidence = CountedEvidence::default();
    let client = KbsClient::builder(&server.url())
        .evidence(evidence.clone())
        .clock(Arc::new(FakeClock::default()))
        .tee_key_kind(kind)
        .build()
        .unwrap();
    let result = client
        .get_resource(&RESOURCE.parse().unwrap())
        .map(|secret| assert_eq!(*secret, SECRET));
    let evidence = evidence.0.load(std::sync::atomic::Ordering::SeqCst);
    (result, server, evidence)
}

type Is = fn(&Error) -> bool;

fn is_policy(error: &Error) -> bool {
    matches!(error, Error::PolicyDenied { resource, .. } if resource == RESOURCE)
}

fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::ResourceNotFound { resource, .. } if resource == RESOURCE)
}

fn is_lost(error: &Error) -> bool {
    matches!(error, Error::SessionLost { .. })
}

fn is_broker(error: &Error) -> bool {
    matches!(error, Error::Broker { .. })
}

#[test]
fn a_resource_refused() {
    // Version of the protocol, status, name, detail; what it is; words that help, in what a person reads.
    let rows: &[(&str, &str, &str, &str, Is, &str)] = &[
        // Trustee at 0.4.0.
        (
            "0.4.0",
            UNAUTHORIZED,
            "TokenNotFound",
            "Attestation Token not found",
            is_lost,
            "load balancer",
        ),
        (
            "0.4.0",
            UNAUTHORIZED,
            "TokenVerifierError",
            "Token Verifier error",
            is_lost,
            "load balancer",
        ),
        (
            "0.4.0",
            UNAUTHORIZED,
            "PolicyDeny",
            "Access denied by policy",
            is_policy,
            "sample is denied by default",
        ),
        (
            "0.4.0",
            UNAUTHORIZED,
            "PluginInternalError",
            "Plugin internal error",
            is_not_found,
            "has no kbs:///default/key/one",
        ),
        (
            "0.4.0",
            UNAUTHORIZED,
            "JweError",
            "JWE failed",
            is_broker,
            "try RSA-OAEP-256",
        ),
        (
            "0.4.0",
            UNAUTHORIZED,
            "PolicyEngineError",
            "Policy engine error",
            is_broker,
            "does not evaluate",
        ),
        (
            "0.4.0",
            NOT_FOUND,
            "PluginNotFound",
            "Plugin resource not found",
            is_broker,
            "keeps no resources",
        ),
        (
            "0.4.0",
            NOT_FOUND,
            "InvalidRequestPath",
            "Request path x is invalid",
            is_broker,
            "InvalidRequestPath",
        ),
        // As Trustee's protocol document has it, and it may come to.
        (
            "0.4.0",
            FORBIDDEN,
            "PolicyDeny",
            "Access denied by policy",
            is_policy,
            "sample is denied by default",
        ),
        (
            "0.4.0",
            NOT_FOUND,
            "PluginInternalError",
            "Plugin internal error",
            is_not_found,
            "or its storage failed",
        ),
        // The openanolis fork at 0.4.0.
        (
            "0.4.0",
            BAD_REQUEST,
            "JweError",
            "JWE failed",
            is_broker,
            "try RSA-OAEP-256",
        ),
        (
            "0.4.0",
            BAD_REQUEST,
            "SerdeError",
            "Serialize/Deserialize failed",
            is_broker,
            "SerdeError",
        ),
        (
            "0.4.0",
            INTERNAL,
            "PluginInternalError",
            "Plugin internal error",
            is_not_found,
            "or its storage failed",
        ),
        (
            "0.4.0",
            INTERNAL,
            "PolicyEngine",
            "Policy engine error",
            is_broker,
            "does not evaluate",
        ),
        (
            "0.4.0",
            UNAUTHORIZED,
            "AdminAuth",
            "Admin auth error: x",
            is_broker,
            "AdminAuth",
        ),
        // The fork at 0.1.0.
        ("0.1.0", BAD_REQUEST, "JweError", "JWE failed", is_broker, "RSA"),
        (
            "0.1.0",
            UNAUTHORIZED,
            "PolicyDeny",
            "Access denied by policy",
            is_policy,
            "policy",
        ),
        (
            "0.1.0",
            INTERNAL,
            "PluginInternalError",
            "Plugin internal error",
            is_not_found,
            "has no",
        ),
        // Trustee up to 0.11, and the fork up to 1.1.2.
        (
            "0.1.1",
            UNAUTHORIZED,
            "MissingCookie",
            "The cookie is missing",
            is_lost,
            "drops cookies",
        ),
        (
            "0.1.1",
            UNAUTHORIZED,
            "InvalidCookie",
            "The cookie is invalid",
            is_lost,
            "drops cookies",
        ),
        (
            "0.1.1",
            UNAUTHORIZED,
            "ExpiredCookie",
            "The cookie is expired",
            is_lost,
            "drops cookies",
        ),
        (
            "0.1.1",
            UNAUTHORIZED,
            "UnAuthenticatedCookie",
            "The cookie is unauthenticated",
            is_lost,
            "cookie",
        ),
        (
            "0.1.1",
            UNAUTHORIZED,
            "TokenParseFailed",
            "Received an illegal token: verify token failed",
            is_lost,
            "token",
        ),
        (
            "0.1.1",
            UNAUTHORIZED,
            "InvalidRequest",
            "The request is invalid: parse Authorization header failed: x",
            is_lost,
            "header",
        ),
        (
            "0.1.1",
            UNAUTHORIZED,
            "InvalidRequest",
            "The request is invalid: no `tag` in url",
            is_broker,
            "no `tag`",
        ),
        (
            "0.1.1",
            UNAUTHORIZED,
            "PolicyReject",
            "Resource not permitted.",
            is_policy,
            "not permitted",
        ),
        (
            "0.1.1",
            NOT_FOUND,
            "ReadSecretFailed",
            "Read secret failed: x",
            is_not_found,
            "Read secret failed: x",
        ),
        (
            "0.1.1",
            UNAUTHORIZED,
            "JWEFailed",
            "Json Web Encryption failed: x",
            is_broker,
            "RSA",
        ),
        (
            "0.1.1",
            UNAUTHORIZED,
            "PolicyEngineFailed",
            "Resource policy engine evaluate failed",
            is_broker,
            "evaluate",
        ),
    ];
    for (version, status, name, detail, is, words) in rows {
        let row = format!("{version} {status} {name}");
        let (result, server, evidence) = outcome(
            version,
            "/one",
            error(status, name, detail),
            TeeKeyKind::default(),
        );
        let error = result.unwrap_err();
        assert!(is(&error), "{row}: {error:?}");
        let text = error.to_string();
        assert!(
            text.contains(words) && (text.contains(detail) || is_lost(&error)),
            "{row}: {text}"
        );
        assert_eq!((server.count("/attest"), evidence), (1, 1), "{row}");
        assert_eq!(server.count("/one"), 1, "{row}");
        if *version == "0.4.0" {
            // One each, and no request for the resource before there is a session to ask in.
            assert_eq!(server.seen().len(), 3, "{row}");
        }
    }
}

#[test]
fn the_key_that_a_broker_does_not_seal_to_is_named() {
    for (kind, words) in [
        (TeeKeyKind::P521, "use P-256"),
        (TeeKeyKind::P256, "try RSA-OAEP-256"),
        (TeeKeyKind::RsaOaep256, "try P-256"),
    ] {
        let (result, ..) = outcome(
            "0.4.0",
            "/one",
            error(BAD_REQUEST, "JweError", "JWE failed"),
            kind,
        );
        let text = result.unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn evidence_refused() {
    for (version, status, name, detail) in [
        ("0.4.0", UNAUTHORIZED, "AttestationError", ATTEST_FAILED),
        ("0.4.0", BAD_GATEWAY, "AttestationError", ATTEST_FAILED),
        ("0.4.0", INTERNAL, "AttestationError", ATTEST_FAILED),
        (
            "0.4.0",
            BAD_REQUEST,
            "AttestationError",
            "Attestation error: Failed to extract Tee public key from claims",
        ),
        ("0.2.0", UNAUTHORIZED, "AttestationError", ATTEST_FAILED),
        ("0.1.0", INTERNAL, "AttestationError", ATTEST_FAILED),
        (
            "0.1.1",
            UNAUTHORIZED,
            "AttestationFailed",
            "Attestation failed: x",
        ),
        ("0.1.1", UNAUTHORIZED, "InvalidCookie", "The cookie is invalid"),
        (
            "0.1.1",
            UNAUTHORIZED,
            "TokenIssueFailed",
            "Attestation token issue failed: x",
        ),
    ] {
        let row = format!("{version} {status} {name}");
        let (result, server, evidence) = outcome(
            version,
            "/attest",
            error(status, name, detail),
            TeeKeyKind::default(),
        );
        let error = result.unwrap_err();
        let Error::AttestationRefused {
            status: number,
            name: shown,
            detail: words,
            ..
        } = &error
        else {
            panic!("{row}: {error:?}")
        };
        assert_eq!(
            (*number, shown.as_str(), words.as_str()),
            (status[..3].parse().unwrap(), name, detail)
        );
        assert!(error.to_string().contains("event log"), "{error}");
        assert_eq!(
            (server.count("/attest"), evidence, server.count("/one")),
            (1, 1, 0),
            "{row}"
        );
    }
}

#[test]
fn a_handshake_that_does_not_begin() {
    let deserialize = "Attestation error: RCAR handshake Auth failed: deserialize Request";
    for (status, name, detail) in [
        (UNAUTHORIZED, "AttestationError", deserialize),
        (BAD_GATEWAY, "AttestationError", deserialize),
        (INTERNAL, "AttestationError", deserialize),
        (
            UNAUTHORIZED,
            "FailedAuthentication",
            "Authentication failed: generate challenge: x",
        ),
        (NOT_FOUND, "PluginNotFound", "Plugin auth not found"),
    ] {
        let (result, server, evidence) = outcome(
            "0.4.0",
            "/auth",
            error(status, name, detail),
            TeeKeyKind::default(),
        );
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::AttestationRefused { .. }),
            "{status} {name}: {error:?}"
        );
        assert!(
            error.to_string().contains("does not know this kind of TEE"),
            "{error}"
        );
        assert_eq!((server.seen().len(), evidence), (1, 0), "{status} {name}");
    }
}

#[test]
fn what_is_no_verdict_keeps_its_status_and_not_its_body() {
    let html = "<html>the word is swordfish</html>";
    let html_type = "content-type: text/html\r\n";
    for end in ["/auth", "/attest", "/one"] {
        for (faulty, status, words) in [
            (answer(NOT_FOUND, "", ""), 404, "prefix such as /trustee or /api"),
            (answer("405 Method Not Allowed", "", ""), 405, "prefix"),
            (
                answer(
                    "413 Payload Too Large",
                    "content-type: text/plain\r\n",
                    "payload reached size limit",
                ),
                413,
                "2 MiB",
            ),
            (
                match answer("431 Request Header Fields Too Large", "connection: close\r\n", "") {
                    Answer::Bytes(bytes) => Answer::Last(bytes),
                    other => other,
                },
                431,
                "a head that is too long",
            ),
            (
                answer(BAD_REQUEST, html_type, html),
                400,
                "plain http to a port of TLS",
            ),
            (answer(UNAUTHORIZED, html_type, html), 401, "API key"),
            (answer(FORBIDDEN, html_type, html), 403, "API key"),
            (answer("418 I'm a teapot", html_type, html), 418, "unknown"),
            (answer("204 No Content", "", ""), 204, "not given"),
            (answer("206 Partial Content", html_type, html), 206, "text/html"),
            // JSON, and even with a type, but not one that is a name.
            (
                answer(UNAUTHORIZED, "", r#"{"type":7,"detail":"swordfish"}"#),
                401,
                "API key",
            ),
            (
                answer(UNAUTHORIZED, "", r#"{"type":"","detail":"swordfish"}"#),
                401,
                "API key",
            ),
            (
                answer(UNAUTHORIZED, "", r#"{"type":"about:blank","title":"swordfish"}"#),
                401,
                "API key",
            ),
            (
                answer(
                    UNAUTHORIZED,
                    "",
                    r#"{"type":"https://swordfish.example.com/PolicyDeny"}"#,
                ),
                401,
                "API key",
            ),
            (
                answer(
                    UNAUTHORIZED,
                    "",
                    format!(r#"{{"type":"/errors/{}"}}"#, "x".repeat(100)),
                ),
                401,
                "API key",
            ),
            (
                answer(
                    UNAUTHORIZED,
                    "",
                    format!(r#"{{"type":"/errors/PolicyDeny","x":"{}"}}"#, "y".repeat(100_000)),
                ),
                401,
                "",
            ),
        ] {
            let (result, server, _) = outcome("0.4.0", end, faulty, TeeKeyKind::default());
            let error = result.unwrap_err();
            let Error::Status { status: number, .. } = &error else {
                panic!("{end} {status}: {error:?}")
            };
            assert_eq!(*number, status, "{end}");
            let shown = format!("{error} {error:?}");
            assert!(
                shown.contains(words) && !shown.contains("swordfish"),
                "{end} {status}: {shown}"
            );
            assert_eq!(server.count(end), 1, "{end} {status}");
        }
    }
}

#[test]
fn what_may_pass_is_tried_again_and_then_shown() {
    let page = |status: &str| answer(status, "content-type: text/html\r\n", "<html>swordfish</html>");
    for end in ["/auth", "/attest", "/one"] {
        for (faulty, status, words) in [
            (page(INTERNAL), 500, "something before the broker"),
            (page(BAD_GATEWAY), 502, "something before the broker"),
            (
                page("503 Service Unavailable"),
                503,
                "something before the broker",
            ),
            (page("504 Gateway Timeout"), 504, "something before the broker"),
            (page("429 Too Many Requests"), 429, "too many requests"),
            // The fork's gateway.
            (
                answer(INTERNAL, "", r#"{"error":"kbs is \u001bdown"}"#),
                500,
                r"kbs is \u{1b}down",
            ),
        ] {
            let (result, server, evidence) = outcome("0.4.0", end, faulty, TeeKeyKind::default());
            let error = result.unwrap_err();
            let shown = error.to_string();
            assert!(
                matches!(&error, Error::Status { status: number, .. } if *number == status),
                "{end}: {error:?}"
            );
            assert!(
                shown.contains(words) && !shown.contains("swordfish"),
                "{end} {status}: {shown}"
            );
            assert_eq!(server.count(end), 5, "{end} {status}");
            // Again the request, and not the handshake.
            assert_eq!(
                server.count("/auth"),
                if end == "/auth" { 5 } else { 1 },
                "{end} {status}"
            );
            assert_eq!(evidence, usize::from(end != "/auth"), "{end} {status}");
        }
    }
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = Server::new(|_| answer(OK, "", "{}"));
    for status in [
        "301 Moved",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        for end in ["/auth", "/attest", "/one"] {
            let location = format!("location: {}/kbs/v0/auth?token=swordfish\r\n", elsewhere.url());
            let (result, server, _) =
                outcome("0.4.0", end, answer(status, &location, ""), TeeKeyKind::default());
            let text = result.unwrap_err().to_string();
            assert!(
                text.contains("not followed") && text.contains(&elsewhere.url()),
                "{text}"
            );
            assert!(!text.contains("swordfish"), "{text}");
            assert_eq!(server.count(end), 1, "{status} {end}");
        }
    }
    assert_eq!(elsewhere.seen().len(), 0);
}

#[test]
fn answers_that_are_none() {
    let of = |body: &str| answer(OK, "content-type: application/json\r\n", body);
    let with_cookie = |body: &str| {
        answer(
            OK,
            "content-type: application/json\r\nset-cookie: kbs-session-id=1\r\n",
            body,
        )
    };
    for (end, faulty, words) in [
        ("/auth", of("<html>swordfish</html>"), "no challenge"),
        ("/auth", with_cookie("{}"), "no challenge"),
        (
            "/auth",
            with_cookie(r#"{"nonce":7,"extra-params":""}"#),
            "no challenge",
        ),
        ("/auth", with_cookie(""), "no challenge"),
        (
            "/auth",
            of(r#"{"nonce":"bm9uY2U=","extra-params":""}"#),
            "no cookie kbs-session-id",
        ),
        (
            "/auth",
            answer(
                OK,
                "set-cookie: kbs-session-id=; Expires=x\r\n",
                r#"{"nonce":"bm9uY2U=","extra-params":""}"#,
            ),
            "no cookie kbs-session-id",
        ),
        (
            "/auth",
            with_cookie(r#"{"nonce":"bm9uY2U=","extra-params":{"selected-hash-algorithm":"sha256"}}"#),
            "SHA-384",
        ),
        (
            "/auth",
            with_cookie(r#"{"nonce":"bm9uY2U=","extra-params":{"selected-hash-algorithm":384}}"#),
            "SHA-384",
        ),
        ("/attest", of("swordfish"), "no token"),
        ("/attest", of(r#"{"token":["swordfish"]}"#), "no token"),
        ("/attest", of(r#"{"token":""}"#), "not printable"),
        ("/attest", of(r#"{"token":"sword\nfish"}"#), "not printable"),
        ("/one", of("swordfish"), "no JWE"),
        ("/one", of("{}"), "no JWE"),
        (
            "/one",
            of(r#"{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny"}"#),
            "no JWE",
        ),
        (
            "/one",
            of(r#"{"protected":"swordfish","encrypted_key":"","iv":"","ciphertext":""}"#),
            "no JWE",
        ),
    ] {
        let (result, server, _) = outcome("0.4.0", end, faulty, TeeKeyKind::default());
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::Malformed { .. }),
            "{end} {words}: {error:?}"
        );
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(words) && !shown.contains("swordfish"), "{shown}");
        assert_eq!(server.count(end), 1);
    }
    // The algorithm that evidence is bound by may be named.
    let (result, ..) = outcome(
        "0.4.0",
        "/auth",
        with_cookie(r#"{"nonce":"bm9uY2U=","extra-params":{"selected-hash-algorithm":"SHA384"}}"#),
        TeeKeyKind::default(),
    );
    assert!(
        matches!(result, Err(Error::AttestationRefused { .. })),
        "{result:?}"
    );
}

#[test]
fn a_resource_for_another_key_does_not_open() {
    let other = attest_client::TeeKey::generate(TeeKeyKind::P256).unwrap();
    let jwe = serde_json::to_string(&seal::seal(other.public(), SECRET)).unwrap();
    let (result, server, _) = outcome("0.4.0", "/one", answer(OK, "", jwe), TeeKeyKind::default());
    assert!(matches!(result, Err(Error::Jwe)), "{result:?}");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn the_words_of_a_broker_are_shown_on_one_line() {
    let detail = format!(r"denied\u001b[2J\r\n{}", "x".repeat(5000));
    let (result, ..) = outcome(
        "0.4.0",
        "/one",
        error(FORBIDDEN, "PolicyDeny", &detail),
        TeeKeyKind::default(),
    );
    let text = result.unwrap_err().to_string();
    assert!(text.contains(r"denied\u{1b}[2J\u{d}\u{a}xxx"), "{text}");
    assert!(
        !text.contains(['\u{1b}', '\n', '\r']) && text.len() < 1000,
        "{text}"
    );
}

#[test]
fn versions_without_a_fault_work() {
    for version in ProtocolVersion::ALL {
        let (result, ..) = outcome(
            version.as_str(),
            "/none",
            answer(OK, "", ""),
            TeeKeyKind::default(),
        );
        result.unwrap();
    }
}
