//! OpenAI's audio API: transcriptions, speech, sessions, voices, models.

mod chunking;
pub mod clips;
mod events;
mod form;
pub mod jobs;
mod known;
pub mod models;
pub mod realtime;
pub mod speech;
pub mod transcription;
pub mod voices;
pub(super) mod wire;
