//! A transcript as server-sent events: deltas that add up to the text, segments with their speakers, and the end.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt, StreamExt, stream};
use serde::Serialize;

use crate::api::openai::wire::{DiarizedSegment, Language, Logprob, Usage};
use crate::api::sse;
use crate::error::Error;
use crate::transcript::text::ends_sentence;
use crate::upstream::{Listener, Part};

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
    #[serde(flatten)]
    end: End,
}

/// What comes at the end beside the text.
#[derive(Default, Serialize)]
pub(super) struct End {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) languages: Option<[Language; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs: Option<Vec<Logprob>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Usage>,
}

/// The events of a text, sentence by sentence, of which the client has got so many bytes already.
pub(super) fn transcript(text: &str, told: usize, last: End) -> String {
    let mut out = sentences(text.get(told..).unwrap_or_default());
    end(&mut out, text, last);
    out
}

fn sentences(text: &str) -> String {
    let mut out = String::new();
    for delta in deltas(text) {
        push(&mut out, DELTA, &Delta { r#type: DELTA, delta, segment_id: None });
    }
    out
}

/// Tells a client of a text that grows.
pub(super) struct Teller {
    events: UnboundedSender<Bytes>,
    told: AtomicUsize,
}

/// What a [`Teller`] tells.
pub(super) type Told = UnboundedReceiver<Bytes>;

impl Teller {
    /// One, and the events that it makes.
    pub(super) fn new() -> (Arc<Self>, Told) {
        let (events, told) = unbounded();
        (Arc::new(Self { events, told: AtomicUsize::new(0) }), told)
    }

    /// Bytes told so far.
    pub(super) fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }
}

impl Listener for Teller {
    fn heard(&self, part: Part) {
        if !part.text.is_empty() {
            self.told.fetch_add(part.text.len(), Ordering::Relaxed);
            // A client that has left needs no events.
            let _ = self.events.unbounded_send(sentences(&part.text).into());
        }
    }
}

/// The events of segments with speakers.
pub(super) fn diarized(segments: &[DiarizedSegment], last: End) -> String {
    let (mut out, mut text) = (String::new(), String::new());
    for (nth, segment) in segments.iter().enumerate() {
        let delta = delta(segments, nth);
        push(&mut out, DELTA, &Delta { r#type: DELTA, delta: &delta, segment_id: Some(&segment.id) });
        push(&mut out, "transcript.text.segment", segment);
        text.push_str(&delta);
    }
    end(&mut out, &text, last);
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

fn end(out: &mut String, text: &str, end: End) {
    const DONE: &str = "transcript.text.done";
    push(out, DONE, &Done { r#type: DONE, text, end });
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

/// Work whose outcome is a response.
type Work = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

/// The events of work that is not done yet: those it tells meanwhile, a comment each [`PING_PERIOD`] of silence, then its last
/// events or its error. Dropping the reply drops the work.
fn waiting(work: Work, first: Bytes, told: Told) -> Response {
    let later = stream::unfold(Some((work, told)), |state| async move {
        let (mut work, mut told) = state?;
        tokio::select! {
            biased;
            Some(events) = told.next() => Some((stream::once(ready(Ok(events))).boxed(), Some((work, told)))),
            outcome = tokio::time::timeout(PING_PERIOD, &mut work) => match outcome {
                Err(_) => {
                    let ping = Bytes::from_static(sse::PING.as_bytes());
                    Some((stream::once(ready(Ok(ping))).boxed(), Some((work, told))))
                }
                Ok(outcome) => {
                    let last = match outcome {
                        Ok(response) => response.into_body().into_data_stream().boxed(),
                        Err(error) => stream::once(ready(Ok(Bytes::from(sse::failure(&error))))).boxed(),
                    };
                    let mut rest = Vec::new();
                    while let Ok(events) = told.try_recv() {
                        rest.push(Ok(events));
                    }
                    Some((stream::iter(rest).chain(last).boxed(), None))
                }
            },
        }
    });
    sse::response(Body::from_stream(stream::once(ready(Ok(first))).chain(later.flatten())))
}

/// The outcome of work that is done within a [`PING_PERIOD`] and tells nothing before, as it is; else its events as they come.
pub(super) async fn soon(
    work: impl Future<Output = Result<Response, Error>> + Send + 'static,
    mut told: Told,
) -> Result<Response, Error> {
    let mut work = work.boxed();
    let first = tokio::select! {
        biased;
        Some(events) = told.next() => events,
        outcome = tokio::time::timeout(PING_PERIOD, &mut work) => match outcome {
            Ok(outcome) => match told.try_recv() {
                Ok(events) => return Ok(waiting(ready(outcome).boxed(), events, told)),
                Err(_) => return outcome,
            },
            Err(_) => Bytes::from_static(sse::PING.as_bytes()),
        },
    };
    Ok(waiting(work, first, told))
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
            Ok(response(transcript("Hello.", 0, End::default())))
        };
        let response = soon(work, Teller::new().1).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let events = text(response).await;
        assert!(events.starts_with(": ping\n\n: ping\n\nevent: transcript.text.delta"), "{events}");
        assert!(events.ends_with("data: [DONE]\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_before_the_end_comes_at_once_and_once() {
        let (teller, told) = Teller::new();
        let work = {
            let teller = Arc::clone(&teller);
            async move {
                teller.heard(Part { text: "Hello there.".into(), seconds: 1.0 });
                tokio::time::sleep(Duration::from_secs(1)).await;
                teller.heard(Part { text: " And on.".into(), seconds: 2.0 });
                Ok(response(transcript("Hello there. And on. End.", teller.told(), End::default())))
            }
        };
        let mut body = soon(work, told).await.unwrap().into_body().into_data_stream();
        let first = body.next().await.unwrap().unwrap();
        assert!(first.starts_with(b"event: transcript.text.delta"), "{first:?}");
        let mut events = String::from_utf8(first.to_vec()).unwrap();
        while let Some(more) = body.next().await {
            events.push_str(str::from_utf8(&more.unwrap()).unwrap());
        }
        let data = events.lines().filter_map(|line| line.strip_prefix("data: {"));
        let data: Vec<serde_json::Value> =
            data.map(|data| serde_json::from_str(&format!("{{{data}")).unwrap()).collect();
        let deltas: String = data.iter().filter_map(|event| event["delta"].as_str()).collect();
        assert_eq!(deltas, "Hello there. And on. End.");
        assert_eq!(data.last().unwrap()["text"], deltas.as_str());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_error_is_an_event_that_sdks_raise() {
        let work = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Err(Error::PoisonInput)
        };
        let events = text(soon(work, Teller::new().1).await.unwrap()).await;
        assert!(events.contains(r#"data: {"error":{"code":"poison_input""#), "{events}");
        assert_eq!(
            soon(async { Err(Error::PoisonInput) }, Teller::new().1).await.err(),
            Some(Error::PoisonInput)
        );
    }
}
