//! SpeechStack's proxy: the gateway in front of speech engines and the guard beside each of them.
//!
//! ```text
//! client -> gateway (dialect -> upstream) ==> guard (lane) ==> engine
//! ```
//!
//! | module | part |
//! |---|---|
//! | [`dialect`], [`gateway`] | downstream: what clients speak |
//! | [`engine`], [`upstream`], [`spool`] | upstream: what engines speak, which one is picked, retries |
//! | [`guard`] | one engine: lane, probes, verdict, restart |
//! | [`audio`], [`multipart`], [`sentence`], [`served`], [`transcript`] | pure: no IO, no clock |
//! | [`config`], [`report`], [`error`] | the contracts |
//! | [`app`], [`args`], [`admin`], [`drain`], [`http`], [`logging`], [`places`], [`reload`], [`welcome`] | the process |
//! | [`roundtrip`] | the proof from outside |

pub mod admin;
pub mod app;
pub mod args;
pub mod audio;
pub mod config;
pub mod dialect;
pub mod drain;
pub mod engine;
pub mod error;
pub mod gateway;
pub mod guard;
pub mod http;
pub mod logging;
pub mod multipart;
pub mod places;
pub mod reload;
pub mod report;
pub mod roundtrip;
pub mod sentence;
pub mod served;
pub mod spool;
pub mod transcript;
pub mod upstream;
pub mod welcome;
