//! Arbitrary bytes as a license, as what an interrupted packing leaves, and as a license configuration: what is read is
//! canonical by another implementation and within its bounds, and opening it costs no more memory than allowed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sam_format::{Checks, Error, License, LicenseConfig, Partial, Terms, format_time, parse_time};

fuzz_target!(|data: &[u8]| {
    if let Ok(license) = License::parse(data) {
        assert_eq!(license.as_str().as_bytes(), data);
        assert!(is_canonical(data));
        license.terms().check().unwrap();
        let checks = Checks {
            now: Some(1_800_000_000),
            machine: Some("i-bp67acfmxazb4p".to_owned()),
            scrypt_memory: 1 << 20,
            ..Checks::default()
        };
        let refused = license.unlock(b"0Bn4Q1wwY9fN3P", &checks).unwrap_err();
        assert!(
            !matches!(refused, Error::WrongKey | Error::WrappedKey),
            "{refused}"
        );
    }
    if let Ok(partial) = Partial::parse(data) {
        assert_eq!(partial.as_str().as_bytes(), data);
        assert!(is_canonical(data) && License::parse(data).is_err());
    }
    if let Ok(config) = LicenseConfig::parse(data)
        && let Ok(terms) = config.terms(Terms::new("LD_Demo_0001"))
    {
        terms.check().unwrap();
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(seconds) = parse_time(text)
    {
        assert_eq!(parse_time(&format_time(seconds)), Ok(seconds));
    }
});

fn is_canonical(data: &[u8]) -> bool {
    let value: serde_json::Value = serde_json::from_slice(data).unwrap();
    serde_json_canonicalizer::to_vec(&value).unwrap() == data
}
