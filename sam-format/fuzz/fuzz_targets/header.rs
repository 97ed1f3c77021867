//! Arbitrary bytes as the header of a stored file, zeros behind them: what is read is what stands there and within
//! its bounds, and is written as it was but for what is reserved.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sam_format::{ChunkLen, FileId, HEADER_LEN, Header, MAX_FILE_LEN};

fuzz_target!(|data: &[u8]| {
    let mut bytes = [0; HEADER_LEN];
    let len = data.len().min(HEADER_LEN);
    bytes[..len].copy_from_slice(&data[..len]);

    let number = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let plain_len = u64::from(number(16)) | u64::from(number(20)) << 32;
    let id = FileId::from_bytes(*bytes[32..].first_chunk().unwrap());
    let chunk_len = (12..=24).map(|log| 1 << log).find(|len| *len == number(24));
    let valid = bytes.starts_with(b"SAM-FILE\x01\0\0\0\0\0\0\0") && plain_len < 1 << 53 && chunk_len.is_some();

    match Header::parse(&bytes) {
        Ok(header) => {
            assert!(valid && header.len <= MAX_FILE_LEN);
            assert_eq!((header.len, Some(header.chunk_len.get()), header.id), (plain_len, chunk_len, id));
            let written = header.to_bytes();
            assert_eq!(Header::parse(&written).unwrap(), header);
            assert!(written[..28] == bytes[..28] && written[32..64] == bytes[32..64]);
            assert!(written[28..32] == [0; 4] && written[64..].iter().all(|byte| *byte == 0));
        }
        Err(what) => assert!(!valid && !what.is_empty()),
    }
    assert_eq!(ChunkLen::new(number(24)).map(ChunkLen::get), chunk_len);
});
