//! OpenAI's audio API: transcriptions, speech, sessions, voices, models.

pub mod chat;
mod chunking;
pub mod clips;
pub mod consents;
mod events;
mod form;
pub mod jobs;
mod known;
pub mod models;
pub mod realtime;
pub mod speech;
pub mod transcription;
mod translated;
pub mod uploads;
pub mod voices;
pub(super) mod wire;

pub(super) use known::decode;
