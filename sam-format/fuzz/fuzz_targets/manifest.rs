//! Arbitrary bytes as `manifest.json`, and as the manifest of a vault: what is read is canonical by another
//! implementation, is written again as it was, and makes up a tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sam_format::manifest::{check_path, check_target};
use sam_format::{EntryKind, Manifest, VaultManifest};

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = VaultManifest::open(data, &[], None) {
        assert!(manifest.get(b"").is_some());
    }
    let Ok(manifest) = Manifest::parse(data) else {
        return;
    };
    assert_eq!(manifest.to_json().as_bytes(), data);
    let value: serde_json::Value = serde_json::from_slice(data).unwrap();
    assert_eq!(serde_json_canonicalizer::to_vec(&value).unwrap(), data);
    assert_eq!(manifest.below(b"").len() + 1, manifest.entries().len());
    for pair in manifest.entries().windows(2) {
        assert!(pair[0].path < pair[1].path);
    }
    for entry in manifest.entries() {
        assert_eq!(manifest.get(&entry.path), Some(entry));
        check_path(&entry.path).unwrap();
        if let EntryKind::Symlink { target } = &entry.kind {
            check_target(&entry.path, target).unwrap();
        }
        let mut parent = entry.path.clone();
        while let Some(slash) = parent.iter().rposition(|byte| *byte == b'/') {
            parent.truncate(slash);
            assert!(manifest.get(&parent).unwrap().is_dir());
        }
    }
});
