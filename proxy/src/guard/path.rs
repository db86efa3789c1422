//! The data path of one engine: lane, forwarding, held tails, classification of replies.

pub mod classify;
pub mod forward;
pub mod lane;
pub mod predictor;
pub mod redact;
pub mod signatures;
