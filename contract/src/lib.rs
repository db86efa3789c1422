//! What SpeechStack's processes tell each other, as plain types: no IO, no async.
//!
//! | module | between |
//! |---|---|
//! | [`report`], [`incident`], [`state`], [`class`] | guard -> gateway, operator: the state of one engine |
//! | [`model_cache`] | guard -> operator: how far an engine's download is |
//! | [`repair`] | guard -> operator: a wanted restart; operator -> guard: an order |
//! | [`restart_request`] | guard -> the liveness helper of the engine's container |
//! | [`vitals`] | the liveness helper -> guard: how busy the engine's container is |
//! | [`header`] | gateway <-> guard: headers of forwarded requests |
//! | [`signature`], [`redact`] | guard and operator: what an engine's words show, and what of them may be kept |
//! | [`port`] | all: where each process listens in a pod |
//!
//! Readers accept words of newer versions: an unknown state, verdict or act is `Other`, an unknown class is none.

pub mod budget;
mod capability;
pub mod class;
pub mod header;
pub mod incident;
pub mod model_cache;
pub mod port;
pub mod redact;
pub mod repair;
pub mod report;
pub mod restart_request;
pub mod signature;
pub mod state;
pub mod vitals;

pub use capability::Capability;
pub use class::Class;
pub use incident::{Incident, Moment, ProbeRecord, ProcessRecord, ThreadRecord};
pub use model_cache::{CacheActivity, ModelCache};
pub use repair::{Act, RepairOrder, RepairRequest, Verb};
pub use report::{EngineReport, Predictor};
pub use state::{State, VerdictName};
pub use vitals::Vitals;
