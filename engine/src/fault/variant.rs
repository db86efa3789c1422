//! The variants of modes, by the words of the switchboard's JSON.

use serde::{Deserialize, Serialize};

/// Text of a CUDA error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// `an illegal memory access was encountered`
    #[default]
    IllegalAccess,
    /// `device-side assert triggered`
    DeviceAssert,
    /// `unspecified launch failure`
    LaunchFailure,
    /// `misaligned address`
    MisalignedAddress,
    /// `operation not permitted when stream is capturing`
    Capture,
    /// `uncorrectable ECC error encountered`
    Ecc,
}

/// Variants of F12.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadChild {
    /// 500.
    #[default]
    Error,
    /// No answer.
    Hang,
}

/// Variants of F14.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadTranscript {
    /// No words.
    #[default]
    Empty,
    /// Only punctuation.
    Punct,
    /// The same for any input.
    Constant,
    /// Empty texts at times that are no numbers.
    Nan,
}

/// Variants of F15.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadAudio {
    /// Zeros.
    #[default]
    Silence,
    /// White noise.
    Noise,
    /// The first tenth of a second.
    Short,
    /// A header that lies; in a raw stream, an odd byte at the start.
    BadHeader,
}

/// Variants of F18.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadLoad {
    /// Loads for ever.
    #[default]
    Never,
    /// Loads for `seconds`.
    Slow,
    /// Reports an error of the environment (class D).
    Fail,
}

/// Variants of F43.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenSizes {
    /// 0xFFFFFFFF.
    #[default]
    Max,
    /// 0.
    Zero,
}
