//! Text to speech by hibari: one English voice of 24 kHz, made faster than it is heard by far.

mod lexicon;
mod phonemes;
mod tagger;
mod vocoder;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use rten::{Value, ValueOrView};
use rten_tensor::NdTensor;
use serde::Deserialize;

use super::net::{Net, Threads};
use super::{Error, files};
use crate::ffi::analysis::analyze;
use lexicon::Lexicon;
use tagger::Tagger;
pub use vocoder::RATE_HZ;
use vocoder::{BINS, Spectra, Vocoder};

/// Phonemes that the network takes at once.
const LONGEST: usize = 400;
/// A table of the voice is no longer, unpacked.
const MAX_TABLE_BYTES: u64 = 64 << 20;
/// Samples over which the ends of a sentence are faded, so that sentences join without a click: 5 ms.
const FADE: usize = 120;

/// Another speaker, made of the one voice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timbre {
    /// Factor of the pitch.
    pub pitch: f32,
    /// Factor of the resonances: below 1 for a longer throat.
    pub throat: f32,
}

/// What is published of the network for unknown words.
#[derive(Deserialize)]
struct Letters {
    #[serde(rename = "in")]
    letters: Vec<char>,
    #[serde(rename = "out")]
    sounds: Vec<String>,
    maxlen: usize,
}

/// The voice, loaded.
pub struct Hibari {
    voice: Net,
    reader: Net,
    letters: Letters,
    ids: HashMap<char, i32>,
    lexicon: Lexicon,
    tagger: Tagger,
    vocoder: Vocoder,
}

impl Hibari {
    /// Loads the published files of a folder.
    ///
    /// # Errors
    /// When a file cannot be read, is not the published one, or malformed.
    pub fn load(models: &Path, threads: &Threads) -> Result<Self, Error> {
        let malformed = |file| move |_| Error::Format { file, reason: "not of the expected form" };
        let (gold, silver) = ("hibari/lexicon_us_gold.json.gz", "hibari/lexicon_us_silver.json.gz");
        let tables =
            [files::gunzip(models, gold, MAX_TABLE_BYTES)?, files::gunzip(models, silver, MAX_TABLE_BYTES)?];
        let lexicon = Lexicon::parse(&tables[0], &tables[1])
            .ok_or(Error::Format { file: gold, reason: "not a dictionary" })?;
        let tagger = "hibari/tagger.json.gz";
        let tagger_text = files::gunzip(models, tagger, MAX_TABLE_BYTES)?;
        let (vocabulary, letters) = ("hibari/vocab.json", "hibari/oov.json");
        Ok(Self {
            voice: Net::load("hibari", files::read(models, "hibari/hibari.onnx")?, None, threads)?,
            reader: Net::load("hibari reader", files::read(models, "hibari/oov.onnx")?, None, threads)?,
            letters: serde_json::from_slice(&files::read(models, letters)?).map_err(malformed(letters))?,
            ids: serde_json::from_slice(&files::read(models, vocabulary)?).map_err(malformed(vocabulary))?,
            lexicon,
            tagger: serde_json::from_str(&tagger_text).map_err(malformed(tagger))?,
            vocoder: Vocoder::new(),
        })
    }

    /// Speaks a text sentence by sentence, handing samples of -1 to 1 to `sink`. `stretch` multiplies durations. A `Break`
    /// from `sink` ends it there.
    ///
    /// # Errors
    /// When the text cannot be analysed, or a network fails.
    pub fn speak(
        &self,
        text: &str,
        timbre: Timbre,
        stretch: f32,
        sink: &mut dyn FnMut(&[f32]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for sentence in phonemes::sentences(text) {
            let tokens = analyze(sentence)?;
            let mut failed = None;
            let sounds = phonemes::phonemes(&tokens, &self.lexicon, &self.tagger, &mut |word| {
                self.read(word).unwrap_or_else(|error| {
                    failed = Some(error);
                    None
                })
            });
            if let Some(error) = failed {
                return Err(error);
            }
            for part in phonemes::parts(&sounds, LONGEST) {
                let mut samples = self.say(&part, timbre, stretch)?;
                fade(&mut samples);
                if sink(&samples).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The samples of phonemes; none when none of them is known.
    fn say(&self, sounds: &str, timbre: Timbre, stretch: f32) -> Result<Vec<f32>, Error> {
        let mut ids = vec![0];
        ids.extend(sounds.chars().filter_map(|sound| self.ids.get(&sound)).copied());
        ids.push(0);
        if ids.len() < 3 {
            return Ok(Vec::new());
        }
        let ids = NdTensor::from_data([1, ids.len()], ids);
        let speed = NdTensor::from_data([1], vec![stretch.clamp(0.25, 4.0).recip()]);
        let mut outputs = self.voice.run(vec![ValueOrView::from(ids), ValueOrView::from(speed)])?.into_iter();
        let mut part = || Ok::<_, Error>(self.voice.floats(outputs.next())?.1);
        let mut spectra = Spectra {
            pulses: part()?,
            turn: part()?,
            noise: part()?,
            free: part()?,
            phase: part()?,
            pitch_hz: part()?,
        };
        timbre.apply(&mut spectra);
        self.vocoder.samples(&spectra).ok_or_else(|| self.voice.unexpected())
    }

    /// The sound of a word that is in no dictionary, read letter by letter.
    fn read(&self, word: &str) -> Result<Option<String>, Error> {
        let place = |letter: char| self.letters.letters.iter().position(|known| *known == letter);
        let ids: Vec<i32> = word
            .chars()
            .filter_map(|letter| i32::try_from(place(letter)? + 1).ok())
            .take(self.letters.maxlen)
            .collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let ids = NdTensor::from_data([1, ids.len()], ids);
        let Some(Value::Int32Tensor(steps)) =
            self.reader.run(vec![ValueOrView::from(ids)])?.into_iter().next()
        else {
            return Err(self.reader.unexpected());
        };
        let (mut sounds, mut before) = (String::new(), 0);
        for step in steps.into_data() {
            if step != before && step > 0 {
                let sound = usize::try_from(step - 1).ok().and_then(|place| self.letters.sounds.get(place));
                sounds.push_str(sound.map_or("", String::as_str));
            }
            before = step;
        }
        Ok(Some(sounds))
    }
}

impl Timbre {
    /// The voice as it is.
    pub const OWN: Self = Self { pitch: 1.0, throat: 1.0 };

    /// Moves pitch and resonances.
    fn apply(self, spectra: &mut Spectra) {
        let frames = spectra.pitch_hz.len();
        spectra.pitch_hz.iter_mut().for_each(|hz| *hz *= self.pitch);
        if self.throat == 1.0 {
            return;
        }
        for part in [
            &mut spectra.pulses,
            &mut spectra.turn,
            &mut spectra.noise,
            &mut spectra.free,
            &mut spectra.phase,
        ] {
            if part.len() != BINS * frames {
                continue;
            }
            let from = part.clone();
            for bin in 0..BINS {
                let source = ((bin as f32 / self.throat).round() as usize).min(BINS - 1);
                part[bin * frames..(bin + 1) * frames]
                    .copy_from_slice(&from[source * frames..(source + 1) * frames]);
            }
        }
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
