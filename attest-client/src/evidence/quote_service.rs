//! Quotes from the host's quote generation service, asked directly: for kernels without configfs-tsm.
//!
//! Both messages are led by their length, 32 bits big endian. Their own fields are little endian:
//!
//! | message | fields |
//! | --- | --- |
//! | header | major u16 = 1, minor u16, type u32, length u32 with the header, error u32 |
//! | request | header of type 0, report length u32, identifiers' length u32 = 0, TDREPORT |
//! | answer | header of type 1, identifier's length u32, quote's length u32, identifier, quote |

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

use super::Trouble;
use super::tdx_guest::VsockAddress;
use crate::clock::Clock;
use crate::quote::{Quote, TD_REPORT_LEN};
use crate::reader::Reader;

/// Length of a message's header.
const HEADER_LEN: usize = 16;
/// The host, to vsock.
const HOST: u32 = 2;
/// The longest answer: a quote and what leads it.
const ANSWER_MAX: usize = Quote::MAX_LEN + 256;
/// The longest configuration.
const CONF_MAX: u64 = 64 << 10;

/// Where the host's quote generation service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuoteService {
    /// A port of the host, by vsock.
    Vsock {
        /// Context identifier: 2 is the host.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl QuoteService {
    /// The service that a configuration names, as Intel's library reads it: the first line `port = NUMBER`.
    pub(super) fn configured(conf: &Path) -> Result<Option<Self>, Trouble> {
        let mut text = String::new();
        match File::open(conf).and_then(|file| file.take(CONF_MAX).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Trouble {
                    what: format!("{} cannot be read", conf.display()),
                    source: Some(error),
                    passing: false,
                });
            }
        }
        let port = text.lines().find_map(|line| {
            let value = line
                .trim_start()
                .strip_prefix("port")?
                .trim_start()
                .strip_prefix('=')?;
            let value = value.trim_start();
            let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
            value.get(..digits)?.parse().ok()
        });
        Ok(port.map(|port| Self::Vsock { cid: HOST, port }))
    }

    /// A quote for the TDREPORT, unchecked.
    pub(super) fn quote(
        &self,
        report: &[u8; TD_REPORT_LEN],
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<Vec<u8>, Trouble> {
        let refused = |what: &str| Trouble::lasting(format!("the quote service at {self} {what}"));
        let exchange = || {
            let socket = self.connect()?;
            let mut socket = Stream {
                socket,
                clock,
                deadline,
            };
            socket.write_all(&request(report))?;
            let mut len = [0; 4];
            socket.read_exact(&mut len)?;
            let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
            if !(HEADER_LEN..=ANSWER_MAX).contains(&len) {
                return Ok(Err(refused("announces an answer of no sensible length")));
            }
            let mut answer = vec![0; len];
            socket.read_exact(&mut answer)?;
            Ok(Ok(answer))
        };
        let answer = exchange().map_err(|source| Trouble {
            what: format!("the quote service at {self} gave no quote"),
            source: Some(source),
            passing: false,
        })??;
        parse_answer(&answer).map_err(|what| refused(&what))
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let open = |family| socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        match self {
            Self::Vsock { cid, port } => {
                let socket = open(AddressFamily::VSOCK)?;
                // The kernel gives up on a host that does not answer after two seconds.
                connect(&socket, &VsockAddress::new(*cid, *port))?;
                Ok(socket)
            }
            Self::Unix(path) => {
                let socket = open(AddressFamily::UNIX)?;
                connect(&socket, &SocketAddrUnix::new(path)?)?;
                Ok(socket)
            }
        }
    }
}

impl fmt::Display for QuoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock {cid}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn request(report: &[u8; TD_REPORT_LEN]) -> Vec<u8> {
    const LEN: u32 = 24 + 1024;
    let mut message = Vec::with_capacity(4 + 24 + TD_REPORT_LEN);
    message.extend(LEN.to_be_bytes());
    message.extend(1_u16.to_le_bytes());
    message.extend(1_u16.to_le_bytes());
    message.extend(0_u32.to_le_bytes());
    message.extend(LEN.to_le_bytes());
    message.extend(0_u32.to_le_bytes());
    message.extend(1024_u32.to_le_bytes());
    message.extend(0_u32.to_le_bytes());
    message.extend(report);
    message
}

/// The quote in an answer, or what is wrong with the answer.
fn parse_answer(answer: &[u8]) -> Result<Vec<u8>, String> {
    let mut reader = Reader::new(answer);
    let mut parse = || {
        let major = reader.u16()?;
        let _minor = reader.u16()?;
        let (kind, len, error) = (reader.u32()?, reader.u32()?, reader.u32()?);
        if major != 1 || kind != 1 || usize::try_from(len) != Ok(answer.len()) {
            return Some(Err("answered something else than a quote".to_owned()));
        }
        if error != 0 {
            return Some(Err(format!(
                "refused to make a quote, error {error:#x}; its log on the host says why"
            )));
        }
        let (id_len, quote_len) = (reader.u32()?, reader.u32()?);
        reader.take(usize::try_from(id_len).ok()?)?;
        let quote = reader.take(usize::try_from(quote_len).ok()?)?;
        Some(Ok(quote.to_vec()))
    };
    parse().unwrap_or_else(|| Err("answered with fewer bytes than it announced".to_owned()))
}

/// A socket that is given up on at the deadline.
struct Stream<'a> {
    socket: OwnedFd,
    clock: &'a dyn Clock,
    deadline: Instant,
}

impl Stream<'_> {
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.wait_no_longer(Timeout::Send)?;
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(timed_out(error)),
            }
        }
        Ok(())
    }

    fn read_exact(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.wait_no_longer(Timeout::Recv)?;
            match recv(&self.socket, &mut *bytes, RecvFlags::empty()) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((read, _)) => bytes = bytes.get_mut(read..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(timed_out(error)),
            }
        }
        Ok(())
    }

    fn wait_no_longer(&self, which: Timeout) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(self.clock.now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(set_socket_timeout(&self.socket, which, Some(left))?)
    }
}

fn timed_out(error: Errno) -> io::Error {
    match error {
        Errno::AGAIN => io::ErrorKind::TimedOut.into(),
        error => error.into(),
    }
}
