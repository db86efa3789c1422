//! Frames fields and files as a multipart/form-data body, leaving file data to the caller.

use bytes::Bytes;
use memchr::memmem;

use crate::multipart::{Boundary, Error};

/// Makes everything of a body but the file data, in body order.
///
/// Send what [`Writer::file`] returns, then the file's bytes, then what the next call returns; the last is
/// [`Writer::close`]. The sum of all lengths is the Content-Length.
#[derive(Debug)]
pub struct Writer {
    boundary: Boundary,
    begun: bool,
}

impl Writer {
    /// A writer of one body.
    #[must_use]
    pub fn new(boundary: Boundary) -> Self {
        Self { boundary, begun: false }
    }

    /// The head of a file part, to be followed by the file's bytes.
    pub fn file(&mut self, name: &str, filename: &str, content_type: &str) -> Bytes {
        let head = format!(
            "{}; filename=\"{}\"\r\nContent-Type: {}\r\n\r\n",
            self.disposition(name),
            escape(filename),
            one_line(content_type)
        );
        head.into()
    }

    /// A whole text field.
    ///
    /// # Errors
    /// [`Error::BoundaryInValue`] if the value would end the part early.
    pub fn field(&mut self, name: &str, value: &str) -> Result<Bytes, Error> {
        let delimiter = format!("--{}", self.boundary.as_str());
        if memmem::find(value.as_bytes(), delimiter.as_bytes()).is_some() {
            return Err(Error::BoundaryInValue { name: name.to_owned() });
        }
        Ok(format!("{}\r\n\r\n{value}", self.disposition(name)).into())
    }

    /// The closing delimiter.
    #[must_use]
    pub fn close(self) -> Bytes {
        format!("{}--{}--\r\n", line_end(self.begun), self.boundary.as_str()).into()
    }

    /// The delimiter and the open Content-Disposition line. No line end before the first one: some servers refuse it.
    fn disposition(&mut self, name: &str) -> String {
        let before = line_end(self.begun);
        self.begun = true;
        let (boundary, name) = (self.boundary.as_str(), escape(name));
        format!("{before}--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"")
    }
}

fn line_end(begun: bool) -> &'static str {
    if begun { "\r\n" } else { "" }
}

/// Makes a quoted parameter safe: quotes and controls as browsers write them (WHATWG HTML, multipart/form-data encoding),
/// and the backslash doubled, since servers read it as an escape.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '"' => escaped.push_str("%22"),
            '\\' => escaped.push_str("\\\\"),
            letter if letter.is_ascii_control() => escaped.push_str(&format!("%{:02X}", u32::from(letter))),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Keeps a header value on its line.
fn one_line(value: &str) -> String {
    value.chars().filter(|letter| !letter.is_control()).collect()
}
