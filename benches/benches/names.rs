//! Names of a vault: one at a time, and a directory of many.
#![allow(missing_docs)] // Of what criterion's macros make.

use std::hint::black_box;

use benches::fixture::{MASTER_KEY, Tree};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gocryptfs_core::names::DirIv;
use gocryptfs_core::{ContentCipher, Flags, MasterKey, NameScheme};

fn one(c: &mut Criterion) {
    let flags = Flags::new(ContentCipher::Aes256Gcm, NameScheme::Encrypted);
    let cipher = MasterKey::from_bytes(&MASTER_KEY)
        .name_cipher(&flags, 0)
        .expect("flags that go together");
    let iv = DirIv([9; DirIv::LEN]);
    let mut group = c.benchmark_group("name");
    for len in [8, 32, 128, 200] {
        let plain = vec![b'n'; len];
        let stored = cipher.encrypt_name(&plain, &iv).expect("a name");
        group.bench_function(format!("encrypt {len} bytes"), |b| {
            b.iter(|| cipher.encrypt_name(black_box(&plain), &iv).expect("a name"));
        });
        group.bench_function(format!("decrypt {len} bytes"), |b| {
            b.iter(|| {
                cipher
                    .decrypt_name(black_box(stored.as_bytes()), &iv)
                    .expect("a name")
            });
        });
    }
}

fn many(c: &mut Criterion) {
    let mut group = c.benchmark_group("walk one directory");
    for count in [1000, 10_000] {
        let tree = Tree::new(&std::env::temp_dir(), count, usize::MAX).expect("room for files");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} names"), |b| {
            b.iter(|| tree.walk().expect("all are found"));
        });
    }
}

criterion_group! {
    name = names;
    config = Criterion::default().sample_size(20);
    targets = one, many
}
criterion_main!(names);
