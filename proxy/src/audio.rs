//! Audio containers, decoders, encoders and checks; pure, no IO but the readers and writers passed in.

mod aiff;
mod boxes;
pub mod convert;
mod decode;
mod describe;
pub mod duration;
mod ebml;
pub mod encode;
pub mod format;
pub mod live;
mod mpeg;
pub mod quality;
pub mod resample;
mod sample;
#[cfg(test)]
pub(crate) mod signal;
mod sniff;
mod stretch;
pub mod voice;
pub mod wav;

pub use describe::describe;
pub use duration::estimate;
pub use encode::{Encoder, OutputFormat, Samples};
pub use format::Container;
pub use sample::Sample;
pub use stretch::{SPEEDS, Stretch};
