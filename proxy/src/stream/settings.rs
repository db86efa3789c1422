//! What a client may set in its session.

use std::time::Duration;

use super::clock::{Format, samples};
use super::segmenter::Rules;

/// How the audio of a session is read, cut and shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The audio that the client sends.
    pub format: Format,
    /// When segments begin and end by themselves; `None` when only the client ends them.
    pub rules: Option<Rules>,
    /// Longest silence within a segment, samples, when the end of a turn is judged by its text too: then the silence of `rules`
    /// is replaced.
    pub eagerness: Option<u64>,
    /// Whether engines hear the segments. Without, each has an empty text.
    pub hears: bool,
    /// Whether there is text while a segment runs.
    pub partials: bool,
    /// Whether the client appends texts to one another, as OpenAI's deltas are: then a final text begins with the words that were
    /// committed before it. Other clients replace partial texts, and get the final as it was heard.
    pub appends: bool,
    /// Whether finals say who speaks.
    pub speakers: bool,
    /// Least time between two decodes for partial text; half of it until there is some.
    pub cadence: Duration,
    /// Longest segment, samples.
    pub max: u64,
    /// Audio that a segment shares with the one before it where the length ended that, samples; without rules.
    pub overlap: u64,
}

impl Settings {
    /// Segments by voice activity, with partial text.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            rules: Some(Rules::default()),
            eagerness: None,
            hears: true,
            partials: true,
            appends: false,
            speakers: false,
            cadence: Duration::from_millis(500),
            max: samples(15_000),
            overlap: 0,
        }
    }
}
