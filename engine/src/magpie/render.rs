//! From text to samples at the rate asked for, piece by piece.

use std::ops::ControlFlow;

use crate::fault::mode::BadAudio;
use crate::ffi::{Error, Voice, Voices};
use crate::lane::ServiceClock;
use crate::resample::{Resampler, to_float, to_pcm};

/// The rate of flite's voices, in Hz.
const NATIVE_HZ: u32 = 16_000;

/// A checked synthesis request.
#[derive(Debug)]
pub struct Speech {
    /// 1 to 2,000 characters.
    pub text: String,
    /// Who speaks.
    pub voice: Voice,
    /// Factor of durations.
    pub stretch: f32,
    /// Rate of the output.
    pub rate_hz: u32,
    /// F15.
    pub spoilt: Option<BadAudio>,
}

impl Speech {
    /// Duration of the audio by the length of the text, in seconds.
    #[must_use]
    pub fn expected_s(&self) -> f64 {
        const PER_CHARACTER_S: f64 = 0.065;
        self.text.chars().count() as f64 * PER_CHARACTER_S * f64::from(self.stretch)
    }

    /// Speaks, handing pieces of samples to `sink` no sooner than `clock` lets them go; stops when `gone`.
    ///
    /// # Errors
    /// When flite or the resampler refuses.
    pub fn render(
        &self,
        voices: &mut Voices,
        clock: &mut ServiceClock,
        gone: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&[i16]),
    ) -> Result<(), Error> {
        let refuse = |_| Error::Synthesize(self.voice.name());
        let mut resampler = Resampler::new(NATIVE_HZ, self.rate_hz).map_err(refuse)?;
        let (mut floats, mut converted, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        let mut made = 0;
        let mut emit = |converted: &mut Vec<f32>| {
            samples.clear();
            samples.extend(converted.drain(..).map(to_pcm));
            let enough = self.spoil(&mut samples, made);
            made += samples.len();
            clock.hold(made as f64 / f64::from(self.rate_hz), gone);
            if !samples.is_empty() && !gone() {
                sink(&samples);
            }
            if enough || gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut stopped = false;
        voices.speak(self.voice, self.stretch, &self.text, &mut |piece, _| {
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
