//! Any bytes as a quote: refused, or read the same without what follows its end, and not with a byte less.
#![no_main]

use attest_client::Quote;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(quote) = Quote::parse(bytes) else { return };
    assert_eq!(Quote::parse(&bytes[..quote.len]).unwrap(), quote);
    assert!(Quote::parse(&bytes[..quote.len - 1]).is_err());
    assert!(quote.to_string().lines().count() >= 17);
});
