//! What an owner does: the requests, their credentials, and what brokers say against them.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attest_client::{Admin, AdminBuilder, Error, ResourceUri};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::ALL_VERSIONS;
use serde_json::{Value, json};

#[path = "common/clock.rs"]
mod clock;
#[path = "common/server.rs"]
mod server;
#[path = "common/tls.rs"]
mod tls;

use clock::FakeClock;
use server::{Answer, Server, answer};

const SECRET: &[u8] = b"\x00\xffsword\nfish";
const REGO: &str = "package policy\ndefault allow = true\n";
const NOBODY: &str = "https://192.0.2.1";

fn resource() -> ResourceUri {
    "kbs:///default/key/one".parse().unwrap()
}

fn done() -> Server {
    Server::new(|_| answer("200 OK", "content-type: text/xml\r\n", ""))
}

fn builder(server: &Server, clock: &Arc<FakeClock>) -> AdminBuilder {
    let clock: Arc<FakeClock> = Arc::clone(clock);
    Admin::builder(&server.url()).token("t0k3n").clock(clock)
}

type Edit = fn(AdminBuilder) -> AdminBuilder;

/// An Ed25519 key as `openssl genpkey -algorithm ed25519` writes it, and its public half.
fn key_pem() -> (String, Vec<u8>) {
    let seed = [7; 32];
    // PrivateKeyInfo of version 0 around an OCTET STRING (RFC 8410, 7).
    let der = [
        b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".as_slice(),
        &seed,
    ]
    .concat();
    let public = Ed25519KeyPair::from_seed_unchecked(&seed)
        .unwrap()
        .public_key()
        .as_ref()
        .to_vec();
    (
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der)
        ),
        public,
    )
}

#[test]
fn requests_in_the_form_that_both_families_take() {
    let server = done();
    let admin = Admin::builder(&format!("{}/trustee/", server.url()))
        .token(" t0k3n\n")
        .build()
        .unwrap();
    admin.set_resource(&resource(), SECRET).unwrap();
    admin.set_resource(&resource(), b"").unwrap();
    admin.delete_resource(&resource()).unwrap();
    admin.set_resource_policy(REGO).unwrap();
    admin.set_attestation_policy("default_cpu", REGO).unwrap();

    let [set, empty, delete, resource_policy, attestation_policy] = server.seen().try_into().unwrap();
    assert_eq!(
        (set.method.as_str(), set.target.as_str()),
        ("POST", "/trustee/kbs/v0/resource/default/key/one")
    );
    assert_eq!(
        (set.body.as_slice(), set.header("content-type")),
        (SECRET, Some("application/octet-stream"))
    );
    assert_eq!(
        (empty.body.as_slice(), empty.header("content-length")),
        (b"".as_slice(), Some("0"))
    );
    assert_eq!(
        (delete.method.as_str(), delete.target.as_str()),
        ("DELETE", set.target.as_str())
    );
    assert!(delete.body.is_empty());
    assert_eq!(resource_policy.target, "/trustee/kbs/v0/resource-policy");
    assert_eq!(
        resource_policy.json(),
        json!({"policy": URL_SAFE_NO_PAD.encode(REGO)})
    );
    assert_eq!(attestation_policy.target, "/trustee/kbs/v0/attestation-policy");
    assert_eq!(
        attestation_policy.json(),
        json!({"type": "rego", "policy_id": "default_cpu", "policy": URL_SAFE_NO_PAD.encode(REGO)})
    );
    for policy in [&resource_policy, &attestation_policy] {
        assert_eq!(
            (policy.method.as_str(), policy.header("content-type")),
            ("POST", Some("application/json"))
        );
    }
    for request in server.seen() {
        assert_eq!(request.header("authorization"), Some("Bearer t0k3n"));
    }

    let server = done();
    Admin::builder(&server.url())
        .without_credentials()
        .build()
        .unwrap()
        .delete_resource(&resource())
        .unwrap();
    assert_eq!(server.seen()[0].header("authorization"), None);
}

#[test]
fn tokens_are_signed_with_the_key() {
    let (pem, public) = key_pem();
    let plain: Edit = |builder| builder;
    let full: Edit = |builder| {
        builder
            .role("kbs-admin")
            .issuer("TrusteeInDocker")
            .audience("KBS")
    };
    for (edit, claims) in [
        (plain, json!({"role": "admin"})),
        (
            full,
            json!({"role": "kbs-admin", "iss": "TrusteeInDocker", "aud": "KBS"}),
        ),
    ] {
        let server = done();
        let admin = edit(Admin::builder(&server.url()).key_pem(&pem)).build().unwrap();
        admin.set_resource(&resource(), SECRET).unwrap();
        let request = server.seen().pop().unwrap();
        let token = request
            .header("authorization")
            .unwrap()
            .strip_prefix("Bearer ")
            .unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        UnparsedPublicKey::new(&ED25519, &public)
            .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
            .unwrap();
        let (header, payload) = signed.split_once('.').unwrap();
        let parse =
            |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
        assert_eq!(parse(header), json!({"alg": "EdDSA", "typ": "JWT"}));
        let mut payload = parse(payload);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let end = payload
            .as_object_mut()
            .unwrap()
            .remove("exp")
            .unwrap()
            .as_u64()
            .unwrap();
        // Good for a broker whose clock is an hour ahead, and not for long by any.
        assert!(end > now + 3600 + 60 && end <= now + 2 * 3600, "{end} {now}");
        // Nor is there a beginning, which may be yet to come by the clock of one that is behind.
        assert_eq!(payload, claims);
    }
}

#[test]
fn keys_that_are_none() {
    let (pem, _) = key_pem();
    let rsa = include_str!("vectors/kbs_jwe_vectors_rsa.json");
    let recorded: Value = serde_json::from_str(rsa).unwrap();
    let rsa = recorded[0]["tee_private_key_pem"].as_str().unwrap();
    for bad in [
        "",
        "swordfish",
        &pem.replace("MC4", "MC5"),
        &pem.replace("PRIVATE KEY", "PUBLIC KEY"),
        rsa,
    ] {
        let result = Admin::builder(NOBODY).key_pem(bad).build();
        assert!(matches!(result, Err(Error::Config { .. })), "{bad}: {result:?}");
    }
    for bad in ["", " ", "two words", "line\nbreak", "h\u{e9}"] {
        let result = Admin::builder(NOBODY).token(bad).build();
        assert!(matches!(result, Err(Error::Config { .. })), "{bad:?}: {result:?}");
    }
    assert!(matches!(
        Admin::builder(NOBODY).build(),
        Err(Error::Config { .. })
    ));
}

#[test]
fn plain_http_goes_to_this_machine_alone() {
    for url in [
        "http://192.0.2.1",
        "http://broker.example.com/trustee",
        "http://localhost.example.com",
        "http://0.0.0.0",
    ] {
        let result = Admin::builder(url).token("t0k3n").build();
        assert!(
            matches!(&result, Err(Error::PlainHttp { url: shown }) if url.starts_with(shown)),
            "{result:?}"
        );
    }
    // Nor by a proxy, which would see it all.
    let proxy = done();
    let server = done();
    let url = format!("http://localhost:{}", server.address().port());
    let admin = Admin::builder(&url)
        .token("t0k3n")
        .proxy(&proxy.url())
        .build()
        .unwrap();
    admin.set_resource(&resource(), SECRET).unwrap();
    assert_eq!((server.seen().len(), proxy.seen().len()), (1, 0));
}

#[test]
fn https_to_a_broker() {
    let ca = tls::Ca::new("good");
    let server = tls::server(&ca.issue(&["localhost"], |_| {}), ALL_VERSIONS, |_| {
        answer("200 OK", "", "")
    });
    let url = format!("https://localhost:{}", server.address().port());
    let admin = |ca: &str| Admin::builder(&url).token("t0k3n").add_ca(ca).build().unwrap();
    admin(&ca.pem()).set_resource(&resource(), SECRET).unwrap();
    assert_eq!(server.seen()[0].body, SECRET);
    assert!(matches!(
        admin(&tls::Ca::new("other").pem()).set_resource(&resource(), SECRET),
        Err(Error::Tls { .. })
    ));
    assert_eq!(server.seen().len(), 1);
}

fn error(status: &str, name: &str, detail: &str) -> Answer {
    let body = format!(
        r#"{{"type":"https://github.com/confidential-containers/kbs/errors/{name}","detail":"{detail}"}}"#
    );
    answer(status, "", body)
}

type Is = fn(&Error) -> bool;

#[test]
fn what_brokers_say_against_it() {
    let is_refused: Is = |error| matches!(error, Error::AdminRefused { .. });
    let not_stored: Is = |error| matches!(error, Error::NotStored { .. });
    let is_broker: Is = |error| matches!(error, Error::Broker { .. });
    let is_status: Is = |error| matches!(error, Error::Status { .. });
    for (faulty, of_resource, of_policy, words) in [
        // Trustee.
        (
            error("401 Unauthorized", "AdminAuthInitialization", "no token"),
            is_refused,
            is_refused,
            "public half",
        ),
        (
            error("401 Unauthorized", "AdminAuthAccess", "access denied"),
            is_refused,
            is_refused,
            "role",
        ),
        (
            error("401 Unauthorized", "PluginInternalError", "Plugin internal error"),
            not_stored,
            is_broker,
            "Plugin",
        ),
        (
            error("401 Unauthorized", "ParsePolicyError", "illegal rego"),
            is_broker,
            is_broker,
            "illegal rego",
        ),
        (
            error("401 Unauthorized", "PolicyEngineError", "illegal rego"),
            is_broker,
            is_broker,
            "illegal rego",
        ),
        (
            error(
                "401 Unauthorized",
                "AttestationError",
                "Set Attestation Policy failed",
            ),
            is_broker,
            is_broker,
            "Set",
        ),
        // The openanolis fork.
        (
            error("401 Unauthorized", "AdminAuth", "Admin auth error: x"),
            is_refused,
            is_refused,
            "public half",
        ),
        (
            error("500 Internal Server Error", "PluginInternalError", "Plugin"),
            not_stored,
            is_broker,
            "Plugin",
        ),
        (
            error("500 Internal Server Error", "PolicyEngine", "illegal rego"),
            is_broker,
            is_broker,
            "illegal rego",
        ),
        (
            error(
                "400 Bad Request",
                "AttestationError",
                "Set Attestation Policy failed",
            ),
            is_broker,
            is_broker,
            "Set",
        ),
        (
            error("404 Not Found", "PluginNotFound", "Plugin resource not found"),
            is_broker,
            is_broker,
            "not found",
        ),
        // Up to 0.11.
        (
            error(
                "401 Unauthorized",
                "FailedAuthentication",
                "not an authorized user",
            ),
            is_refused,
            is_refused,
            "user",
        ),
        (
            error("401 Unauthorized", "UserPublicKeyNotProvided", "x"),
            is_refused,
            is_refused,
            "public half",
        ),
        (
            error("401 Unauthorized", "SetSecretFailed", "Set secret failed: x"),
            not_stored,
            is_broker,
            "Set secret",
        ),
        (
            error("401 Unauthorized", "PolicyEndpoint", "Set policy error x"),
            is_broker,
            is_broker,
            "Set policy",
        ),
        // And what stands before them.
        (answer("404 Not Found", "", ""), is_status, is_status, "prefix"),
        (
            answer("413 Payload Too Large", "", "payload reached size limit"),
            is_status,
            is_status,
            "2 MiB",
        ),
        (
            answer("302 Found", "location: https://elsewhere.invalid/\r\n", ""),
            is_status,
            is_status,
            "not followed",
        ),
        // A store that can only be read, by way of a proxy.
        (
            answer("502 Bad Gateway", "", "<html>"),
            not_stored,
            is_status,
            "502",
        ),
    ] {
        let clock = Arc::new(FakeClock::default());
        let server = Server::new(move |_| faulty.clone());
        let admin = builder(&server, &clock).build().unwrap();
        for (result, is) in [
            (admin.set_resource(&resource(), SECRET), of_resource),
            (admin.delete_resource(&resource()), of_resource),
            (admin.set_resource_policy(REGO), of_policy),
            (admin.set_attestation_policy("default", REGO), of_policy),
        ] {
            let error = result.unwrap_err();
            let text = error.to_string();
            assert!(is(&error) && text.contains(words), "{error:?}: {text}");
            assert_eq!(
                text.contains("KMS"),
                matches!(error, Error::NotStored { .. }),
                "{text}"
            );
        }
        // What was sent is not sent again.
        assert_eq!((server.seen().len(), clock.slept().len()), (4, 0));
    }
}

#[test]
fn a_store_that_can_only_be_read_hangs_up() {
    let clock = Arc::new(FakeClock::default());
    let server = Server::new(|_| Answer::Last(Vec::new()));
    let admin = builder(&server, &clock).build().unwrap();
    for result in [
        admin.set_resource(&resource(), SECRET),
        admin.delete_resource(&resource()),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NotStored { .. }), "{error:?}");
        assert!(error.to_string().contains("key management service"), "{error}");
    }
    assert!(matches!(
        admin.set_resource_policy(REGO),
        Err(Error::Unreachable { .. })
    ));
    assert_eq!((server.seen().len(), clock.slept().len()), (3, 0));
}

#[test]
fn a_broker_that_takes_its_time() {
    let clock = Arc::new(FakeClock::default());
    let server = Server::new(|_| Answer::Hang(Vec::new()));
    let admin = builder(&server, &clock)
        .request_timeout(Duration::from_millis(30))
        .build()
        .unwrap();
    assert!(matches!(
        admin.set_resource(&resource(), SECRET),
        Err(Error::Deadline { .. })
    ));
    assert_eq!(server.seen().len(), 1);

    // It was not taken, so it is sent again.
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::new(move |_| {
        if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2 {
            answer("429 Too Many Requests", "retry-after: 9\r\n", "")
        } else {
            answer("200 OK", "", "")
        }
    });
    builder(&server, &clock)
        .build()
        .unwrap()
        .set_resource(&resource(), SECRET)
        .unwrap();
    assert_eq!(clock.slept(), [Duration::from_secs(9); 2]);
}

#[test]
fn debug_shows_no_credentials() {
    let (pem, _) = key_pem();
    for builder in [
        Admin::builder(NOBODY).key_pem(&pem),
        Admin::builder(NOBODY).token("swordfish"),
    ] {
        let mut shown = format!("{builder:?}");
        shown += &format!("{:?}", builder.build().unwrap());
        assert!(
            !shown.contains("swordfish") && !shown.contains("7, 7") && !shown.contains("MC4"),
            "{shown}"
        );
    }
}
