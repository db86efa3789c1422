//! A transcript in the shapes that OpenAI's transcript API answers with.

use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::form::Playing;
use crate::api::openai::events::{self, End};
use crate::api::openai::form::{Format, Parameters};
use crate::api::parakeet_fastapi::Timestamps;
use crate::api::reference::Schemas;
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
    /// Names of speakers that are known.
    pub(super) known: Vec<String>,
    pub(super) playing: Playing,
    /// Bytes of the text that the client has got as events.
    pub(super) told: usize,
    /// Its segments, where they were translated.
    pub(super) translated: Option<Vec<Segment>>,
}

/// A transcript.
#[derive(Serialize, ToSchema)]
#[schema(as = Transcription)]
struct Json {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    languages: Option<[Language; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Logprob>>,
    /// With `include_timestamps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamps: Option<Timestamps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// How sure the engine is of a word, which is a token here.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TranscriptLogprob)]
pub(super) struct Logprob {
    token: String,
    /// The natural logarithm of the confidence.
    logprob: f64,
    /// The token in UTF-8.
    bytes: Vec<u8>,
}

/// A transcript with segments, words or both.
#[derive(Serialize, ToSchema)]
#[schema(as = TranscriptionVerbose)]
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

/// A word with its times in seconds.
#[derive(Serialize, ToSchema)]
#[schema(as = TranscriptWord)]
struct TimedWord {
    word: String,
    start: f64,
    end: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker_confidence: Option<f32>,
}

/// A transcript whose segments have speakers.
#[derive(Serialize, ToSchema)]
#[schema(as = TranscriptionDiarized)]
struct DiarizedJson {
    task: &'static str,
    duration: f64,
    text: String,
    segments: Vec<DiarizedSegment>,
    usage: Usage,
}

/// A segment with its speaker, also an event of its own.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct DiarizedSegment {
    r#type: &'static str,
    pub(super) id: String,
    start: f64,
    end: f64,
    pub(super) text: String,
    pub(super) speaker: String,
}

/// A language that was heard.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TranscriptLanguage)]
pub(super) struct Language {
    code: String,
}

/// What the audio costs: begun seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TranscriptUsage)]
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

/// Adds the replies to the reference.
pub fn schemas(schemas: &mut Schemas) {
    schemas.add::<Json>();
    schemas.add::<VerboseJson>();
    schemas.add::<DiarizedJson>();
}

/// The reply to the client.
pub(super) fn render(mut heard: Heard, parameters: &Parameters) -> Response {
    if parameters.translate {
        // What was spoken is of no use for a text in English.
        heard.transcript.language = None;
    }
    let duration = heard.duration();
    let text = heard.transcript.text.trim().to_owned();
    let logprobs = parameters.logprobs.then(|| logprobs(&heard.transcript));
    let words = &mut heard.transcript.words;
    if words.is_empty() && !text.is_empty() && parameters.needs_words() != Need::No {
        // An engine without times: one stretch of all the text is the truth that is left.
        words.push(Word { start: 0.0, end: duration, text: text.clone() });
    }
    repair(words);
    let merged = heard.turns.as_ref().map(|turns| speakers(&heard.transcript, turns, &heard.known));
    let translated = heard.translated.take();
    let (words, merged) = (&heard.transcript.words, merged.as_ref());
    match parameters.format {
        Format::Json | Format::Text if parameters.stream => {
            let (languages, usage) = (heard.languages(), heard.usage());
            events::response(events::transcript(&text, heard.told, End { languages, logprobs, usage }))
        }
        Format::DiarizedJson if parameters.stream => {
            let segments = diarized(words, merged);
            let (languages, usage) = (heard.languages(), heard.usage());
            events::response(events::diarized(&segments, End { languages, logprobs: None, usage }))
        }
        Format::Json => {
            let (languages, usage) = (heard.languages(), heard.usage());
            let timestamps = parameters.timestamps.then(|| Timestamps::of(words));
            axum::Json(Json { text, languages, logprobs, timestamps, usage }).into_response()
        }
        Format::Text => plain("text/plain; charset=utf-8", format!("{text}\n")),
        Format::Srt => plain("text/plain; charset=utf-8", subtitle::srt(&cues(words, merged))),
        Format::Vtt => plain("text/vtt; charset=utf-8", subtitle::vtt(&cues(words, merged))),
        Format::VerboseJson => {
            let language = heard.transcript.language.as_ref().or(parameters.language.as_ref());
            let reply = VerboseJson {
                task: match parameters.translate || parameters.translate_to.is_some() {
                    true => "translate",
                    false => "transcribe",
                },
                language: match parameters.translate {
                    true => DEFAULT_LANGUAGE.to_owned(),
                    false => language::english_name(language.map_or(DEFAULT_LANGUAGE, String::as_str)),
                },
                duration,
                text,
                words: parameters.words.then(|| timed(words, merged)),
                segments: parameters.segments.then(|| translated.unwrap_or_else(|| segments(words, merged))),
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

/// Who spoke which word; speakers that are not known are `A`, `B` and so on in the order in which they speak.
fn speakers(transcript: &Transcript, turns: &Turns, known: &[String]) -> Merged {
    let language = transcript.language.as_deref();
    let params = Params { rule: Rule::Continuity, language, confidences: true };
    let mut merged = merge(&transcript.words, &turns.turns, &params);
    merged.rename(known, letters);
    merged
}

/// `A` to `Z`, then `AA`, `AB` and so on.
pub(super) fn letters(nth: usize) -> String {
    let mut name = String::new();
    let mut rest = nth + 1;
    while rest > 0 {
        name.insert(0, char::from(b'A' + ((rest - 1) % 26) as u8));
        rest = (rest - 1) / 26;
    }
    name
}

/// The words with the logarithms of their confidences; none where the engine did not say any.
fn logprobs(transcript: &Transcript) -> Vec<Logprob> {
    /// Of a word that the engine is not sure of at all: OpenAI's own smallest.
    const LEAST: f64 = -9999.0;
    let spoken = transcript.words.iter().zip(&transcript.confidences);
    spoken
        .map(|(word, confidence)| Logprob {
            token: word.text.clone(),
            logprob: f64::from(*confidence).ln().max(LEAST),
            bytes: word.text.as_bytes().to_vec(),
        })
        .collect()
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
