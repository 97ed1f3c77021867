//! Answers within bounds: whatever a server sends, the client keeps no more of it than this.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};

/// Longest answer but a part of an object, in bytes: listings and errors are taken into memory as a whole.
const MAX: u64 = 64 << 20;

/// Makes connections whose answers are within bounds.
#[derive(Debug, Default)]
pub(super) struct Bounded;

impl HttpConnector for Bounded {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Checked(client)))
    }
}

#[derive(Debug)]
struct Checked(HttpClient);

#[async_trait]
impl HttpService for Checked {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            // The client adds one to it.
            let range = response.headers().get(CONTENT_RANGE);
            let is_sound = range.and_then(|range| range.to_str().ok()).is_some_and(is_range);
            return if is_sound {
                Ok(response)
            } else {
                Err(refused("a range that cannot be one"))
            };
        }
        if response.body().size_hint().lower() > MAX {
            return Err(refused("an answer that is too long"));
        }
        let (parts, body) = response.into_parts();
        let body = Limited { body, left: MAX };
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// Whether this is `bytes FIRST-LAST/LENGTH` (RFC 9110, section 14.4) of an object that there can be.
fn is_range(text: &str) -> bool {
    let numbers = || {
        let (range, len) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| text.parse::<u64>().ok();
        Some((number(first)?, number(last)?, number(len)?))
    };
    numbers().is_some_and(|(first, last, len)| first <= last && last < len)
}

fn refused(what: &'static str) -> HttpError {
    let error = io::Error::new(io::ErrorKind::InvalidData, format!("the server sends {what}"));
    HttpError::new(HttpErrorKind::Decode, error)
}

/// A body up to a length.
struct Limited {
    body: HttpResponseBody,
    left: u64,
}

impl Body for Limited {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let len = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(len) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(refused("an answer that is too long")))),
            }
        }
        frame
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_of_objects_that_there_can_be() {
        for range in ["bytes 0-0/1", "bytes 5-8/9", " bytes 0-9/10 "] {
            assert!(is_range(range), "{range}");
        }
        for range in [
            "bytes 0-18446744073709551615/9",
            "bytes 0-18446744073709551615/18446744073709551615",
            "bytes 5-4/9",
            "bytes 0-9/9",
            "bytes 0-1/*",
            "bytes */9",
            "0-1/9",
            "",
        ] {
            assert!(!is_range(range), "{range}");
        }
    }
}
