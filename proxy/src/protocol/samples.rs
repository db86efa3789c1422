//! Spoken audio in the replies of engines, as it comes.

use bytes::Bytes;

use super::Error;

/// Turns the bytes of a reply into samples.
pub trait Samples: Send {
    /// Takes the next bytes; gives s16le mono samples, possibly none and possibly cut between the bytes of one.
    ///
    /// # Errors
    /// [`Error::Frame`] or [`Error::Message`] when the reply is not what the protocol sends.
    fn push(&mut self, data: Bytes) -> Result<Bytes, Error>;
}

/// A reply that is nothing but samples.
#[derive(Debug, Default)]
pub struct WholeBytes;

impl Samples for WholeBytes {
    fn push(&mut self, data: Bytes) -> Result<Bytes, Error> {
        Ok(data)
    }
}
