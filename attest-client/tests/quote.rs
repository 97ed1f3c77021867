//! Quotes of real machines, read field by field and damaged.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use attest_client::quote::{BodyKind, Measurements, TdAttributes};
use attest_client::{Error, Quote};
use serde_json::Value;

fn vector(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    fs::read(path.join(name)).unwrap()
}

const NAMES: [&str; 3] = ["tdx_quote_v4", "tdx_quote_v5", "tdx_quote_v5_ex"];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn fields_are_what_another_parser_reads() {
    let known: Value = serde_json::from_slice(&vector("tdx_quotes.json")).unwrap();
    for name in NAMES {
        let bytes = vector(&format!("{name}.bin"));
        let quote = Quote::parse(&bytes).unwrap();
        let (header, body, m) = (&quote.header, &quote.body, &quote.body.measurements);
        let known = &known[name];
        for (field, value) in [
            ("qe_vendor_id", hex(&header.qe_vendor_id)),
            ("user_data", hex(&header.user_data)),
            ("tee_tcb_svn", hex(&body.tee_tcb_svn)),
            ("mr_seam", hex(&body.mrseam)),
            ("mr_signer_seam", hex(&body.mrsignerseam)),
            ("seam_attributes", hex(&body.seam_attributes.to_le_bytes())),
            ("td_attributes", hex(&m.attributes.bits().to_le_bytes())),
            ("xfam", hex(&m.xfam.to_le_bytes())),
            ("mr_td", hex(&m.mrtd)),
            ("mr_config_id", hex(&m.mrconfigid)),
            ("mr_owner", hex(&m.mrowner)),
            ("mr_owner_config", hex(&m.mrownerconfig)),
            ("rt_mr0", hex(&m.rtmr[0])),
            ("rt_mr1", hex(&m.rtmr[1])),
            ("rt_mr2", hex(&m.rtmr[2])),
            ("rt_mr3", hex(&m.rtmr[3])),
            ("report_data", hex(&body.report_data)),
        ] {
            assert_eq!(known[field].as_str(), Some(value.as_str()), "{name} {field}");
        }
        for (field, value) in [
            ("version", u64::from(header.version)),
            ("tee_type", u64::from(header.tee_type)),
            ("attestation_key_type", u64::from(header.attestation_key_type)),
            ("qe_svn", u64::from(header.qe_svn)),
            ("pce_svn", u64::from(header.pce_svn)),
        ] {
            assert_eq!(known[field].as_u64(), Some(value), "{name} {field}");
        }
        assert_eq!(
            known["tee_tcb_svn2"].as_str(),
            body.tee_tcb_svn_2.map(|svn| hex(&svn)).as_deref()
        );
        assert_eq!(
            known["mr_service_td"].as_str(),
            body.mrservicetd.map(|mr| hex(&mr)).as_deref()
        );

        let signature = quote.signature.as_ref().unwrap();
        assert_eq!(
            (signature.certification_type, signature.certification.kind),
            (6, 5),
            "{name}"
        );
        // Intel's chain of certificates ends with a zero byte, which the other parser drops.
        let chain = &signature.certification.data;
        assert_eq!(
            known["cert_chain_len"].as_u64(),
            Some(chain.len() as u64 - 1),
            "{name}"
        );
        assert!(chain.starts_with(b"-----BEGIN CERTIFICATE-----\n"), "{name}");
        let qe = signature.qe_report.as_ref().unwrap();
        assert_eq!(qe.authentication_data.len(), 32, "{name}");
        assert_eq!(quote.len, bytes.len(), "{name}");
    }
}

#[test]
fn bodies_are_of_their_kind() {
    let quotes = NAMES.map(|name| Quote::parse(&vector(&format!("{name}.bin"))).unwrap());
    let kinds = quotes.each_ref().map(|quote| quote.body_kind);
    assert_eq!(kinds, [BodyKind::Td10, BodyKind::Td15, BodyKind::Td15Ex]);
    let newer = quotes.each_ref().map(|quote| {
        let body = &quote.body;
        (
            body.tee_tcb_svn_2.is_some(),
            body.mrservicetd.is_some(),
            body.extension.is_some(),
        )
    });
    assert_eq!(
        newer,
        [(false, false, false), (true, true, false), (true, true, true)]
    );
    // The first of them comes from a machine under debug.
    assert_eq!(
        quotes.map(|quote| quote.body.measurements.attributes.is_debug()),
        [true, false, false]
    );
}

#[test]
fn shorter_quotes_are_refused() {
    for name in NAMES {
        let bytes = vector(&format!("{name}.bin"));
        for len in 0..bytes.len() {
            let error = Quote::parse(&bytes[..len]).unwrap_err();
            assert!(
                matches!(error, Error::Quote { offset, .. } if offset <= len),
                "{name} {len}: {error}"
            );
        }
        let padded = [bytes.clone(), vec![0; 70]].concat();
        assert_eq!(
            Quote::parse(&padded).unwrap(),
            Quote::parse(&bytes).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn hostile_fields_are_refused() {
    let (v4, v5) = (vector("tdx_quote_v4.bin"), vector("tdx_quote_v5.bin"));
    let refused = |bytes: &[u8], offset: usize, patch: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[offset..offset + patch.len()].copy_from_slice(patch);
        match Quote::parse(&bytes) {
            Err(Error::Quote { offset, what }) => (offset, what),
            other => panic!("{other:?}"),
        }
    };
    // Versions, TEE types, bodies.
    for version in [0, 3, 6, 0xffff_u16] {
        assert_eq!(
            refused(&v4, 0, &version.to_le_bytes()),
            (0, "is of a version other than 4 and 5")
        );
    }
    assert_eq!(refused(&v4, 4, &[0]), (0, "is of a TEE other than TDX"));
    for kind in [0, 1, 5] {
        assert_eq!(
            refused(&v5, 48, &[kind]),
            (48, "has a body of a type other than TDX 1.0 and 1.5")
        );
    }
    assert_eq!(
        refused(&v5, 48, &[2]),
        (48, "has a body of a length that its type does not have")
    );
    assert_eq!(refused(&v5, 50, &647_u32.to_le_bytes()).0, 48);
    // Lengths: of the signature, of the outer and the inner certification data, of the authentication data.
    let signature = 48 + 584;
    let outer = signature + 4 + 64 + 64 + 2;
    let authentication = outer + 4 + 384 + 64;
    let inner = authentication + 2 + 32 + 2;
    for (offset, len, what) in [
        (signature, 4, "ends too early"),
        (outer, 4, "has a signature section that its parts do not fit in"),
        (
            authentication,
            2,
            "has a signature section that its parts do not fit in",
        ),
        (inner, 4, "has a signature section that its parts do not fit in"),
    ] {
        assert_eq!(refused(&v4, offset, &[0xff; 4][..len]).1, what, "{offset}");
    }
    let long = [v4.clone(), vec![0; Quote::MAX_LEN]].concat();
    assert!(matches!(Quote::parse(&long), Err(Error::Quote { .. })));

    // Keys of another kind are left undivided.
    let mut other = v4;
    other[2] = 3;
    let other = Quote::parse(&other).unwrap();
    assert_eq!((other.header.attestation_key_type, other.signature), (3, None));
}

#[test]
fn a_person_can_read_it() {
    let quote = Quote::parse(&vector("tdx_quote_v5.bin")).unwrap();
    let text = quote.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "quote          version 5, TDX 1.5, 5006 bytes");
    assert_eq!(lines.len(), 20, "{text}");
    let mrtd = format!("MRTD           {}", hex(&quote.body.measurements.mrtd));
    let rtmr3 = format!("RTMR3          {}", hex(&quote.body.measurements.rtmr[3]));
    let report_data = format!("REPORTDATA     {}", hex(&quote.body.report_data));
    for line in [mrtd, rtmr3, report_data] {
        assert!(lines.contains(&line.as_str()), "{line}\n{text}");
    }
    assert_eq!(
        *lines.last().unwrap(),
        "certification  type 5, chain of PCK certificates, 3678 bytes"
    );

    let debug = Quote::parse(&vector("tdx_quote_v4.bin")).unwrap();
    let attributes = "TD attributes  0x0000000010000001 DEBUG SEPT_VE_DISABLE\n";
    assert!(debug.to_string().contains(attributes), "{debug}");
}

#[test]
fn attributes_have_names() {
    let attributes = TdAttributes::from_bits(0x8000_0000_4000_0000);
    assert_eq!(attributes.to_string(), "0x8000000040000000 PKS PERFMON");
    assert!(attributes.contains(TdAttributes::PKS) && !attributes.contains(TdAttributes::DEBUG));
    assert!(!attributes.is_debug());
    // Every bit of the group makes a machine untrusted, named or not.
    assert!((0..8).all(|bit| TdAttributes::from_bits(1 << bit).is_debug()));
    assert!((8..64).all(|bit| !TdAttributes::from_bits(1 << bit).is_debug()));
}

#[test]
fn a_report_has_the_same_fields() {
    let report: [u8; 1024] = vector("td_report.bin").try_into().unwrap();
    let (measurements, report_data) = Measurements::from_td_report(&report).unwrap();
    assert_eq!(report_data, report[128..192]);
    // Known from the test that the report was made for.
    assert_eq!(
        measurements.rtmr.map(|rtmr| hex(&rtmr)),
        [
            "f4ec1a04670fe7926cd5de4aef9aaa7689ab4ceaa132d7c5242b47f67dfaaea64c372a17ad68fef9a6ac99aabbddabdc",
            "4e5f8826653198ab4bc5156fbe4bc99db054c0b8239a16c4b59249fb427f4acc50eed1b46a85c7d526c4e1e47621b14c",
            &"0".repeat(96),
            &"0".repeat(96),
        ]
    );
    assert_ne!(measurements.mrtd, [0; 48]);
    let mut other = report;
    other[0] = 0;
    assert!(matches!(
        Measurements::from_td_report(&other),
        Err(Error::Quote { offset: 0, .. })
    ));
}
