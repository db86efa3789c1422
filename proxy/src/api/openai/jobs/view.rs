//! A job as its client sees it.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::api::Context;
use crate::api::form::Fields;
use crate::api::openai::form::Parameters;
use crate::error::Error;
use crate::jobs::{Failure, Jobs, Outcome, Record, Status};

/// Unix time, milliseconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The job object.
#[derive(Serialize, ToSchema)]
#[schema(as = AudioJob)]
pub struct Job {
    id: String,
    object: &'static str,
    status: Status,
    /// Unix time, seconds, as the other times.
    created_at: u64,
    started_at: Option<u64>,
    ended_at: Option<u64>,
    expires_at: Option<u64>,
    model: Option<String>,
    /// Seconds of audio.
    duration: f64,
    /// 0 to 1.
    progress: f64,
    queue_position: Option<usize>,
    attempts: u32,
    /// That of OpenAI's envelope.
    #[schema(value_type = Option<Object>)]
    error: Option<Value>,
    result_url: Option<String>,
    webhook: Option<Hook>,
}

/// What became of the message about the job's end.
#[derive(Serialize, ToSchema)]
#[schema(as = AudioJobWebhook)]
struct Hook {
    url: String,
    attempts: u32,
    /// `pending`, `delivered` or `failed`.
    status: &'static str,
}

/// A page of jobs.
#[derive(Serialize, ToSchema)]
#[schema(as = AudioJobList)]
pub struct List {
    object: &'static str,
    data: Vec<Job>,
    has_more: bool,
}

impl List {
    pub(super) fn new(data: Vec<Job>, has_more: bool) -> Self {
        Self { object: "list", data, has_more }
    }
}

/// Shows a job.
pub(super) fn job(context: &Context, jobs: &Jobs, record: &Record) -> Job {
    let seconds = |millis: Option<u64>| millis.map(|millis| millis / 1000);
    let ttl = context.config.get().gateway.jobs.ttl.as_millis() as u64;
    let progress = match record.status {
        Status::Succeeded => 1.0,
        _ if record.seconds > 0.0 => (record.heard / record.seconds).min(0.99),
        _ => 0.0,
    };
    let model = record.fields.iter().rev().find(|(name, _)| name == "model").map(|(_, value)| value.clone());
    Job {
        id: record.id.clone(),
        object: "audio.job",
        status: record.status,
        created_at: record.created / 1000,
        started_at: seconds(record.started),
        ended_at: seconds(record.ended),
        expires_at: seconds(record.ended.map(|ended| ended + ttl)),
        model,
        duration: record.seconds,
        progress: (progress * 1000.0_f64).round() / 1000.0,
        queue_position: jobs.position(&record.id),
        attempts: record.attempts,
        error: record.failure.as_ref().map(|failure| failure.error.clone()),
        result_url: (record.status == Status::Succeeded)
            .then(|| format!("/v1/audio/jobs/{}/result", record.id)),
        webhook: record.webhook.as_ref().map(|webhook| Hook {
            url: webhook.url.clone(),
            attempts: webhook.attempts,
            status: match webhook.delivered {
                None => "pending",
                Some(true) => "delivered",
                Some(false) => "failed",
            },
        }),
    }
}

/// The reply that the client of a failed job would have got.
pub(super) fn failed(failure: &Failure) -> Response {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({"error": failure.error, "detail": failure.error["message"]});
    // The job has failed for good: to ask for its result again changes nothing.
    (status, [("x-should-retry", "false")], Json(body)).into_response()
}

/// How a result is to be written: as the query says, else as the job's form said.
pub(super) fn parameters(record: &Record, asked: &Fields, outcome: &Outcome) -> Result<Parameters, Error> {
    let mut fields = Fields::default();
    let formats = ["response_format", "timestamp_granularities", "timestamp_granularities[]"];
    let overridden = formats.iter().any(|name| asked.last(name).is_some());
    for (name, value) in &record.fields {
        if !(overridden && formats.contains(&name.as_str())) {
            fields.push(name.clone(), value.clone());
        }
    }
    for (name, value) in asked.pairs() {
        fields.push(name.clone(), value.clone());
    }
    let mut parameters = Parameters::read(&fields)?;
    parameters.stream = false;
    if parameters.words && outcome.transcript.words.is_empty() && !outcome.transcript.text.is_empty() {
        return Err(Error::param("timestamp_granularities", "the engine gave no word times"));
    }
    let said = outcome.turns.is_some();
    if parameters.speakers && !said {
        let message = "the job was made without speakers: set diarize=true when you make it";
        return Err(Error::param("response_format", message));
    }
    parameters.speakers |= said && asked.set("diarize").is_none();
    Ok(parameters)
}
