//! The reference engine of SpeechStack: real speech software behind the protocols of GPU engines, on a plain CPU, with a
//! switchboard for every way in which they fail. For tests and demos, never for production speech.
//!
//! ```text
//! protocol: decode -> work: admission (ready? place? fault?) -> lane: decode, recognize, diarize ->  protocol: encode
//!                                                            -> lane: flite, resample, spoil
//! ```
//!
//! `protocol` has one file for each wire shape; `work` is the same for all of them; `lane` runs one job at a time on the
//! thread that owns the models; `fault` decides what goes wrong with it; `app` wires and `serve` listens; `ffi` alone is
//! unsafe.

pub mod activity;
pub mod app;
pub mod args;
pub mod decode;
pub mod diarize;
pub mod fault;
pub mod ffi;
pub mod form;
pub mod grpc;
pub mod health;
pub mod lane;
pub mod language;
pub mod pcm;
pub mod protocol;
pub mod recognize;
pub mod resample;
pub mod say;
pub mod serve;
pub mod wav;
pub mod work;
