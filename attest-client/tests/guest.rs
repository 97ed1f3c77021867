//! The guest's own services, as `api-server-rest` answers for them.
#![allow(clippy::unwrap_used, dead_code)]

use std::time::Duration;

use attest_client::{AaelEvent, Error, GuestClient, ProtocolVersion, ResourceUri, TeeKey, TeeKeyKind};
use serde_json::{Value, json};

#[path = "common/seal.rs"]
mod seal;
#[path = "common/server.rs"]
mod server;

use server::{Answer, Server, answer};

const BINARY: &str = "content-type: application/octet-stream\r\n";

fn resource() -> ResourceUri {
    ResourceUri::from_path("default/key/one").unwrap()
}

fn client(server: &Server) -> GuestClient {
    GuestClient::new(&server.url(), Duration::from_secs(60)).unwrap()
}

#[test]
fn a_resource() {
    let secret = b"0Bn4Q1wwY9fN3P\n\x00\xff";
    let server = Server::new(move |_| answer("200 OK", BINARY, secret));
    assert_eq!(*client(&server).get_resource(&resource()).unwrap(), secret);
    let request = server.seen().pop().unwrap();
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("GET", "/cdh/resource/default/key/one")
    );
    assert_eq!(request.header("authorization"), None);

    for secret in [Vec::new(), vec![7; 3 << 20]] {
        // In chunks too.
        let chunked = {
            let secret = secret.clone();
            Server::new(move |_| {
                let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
                for chunk in secret.chunks(1000) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
                Answer::Bytes(bytes)
            })
        };
        assert_eq!(*client(&chunked).get_resource(&resource()).unwrap(), secret);
        let whole = {
            let secret = secret.clone();
            Server::new(move |_| answer("200 OK", BINARY, &secret))
        };
        assert_eq!(*client(&whole).get_resource(&resource()).unwrap(), secret);
    }
}

#[test]
fn a_call_has_its_time_with_all_its_attempts() {
    let server = Server::new(|_| answer("429 Too Many Requests", "retry-after: 30\r\n", ""));
    let guest = GuestClient::new(&server.url(), Duration::from_secs(2)).unwrap();
    let error = guest.get_resource(&resource()).unwrap_err();
    assert!(matches!(error, Error::Guest { status: 429, .. }), "{error:?}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn what_may_be_a_resource_is_not_shown() {
    for status in ["201 Created", "203 Non-Authoritative", "206 Partial Content"] {
        let server = Server::new(move |_| answer(status, BINARY, "swordfish"));
        let error = client(&server).get_resource(&resource()).unwrap_err();
        assert!(matches!(error, Error::Guest { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("swordfish"), "{error:?}");
    }
}

#[test]
fn rsa_keys_are_for_what_the_broker_speaks() {
    let old: Value = serde_json::from_str(include_str!("vectors/kbs_jwe_vectors_rsa.json")).unwrap();
    let pem = old[0]["tee_private_key_pem"].as_str().unwrap().to_owned();
    let body = json!({"token": "eyJ.eyJ.c2ln", "tee_keypair": pem}).to_string();
    let server = Server::new(move |_| answer("200 OK", BINARY, &body));
    for (version, kind) in [
        (ProtocolVersion::V0_1_0, TeeKeyKind::Rsa1_5),
        (ProtocolVersion::V0_1_1, TeeKeyKind::Rsa1_5),
        (ProtocolVersion::V0_2_0, TeeKeyKind::RsaOaep256),
        (ProtocolVersion::V0_4_0, TeeKeyKind::RsaOaep256),
    ] {
        let (_, key) = client(&server).token_for(version).unwrap();
        assert_eq!(key.kind(), kind, "{version}");
    }
    for curve in [TeeKeyKind::P256, TeeKeyKind::P521] {
        let error = TeeKey::from_pem(&pem, curve).unwrap_err();
        assert!(matches!(error, Error::TeeKey { .. }), "{error:?}");
    }
}

#[test]
fn failures() {
    for (faulty, status, words) in [
        (
            answer(
                "500 Internal Server Error",
                BINARY,
                "rpc status: Status { code: INTERNAL, message: \"[CDH] [ERROR]\" }",
            ),
            500,
            "code: INTERNAL",
        ),
        (
            answer("404 Not Found", "", "Resource Feature Not Enabled"),
            404,
            "--features all",
        ),
        (
            answer("403 Forbidden", "", "FORBIDDEN"),
            403,
            "this machine alone",
        ),
        (answer("400 Bad Request", "", "BAD REQUEST"), 400, "BAD REQUEST"),
        (
            answer("301 Moved", "location: http://192.0.2.1/\r\n", ""),
            301,
            "",
        ),
        (
            answer("500 Internal Server Error", "", b"\x1b[2J\xff\n"),
            500,
            r"\u{1b}[2J",
        ),
    ] {
        let server = Server::new(move |_| faulty.clone());
        let guest = client(&server);
        for result in [
            guest.get_resource(&resource()).map(drop),
            guest.token().map(drop),
            guest.evidence(b"x").map(drop),
        ] {
            let error = result.unwrap_err();
            assert!(
                matches!(&error, Error::Guest { status: shown, .. } if *shown == status),
                "{error:?}"
            );
            assert!(error.to_string().contains(words), "{error}");
        }
        // Attesting again takes as long and ends the same.
        assert_eq!(server.seen().len(), 3);
    }
}

#[test]
fn answers_that_are_slow_or_long() {
    let server = Server::new(|_| Answer::Hang(b"HTTP/1.1 200 OK\r\n".to_vec()));
    let guest = GuestClient::new(&server.url(), Duration::from_millis(30)).unwrap();
    assert!(matches!(
        guest.get_resource(&resource()),
        Err(Error::Deadline { .. })
    ));
    assert_eq!(server.seen().len(), 1);

    let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    let server = Server::new(move |_| Answer::Endless(head.clone(), vec![b'a'; 4096]));
    let guest = client(&server);
    assert!(matches!(
        guest.get_resource(&resource()),
        Err(Error::TooLarge { .. })
    ));
    assert!(matches!(guest.token(), Err(Error::TooLarge { .. })));
    assert!(matches!(guest.evidence(b"x"), Err(Error::TooLarge { .. })));
}

#[test]
fn a_token_with_its_key() {
    let recorded: Value = serde_json::from_str(include_str!("vectors/kbs_jwe_vectors.json")).unwrap();
    let pem_of = |name: &str| {
        let entry = recorded
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["name"] == name)
            .unwrap();
        entry["tee_private_key_pem"].as_str().unwrap().to_owned()
    };
    let old: Value = serde_json::from_str(include_str!("vectors/kbs_jwe_vectors_rsa.json")).unwrap();
    for (pem, kind) in [
        (pem_of("get_p256"), TeeKeyKind::P256),
        (pem_of("get_p521"), TeeKeyKind::P521),
        (pem_of("get_rsa_oaep256"), TeeKeyKind::RsaOaep256),
        // As the agent gives RSA keys: PKCS #1.
        (
            old[0]["tee_private_key_pem"].as_str().unwrap().to_owned(),
            TeeKeyKind::RsaOaep256,
        ),
    ] {
        let body = json!({"token": "eyJ.eyJ.c2ln", "tee_keypair": pem}).to_string();
        let server = Server::new(move |_| answer("200 OK", BINARY, &body));
        let (token, key) = client(&server).token().unwrap();
        assert_eq!((token.as_str(), key.kind()), ("eyJ.eyJ.c2ln", kind));
        assert_eq!(
            key.public(),
            TeeKey::from_pem(&pem, TeeKeyKind::RsaOaep256).unwrap().public()
        );
        assert_eq!(server.seen()[0].target, "/aa/token?token_type=kbs");
    }
    for (body, is_key) in [
        ("", false),
        ("swordfish", false),
        (r#"{"token":"swordfish"}"#, false),
        (r#"{"token":7,"tee_keypair":"swordfish"}"#, false),
        (r#"{"token":"sword\u0066ish","tee_keypair":"x"}"#, false),
        (r#"{"token":"x","tee_keypair":"swordfish"}"#, true),
    ] {
        let server = Server::new(move |_| answer("200 OK", BINARY, body));
        let error = client(&server).token().unwrap_err();
        assert_eq!(matches!(error, Error::TeeKey { .. }), is_key, "{body}: {error:?}");
        assert!(
            is_key || matches!(error, Error::Malformed { .. }),
            "{body}: {error:?}"
        );
        assert!(!format!("{error} {error:?}").contains("swordfish"), "{error:?}");
    }
}

#[test]
fn evidence() {
    let server = Server::new(|_| answer("200 OK", BINARY, r#"{"quote":"BAA=","cc_eventlog":null}"#));
    let guest = client(&server);
    let evidence = guest.evidence(&[0xfb; 64]).unwrap();
    assert_eq!(evidence, json!({"quote": "BAA=", "cc_eventlog": null}));
    let encoded = seal::encode(&[0xfb; 64]);
    assert_eq!(
        server.seen()[0].target,
        format!("/aa/evidence?runtime_data={encoded}&encoding=base64")
    );
    assert!(matches!(guest.evidence(&[0; 65]), Err(Error::Config { .. })));
    assert_eq!(server.seen().len(), 1);

    let server = Server::new(|_| answer("200 OK", BINARY, "swordfish"));
    assert!(matches!(
        client(&server).evidence(b""),
        Err(Error::Malformed { .. })
    ));
}

#[test]
fn an_event_is_measured_once() {
    let event = AaelEvent::new("example.org", "run", r#"{"a":"b"}"#).unwrap();
    let json = "content-type: application/json\r\n";
    let measured = Server::new(move |_| answer("200 OK", json, r#"{"success":"true"}"#));
    client(&measured).measure(&event).unwrap();
    let [request] = measured.seen().try_into().unwrap();
    assert_eq!((&*request.method, &*request.target), ("POST", "/aa/aael"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(
        request.json(),
        json!({"domain": "example.org", "operation": "run", "content": r#"{"a":"b"}"#})
    );

    // It answers with success that it has none.
    let no = r#"{"success":"false","message": "The platform does not support runtime measurement"}"#;
    for (body, words) in [
        (no, "does not support"),
        (r#"{"success":true}"#, "does not say whether"),
        (r#"{"success":"false"}"#, "status 200"),
        ("{}", "does not say whether"),
        ("", "does not say whether"),
    ] {
        let server = Server::new(move |_| answer("200 OK", json, body));
        let error = client(&server).measure(&event).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
    let failing = Server::new(|_| answer("500 Internal Server Error", BINARY, "failed"));
    let error = client(&failing).measure(&event).unwrap_err();
    assert!(matches!(error, Error::Guest { status: 500, .. }), "{error}");
    assert_eq!(failing.seen().len(), 1);
}

#[test]
fn it_is_this_machine_or_none() {
    for url in [
        "http://192.0.2.1:8006",
        "http://guest.example.com",
        "http://localhost.example.com",
        "https://192.0.2.1",
    ] {
        let result = GuestClient::new(url, Duration::from_secs(1));
        assert!(matches!(result, Err(Error::Config { .. })), "{url}");
    }
    for url in [
        GuestClient::DEFAULT_URL,
        "http://[::1]:8006",
        "http://localhost:8006/",
    ] {
        GuestClient::new(url, Duration::from_secs(1)).unwrap();
    }
}
