//! Models in object storage.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use futures_util::StreamExt as _;
use modelseal::{Model, ObjectOptions, OpenOptions, SealedFile};
use object_store::http::{HttpBuilder, HttpStore};
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Context, Measured, TMPFS};
use crate::error::Result;
use crate::fixture::{Distance, FILE, PACKAGE, Sample, Server, Web, key, package_options, temp_dir};
use crate::interrupt;
use crate::measure::{Unit, compare, seconds};

const BUCKET: &str = "models";
/// Bytes of the file in the S3 server, which sends some 60 MB a second, whoever asks.
const S3_LEN: usize = 64 << 20;

/// Bytes of the file that lies far away.
const FAR_LEN: usize = 256 << 20;

/// A package's file into memory, beside its stored bytes fetched by the client alone: as many requests at once, each for as
/// many bytes.
pub(super) fn from_s3(context: &Context) -> Result<Measured> {
    let packed = Packed::make(context, S3_LEN.min(context.options.size))?;
    let server = Server::start(packed.root.path())?;
    let measured = packed.compare(context, &server.url())?;
    Ok(measured.note("64 MiB; the server is what limits both"))
}

/// The same from a web server that has the bytes in memory.
pub(super) fn from_memory(context: &Context) -> Result<Measured> {
    let packed = Packed::make(context, context.options.size)?;
    let server = Web::start(packed.root.path(), Distance::default())?;
    packed.compare(context, &server.url())
}

/// A package in a bucket.
struct Packed {
    sample: Sample,
    root: TempDir,
}

impl Packed {
    fn make(context: &Context, len: usize) -> Result<Self> {
        context.expect_tmpfs(5 * len)?;
        let sample = Sample::make(Path::new(TMPFS), len)?;
        let root = temp_dir(Path::new(TMPFS))?;
        std::fs::create_dir(root.path().join(BUCKET))?;
        let package = root.path().join(BUCKET).join(PACKAGE);
        modelseal::seal(&sample.plain_dir(), &package, &key(), &package_options()?, &())?;
        Ok(Self { sample, root })
    }

    fn stored(&self) -> PathBuf {
        self.root
            .path()
            .join(BUCKET)
            .join(PACKAGE)
            .join("content")
            .join(FILE)
    }

    fn compare(&self, context: &Context, url: &str) -> Result<Measured> {
        let file = open(url, ObjectOptions::default())?;
        let mut plain = vec![1; self.sample.len()];
        let mut stored = vec![1; usize::try_from(self.stored().metadata()?.len())?];
        let raw = Raw::new(url, format!("{BUCKET}/{PACKAGE}/content/{FILE}"))?;
        let pair = compare(
            context.rounds(),
            || seconds(|| Ok(file.read_into(0, &mut plain)?)),
            || seconds(|| raw.fetch(&mut stored)),
        )?;
        if stored != std::fs::read(self.stored())? {
            return Err("what was fetched is not what lies there".into());
        }
        self.sample.expect_bytes(&plain)?;
        Ok(Measured::times(pair, Unit::Bytes(self.sample.len())))
    }
}

/// The package's file at a server.
fn open(url: &str, objects: ObjectOptions) -> Result<SealedFile> {
    let options = OpenOptions {
        objects,
        ..OpenOptions::default()
    };
    let location = format!("{url}/{BUCKET}/{PACKAGE}");
    Ok(Model::open(Path::new(&location), key(), &options)?.file(FILE)?)
}

/// Reads from a server that is as far away as object storage of the same region, with each size of a part and each number of
/// connections. Returns what and GB/s.
#[allow(clippy::cast_precision_loss)] // Far from 2^52.
pub(crate) fn parts(context: &Context) -> Result<Vec<(String, f64)>> {
    // 20 ms to the first byte, and 85 MB/s a connection.
    let distance = Distance {
        delay: Duration::from_millis(20),
        pace: Duration::from_micros(3080),
    };
    let packed = Packed::make(context, FAR_LEN)?;
    let server = Web::start(packed.root.path(), distance)?;
    let mut plain = vec![1; FAR_LEN];
    let mut figures = Vec::new();
    for part_len in [1, 2, 4, 8, 16, 32] {
        for connections in [4, 8, 16, 32, 64] {
            interrupt::check()?;
            let options = ObjectOptions {
                part_len: part_len << 20,
                connections,
                ..ObjectOptions::default()
            };
            let file = open(&server.url(), options)?;
            let mut times = Vec::new();
            for _ in 0..context.rounds().min(3) {
                times.push(seconds(|| Ok(file.read_into(0, &mut plain)?))?);
            }
            times.sort_by(f64::total_cmp);
            figures.push((
                format!("20 ms away, parts of {part_len} MiB, {connections} connections"),
                FAR_LEN as f64 / 1e9 / times[times.len() / 2],
            ));
        }
    }
    packed.sample.expect_bytes(&plain)?;
    Ok(figures)
}

/// The client alone.
struct Raw {
    store: HttpStore,
    path: object_store::path::Path,
    runtime: Runtime,
}

impl Raw {
    fn new(url: &str, path: String) -> Result<Self> {
        let store = HttpBuilder::new()
            .with_url(url)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .build()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        Ok(Self {
            store,
            path: path.into(),
            runtime,
        })
    }

    /// Fetches all of it, in the parts and with the connections that modelseal takes if not told otherwise.
    fn fetch(&self, out: &mut [u8]) -> Result<()> {
        let options = ObjectOptions::default();
        let part = usize::try_from(options.part_len)?;
        let parts = Mutex::new(out.chunks_mut(part).enumerate());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..options.connections)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        loop {
                            let next = parts.lock().map_err(|_| "a fetch panicked")?.next();
                            let Some((index, out)) = next else { return Ok(()) };
                            self.runtime.block_on(self.part((index * part) as u64, out))?;
                        }
                    })
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a fetch panicked".into())))
        })
    }

    async fn part(&self, start: u64, out: &mut [u8]) -> Result<()> {
        let range = GetRange::Bounded(start..start + out.len() as u64);
        let options = GetOptions {
            range: Some(range),
            ..GetOptions::default()
        };
        let mut body = self.store.get_opts(&self.path, options).await?.into_stream();
        let mut filled = 0;
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            let place = out
                .get_mut(filled..filled + bytes.len())
                .ok_or("more than was asked for")?;
            place.copy_from_slice(&bytes);
            filled += bytes.len();
        }
        if filled < out.len() {
            return Err("less than was asked for".into());
        }
        Ok(())
    }
}
