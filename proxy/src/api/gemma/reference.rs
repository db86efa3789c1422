//! `POST /v1/encode-reference`: a recording is kept, and its voice is used by `reference_id` from then on.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::header;
use serde_json::{Value, json};
use uuid::Uuid;

use super::files::MAX_FILE;
use super::turn::text;
use super::{FILE_BODY_BYTES, invalid_json, json_reply};
use crate::api::live::base64;
use crate::api::openai::clips::{self, New};
use crate::api::{Context, owner, small};
use crate::clips::Kind;
use crate::edge::RequestId;
use crate::error::Error;

/// Keeps a recording that came in a form, or in base64 in JSON.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    serve(&context, &request_id, request).await.unwrap_or_else(Error::flat)
}

async fn serve(context: &Arc<Context>, request_id: &RequestId, request: Request) -> Result<Response, Error> {
    let owner = owner(request_id, request.headers());
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let (named, consent, transcript, file) = if content_type
        .is_some_and(|kind| kind.starts_with("application/json"))
    {
        let body = small::read(request.into_body(), FILE_BODY_BYTES).await?;
        let Ok(Value::Object(fields)) = serde_json::from_slice(&body) else {
            return Err(invalid_json("the request body must be a JSON object or a form with a file"));
        };
        let audio = text(&fields, "audio_base64")?.or(text(&fields, "audio")?).and_then(base64);
        let audio = audio
            .ok_or_else(|| Error::param("audio_base64", "audio_base64 must be a recording in base64"))?;
        let read = |name| text(&fields, name).map(|text| text.map(str::to_owned));
        let named = read("reference_id")?.or(read("name")?);
        (named, read("consent")?, read("text")?.or(read("transcript")?), (audio, None))
    } else {
        let form = context.open(request).await?;
        let file = form.bytes(MAX_FILE).await?;
        let read = |name: &str| form.says(|fields| fields.set(name).map(str::to_owned));
        let named = read("reference_id").or_else(|| read("name"));
        (named, read("consent"), read("text").or_else(|| read("transcript")), (file, Some(form.container())))
    };
    let name = named.unwrap_or_else(|| format!("ref-{}", Uuid::now_v7().simple()));
    let new = New { name, consent, transcript, language: None };
    let clip = clips::keep(context, &owner, Kind::Voice, new, file).await?;
    Ok(json_reply(&json!({
        "reference_id": clip.name, "id": clip.id, "duration": clip.seconds, "sample_rate": clip.rate,
        "text": clip.transcript, "status": "encoded",
    })))
}
