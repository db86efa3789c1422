//! The HTTP API of NVIDIA's NeMo-Speech.cpp server: uploads and speech after OpenAI's model, with speakers.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::envelope::Envelope;
use super::speech_body::SpeechBody;
use super::{Entry, Side, ms};
use crate::core::Core;
use crate::decode::{Channels, Container};
use crate::fault::origin::Reply;
use crate::form::{Form, Upload};
use crate::health;
use crate::work::speech::MAX_CHARACTERS;
use crate::work::transcribe::{Diarization, Recording, Transcript};
use crate::work::{Refusal, Synthesizer, Transcriber};

mod streaming;

pub(super) use streaming::ENTRY as STREAMING;

pub(super) static ENTRY: Entry = Entry {
    name: "nemo_speech",
    llm: None,
    stt: Some(Side::Http { paths: &[STT_PATHS, HEALTH_PATHS], router: stt_router }),
    tts: Some(Side::Http { paths: &[TTS_PATHS, HEALTH_PATHS], router: tts_router }),
};

const STT_PATHS: &[&str] = &["/v1/audio/transcriptions", "/v1/audio/diarizations"];
const TTS_PATHS: &[&str] = &["/v1/audio/speech"];
const HEALTH_PATHS: &[&str] = &["/ready", "/health", "/v1/models"];
/// Rate of all speech, in Hz.
const RATE_HZ: u32 = 22_050;

fn health_routes(core: Arc<Core>) -> Router {
    Router::new()
        .route("/ready", get(health::ready))
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/v1/models", get(health::models))
        .with_state(core)
}

fn stt_router(stt: Arc<Transcriber>) -> Router {
    Router::new()
        .route("/v1/audio/transcriptions", post(transcribe))
        .route("/v1/audio/diarizations", post(diarize))
        .with_state(stt.clone())
        .merge(health_routes(stt.core.clone()))
}

fn tts_router(tts: Arc<Synthesizer>) -> Router {
    let core = tts.core.clone();
    Router::new().route("/v1/audio/speech", post(speak)).with_state(tts).merge(health_routes(core))
}

/// Multipart with `file`, `response_format` and `diarization`; other fields are ignored.
async fn transcribe(State(stt): State<Arc<Transcriber>>, request: Request) -> Result<Response, Envelope> {
    let mut form = Form::read(request).await?;
    let speakers = form.flag("diarization", false)?;
    let format = form.field("response_format").unwrap_or("json").to_owned();
    if speakers && format != "verbose_json" {
        return Err(
            Refusal::parameter("diarization", "diarization needs response_format verbose_json").into()
        );
    }
    let render: fn(Transcript) -> Response = match format.as_str() {
        "json" => |heard| Json(json!({ "text": heard.text() })).into_response(),
        "text" => |heard| heard.text().into_response(),
        "verbose_json" => |heard| Json(verbose(&heard)).into_response(),
        other => {
            let text = format!("response_format '{other}' is not supported: use json, text or verbose_json");
            return Err(Refusal::parameter("response_format", text).into());
        }
    };
    let origin = form.origin(Reply::Whole);
    let wanted = form.wanted(&stt.core.capability, speakers)?;
    Ok(stt.transcribe(wav_only(form.take_file()?)?, wanted, &origin).await?.respond(render))
}

/// Multipart with `file` and `mode`.
async fn diarize(State(stt): State<Arc<Transcriber>>, request: Request) -> Result<Response, Envelope> {
    let mut form = Form::read(request).await?;
    if let Some(mode) = form.field("mode").filter(|mode| !["streaming", "offline"].contains(mode)) {
        let text = format!("mode must be streaming or offline, not '{mode}'");
        return Err(Refusal::parameter("mode", text).into());
    }
    let origin = form.origin(Reply::Whole);
    let served = stt.diarize(wav_only(form.take_file()?)?, &origin).await?;
    Ok(served.respond(|heard| Json(segments(&heard)).into_response()))
}

/// JSON as OpenAI's, always at normal speed.
async fn speak(State(tts): State<Arc<Synthesizer>>, request: Request) -> Result<Response, Envelope> {
    let body = SpeechBody::read(request).await?;
    if body.speed.is_some_and(|speed| speed != 1.0) {
        return Err(Refusal::parameter("speed", "speed must be 1").into());
    }
    let format = body.format("wav")?;
    let speech = body.speech(MAX_CHARACTERS, RATE_HZ, tts.core.capability.multilingual)?;
    Ok(tts.whole(speech, &body.origin()).await?.respond(|sound| format.render(&sound)))
}

fn wav_only(upload: Upload) -> Result<Recording, Refusal> {
    let other = Container::of(&upload.bytes) != Container::Wav && !upload.bytes.is_empty();
    if other {
        return Err(Refusal::parameter("file", "file must be WAV"));
    }
    Ok(Recording::File { bytes: upload.bytes, channels: Channels::Any })
}

/// Words without segments.
fn verbose(heard: &Transcript) -> Value {
    let words: Vec<Value> = heard
        .words()
        .map(|spoken| {
            let word = &spoken.word;
            let mut json = json!({
                "word": word.text,
                "start": ms(word.start_s),
                "end": ms(word.end_s),
                "confidence": ms(word.confidence),
            });
            if let Some(speaker) = spoken.speaker {
                json["speaker"] = (speaker + 1).into();
            }
            json
        })
        .collect();
    json!({
        "task": "transcribe",
        "language": heard.language,
        "duration": ms(heard.duration_s),
        "text": heard.text(),
        "words": words,
    })
}

/// Turns; speakers are numbered from 1.
fn segments(heard: &Diarization) -> Value {
    let segment = |turn: &crate::diarize::Turn| json!({ "start": ms(turn.start_s), "end": ms(turn.end_s), "speaker": turn.speaker + 1 });
    json!({ "segments": heard.turns.iter().map(segment).collect::<Vec<_>>() })
}
