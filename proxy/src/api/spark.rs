//! `POST /api/audio/transcribe-with-speakers`: words and speaker turns of one upload, merged, in spark-control's shape.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use contract::Capability;

use super::form::{Fields, Form};
use super::reference::Content::Schema;
use super::reference::{Body, Field, Kind, Operation, Schemas, field, post};
use super::{Context, may_wait, outgoing, rendered};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::work::{Need, Transcribe, Transcript, Turns, Work};
use crate::transcript::{self, Params, Rule};
use crate::upstream::Outgoing;

const FILE: &[Field] = &[field("file", Kind::File, "Audio in any common container.")];

/// These routes for the reference. Clients know the second one from spark-control's engine.
#[rustfmt::skip]
pub const OPERATIONS: &[Operation] = &[
    Operation { query: &[field("merge", Kind::OneOf(&["continuity", "legacy"]), "How words find their speaker.")], ..post("/api/audio/transcribe-with-speakers", "transcription", "transcribeWithSpeakers", "Words and speaker turns merged into blocks.", Body::Form(FILE), &[(200, "application/json", Schema(&["SpeakerTranscript"]))]) },
    post("/v1/audio/diarize", "transcription", "diarizeSpark", "Tells who spoke when, in the shape of spark-control's engine.", Body::Form(FILE), &[(200, "application/json", Schema(&["SpeakerTurns"]))]),
];

/// Query of the call.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Choice {
    /// How words find their speaker.
    #[serde(default)]
    merge: MergeRule,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MergeRule {
    #[default]
    Continuity,
    Legacy,
}

/// The reply.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SpeakerTranscript)]
struct Reply {
    duration: f64,
    language: String,
    speakers_detected: Vec<String>,
    segments: Vec<Segment>,
    models: Models,
}

/// What one speaker says without a longer pause.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SpeakerBlock)]
struct Segment {
    start_ms: i64,
    end_ms: i64,
    speaker: String,
    text: String,
}

/// The engines' names of their models.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SpeakerModels)]
struct Models {
    transcription: String,
    diarization: String,
}

/// Adds the reply to the reference.
pub fn schemas(schemas: &mut Schemas) {
    schemas.add::<Reply>();
}

/// Takes the upload, has it transcribed and diarized, merges the two.
pub async fn transcribe_with_speakers(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    choice: Result<Query<Choice>, QueryRejection>,
    request: Request,
) -> Result<Response, Error> {
    let Query(choice) = choice.map_err(|_| Error::param("merge", "merge must be continuity or legacy"))?;
    let form = context.open(request).await?;
    let (context, form) = (&*context, &form);
    form.serve(|fields| serve(context, form, fields, choice.merge, &request_id)).await
}

async fn serve(
    context: &Context,
    form: &Form,
    fields: Fields,
    rule: MergeRule,
    request_id: &RequestId,
) -> Result<Response, Error> {
    let job = job(context, form, &fields, request_id)?;
    let charge = request_id.charge(Unit::AudioSeconds, form.playing.seconds).await?;
    let served = context.upstreams.transcribe_with_speakers(&job).await?;
    let (transcript, turns) = served.value;
    let seconds = known(transcript.duration).or_else(|| known(turns.duration)).unwrap_or(0.0);
    context.served(form, request_id, (&served.engine, served.hedged), charge, seconds);
    let weight = transcript.words.len() + turns.turns.len();
    let render = move || Json(merge(transcript, turns, rule)).into_response();
    rendered(weight, render, || context.upstreams.failed(Capability::Stt, "its reply could not be read"))
        .await
}

fn job(context: &Context, form: &Form, fields: &Fields, request_id: &RequestId) -> Result<Outgoing, Error> {
    let config = context.config.get();
    let route = context.route(request_id, None, Capability::Stt)?;
    let work =
        Work::Transcribe(Transcribe { words: Need::Required, speakers: true, ..Transcribe::default() });
    let mut job = outgoing(route, work, form.playing.seconds, request_id);
    job.file = Some(form.upload(fields, &context.upstreams));
    job.may_wait = may_wait(&config, Capability::Stt, form.announced);
    Ok(job)
}

fn merge(mut transcript: Transcript, turns: Turns, rule: MergeRule) -> Reply {
    transcript::repair(&mut transcript.words);
    let rule = match rule {
        MergeRule::Continuity => Rule::Continuity,
        MergeRule::Legacy => Rule::Legacy,
    };
    let params = Params { rule, language: transcript.language.as_deref(), confidences: false };
    let merged = transcript::merge(&transcript.words, &turns.turns, &params);
    let segments = merged.blocks.into_iter().map(|block| Segment {
        start_ms: block.start_ms,
        end_ms: block.end_ms,
        speaker: block.speaker,
        text: block.text,
    });
    Reply {
        duration: known(transcript.duration).or_else(|| known(turns.duration)).unwrap_or(0.0),
        speakers_detected: turns.speakers,
        segments: segments.collect(),
        models: Models {
            transcription: transcript.model.unwrap_or_else(|| "unknown".into()),
            diarization: turns.model.unwrap_or_else(|| "unknown".into()),
        },
        language: transcript.language.unwrap_or_else(|| "en".into()),
    }
}

fn known(seconds: Option<f64>) -> Option<f64> {
    seconds.filter(|seconds| *seconds != 0.0)
}
