//! The whole gateway in process: real router and upstreams between a real client and fake engines.

mod bridge;
mod doors;
mod drain;
mod edge;
mod frames;
mod gemma;
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
mod realtime;
mod reference;
mod riva;
mod sessions;
mod speech;
mod stack;
mod tokens;
mod transcription;
mod uploads;
mod with_speakers;
