//! The HTTP dialect of a Parakeet container: transcription and diarization of uploaded files.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use crate::app::{Core, Kind};
use crate::decode::{self, RATE_HZ, decode};
use crate::diarize::{Turn, diarize};
use crate::fault::Plan;
use crate::fault::body::out_of_memory;
use crate::fault::mode::BadTranscript;
use crate::ffi::{self, Recognizer};
use crate::form::{Form, missing};
use crate::inference::{Ticket, admit, detail, finish};
use crate::lane::{Lane, ServiceClock};
use crate::recognize::{Word, recognize};

/// Spoken by the F14 variant `constant`.
const CONSTANT: &str = "thank you";

/// What the handlers share.
pub struct Parakeet {
    /// What every dialect has.
    pub core: Arc<Core>,
    /// The lane in front of the recognizer.
    pub lane: Lane<Recognizer>,
}

/// The inference routes.
pub fn router(parakeet: Parakeet) -> Router {
    Router::new()
        .route("/v1/audio/transcriptions", post(transcribe))
        .route("/v1/audio/diarize", post(tell_speakers))
        .with_state(Arc::new(parakeet))
}

/// Why a job gave no answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Decode(#[from] decode::Error),
    #[error("{0}")]
    Recognize(#[from] ffi::Error),
    #[error("out of memory by an armed fault")]
    OutOfMemory,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Decode(decode::Error::Empty | decode::Error::NoAudio) => StatusCode::BAD_REQUEST,
            Self::Decode(decode::Error::TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Decode(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Recognize(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::OutOfMemory => return out_of_memory().into_response(),
        };
        detail(status, self.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    VerboseJson,
    Text,
}

struct Transcript {
    sentences: Vec<Vec<Word>>,
    duration_s: f64,
}

/// `POST /v1/audio/transcriptions`: multipart with `file` and `response_format`; other fields are ignored.
async fn transcribe(State(parakeet): State<Arc<Parakeet>>, request: Request) -> Response {
    transcription(&parakeet, request).await.unwrap_or_else(|refusal| refusal)
}

async fn transcription(parakeet: &Parakeet, request: Request) -> Result<Response, Response> {
    let form = Form::read(request).await?;
    let format = match form.field("response_format") {
        None | Some("" | "json") => Format::Json,
        Some("verbose_json") => Format::VerboseJson,
        Some("text") => Format::Text,
        Some(other) => {
            let text = format!("response_format '{other}' is not supported: use json, verbose_json or text");
            return Err(detail(StatusCode::BAD_REQUEST, text));
        }
    };
    let work = |recognizer: &mut Recognizer, samples: &[i16], duration_s| {
        Ok(Transcript { sentences: recognize(recognizer, samples)?, duration_s })
    };
    let (mut transcript, plan) = infer(parakeet, form.file, work).await?;
    if let Some(variant) = plan.transcript {
        spoil(&mut transcript, variant);
    }
    let response = match format {
        Format::Json => axum::Json(json!({ "text": transcript.text() })).into_response(),
        Format::Text => transcript.text().into_response(),
        Format::VerboseJson => {
            let mut verbose = transcript.verbose();
            if plan.transcript == Some(BadTranscript::Nan) {
                verbose["words"] = json!([{ "start": null, "end": null, "text": "" }]);
            }
            axum::Json(verbose).into_response()
        }
    };
    Ok(finish(response, plan.reset_after))
}

/// `POST /v1/audio/diarize`: multipart with `file`.
async fn tell_speakers(State(parakeet): State<Arc<Parakeet>>, request: Request) -> Response {
    diarization(&parakeet, request).await.unwrap_or_else(|refusal| refusal)
}

async fn diarization(parakeet: &Parakeet, request: Request) -> Result<Response, Response> {
    let form = Form::read(request).await?;
    let work = |_: &mut Recognizer, samples: &[i16], duration_s| Ok((diarize(samples), duration_s));
    let ((turns, duration_s), plan) = infer(parakeet, form.file, work).await?;
    let turns = if plan.transcript.is_some() { Vec::new() } else { turns };
    Ok(finish(axum::Json(speakers(&turns, duration_s)).into_response(), plan.reset_after))
}

/// Runs one job on the uploaded file: admission, decoding, work, pace.
async fn infer<T: Send + 'static>(
    parakeet: &Parakeet,
    file: Option<Bytes>,
    work: impl FnOnce(&mut Recognizer, &[i16], f64) -> Result<T, Error> + Send + 'static,
) -> Result<(T, Plan), Response> {
    let core = &parakeet.core;
    let file = file.ok_or_else(|| missing("file"))?;
    if file.is_empty() {
        return Err(Error::from(decode::Error::Empty).into_response());
    }
    let Ticket { place, plan } = admit(core, &file).await?;
    let (pace, slow, oom_above_s) = (core.pace, plan.slow, plan.oom_above_s);
    let job = move |recognizer: &mut Recognizer| {
        let mut clock = ServiceClock::start(pace, slow);
        let samples = decode(file)?;
        let duration_s = samples.len() as f64 / f64::from(RATE_HZ);
        if oom_above_s.is_some_and(|limit| duration_s > limit) {
            return Err(Error::OutOfMemory);
        }
        let made = work(recognizer, &samples, duration_s)?;
        // A GPU finishes its job even when nobody waits any more.
        clock.hold(duration_s, || false);
        Ok(made)
    };
    match parakeet.lane.run(place, job).await {
        Ok(Ok(made)) => Ok((made, plan)),
        Ok(Err(error)) => {
            if let (Error::OutOfMemory, Some(faults)) = (&error, &core.faults) {
                faults.count_oom();
            }
            Err(error.into_response())
        }
        Err(lost) => Err(detail(StatusCode::INTERNAL_SERVER_ERROR, lost.to_string())),
    }
}

impl Transcript {
    fn text(&self) -> String {
        self.sentences.iter().map(|sentence| joined(sentence)).collect::<Vec<_>>().join(" ")
    }

    fn verbose(&self) -> Value {
        let words: Vec<Value> = self
            .sentences
            .iter()
            .flatten()
            .map(|word| json!({ "start": ms(word.start_s), "end": ms(word.end_s), "text": format!(" {}", word.text) }))
            .collect();
        let segment = |(id, sentence): (usize, &Vec<Word>)| {
            let (first, last) = (sentence.first()?, sentence.last()?);
            Some(
                json!({ "id": id, "start": ms(first.start_s), "end": ms(last.end_s), "text": joined(sentence) }),
            )
        };
        let segments: Vec<Value> = self.sentences.iter().enumerate().filter_map(segment).collect();
        json!({
            "text": self.text(),
            "duration": ms(self.duration_s),
            "language": "en",
            "model": Kind::Parakeet.model(),
            "words": words,
            "segments": segments,
        })
    }
}

fn joined(sentence: &[Word]) -> String {
    sentence.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// F14.
fn spoil(transcript: &mut Transcript, variant: BadTranscript) {
    let text = match variant {
        BadTranscript::Empty | BadTranscript::Nan => "",
        BadTranscript::Punct => ". . .",
        BadTranscript::Constant => CONSTANT,
    };
    let word = |(index, text): (usize, &str)| {
        let start_s = index as f64 * 0.3;
        Word { start_s, end_s: start_s + 0.3, text: text.to_owned() }
    };
    let words: Vec<Word> = text.split_whitespace().enumerate().map(word).collect();
    transcript.sentences = if words.is_empty() { Vec::new() } else { vec![words] };
}

fn speakers(turns: &[Turn], duration_s: f64) -> Value {
    let label = |speaker: usize| format!("Speaker_{speaker}");
    let segments: Vec<Value> = turns
        .iter()
        .map(|turn| json!({ "start_s": ms(turn.start_s), "end_s": ms(turn.end_s), "speaker": label(turn.speaker) }))
        .collect();
    let count = turns.iter().map(|turn| turn.speaker + 1).max().unwrap_or(0);
    json!({
        "segments": segments,
        "speakers_detected": (0..count).map(label).collect::<Vec<_>>(),
        "duration": ms(duration_s),
        "model": "reference-pitch-spectrum",
    })
}

/// Seconds rounded to milliseconds.
fn ms(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
