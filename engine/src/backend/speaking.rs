//! Texts to samples, by whatever voices are there.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Error, Models};
use crate::ffi::{Voice, Voices};
use crate::neural::files::Model;
use crate::neural::hibari::{self, Hibari, Timbre};
use crate::neural::net::Threads;
use crate::resample::to_pcm;

/// Samples that are handed out at once: 100 ms.
const PIECE: usize = hibari::RATE_HZ as usize / 10;

/// Loads voices once for all jobs.
pub struct Loader {
    models: Models,
    /// Whether several jobs run at a time.
    shared: bool,
    loaded: Mutex<Option<Arc<Hibari>>>,
}

/// What one job at a time speaks with.
pub enum Speaking {
    /// The neural voice.
    Hibari(Arc<Hibari>),
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
        if let Some(hibari) = &*loaded {
            return Ok(Speaking::Hibari(hibari.clone()));
        }
        let hibari = Arc::new(Hibari::load(folder, &Threads::new(self.models.threads()))?);
        *loaded = Some(hibari.clone());
        Ok(Speaking::Hibari(hibari))
    }
}

impl Speaking {
    /// The rate of its samples, in Hz.
    #[must_use]
    pub fn rate_hz(&self) -> u32 {
        match self {
            Self::Hibari(_) => hibari::RATE_HZ,
            Self::Flite(_) => Voices::RATE_HZ,
        }
    }

    /// Speaks `text`, handing samples to `sink` as they are made. `stretch` multiplies durations. A `Break` from `sink` ends
    /// the synthesis there.
    ///
    /// # Errors
    /// When the speech software refuses.
    pub fn speak(
        &mut self,
        voice: Voice,
        stretch: f32,
        text: &str,
        sink: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        match self {
            Self::Flite(voices) => Ok(voices.speak(voice, stretch, text, &mut |piece, _| sink(piece))?),
            Self::Hibari(hibari) => Ok(hibari.speak(text, timbre(voice), stretch, &mut |samples| {
                let samples: Vec<i16> = samples.iter().copied().map(to_pcm).collect();
                samples.chunks(PIECE).try_for_each(&mut *sink)
            })?),
        }
    }
}

/// The neural voice in the part of one of flite's.
fn timbre(voice: Voice) -> Timbre {
    match voice {
        Voice::Slt => Timbre::OWN,
        Voice::Rms => Timbre { pitch: 0.6, throat: 0.88 },
        Voice::Awb => Timbre { pitch: 0.72, throat: 0.93 },
        Voice::Kal16 => Timbre { pitch: 0.52, throat: 0.84 },
    }
}
