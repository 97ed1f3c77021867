//! Proxies, by option and by environment.
#![allow(clippy::unwrap_used, dead_code)]

use std::process::Command;
use std::sync::Arc;

use attest_client::{Error, KbsClient, SampleEvidence};

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

/// A name that no name server knows (RFC 6761).
const ELSEWHERE: &str = "http://broker.invalid/trustee";

/// A proxy that makes requests to one broker, and asks for a password.
fn proxy() -> Server {
    let broker = Broker::new("0.4.0", Line::Upstream, |_| None);
    Server::new(move |request| {
        assert!(
            request.target.starts_with(&format!("{ELSEWHERE}/kbs/v0/")),
            "{request:?}"
        );
        assert_eq!(request.header("host"), Some("broker.invalid"));
        // user:word
        if request.header("proxy-authorization") != Some("Basic dXNlcjp3b3Jk") {
            return answer("407 Proxy Authentication Required", "", "");
        }
        broker.handle(request)
    })
}

fn with_password(proxy: &Server) -> String {
    format!("http://user:word@{}", proxy.address())
}

#[test]
fn a_proxy_by_option() {
    let proxy = proxy();
    let client = KbsClient::builder(ELSEWHERE)
        .evidence(SampleEvidence)
        .proxy(&with_password(&proxy))
        .build()
        .unwrap();
    assert_eq!(*client.get_resource(&RESOURCE.parse().unwrap()).unwrap(), SECRET);
    assert_eq!(proxy.seen().len(), 3);
}

#[test]
fn a_proxy_that_refuses() {
    let proxy = proxy();
    let client = KbsClient::builder(ELSEWHERE)
        .evidence(SampleEvidence)
        .proxy(&format!("http://user:swordfish@{}", proxy.address()))
        .clock(Arc::new(FakeClock::default()))
        .build()
        .unwrap();
    let error = client.get_resource(&RESOURCE.parse().unwrap()).unwrap_err();
    let shown = format!("{error} {error:?} {client:?}");
    assert!(matches!(error, Error::Status { status: 407, .. }), "{shown}");
    assert!(shown.contains("407") && !shown.contains("swordfish"), "{shown}");
}

#[test]
fn a_proxy_that_does_not_connect() {
    for (status, attempts, words) in [
        ("407 Proxy Authentication Required", 1, "credentials"),
        ("403 Forbidden", 1, "status 403"),
        ("405 Method Not Allowed", 1, "status 405"),
        ("429 Too Many Requests", 5, "status 429"),
        ("502 Bad Gateway", 5, "status 502"),
        ("504 Gateway Timeout", 5, "status 504"),
    ] {
        let proxy = Server::new(move |request| {
            assert_eq!(
                (&*request.method, &*request.target),
                ("CONNECT", "broker.invalid:443")
            );
            answer(status, "", "")
        });
        let error = KbsClient::builder("https://broker.invalid")
            .evidence(SampleEvidence)
            .proxy(&with_password(&proxy))
            .clock(Arc::new(FakeClock::default()))
            .build()
            .unwrap()
            .get_resource(&RESOURCE.parse().unwrap())
            .unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{status}: {error:?}");
        assert!(error.to_string().contains(words), "{status}: {error}");
        assert_eq!(proxy.seen().len(), attempts, "{status}");
    }
}

#[test]
fn a_proxys_certificate_is_the_proxys() {
    let identity = tls::Ca::new("proxy's own").issue(&["localhost"], |_| {});
    let proxy = tls::server(&identity, rustls::ALL_VERSIONS, |_| answer("200 OK", "", ""));
    for broker in ["https://broker.invalid", "http://broker.invalid"] {
        let address = format!("localhost:{}", proxy.address().port());
        let error = KbsClient::builder(broker)
            .evidence(SampleEvidence)
            .proxy(&format!("https://{address}"))
            .clock(Arc::new(FakeClock::default()))
            .build()
            .unwrap()
            .get_resource(&RESOURCE.parse().unwrap())
            .unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("the proxy https://{address}")), "{text}");
        assert!(!text.contains("broker.invalid"), "{text}");
    }
}

#[test]
fn there_is_no_proxy_to_this_machine() {
    let (server, _) = Broker::new("0.4.0", Line::Upstream, |_| None).start();
    let proxy = proxy();
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{}", server.address().port());
        let client = KbsClient::builder(&url)
            .evidence(SampleEvidence)
            .proxy(&with_password(&proxy))
            .build()
            .unwrap();
        assert_eq!(*client.get_resource(&RESOURCE.parse().unwrap()).unwrap(), SECRET);
    }
    assert!(proxy.seen().is_empty());
}

#[test]
fn proxies_that_cannot_be_used() {
    for bad in ["socks5://127.0.0.1:1080", "ftp://proxy", "", "http://"] {
        let result = KbsClient::builder(ELSEWHERE)
            .evidence(SampleEvidence)
            .proxy(bad)
            .build();
        assert!(matches!(result, Err(Error::Config { .. })), "{bad}: {result:?}");
    }
}

#[test]
fn the_environment_decides_otherwise() {
    let proxy = proxy();
    let by_environment = |name: &str, value: &str, no_proxy: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_ascii_lowercase());
        }
        command.env(name, value).env("NO_PROXY", no_proxy);
        let output = command
            .args(["--exact", "fetches_as_the_environment_says", "--ignored"])
            .output()
            .unwrap();
        output.status.success()
    };
    for name in ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"] {
        assert!(
            by_environment(name, &with_password(&proxy), "other.example.com"),
            "{name}"
        );
    }
    let before = proxy.seen().len();
    // Then there is nobody of that name.
    assert!(!by_environment(
        "HTTP_PROXY",
        &with_password(&proxy),
        "broker.invalid"
    ));
    assert!(!by_environment("HTTP_PROXY", &with_password(&proxy), ".invalid"));
    assert!(!by_environment("HTTPS_PROXY", &with_password(&proxy), ""));
    assert_eq!(proxy.seen().len(), before);
}

#[test]
#[ignore = "run by the_environment_decides_otherwise"]
fn fetches_as_the_environment_says() {
    let client = KbsClient::builder(ELSEWHERE)
        .evidence(SampleEvidence)
        .attempts(1)
        .build()
        .unwrap();
    assert_eq!(*client.get_resource(&RESOURCE.parse().unwrap()).unwrap(), SECRET);
}
