//! Turns chunks of a multipart body into events.

use bytes::Bytes;
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
    /// Text fields so far that have a limit of their own.
    large: usize,
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
        Self { scanner, limits, state: State::Preamble, buffer: Vec::new(), parts: 0, large: 0 }
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
        let longest = 2 + self.limits.header_bytes + BLANK_LINE.len();
        let room = chunk.len().min(longest - self.buffer.len());
        let end = end_of_header(&self.buffer, &chunk[..room]);
        self.buffer.extend_from_slice(&chunk.split_to(end.unwrap_or(room)));
        if end.is_none() {
            return match self.buffer.len() == longest {
                true => Err(Error::HeaderTooLong { limit: self.limits.header_bytes }),
                false => Ok(()),
            };
        }
        let block = self.buffer.len() - BLANK_LINE.len();
        let part = PartHeader::parse(self.buffer.get(2..block).unwrap_or_default())?;
        self.buffer.clear();
        if part.is_file() {
            events.push(Event::FileStart { name: part.name, filename: part.filename });
            self.state = State::File;
        } else {
            if self.limits.is_large(&part.name) {
                self.large += 1;
                if self.large > self.limits.large.fields {
                    return Err(Error::TooManyLarge { name: part.name, limit: self.limits.large.fields });
                }
            }
            let charset = part.charset.unwrap_or(UTF_8);
            self.state = State::Field { name: part.name, charset };
        }
        Ok(())
    }

    fn content(&mut self, data: Bytes, events: &mut Vec<Event>) -> Result<(), Error> {
        match &self.state {
            State::Field { name, .. } => {
                let limit = self.limits.bytes_of(name);
                if self.buffer.len() + data.len() > limit {
                    return Err(Error::FieldTooLong { name: name.clone(), limit });
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

/// What ends a header block.
const BLANK_LINE: &[u8; 4] = b"\r\n\r\n";

/// Bytes of `chunk` up to the end of the blank line that `held` may have begun.
fn end_of_header(held: &[u8], chunk: &[u8]) -> Option<usize> {
    const OVERLAP: usize = BLANK_LINE.len() - 1;
    let tail = &held[held.len().saturating_sub(OVERLAP)..];
    let head = &chunk[..chunk.len().min(OVERLAP)];
    let mut joint = [0; 2 * OVERLAP];
    joint[..tail.len()].copy_from_slice(tail);
    joint[tail.len()..tail.len() + head.len()].copy_from_slice(head);
    let across =
        joint[..tail.len() + head.len()].windows(BLANK_LINE.len()).position(|bytes| bytes == BLANK_LINE);
    match across {
        Some(at) => Some(at + BLANK_LINE.len() - tail.len()),
        None => memmem::find(chunk, BLANK_LINE).map(|at| at + BLANK_LINE.len()),
    }
}
