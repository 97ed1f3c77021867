//! Connections: TCP, through a proxy where there is one, and TLS over them.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::base_url::{Authority, is_loopback};
use super::exchange::Connection;
use super::proxy::Proxy;

/// The shortest time that a socket is given: none at all would be for ever.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// A connection that gives up at a time that is set.
pub(super) trait Stream: Read + Write + Send {
    /// When reads and writes fail with [`io::ErrorKind::TimedOut`].
    fn give_up_at(&mut self, at: Instant);

    /// Whether neither bytes nor an end have come that nobody has read.
    fn is_quiet(&self) -> bool;
}

/// The way to a broker.
pub(super) struct Route {
    pub(super) target: Authority,
    pub(super) https: bool,
    pub(super) proxy: Option<Proxy>,
    /// There is one where TLS may be needed.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Whether the target must turn out to be this machine, whatever a name server says.
    pub(super) loopback_only: bool,
}

impl Route {
    /// Whether requests are made to a proxy, which makes them to the broker: for plain http alone.
    pub(super) fn is_forwarded(&self) -> bool {
        self.proxy.is_some() && !self.https
    }

    /// A connection that requests can be made on.
    pub(super) fn connect(&self, give_up_at: Instant) -> io::Result<Box<dyn Stream>> {
        let mut stream = match &self.proxy {
            None => tcp(&self.target, self.loopback_only, give_up_at)?,
            Some(proxy) => {
                let mut stream = tcp(&proxy.authority, false, give_up_at)?;
                if proxy.https {
                    stream = self
                        .tls(stream, &proxy.authority, give_up_at)
                        .map_err(|error| ProxyTrouble::of_tls(error, proxy))?;
                }
                if self.https {
                    self.tunnel(stream, proxy, give_up_at)?
                } else {
                    stream
                }
            }
        };
        if self.https {
            stream = self.tls(stream, &self.target, give_up_at)?;
        }
        Ok(stream)
    }

    fn tls(
        &self,
        stream: Box<dyn Stream>,
        to: &Authority,
        give_up_at: Instant,
    ) -> io::Result<Box<dyn Stream>> {
        let config = self.tls.clone().ok_or(io::ErrorKind::Unsupported)?;
        let name = ServerName::try_from(to.host.clone()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut tls = Tls(StreamOwned::new(connection, stream));
        tls.give_up_at(give_up_at);
        while tls.0.conn.is_handshaking() {
            tls.0.conn.complete_io(&mut tls.0.sock)?;
        }
        Ok(Box::new(tls))
    }

    fn tunnel(
        &self,
        stream: Box<dyn Stream>,
        proxy: &Proxy,
        give_up_at: Instant,
    ) -> io::Result<Box<dyn Stream>> {
        let mut connection = Connection::new(stream);
        let to = format!("{}:{}", bracketed(&self.target.host), self.target.port);
        let mut headers = vec![("host", to.as_str())];
        headers.extend(
            proxy
                .authorization
                .as_ref()
                .map(|value| ("proxy-authorization", value.as_str())),
        );
        connection.give_up_at(give_up_at);
        connection.write_request("CONNECT", &to, &headers, None)?;
        let head = connection.read_head()?;
        if !(200..300).contains(&head.status) {
            return Err(io::Error::other(ProxyTrouble::Refused {
                status: head.status,
                // What else it refuses it refuses for good.
                passing: head.status >= 500 || matches!(head.status, 408 | 429),
            }));
        }
        connection.into_stream()
    }
}

/// What a proxy, and not the broker, is to blame for.
#[derive(Debug)]
pub(super) enum ProxyTrouble {
    /// It does not connect.
    Refused {
        status: u16,
        /// Whether it may in a moment.
        passing: bool,
    },
    /// There is no TLS to it.
    Tls { proxy: String, error: rustls::Error },
}

impl ProxyTrouble {
    /// That which an error is, if it is.
    pub(super) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    fn of_tls(error: io::Error, proxy: &Proxy) -> io::Error {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(inner) => io::Error::other(Self::Tls {
                proxy: proxy.authority.text.clone(),
                error: inner.clone(),
            }),
            None => error,
        }
    }
}

impl fmt::Display for ProxyTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, .. } => write!(f, "the proxy does not connect (status {status})"),
            Self::Tls { error, .. } => write!(f, "no TLS to the proxy: {error}"),
        }
    }
}

impl std::error::Error for ProxyTrouble {}

/// The host as a URL has it.
fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn tcp(to: &Authority, loopback_only: bool, give_up_at: Instant) -> io::Result<Box<dyn Stream>> {
    let mut addresses = resolve(&to.host, to.port, give_up_at)?;
    if loopback_only {
        addresses.retain(|address| is_loopback(address.ip()));
    }
    let mut last = io::Error::new(
        io::ErrorKind::NotFound,
        "the host has no address, or none that may be used",
    );
    for (at, address) in addresses.iter().enumerate() {
        // One that does not answer leaves time for the others.
        let share = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let wait = left(give_up_at)? / share;
        match TcpStream::connect_timeout(address, wait.max(LEAST_WAIT)) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(Box::new(Tcp { socket, give_up_at }));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn resolve(host: &str, port: u16, give_up_at: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // The system's resolver cannot be told to give up, but it can be left alone.
    let (sender, receiver) = mpsc::sync_channel(1);
    let host = host.to_owned();
    std::thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            let _ = sender.send(found);
        })?;
    receiver
        .recv_timeout(left(give_up_at)?)
        .map_err(|_| io::ErrorKind::TimedOut)?
}

/// What is left until then, which is some time.
fn left(give_up_at: Instant) -> io::Result<Duration> {
    let left = give_up_at.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

struct Tcp {
    socket: TcpStream,
    give_up_at: Instant,
}

impl Read for Tcp {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket
            .set_read_timeout(Some(left(self.give_up_at)?.max(LEAST_WAIT)))?;
        self.socket.read(into).map_err(as_timeout)
    }
}

impl Write for Tcp {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.socket
            .set_write_timeout(Some(left(self.give_up_at)?.max(LEAST_WAIT)))?;
        self.socket.write(from).map_err(as_timeout)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Tcp {
    fn give_up_at(&mut self, at: Instant) {
        self.give_up_at = at;
    }

    fn is_quiet(&self) -> bool {
        let peek = || {
            self.socket.set_nonblocking(true)?;
            let peeked = self.socket.peek(&mut [0]);
            self.socket.set_nonblocking(false)?;
            peeked
        };
        peek().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Sockets call it so.
fn as_timeout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        io::ErrorKind::TimedOut.into()
    } else {
        error
    }
}

struct Tls(StreamOwned<ClientConnection, Box<dyn Stream>>);

impl Read for Tls {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Tls {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for Tls {
    fn give_up_at(&mut self, at: Instant) {
        self.0.sock.give_up_at(at);
    }

    fn is_quiet(&self) -> bool {
        // It wants none while there is plaintext that nobody has read.
        self.0.conn.wants_read() && self.0.sock.is_quiet()
    }
}

impl Stream for Box<dyn Stream> {
    fn give_up_at(&mut self, at: Instant) {
        (**self).give_up_at(at);
    }

    fn is_quiet(&self) -> bool {
        (**self).is_quiet()
    }
}
