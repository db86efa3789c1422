//! A file that came in one piece, outside of any form.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;

use super::{HEAD_BYTES, Playing, container, described, playing};
use crate::api::Context;
use crate::error::Error;
use crate::job::input::InputHash;
use crate::upstream::spool::Replay;
use crate::upstream::{Gate, Upload, Upstreams};

/// A file, ready for engines.
pub struct Whole {
    /// The file.
    pub upload: Upload,
    /// How long it plays.
    pub playing: Playing,
    /// Its hash.
    pub input: InputHash,
    /// Its length in bytes.
    pub len: u64,
}

impl Whole {
    /// Takes a file.
    ///
    /// # Errors
    /// It is not audio.
    pub fn new(file: Bytes, context: &Context) -> Result<Self, Error> {
        let len = file.len() as u64;
        let head = file.slice(..file.len().min(usize::try_from(HEAD_BYTES).unwrap_or(usize::MAX)));
        let container = container(&head, None)?;
        let playing = playing(&head, Some(len));
        let audio = described(container, &head, None, Some(len));
        let input = InputHash::of(&file);
        let bytes = Replay::new(stream::iter([Ok(file)]), Some(len), context.upstreams.budget());
        let gate = WholeGate { input, upstreams: context.upstreams.clone() };
        Ok(Self { upload: Upload::new(audio, bytes, Arc::new(gate)), playing, input, len })
    }
}

/// The gate of a file that is all there.
struct WholeGate {
    input: InputHash,
    upstreams: Upstreams,
}

impl Gate for WholeGate {
    fn check(&self) -> Result<(), Error> {
        if self.upstreams.is_poison(self.input) { Err(Error::PoisonInput) } else { Ok(()) }
    }

    fn input(&self) -> Option<InputHash> {
        Some(self.input)
    }
}
