//! The messages of Riva's gRPC services, generated from `proto/`.
#![allow(clippy::all, dead_code, missing_docs, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/riva.rs"));

pub(super) use nvidia::riva::{AudioEncoding, asr, tts};
