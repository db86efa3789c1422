//! Text to speech by neural voices: sentence by sentence to phonemes, and those to samples.

use std::ops::ControlFlow;
use std::path::Path;

use super::Error;
use super::english::English;
use super::espeak;
use super::hibari::{self, Hibari};
use super::kokoro::{self, Kokoro};
use super::net::Threads;
use super::sentences::{parts, sentences};
use super::symbols::Symbols;

pub use super::hibari::{RATE_HZ, Timbre};

/// Samples over which the ends of a sentence are faded, so that sentences join without a click: 5 ms.
const FADE: usize = 120;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// The language as espeak-ng names it; `en` is read by the tables.
    pub language: &'static str,
    /// A voice of Kokoro, used when Kokoro is loaded.
    pub kokoro: &'static str,
    /// What hibari's voice is made into when Kokoro is not loaded.
    pub timbre: Timbre,
}

/// The voices, loaded.
pub struct Speakers {
    english: English,
    symbols: Symbols,
    hibari: Hibari,
    kokoro: Option<Kokoro>,
}

impl Speakers {
    /// Loads the published files of a folder, those of Kokoro when `several`.
    ///
    /// # Errors
    /// When a file cannot be read, is not the published one, or malformed.
    pub fn load(models: &Path, several: bool, threads: &Threads) -> Result<Self, Error> {
        Ok(Self {
            english: English::load(models, threads)?,
            symbols: Symbols::open(models)?,
            hibari: Hibari::load(models, threads)?,
            kokoro: if several { Some(Kokoro::load(models, threads)?) } else { None },
        })
    }

    /// Speaks a text sentence by sentence, handing samples of -1 to 1 at [`RATE_HZ`] to `sink`. `stretch` multiplies durations.
    /// A `Break` from `sink` ends it there.
    ///
    /// # Errors
    /// When the text cannot be read, or a network fails.
    pub fn speak(
        &self,
        text: &str,
        part: &Part,
        stretch: f32,
        sink: &mut dyn FnMut(&[f32]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        // hibari is Kokoro's `af_heart`, and faster by far.
        let kokoro = self.kokoro.as_ref().filter(|_| part.kokoro != hibari::SAME_AS);
        let longest = if kokoro.is_some() { kokoro::LONGEST } else { hibari::LONGEST };
        for sentence in sentences(text) {
            let sounds = match part.language {
                "en" => self.english.phonemes(sentence)?,
                other => espeak::phonemes(sentence, other)?,
            };
            for sounds in parts(&sounds, longest) {
                let Some(numbers) = self.symbols.numbers(&sounds) else { continue };
                let mut samples = match kokoro {
                    Some(kokoro) => kokoro.say(numbers, part.kokoro, stretch)?,
                    None => self.hibari.say(numbers, part.timbre, stretch)?,
                };
                fade(&mut samples);
                if sink(&samples).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Lets the ends of a sentence rise and fall.
fn fade(samples: &mut [f32]) {
    let length = FADE.min(samples.len() / 2);
    let last = samples.len().saturating_sub(1);
    for index in 0..length {
        let share = index as f32 / length as f32;
        samples[index] *= share;
        samples[last - index] *= share;
    }
}
