//! The data path of one engine: lane, forwarding, held uploads, classification of replies.

pub mod classify;
pub mod forward;
pub mod grpc;
pub mod lane;
pub mod observer;
pub mod predictor;
pub mod signatures;
