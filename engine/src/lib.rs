//! The reference engine of SpeechStack: real speech software behind the HTTP dialects of GPU engines, on a plain CPU,
//! with a switchboard for every way in which they fail. For tests and demos, never for production speech.
//!
//! ```text
//! transcription  form -> inference (ready? place? fault?) -> lane: decode -> activity -> recognize -> parakeet (JSON)
//! diarization    form -> inference                        -> lane: decode -> activity -> diarize   -> parakeet (JSON)
//! synthesis      form -> inference                        -> lane: flite -> resample -> spoil -> magpie (WAV or stream)
//! ```
//!
//! `lane` runs one job at a time on the thread that owns the models; `fault` decides what goes wrong with it; `app` wires
//! and serves; `ffi` alone is unsafe.

pub mod activity;
pub mod app;
pub mod args;
pub mod decode;
pub mod diarize;
pub mod fault;
pub mod ffi;
pub mod form;
pub mod health;
pub mod inference;
pub mod lane;
pub mod magpie;
pub mod parakeet;
pub mod recognize;
pub mod resample;
pub mod say;
pub mod wav;
