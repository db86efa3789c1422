//! Speech to text by NVIDIA's Parakeet TDT out of a folder with its networks in ONNX ("Efficient Sequence Transduction by Jointly
//! Predicting Tokens and Durations", 2023).

mod features;
pub mod layout;

use std::path::Path;

use rten::{Value, ValueOrView, ValueView};
use rten_tensor::NdTensor;

use super::Error;
use super::net::{Net, Threads};
use crate::recognize::Word;
use layout::{Decoder, Layout};

/// Seconds of one frame of the encoder.
const FRAME_S: f64 = 0.08;
/// Tokens that one frame can have.
const MAX_PER_FRAME: usize = 10;
/// A vocabulary is no longer.
const MAX_VOCABULARY_BYTES: u64 = 4 << 20;
/// Mel bands where the encoder does not say.
const BANDS: usize = 128;
/// Begins a word in a token.
const SPACE: char = '\u{2581}';

/// A Parakeet, loaded.
pub struct Parakeet {
    encoder: Net,
    decoder: Net,
    joiner: Option<Net>,
    tokens: Vec<String>,
    bands: usize,
    /// Layers and width of the predictor's two states.
    states: [usize; 2],
}

/// A token and where it was heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Emitted {
    /// Its number.
    pub token: usize,
    /// The frame of 80 ms.
    pub frame: usize,
    /// Frames that it lasts.
    pub length: usize,
    /// Its probability.
    pub probability: f32,
}

/// What the predictor has heard so far.
struct State {
    last: usize,
    memory: [Value; 2],
}

impl Parakeet {
    /// Loads the networks of a folder, in whichever layout they are.
    ///
    /// # Errors
    /// When there are none, or a file cannot be read or is malformed.
    pub fn open(folder: &Path, threads: &Threads) -> Result<Self, Error> {
        let layout = layout::find(folder).ok_or_else(|| Error::NoModel { folder: folder.to_path_buf() })?;
        Self::load(&layout, threads)
    }

    /// Loads the networks of a layout.
    ///
    /// # Errors
    /// When a file cannot be read or is malformed.
    pub fn load(layout: &Layout, threads: &Threads) -> Result<Self, Error> {
        let refuse = |reason| Error::Format { file: "the folder of Parakeet", reason };
        let size = std::fs::metadata(&layout.vocabulary).map_err(Error::io(&layout.vocabulary))?.len();
        if size > MAX_VOCABULARY_BYTES {
            return Err(refuse("its vocabulary is too large"));
        }
        let text = std::fs::read_to_string(&layout.vocabulary).map_err(Error::io(&layout.vocabulary))?;
        let tokens = layout::tokens(&text).ok_or_else(|| refuse("its vocabulary is no list of tokens"))?;
        let encoder = Net::open("parakeet encoder", &layout.encoder, threads)?;
        let (decoder, joiner) = match &layout.decoder {
            Decoder::Whole(path) => (Net::open("parakeet decoder", path, threads)?, None),
            Decoder::Split(decoder, joiner) => {
                let decoder = Net::open("parakeet decoder", decoder, threads)?;
                (decoder, Some(Net::open("parakeet joiner", joiner, threads)?))
            }
        };
        let bands = encoder.input_dims(0).get(1).copied().flatten().unwrap_or(BANDS);
        let first = if joiner.is_some() { 2 } else { 3 };
        let dims = decoder.input_dims(first);
        let states = match dims[..] {
            [Some(layers), _, Some(width)] if layers <= 8 && width <= 8_192 => [layers, width],
            _ => return Err(refuse("its decoder has states of an unknown size")),
        };
        if !(1..=512).contains(&bands) {
            return Err(refuse("its encoder has an unknown number of bands"));
        }
        Ok(Self { encoder, decoder, joiner, tokens, bands, states })
    }

    /// What runs its networks.
    #[must_use]
    pub fn runtime(&self) -> &'static str {
        self.encoder.runtime()
    }

    /// The words of a piece of at most 30 s at 16 kHz, in seconds from its start.
    ///
    /// # Errors
    /// When a network fails.
    pub fn words(&self, samples: &[i16]) -> Result<Vec<Word>, Error> {
        let emitted = self.emit(samples)?;
        let mut words: Vec<Word> = Vec::new();
        for (index, one) in emitted.iter().enumerate() {
            let text = self.tokens.get(one.token).map_or("", String::as_str);
            let next = emitted.get(index + 1).map_or(usize::MAX, |next| next.frame);
            let end_s = (one.frame + one.length.max(1)).min(next.max(one.frame + 1)) as f64 * FRAME_S;
            let start_s = one.frame as f64 * FRAME_S;
            match words.last_mut() {
                Some(word) if !text.starts_with(SPACE) => {
                    word.text.push_str(text);
                    word.end_s = end_s.max(word.end_s);
                    word.confidence = word.confidence.min(f64::from(one.probability));
                }
                _ => words.push(Word {
                    start_s,
                    end_s,
                    text: text.trim_start_matches(SPACE).to_owned(),
                    confidence: f64::from(one.probability),
                    joined: false,
                }),
            }
        }
        words.retain(|word| !word.text.is_empty());
        Ok(words)
    }

    /// The tokens of a piece: greedy, each with the duration that the network gives it.
    ///
    /// # Errors
    /// When a network fails.
    pub fn emit(&self, samples: &[i16]) -> Result<Vec<Emitted>, Error> {
        let (frames, spectrum) = features::spectrum(samples, self.bands);
        let length = NdTensor::from_data([1], vec![i32::try_from(frames).unwrap_or(i32::MAX)]);
        let spectrum = NdTensor::from_data([1, self.bands, frames], spectrum);
        let outputs = self.encoder.run(vec![ValueOrView::from(spectrum), ValueOrView::from(length)])?;
        let (dims, encoded) = self.encoder.floats(outputs.into_iter().next())?;
        let [1, width, steps] = dims[..] else { return Err(self.encoder.unexpected()) };
        let zeros = || Value::from(NdTensor::<f32, 3>::zeros([self.states[0], 1, self.states[1]]));
        let blank = self.tokens.len() - 1;
        let mut state = State { last: blank, memory: [zeros(), zeros()] };
        let (mut emitted, mut frame, mut here) = (Vec::new(), 0, 0);
        while frame < steps {
            let column: Vec<f32> = (0..width).map(|row| encoded[row * steps + frame]).collect();
            let (logits, memory) = self.step(column, &state)?;
            let (words, durations) =
                logits.split_at_checked(blank + 1).ok_or_else(|| self.decoder.unexpected())?;
            let token = highest(words);
            let length = if durations.is_empty() { usize::from(token == blank) } else { highest(durations) };
            if token != blank {
                emitted.push(Emitted { token, frame, length, probability: share(words, token) });
                state = State { last: token, memory };
                here += 1;
            }
            if length > 0 {
                frame += length;
                here = 0;
            } else if token == blank || here == MAX_PER_FRAME {
                frame += 1;
                here = 0;
            }
        }
        Ok(emitted)
    }

    /// What follows at a frame: logits of tokens and durations, and the predictor's states if its token is taken.
    fn step(&self, frame: Vec<f32>, state: &State) -> Result<(Vec<f32>, [Value; 2]), Error> {
        let frame = || NdTensor::from_data([1, frame.len(), 1], frame.clone());
        let last = NdTensor::from_data([1, 1], vec![i32::try_from(state.last).unwrap_or(0)]);
        let count = NdTensor::from_data([1], vec![1_i32]);
        let mut inputs: Vec<ValueOrView<'_>> = Vec::new();
        if self.joiner.is_none() {
            inputs.push(frame().into());
        }
        inputs.extend([last.into(), count.into()]);
        inputs.extend(state.memory.iter().map(|value| ValueOrView::View(ValueView::from(value))));
        let outputs: Result<[Value; 4], _> = self.decoder.run(inputs)?.try_into();
        let [first, _, one, two] = outputs.map_err(|_| self.decoder.unexpected())?;
        let logits = match &self.joiner {
            None => self.decoder.floats(Some(first))?.1,
            Some(joiner) => {
                let joined = joiner.run(vec![frame().into(), ValueOrView::Value(first)])?;
                joiner.floats(joined.into_iter().next())?.1
            }
        };
        Ok((logits, [one, two]))
    }
}

fn highest(values: &[f32]) -> usize {
    // The first of several that are equal, as the reference has it.
    (0..values.len()).rev().max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0)
}

fn share(logits: &[f32], token: usize) -> f32 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    (logits[token] - highest).exp() / sum
}

#[cfg(test)]
mod tests;
