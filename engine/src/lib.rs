//! The CPU engine of SpeechStack: neural speech, or small speech software for tests, behind the protocols of GPU engines, with
//! a switchboard for every way in which they fail.
//!
//! ```text
//! protocol: decode -> work: admission (ready? place? fault?) -> lane: decode, recognize, diarize ->  protocol: encode
//!                                                            -> lane: flite, resample, spoil
//! ```
//!
//! `protocol` has one file for each wire shape; `work` is the same for all of them; `lane` runs one job at a time on each
//! thread that owns models; `fault` decides what goes wrong with it; `wire` plays what goes wrong below HTTP; `app`
//! wires and `serve` listens; `ffi` alone is unsafe.

mod activity;
mod answer;
pub mod app;
pub mod args;
pub mod backend;
pub mod check;
mod core;
mod decode;
mod diarize;
mod fault;
pub mod ffi;
mod form;
pub mod grpc;
mod health;
pub mod kind;
pub mod lane;
mod language;
mod neural;
pub mod pcm;
pub mod protocol;
mod recognize;
mod resample;
pub mod say;
mod serve;
pub mod wav;
mod wire;
mod work;
