//! Speech by neural networks on the CPU, in the runtime `rten`: pure Rust, no native library.
//!
//! | file | part |
//! |---|---|
//! | `files` | where model files are, and that they are the published ones |
//! | `weights` | tensors as a network takes them, in memory that several processes share |
//! | `ctranslate2` | reads the weights of Whisper |
//! | `quantize` | weights in 8 bits |
//! | `graph` | builds a network out of operators and weights |
//! | `net` | a network that is loaded, and its runs |
//! | `onnxruntime` | the same in ONNX Runtime, for networks out of files |
//! | `spectrum` | samples to mel spectra |
//! | `checkpoint` | reads the weights of the networks below |
//! | `segmentation` | where speech is, and where speakers change |
//! | `voiceprint` | whose voice it is |
//! | `diarization` | who speaks when |
//! | `whisper` | speech to text with word times and language |
//! | `parakeet` | speech to text by NVIDIA's Parakeet out of a folder |
//! | `sentences` | a text to sentences, phonemes to parts |
//! | `english` | English text to phonemes |
//! | `espeak` | text of other languages to phonemes |
//! | `symbols` | the numbers of phonemes |
//! | `hibari` | phonemes to speech, one voice |
//! | `kokoro` | phonemes to speech, several voices and languages |
//! | `speakers` | text to speech by those two |

mod checkpoint;
mod ctranslate2;
pub mod diarization;
mod english;
pub mod espeak;
pub mod files;
mod graph;
mod hibari;
mod kokoro;
pub mod net;
#[cfg(feature = "ort")]
mod onnxruntime;
pub mod parakeet;
pub mod quantize;
mod segmentation;
mod sentences;
pub mod speakers;
mod spectrum;
mod symbols;
mod voiceprint;
mod weights;
pub mod whisper;

use std::path::PathBuf;

/// What a runtime said.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("unable to use {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the one that was published.
    #[error("{path} has another SHA-256 than the published file: fetch it again")]
    Hash {
        /// The file.
        path: PathBuf,
    },
    /// A folder holds no model that is known.
    #[error(
        "{folder} has neither encoder-model, decoder_joint-model and vocab.txt nor encoder, decoder, joiner and tokens.txt"
    )]
    NoModel {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is not in the form that it should have.
    #[error("{file} is malformed: {reason}")]
    Format {
        /// The file, without its folder.
        file: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// The runtime refused a network.
    #[error("unable to load network {net}: {source}")]
    Load {
        /// The network.
        net: &'static str,
        /// What the runtime said.
        source: Cause,
    },
    /// A network could not be written down for the runtime.
    #[error("unable to build network {0}")]
    Build(&'static str),
    /// A run failed.
    #[error("network {net} failed: {source}")]
    Run {
        /// The network.
        net: &'static str,
        /// What the runtime said.
        source: Cause,
    },
    /// A program that the text needs failed.
    #[error("unable to run {program}: {reason}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the system said, or how it ended.
        reason: String,
    },
    /// A text could not be analysed.
    #[error("{0}")]
    Text(#[from] crate::ffi::Error),
    /// A network gave a tensor of an unexpected type or shape.
    #[error("network {0} gave a tensor of an unexpected shape")]
    Shape(&'static str),
}

impl Error {
    /// Wraps an input or output error of a file.
    fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
