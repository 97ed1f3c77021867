//! A real S3 server on a directory, with faults on request; and a plain web server on the same files.
#![allow(dead_code)]

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub(crate) const BUCKET: &str = "models";
pub(crate) const ACCESS_KEY: &str = "AKIDTESTTESTTEST";
pub(crate) const SECRET_KEY: &str = "secret-access-key-of-the-tests";

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 503 with `SlowDown`, as S3 throttles.
    Throttled,
    /// This status, and `AccessDenied`.
    Denied(StatusCode),
    /// The connection breaks after so many bytes of the body.
    Reset(usize),
    /// The body ends after so many bytes, without an error.
    Short(usize),
}

type Meets = Box<dyn Fn(&Method, &str) -> Option<Fault> + Send + Sync>;

/// What is asked of a server, and what goes wrong there.
pub(crate) struct Watch {
    faults: Mutex<Meets>,
    pub(crate) requests: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    pub(crate) sent: AtomicUsize,
    log: Mutex<Vec<String>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            faults: Mutex::new(Box::new(|_, _| None)),
            requests: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            log: Mutex::default(),
        }
    }
}

impl Watch {
    /// From now on `faults` says what goes wrong, by the method and the path.
    pub(crate) fn fail(&self, faults: impl Fn(&Method, &str) -> Option<Fault> + Send + Sync + 'static) {
        *self.faults.lock().unwrap() = Box::new(faults);
    }

    /// All requests so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn meet(&self, request: &Request<Incoming>) -> Option<Fault> {
        let (method, path) = (request.method(), request.uri().path());
        self.requests.fetch_add(1, Ordering::SeqCst);
        let query = request.uri().query().unwrap_or_default();
        self.log.lock().unwrap().push(format!("{method} {path}?{query}"));
        let fault = (self.faults.lock().unwrap())(method, path);
        self.failed
            .fetch_add(usize::from(fault.is_some()), Ordering::SeqCst);
        fault
    }
}

/// A server on loopback, for as long as this lives.
pub(crate) struct Server {
    pub(crate) watch: Arc<Watch>,
    pub(crate) address: SocketAddr,
    root: TempDir,
    /// Ends the server when dropped.
    _runtime: Runtime,
}

impl Server {
    /// An S3 server.
    pub(crate) fn s3() -> Self {
        Self::start(|root, watch| {
            fs::create_dir(root.join(BUCKET)).unwrap();
            let mut builder = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
            let service = builder.build();
            Arc::new(move |request| {
                let (service, watch) = (service.clone(), Arc::clone(&watch));
                Box::pin(async move {
                    let fault = watch.meet(&request);
                    if fault == Some(Fault::Throttled) {
                        let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code></Error>";
                        return status(StatusCode::SERVICE_UNAVAILABLE, body);
                    }
                    if let Some(Fault::Denied(code)) = fault {
                        let body = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>";
                        return status(code, body);
                    }
                    let response = service.call(request.map(s3s::Body::from)).await.unwrap();
                    faulty(response, fault, watch)
                })
            })
        })
    }

    /// A web server that knows ranges and entity tags, and gives no listing.
    pub(crate) fn web() -> Self {
        Self::start(|root, watch| {
            fs::create_dir(root.join(BUCKET)).unwrap();
            let root = root.to_path_buf();
            Arc::new(move |request| {
                let (root, watch) = (root.clone(), Arc::clone(&watch));
                Box::pin(async move {
                    let fault = watch.meet(&request);
                    if fault == Some(Fault::Throttled) {
                        return status(StatusCode::SERVICE_UNAVAILABLE, "");
                    }
                    if let Some(Fault::Denied(code)) = fault {
                        return status(code, "");
                    }
                    faulty(serve(&root, &request), fault, watch)
                })
            })
        })
    }

    fn start(handler: impl FnOnce(&Path, Arc<Watch>) -> Handler) -> Self {
        let root = TempDir::new().unwrap();
        let watch = Arc::new(Watch::default());
        let handler = handler(root.path(), Arc::clone(&watch));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                socket.set_nodelay(true).unwrap();
                let handler = Arc::clone(&handler);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = handler(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self {
            watch,
            address,
            root,
            _runtime: runtime,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The directory that the bucket is.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }

    /// The location `path` in the bucket.
    pub(crate) fn location(&self, path: &str) -> String {
        format!("s3://{BUCKET}/{path}")
    }

    /// The same location, as a web server has it.
    pub(crate) fn web_location(&self, path: &str) -> String {
        format!("{}/{BUCKET}/{path}", self.endpoint())
    }

    /// Lets `command` find the server, and nothing else.
    pub(crate) fn env<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.root.path())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", self.endpoint())
    }
}

type Answer = Response<Faulty>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

fn status(status: StatusCode, body: &str) -> Answer {
    let mut response = Response::new(Faulty::whole(body.as_bytes().to_vec()));
    *response.status_mut() = status;
    response
}

/// A file for a GET or HEAD request.
fn serve(root: &Path, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = |status, body: Vec<u8>| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
    };
    let path = root.join(request.uri().path().trim_start_matches('/'));
    let is_head = request.method() == Method::HEAD;
    if !is_head && request.method() != Method::GET {
        return answer(StatusCode::METHOD_NOT_ALLOWED, Vec::new());
    }
    let Ok(content) = fs::read(&path) else {
        return answer(StatusCode::NOT_FOUND, Vec::new());
    };
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let age = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let etag = format!("\"{:x}-{:x}\"", age.as_nanos(), content.len());
    if let Some(wanted) = request.headers().get("if-match")
        && wanted.to_str().unwrap() != etag
    {
        return answer(StatusCode::PRECONDITION_FAILED, Vec::new());
    }
    let range = request.headers().get(RANGE).map(|range| {
        let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
        let (start, end) = range.split_once('-').unwrap();
        start.parse::<usize>().unwrap()..(end.parse::<usize>().unwrap() + 1).min(content.len())
    });
    let (code, body) = match &range {
        Some(range) => (StatusCode::PARTIAL_CONTENT, content[range.clone()].to_vec()),
        None => (StatusCode::OK, content.clone()),
    };
    let len = body.len();
    let mut response = answer(code, if is_head { Vec::new() } else { body });
    let headers = response.headers_mut();
    headers.insert(ETAG, etag.parse().unwrap());
    headers.insert(LAST_MODIFIED, "Tue, 24 Nov 2026 00:00:00 GMT".parse().unwrap());
    headers.insert(CONTENT_LENGTH, len.into());
    if let Some(range) = range {
        let value = format!("bytes {}-{}/{}", range.start, range.end - 1, content.len());
        headers.insert(CONTENT_RANGE, value.parse().unwrap());
    }
    response
}

/// A body that breaks off.
pub(crate) struct Faulty {
    inner: Pin<Box<dyn Body<Data = Bytes, Error = io::Error> + Send>>,
    left: usize,
    fault: Option<Fault>,
    watch: Option<Arc<Watch>>,
}

impl Faulty {
    fn whole(bytes: Vec<u8>) -> Self {
        Self {
            inner: Box::pin(Full::new(Bytes::from(bytes)).map_err(|never| match never {})),
            left: usize::MAX,
            fault: None,
            watch: None,
        }
    }
}

fn faulty<B>(response: Response<B>, fault: Option<Fault>, watch: Arc<Watch>) -> Answer
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    let (parts, body) = response.into_parts();
    let left = match fault {
        Some(Fault::Reset(after) | Fault::Short(after)) => after,
        _ => usize::MAX,
    };
    let inner = Box::pin(body.map_err(|error| io::Error::other(error.to_string())));
    let body = Faulty {
        inner,
        left,
        fault,
        watch: Some(watch),
    };
    Response::from_parts(parts, body)
}

impl Body for Faulty {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return match self.fault {
                Some(Fault::Reset(_)) => Poll::Ready(Some(Err(io::Error::other("reset")))),
                _ => Poll::Ready(None),
            };
        }
        let frame = match self.inner.as_mut().poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => return other,
        };
        let Ok(data) = frame.into_data() else {
            return Poll::Ready(None);
        };
        let data = data.slice(..data.len().min(self.left));
        self.left -= data.len().min(self.left);
        if let Some(watch) = &self.watch {
            watch.sent.fetch_add(data.len(), Ordering::SeqCst);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Copies the tree at `from` into the bucket, as a tool that uploads files would.
pub(crate) fn upload(server: &Server, from: &Path, to: &str) {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    copy(from, &server.bucket().join(to));
}
