//! Brokers of each version, found by what they answer, and what is sent to them.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::{Arc, Mutex};

use attest_client::{
    Error, KbsClient, KbsClientBuilder, ProtocolVersion, ResourceUri, SampleEvidence, TeeKeyKind,
};
use serde_json::{Value, json};

#[path = "common/broker.rs"]
mod broker;
#[path = "common/seal.rs"]
mod seal;
#[path = "common/server.rs"]
mod server;

use broker::{Broker, Line, RESOURCE, SECRET, error};
use server::{Server, answer};

fn resource() -> ResourceUri {
    RESOURCE.parse().unwrap()
}

fn builder(server: &Server) -> KbsClientBuilder {
    KbsClient::builder(&server.url()).evidence(SampleEvidence)
}

fn versions_tried(server: &Server) -> Vec<String> {
    let auths = server
        .seen()
        .into_iter()
        .filter(|request| request.target.ends_with("/auth"));
    auths
        .map(|request| request.json()["version"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn each_version_is_found() {
    for (version, line, tried) in [
        ("0.4.0", Line::Upstream, ["0.4.0"].as_slice()),
        ("0.4.0", Line::Fork500, &["0.4.0"]),
        ("0.4.0", Line::Fork502, &["0.4.0"]),
        ("0.2.0", Line::Upstream, &["0.4.0", "0.2.0"]),
        ("0.1.1", Line::Upstream010, &["0.4.0", "0.1.1"]),
        ("0.1.0", Line::Upstream, &["0.4.0", "0.1.0"]),
        ("0.1.0", Line::Fork500, &["0.4.0", "0.1.0"]),
        ("0.1.0", Line::Fork10, &["0.4.0", "0.1.0"]),
        ("0.1.0", Line::Upstream08, &["0.4.0", "0.1.0"]),
    ] {
        let (server, broker) = Broker::new(version, line, |_| None).start();
        let client = builder(&server).build().unwrap();
        assert_eq!(client.protocol_version(), None);
        assert_eq!(
            *client.get_resource(&resource()).unwrap(),
            SECRET,
            "{version} {line:?}"
        );
        assert_eq!(client.protocol_version(), Some(version.parse().unwrap()));
        assert_eq!(versions_tried(&server), tried, "{version} {line:?}");
        // And remembered.
        broker.restart(false);
        assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
        assert_eq!(versions_tried(&server).len(), tried.len() + 1);
        assert_eq!(versions_tried(&server).last().unwrap(), version);
    }
}

#[test]
fn a_broker_that_is_upgraded_or_downgraded() {
    let (server, broker) = Broker::new("0.1.0", Line::Fork500, |_| None).start();
    let client = builder(&server).build().unwrap();
    for version in ["0.1.0", "0.4.0", "0.2.0", "0.1.0"] {
        broker.upgrade(version);
        assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET, "{version}");
        assert_eq!(client.protocol_version(), Some(version.parse().unwrap()));
    }
    assert_eq!(
        versions_tried(&server),
        [
            "0.4.0", "0.1.0", "0.1.0", "0.4.0", "0.4.0", "0.2.0", "0.2.0", "0.1.0"
        ]
    );
}

#[test]
fn a_version_that_nobody_here_speaks() {
    for (theirs, line) in [
        ("0.3.0", Line::Upstream),
        ("0.3.0", Line::Fork502),
        ("0.5.0", Line::Upstream),
        ("10.0.0", Line::Fork500),
    ] {
        let (server, _) = Broker::new(theirs, line, |_| None).start();
        let error = builder(&server)
            .build()
            .unwrap()
            .get_resource(&resource())
            .unwrap_err();
        let Error::Version {
            theirs: shown, ours, ..
        } = &error
        else {
            panic!("{theirs}: {error:?}")
        };
        assert_eq!(
            (shown.as_str(), ours.as_str()),
            (theirs, "0.1.0, 0.1.1, 0.2.0, 0.4.0")
        );
        assert!(
            error.to_string().contains(&format!("expect ={theirs}")),
            "{error}"
        );
        assert_eq!(server.seen().len(), 1);
    }
}

#[test]
fn a_version_that_was_asked_for() {
    for version in ProtocolVersion::ALL {
        let (server, _) = Broker::new(version.as_str(), Line::Upstream, |_| None).start();
        let client = builder(&server).protocol_version(version).build().unwrap();
        assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
        assert_eq!(versions_tried(&server), [version.as_str()]);
    }
    let (server, _) = Broker::new("0.1.0", Line::Fork500, |_| None).start();
    let client = builder(&server)
        .protocol_version(ProtocolVersion::V0_4_0)
        .build()
        .unwrap();
    let error = client.get_resource(&resource()).unwrap_err();
    assert!(
        matches!(&error, Error::Version { theirs, ours, .. } if theirs == "0.1.0" && ours == "0.4.0"),
        "{error:?}"
    );
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn brokers_that_send_the_client_round_in_circles() {
    let turn = Mutex::new(["0.1.0", "0.4.0", "0.2.0", "0.1.1"].into_iter().cycle());
    let server = Server::new(move |_| {
        let expected = turn.lock().unwrap().next().unwrap();
        let detail =
            format!("KBS Client Protocol Version Mismatch: expect ={expected} while the request is another");
        error("401 Unauthorized", "AttestationError", &detail)
    });
    let error = builder(&server)
        .build()
        .unwrap()
        .get_resource(&resource())
        .unwrap_err();
    assert!(matches!(error, Error::Version { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 2);

    let server =
        Server::new(|_| broker::error("401 Unauthorized", "ProtocolVersion", "none of your business"));
    let error = builder(&server)
        .build()
        .unwrap()
        .get_resource(&resource())
        .unwrap_err();
    assert!(
        matches!(&error, Error::Version { theirs, .. } if theirs == "another"),
        "{error:?}"
    );
    assert_eq!(versions_tried(&server), ["0.4.0", "0.1.0"]);
}

#[test]
fn what_is_sent_is_what_the_version_wants() {
    for version in ProtocolVersion::ALL {
        let (server, _) = Broker::new(version.as_str(), Line::Upstream, |_| None).start();
        let client = builder(&server).protocol_version(version).build().unwrap();
        client.get_resource(&resource()).unwrap();
        let [auth, attest, get] = server.seen().try_into().unwrap();

        let text = String::from_utf8(auth.body).unwrap();
        assert_eq!(
            text,
            format!(r#"{{"version":"{version}","tee":"sample","extra-params":""}}"#)
        );
        for request in [&attest, &get] {
            assert_eq!(
                request.header("cookie"),
                Some("kbs-session-id=77cd86b52a294f1aa7c7435a2f460000")
            );
        }
        assert_eq!(attest.header("content-type"), Some("application/json"));
        assert_eq!(attest.header("authorization"), None);
        assert!(get.header("authorization").unwrap().starts_with("Bearer eyJ"));
        assert_eq!(get.target, "/kbs/v0/resource/default/key/one");

        let json = attest.json();
        // Their order is nobody's business, and depends on how serde_json is built.
        let mut members: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        if version == ProtocolVersion::V0_4_0 {
            assert_eq!(members, ["init-data", "runtime-data", "tee-evidence"]);
            assert_eq!(json["init-data"], Value::Null);
            assert_eq!(json["runtime-data"]["tee-pubkey"]["crv"], "P-256");
            assert_eq!(json["tee-evidence"]["additional_evidence"], "");
            assert!(json["tee-evidence"]["primary_evidence"].is_object());
        } else {
            assert_eq!(members, ["tee-evidence", "tee-pubkey"]);
            assert_eq!(
                json["tee-evidence"].is_string(),
                version == ProtocolVersion::V0_1_0
            );
            let alg = if version == ProtocolVersion::V0_2_0 {
                "ECDH-ES+A256KW"
            } else {
                "RSA1_5"
            };
            assert_eq!(json["tee-pubkey"]["alg"], alg);
        }
    }
}

#[test]
fn keys_of_each_kind() {
    for kind in [
        TeeKeyKind::P256,
        TeeKeyKind::P521,
        TeeKeyKind::RsaOaep256,
        TeeKeyKind::Rsa1_5,
    ] {
        for version in ProtocolVersion::ALL {
            let (server, _) = Broker::new(version.as_str(), Line::Upstream, |_| None).start();
            let client = builder(&server).tee_key_kind(kind).build().unwrap();
            let fetched = client.get_resource(&resource());
            if kind == TeeKeyKind::Rsa1_5 && !version.seals_in_old_form() {
                assert!(
                    matches!(fetched, Err(Error::Config { what }) if what.contains("RSA1_5")),
                    "{version}"
                );
                // It is refused before there is evidence for such a key.
                assert!(
                    server
                        .seen()
                        .iter()
                        .all(|request| !request.target.ends_with("/attest"))
                );
                continue;
            }
            assert_eq!(*fetched.unwrap(), SECRET, "{kind:?} {version}");
            let attest = server
                .seen()
                .into_iter()
                .find(|request| request.target.ends_with("/attest"))
                .unwrap();
            let json = attest.json();
            let key = if version == ProtocolVersion::V0_4_0 {
                &json["runtime-data"]["tee-pubkey"]
            } else {
                &json["tee-pubkey"]
            };
            let alg = if version.seals_in_old_form() {
                "RSA1_5"
            } else {
                kind.algorithm()
            };
            assert_eq!(key["alg"], alg, "{kind:?} {version}");
        }
    }
}

#[test]
fn base_urls_with_a_prefix() {
    for (prefix, path) in [
        ("", "/kbs/v0/auth"),
        ("/", "/kbs/v0/auth"),
        ("/trustee", "/trustee/kbs/v0/auth"),
        ("/api//", "/api/kbs/v0/auth"),
    ] {
        let (server, _) = Broker::new("0.4.0", Line::Upstream, |_| None).start();
        let client = KbsClient::builder(&format!("{}{prefix}", server.url()))
            .evidence(SampleEvidence)
            .build()
            .unwrap();
        assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
        assert_eq!(server.seen()[0].target, path);
    }
}

#[test]
fn an_api_key_and_instance_information() {
    let (server, _) = Broker::new("0.4.0", Line::Fork502, |request| {
        (request.header("authorization") != Some("Bearer sk-0123"))
            .then(|| answer("401 Unauthorized", "", ""))
    })
    .start();
    let info = r#"{"image_id":"m-1","instance_id":"i-1"}"#;
    let client = builder(&server)
        .api_key(" sk-0123\n")
        .instance_info(&format!("{info}\n"))
        .build()
        .unwrap();
    assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
    let [auth, attest, get] = server.seen().try_into().unwrap();
    assert_eq!(
        (auth.header("attestation"), attest.header("attestation")),
        (None, None)
    );
    assert!(get.header("attestation").unwrap().starts_with("eyJ"));
    assert_eq!(auth.header("aainstanceinfo"), None);
    assert_eq!(
        (attest.header("aainstanceinfo"), get.header("aainstanceinfo")),
        (Some(info), Some(info))
    );

    for bad in ["", " ", "two words", "line\nbreak", "h\u{e9}"] {
        assert!(
            matches!(builder(&server).api_key(bad).build(), Err(Error::Config { .. })),
            "{bad:?}"
        );
    }
    let told = "{\n\t\"instance_name\": \"caf\u{e9} \u{1f980}\"\r\n}\n";
    let client = builder(&server).api_key("sk-0123").instance_info(told).build();
    client.unwrap().get_resource(&resource()).unwrap();
    let info = server.seen().pop().unwrap();
    let info = info.header("aainstanceinfo").unwrap();
    assert!(info.is_ascii(), "{info}");
    let info: Value = serde_json::from_str(info).unwrap();
    assert_eq!(info, json!({"instance_name": "caf\u{e9} \u{1f980}"}));
    for bad in ["\0", "{\"a\": \"\u{7f}\"}"] {
        assert!(
            matches!(
                builder(&server).instance_info(bad).build(),
                Err(Error::Config { .. })
            ),
            "{bad:?}"
        );
    }
}

#[test]
fn an_old_version_is_warned_of_once() {
    for (version, told) in [("0.1.0", 1), ("0.1.1", 1), ("0.2.0", 0), ("0.4.0", 0)] {
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let (server, broker) = Broker::new(version, Line::Upstream, |_| None).start();
        let client = builder(&server)
            .on_warning({
                let warnings = Arc::clone(&warnings);
                move |text| warnings.lock().unwrap().push(text.to_owned())
            })
            .build()
            .unwrap();
        for _ in 0..2 {
            client.get_resource(&resource()).unwrap();
            broker.restart(false);
            client.forget();
        }
        let warnings = warnings.lock().unwrap();
        assert_eq!(warnings.len(), told, "{warnings:?}");
        assert!(
            warnings
                .iter()
                .all(|text| text.contains(version) && text.contains("RSA1_5")),
            "{warnings:?}"
        );
        // Whoever names the version knows it.
        let quiet = builder(&server)
            .protocol_version(version.parse().unwrap())
            .on_warning(|text| panic!("{text}"));
        quiet.build().unwrap().get_resource(&resource()).unwrap();
    }
}

#[test]
fn init_data() {
    let toml = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n\n[data]\n";
    for version in ["0.4.0", "0.2.0"] {
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let (server, _) = Broker::new(version, Line::Upstream, |_| None).start();
        let client = builder(&server)
            .init_data(toml)
            .on_warning({
                let warnings = Arc::clone(&warnings);
                move |text| warnings.lock().unwrap().push(text.to_owned())
            })
            .build()
            .unwrap();
        client.get_resource(&resource()).unwrap();
        let attest = server
            .seen()
            .into_iter()
            .find(|request| request.target.ends_with("/attest"))
            .unwrap();
        let warnings = warnings.lock().unwrap();
        if version == "0.4.0" {
            // The text as it is, and not as base64.
            assert_eq!(
                attest.json()["init-data"],
                json!({"format": "toml", "body": toml})
            );
            assert!(warnings.is_empty(), "{warnings:?}");
        } else {
            assert_eq!(attest.json().get("init-data"), None);
            assert!(warnings[0].contains("no init data"), "{warnings:?}");
        }
    }
}

#[test]
fn plain_http_is_warned_of() {
    let warned = |url: &str, api_key: Option<&str>| {
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&warnings);
        let mut client = KbsClient::builder(url)
            .evidence(SampleEvidence)
            .on_warning(move |text| into.lock().unwrap().push(text.to_owned()));
        if let Some(key) = api_key {
            client = client.api_key(key);
        }
        client.build().unwrap();
        Arc::try_unwrap(warnings).unwrap().into_inner().unwrap()
    };
    for url in [
        "http://192.0.2.1/trustee",
        "http://broker.example.com",
        "http://localhost.example.com",
    ] {
        for api_key in [None, Some("sk-0123")] {
            let [warning] = warned(url, api_key).try_into().unwrap();
            for exposed in ["a key of their own", "cookie", "attestation token"] {
                assert!(warning.contains(exposed), "{warning}");
            }
            assert_eq!(warning.contains("API key"), api_key.is_some(), "{warning}");
        }
    }
    for url in [
        "https://broker.example.com",
        "http://127.0.0.1",
        "http://localhost:8080",
        "http://[::1]",
    ] {
        assert!(warned(url, Some("sk-0123")).is_empty(), "{url}");
    }
}

#[test]
fn a_client_needs_something_to_show() {
    let result = KbsClient::builder("http://127.0.0.1").build();
    assert!(matches!(result, Err(Error::Config { .. })), "{result:?}");
    for url in ["", "127.0.0.1:8080", "ftp://127.0.0.1", "http://"] {
        let result = KbsClient::builder(url).evidence(SampleEvidence).build();
        assert!(matches!(result, Err(Error::Config { .. })), "{url}: {result:?}");
    }
}
