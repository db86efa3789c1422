//! Conversations with a language model.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

/// How models answer, and what is kept of conversations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conversation {
    /// How to answer, where a client gives no instructions.
    pub system_prompt: String,
    /// Conversations that are kept, of all callers together; beyond it that goes which was used least recently.
    pub max_sessions: usize,
    /// Messages of each that are kept, of both sides.
    pub max_messages: usize,
    /// How long a conversation is kept after its last turn.
    #[serde(with = "duration")]
    pub ttl: Duration,
    /// Translations that are kept, so that the same text is translated once.
    pub max_translations: usize,
}

impl Default for Conversation {
    fn default() -> Self {
        Self {
            system_prompt: "You are a voice assistant. Your answers are spoken: answer briefly, in the language of the user, in \
                            plain sentences without lists, tables, markup or emoji."
                .into(),
            max_sessions: 1000,
            max_messages: 40,
            ttl: Duration::from_secs(1800),
            max_translations: 256,
        }
    }
}

impl Conversation {
    /// What of these cannot be: the field and the reason.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let counts = [("max_sessions", self.max_sessions), ("max_messages", self.max_messages)];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Some((field, "must be at least 1"));
        }
        self.ttl.is_zero().then_some(("ttl", "must be longer than 0"))
    }
}
