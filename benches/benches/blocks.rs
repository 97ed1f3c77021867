//! One 4 KiB block at a time, in cache: every algorithm on every backend, beside AWS-LC called directly.
#![allow(missing_docs)] // Of what criterion's macros make.

use std::hint::black_box;

use benches::direct::Gcm;
use chunk_cipher::aead::{Aead, Algorithm, aws_lc, rust_crypto};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BLOCK: usize = 4096;
const AAD: [u8; 24] = [1; 24];
const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::Aes256Gcm,
    Algorithm::Aes256GcmNonce16,
    Algorithm::Aes256Siv,
    Algorithm::XChaCha20Poly1305,
];

/// Every algorithm on every backend that has it.
fn aeads() -> Vec<(String, Box<dyn Aead>)> {
    let mut all = Vec::new();
    for algorithm in ALGORITHMS {
        let key = vec![7; algorithm.key_len()];
        let name = format!("{algorithm}, nonce {}", algorithm.nonce_len());
        if let Some(aead) = aws_lc::new(algorithm, &key).expect("the key fits") {
            all.push((format!("{name}, AWS-LC"), aead));
        }
        all.push((
            format!("{name}, RustCrypto"),
            rust_crypto::new(algorithm, &key).expect("the key fits"),
        ));
    }
    all
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open 4 KiB");
    group.throughput(Throughput::Bytes(BLOCK as u64));
    let (plain, mut sealed, mut out) = (vec![5; BLOCK], vec![0; BLOCK], vec![0; BLOCK]);
    for (name, aead) in aeads() {
        let nonce = vec![3; aead.algorithm().nonce_len()];
        let tag = aead
            .seal(&nonce, &AAD, &plain, &mut sealed)
            .expect("the lengths fit");
        group.bench_function(name, |b| {
            b.iter(|| {
                aead.open(&nonce, &AAD, black_box(&sealed), &tag, &mut out)
                    .expect("verifies");
            });
        });
    }
    let gcm = Gcm::new(&[7; 32]).expect("memory");
    let mut tag = [0; 16];
    assert!(gcm.seal(&[3; 16], &AAD, &plain, &mut sealed, &mut tag));
    group.bench_function("AES-256-GCM, nonce 16, called directly", |b| {
        b.iter(|| assert!(gcm.open(&[3; 16], &AAD, black_box(&sealed), &tag, &mut out)));
    });
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal 4 KiB");
    group.throughput(Throughput::Bytes(BLOCK as u64));
    let (plain, mut sealed) = (vec![5; BLOCK], vec![0; BLOCK]);
    for (name, aead) in aeads() {
        let nonce = vec![3; aead.algorithm().nonce_len()];
        group.bench_function(name, |b| {
            b.iter(|| {
                aead.seal(&nonce, &AAD, black_box(&plain), &mut sealed)
                    .expect("the lengths fit")
            });
        });
    }
    let gcm = Gcm::new(&[7; 32]).expect("memory");
    let mut tag = [0; 16];
    group.bench_function("AES-256-GCM, nonce 16, called directly", |b| {
        b.iter(|| assert!(gcm.seal(&[3; 16], &AAD, black_box(&plain), &mut sealed, &mut tag)));
    });
}

criterion_group!(blocks, open, seal);
criterion_main!(blocks);
