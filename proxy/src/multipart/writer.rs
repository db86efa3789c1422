//! Frames fields and files as a multipart/form-data body, leaving file data to the caller.

use std::io::Write;

use crate::multipart::{Boundary, Error};

/// Makes everything of a body but the file data, in body order, and appends it to what the caller sends.
///
/// After [`Writer::file`] come the file's bytes; the last is [`Writer::close`]. The sum of all lengths is the Content-Length.
#[derive(Debug)]
pub struct Writer<'boundary> {
    boundary: &'boundary Boundary,
    begun: bool,
}

impl<'boundary> Writer<'boundary> {
    /// A writer of one body.
    #[must_use]
    pub fn new(boundary: &'boundary Boundary) -> Self {
        Self { boundary, begun: false }
    }

    /// The head of a file part, to be followed by the file's bytes.
    pub fn file(&mut self, body: &mut Vec<u8>, name: &str, filename: &str, content_type: &str) {
        self.disposition(body, name);
        body.extend_from_slice(b"; filename=\"");
        escape(body, filename);
        body.extend_from_slice(b"\"\r\nContent-Type: ");
        body.extend(content_type.bytes().filter(|byte| !byte.is_ascii_control()));
        body.extend_from_slice(b"\r\n\r\n");
    }

    /// A whole text field.
    ///
    /// # Errors
    /// [`Error::BoundaryInValue`] if the value would end the part early.
    pub fn field(&mut self, body: &mut Vec<u8>, name: &str, value: &str) -> Result<(), Error> {
        let boundary = self.boundary.as_str();
        // Most values are too short to be searched.
        if value.len() > boundary.len()
            && value.match_indices(boundary).any(|(at, _)| value[..at].ends_with("--"))
        {
            return Err(Error::BoundaryInValue { name: name.to_owned() });
        }
        self.disposition(body, name);
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(value.as_bytes());
        Ok(())
    }

    /// The closing delimiter.
    pub fn close(mut self, body: &mut Vec<u8>) {
        self.delimiter(body);
        body.extend_from_slice(b"--\r\n");
    }

    /// The delimiter and the open Content-Disposition line.
    fn disposition(&mut self, body: &mut Vec<u8>, name: &str) {
        self.delimiter(body);
        body.extend_from_slice(b"\r\nContent-Disposition: form-data; name=\"");
        escape(body, name);
        body.push(b'"');
    }

    /// No line end before the first one: some servers refuse it.
    fn delimiter(&mut self, body: &mut Vec<u8>) {
        body.extend_from_slice(if self.begun { &b"\r\n--"[..] } else { b"--" });
        body.extend_from_slice(self.boundary.as_str().as_bytes());
        self.begun = true;
    }
}

/// Makes a quoted parameter safe: quotes and controls as browsers write them (WHATWG HTML, multipart/form-data encoding),
/// and the backslash doubled, since servers read it as an escape.
fn escape(body: &mut Vec<u8>, value: &str) {
    for &byte in value.as_bytes() {
        match byte {
            b'"' => body.extend_from_slice(b"%22"),
            b'\\' => body.extend_from_slice(b"\\\\"),
            // Writing into memory does not fail.
            byte if byte.is_ascii_control() => _ = write!(body, "%{byte:02X}"),
            byte => body.push(byte),
        }
    }
}
