//! Words, speaker turns and what is made of them; pure, no IO.
//!
//! An engine hears words and, apart from them, speaker turns. [`merge()`] says who spoke which word and groups
//! the words into blocks; [`segments`] cuts words for `verbose_json`, [`cues()`] for [`subtitle`]s.
//!
//! Engines report times in seconds as floats, and not always sane ones. Inside this module a time is a whole
//! number of microseconds: shifts are exact, ties are real ties, and no NaN gets past [`repair`].

mod assign;
mod backchannel;
mod blocks;
mod confidence;
mod cues;
mod emission;
mod legacy;
mod merge;
mod offset;
mod sanitise;
pub mod segments;
mod span;
mod speakers;
pub mod stitch;
pub mod subtitle;
#[cfg(test)]
mod tests;
pub mod text;
mod unit;
pub mod word_error;

use serde::{Deserialize, Serialize};

pub use blocks::Block;
pub use cues::cues;
pub use merge::{Merged, Params, Rule, merge};
pub use sanitise::repair;

/// Label of a word that no speaker can be named for.
pub const SPEAKER_UNKNOWN: &str = "Speaker_unknown";

/// A recognised word, or a piece of one, as the engine reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// Start in seconds. NaN where the engine gave none.
    pub start: f64,
    /// End in seconds. NaN where the engine gave none.
    pub end: f64,
    /// Text, with or without a leading space: see [`text::join`].
    pub text: String,
}

/// A stretch of time that the diarizer gives to one speaker. Turns of different speakers may overlap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Start in seconds.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
    /// Speaker label, as the diarizer names it.
    pub speaker: String,
}
