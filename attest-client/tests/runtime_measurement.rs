//! What a measurement says, as a broker's policy sees it.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use attest_client::{Error, RuntimeMeasurement};

#[test]
fn the_content_is_canonical_and_made_of_digests() {
    let event = RuntimeMeasurement::new(["vllm", "serve", "/model"])
        .env("MODEL", Some("qwen"))
        .env("API_KEY", Some("a secret value"))
        .env("EMPTY", Some(""))
        .env("UNSET", None::<&str>)
        .license(b"license\n")
        .event()
        .unwrap();
    assert_eq!(
        (event.domain(), event.operation()),
        ("github.com/modelseal/modelseal", "run")
    );
    // Digests by `printf '%s\0' vllm serve /model | sha384sum` and the like.
    assert_eq!(
        event.content(),
        include_str!("vectors/runtime_measurement.json").trim_end()
    );
    assert!(!event.to_string().contains("secret"));
    assert_eq!(event.content().find(' '), None);
}

#[test]
fn arguments_are_told_apart() {
    let content = |args: &[&str]| {
        RuntimeMeasurement::new(args)
            .event()
            .unwrap()
            .content()
            .to_owned()
    };
    assert_ne!(content(&["a b"]), content(&["a", "b"]));
    assert_ne!(content(&["a", ""]), content(&["a"]));
    assert_ne!(content(&[]), content(&[""]));
    assert!(!content(&["a"]).contains("license"));
    // Arguments and values need not be text.
    let bytes = OsStr::from_bytes(b"\xff\xfe");
    let event = RuntimeMeasurement::new([bytes])
        .env("A", Some(bytes))
        .event()
        .unwrap();
    assert!(event.content().is_ascii());
}

#[test]
fn names_of_variables_are_plain() {
    for name in ["", "A B", "A\n", "A=B", "Ä", "A\"", "a-b"] {
        let error = RuntimeMeasurement::new(["a"])
            .env(name, Some("b"))
            .event()
            .unwrap_err();
        assert!(matches!(error, Error::Measurement { .. }), "{name:?}");
    }
    assert!(
        RuntimeMeasurement::new(["a"])
            .env("a_B9", Some("b"))
            .event()
            .is_ok()
    );
}
