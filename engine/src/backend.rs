//! What hears and what speaks: neural networks where their models are there, else pocketsphinx and flite.
//!
//! | file | part |
//! |---|---|
//! | `hearing` | recordings to words and turns |
//! | `speaking` | texts to samples |

pub mod hearing;
pub mod speaking;

use std::path::PathBuf;

use crate::kind::Kind;
use crate::neural::espeak;
use crate::neural::files::Model;
pub use crate::neural::quantize::Precision;

/// Which models to use.
#[derive(Debug, Clone, Default)]
pub struct Models {
    /// The folder of fetched models; `None` for none of them.
    pub folder: Option<PathBuf>,
    /// The folder of a Parakeet, which then recognizes instead of Whisper.
    pub parakeet: Option<PathBuf>,
    /// Threads of the networks; 0 for as many as the machine has cores, at most 8.
    pub threads: usize,
    /// Which weights of Whisper have 8 bits; `None` for what the processor does best.
    pub precision: Option<Precision>,
}

/// Why speech software refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The fallback.
    #[error("{0}")]
    Fallback(#[from] crate::ffi::Error),
    /// A neural network.
    #[error("{0}")]
    Neural(#[from] crate::neural::Error),
}

/// What an engine works with, as far as it is known before anything is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// The truthful name of the model.
    pub model: &'static str,
    /// The truthful name of what tells speakers apart.
    pub diarizer: &'static str,
    /// Whether other languages than English are recognized, or spoken.
    pub multilingual: bool,
}

impl Capability {
    /// Whether pocketsphinx or flite works in place of a neural network.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        [Kind::Stt, Kind::Tts, Kind::Llm].iter().any(|kind| self.model == kind.fallback())
    }
}

impl Models {
    /// Whether all files of a model are there; says which are not.
    #[must_use]
    pub fn have(&self, model: Model) -> Option<&PathBuf> {
        let folder = self.folder.as_ref()?;
        let missing = model.missing(folder);
        if missing.is_empty() {
            return Some(folder);
        }
        tracing::warn!(folder = %folder.display(), missing = %missing.join(", "), "models are missing: falling back, make models fetches them");
        None
    }

    /// Whether all files of a model are there that is no loss when it is missing.
    #[must_use]
    pub fn has(&self, model: Model) -> bool {
        self.folder.as_ref().is_some_and(|folder| model.missing(folder).is_empty())
    }

    /// How many threads the networks have.
    #[must_use]
    pub fn threads(&self) -> usize {
        const MOST: usize = 8;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if self.threads == 0 { cores.min(MOST) } else { self.threads }
    }

    /// Which weights of Whisper have 8 bits.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision.unwrap_or_else(Precision::of_processor)
    }

    /// What an engine of this kind will work with.
    #[must_use]
    pub fn capability(&self, kind: Kind) -> Capability {
        let neural = self.have(Model::Segmentation).is_some() && self.have(Model::Voiceprint).is_some();
        let diarizer = if neural { "segmentation-3.0-campplus" } else { "reference-pitch-spectrum" };
        let fallback = Capability { model: kind.fallback(), diarizer, multilingual: false };
        match kind {
            Kind::Stt if self.parakeet.is_some() => {
                Capability { model: "parakeet-tdt", multilingual: true, ..fallback }
            }
            Kind::Stt if self.have(Model::Whisper).is_some() => {
                Capability { model: "whisper-base", multilingual: true, ..fallback }
            }
            Kind::Tts if self.have(Model::Hibari).is_some() => match self.has(Model::Kokoro) {
                true => Capability { model: "kokoro", multilingual: espeak::is_installed(), ..fallback },
                false => Capability { model: "hibari", ..fallback },
            },
            Kind::Stt | Kind::Tts | Kind::Llm => fallback,
        }
    }
}
