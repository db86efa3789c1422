//! A transcript in the shapes that OpenAI's transcript API answers with.

use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;

use crate::api::form::Playing;
use crate::api::openai::form::{Format, Parameters};
use crate::job::language;
use crate::job::work::{Need, Transcript};
use crate::transcript::segments::{Segment, segments};
use crate::transcript::{Word, repair, subtitle};

/// The language of a transcript for which neither engine nor client names one.
const DEFAULT_LANGUAGE: &str = "english";

#[derive(Serialize)]
struct Json {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct VerboseJson {
    task: &'static str,
    language: String,
    duration: f64,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<TimedWord>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<Segment>>,
    usage: Usage,
}

#[derive(Serialize)]
struct TimedWord {
    word: String,
    start: f64,
    end: f64,
}

#[derive(Serialize)]
struct Usage {
    r#type: &'static str,
    seconds: u64,
}

impl Usage {
    /// Billed as OpenAI does: begun seconds.
    fn duration(seconds: f64) -> Self {
        Self { r#type: "duration", seconds: seconds.ceil() as u64 }
    }
}

/// Seconds of audio of a transcript: the engine's word, else the file's, else the end of the last word, else the estimate.
pub(super) fn duration(transcript: &Transcript, playing: Playing) -> f64 {
    let spoken = transcript.words.iter().map(|word| word.end).fold(f64::NAN, f64::max);
    let stated = playing.exact.then_some(playing.seconds);
    let spoken = spoken.is_finite().then_some(spoken);
    transcript.duration.or(stated).or(spoken).unwrap_or(playing.seconds)
}

/// The reply to the client.
pub(super) fn render(mut transcript: Transcript, parameters: &Parameters, playing: Playing) -> Response {
    let duration = duration(&transcript, playing);
    let text = transcript.text.trim().to_owned();
    let words = &mut transcript.words;
    if words.is_empty() && !text.is_empty() && parameters.needs_words() != Need::No {
        // An engine without times: one stretch of all the text is the truth that is left.
        words.push(Word { start: 0.0, end: duration, text: text.clone() });
    }
    repair(words);
    match parameters.format {
        Format::Json => {
            let known = transcript.duration.is_some() || playing.exact;
            let usage = known.then(|| Usage::duration(duration));
            axum::Json(Json { text, usage }).into_response()
        }
        Format::Text => plain("text/plain; charset=utf-8", format!("{text}\n")),
        Format::Srt => plain("text/plain; charset=utf-8", subtitle::srt(&subtitle::cues(words, None))),
        Format::Vtt => plain("text/vtt; charset=utf-8", subtitle::vtt(&subtitle::cues(words, None))),
        Format::VerboseJson => {
            let language = transcript.language.as_ref().or(parameters.language.as_ref());
            let reply = VerboseJson {
                task: "transcribe",
                language: language::english_name(language.map_or(DEFAULT_LANGUAGE, String::as_str)),
                duration,
                text,
                words: parameters.words.then(|| timed(words)),
                segments: parameters.segments.then(|| segments(words)),
                usage: Usage::duration(duration),
            };
            axum::Json(reply).into_response()
        }
    }
}

fn timed(words: &[Word]) -> Vec<TimedWord> {
    let spoken = words.iter().filter(|word| !word.text.trim().is_empty());
    spoken
        .map(|word| TimedWord { word: word.text.trim().to_owned(), start: word.start, end: word.end })
        .collect()
}

fn plain(content_type: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
