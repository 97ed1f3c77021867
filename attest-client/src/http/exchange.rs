//! One request and its answer, in HTTP/1.1 (RFC 9112).
//!
//! A client of our own, and small: those that there are log what they send and receive, byte by byte, where a program
//! listens at the level of traces. All that passes here is wiped.

use std::io::{self, Read as _, Write as _};
use std::time::Instant;

use zeroize::Zeroizing;

use super::stream::Stream;

/// Most bytes of an answer's head.
pub(super) const MAX_HEAD: usize = 32 << 10;
/// Most headers in it.
const MAX_HEADERS: usize = 128;
/// Longest line that begins or ends a chunk.
const MAX_CHUNK_LINE: usize = 256;
/// First size of a body that does not say how long it is.
const FIRST_BODY: usize = 8 << 10;

/// A connection and what of it was read ahead.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    buffer: Zeroizing<Vec<u8>>,
    begin: usize,
    end: usize,
    /// Whether the answer to the latest request has begun.
    answered: bool,
    /// Whether another request may follow.
    reusable: bool,
}

/// An answer up to its body.
pub(super) struct Head {
    pub(super) status: u16,
    /// Names in lower case. A value may be a session's cookie.
    headers: Vec<(String, Zeroizing<String>)>,
    framing: Framing,
}

impl Head {
    /// The values of a header that are text.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy)]
enum Framing {
    Length(u64),
    Chunked,
    ToEnd,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            buffer: Zeroizing::new(vec![0; MAX_HEAD]),
            begin: 0,
            end: 0,
            answered: false,
            reusable: true,
        }
    }

    pub(super) fn give_up_at(&mut self, at: Instant) {
        self.stream.give_up_at(at);
    }

    /// Whether nothing of an answer to the latest request has come.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.answered
    }

    /// Whether another request may be made on it.
    pub(super) fn is_reusable(&self) -> bool {
        self.reusable && self.begin == self.end && self.stream.is_quiet()
    }

    /// The stream itself, which nobody has yet read from ahead.
    pub(super) fn into_stream(self) -> io::Result<Box<dyn Stream>> {
        if self.begin == self.end {
            Ok(self.stream)
        } else {
            Err(malformed("bytes that nobody asked for"))
        }
    }

    /// Sends a request. `target` and the headers' values are printable.
    pub(super) fn write_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<()> {
        let length = body.map(|body| body.len().to_string());
        let length = length.as_deref().map(|length| ("content-length", length));
        let lines = headers.iter().copied().chain(length);
        // At once as long as it gets, so that no copy stays behind.
        let len: usize = lines
            .clone()
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        let mut head = Zeroizing::new(Vec::with_capacity(len + method.len() + target.len() + 16));
        for part in [method, " ", target, " HTTP/1.1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        for (name, value) in lines {
            for part in [name, ": ", value, "\r\n"] {
                head.extend_from_slice(part.as_bytes());
            }
        }
        head.extend_from_slice(b"\r\n");
        self.answered = false;
        self.reusable = false;
        self.stream.write_all(&head)?;
        self.stream.write_all(body.unwrap_or_default())?;
        self.stream.flush()
    }

    /// The head of the answer. Answers that announce another (1xx) are passed over.
    pub(super) fn read_head(&mut self) -> io::Result<Head> {
        let mut passed = 0;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(&self.buffer[self.begin..self.end]) {
                Ok(httparse::Status::Complete(len)) => {
                    let status = response.code.unwrap_or_default();
                    if status < 100 {
                        return Err(malformed("a status that is none"));
                    }
                    if status == 101 {
                        return Err(malformed("another protocol"));
                    }
                    if status >= 200 {
                        let head = head(&response)?;
                        self.reusable =
                            head.keeps_alive(response.version) && !matches!(head.framing, Framing::ToEnd);
                        self.begin += len;
                        return Ok(head);
                    }
                    self.begin += len;
                    passed += len;
                    if passed > MAX_HEAD {
                        return Err(too_long());
                    }
                }
                Ok(httparse::Status::Partial) => {
                    if self.fill()? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.answered = true;
                }
                Err(httparse::Error::TooManyHeaders) => return Err(too_long()),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
            }
        }
    }

    /// The body that follows the head, in memory of which no copy stays behind; none if it is longer than `max`.
    pub(super) fn read_body(&mut self, head: &Head, max: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        // A body that breaks off leaves the rest of it on the connection.
        let reusable = std::mem::take(&mut self.reusable);
        let body = match head.framing {
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= max => {
                    let mut body = Zeroizing::new(vec![0; length]);
                    self.read_exact(&mut body)?;
                    Some(body)
                }
                _ => None,
            },
            Framing::Chunked => self.read_chunks(max)?,
            Framing::ToEnd => self.read_to_end(max)?,
        };
        self.reusable = reusable && body.is_some();
        Ok(body)
    }

    fn read_chunks(&mut self, max: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut body = Zeroizing::new(Vec::new());
        loop {
            let line = self.read_line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            // A sign is no digit, though it parses.
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(malformed("a chunk without its length"));
            }
            let length = usize::from_str_radix(digits, 16).unwrap_or(usize::MAX);
            if length == 0 {
                break;
            }
            let begin = body.len();
            if length > max - begin {
                return Ok(None);
            }
            grow(&mut body, begin + length);
            self.read_exact(&mut body[begin..])?;
            if !self.read_line()?.is_empty() {
                return Err(malformed("a chunk longer than its length"));
            }
        }
        // Trailers are of no interest.
        let mut passed = 0;
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(Some(body));
            }
            passed += line.len();
            if passed > MAX_HEAD {
                return Err(too_long());
            }
        }
    }

    fn read_to_end(&mut self, max: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut body = Zeroizing::new(Vec::new());
        loop {
            let begin = body.len();
            // One more byte than may be, which shows that it is too long.
            let end = (begin * 2).max(FIRST_BODY).min(max.saturating_add(1));
            grow(&mut body, end);
            let mut len = begin;
            while len < end {
                match self.read_some(&mut body[len..])? {
                    0 => {
                        body.truncate(len);
                        return Ok(Some(body));
                    }
                    read => len += read,
                }
            }
            if len > max {
                return Ok(None);
            }
        }
    }

    /// A line without what ends it.
    fn read_line(&mut self) -> io::Result<String> {
        loop {
            let ahead = &self.buffer[self.begin..self.end];
            if let Some(len) = ahead.iter().take(MAX_CHUNK_LINE).position(|byte| *byte == b'\n') {
                let line = ahead[..len].strip_suffix(b"\r").unwrap_or(&ahead[..len]);
                let line = str::from_utf8(line)
                    .map_err(|_| malformed("a line that is no text"))?
                    .to_owned();
                self.begin += len + 1;
                return Ok(line);
            }
            if ahead.len() >= MAX_CHUNK_LINE {
                return Err(malformed("a line that does not end"));
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_exact(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match self.read_some(into)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => into = &mut into[read..],
            }
        }
        Ok(())
    }

    /// From what was read ahead, or else from the stream.
    fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let ahead = &self.buffer[self.begin..self.end];
        if ahead.is_empty() {
            return retry_interrupted(|| self.stream.read(into));
        }
        let len = ahead.len().min(into.len());
        into[..len].copy_from_slice(&ahead[..len]);
        self.begin += len;
        Ok(len)
    }

    /// Reads ahead, at most as much as a head may have.
    fn fill(&mut self) -> io::Result<usize> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        if self.end == self.buffer.len() {
            return Err(too_long());
        }
        let read = retry_interrupted(|| self.stream.read(&mut self.buffer[self.end..]))?;
        self.end += read;
        Ok(read)
    }
}

impl Head {
    fn keeps_alive(&self, version: Option<u8>) -> bool {
        let asks = |token: &str| {
            self.values("connection")
                .flat_map(|value| value.split(','))
                .any(|word| word.trim().eq_ignore_ascii_case(token))
        };
        version == Some(1) && !asks("close")
    }
}

fn head(response: &httparse::Response<'_, '_>) -> io::Result<Head> {
    let status = response.code.unwrap_or_default();
    // What is no text is nothing that is looked at.
    let text = |value: &[u8]| {
        let text = str::from_utf8(value).ok()?;
        Some(Zeroizing::new(text.trim().to_owned()))
    };
    let frames = |name: &str| {
        name.eq_ignore_ascii_case("transfer-encoding") || name.eq_ignore_ascii_case("content-length")
    };
    let mut framing = response.headers.iter().filter(|header| frames(header.name));
    if framing.any(|header| !header.value.is_ascii()) {
        return Err(malformed("a length that is no text"));
    }
    let headers = response.headers.iter();
    let mut head = Head {
        status,
        headers: headers
            .filter_map(|header| Some((header.name.to_ascii_lowercase(), text(header.value)?)))
            .collect(),
        framing: Framing::ToEnd,
    };
    // RFC 9112, 6.3.
    let codings: Vec<&str> = head
        .values("transfer-encoding")
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    head.framing = if matches!(status, 204 | 304) {
        Framing::Length(0)
    } else if !codings.is_empty() {
        if codings.len() != 1 || !codings[0].eq_ignore_ascii_case("chunked") {
            return Err(malformed("a transfer coding other than chunked"));
        }
        if head.values("content-length").next().is_some() {
            return Err(malformed("two lengths"));
        }
        Framing::Chunked
    } else {
        let mut lengths = head
            .values("content-length")
            .flat_map(|value| value.split(','))
            .map(str::trim);
        match lengths.next() {
            Some(length) => {
                let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
                if !is_number || !lengths.all(|other| other == length) {
                    return Err(malformed("a length that is none"));
                }
                Framing::Length(length.parse().unwrap_or(u64::MAX))
            }
            None => Framing::ToEnd,
        }
    };
    Ok(head)
}

/// To that length, without leaving a copy behind.
fn grow(body: &mut Zeroizing<Vec<u8>>, len: usize) {
    if len > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(len.max(body.capacity() * 2)));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.resize(len, 0);
}

fn retry_interrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn too_long() -> io::Error {
    io::ErrorKind::FileTooLarge.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was sent, read so many bytes at a time.
    struct Script {
        input: io::Cursor<Vec<u8>>,
        step: usize,
    }

    impl io::Read for Script {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let len = into.len().min(self.step);
            self.input.read(&mut into[..len])
        }
    }

    impl io::Write for Script {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            Ok(from.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Script {
        fn give_up_at(&mut self, _: Instant) {}

        fn is_quiet(&self) -> bool {
            true
        }
    }

    /// Status and body, and whether another request may follow.
    fn read(bytes: &[u8], step: usize, max: usize) -> io::Result<(u16, Option<Vec<u8>>, bool)> {
        let mut connection = Connection::new(Box::new(Script {
            input: io::Cursor::new(bytes.to_vec()),
            step,
        }));
        let head = connection.read_head()?;
        let body = connection.read_body(&head, max)?;
        Ok((
            head.status,
            body.map(|body| body.to_vec()),
            connection.is_reusable(),
        ))
    }

    #[test]
    fn bodies_in_every_framing() {
        let long = "x".repeat(40_000);
        let close = format!("HTTP/1.1 200 OK\r\n\r\n{long}");
        let length = format!("HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n{long}");
        let chunks =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n9c40\r\n{long}\r\n0\r\n\r\n");
        for (bytes, status, body, reusable) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                200,
                "hello",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\nContent-Length: 5\r\n\r\nhello",
                200,
                "hello",
                true,
            ),
            (
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
                401,
                "",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close\r\n\r\nhello",
                200,
                "hello",
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                200,
                "hello",
                false,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello", false),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
            (
                "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
                304,
                "",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                200,
                "",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                 2;a=b\r\nhe\r\n003\r\nllo\r\n0\r\ntrailer: x\r\n\r\n",
                200,
                "hello",
                true,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
                 HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                200,
                "hello",
                true,
            ),
            (&close, 200, &long, false),
            (&length, 200, &long, true),
            (&chunks, 200, &long, true),
        ] {
            for step in [1, 7, usize::MAX] {
                let whole = read(bytes.as_bytes(), step, body.len()).unwrap();
                assert_eq!(
                    whole,
                    (status, Some(body.as_bytes().to_vec()), reusable),
                    "{bytes:.100}"
                );
                if let Some(less) = body.len().checked_sub(1) {
                    let (status_too, none, reusable) = read(bytes.as_bytes(), step, less).unwrap();
                    assert_eq!(
                        (status_too, none, reusable),
                        (status, None, false),
                        "{bytes:.100}"
                    );
                }
            }
        }
        // What nobody asked for is not taken for the next answer.
        let (.., reusable) = read(
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1",
            usize::MAX,
            9,
        )
        .unwrap();
        assert!(!reusable);
    }

    #[test]
    fn answers_that_are_cut_short() {
        for bytes in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            for len in 0..bytes.len() {
                let error = read(&bytes.as_bytes()[..len], usize::MAX, 100).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{len}");
            }
        }
    }

    /// Times out once where the first part ends, and goes on with the second.
    struct Slow {
        parts: Vec<Vec<u8>>,
    }

    impl io::Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some(part) = self.parts.first_mut() else {
                return Ok(0);
            };
            if part.is_empty() {
                self.parts.remove(0);
                return Err(io::ErrorKind::TimedOut.into());
            }
            let len = part.len().min(into.len());
            into[..len].copy_from_slice(&part[..len]);
            part.drain(..len);
            Ok(len)
        }
    }

    impl io::Write for Slow {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            Ok(from.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Slow {
        fn give_up_at(&mut self, _: Instant) {}

        fn is_quiet(&self) -> bool {
            true
        }
    }

    #[test]
    fn half_a_body_ends_a_connection() {
        let plain = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for (first, rest) in [
            (plain.to_owned(), "helloworld"),
            (format!("{plain}hello"), "world"),
            (chunked.to_owned(), "5\r\nhello\r\n0\r\n\r\n"),
            (format!("{chunked}5"), "\r\nhello\r\n0\r\n\r\n"),
            (format!("{chunked}5\r\nhe"), "llo\r\n0\r\n\r\n"),
            (format!("{chunked}5\r\nhello\r\n"), "0\r\n\r\n"),
            (format!("{chunked}5\r\nhello\r\n0\r\n"), "\r\n"),
        ] {
            let next = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext";
            let mut connection = Connection::new(Box::new(Slow {
                parts: vec![first.clone().into_bytes(), format!("{rest}{next}").into_bytes()],
            }));
            let head = connection.read_head().unwrap();
            let error = connection.read_body(&head, 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{first}");
            assert!(!connection.is_reusable(), "{first}");
        }
    }

    #[test]
    fn answers_that_are_refused() {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(MAX_HEAD));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD / 20);
        let trailers = format!("{chunked}0\r\n{}", "trailer: x\r\n".repeat(MAX_HEAD / 5));
        for (bytes, kind) in [
            (many.as_str(), io::ErrorKind::FileTooLarge),
            (&long, io::ErrorKind::FileTooLarge),
            (&interim, io::ErrorKind::FileTooLarge),
            (&trailers, io::ErrorKind::FileTooLarge),
            (
                "HTTP/1.1 101 Switching Protocols\r\n\r\n",
                io::ErrorKind::InvalidData,
            ),
            ("HTTP/2 200\r\n\r\n", io::ErrorKind::InvalidData),
            ("HTTP/1.1 abc\r\n\r\n", io::ErrorKind::InvalidData),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nhello",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\u{e9}\r\n\r\n0\r\n\r\n",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\u{e9}\r\n\r\nhello",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 099 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 000 Odd\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                io::ErrorKind::InvalidData,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                io::ErrorKind::InvalidData,
            ),
            (
                &format!("{chunked}5\r\nhelloworld\r\n0\r\n\r\n"),
                io::ErrorKind::InvalidData,
            ),
            (
                &format!("{chunked}+5\r\nhello\r\n0\r\n\r\n"),
                io::ErrorKind::InvalidData,
            ),
            (
                &format!("{chunked}\r\nhello\r\n0\r\n\r\n"),
                io::ErrorKind::InvalidData,
            ),
            (
                &format!("{chunked}x\r\nhello\r\n0\r\n\r\n"),
                io::ErrorKind::InvalidData,
            ),
            (
                &format!("{chunked}5;{}\r\n", "a".repeat(1000)),
                io::ErrorKind::InvalidData,
            ),
        ] {
            for step in [11, usize::MAX] {
                let error = read(bytes.as_bytes(), step, 100).unwrap_err();
                assert_eq!(error.kind(), kind, "{bytes:.100}");
            }
        }
        // More than can be, and more than there is memory for.
        for length in [
            "18446744073709551616",
            "18446744073709551615",
            "99999999999999999999999",
        ] {
            let bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            assert_eq!(read(bytes.as_bytes(), 1, 100).unwrap(), (200, None, false));
        }
        for length in ["ffffffffffffffff", "fffffffffffffffffffffffff"] {
            assert_eq!(
                read(format!("{chunked}{length}\r\n").as_bytes(), 1, 100).unwrap(),
                (200, None, false)
            );
        }
    }
}
