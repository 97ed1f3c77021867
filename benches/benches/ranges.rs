//! Ranges of a big file in a vault on tmpfs.
#![allow(missing_docs)] // Of what criterion's macros make.

use std::path::Path;

use benches::fixture::{FILE, Sample};
use chunk_cipher::store::ReadMode;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use modelseal::Buffer;

const LEN: usize = 256 << 20;
const TMPFS: &str = "/dev/shm";

fn ranges(c: &mut Criterion) {
    if !Path::new(TMPFS).is_dir() {
        eprintln!("skipped: there is no {TMPFS}");
        return;
    }
    let sample = Sample::make(Path::new(TMPFS), LEN).expect("room on tmpfs");
    for (mode, name) in [(ReadMode::Auto, "mapped"), (ReadMode::Copy, "copied")] {
        let file = sample
            .open(mode)
            .expect("the vault opens")
            .file(FILE)
            .expect("the file opens");
        let mut group = c.benchmark_group(format!("read at random, {name}"));
        for (len, size) in [(4 << 10, "4 KiB"), (1 << 20, "1 MiB"), (64 << 20, "64 MiB")] {
            let mut out = Buffer::new(len).expect("memory");
            out.fill(1);
            let slots = (LEN / len) as u64;
            let mut random = 1_u64;
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(size, |b| {
                b.iter(|| {
                    // The generator of MMIX; its high bits are good enough.
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    file.read_into((random >> 33) % slots * len as u64, &mut out)
                        .expect("reads");
                });
            });
        }
    }
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(20);
    targets = ranges
}
criterion_main!(all);
