//! Key derivation with the cost of a new vault, and a quarter of it.
#![allow(missing_docs)] // Of what criterion's macros make.

use chunk_cipher::kdf::{DEFAULT_SCRYPT_MEMORY, ScryptParams, scrypt};
use criterion::{Criterion, criterion_group, criterion_main};

fn derive(c: &mut Criterion) {
    let mut group = c.benchmark_group("scrypt");
    for log_n in [14, 16] {
        let params = ScryptParams { log_n, r: 8, p: 1 };
        let mut key = [0; 32];
        group.bench_function(format!("N = 2^{log_n}"), |b| {
            b.iter(|| {
                scrypt(b"benchmark", &[5; 32], params, DEFAULT_SCRYPT_MEMORY, &mut key).expect("valid");
            });
        });
    }
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(10);
    targets = derive
}
criterion_main!(all);
