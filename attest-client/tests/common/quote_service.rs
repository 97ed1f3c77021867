//! A stand-in for the host's quote generation service, on a socket in the file system, and for the guest's device.
#![allow(dead_code, clippy::cast_possible_truncation, clippy::unwrap_used)]

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use attest_client::evidence::{QuoteService, ReportSource};

/// Gives TDREPORTs with a machine's registers.
pub(crate) struct Reports {
    pub(crate) registers: [[u8; 48]; 4],
    /// Report data in place of what is asked for.
    pub(crate) stale: bool,
}

impl ReportSource for Reports {
    fn report(&self, report_data: &[u8; 64]) -> io::Result<Box<[u8; 1024]>> {
        let mut report = Box::new([0; 1024]);
        report[0] = 0x81;
        report[128..192].copy_from_slice(if self.stale { &[0xee; 64] } else { report_data });
        // Attributes, MRTD, MROWNER.
        report[512 + 3] = 0x10;
        report[528..576].fill(0x11);
        report[624..672].fill(0x22);
        report[720..912].copy_from_slice(self.registers.as_flattened());
        Ok(report)
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reports")
    }
}

/// Serves one connection with one answer.
pub(crate) struct Service {
    path: PathBuf,
    _directory: tempfile::TempDir,
    thread: Option<JoinHandle<Vec<u8>>>,
}

impl Service {
    /// `answer` makes the bytes to send from the TDREPORT; the connection is closed after them.
    pub(crate) fn start(answer: impl FnOnce(&[u8]) -> Vec<u8> + Send + 'static) -> Self {
        Self::serve(move |request, stream| stream.write_all(&answer(&request[28..])))
    }

    /// Takes the request, and keeps the connection open without an answer until the client gives up.
    pub(crate) fn silent() -> Self {
        Self::serve(|_, stream| stream.read_exact(&mut [0]))
    }

    fn serve(serve: impl FnOnce(&[u8], &mut UnixStream) -> io::Result<()> + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qgs.socket");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4 + 24 + 1024];
            stream.read_exact(&mut request).unwrap();
            // A client that gives up early closes the connection.
            let _ = serve(&request, &mut stream);
            request
        });
        Self {
            path,
            _directory: directory,
            thread: Some(thread),
        }
    }

    pub(crate) fn address(&self) -> QuoteService {
        QuoteService::Unix(self.path.clone())
    }

    /// The request, as it was received.
    pub(crate) fn request(mut self) -> Vec<u8> {
        self.thread.take().unwrap().join().unwrap()
    }
}

/// The message that a service sends: length, header, lengths of what follows, identity, quote.
pub(crate) fn answer(id: &[u8], quote: &[u8]) -> Vec<u8> {
    let len = 24 + id.len() as u32 + quote.len() as u32;
    let mut message = len.to_be_bytes().to_vec();
    message.extend([1, 0, 1, 0, 1, 0, 0, 0]);
    message.extend(len.to_le_bytes());
    message.extend([0; 4]);
    message.extend((id.len() as u32).to_le_bytes());
    message.extend((quote.len() as u32).to_le_bytes());
    [message, id.to_vec(), quote.to_vec()].concat()
}
