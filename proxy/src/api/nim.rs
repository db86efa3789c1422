//! The HTTP routes of NVIDIA's text-to-speech NIM: voices, whole files of speech, and samples as they are made. And what a NIM says
//! of itself.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::StreamExt;
use http::header;
use serde_json::{Value, json};

use contract::Capability;

use super::Context;
use super::form::Fields;
use super::reference::{Body as Sent, Content, Field, Kind, Operation, field, get, post};
use super::speech::{self, Asked, Speech};
use crate::audio::{OutputFormat, wav};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::voice::VoiceName;

/// Samples per second when a request names none: of a whole file, and of samples as they are made.
const WHOLE_HZ: i64 = 22_050;
const ONLINE_HZ: i64 = 44_100;

const FORM: Sent = Sent::Form(FIELDS);
const FIELDS: &[Field] = &[
    field("text", Kind::Required, "What to say, at most 4,096 characters."),
    field("language", Kind::Text, "A tag such as en-US; that of the voice when unset."),
    field("voice", Kind::Text, "See GET /v1/audio/list_voices; the first of the language when unset."),
    field("sample_rate_hz", Kind::Whole(8_000, 48_000), "Samples per second."),
    field("encoding", Kind::OneOf(&["LINEAR_PCM", "OGGOPUS", "FLAC"]), "LINEAR_PCM when unset."),
    field("custom_dictionary", Kind::Text, "Pronunciations."),
];

/// These routes for the reference.
#[rustfmt::skip]
pub const OPERATIONS: &[Operation] = &[
    post("/v1/audio/synthesize", "speech", "synthesize", "Speaks a text to a whole file, as a NIM.", FORM, &[(200, "audio/wav", Content::Bytes), (200, "audio/ogg", Content::Bytes), (200, "audio/flac", Content::Bytes)]),
    post("/v1/audio/synthesize_online", "speech", "synthesizeOnline", "Speaks a text to samples as they are made, as a NIM.", FORM, &[(200, "application/octet-stream", Content::Bytes), (200, "audio/ogg", Content::Bytes), (200, "audio/flac", Content::Bytes)]),
    get("/v1/audio/list_voices", "lists", "listNimVoices", "The voices, as a NIM.", &[(200, "application/json", Content::Json)]),
    get("/v1/metadata", "stack", "getMetadata", "The models, as a NIM.", &[(200, "application/json", Content::Json)]),
    get("/v1/version", "stack", "getVersion", "The gateway's version, as a NIM.", &[(200, "application/json", Content::Json)]),
];

/// `GET /v1/audio/list_voices`: the voices under one key, the list of their locales.
///
/// # Errors
/// No engine has told its voices yet.
pub async fn list_voices(State(context): State<Arc<Context>>) -> Result<Json<Value>, Error> {
    let voices = context.voices.current().await;
    if voices.is_empty() {
        let retry_after = context.config.get().gateway.retry_after.min;
        let reason = "none has told its voices yet";
        return Err(Error::NoEngine { capability: Capability::Tts, reason, retry_after });
    }
    let mut locales: Vec<String> = Vec::new();
    for name in voices.iter().filter_map(|voice| VoiceName::parse(voice)) {
        let locale = name.language();
        if !locales.contains(&locale) {
            locales.push(locale);
        }
    }
    Ok(Json(json!({ locales.join(","): {"voices": &*voices} })))
}

/// `POST /v1/audio/synthesize`: a form of text and voice, answered with a whole file.
///
/// # Errors
/// What is wrong with the form, or with the engines.
pub async fn synthesize(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    let speech = wanted(&context, &request_id, request, WHOLE_HZ).await?;
    let (format, rate) = (speech.format, speech.sample_rate);
    let audio = speech::speak(context, request_id, speech).await?;
    let mut audio = std::pin::pin!(audio);
    let mut whole = BytesMut::new();
    while let Some(piece) = audio.next().await {
        whole.extend_from_slice(&piece?);
    }
    if format != OutputFormat::Pcm {
        return Ok(([(header::CONTENT_TYPE, content_type(format))], whole.freeze()).into_response());
    }
    let mut file = BytesMut::with_capacity(wav::HEADER_LEN + whole.len());
    file.extend_from_slice(&wav::header(rate, 1, Some(whole.len() as u64)));
    file.extend_from_slice(&whole);
    Ok(([(header::CONTENT_TYPE, OutputFormat::Wav.content_type())], file.freeze()).into_response())
}

/// `POST /v1/audio/synthesize_online`: the same form, answered with samples without a header as they are made.
///
/// # Errors
/// As [`synthesize`]; a failure after the first samples cuts the reply.
pub async fn synthesize_online(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    let speech = wanted(&context, &request_id, request, ONLINE_HZ).await?;
    let format = speech.format;
    let audio = speech::speak(context, request_id, speech).await?;
    Ok(([(header::CONTENT_TYPE, content_type(format))], Body::from_stream(audio)).into_response())
}

/// `GET /v1/metadata`: the models.
pub async fn metadata(State(context): State<Arc<Context>>) -> Json<Value> {
    let config = context.config.get();
    let models = config.gateway.models.iter().filter(|model| config.has(model.capability));
    let models: Vec<Value> =
        models.map(|model| json!({"shortName": model.id, "modelUrl": model.id})).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"), "repository_override": "", "assetInfo": [], "modelInfo": models,
        "licenseInfo": {"name": env!("CARGO_PKG_LICENSE"), "path": "", "sha": "", "size": "", "url": "", "type": "", "content": ""},
    }))
}

/// `GET /v1/version`.
pub async fn version() -> Json<Value> {
    Json(json!({"release": env!("CARGO_PKG_VERSION"), "api": "1.0.0"}))
}

fn content_type(format: OutputFormat) -> &'static str {
    match format {
        OutputFormat::Pcm => "application/octet-stream",
        OutputFormat::Opus => "audio/ogg",
        _ => format.content_type(),
    }
}

async fn wanted(
    context: &Context,
    request_id: &RequestId,
    request: Request,
    rate: i64,
) -> Result<Speech, Error> {
    let fields = Fields::of_body(request).await?;
    let format = match fields.set("encoding") {
        None | Some("LINEAR_PCM") => OutputFormat::Pcm,
        Some("OGGOPUS" | "OGG_OPUS") => OutputFormat::Opus,
        Some("FLAC") => OutputFormat::Flac,
        Some(_) => return Err(Error::param("encoding", "encoding must be LINEAR_PCM, OGGOPUS or FLAC")),
    };
    let sample_rate = match fields.set("sample_rate_hz") {
        None => rate,
        Some(text) => text.parse().map_err(|_| {
            Error::param("sample_rate_hz", "sample_rate_hz must be a whole number from 8000 to 48000")
        })?,
    };
    let asked = Asked {
        text: fields.last("text").unwrap_or_default(),
        language: ("language", fields.set("language").unwrap_or_default()),
        voice: ("voice", fields.set("voice").unwrap_or_default()),
        sample_rate,
        format,
        dictionary: fields.set("custom_dictionary").unwrap_or_default(),
    };
    asked.check(context, request_id).await
}
