//! The HTTP API of a Magpie NIM: voices, whole and streamed synthesis.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::{Entry, Side};
use crate::fault::origin::Reply;
use crate::form::Form;
use crate::health;
use crate::wire::Silence;
use crate::work::speech::{LONGEST_OFFLINE_S, MAX_CHARACTERS, Speech};
use crate::work::{Refusal, Synthesizer, voices};

pub(super) static ENTRY: Entry = Entry {
    name: "magpie",
    llm: None,
    stt: None,
    tts: Some(Side::Http { paths: &[PATHS, health::CONTAINER], router }),
};

const PATHS: &[&str] = &["/v1/audio/list_voices", "/v1/audio/synthesize", "/v1/audio/synthesize_online"];
/// Rate of a whole file when none is asked for, in Hz.
const OFFLINE_HZ: u32 = 22_050;
/// Rate of a stream when none is asked for, in Hz.
const ONLINE_HZ: u32 = 44_100;

fn router(tts: Arc<Synthesizer>) -> Router {
    Router::new()
        .route("/v1/audio/list_voices", get(list_voices))
        .route("/v1/audio/synthesize", post(synthesize))
        .route("/v1/audio/synthesize_online", post(synthesize_online))
        .with_state(tts.clone())
        .merge(health::container(tts.core.clone()))
}

async fn list_voices(State(tts): State<Arc<Synthesizer>>) -> Json<Value> {
    let voices = voices::subvoices(tts.core.capability.multilingual).into_iter();
    let named =
        |names: Vec<String>| names.iter().map(|name| format!("{}.{name}", voices::MODEL)).collect::<Vec<_>>();
    Json(
        voices
            .map(|(tag, names)| (tag.to_owned(), json!({ "voices": named(names) })))
            .collect::<Map<_, _>>()
            .into(),
    )
}

/// One WAV file, cut at 20 s as a NIM cuts it.
async fn synthesize(State(tts): State<Arc<Synthesizer>>, request: Request) -> Result<Response, Refusal> {
    let form = Form::read(request).await?;
    let mut speech = parse(&tts, &form, OFFLINE_HZ)?;
    speech.longest_s = Some(LONGEST_OFFLINE_S);
    let served = tts.whole(speech, &form.origin(Reply::Whole)).await?;
    Ok(served.respond(|sound| ([(header::CONTENT_TYPE, "audio/wav")], sound.wav()).into_response()))
}

/// Raw samples, little-endian, sent as they are made.
async fn synthesize_online(
    State(tts): State<Arc<Synthesizer>>,
    request: Request,
) -> Result<Response, Refusal> {
    let form = Form::read(request).await?;
    let speech = parse(&tts, &form, ONLINE_HZ)?;
    let served = tts.online(speech, &form.origin(Reply::Streamed)).await?;
    let silence = Silence::at(served.silent_after);
    Ok(served.respond(|pieces| {
        let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
        (kind, Body::from_stream(silence.cut(pieces))).into_response()
    }))
}

fn parse(tts: &Synthesizer, form: &Form, default_hz: u32) -> Result<Speech, Refusal> {
    let encoding = form.field("encoding").unwrap_or("LINEAR_PCM");
    if encoding != "LINEAR_PCM" {
        let text = format!("encoding '{encoding}' is not supported: use LINEAR_PCM");
        return Err(Refusal::parameter("encoding", text));
    }
    let refuse = |rate| {
        let text = format!("sample_rate_hz must be 8000 to 48000, not '{rate}'");
        Refusal::parameter("sample_rate_hz", text)
    };
    let rate_hz = match form.field("sample_rate_hz") {
        None => default_hz,
        Some(rate) => rate.parse().map_err(|_| refuse(rate))?,
    };
    let (voice, language) = (form.field("voice").unwrap_or_default(), form.field("language"));
    Speech::new(form.field("text").unwrap_or_default(), MAX_CHARACTERS, rate_hz)?.voiced(
        voice,
        language,
        tts.core.capability.multilingual,
    )
}
