//! Turns chunks of a multipart body into events.

use bytes::{Buf, Bytes};
use encoding_rs::{Encoding, UTF_8};
use memchr::memmem;

use crate::multipart::delimiter::{Scanner, Step};
use crate::multipart::header::PartHeader;
use crate::multipart::{Boundary, Error, Event, Limits};

/// A multipart/form-data parser that is fed with [`Parser::push`] and asked at the end with [`Parser::finish`].
///
/// Holds at most one header block or one text field, within [`Limits`]; never file data. After an error it must not be used
/// any more.
#[derive(Debug)]
pub struct Parser {
    scanner: Scanner,
    limits: Limits,
    state: State,
    /// The header block or text value being read.
    buffer: Vec<u8>,
    parts: usize,
}

#[derive(Debug)]
enum State {
    Preamble,
    Header,
    Field { name: String, charset: &'static Encoding },
    File,
    Epilogue,
}

impl Parser {
    /// A parser for one body.
    #[must_use]
    pub fn new(boundary: &Boundary, limits: Limits) -> Self {
        let scanner = Scanner::new(boundary);
        Self { scanner, limits, state: State::Preamble, buffer: Vec::new(), parts: 0 }
    }

    /// Reads the next chunk of the body.
    ///
    /// # Errors
    /// Any [`Error`] of reading but [`Error::Truncated`].
    pub fn push(&mut self, mut chunk: Bytes) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        loop {
            match self.state {
                State::Header if chunk.is_empty() => return Ok(events),
                State::Header => self.header(&mut chunk, &mut events)?,
                State::Epilogue => return Ok(events),
                State::Preamble | State::Field { .. } | State::File => match self.scanner.step(&mut chunk) {
                    Step::Starved => return Ok(events),
                    Step::Data(data) => self.content(data, &mut events)?,
                    Step::Part => {
                        self.end_part(&mut events)?;
                        self.begin_part()?;
                    }
                    Step::Close => {
                        self.end_part(&mut events)?;
                        self.state = State::Epilogue;
                        events.push(Event::End);
                    }
                },
            }
        }
    }

    /// Says that the body has ended.
    ///
    /// # Errors
    /// [`Error::Truncated`] if its closing boundary is missing.
    #[cfg(test)]
    pub fn finish(&self) -> Result<(), Error> {
        match self.state {
            State::Epilogue => Ok(()),
            State::Preamble | State::Header | State::Field { .. } | State::File => Err(Error::Truncated),
        }
    }

    /// Bytes held between two pushes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.len()
    }

    fn begin_part(&mut self) -> Result<(), Error> {
        self.parts += 1;
        if self.parts > self.limits.fields {
            return Err(Error::TooManyParts { limit: self.limits.fields });
        }
        // The line end of the delimiter, so that an empty header block also ends in a blank line.
        self.buffer.extend_from_slice(b"\r\n");
        self.state = State::Header;
        Ok(())
    }

    /// Collects the header block, then opens the part.
    fn header(&mut self, chunk: &mut Bytes, events: &mut Vec<Event>) -> Result<(), Error> {
        const BLANK_LINE: &[u8] = b"\r\n\r\n";
        let longest = 2 + self.limits.header_bytes + BLANK_LINE.len();
        let before = self.buffer.len();
        let taken = chunk.len().min(longest - before);
        self.buffer.extend_from_slice(&chunk[..taken]);
        let from = before.saturating_sub(BLANK_LINE.len() - 1);
        let Some(found) = memmem::find(&self.buffer[from..], BLANK_LINE) else {
            chunk.advance(taken);
            if self.buffer.len() == longest {
                return Err(Error::HeaderTooLong { limit: self.limits.header_bytes });
            }
            return Ok(());
        };
        let end = from + found;
        chunk.advance(end + BLANK_LINE.len() - before);
        let part = PartHeader::parse(self.buffer.get(2..end).unwrap_or_default())?;
        self.buffer.clear();
        if part.is_file() {
            let PartHeader { name, filename, content_type, raw: header } = part;
            events.push(Event::FileStart { name, filename, content_type, header });
            self.state = State::File;
        } else {
            let charset = part.charset().unwrap_or(UTF_8);
            self.state = State::Field { name: part.name, charset };
        }
        Ok(())
    }

    fn content(&mut self, data: Bytes, events: &mut Vec<Event>) -> Result<(), Error> {
        match &self.state {
            State::Field { name, .. } => {
                if self.buffer.len() + data.len() > self.limits.field_bytes {
                    return Err(Error::FieldTooLong { name: name.clone(), limit: self.limits.field_bytes });
                }
                self.buffer.extend_from_slice(&data);
            }
            State::File => events.push(Event::FileData(data)),
            State::Preamble | State::Header | State::Epilogue => {}
        }
        Ok(())
    }

    fn end_part(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, State::Preamble) {
            State::Field { name, charset } => {
                let value = std::mem::take(&mut self.buffer);
                let Some(value) = charset.decode_without_bom_handling_and_without_replacement(&value) else {
                    return Err(Error::FieldNotUtf8 { name, charset: charset.name() });
                };
                events.push(Event::Field { name, value: value.into_owned() });
            }
            State::File => events.push(Event::FileEnd),
            State::Preamble | State::Header | State::Epilogue => {}
        }
        Ok(())
    }
}
