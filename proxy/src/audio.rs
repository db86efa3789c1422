//! Audio containers, encoders and checks; pure, no IO.

pub mod duration;
pub mod encode;
pub mod format;
mod mpeg;
pub mod quality;
#[cfg(test)]
mod signal;
mod sniff;
pub mod wav;

pub use duration::{Estimate, estimate};
pub use encode::{Encoder, OutputFormat, Samples};
pub use format::Container;
pub use quality::Quality;
