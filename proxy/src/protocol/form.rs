//! Multipart forms as requests: the fields first or last, the file between.

use bytes::Bytes;
use http::HeaderValue;

use super::{Encoded, Error, File, Intake};
use crate::audio::Container;
use crate::multipart::{Boundary, Writer};

/// What a file's head needs, and what the fields of most requests do.
const ROOM: usize = 512;

/// A form that is being written: the file, then the fields.
pub(super) struct Form {
    path: &'static str,
    writer: Writer<'static>,
    before: Vec<u8>,
    after: Vec<u8>,
    has_file: bool,
}

impl Form {
    /// An empty form for that path.
    pub(super) fn new(path: &'static str) -> Self {
        let writer = Writer::new(Boundary::process());
        Self {
            path,
            writer,
            before: Vec::with_capacity(ROOM),
            after: Vec::with_capacity(ROOM),
            has_file: false,
        }
    }

    /// Opens the part `file`. What is written from now on comes after the file.
    pub(super) fn file(mut self, file: &File<'_>) -> Self {
        let (name, content_type) = match file.form {
            Intake::AsSent => (&*file.audio.filename, file.audio.container.mime()),
            Intake::Wav | Intake::Pcm => ("audio.wav", Container::Wav.mime()),
        };
        self.writer.file(&mut self.before, "file", name, content_type);
        self.has_file = true;
        self
    }

    /// Adds a text field.
    ///
    /// # Errors
    /// [`Error::Form`] when the value holds the boundary.
    pub(super) fn field(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let part = if self.has_file { &mut self.after } else { &mut self.before };
        self.writer.field(part, name, value).map_err(Error::Form)?;
        Ok(self)
    }

    /// Adds a text field if there is a value.
    ///
    /// # Errors
    /// As [`Form::field`].
    pub(super) fn optional(self, name: &str, value: Option<&str>) -> Result<Self, Error> {
        match value {
            Some(value) => self.field(name, value),
            None => Ok(self),
        }
    }

    /// The request.
    pub(super) fn close(mut self) -> Encoded {
        let part = if self.has_file { &mut self.after } else { &mut self.before };
        self.writer.close(part);
        Encoded {
            path: self.path,
            content_type: content_type(),
            before: Bytes::from(self.before),
            pieces: None,
            after: Bytes::from(self.after),
        }
    }
}

/// The Content-Type of every form towards engines.
fn content_type() -> HeaderValue {
    Boundary::process_header().clone()
}
