//! `POST /v1/audio/diarizations`: who spoke when, without words.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;
use utoipa::ToSchema;

use contract::Capability;

use super::form::{Fields, Form, Playing};
use super::reference::Schemas;
use super::{Context, may_wait, outgoing, rendered};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::work::{Turns, Work};
use crate::transcript::Turn;
use crate::upstream::Served;

/// How the turns are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Rttm,
    /// As spark-control's engine.
    Spark,
}

/// Who spoke when.
#[derive(Serialize, ToSchema)]
#[schema(as = Diarization)]
struct Reply {
    task: &'static str,
    duration: f64,
    num_speakers: usize,
    segments: Vec<Segment>,
    model: Option<String>,
}

/// A turn; speakers are `SPEAKER_00`, `SPEAKER_01` and so on in the order in which they speak.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = DiarizationSegment)]
struct Segment {
    id: usize,
    start: f64,
    end: f64,
    speaker: String,
}

/// Who spoke when, as spark-control's engine says it.
#[derive(Serialize, ToSchema)]
#[schema(as = SpeakerTurns)]
struct SparkReply {
    segments: Vec<SparkSegment>,
    speakers_detected: Vec<String>,
    duration: f64,
    model: String,
}

/// A turn, with the engine's own name for its speaker.
#[derive(Serialize, ToSchema)]
#[schema(as = SpeakerTurn)]
struct SparkSegment {
    start_s: f64,
    end_s: f64,
    speaker: String,
}

/// Adds the replies to the reference.
pub fn schemas(schemas: &mut Schemas) {
    schemas.add::<Reply>();
    schemas.add::<SparkReply>();
}

/// Takes the upload, has its speakers told apart.
///
/// # Errors
/// What is wrong with the upload; a 400 when no engine tells speakers apart; what the engines showed.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    take(&context, &request_id, Format::Json, request).await
}

/// As [`create`], in spark-control's shape unless another one is asked for.
///
/// # Errors
/// As [`create`].
pub async fn create_for_spark(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    take(&context, &request_id, Format::Spark, request).await
}

async fn take(
    context: &Context,
    request_id: &RequestId,
    usual: Format,
    request: Request,
) -> Result<Response, Error> {
    let form = &context.open(request).await?;
    form.serve(|fields| diarize(context, form, fields, usual, request_id)).await
}

async fn diarize(
    context: &Context,
    form: &Form,
    fields: Fields,
    usual: Format,
    request_id: &RequestId,
) -> Result<Response, Error> {
    let format = format(&fields, usual)?;
    let config = context.config.get();
    let route = context.route(request_id, fields.set("model"), Capability::Stt)?;
    let mut job = outgoing(route, Work::Diarize, form.playing.seconds, request_id);
    job.file = Some(form.upload(&fields, &context.upstreams));
    job.may_wait = may_wait(&config, Capability::Stt, form.announced);
    let charge = request_id.charge(Unit::AudioSeconds, form.playing.seconds).await?;
    let Served { value: turns, engine, hedged } = context.upstreams.speaker_turns(&job).await?;
    let playing = form.playing;
    context.served(form, request_id, (&engine, hedged), charge, duration(&turns, playing));
    let weight = turns.turns.len();
    let render = move || render(&turns, format, playing);
    rendered(weight, render, || context.upstreams.failed(Capability::Stt, "its reply could not be read"))
        .await
}

fn format(fields: &Fields, usual: Format) -> Result<Format, Error> {
    match fields.set("response_format") {
        None => Ok(usual),
        Some("json") => Ok(if usual == Format::Spark { usual } else { Format::Json }),
        Some("verbose_json") => Ok(Format::Json),
        Some("rttm") => Ok(Format::Rttm),
        Some(other) => {
            let message =
                format!("response_format '{other}' is not supported; use json, verbose_json or rttm");
            Err(Error::param("response_format", message))
        }
    }
}

/// Seconds of audio: the engine's word, else the file's.
fn duration(turns: &Turns, playing: Playing) -> f64 {
    turns.duration.unwrap_or(playing.seconds)
}

fn render(turns: &Turns, format: Format, playing: Playing) -> Response {
    match format {
        Format::Spark => Json(spark(turns, playing)).into_response(),
        Format::Json => {
            let segments = segments(turns);
            let speakers: HashSet<&str> = segments.iter().map(|segment| segment.speaker.as_str()).collect();
            let (duration, num_speakers) = (duration(turns, playing), speakers.len());
            let model = turns.model.clone();
            Json(Reply { task: "diarize", duration, num_speakers, segments, model }).into_response()
        }
        Format::Rttm => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], rttm(&segments(turns))).into_response()
        }
    }
}

fn spark(turns: &Turns, playing: Playing) -> SparkReply {
    let segments = ordered(turns).into_iter().map(|turn| SparkSegment {
        start_s: millis(turn.start.max(0.0)),
        end_s: millis(turn.end),
        speaker: turn.speaker.clone(),
    });
    SparkReply {
        segments: segments.collect(),
        speakers_detected: turns.speakers.clone(),
        duration: duration(turns, playing),
        model: turns.model.clone().unwrap_or_else(|| "unknown".into()),
    }
}

/// The turns in order of time; those without one are left out.
fn ordered(turns: &Turns) -> Vec<&Turn> {
    let mut sorted: Vec<_> =
        turns.turns.iter().filter(|turn| turn.start.is_finite() && turn.end > turn.start).collect();
    sorted.sort_by(|a, b| a.start.total_cmp(&b.start).then(a.end.total_cmp(&b.end)));
    sorted
}

/// The turns in order of time, their speakers numbered.
fn segments(turns: &Turns) -> Vec<Segment> {
    let sorted = ordered(turns);
    let mut named: HashMap<&str, String> = HashMap::new();
    let mut segments = Vec::with_capacity(sorted.len());
    for (id, turn) in sorted.into_iter().enumerate() {
        let next = named.len();
        let speaker = named.entry(&turn.speaker).or_insert_with(|| format!("SPEAKER_{next:02}")).clone();
        segments.push(Segment { id, start: millis(turn.start.max(0.0)), end: millis(turn.end), speaker });
    }
    segments
}

fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Rich Transcription Time Marked (NIST RT-09 evaluation plan, appendix A): one line a turn.
fn rttm(segments: &[Segment]) -> String {
    let mut out = String::new();
    for Segment { start, end, speaker, .. } in segments {
        // A string takes all that is written.
        let _ = writeln!(out, "SPEAKER audio 1 {start:.3} {:.3} <NA> <NA> {speaker} <NA> <NA>", end - start);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_ordered_and_named_as_they_speak() {
        let turn = |start, end, speaker: &str| Turn { start, end, speaker: speaker.to_owned() };
        let turns = Turns {
            turns: vec![
                turn(2.0, 3.5, "spk4"),
                turn(0.0004, 2.1, "spk9"),
                turn(f64::NAN, 1.0, "x"),
                turn(4.0, 5.0, "spk9"),
            ],
            ..Turns::default()
        };
        let expected = "SPEAKER audio 1 0.000 2.100 <NA> <NA> SPEAKER_00 <NA> <NA>\n\
            SPEAKER audio 1 2.000 1.500 <NA> <NA> SPEAKER_01 <NA> <NA>\n\
            SPEAKER audio 1 4.000 1.000 <NA> <NA> SPEAKER_00 <NA> <NA>\n";
        assert_eq!(rttm(&segments(&turns)), expected);
    }
}
