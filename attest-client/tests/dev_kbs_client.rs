//! The client against the broker for development: every version of both families, every key, provisioning, and what
//! becomes of sessions.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use attest_client::dev_kbs::{Builder, DevKbs, Family, Policy, new_admin_key};
use attest_client::{
    Admin, Error, KbsClient, KbsClientBuilder, ProtocolVersion, ResourceUri, SampleEvidence, TeeKeyKind,
};

use ProtocolVersion::{V0_1_0, V0_1_1, V0_2_0, V0_4_0};

const SECRET: &[u8] = b"\0a resource of any bytes\n\xff";

/// Every kind of server that there is or was.
const SERVERS: [(Family, ProtocolVersion); 6] = [
    (Family::Trustee, V0_4_0),
    (Family::Openanolis, V0_4_0),
    (Family::Trustee, V0_2_0),
    (Family::Trustee, V0_1_1),
    (Family::Trustee, V0_1_0),
    (Family::Openanolis, V0_1_0),
];

fn resource() -> ResourceUri {
    "kbs:///default/model/key".parse().unwrap()
}

fn builder() -> Builder {
    DevKbs::builder()
        .resource("default/model/key", SECRET)
        .notes(|_| ())
}

fn client(broker: &DevKbs) -> KbsClientBuilder {
    KbsClient::builder(broker.url()).evidence(SampleEvidence)
}

/// A broker, and the number of handshakes that it has finished.
fn counting(builder: Builder) -> (DevKbs, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let notes = move |note: &str| {
        if note.contains("evidence accepted") {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    };
    (builder.notes(notes).start().unwrap(), count)
}

#[test]
fn every_server_is_found_out_and_every_key_serves() {
    use TeeKeyKind::{P256, P521, Rsa1_5, RsaOaep256};
    for (family, version) in SERVERS {
        let broker = builder().family(family).versions(&[version]).start().unwrap();
        for kind in [P256, P521, RsaOaep256, Rsa1_5] {
            let served = match kind {
                P521 => family == Family::Trustee && version == V0_4_0 || version < V0_2_0,
                Rsa1_5 => version < V0_2_0,
                _ => true,
            };
            let client = client(&broker).tee_key_kind(kind).build().unwrap();
            let fetched = client.get_resource(&resource());
            assert_eq!(client.protocol_version(), Some(version));
            if kind == Rsa1_5 && !served {
                assert!(matches!(fetched, Err(Error::Config { .. })), "{fetched:?}");
                continue;
            }
            match fetched {
                Ok(fetched) => assert_eq!(
                    (served, fetched.as_slice()),
                    (true, SECRET),
                    "{family:?} {version} {kind:?}"
                ),
                Err(error) => assert!(!served, "{family:?} {version} {kind:?}: {error}"),
            }
        }
    }
}

#[test]
fn a_probe_finds_the_version_and_makes_no_session() {
    for version in [V0_4_0, V0_1_0] {
        let broker = builder().versions(&[version]).start().unwrap();
        let client = client(&broker).build().unwrap();
        assert_eq!(client.probe().unwrap(), version);
        assert_eq!(client.protocol_version(), Some(version));
    }
    let (broker, handshakes) = counting(builder());
    client(&broker).build().unwrap().probe().unwrap();
    assert_eq!(handshakes.load(Ordering::SeqCst), 0);
}

#[test]
fn verdicts_cost_one_handshake() {
    for (family, version) in SERVERS {
        let build = || builder().family(family).versions(&[version]);
        let (broker, handshakes) = counting(build().policy(Policy::DenySample));
        let denied = client(&broker)
            .build()
            .unwrap()
            .get_resource(&resource())
            .unwrap_err();
        assert!(
            matches!(denied, Error::PolicyDenied { .. }),
            "{family:?} {version}: {denied}"
        );
        assert_eq!(handshakes.load(Ordering::SeqCst), 1);

        let (broker, handshakes) = counting(build());
        let client = client(&broker).build().unwrap();
        let other = "kbs:///default/model/other".parse().unwrap();
        let missing = client.get_resource(&other).unwrap_err();
        assert!(
            matches!(missing, Error::ResourceNotFound { .. }),
            "{family:?} {version}: {missing}"
        );
        // And the session still serves.
        assert_eq!(client.get_resource(&resource()).unwrap().as_slice(), SECRET);
        assert_eq!(client.get_resource(&resource()).unwrap().as_slice(), SECRET);
        assert_eq!(handshakes.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn a_broker_that_was_started_anew_is_attested_to_anew() {
    let broker = builder().start().unwrap();
    let address: SocketAddr = broker.url().strip_prefix("http://").unwrap().parse().unwrap();
    let client = client(&broker).build().unwrap();
    assert_eq!(client.get_resource(&resource()).unwrap().as_slice(), SECRET);
    drop(broker);
    let (_broker, handshakes) = counting(builder().address(address));
    assert_eq!(client.get_resource(&resource()).unwrap().as_slice(), SECRET);
    assert_eq!(handshakes.load(Ordering::SeqCst), 1);
}

#[test]
fn lives_without_end_end() {
    let endless = builder()
        .session_lifetime(Duration::MAX)
        .token_lifetime(Duration::MAX)
        .start()
        .unwrap();
    let client = client(&endless).build().unwrap();
    assert_eq!(client.get_resource(&resource()).unwrap().as_slice(), SECRET);
}

#[test]
fn an_api_key_is_in_nobodys_way() {
    let (broker, handshakes) = counting(builder().family(Family::Openanolis));
    let client = client(&broker).api_key("an-API-key").build().unwrap();
    assert_eq!(client.get_resource(&resource()).unwrap().as_slice(), SECRET);
    assert_eq!(client.token().unwrap().split('.').count(), 3);
    assert_eq!(handshakes.load(Ordering::SeqCst), 1);
}

#[test]
fn tls_with_the_brokers_own_authority() {
    let broker = builder().self_signed().prefix("/api").start().unwrap();
    let trusting = client(&broker).add_ca(broker.ca_pem().unwrap()).build().unwrap();
    assert_eq!(trusting.get_resource(&resource()).unwrap().as_slice(), SECRET);
    let error = client(&broker)
        .attempts(1)
        .build()
        .unwrap()
        .get_resource(&resource())
        .unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
}

#[test]
fn owners_provision() {
    let (private, public) = new_admin_key().unwrap();
    let (other, _) = new_admin_key().unwrap();
    for (family, version) in SERVERS {
        let broker = builder()
            .family(family)
            .versions(&[version])
            .admin_key(&public)
            .start()
            .unwrap();
        let admin = Admin::builder(broker.url()).key_pem(&private).build().unwrap();
        let client = client(&broker).build().unwrap();
        admin.set_resource(&resource(), b"another").unwrap();
        assert_eq!(client.get_resource(&resource()).unwrap().as_slice(), b"another");
        admin
            .set_resource_policy("package policy\ndefault allow = false\n")
            .unwrap();
        let denied = client.get_resource(&resource()).unwrap_err();
        assert!(matches!(denied, Error::PolicyDenied { .. }), "{denied}");
        admin
            .set_resource_policy("package policy\ndefault allow = true\n")
            .unwrap();
        admin
            .set_attestation_policy("default_cpu", "package policy\n")
            .unwrap();
        let refused = admin
            .set_resource_policy("package policy\nallow if { true }")
            .unwrap_err();
        assert!(refused.to_string().contains("olicy"), "{refused}");
        // The first servers cannot delete.
        if !(family == Family::Trustee && version < V0_2_0) {
            admin.delete_resource(&resource()).unwrap();
            let missing = client.get_resource(&resource()).unwrap_err();
            assert!(matches!(missing, Error::ResourceNotFound { .. }), "{missing}");
        }
        let stranger = Admin::builder(broker.url()).key_pem(&other).build().unwrap();
        let refused = stranger.set_resource(&resource(), b"forged").unwrap_err();
        assert!(
            matches!(refused, Error::AdminRefused { .. }),
            "{family:?} {version}: {refused}"
        );
    }
}

#[test]
fn a_hundred_clients_at_once() {
    let (broker, handshakes) = counting(builder());
    thread::scope(|scope| {
        let fetch = || {
            client(&broker)
                .build()
                .unwrap()
                .get_resource(&resource())
                .unwrap()
        };
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(fetch)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().as_slice(), SECRET);
        }
    });
    assert_eq!(handshakes.load(Ordering::SeqCst), 100);
}
