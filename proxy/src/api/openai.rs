//! OpenAI's audio API: transcriptions, speech, sessions, voices, models.

mod chunking;
mod events;
mod form;
pub mod jobs;
pub mod models;
pub mod realtime;
pub mod speech;
pub mod transcription;
pub mod voices;
mod wire;
