//! A transcript in the shapes that OpenAI's transcript API answers with.

use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;

use crate::api::form::Playing;
use crate::api::openai::events;
use crate::api::openai::form::{Format, Parameters};
use crate::job::language;
use crate::job::work::{Need, Transcript, Turns};
use crate::transcript::segments::{Segment, segments};
use crate::transcript::{Merged, Params, Rule, Word, cues, merge, repair, subtitle};

/// The language of a transcript for which neither engine nor client names one.
const DEFAULT_LANGUAGE: &str = "english";

/// What was heard of an upload.
pub(super) struct Heard {
    pub(super) transcript: Transcript,
    /// Speaker turns, if they were asked for.
    pub(super) turns: Option<Turns>,
    pub(super) playing: Playing,
    /// Bytes of the text that the client has got as events.
    pub(super) told: usize,
}

#[derive(Serialize)]
struct Json {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    languages: Option<[Language; 1]>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker_confidence: Option<f32>,
}

#[derive(Serialize)]
struct DiarizedJson {
    task: &'static str,
    duration: f64,
    text: String,
    segments: Vec<DiarizedSegment>,
    usage: Usage,
}

/// A segment with its speaker, also an event of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct DiarizedSegment {
    r#type: &'static str,
    pub(super) id: String,
    start: f64,
    end: f64,
    pub(super) text: String,
    pub(super) speaker: String,
}

/// A language that was heard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Language {
    code: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Usage {
    r#type: &'static str,
    seconds: u64,
}

impl Usage {
    /// Billed as OpenAI does: begun seconds.
    fn duration(seconds: f64) -> Self {
        Self { r#type: "duration", seconds: seconds.ceil() as u64 }
    }
}

impl Heard {
    /// Seconds of audio: the engine's word, else the file's, else the end of the last word, else the estimate.
    pub(super) fn duration(&self) -> f64 {
        let spoken = self.transcript.words.iter().map(|word| word.end).fold(f64::NAN, f64::max);
        let stated = self.playing.exact.then_some(self.playing.seconds);
        let spoken = spoken.is_finite().then_some(spoken);
        self.transcript.duration.or(stated).or(spoken).unwrap_or(self.playing.seconds)
    }

    /// What it takes to render it: words and turns.
    pub(super) fn weight(&self) -> usize {
        self.transcript.words.len() + self.turns.as_ref().map_or(0, |turns| turns.turns.len())
    }

    fn languages(&self) -> Option<[Language; 1]> {
        self.transcript.language.as_deref().map(|language| [Language { code: language::code(language) }])
    }

    /// What the audio costs, if its length is known and no guess.
    fn usage(&self) -> Option<Usage> {
        let known = self.transcript.duration.is_some() || self.playing.exact;
        known.then(|| Usage::duration(self.duration()))
    }
}

/// The reply to the client.
pub(super) fn render(mut heard: Heard, parameters: &Parameters) -> Response {
    let duration = heard.duration();
    let text = heard.transcript.text.trim().to_owned();
    let words = &mut heard.transcript.words;
    if words.is_empty() && !text.is_empty() && parameters.needs_words() != Need::No {
        // An engine without times: one stretch of all the text is the truth that is left.
        words.push(Word { start: 0.0, end: duration, text: text.clone() });
    }
    repair(words);
    let merged = heard.turns.as_ref().map(|turns| speakers(&heard.transcript, turns));
    let (words, merged) = (&heard.transcript.words, merged.as_ref());
    match parameters.format {
        Format::Json | Format::Text if parameters.stream => {
            events::response(events::transcript(&text, heard.told, heard.languages(), heard.usage()))
        }
        Format::DiarizedJson if parameters.stream => {
            let segments = diarized(words, merged);
            events::response(events::diarized(&segments, heard.languages(), heard.usage()))
        }
        Format::Json => {
            axum::Json(Json { text, languages: heard.languages(), usage: heard.usage() }).into_response()
        }
        Format::Text => plain("text/plain; charset=utf-8", format!("{text}\n")),
        Format::Srt => plain("text/plain; charset=utf-8", subtitle::srt(&cues(words, merged))),
        Format::Vtt => plain("text/vtt; charset=utf-8", subtitle::vtt(&cues(words, merged))),
        Format::VerboseJson => {
            let language = heard.transcript.language.as_ref().or(parameters.language.as_ref());
            let reply = VerboseJson {
                task: "transcribe",
                language: language::english_name(language.map_or(DEFAULT_LANGUAGE, String::as_str)),
                duration,
                text,
                words: parameters.words.then(|| timed(words, merged)),
                segments: parameters.segments.then(|| segments(words, merged)),
                usage: Usage::duration(duration),
            };
            axum::Json(reply).into_response()
        }
        Format::DiarizedJson => {
            let segments = diarized(words, merged);
            let text = segments.iter().enumerate().map(|(nth, _)| events::delta(&segments, nth)).collect();
            let usage = Usage::duration(duration);
            axum::Json(DiarizedJson { task: "transcribe", duration, text, segments, usage }).into_response()
        }
    }
}

/// Who spoke which word; speakers are `A`, `B` and so on in the order in which they speak.
fn speakers(transcript: &Transcript, turns: &Turns) -> Merged {
    let language = transcript.language.as_deref();
    let params = Params { rule: Rule::Continuity, language, confidences: true };
    let mut merged = merge(&transcript.words, &turns.turns, &params);
    merged.rename(letters);
    merged
}

/// `A` to `Z`, then `AA`, `AB` and so on.
fn letters(nth: usize) -> String {
    let mut name = String::new();
    let mut rest = nth + 1;
    while rest > 0 {
        name.insert(0, char::from(b'A' + ((rest - 1) % 26) as u8));
        rest = (rest - 1) / 26;
    }
    name
}

fn diarized(words: &[Word], merged: Option<&Merged>) -> Vec<DiarizedSegment> {
    let segment = |segment: Segment| DiarizedSegment {
        r#type: "transcript.text.segment",
        id: format!("seg_{:03}", segment.id + 1),
        start: segment.start,
        end: segment.end,
        text: segment.text,
        speaker: segment.speaker.unwrap_or_default(),
    };
    segments(words, merged).into_iter().map(segment).collect()
}

fn timed(words: &[Word], merged: Option<&Merged>) -> Vec<TimedWord> {
    let spoken = words.iter().enumerate().filter(|(_, word)| !word.text.trim().is_empty());
    let timed = |(at, word): (usize, &Word)| {
        let speaker = merged.and_then(|merged| merged.label(at));
        let confidence = merged.and_then(|merged| merged.confidences.get(at)).filter(|_| speaker.is_some());
        TimedWord {
            word: word.text.trim().to_owned(),
            start: word.start,
            end: word.end,
            speaker: speaker.map(str::to_owned),
            speaker_confidence: confidence.map(|confidence| (confidence * 1000.0).round() / 1000.0),
        }
    };
    spoken.map(timed).collect()
}

fn plain(content_type: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

#[cfg(test)]
mod tests;
