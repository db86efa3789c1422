//! The work of an engine in neutral types: what every protocol's server side calls between decoding a request and
//! encoding the reply.
//!
//! | file | part |
//! |---|---|
//! | `admission` | readiness, the queue's limit and armed faults, before a job may queue for the lane |
//! | `run` | a job under way: its pace, and the faults that strike while it runs |
//! | `refusal` | why a request got no result |
//! | `transcribe` | recordings to words and turns |
//! | `synthesize` | texts to samples, whole or piece by piece |
//! | `speech` | a checked text with its voice, and its rendering |
//! | `voices` | names of voices |
//! | `write` | conversations to answers |

mod admission;
mod refusal;
mod run;
pub mod speech;
pub mod synthesize;
pub mod transcribe;
pub mod voices;
pub mod write;

use std::sync::Arc;

use axum::response::Response;

pub use refusal::Refusal;
pub use synthesize::Synthesizer;
pub use transcribe::Transcriber;
pub use write::Writer;

use crate::wire::{ResetAfter, Silence};

/// The work that an engine of one kind can do.
pub enum Work {
    /// Speech to text.
    Stt(Arc<Transcriber>),
    /// Text to speech.
    Tts(Arc<Synthesizer>),
    /// Conversations.
    Llm(Arc<Writer>),
}

/// A result, and whether a fault cuts the reply off.
#[derive(Debug)]
pub struct Served<T> {
    /// The result.
    pub made: T,
    /// The connection is reset after this many bytes of the reply's body.
    pub reset_after: Option<u64>,
    /// A streamed reply goes silent after this many messages.
    pub silent_after: Option<u64>,
}

/// What cuts a streamed reply off, which it may learn only when it runs already.
#[derive(Debug, Clone)]
pub struct Cuts {
    /// Resets the connection.
    pub reset: ResetAfter,
    /// Sends no more.
    pub silence: Silence,
}

impl Default for Cuts {
    fn default() -> Self {
        Self { reset: ResetAfter::at(None), silence: Silence::at(None) }
    }
}

impl Cuts {
    /// Takes over what struck one of the stream's inferences.
    pub fn set<T>(&self, served: &Served<T>) {
        self.reset.set(served.reset_after);
        self.silence.set(served.silent_after);
    }
}

impl<T> Served<T> {
    /// The HTTP response with the result.
    pub fn respond(self, render: impl FnOnce(T) -> Response) -> Response {
        let mut response = render(self.made);
        if self.reset_after.is_some() {
            response.extensions_mut().insert(ResetAfter::at(self.reset_after));
        }
        response
    }

    /// The gRPC response with the result.
    pub fn reply<U>(self, render: impl FnOnce(T) -> U) -> tonic::Response<U> {
        let mut response = tonic::Response::new(render(self.made));
        if self.reset_after.is_some() {
            response.extensions_mut().insert(ResetAfter::at(self.reset_after));
        }
        response
    }
}
