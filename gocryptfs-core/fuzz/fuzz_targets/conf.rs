//! Arbitrary bytes as `gocryptfs.conf`: what is read is written and read again as the same, and unlocking it takes
//! no more memory than allowed.
#![no_main]

use gocryptfs_core::{Conf, Error, MasterKey};
use libfuzzer_sys::fuzz_target;

/// Enough for the least that scrypt may cost.
const MEMORY: u64 = 2 << 20;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = MasterKey::from_hex(text)
    {
        assert_eq!(
            *MasterKey::from_hex(&key.to_export()).unwrap().to_export(),
            *key.to_export()
        );
    }
    let Ok(conf) = Conf::parse(data) else { return };
    let json = conf.to_json();
    // What is escaped can become six times as long.
    if json.len() <= Conf::MAX_LEN {
        let again = Conf::parse(json.as_bytes()).unwrap();
        assert_eq!(again, conf);
        assert_eq!(again.to_json(), json);
    }
    if conf.scrypt().params().memory() > MEMORY {
        let refused = conf.unlock(b"password", MEMORY);
        assert!(
            refused.is_err() && !matches!(refused, Err(Error::WrongPassword)),
            "{refused:?}"
        );
    } else {
        let _ = conf.unlock(b"password", MEMORY);
        let _ = conf.unlock_fido2(&[7; 32], MEMORY);
    }
});
