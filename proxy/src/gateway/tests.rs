//! The whole gateway in process: real router and upstreams between a real client and fake engines.

mod doors;
mod drain;
mod edge;
mod hedges;
mod jobs;
mod long;
mod models;
mod nim;
mod riva;
mod speech;
mod stack;
mod transcription;
mod with_speakers;
