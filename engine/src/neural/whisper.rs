//! Speech to text by Whisper base: 99 languages, word times, confidences.

mod align;
mod decode;
mod features;
mod graphs;
mod vocabulary;

use std::path::Path;

use rten::{Value, ValueOrView};

use super::Error;
use super::net::{Net, Threads};
use super::quantize::Precision;
use super::weights::Weights;
use crate::activity::FRAME;
use crate::recognize::Word;
use decode::{Decoder, Heard, Written};
use features::Features;
use vocabulary::Vocabulary;

/// Samples per second.
const RATE_HZ: f64 = 16_000.0;
/// Languages that are written without spaces.
const UNSPACED: [&str; 8] = ["zh", "ja", "th", "lo", "my", "yue", "bo", "km"];
/// Tokens before the text: start, language, task, no times.
const PROMPT: usize = 4;

/// Whisper, loaded.
pub struct Whisper {
    encoder: Net,
    memory: Net,
    step: Net,
    vocabulary: Vocabulary,
}

/// A piece of speech that is encoded.
pub struct Piece {
    heard: Heard,
    seconds: f64,
}

impl Whisper {
    /// Loads the published files of a folder.
    ///
    /// # Errors
    /// When a file cannot be read, is not the published one, or malformed.
    pub fn load(models: &Path, precision: Precision, threads: &Threads) -> Result<Self, Error> {
        let vocabulary = Vocabulary::open(models)?;
        let weights = Weights::whisper(models, precision)?;
        let net = |name, onnx| Net::load(name, onnx, Some((super::graph::WEIGHTS, weights.bytes)), threads);
        Ok(Self {
            encoder: net("whisper encoder", graphs::encoder(&weights)?)?,
            memory: net("whisper memory", graphs::memory(&weights)?)?,
            step: net("whisper step", graphs::step(&weights)?)?,
            vocabulary,
        })
    }

    /// Encodes a piece of at most 30 s at 16 kHz, and hears its language unless that is given.
    ///
    /// # Errors
    /// When a network fails.
    pub fn encode(&self, samples: &[i16], language: Option<&str>) -> Result<Piece, Error> {
        let spectrum = Features::new().spectrum(samples);
        let encoding = self.encoder.run(vec![ValueOrView::from(spectrum)])?;
        let memory: Vec<Value> = self.memory.run(encoding.into_iter().map(ValueOrView::Value).collect())?;
        let language = language.and_then(|code| self.vocabulary.language(code));
        let heard = self.decoder().listen(memory, language)?;
        Ok(Piece { heard, seconds: samples.len() as f64 / RATE_HZ })
    }

    /// The code of a piece's language, and how sure that is, 0 to 1.
    #[must_use]
    pub fn language(&self, piece: &Piece) -> (&str, f32) {
        let found = self.vocabulary.languages.iter().find(|(token, _)| *token == piece.heard.language);
        (found.map_or("en", |(_, code)| code.as_str()), piece.heard.certainty)
    }

    /// The words of a piece, in seconds from its start; none when nothing was said.
    ///
    /// # Errors
    /// When a network fails.
    pub fn words(&self, piece: &Piece) -> Result<Vec<Word>, Error> {
        let written = self.decoder().write(&piece.heard, piece.seconds as f32)?;
        let spaced = !UNSPACED.contains(&self.language(piece).0);
        Ok(self.timed(&written, piece.seconds, spaced))
    }

    fn timed(&self, written: &Written, seconds: f64, spaced: bool) -> Vec<Word> {
        let steps = (seconds * align::STEPS_PER_SECOND).ceil() as usize;
        let starts = align::token_steps(&written.attention, PROMPT, steps);
        let at = |token: usize| {
            let step = starts.get(token).or_else(|| starts.last()).copied().unwrap_or(0);
            (step as f64 / align::STEPS_PER_SECOND).min(seconds)
        };
        let mut words: Vec<Word> = Vec::new();
        for group in align::words(&self.vocabulary, &written.tokens, spaced) {
            let text = group.text.trim();
            if text.is_empty() {
                continue;
            }
            let probabilities = &written.probabilities[group.first..group.end];
            let sum: f32 = probabilities.iter().sum();
            words.push(Word {
                start_s: at(group.first),
                end_s: at(group.end),
                text: text.to_owned(),
                confidence: f64::from(sum / probabilities.len().max(1) as f32),
                joined: !group.text.starts_with(' ') && !words.is_empty(),
            });
        }
        words
    }

    fn decoder(&self) -> Decoder<'_> {
        Decoder { step: &self.step, vocabulary: &self.vocabulary }
    }
}

/// Moves the ends of words out of silence: a word ends no later than the speech in it, and begins no earlier. `speech` is in
/// frames of 10 ms of the same recording as the words.
pub fn trim(words: &mut [Word], speech: &[std::ops::Range<usize>]) {
    let seconds = |frame: usize| (frame * FRAME) as f64 / RATE_HZ;
    for word in words {
        let inside = speech.iter().filter(|s| seconds(s.start) < word.end_s && seconds(s.end) > word.start_s);
        // The stretch with most of the word.
        let shared =
            |s: &&std::ops::Range<usize>| seconds(s.end).min(word.end_s) - seconds(s.start).max(word.start_s);
        let Some(stretch) = inside.max_by(|a, b| shared(a).total_cmp(&shared(b))) else { continue };
        let (start_s, end_s) =
            (word.start_s.max(seconds(stretch.start)), word.end_s.min(seconds(stretch.end)));
        if end_s > start_s {
            (word.start_s, word.end_s) = (start_s, end_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lose_the_silence_at_their_ends() {
        let word =
            |start_s, end_s| Word { start_s, end_s, text: "word".into(), confidence: 1.0, joined: false };
        let mut words = [word(0.0, 0.6), word(0.6, 2.5), word(5.0, 6.0)];
        trim(&mut words, &[20..70, 80..90, 120..220]);
        let times = words.map(|word| (word.start_s, word.end_s));
        assert_eq!(times, [(0.2, 0.6), (1.2, 2.2), (5.0, 6.0)]);
    }
}
