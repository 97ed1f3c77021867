//! An HTTP server that answers with whatever bytes a test wants, or with none.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What a request is answered with.
#[derive(Clone)]
pub(crate) enum Answer {
    /// These bytes, and on to the next request.
    Bytes(Vec<u8>),
    /// These bytes, and the end of the connection.
    Last(Vec<u8>),
    /// These bytes, and then nothing for as long as the client waits.
    Hang(Vec<u8>),
    /// The first bytes, and then the second ones until the client hangs up.
    Endless(Vec<u8>, Vec<u8>),
}

/// An answer of the given status line, headers and body, with its length.
pub(crate) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    Answer::Bytes(bytes)
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;
/// Makes a connection of what was accepted, by a handshake it may be.
pub(crate) type Wrap = dyn Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync;

pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Listens until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn new(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::wrapping(|stream| Ok(Box::new(stream)), handler)
    }

    pub(crate) fn wrapping(
        wrap: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, wrap): (Arc<Handler>, Arc<Wrap>) = (Arc::new(handler), Arc::new(wrap));
        let accepting = std::thread::spawn({
            let (stopping, seen) = (Arc::clone(&stopping), Arc::clone(&seen));
            move || {
                // Connections end with their clients, which do not outlive the test either.
                for stream in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    let (handler, wrap, seen) = (Arc::clone(&handler), Arc::clone(&wrap), Arc::clone(&seen));
                    std::thread::spawn(move || {
                        let _ = stream.and_then(|stream| serve(wrap(stream)?, &*handler, &seen));
                    });
                }
            }
        });
        Self {
            address,
            stopping,
            accepting: Some(accepting),
            seen,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How many of them were for paths that end like this.
    pub(crate) fn count(&self, end: &str) -> usize {
        self.seen()
            .iter()
            .filter(|request| request.target.ends_with(end))
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.accepting.take().unwrap().join().unwrap();
    }
}

fn serve(stream: Box<dyn Stream>, handler: &Handler, seen: &Mutex<Vec<Request>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream)? {
        seen.lock().unwrap().push(request.clone());
        match handler(&request) {
            Answer::Bytes(bytes) => stream.get_mut().write_all(&bytes)?,
            Answer::Last(bytes) => {
                stream.get_mut().write_all(&bytes)?;
                break;
            }
            Answer::Hang(bytes) => {
                stream.get_mut().write_all(&bytes)?;
                stream.get_mut().flush()?;
                io::copy(&mut stream, &mut io::sink())?;
                break;
            }
            Answer::Endless(bytes, more) => {
                stream.get_mut().write_all(&bytes)?;
                loop {
                    stream.get_mut().write_all(&more)?;
                }
            }
        }
        stream.get_mut().flush()?;
    }
    Ok(())
}

fn read_request(stream: &mut BufReader<Box<dyn Stream>>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut parts = line.split_whitespace().map(str::to_owned);
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    request.body = vec![0; length];
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}
