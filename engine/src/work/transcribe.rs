//! Recordings to words and turns, as jobs of the lane.

use std::sync::Arc;

use bytes::Bytes;

use super::admission::{Ticket, admit, fits_memory};
use super::{Refusal, Served};
use crate::backend::hearing::Hearing;
use crate::core::Core;
use crate::decode::{self, Channels, RATE_HZ};
use crate::diarize::Turn;
use crate::fault::Plan;
use crate::fault::origin::Origin;
use crate::fault::variant::BadTranscript;
use crate::lane::Lane;
use crate::pcm::Raw;
use crate::recognize::Word;
use crate::wav;

/// Heard by the F14 variant `constant`.
const CONSTANT: &str = "thank you";

/// What is to be recognized.
#[derive(Debug, Clone)]
pub enum Recording {
    /// A file of a known container.
    File {
        /// The whole file.
        bytes: Bytes,
        /// Which channels it may have.
        channels: Channels,
    },
    /// Samples without a header, one channel.
    Raw {
        /// The samples.
        bytes: Bytes,
        /// How they are coded.
        coding: Raw,
        /// Their rate in Hz.
        rate_hz: u32,
    },
    /// Samples at 16 kHz, one channel.
    Samples(Vec<i16>),
}

/// A word with the speaker who said it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spoken {
    /// The word.
    pub word: Word,
    /// From 0; `None` when speakers were not asked for.
    pub speaker: Option<usize>,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// The words of each sentence-like piece, in order; no piece is empty.
    pub sentences: Vec<Vec<Spoken>>,
    /// Of the recording, in seconds.
    pub duration_s: f64,
    /// Code of the language, such as `en`.
    pub language: String,
    /// The model that heard it.
    pub model: &'static str,
}

/// What a transcript is to have.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The speaker of every word.
    pub speakers: bool,
    /// Code of the language; `None` to have it heard.
    pub language: Option<&'static str>,
}

/// Who speaks when.
#[derive(Debug, Clone, PartialEq)]
pub struct Diarization {
    /// In order.
    pub turns: Vec<Turn>,
    /// Of the recording, in seconds.
    pub duration_s: f64,
    /// What told the speakers apart.
    pub model: &'static str,
}

/// Recognition in front of the lane.
pub struct Transcriber {
    /// What every engine has.
    pub core: Arc<Core>,
    lane: Lane<Hearing>,
}

impl Transcriber {
    /// Recognition on a lane of its own.
    #[must_use]
    pub fn new(core: Arc<Core>, lane: Lane<Hearing>) -> Self {
        Self { core, lane }
    }

    /// Recognizes a recording.
    ///
    /// # Errors
    /// When the job is not admitted, the recording cannot be decoded or the recognizer fails. Under a hang it never
    /// returns.
    pub async fn transcribe(
        &self,
        recording: Recording,
        wanted: Wanted,
        origin: &Origin,
    ) -> Result<Served<Transcript>, Refusal> {
        let model = self.core.capability.model;
        let work = move |hearing: &mut Hearing, samples: &[i16], duration_s| {
            let turns = if wanted.speakers { hearing.diarize(samples)? } else { Vec::new() };
            let spoken = |word: Word| Spoken { speaker: None, word };
            let sentence = |words: Vec<Word>| words.into_iter().map(spoken).collect();
            let heard = hearing.recognize(samples, wanted.language)?;
            let mut sentences = heard.sentences.into_iter().map(sentence).collect::<Vec<_>>();
            tell_speakers(&mut sentences, &turns, 0.0);
            Ok(Transcript { sentences, duration_s, language: heard.language, model })
        };
        let (mut served, spoilt) = self.infer(recording, origin, work).await?;
        if let Some(variant) = spoilt {
            served.made.sentences = worthless(variant);
        }
        Ok(served)
    }

    /// Finds the turns of a recording.
    ///
    /// # Errors
    /// As [`Transcriber::transcribe`].
    pub async fn diarize(
        &self,
        recording: Recording,
        origin: &Origin,
    ) -> Result<Served<Diarization>, Refusal> {
        let model = self.core.capability.diarizer;
        let work = move |hearing: &mut Hearing, samples: &[i16], duration_s| {
            Ok(Diarization { turns: hearing.diarize(samples)?, duration_s, model })
        };
        let (mut served, spoilt) = self.infer(recording, origin, work).await?;
        if spoilt.is_some() {
            served.made.turns.clear();
        }
        Ok(served)
    }

    /// Runs one job: admission, decoding, work, pace. Also tells how F14 spoils the result.
    async fn infer<T: Send + 'static>(
        &self,
        recording: Recording,
        origin: &Origin,
        work: impl FnOnce(&mut Hearing, &[i16], f64) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<(Served<T>, Option<BadTranscript>), Refusal> {
        let input = recording.input();
        if input.is_empty() {
            return Err(decode::Error::Empty.into());
        }
        let Ticket { place, plan, start, client: _client } = admit(&self.core, &input, origin).await?;
        let (core, oom_above_s) = (self.core.clone(), plan.oom_above_s);
        let job = move |hearing: &mut Hearing| {
            let mut run = start.begin();
            let samples = recording.decode()?;
            let duration_s = samples.len() as f64 / f64::from(RATE_HZ);
            fits_memory(&core, oom_above_s, duration_s)?;
            let made = work(hearing, &samples, duration_s)?;
            // A GPU finishes a job after its client has left.
            run.clock.hold(duration_s, || false);
            Ok::<_, Refusal>(made)
        };
        let made = self.lane.run(place, job).await??;
        let Plan { reset_after, silent_after, transcript, .. } = plan;
        Ok((Served { made, reset_after, silent_after }, transcript))
    }
}

impl Recording {
    /// A file with any number of channels.
    #[must_use]
    pub fn file(bytes: Bytes) -> Self {
        Self::File { bytes, channels: Channels::Any }
    }

    /// What a fault's hash is taken of.
    fn input(&self) -> Bytes {
        match self {
            Self::File { bytes, .. } | Self::Raw { bytes, .. } => bytes.clone(),
            Self::Samples(samples) => wav::raw(samples),
        }
    }

    /// One channel at 16 kHz.
    fn decode(self) -> Result<Vec<i16>, decode::Error> {
        match self {
            Self::File { bytes, channels } => decode::decode(bytes, channels),
            Self::Raw { bytes, coding, rate_hz } => coding.decode(&bytes, rate_hz),
            Self::Samples(samples) => Ok(samples),
        }
    }
}

impl Transcript {
    /// All words, separated by single spaces where their language has spaces.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for spoken in self.words() {
            append(&mut text, &spoken.word);
        }
        text
    }

    /// All words in order.
    pub fn words(&self) -> impl Iterator<Item = &Spoken> {
        self.sentences.iter().flatten()
    }
}

/// The words of a sentence, separated by single spaces where their language has spaces.
#[must_use]
pub fn text(sentence: &[Spoken]) -> String {
    let mut text = String::new();
    for spoken in sentence {
        append(&mut text, &spoken.word);
    }
    text
}

fn append(text: &mut String, word: &Word) {
    if !text.is_empty() && !word.joined {
        text.push(' ');
    }
    text.push_str(&word.text);
}

/// Mean confidence of words, 0 to 1; 0 for none.
#[must_use]
pub fn confidence(sentence: &[Spoken]) -> f64 {
    let sum: f64 = sentence.iter().map(|spoken| spoken.word.confidence).sum();
    sum / sentence.len().max(1) as f64
}

/// Gives every word its speaker, where the words' times begin `offset_s` seconds after those of the turns.
pub fn tell_speakers(sentences: &mut [Vec<Spoken>], turns: &[Turn], offset_s: f64) {
    for spoken in sentences.iter_mut().flatten() {
        spoken.speaker = speaker_of(&spoken.word, turns, offset_s);
    }
}

/// The speaker whose turn holds the middle of the word, or is nearest to it.
fn speaker_of(word: &Word, turns: &[Turn], offset_s: f64) -> Option<usize> {
    let middle = offset_s + f64::midpoint(word.start_s, word.end_s);
    let distance = |turn: &Turn| (turn.start_s - middle).max(middle - turn.end_s).max(0.0);
    turns.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).map(|turn| turn.speaker)
}

/// F14.
fn worthless(variant: BadTranscript) -> Vec<Vec<Spoken>> {
    let word = |start_s: f64, end_s: f64, text: &str| {
        let word = Word { start_s, end_s, text: text.to_owned(), confidence: 0.5, joined: false };
        Spoken { word, speaker: None }
    };
    let text = match variant {
        BadTranscript::Empty => return Vec::new(),
        BadTranscript::Nan => return vec![vec![word(f64::NAN, f64::NAN, "")]],
        BadTranscript::Punct => ". . .",
        BadTranscript::Constant => CONSTANT,
    };
    let timed = |(index, text): (usize, &str)| {
        let start_s = index as f64 * 0.3;
        word(start_s, start_s + 0.3, text)
    };
    vec![text.split_whitespace().enumerate().map(timed).collect()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_to_the_turn_around_or_nearest_to_their_middle() {
        let turn = |start_s, end_s, speaker| Turn { start_s, end_s, speaker };
        let turns = [turn(0.0, 1.0, 0), turn(1.4, 2.0, 1)];
        let word = |start_s: f64, end_s: f64| Word {
            start_s,
            end_s,
            text: "word".into(),
            confidence: 1.0,
            joined: false,
        };
        for (start_s, end_s, speaker) in [(0.2, 0.6, 0), (0.8, 1.3, 0), (1.2, 1.5, 1), (5.0, 6.0, 1)] {
            assert_eq!(speaker_of(&word(start_s, end_s), &turns, 0.0), Some(speaker), "{start_s} to {end_s}");
        }
        assert_eq!(speaker_of(&word(0.0, 0.4), &turns, 1.5), Some(1));
        assert_eq!(speaker_of(&word(0.0, 1.0), &[], 0.0), None);
    }
}
