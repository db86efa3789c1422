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
//! | [`app`], [`args`], [`admin`], [`drain`], [`http`], [`logging`], [`permits`], [`reload`], [`welcome`] | the process |
//! | [`roundtrip`] | the proof from outside |

pub mod admin;
pub mod api;
pub mod app;
pub mod args;
pub mod audio;
pub mod banner;
pub mod config;
pub mod edge;
pub mod error;
pub mod gateway;
pub mod guard;
pub mod job;
pub mod logging;
pub mod multipart;
pub mod net;
pub mod protocol;
pub mod roundtrip;
pub mod transcript;
pub mod upstream;
