//! The whole gateway in process: real router and upstreams between a real client and fake engines.

mod doors;
mod drain;
mod edge;
mod hedges;
mod jobs;
mod keys;
mod known;
mod long;
mod manner;
mod models;
mod nim;
mod offers;
mod quotas;
mod reference;
mod riva;
mod sessions;
mod speech;
mod stack;
mod tokens;
mod transcription;
mod uploads;
mod with_speakers;
