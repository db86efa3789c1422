//! `POST /transcribe`, as the Parakeet FastAPI wrapper has it: text, and times of words and segments when asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use contract::Capability;

use super::form::{Fields, Form};
use super::reference::Schemas;
use super::{Context, check_offers, may_wait, outgoing, rendered};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::work::{Need, Transcribe, Transcript, Work};
use crate::transcript::segments::segments;
use crate::transcript::{Word, repair};
use crate::upstream::Served;

/// A transcript, and its times if they were asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = ParakeetTranscript)]
struct Reply {
    text: String,
    timestamps: Option<Timestamps>,
}

/// Times under both names that clients read: NeMo's own, and those of the wrapper's documentation.
#[derive(Serialize, ToSchema)]
#[schema(as = ParakeetTimestamps)]
pub struct Timestamps {
    word: Vec<Timed>,
    segment: Vec<Timed>,
    words: Vec<Timed>,
    segments: Vec<Timed>,
}

/// A piece of text with its times in seconds.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = ParakeetTimed)]
struct Timed {
    #[serde(skip_serializing_if = "Option::is_none")]
    word: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<String>,
    start: f64,
    end: f64,
}

/// Adds the reply to the reference.
pub fn schemas(schemas: &mut Schemas) {
    schemas.add::<Reply>();
}

/// Takes the upload, has it transcribed. A file of another type is a 415, and one that cannot be transcribed a 422, as there.
pub async fn transcribe(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let served = async {
        let form = context.open(request).await?;
        let (context, form) = (&*context, &form);
        form.serve(|fields| serve(context, form, fields, &request_id)).await
    };
    match served.await {
        Ok(response) => response,
        Err(error) => {
            let status = match &error {
                Error::UnsupportedFile { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Error::Undecodable { .. } | Error::EngineRefused { status: StatusCode::BAD_REQUEST, .. } => {
                    StatusCode::UNPROCESSABLE_ENTITY
                }
                error => error.status(),
            };
            let mut response = error.into_response();
            *response.status_mut() = status;
            response
        }
    }
}

async fn serve(
    context: &Context,
    form: &Form,
    fields: Fields,
    request_id: &RequestId,
) -> Result<Response, Error> {
    // `should_chunk` is accepted: how a recording is cut changes no word.
    let timed = fields.flag("include_timestamps")?;
    let config = context.config.get();
    let route = context.route(request_id, None, Capability::Stt)?;
    let words = if timed { Need::Required } else { Need::No };
    let work = Work::Transcribe(Transcribe { words, ..Transcribe::default() });
    check_offers(&context.upstreams, &route, &work)?;
    let mut job = outgoing(route, work, form.playing.seconds, request_id);
    job.file = Some(form.upload(&fields, &context.upstreams));
    job.may_wait = may_wait(&config, Capability::Stt, form.announced);
    let charge = request_id.charge(Unit::AudioSeconds, form.playing.seconds).await?;
    let Served { value: transcript, engine, hedged } = context.upstreams.transcribe(&job).await?;
    let seconds = transcript.duration.unwrap_or(form.playing.seconds);
    context.served(form, request_id, (&engine, hedged), charge, seconds);
    let weight = transcript.words.len();
    let render = move || Json(reply(transcript, timed)).into_response();
    rendered(weight, render, || context.upstreams.failed(Capability::Stt, "its reply could not be read"))
        .await
}

fn reply(mut transcript: Transcript, timed: bool) -> Reply {
    let text = transcript.text.trim().to_owned();
    if !timed {
        return Reply { text, timestamps: None };
    }
    repair(&mut transcript.words);
    Reply { text, timestamps: Some(Timestamps::of(&transcript.words)) }
}

impl Timestamps {
    /// The times of words, which are finite and in order.
    pub fn of(words: &[Word]) -> Self {
        let spoken = words.iter().filter(|word| !word.text.trim().is_empty());
        let word: Vec<Timed> = spoken
            .map(|word| Timed {
                word: Some(word.text.trim().to_owned()),
                segment: None,
                start: word.start,
                end: word.end,
            })
            .collect();
        let segment: Vec<Timed> = segments(words, None)
            .into_iter()
            .map(|found| Timed { word: None, segment: Some(found.text), start: found.start, end: found.end })
            .collect();
        let (words, segments) = (word.clone(), segment.clone());
        Self { word, segment, words, segments }
    }
}
