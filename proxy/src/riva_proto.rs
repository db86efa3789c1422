//! The messages and servers of Riva's gRPC services and of gRPC's health service, generated from `proto/`.
#![allow(clippy::all, dead_code, missing_docs, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/services.rs"));

pub use grpc::health::v1 as health;
pub use nvidia::riva::{AudioEncoding, RequestId, asr, tts};
