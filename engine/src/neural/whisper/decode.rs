//! One piece of speech to tokens: greedy, and again with chance where the result is poor, as Whisper does.

use rten::{Value, ValueOrView, ValueView};
use rten_tensor::NdTensor;

use super::graphs::{LAYERS, STEPS};
use super::vocabulary::{END, NO_SPEECH, NO_TIMES, START, TRANSCRIBE, Vocabulary};
use crate::neural::Error;
use crate::neural::net::Net;

/// No piece has more tokens.
const MAX_TOKENS: usize = 224;
/// Tries: chance flattens probabilities by this much.
const TEMPERATURES: [f32; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];
/// Text that gzip makes smaller than this is a loop.
const MAX_COMPRESSION: f32 = 2.4;
/// A mean logarithm of probabilities below this is a guess.
const MIN_MEAN_LOG: f32 = -1.0;
/// With a guess, a probability of silence above this is silence.
const MIN_NO_SPEECH: f32 = 0.6;

/// What the decoder knows of a piece before it writes.
pub struct Heard {
    /// Keys and values of the encoding, for each layer.
    pub memory: Vec<Value>,
    /// Token of the language that is spoken, the most probable one unless it was given.
    pub language: usize,
    /// Its probability among languages.
    pub certainty: f32,
    no_speech: f32,
    prompt: State,
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Tokens of text.
    pub tokens: Vec<usize>,
    /// The probability of each.
    pub probabilities: Vec<f32>,
    /// For each token that was put in, prompt first: the attention of each alignment head over time, one after another.
    pub attention: Vec<Vec<f32>>,
    /// Mean logarithm of the probabilities, the end included.
    pub mean_log: f32,
}

/// The decoder after some tokens.
#[derive(Clone, Default)]
struct State {
    past: Vec<Value>,
    place: usize,
    attention: Vec<Vec<f32>>,
    logits: Vec<f32>,
}

/// The decoder of loaded networks.
pub struct Decoder<'a> {
    /// One step.
    pub step: &'a Net,
    /// The tokens.
    pub vocabulary: &'a Vocabulary,
}

impl Decoder<'_> {
    /// Listens to the memory of a piece: its language, and whether anything was said.
    ///
    /// # Errors
    /// When the network fails.
    pub fn listen(&self, memory: Vec<Value>, language: Option<usize>) -> Result<Heard, Error> {
        let mut state = State::default();
        for _ in 0..LAYERS {
            state.past.push(NdTensor::<f32, 3>::zeros([8, 64, 0]).into());
            state.past.push(NdTensor::<f32, 3>::zeros([8, 0, 64]).into());
        }
        self.put(START, &memory, &mut state)?;
        let no_speech = softmax(&state.logits).get(NO_SPEECH).copied().unwrap_or(0.0);
        let languages = &self.vocabulary.languages;
        let scores: Vec<f32> = languages.iter().map(|(token, _)| state.logits[*token]).collect();
        let chances = softmax(&scores);
        let best = (0..chances.len()).max_by(|a, b| chances[*a].total_cmp(&chances[*b])).unwrap_or(0);
        let language = language.unwrap_or(languages[best].0);
        for token in [language, TRANSCRIBE, NO_TIMES] {
            self.put(token, &memory, &mut state)?;
        }
        let certainty = chances.get(best).copied().unwrap_or(0.0);
        Ok(Heard { memory, language, certainty, no_speech, prompt: state })
    }

    /// Writes down a piece of `seconds`; nothing when nothing was said.
    ///
    /// # Errors
    /// When the network fails.
    pub fn write(&self, heard: &Heard, seconds: f32) -> Result<Written, Error> {
        let longest = MAX_TOKENS.min(24 + (seconds * 16.0) as usize);
        let mut best: Option<Written> = None;
        for temperature in TEMPERATURES {
            let written = self.attempt(heard, temperature, longest)?;
            let guessed = written.mean_log < MIN_MEAN_LOG;
            if guessed && heard.no_speech > MIN_NO_SPEECH {
                return Ok(Written::default());
            }
            let looped = compression(&self.vocabulary.text(&written.tokens)) > MAX_COMPRESSION;
            if !guessed && !looped {
                return Ok(written);
            }
            let better = best.as_ref().is_none_or(|best| written.mean_log > best.mean_log);
            if !looped && better {
                best = Some(written);
            }
        }
        Ok(best.unwrap_or_default())
    }

    fn attempt(&self, heard: &Heard, temperature: f32, longest: usize) -> Result<Written, Error> {
        let mut state = heard.prompt.clone();
        let mut written = Written::default();
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        let mut sum = 0.0;
        loop {
            self.suppress(&mut state.logits, written.tokens.is_empty());
            let scale = if temperature > 0.0 { temperature } else { 1.0 };
            state.logits.iter_mut().for_each(|logit| *logit /= scale);
            let probabilities = softmax(&state.logits);
            let token = if temperature > 0.0 { chance.pick(&probabilities) } else { highest(&probabilities) };
            let probability = probabilities.get(token).copied().unwrap_or(0.0);
            sum += probability.max(1e-10).ln();
            if token == END || written.tokens.len() >= longest || loops(&written.tokens) {
                break;
            }
            written.tokens.push(token);
            written.probabilities.push(probability);
            self.put(token, &heard.memory, &mut state)?;
        }
        written.mean_log = sum / (written.tokens.len() + 1) as f32;
        written.attention = state.attention;
        Ok(written)
    }

    /// Makes tokens that are no text, or not wanted, impossible.
    fn suppress(&self, logits: &mut [f32], first: bool) {
        let unwanted = self.vocabulary.suppressed.iter();
        let unwanted = unwanted.chain(self.vocabulary.suppressed_first.iter().filter(|_| first));
        for token in unwanted {
            logits[*token] = f32::NEG_INFINITY;
        }
        logits[END + 1..].fill(f32::NEG_INFINITY);
    }

    /// Puts a token in: what may follow it, and where it looked.
    fn put(&self, token: usize, memory: &[Value], state: &mut State) -> Result<(), Error> {
        let number = |value: usize| NdTensor::from_data([1], vec![i32::try_from(value).unwrap_or(0)]);
        let mut inputs: Vec<ValueOrView<'_>> = vec![number(token).into(), number(state.place).into()];
        inputs.extend(memory.iter().map(|value| ValueOrView::View(ValueView::from(value))));
        inputs.extend(std::mem::take(&mut state.past).into_iter().map(ValueOrView::Value));
        let mut outputs = self.step.run(inputs)?.into_iter();
        let (_, logits) = self.step.floats(outputs.next())?;
        let layers: Vec<Vec<f32>> =
            (0..LAYERS).map(|_| Ok(self.step.floats(outputs.next())?.1)).collect::<Result<_, Error>>()?;
        let mut row = Vec::with_capacity(self.vocabulary.alignment_heads.len() * STEPS);
        for (layer, head) in &self.vocabulary.alignment_heads {
            let head = layers[*layer].get(head * STEPS..(head + 1) * STEPS);
            row.extend_from_slice(head.ok_or_else(|| self.step.unexpected())?);
        }
        if logits.len() <= NO_TIMES {
            return Err(self.step.unexpected());
        }
        state.attention.push(row);
        state.logits = logits;
        state.past = outputs.collect();
        state.place += 1;
        Ok(())
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut shares: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f32 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}

fn highest(probabilities: &[f32]) -> usize {
    let by_value = |a: &usize, b: &usize| probabilities[*a].total_cmp(&probabilities[*b]);
    (0..probabilities.len()).max_by(by_value).unwrap_or(END)
}

/// How many times smaller text becomes by compression.
fn compression(text: &str) -> f32 {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    let packed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    packed.map_or(1.0, |packed| text.len() as f32 / packed.len().max(1) as f32)
}

/// Whether the last tokens are the same few, four times over.
fn loops(tokens: &[usize]) -> bool {
    (1..=12).any(|period| {
        let times = if period < 3 { 8 } else { 4 };
        let Some(tail) = tokens.len().checked_sub(period * times) else { return false };
        let tail = &tokens[tail..];
        tail.iter().zip(&tail[period..]).all(|(one, next)| one == next)
    })
}

/// Numbers as good as chance, the same in each run (xorshift).
struct Chance(u64);

impl Chance {
    fn pick(&mut self, probabilities: &[f32]) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let mut left = (self.0 >> 40) as f32 / (1_u64 << 24) as f32;
        for (token, probability) in probabilities.iter().enumerate() {
            left -= probability;
            if left < 0.0 {
                return token;
            }
        }
        highest(probabilities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_and_only_loops_are_found() {
        assert!(loops(&[1, 2, 3, 7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8, 9]));
        assert!(loops(&[5; 8]) && !loops(&[5; 7]));
        assert!(!loops(&[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]) && !loops(&[]));
        assert!(compression(&"for those who are not ".repeat(20)) > MAX_COMPRESSION);
        assert!(compression("Please call me back tomorrow morning at nine.") < MAX_COMPRESSION);
    }

    #[test]
    fn chance_follows_probabilities() {
        let mut chance = Chance(1);
        let mut counts = [0; 3];
        for _ in 0..3_000 {
            counts[chance.pick(&[0.5, 0.0, 0.5])] += 1;
        }
        assert!(counts[1] == 0 && (1_300..1_700).contains(&counts[0]), "{counts:?}");
    }
}
