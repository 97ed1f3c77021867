//! No secret shows in a log line, an error or a `Debug`, whatever is logged.
#![allow(clippy::unwrap_used, dead_code)]

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attest_client::{Admin, Error, GuestClient, KbsClient, ResourceUri, SampleEvidence, TeeKey, TeeKeyKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use log::{LevelFilter, Log, Metadata, Record};
use rustls::ALL_VERSIONS;
use zeroize::Zeroizing;

#[path = "common/broker.rs"]
mod broker;
#[path = "common/clock.rs"]
mod clock;
#[path = "common/seal.rs"]
mod seal;
#[path = "common/server.rs"]
mod server;
#[path = "common/tls.rs"]
mod tls;

use broker::{Broker, Line, RESOURCE, SECRET};
use clock::FakeClock;
use server::{Server, answer};

/// All that was logged.
static LOGGED: Mutex<String> = Mutex::new(String::new());

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let _ = writeln!(
            LOGGED.lock().unwrap(),
            "{} {} {}",
            record.level(),
            record.target(),
            record.args()
        );
    }

    fn flush(&self) {}
}

const API_KEY: &str = "sk-marlinmarlinmarlin";
const ADMIN_TOKEN: &str = "tunatunatunatunatuna";
const PASSWORD: &str = "herringherringherring";
const SESSION: &str = "77cd86b52a294f1aa7c7435a2f46";

fn resource() -> ResourceUri {
    RESOURCE.parse().unwrap()
}

/// Each in the ways that it might be written.
fn assert_secret_free(text: &str, tokens: &[String]) {
    let mut needles = vec![
        SECRET.to_vec(),
        STANDARD.encode(SECRET).into_bytes(),
        URL_SAFE_NO_PAD.encode(SECRET).into_bytes(),
    ];
    needles.push(format!("{SECRET:?}").trim_matches(['[', ']']).as_bytes().to_vec());
    for text in [API_KEY, ADMIN_TOKEN, PASSWORD, SESSION] {
        needles.push(text.as_bytes().to_vec());
    }
    needles.push(STANDARD.encode(format!("user:{PASSWORD}")).into_bytes());
    needles.extend(tokens.iter().map(|token| token.as_bytes().to_vec()));
    for needle in needles {
        let found = text.as_bytes().windows(needle.len()).any(|part| part == needle);
        assert!(!found, "{} in {text}", String::from_utf8_lossy(&needle));
    }
}

#[test]
fn nothing_secret_is_shown() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let mut shown = String::new();
    let mut tokens = Vec::new();

    // Handshakes and resources of every version, with an API key or without, over TLS and not, again and again.
    let ca = tls::Ca::new("good");
    let identity = ca.issue(&["localhost"], |_| {});
    for version in ["0.4.0", "0.2.0", "0.1.0"] {
        for api_key in [false, true] {
            let fails = Mutex::new(0);
            let broker = Arc::new(Broker::new(version, Line::Fork502, move |_| {
                let mut fails = fails.lock().unwrap();
                *fails += 1;
                (*fails % 3 == 0)
                    .then(|| answer("503 Service Unavailable", "retry-after: 1\r\n", "swordfish"))
            }));
            let handler = {
                let broker = Arc::clone(&broker);
                move |request: &_| broker.handle(request)
            };
            let server = tls::server(&identity, ALL_VERSIONS, handler);
            let url = format!("https://localhost:{}", server.address().port());
            let mut builder = KbsClient::builder(&url)
                .evidence(SampleEvidence)
                .add_ca(&ca.pem())
                .clock(Arc::new(FakeClock::default()));
            if api_key {
                builder = builder.api_key(API_KEY);
            }
            write!(shown, "{builder:?}").unwrap();
            let client = builder.build().unwrap();
            assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
            broker.restart(false);
            assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
            let error = client
                .get_resource(&"kbs:///default/key/two".parse().unwrap())
                .unwrap_err();
            write!(shown, "{client:?} {error} {error:?}").unwrap();
            tokens.push(client.token().unwrap().to_string());
        }
    }

    // Answers that are wrong in every way and yet hold what is secret.
    for body in [
        format!(r#"{{"nonce":"{SESSION}","extra-params":7,"token":"{ADMIN_TOKEN}"#),
        format!(r#"{{"error":["{ADMIN_TOKEN}"]}}"#),
        format!("<html>{ADMIN_TOKEN}"),
        format!(r#"{{"token":"a b {ADMIN_TOKEN}"}}"#),
        format!(
            r#"{{"protected":"{ADMIN_TOKEN}","encrypted_key":"{ADMIN_TOKEN}","iv":"","ciphertext":"","tag":""}}"#
        ),
    ] {
        for status in ["200 OK", "401 Unauthorized", "500 Internal Server Error"] {
            for end in ["/auth", "/attest", "/one"] {
                let faulty = answer(status, &format!("x-token: {ADMIN_TOKEN}\r\n"), &body);
                let (server, _) = Broker::new("0.4.0", Line::Upstream, move |request| {
                    request.target.ends_with(end).then(|| faulty.clone())
                })
                .start();
                let client = KbsClient::builder(&server.url())
                    .evidence(SampleEvidence)
                    .clock(Arc::new(FakeClock::default()))
                    .build()
                    .unwrap();
                let error = client.get_resource(&resource()).unwrap_err();
                write!(shown, "{error} {error:?}").unwrap();
            }
        }
    }

    // A proxy with a password, and one that refuses it.
    for status in ["200 OK", "407 Proxy Authentication Required"] {
        let broker = Broker::new("0.4.0", Line::Upstream, |_| None);
        let proxy = Server::new(move |request| match status {
            "200 OK" => broker.handle(request),
            _ => answer(status, "", PASSWORD),
        });
        let client = KbsClient::builder("http://broker.invalid")
            .evidence(SampleEvidence)
            .proxy(&format!("http://user:{PASSWORD}@{}", proxy.address()))
            .clock(Arc::new(FakeClock::default()))
            .build()
            .unwrap();
        match client.get_resource(&resource()) {
            Ok(secret) => assert_eq!(*secret, SECRET),
            Err(error) => write!(shown, "{error} {error:?}").unwrap(),
        }
        write!(shown, "{client:?}").unwrap();
    }

    // An owner, and the guest's services.
    let server = Server::new(|request| match request.method.as_str() {
        "POST" => answer("200 OK", "", ""),
        "DELETE" => answer("401 Unauthorized", "", ADMIN_TOKEN),
        _ => answer("200 OK", "", SECRET),
    });
    let admin = Admin::builder(&server.url()).token(ADMIN_TOKEN).build().unwrap();
    admin.set_resource(&resource(), SECRET).unwrap();
    let error = admin.delete_resource(&resource()).unwrap_err();
    let guest = GuestClient::new(&server.url(), Duration::from_secs(60)).unwrap();
    assert_eq!(*guest.get_resource(&resource()).unwrap(), SECRET);
    let bad_token = guest.token().unwrap_err();
    write!(
        shown,
        "{admin:?} {error} {error:?} {guest:?} {bad_token} {bad_token:?}"
    )
    .unwrap();

    // What evidence is bound to, where the agent is asked twice.
    let busy = Mutex::new(true);
    let server = Server::new(move |_| {
        if std::mem::replace(&mut *busy.lock().unwrap(), false) {
            answer("429 Too Many Requests", "", "")
        } else {
            answer("200 OK", "", "{}")
        }
    });
    let guest = GuestClient::new(&server.url(), Duration::from_secs(60)).unwrap();
    guest.evidence(SECRET).unwrap();
    assert_eq!(server.seen().len(), 2);

    // A token that does not serve.
    let key = TeeKey::generate(TeeKeyKind::P256).unwrap();
    let (server, _) = Broker::new("0.4.0", Line::Upstream, |_| None).start();
    let client = KbsClient::builder(&server.url())
        .token(Zeroizing::new(ADMIN_TOKEN.to_owned()), key)
        .build()
        .unwrap();
    let error = client.get_resource(&resource()).unwrap_err();
    assert!(matches!(error, Error::TokenRefused { .. }), "{error:?}");
    write!(shown, "{client:?} {error} {error:?}").unwrap();

    let logged = LOGGED.lock().unwrap();
    // It was listened to.
    assert!(logged.contains("DEBUG attest_client::"), "{logged}");
    assert!(logged.contains("GET /aa/evidence: attempt 1"), "{logged}");
    // What nobody asked to be told is logged.
    assert!(
        logged.contains("WARN attest_client::kbs http://broker.invalid is plain http"),
        "{logged}"
    );
    assert!(logged.contains("asks for protocol 0.1.0"), "{logged}");
    assert_secret_free(&logged, &tokens);
    assert_secret_free(&shown, &tokens);
}
