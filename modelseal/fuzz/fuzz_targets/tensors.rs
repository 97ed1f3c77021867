//! Arbitrary bytes as a file of tensors: what is read of its header is what the `safetensors` crate reads, which refuses
//! nothing that is read here but for what is wrong in members that are ignored here.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelseal::safetensors::Header;
use safetensors::SafeTensors;

fuzz_target!(|data: &[u8]| {
    let Some((prefix, rest)) = data.split_first_chunk() else {
        return;
    };
    let Ok(len) = usize::try_from(u64::from_le_bytes(*prefix)) else {
        return;
    };
    let Some((json, content)) = rest.split_at_checked(len) else {
        return;
    };
    let Ok(header) = Header::parse(json, content.len() as u64) else {
        return;
    };
    let (_, other) = match SafeTensors::read_metadata(data) {
        Ok(read) => read,
        Err(_) if serde_json::from_slice::<serde_json::Value>(json).is_err() => return,
        Err(error) => panic!("{error}"),
    };
    let others = other.tensors();
    assert_eq!(header.tensors().len(), others.len());
    let mut end = 0;
    for tensor in header.tensors() {
        let other = others[&*tensor.name];
        let range = other.data_offsets.0 as u64..other.data_offsets.1 as u64;
        assert_eq!((tensor.dtype, &*tensor.shape), (other.dtype, &other.shape[..]));
        assert_eq!(tensor.range, range);
        assert_eq!(tensor.range.start, end);
        end = tensor.range.end;
    }
    assert_eq!(end, content.len() as u64);
    let metadata = other.metadata().iter().flatten();
    let metadata = metadata.map(|(name, value)| (name.clone(), value.clone()));
    assert_eq!(header.metadata(), &metadata.collect());
});
