//! A push parser for multipart/form-data that never copies a body, and the writer that frames one.
//!
//! A proxy wants three things of an upload: the text fields, the first bytes of the file, and nothing to stand between the
//! client's bytes and the engine. [`Parser`] is fed the body in chunks of any size; file data leaves it as slices of those
//! same chunks. It searches for the delimiter with a prepared `memmem`, which costs about a tenth of copying parsers.
//! [`Writer`] makes the heads and the tail to frame such slices again. Format: RFC 7578 on RFC 2046, section 5.1.

mod delimiter;
mod header;
mod parser;
mod writer;

#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use header::Boundary;
pub use parser::Parser;
pub use writer::Writer;

/// What a body may use of memory. Bytes of files are not limited here: they are never held.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest value of one text field, in bytes.
    pub field_bytes: usize,
    /// Longest header block of one part, in bytes.
    pub header_bytes: usize,
    /// Most parts of a body, text fields and files together.
    pub fields: usize,
    /// Text fields with a limit of their own.
    pub large: Large,
}

/// Text fields that hold more than others, such as files in a `data:` URL.
#[derive(Clone, Copy, Debug, Default)]
pub struct Large {
    /// What the names of these fields begin with.
    pub prefix: Option<&'static str>,
    /// Longest value of one of them, in bytes.
    pub bytes: usize,
    /// Most of them in a body.
    pub fields: usize,
}

impl Limits {
    fn is_large(&self, name: &str) -> bool {
        self.large.prefix.is_some_and(|prefix| name.starts_with(prefix))
    }

    fn bytes_of(&self, name: &str) -> usize {
        if self.is_large(name) { self.large.bytes } else { self.field_bytes }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { field_bytes: 64 * 1024, header_bytes: 8 * 1024, fields: 64, large: Large::default() }
    }
}

/// What the parser found, in body order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole text field.
    Field {
        /// The form field's name.
        name: String,
        /// Its value, unchanged.
        value: String,
    },
    /// A file begins: a part with a filename, or one named `file`.
    FileStart {
        /// The form field's name.
        name: String,
        /// The file's name as the client gave it: untrusted, not a path.
        filename: Option<String>,
    },
    /// Bytes of the file that began last; never empty.
    FileData(Bytes),
    /// The file is complete.
    FileEnd,
    /// The closing boundary was seen; what follows is ignored.
    End,
}

/// Why a body cannot be read or written. The messages are fit for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The body ended before its closing boundary.
    #[error("the multipart body ended before its closing boundary")]
    Truncated,
    /// The header block of a part is longer than [`Limits::header_bytes`].
    #[error("the headers of a multipart part exceed {limit} bytes")]
    HeaderTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A header line has no colon.
    #[error("a multipart part has a malformed header")]
    MalformedHeader,
    /// A part has no `Content-Disposition: form-data` with a name.
    #[error("a multipart part has no form-data name")]
    MissingName,
    /// A text field is longer than [`Limits::field_bytes`].
    #[error("the form field `{name}` exceeds {limit} bytes")]
    FieldTooLong {
        /// The field's name.
        name: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A text field is not what its charset says; UTF-8 unless its part names another.
    #[error("the form field `{name}` is not valid {charset}")]
    FieldNotUtf8 {
        /// The field's name.
        name: String,
        /// The charset.
        charset: &'static str,
    },
    /// There are more parts than [`Limits::fields`].
    #[error("the multipart body has more than {limit} parts")]
    TooManyParts {
        /// The limit.
        limit: usize,
    },
    /// There are more fields of that name than [`Large::fields`].
    #[error("the form field `{name}` may come {limit} times at most")]
    TooManyLarge {
        /// The field's name.
        name: String,
        /// The limit.
        limit: usize,
    },
    /// A value to be written contains the boundary itself.
    #[error("the form field `{name}` contains the multipart boundary")]
    BoundaryInValue {
        /// The field's name.
        name: String,
    },
}
