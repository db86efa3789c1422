//! `POST /v1/conversation/dialogue`, also `/v1/dialogue`: a recording or a text in, the answer out with its speech.
//!
//! With `stream_audio` the reply is lines of JSON that come while the model still writes, each with its name as `event` and as
//! `type`: `metadata`, `transcript`, `assistant_delta` for each piece of the text, `audio_chunk`, `assistant_text` with the whole
//! text, and `done`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::files::MAX_FILE;
use super::speech::Asked;
use super::turn::{self, Party};
use super::{FILE_BODY_BYTES, heard, invalid_json, json_reply};
use crate::api::form::Fields;
use crate::api::live::{base64, to_base64};
use crate::api::llm::spoken::{Piece, Stages};
use crate::api::{Context, credential, small};
use crate::edge::RequestId;
use crate::error::Error;

/// What was said.
enum Said {
    File(Bytes),
    Text(String),
}

/// Has a turn answered.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    serve(context, request_id, request).await.unwrap_or_else(Error::flat)
}

async fn serve(context: Arc<Context>, request_id: RequestId, request: Request) -> Result<Response, Error> {
    let credential = credential(request.headers()).cloned();
    let is_json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    let (fields, said) = if is_json {
        of_json(&small::read(request.into_body(), FILE_BODY_BYTES).await?)?
    } else {
        let form = context.open(request).await?;
        let file = form.bytes(MAX_FILE).await?;
        (form.says(of_form)?, Said::File(file))
    };
    let session = turn::text(&fields, "session_id")?;
    let mut party = Party::new(&context, &request_id, credential.as_ref(), session)?;
    let sampled = fields.get("generation_config");
    party.configure(turn::text(&fields, "instructions")?, sampled, fields.get("synthesis_config"))?;
    let streams = match fields.get("stream_audio") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(streams)) => *streams,
        Some(_) => return Err(Error::param("stream_audio", "stream_audio must be true or false")),
    };
    let voice = party.voice().await?;
    let transcript = match said {
        Said::Text(text) => json!({"text": text, "language": null, "segments": []}),
        Said::File(file) => {
            let wanted = heard::wanted(&heard::fields(&fields)?)?;
            party.hear(file, wanted).await?
        }
    };
    let text = transcript["text"].as_str().unwrap_or_default().to_owned();
    let pieces = party.reply(text, voice.as_ref()).await?;
    let metadata = metadata(&party, voice.as_ref());
    if streams {
        return Ok(lines(metadata, transcript, pieces));
    }
    whole(metadata, transcript, voice.as_ref(), pieces).await
}

/// The fields of a body in JSON, and what was said in it.
fn of_json(body: &[u8]) -> Result<(Map<String, Value>, Said), Error> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return Err(invalid_json("the request body must be a JSON object or a form with a file"));
    };
    let said = match (turn::text(&fields, "audio_base64")?, turn::text(&fields, "text")?) {
        (Some(audio), _) => {
            let file = base64(audio).ok_or_else(|| Error::param("audio_base64", "Invalid base64"))?;
            Said::File(file)
        }
        (None, Some(text)) => Said::Text(text.trim().to_owned()),
        (None, None) => {
            return Err(Error::param("text", "send text, audio_base64, or a form with a file"));
        }
    };
    Ok((fields, said))
}

/// The fields of a form, in which objects and flags are texts.
fn of_form(fields: &Fields) -> Result<Map<String, Value>, Error> {
    let mut read = Map::new();
    for name in ["instructions", "session_id", "language", "prompt", "temperature"] {
        if let Some(value) = fields.set(name) {
            read.insert(name.to_owned(), json!(value));
        }
    }
    for name in ["generation_config", "synthesis_config"] {
        if let Some(value) = fields.set(name) {
            let value = serde_json::from_str(value);
            let value: Value = value.map_err(|_| Error::param(name, format!("{name} must be JSON")))?;
            read.insert(name.to_owned(), value);
        }
    }
    if let Some(streams) = fields.set("stream_audio") {
        let streams = match streams {
            "true" | "True" | "1" => true,
            "false" | "False" | "0" => false,
            _ => return Err(Error::param("stream_audio", "stream_audio must be true or false")),
        };
        read.insert("stream_audio".to_owned(), json!(streams));
    }
    Ok(read)
}

fn metadata(party: &Party, voice: Option<&Asked>) -> Value {
    let mut metadata = voice.map_or_else(|| json!({}), Asked::metadata);
    metadata["session_id"] = json!(party.name.1);
    metadata
}

/// One JSON document.
async fn whole(
    metadata: Value,
    transcript: Value,
    voice: Option<&Asked>,
    mut pieces: BoxStream<'static, Piece>,
) -> Result<Response, Error> {
    let (mut text, mut audio, mut mute) = (String::new(), BytesMut::new(), None);
    let mut stages = Stages::default();
    while let Some(piece) = pieces.next().await {
        match piece {
            Piece::Text(more) => text.push_str(&more),
            Piece::Audio(more) => audio.extend_from_slice(&more),
            Piece::Broken(error) => return Err(error),
            Piece::Mute(error) => mute = Some(error.to_string()),
            Piece::Written => {}
            Piece::End(end) => stages = end,
        }
    }
    let mut shown = json!({
        "transcript": transcript, "assistant_text": text.trim(), "session_id": metadata["session_id"],
        "timings": timings(stages),
    });
    if let Some(voice) = voice {
        let mut spoken = metadata;
        spoken["audio_base64"] = match audio.is_empty() {
            true => Value::Null,
            false => json!(to_base64(&voice.whole(audio.freeze()))),
        };
        shown["audio"] = spoken;
    }
    if let Some(error) = mute {
        shown["warning"] = json!(format!("the answer was not spoken: {error}"));
    }
    Ok(json_reply(&shown))
}

/// Lines of JSON as they come.
fn lines(metadata: Value, transcript: Value, pieces: BoxStream<'static, Piece>) -> Response {
    let before = [line("metadata", metadata), line("transcript", transcript)];
    let rest = stream::unfold((pieces, String::new()), |(mut pieces, mut text)| async move {
        let piece = pieces.next().await?;
        let line = match piece {
            Piece::Text(more) => {
                text.push_str(&more);
                line("assistant_delta", json!({"text": more}))
            }
            Piece::Written => line("assistant_text", json!({"text": text.trim()})),
            Piece::Audio(audio) => line("audio_chunk", json!({"audio_base64": to_base64(&audio)})),
            Piece::Broken(error) => line("error", json!({"detail": error.to_string()})),
            Piece::Mute(error) => line("warning", json!({"detail": error.to_string()})),
            Piece::End(stages) => line("done", json!({"status": "complete", "timings": timings(stages)})),
        };
        Some((line, (pieces, text)))
    });
    let lines = stream::iter(before).chain(rest).map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn line(name: &str, data: Value) -> Bytes {
    let line = json!({"event": name, "type": name, "data": data});
    format!("{line}\n").into()
}

/// Milliseconds from the end of what was heard to each stage of the answer.
pub(super) fn timings(stages: Stages) -> Value {
    let millis = |stage: Option<std::time::Duration>| stage.map(|stage| stage.as_millis() as u64);
    json!({
        "first_text_ms": millis(stages.first_text), "first_audio_ms": millis(stages.first_audio),
        "written_ms": millis(stages.written),
    })
}
