//! The core of streaming: audio becomes segments by voice activity, segments become jobs, jobs become events.
//!
//! A client dialect drives one [`Session`]: audio and control in, [`Event`]s out. What an engine hears goes the way of any other
//! job, so that balance, retries and healing count for sessions as well.

mod agreement;
mod clock;
mod core;
mod engines;
mod event;
mod metrics;
mod segmenter;
mod session;
mod settings;
mod speakers;
mod speech;

pub use clock::{Format, millis, samples, seconds};
pub use engines::{Ask, Gateway};
pub use event::{Event, Final, Partial, SegmentId};
pub use metrics::Metrics;
pub use segmenter::{Rules, Why};
pub use session::{Input, Session};
pub use settings::Settings;
pub use speech::Say;
