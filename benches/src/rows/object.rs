//! Models in object storage.

use std::path::Path;
use std::sync::Mutex;
use std::thread;

use futures_util::StreamExt as _;
use modelseal::{Model, ObjectOptions, OpenOptions};
use object_store::http::{HttpBuilder, HttpStore};
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore};
use tokio::runtime::Runtime;

use super::{Context, Measured, TMPFS};
use crate::error::Result;
use crate::fixture::{FILE, PACKAGE, Sample, Server, key, package_options, temp_dir};
use crate::measure::{Unit, compare, seconds};

const BUCKET: &str = "models";
/// Bytes of the file: the server sends some 60 MB a second, whoever asks.
const LEN: usize = 64 << 20;

/// A package's file into memory, beside its stored bytes fetched by the client alone: as many requests at once, each for as
/// many bytes.
pub(super) fn read(context: &Context) -> Result<Measured> {
    let len = LEN.min(context.options.size);
    context.expect_tmpfs(5 * len)?;
    let sample = Sample::make(Path::new(TMPFS), len)?;
    let root = temp_dir(Path::new(TMPFS))?;
    let package = root.path().join(BUCKET).join(PACKAGE);
    std::fs::create_dir(root.path().join(BUCKET))?;
    modelseal::seal(&sample.plain_dir(), &package, &key(), &package_options()?, &())?;
    let server = Server::start(root.path())?;

    let location = format!("{}/{BUCKET}/{PACKAGE}", server.url());
    let model = Model::open(Path::new(&location), key(), &OpenOptions::default())?;
    let file = model.file(FILE)?;
    let mut plain = vec![1; sample.len()];

    let stored_len = package.join("content").join(FILE).metadata()?.len();
    let mut stored = vec![1; usize::try_from(stored_len)?];
    let raw = Raw::new(&server, format!("{BUCKET}/{PACKAGE}/content/{FILE}"))?;
    let pair = compare(
        context.rounds(),
        || seconds(|| Ok(file.read_into(0, &mut plain)?)),
        || seconds(|| raw.fetch(&mut stored)),
    )?;
    if stored != std::fs::read(package.join("content").join(FILE))? || plain != std::fs::read(sample.plain())?
    {
        return Err("what was read is not what lies there".into());
    }
    Ok(Measured::times(pair, Unit::Bytes(sample.len())).note("64 MiB; the server is what limits both"))
}

/// The client alone.
struct Raw {
    store: HttpStore,
    path: object_store::path::Path,
    runtime: Runtime,
}

impl Raw {
    fn new(server: &Server, path: String) -> Result<Self> {
        let store = HttpBuilder::new()
            .with_url(server.url())
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
