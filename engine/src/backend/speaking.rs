//! Texts to samples, by whatever voices are there.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Error, Models};
use crate::ffi::{Voice, Voices};
use crate::neural::files::Model;
use crate::neural::net::Threads;
use crate::neural::speakers::{self, Part, Speakers};
use crate::resample::to_pcm;

/// Samples that are handed out at once: 100 ms.
const PIECE: usize = speakers::RATE_HZ as usize / 10;

/// Who speaks, whatever voices are there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speaker {
    /// The voice of flite.
    pub flite: Voice,
    /// The neural voice.
    pub neural: Part,
    /// Factor of durations.
    pub stretch: f32,
}

/// Loads voices once for all jobs.
pub struct Loader {
    models: Models,
    /// Whether several jobs run at a time.
    shared: bool,
    loaded: Mutex<Option<Arc<Speakers>>>,
}

/// What one job at a time speaks with.
pub enum Speaking {
    /// Neural voices.
    Neural(Arc<Speakers>),
    /// The fallback.
    Flite(Voices),
}

impl Loader {
    /// Nothing is loaded yet.
    #[must_use]
    pub fn new(models: Models, shared: bool) -> Self {
        Self { models, shared, loaded: Mutex::new(None) }
    }

    /// What one more job speaks with.
    ///
    /// # Errors
    /// When a model is there and cannot be loaded, or the fallback is needed and is not there.
    pub fn load(&self) -> Result<Speaking, Error> {
        // The neural voice too has its texts analysed by flite.
        let voices = Voices::load(self.shared)?;
        let Some(folder) = self.models.have(Model::Hibari) else { return Ok(Speaking::Flite(voices)) };
        let mut loaded = self.loaded.lock();
        if let Some(speakers) = &*loaded {
            return Ok(Speaking::Neural(speakers.clone()));
        }
        let threads = Threads::new(self.models.threads());
        let speakers = Arc::new(Speakers::load(folder, self.models.has(Model::Kokoro), &threads)?);
        *loaded = Some(speakers.clone());
        Ok(Speaking::Neural(speakers))
    }
}

impl Speaking {
    /// The rate of its samples, in Hz.
    #[must_use]
    pub fn rate_hz(&self) -> u32 {
        match self {
            Self::Neural(_) => speakers::RATE_HZ,
            Self::Flite(_) => Voices::RATE_HZ,
        }
    }

    /// Speaks `text`, handing samples to `sink` as they are made. A `Break` from `sink` ends
    /// the synthesis there.
    ///
    /// # Errors
    /// When the speech software refuses.
    pub fn speak(
        &mut self,
        speaker: &Speaker,
        text: &str,
        sink: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        match self {
            Self::Flite(voices) => {
                Ok(voices.speak(speaker.flite, speaker.stretch, text, &mut |piece, _| sink(piece))?)
            }
            Self::Neural(speakers) => {
                Ok(speakers.speak(text, &speaker.neural, speaker.stretch, &mut |samples| {
                    let samples: Vec<i16> = samples.iter().copied().map(to_pcm).collect();
                    samples.chunks(PIECE).try_for_each(&mut *sink)
                })?)
            }
        }
    }
}
