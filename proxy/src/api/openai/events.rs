//! A transcript as server-sent events: deltas that add up to the text, segments with their speakers, and the end.

use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use serde::Serialize;

use crate::api::openai::wire::{DiarizedSegment, Language, Usage};
use crate::api::sse;
use crate::error::Error;
use crate::transcript::text::ends_sentence;

/// How long a client and what is between wait without a byte. Proxies cut idle connections after 60 s and less.
pub(super) const PING_PERIOD: Duration = Duration::from_secs(15);
/// Words of a delta that no sentence ends.
const DELTA_WORDS: usize = 16;

#[derive(Serialize)]
struct Delta<'a> {
    r#type: &'static str,
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Done<'a> {
    r#type: &'static str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    languages: Option<[Language; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// The events of a text, sentence by sentence.
pub(super) fn transcript(text: &str, languages: Option<[Language; 1]>, usage: Option<Usage>) -> String {
    let mut out = String::new();
    for delta in deltas(text) {
        push(&mut out, DELTA, &Delta { r#type: DELTA, delta, segment_id: None });
    }
    end(&mut out, text, languages, usage);
    out
}

/// The events of segments with speakers.
pub(super) fn diarized(
    segments: &[DiarizedSegment],
    languages: Option<[Language; 1]>,
    usage: Option<Usage>,
) -> String {
    let (mut out, mut text) = (String::new(), String::new());
    for (nth, segment) in segments.iter().enumerate() {
        let delta = delta(segments, nth);
        push(&mut out, DELTA, &Delta { r#type: DELTA, delta: &delta, segment_id: Some(&segment.id) });
        push(&mut out, "transcript.text.segment", segment);
        text.push_str(&delta);
    }
    end(&mut out, &text, languages, usage);
    out
}

/// What a segment adds to the text: a line begins with each change of speaker, `A: Hello.`
pub(super) fn delta(segments: &[DiarizedSegment], nth: usize) -> String {
    let DiarizedSegment { text, speaker, .. } = &segments[nth];
    match nth.checked_sub(1).map(|before| &segments[before].speaker) {
        None => format!("{speaker}: {text}"),
        Some(before) if before == speaker => format!(" {text}"),
        Some(_) => format!("\n{speaker}: {text}"),
    }
}

const DELTA: &str = "transcript.text.delta";

fn end(out: &mut String, text: &str, languages: Option<[Language; 1]>, usage: Option<Usage>) {
    const DONE: &str = "transcript.text.done";
    push(out, DONE, &Done { r#type: DONE, text, languages, usage });
    out.push_str(sse::END);
}

fn push(out: &mut String, name: &str, event: &impl Serialize) {
    out.push_str(&sse::event(name, event));
}

/// The text in pieces that end with sentences, spaces included.
pub(super) fn deltas(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = 0;
        for (words, word) in rest.split_inclusive(char::is_whitespace).enumerate() {
            end += word.len();
            if ends_sentence(word.trim_end()) || words + 1 == DELTA_WORDS {
                break;
            }
        }
        let (delta, after) = rest.split_at(end);
        rest = after;
        (!delta.is_empty()).then_some(delta)
    })
}

/// Events that are all there.
pub(super) fn response(events: String) -> Response {
    sse::response(Body::from(events))
}

/// The events of work that is not done yet: a comment each [`PING_PERIOD`], then its events or its error. Dropping the reply
/// drops the work.
pub(super) fn waiting(work: Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>) -> Response {
    let ping = || Ok(Bytes::from_static(sse::PING.as_bytes()));
    let pings = stream::unfold(Some(work), move |work| async move {
        let mut work = work?;
        match tokio::time::timeout(PING_PERIOD, &mut work).await {
            Err(_) => Some((stream::once(async move { ping() }).boxed(), Some(work))),
            Ok(Ok(response)) => Some((response.into_body().into_data_stream().boxed(), None)),
            Ok(Err(error)) => {
                let event = sse::failure(&error);
                Some((stream::once(async move { Ok(Bytes::from(event)) }).boxed(), None))
            }
        }
    });
    let first = stream::once(async move { ping() });
    sse::response(Body::from_stream(first.chain(pings.flatten())))
}

/// The outcome of work that is done within a [`PING_PERIOD`], as it is; else [`waiting`].
pub(super) async fn soon(
    work: impl Future<Output = Result<Response, Error>> + Send + 'static,
) -> Result<Response, Error> {
    let mut work = work.boxed();
    match tokio::time::timeout(PING_PERIOD, &mut work).await {
        Ok(outcome) => outcome,
        Err(_) => Ok(waiting(work)),
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_job_is_kept_alive_and_then_ends_as_any_other() {
        let work = async {
            tokio::time::sleep(Duration::from_secs(40)).await;
            Ok(response(transcript("Hello.", None, None)))
        };
        let response = soon(work).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let events = text(response).await;
        assert!(events.starts_with(": ping\n\n: ping\n\nevent: transcript.text.delta"), "{events}");
        assert!(events.ends_with("data: [DONE]\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_error_is_an_event_that_sdks_raise() {
        let work = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Err(Error::PoisonInput)
        };
        let events = text(soon(work).await.unwrap()).await;
        assert!(events.contains(r#"data: {"error":{"code":"poison_input""#), "{events}");
        assert_eq!(soon(async { Err(Error::PoisonInput) }).await.err(), Some(Error::PoisonInput));
    }
}
