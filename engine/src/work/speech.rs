//! A checked text with its voice, and its rendering to samples at the rate asked for, piece by piece.

use std::ops::ControlFlow;

use super::{Refusal, voices};
use crate::backend::Error;
use crate::backend::speaking::{Speaker, Speaking};
use crate::fault::variant::BadAudio;
use crate::ffi;
use crate::lane::ServiceClock;
use crate::language::{self, Spoken};
use crate::resample::{Resampler, to_float, to_pcm};

/// The longest audio of one request that is answered in whole, as NVIDIA's synthesis NIM has it, in seconds.
pub const LONGEST_OFFLINE_S: f64 = 20.0;
/// The longest text of NVIDIA's synthesis NIM, in characters.
pub const MAX_CHARACTERS: usize = 2_000;

/// A checked synthesis request.
#[derive(Debug)]
pub struct Speech {
    /// Not empty.
    pub text: String,
    /// Who speaks.
    pub speaker: Speaker,
    /// Rate of the output in Hz, 8,000 to 48,000.
    pub rate_hz: u32,
    /// The audio ends after this many seconds.
    pub longest_s: Option<f64>,
    /// F15.
    pub spoilt: Option<BadAudio>,
}

impl Speech {
    /// Checks a text of at most `longest` characters.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn new(text: &str, longest: usize, rate_hz: u32) -> Result<Self, Refusal> {
        let text = text.trim().to_owned();
        let length = text.chars().count();
        if length == 0 || length > longest {
            let message = format!("text must have 1 to {longest} characters, not {length}");
            return Err(Refusal::parameter("text", message));
        }
        if !(8_000..=48_000).contains(&rate_hz) {
            let message = format!("sample_rate_hz must be 8000 to 48000, not {rate_hz}");
            return Err(Refusal::parameter("sample_rate_hz", message));
        }
        Ok(Self { text, speaker: voices::DEFAULT, rate_hz, longest_s: None, spoilt: None })
    }

    /// Has a named voice speak it in a language, if one is given; an empty name stands for the default voice of the language.
    ///
    /// # Errors
    /// When the language is not spoken, there is no such voice, or it speaks another language.
    pub fn voiced(mut self, name: &str, language: Option<&str>, multilingual: bool) -> Result<Self, Refusal> {
        let spoken = |tag: &str| {
            let known = language::spoken(tag, multilingual);
            known.ok_or_else(|| {
                let tags = language::spoken_tags(multilingual);
                Refusal::parameter("language", format!("language '{tag}' is not supported: use {tags}"))
            })
        };
        let asked: Option<&Spoken> = language.map(spoken).transpose()?;
        if name.is_empty() {
            self.speaker = voices::default_of(asked.unwrap_or(&language::AMERICAN));
            return Ok(self);
        }
        let unknown = || Refusal::parameter("voice", format!("voice '{name}' is not known"));
        self.speaker = voices::find(name, multilingual).ok_or_else(unknown)?;
        if let Some(asked) = asked.filter(|asked| asked.espeak != self.speaker.neural.language) {
            let text = format!("voice '{name}' does not speak {}", asked.tag);
            return Err(Refusal::parameter("voice", text));
        }
        Ok(self)
    }

    /// Duration of the audio by the length of the text, in seconds.
    #[must_use]
    pub fn expected_s(&self) -> f64 {
        const PER_CHARACTER_S: f64 = 0.065;
        self.text.chars().count() as f64 * PER_CHARACTER_S * f64::from(self.speaker.stretch)
    }

    /// Speaks, handing pieces of samples to `sink` no sooner than `clock` lets them go; stops when `gone`.
    ///
    /// # Errors
    /// When the voices or the resampler refuse.
    pub fn render(
        &self,
        voices: &mut Speaking,
        clock: &mut ServiceClock,
        gone: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&[i16]),
    ) -> Result<(), Error> {
        let refuse = |_| ffi::Error::Synthesize(self.speaker.flite.name());
        let mut resampler = Resampler::new(voices.rate_hz(), self.rate_hz).map_err(refuse)?;
        let (mut floats, mut converted, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        let mut made = 0;
        let mut emit = |converted: &mut Vec<f32>| {
            samples.clear();
            samples.extend(converted.drain(..).map(to_pcm));
            let enough = self.spoil(&mut samples, made) | self.cut(&mut samples, made);
            made += samples.len();
            clock.hold(made as f64 / f64::from(self.rate_hz), gone);
            if !samples.is_empty() && !gone() {
                sink(&samples);
            }
            if enough || gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut stopped = false;
        voices.speak(&self.speaker, &self.text, &mut |piece| {
            to_float(piece, &mut floats);
            resampler.push(&floats, &mut converted);
            let flow = emit(&mut converted);
            stopped = flow.is_break();
            flow
        })?;
        if !stopped {
            resampler.finish(&mut converted);
            let _end = emit(&mut converted);
        }
        Ok(())
    }

    /// Cuts a piece that begins at sample `from` at the longest duration; true when the audio is to end here.
    fn cut(&self, samples: &mut Vec<i16>, from: usize) -> bool {
        let Some(longest_s) = self.longest_s else { return false };
        let limit = (longest_s * f64::from(self.rate_hz)) as usize;
        samples.truncate(limit.saturating_sub(from));
        from + samples.len() >= limit
    }

    /// Plays F15 on a piece that begins at sample `from`; true when the audio is to end here.
    fn spoil(&self, samples: &mut Vec<i16>, from: usize) -> bool {
        match self.spoilt {
            None | Some(BadAudio::BadHeader) => false,
            Some(BadAudio::Silence) => {
                samples.fill(0);
                false
            }
            Some(BadAudio::Noise) => {
                for (index, sample) in samples.iter_mut().enumerate() {
                    let scrambled =
                        (((from + index) as u32).wrapping_mul(2_654_435_761) >> 7).wrapping_mul(40_503);
                    *sample = ((scrambled >> 11) as i16) / 4;
                }
                false
            }
            Some(BadAudio::Short) => {
                let limit = self.rate_hz as usize / 10;
                samples.truncate(limit.saturating_sub(from));
                from + samples.len() >= limit
            }
        }
    }
}
