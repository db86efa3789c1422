//! OpenAI's audio API: transcriptions, speech, voices, models.

mod events;
mod form;
pub mod models;
pub mod speech;
pub mod transcription;
pub mod voices;
mod wire;
