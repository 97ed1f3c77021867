//! Errors of the client, as those of a file: what a server sent is not repeated.

use std::error::Error as StdError;
use std::io;
use std::iter;

use object_store::Error as E;

use super::file::replaced;

/// How the client introduces the status of an answer, with its body behind.
const STATUS: &str = "status code: ";

/// An error of the client as one of a file.
pub(super) fn io_error(error: object_store::Error) -> io::Error {
    let kind = match &error {
        E::NotFound { .. } => io::ErrorKind::NotFound,
        E::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        E::Precondition { .. } | E::NotModified { .. } => return replaced(),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        E::NotSupported { .. } | E::NotImplemented { .. } => io::ErrorKind::Unsupported,
        E::InvalidPath { .. } => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::Other,
    };
    let text = error.to_string();
    let mut what = said(&text);
    // The client's own text leaves out what the system said.
    if !text.contains(STATUS)
        && let Some(system) = of_system(&error).map(|error| said(&error.to_string()))
        && !what.contains(&system)
    {
        what = format!("{what}: {system}");
    }
    io::Error::new(kind, what)
}

/// The innermost error of the system: of a connection, or of TLS. No other cause is ours to repeat.
fn of_system<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref())
        .last()
}

/// What an error of the client says that is ours to repeat: without the body of an answer, which may hold anything, and
/// without the times that make each text another one.
fn said(text: &str) -> String {
    /// Bytes that are repeated of anything else.
    const LONGEST: usize = 500;
    if let Some((_, answer)) = text.split_once(STATUS) {
        let (status, body) = answer.split_once(": ").unwrap_or((answer, ""));
        let status = status.split(['\n', '<']).next().unwrap_or_default().trim();
        let code = body
            .split_once("<Code>")
            .and_then(|(_, rest)| rest.split_once("</Code>"))
            .map(|(code, _)| code)
            .filter(|code| {
                (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
        let status: String = status.chars().take(64).collect();
        return match code {
            Some(code) => format!("the server answers {status} ({code})"),
            None => format!("the server answers {status}"),
        };
    }
    without_times(text)
        .chars()
        .take(LONGEST)
        .collect::<String>()
        .trim_end_matches([':', ' '])
        .to_owned()
}

/// The client's text without how long it took and how it tries, which it puts between ` in ` and ` - `; only how often it
/// has tried.
fn without_times(text: &str) -> String {
    let Some((what, rest)) = text.split_once(" in ") else {
        return text.to_owned();
    };
    let Some((how, why)) = rest.split_once(" - ").or_else(|| rest.split_once(": ")) else {
        return text.to_owned();
    };
    let retries = how
        .split_once("after ")
        .and_then(|(_, count)| count.split(' ').next()?.parse::<u32>().ok());
    match retries {
        Some(retries) => format!("{what}, tried {} times: {why}", retries.saturating_add(1)),
        None => format!("{what}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_repeat_no_answer() {
        let text = "Generic S3 error: Error performing GET http://h/b in 3.2ms - Server returned non-2xx status code: 403 \
                    Forbidden: <Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>token</CanonicalRequest></Error>";
        assert_eq!(
            said(text),
            "the server answers 403 Forbidden (SignatureDoesNotMatch)"
        );
        assert_eq!(
            said("x status code: 404 Not Found: <Code>a b</Code>"),
            "the server answers 404 Not Found"
        );
        assert_eq!(
            said(
                "Error performing GET http://h/b in 9.5s, after 8 retries, max_retries: 8, retry_timeout: 120s  - HTTP error: \
                 error sending request"
            ),
            "Error performing GET http://h/b, tried 9 times: HTTP error: error sending request"
        );
        assert_eq!(
            said("Error performing GET http://h/b in 1.2ms - no"),
            "Error performing GET http://h/b: no"
        );
        assert_eq!(said("nothing in the bucket"), "nothing in the bucket");
        assert!(said(&"x".repeat(10_000)).len() <= 500);
    }

    /// An error around another one, as clients have them.
    #[derive(Debug)]
    struct Around(&'static str, Box<dyn StdError + Send + Sync>);

    impl std::fmt::Display for Around {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Around {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.1)
        }
    }

    fn around(text: &'static str, inner: impl StdError + Send + Sync + 'static) -> Around {
        Around(text, Box::new(inner))
    }

    fn told(source: impl StdError + Send + Sync + 'static) -> String {
        let source = Box::new(source);
        io_error(E::Generic { store: "S3", source }).to_string()
    }

    #[test]
    fn errors_say_what_the_system_said_and_nothing_else_of_their_causes() {
        let refused = || io::Error::from_raw_os_error(111);
        let text = told(around(
            "no answer in 1.2s - closed",
            around("tcp connect error", refused()),
        ));
        assert_eq!(
            text,
            "Generic S3 error: no answer: closed: Connection refused (os error 111)"
        );
        // A cause within the system's error, or of another kind, may be made of what a server sent.
        let text = told(around(
            "no answer",
            around("connect", io::Error::other(around("tls", refused()))),
        ));
        assert!(text.ends_with("Connection refused (os error 111)"), "{text}");
        let text = told(around(
            "no listing",
            around("<body>", around("<more>", std::fmt::Error)),
        ));
        assert_eq!(text, "Generic S3 error: no listing");
        let text = told(around("status code: 500 Oops: <body>", refused()));
        assert_eq!(text, "the server answers 500 Oops");
    }
}
