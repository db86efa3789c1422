//! The client's deadline, `grpc-timeout`: when it has passed, the call ends and with it the work for it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;

/// The longest that counts: a longer one is none.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a call may take; `None` when the client does not say.
///
/// # Errors
/// The header is malformed.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse);
    let limit = parsed.ok_or_else(|| {
        Status::invalid_argument("grpc-timeout must be up to 8 digits and one of H M S m u n")
    })?;
    Ok((limit < LONGEST).then_some(limit))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Awaits an answer and lets it be read until the limit.
pub(super) async fn within(limit: Option<Duration>, answering: impl Future<Output = Response>) -> Response {
    let Some(limit) = limit else { return answering.await };
    let due = Instant::now() + limit;
    match timeout_at(due, answering).await {
        Ok(response) => response.map(|body| Body::new(Timed { body, due: Box::pin(sleep_until(due)) })),
        Err(_) => passed().into_http(),
    }
}

fn passed() -> Status {
    Status::deadline_exceeded("the deadline of the call has passed")
}

/// A reply that ends at the deadline.
struct Timed {
    body: Body,
    due: Pin<Box<Sleep>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if self.due.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        // What made the reply goes with it.
        self.body = Body::empty();
        let mut trailers = HeaderMap::new();
        let added = passed().add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers)).map_err(axum::Error::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn every_unit_is_read_and_anything_else_refused() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("10S", Duration::from_secs(10)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for wrong in ["", "S", "10", "10s", "-1S", "1.5S", "123456789S", "10é", "é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers).unwrap(), None);
        headers.insert("grpc-timeout", "99999999H".parse().unwrap());
        assert_eq!(of(&headers).unwrap(), None);
        headers.insert("grpc-timeout", "soon".parse().unwrap());
        assert_eq!(of(&headers).unwrap_err().code(), tonic::Code::InvalidArgument);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline_before_and_after_its_head() {
        let limit = Some(Duration::from_secs(3));
        let late = within(limit, std::future::pending()).await;
        assert_eq!(late.headers()["grpc-status"], "4");
        let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"first"))]);
        let endless = Body::from_stream(first.chain(futures::stream::pending()));
        let mut body = within(limit, async { Response::new(endless) }).await.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "4");
        assert!(body.frame().await.is_none());
    }
}
