//! Transcriptions of uploaded files, in every response format.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::subtitles;
use crate::fault::origin::Reply;
use crate::form::Form;
use crate::language;
use crate::protocol::envelope::Envelope;
use crate::protocol::ms;
use crate::work::transcribe::{Recording, Spoken, Transcript, confidence, text};
use crate::work::{Refusal, Transcriber};

/// Largest body.
const MAX_BODY_BYTES: usize = 26_214_400;
/// The files that it takes, by their names.
const EXTENSIONS: [&str; 9] = ["flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "wav", "webm"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Text,
    VerboseJson,
    Srt,
    Vtt,
    DiarizedJson,
}

/// Which times `verbose_json` has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    words: bool,
    segments: bool,
}

/// Multipart with `file`, `model`, `response_format` and `timestamp_granularities[]`; other fields are ignored.
pub(super) async fn transcribe(
    State(stt): State<Arc<Transcriber>>,
    request: Request,
) -> Result<Response, Envelope> {
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(length) = length.filter(|length: &usize| *length > MAX_BODY_BYTES) {
        let text =
            format!("413: Maximum content size limit ({MAX_BODY_BYTES}) exceeded ({length} bytes read)");
        return Err(Refusal::Body(StatusCode::PAYLOAD_TOO_LARGE, text).into());
    }
    let mut form = Form::read(request).await?;
    let format = format(&form)?;
    let times = times(&form, format)?;
    form.field("model").ok_or(Refusal::Missing("model"))?;
    let origin = form.origin(Reply::Whole);
    let wanted = form.wanted(&stt.core.capability, format == Format::DiarizedJson)?;
    let upload = form.take_file()?;
    let extension = upload.extension();
    if !EXTENSIONS.contains(&extension.as_str()) {
        let text = format!("Unsupported file format {extension}");
        return Err(Refusal::parameter("file", text).into());
    }
    let served = stt.transcribe(Recording::file(upload.bytes), wanted, &origin).await?;
    Ok(served.respond(|heard| render(&heard, format, times)))
}

fn format(form: &Form) -> Result<Format, Refusal> {
    match form.field("response_format").unwrap_or("json") {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        "verbose_json" => Ok(Format::VerboseJson),
        "srt" => Ok(Format::Srt),
        "vtt" => Ok(Format::Vtt),
        "diarized_json" => Ok(Format::DiarizedJson),
        other => {
            let text = format!("response_format '{other}' is not supported");
            Err(Refusal::parameter("response_format", text))
        }
    }
}

fn times(form: &Form, format: Format) -> Result<Times, Refusal> {
    let name = "timestamp_granularities[]";
    let mut times = Times { words: false, segments: false };
    for granularity in form.all(name).chain(form.all("timestamp_granularities")) {
        match granularity {
            "word" => times.words = true,
            "segment" => times.segments = true,
            other => return Err(Refusal::parameter(name, format!("granularity '{other}' is not known"))),
        }
    }
    let given = times.words || times.segments;
    if given && format != Format::VerboseJson {
        return Err(Refusal::parameter(name, format!("{name} needs response_format verbose_json")));
    }
    Ok(if given { times } else { Times { words: false, segments: true } })
}

fn render(heard: &Transcript, format: Format, times: Times) -> Response {
    let plain = |kind: &'static str, body: String| ([(header::CONTENT_TYPE, kind)], body).into_response();
    match format {
        Format::Json => Json(json!({ "text": heard.text(), "usage": usage(heard) })).into_response(),
        Format::Text => plain("text/plain; charset=utf-8", heard.text() + "\n"),
        Format::VerboseJson => Json(verbose(heard, times)).into_response(),
        Format::Srt => plain("text/plain; charset=utf-8", subtitles::srt(heard)),
        Format::Vtt => plain("text/vtt; charset=utf-8", subtitles::vtt(heard)),
        Format::DiarizedJson => Json(diarized(heard)).into_response(),
    }
}

fn usage(heard: &Transcript) -> Value {
    json!({ "type": "duration", "seconds": heard.duration_s.ceil() })
}

fn verbose(heard: &Transcript, times: Times) -> Value {
    let mut json = json!({
        "task": "transcribe",
        "language": language::name(&heard.language),
        "duration": ms(heard.duration_s),
        "text": heard.text(),
        "usage": usage(heard),
    });
    if times.words {
        let word = |spoken: &Spoken| {
            let word = &spoken.word;
            json!({ "word": word.text, "start": ms(word.start_s), "end": ms(word.end_s) })
        };
        json["words"] = heard.words().map(word).collect();
    }
    if times.segments {
        json["segments"] =
            heard.sentences.iter().enumerate().map(|(id, sentence)| segment(id, sentence)).collect();
    }
    json
}

/// A segment with all ten fields; what recognition does not know is neutral.
fn segment(id: usize, sentence: &[Spoken]) -> Value {
    let start_s = sentence.first().map_or(0.0, |spoken| spoken.word.start_s);
    let end_s = sentence.last().map_or(0.0, |spoken| spoken.word.end_s);
    json!({
        "id": id,
        "seek": 0,
        "start": ms(start_s),
        "end": ms(end_s),
        "text": text(sentence),
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": ms(confidence(sentence).max(1e-3).ln()),
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    })
}

/// A segment for each run of words by one speaker: A, B and so on.
fn diarized(heard: &Transcript) -> Value {
    let mut runs: Vec<Vec<Spoken>> = Vec::new();
    for spoken in heard.words() {
        match runs.last_mut() {
            Some(run) if run.first().is_some_and(|first| first.speaker == spoken.speaker) => {
                run.push(spoken.clone());
            }
            _ => runs.push(vec![spoken.clone()]),
        }
    }
    let segment = |(index, run): (usize, &Vec<Spoken>)| {
        let (first, last) = (run.first()?, run.last()?);
        Some(json!({
            "type": "transcript.text.segment",
            "id": format!("seg_{:03}", index + 1),
            "start": ms(first.word.start_s),
            "end": ms(last.word.end_s),
            "text": text(run),
            "speaker": label(first.speaker),
        }))
    };
    let segments: Vec<Value> = runs.iter().enumerate().filter_map(segment).collect();
    json!({
        "task": "transcribe",
        "duration": ms(heard.duration_s),
        "text": heard.text(),
        "segments": segments,
        "usage": usage(heard),
    })
}

fn label(speaker: Option<usize>) -> String {
    let letter = u8::try_from(speaker.unwrap_or(0).min(25)).unwrap_or(25);
    char::from(b'A' + letter).to_string()
}
