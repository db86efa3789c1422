//! SpeechStack's proxy: the gateway in front of speech engines and the guard beside each of them.
//!
//! ```text
//! client -> gateway (edge -> api -> job -> upstream -> protocol) ==> guard (lane) ==> engine
//! ```
//!
//! | module | part |
//! |---|---|
//! | `edge`, `api`, `gateway` | downstream: what every request passes, what clients send, and the routes |
//! | `job` | the work that a request asks for, whatever engine does it |
//! | `jobs`, `clips` | jobs that outlive their request, and recordings of voices by name, on disk |
//! | `stream` | sessions: audio that is transcribed while it is spoken |
//! | `upstream` | which engine is picked, retries, waiting |
//! | `protocol` | what engines speak, one codec each |
//! | `guard` | one engine: its path, its judgement, its repair |
//! | `audio`, `multipart`, `rng`, `transcript` | pure: no network, no clock |
//! | `grpc`, `riva_proto` | gRPC's framing and status; the messages of NVIDIA's Riva, which engines and clients speak |
//! | `net` | connections and bodies |
//! | `config`, `keys`, `error` | what is configured, the API keys, and what a client's error says |
//! | `app`, `args`, `admin`, `banner`, `logging` | the process |
//! | `roundtrip` | the proof from outside |
//! | `fuzz` | targets for `cargo fuzz`, and a corpus that tests run |

mod admin;
mod api;
pub mod app;
pub mod args;
mod audio;
mod banner;
mod clips;
pub mod config;
mod conversation;
mod edge;
pub use edge::timing;
mod error;
mod ffmpeg;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateway;
mod grpc;
mod guard;
mod job;
mod jobs;
mod keys;
pub mod logging;
mod multipart;
mod net;
mod protocol;
mod riva_proto;
mod rng;
mod roundtrip;
mod stream;
pub mod transcript;
mod upstream;
