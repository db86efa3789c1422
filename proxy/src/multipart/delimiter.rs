//! Finds the delimiter lines of a body that arrives in pieces.

use bytes::{Buf, Bytes};
use memchr::memchr_iter;

use crate::multipart::Boundary;

/// Most blanks accepted between a boundary and its line end (RFC 2046 allows any number, clients send none).
const MAX_PADDING: usize = 32;

/// What comes next in the body.
#[derive(Debug)]
pub(super) enum Step {
    /// Content, never empty.
    Data(Bytes),
    /// A delimiter line: the headers of a part follow.
    Part,
    /// The closing delimiter.
    Close,
    /// The chunk is used up.
    Starved,
}

/// The bytes after a possible delimiter, read as the rest of its line.
enum Line {
    Part { len: usize },
    Close,
    LookAlike,
    Incomplete,
}

/// Splits a body into content and delimiters.
///
/// A carriage return stands only at the start of a delimiter. So what is held back between two chunks is always a prefix of
/// one known string, and need not be kept: its length is enough, and if it proves to be content it is given from the
/// delimiter itself.
#[derive(Debug)]
pub(super) struct Scanner {
    /// CR LF, two hyphens, boundary.
    delimiter: Bytes,
    /// Bytes of the delimiter seen at the end of earlier chunks.
    matched: usize,
    /// Bytes after a whole delimiter seen in earlier chunks, at most [`MAX_PADDING`] and two more.
    line: Vec<u8>,
}

impl Scanner {
    /// A scanner at the start of a body, where a delimiter needs no line end before it.
    pub(super) fn new(boundary: &Boundary) -> Self {
        let delimiter = format!("\r\n--{}", boundary.as_str()).into_bytes();
        Self { delimiter: delimiter.into(), matched: 2, line: Vec::new() }
    }

    /// Takes the next step from the front of `chunk`. To be called until it is [`Step::Starved`].
    pub(super) fn step(&mut self, chunk: &mut Bytes) -> Step {
        if self.matched > 0 {
            return self.resume(chunk);
        }
        let mut from = 0;
        while let Some(found) = self.find(&chunk[from..]) {
            let start = from + found;
            let end = start + self.delimiter.len();
            let step = match line(&chunk[end..]) {
                Line::LookAlike => {
                    from = end;
                    continue;
                }
                Line::Incomplete => {
                    self.matched = self.delimiter.len();
                    self.line.extend_from_slice(&chunk[end..]);
                    let len = chunk.len();
                    return take(chunk, start, len);
                }
                Line::Part { len } => (Step::Part, end + len),
                Line::Close => (Step::Close, end + 2),
            };
            if start > 0 {
                return take(chunk, start, start);
            }
            chunk.advance(step.1);
            return step.0;
        }
        self.matched = self.prefix_at_end(chunk);
        let len = chunk.len();
        take(chunk, len - self.matched, len)
    }

    /// Where the next whole delimiter begins. To look for carriage returns alone is as fast as a search for the whole, with
    /// nothing to prepare; in sound every 256th byte is one, so the byte after it is looked at before the rest is compared.
    fn find(&self, chunk: &[u8]) -> Option<usize> {
        memchr_iter(b'\r', chunk)
            .find(|&at| chunk.get(at + 1) == Some(&b'\n') && chunk[at..].starts_with(&self.delimiter))
    }

    /// Goes on with a delimiter that an earlier chunk began.
    fn resume(&mut self, chunk: &mut Bytes) -> Step {
        let missing = &self.delimiter[self.matched..];
        let same = missing.iter().zip(chunk.iter()).take_while(|(a, b)| a == b).count();
        self.matched += same;
        chunk.advance(same);
        if same < missing.len() {
            return if chunk.is_empty() { Step::Starved } else { self.release() };
        }
        while let Some(&byte) = chunk.first() {
            self.line.push(byte);
            let step = match line(&self.line) {
                Line::Incomplete => {
                    chunk.advance(1);
                    continue;
                }
                Line::LookAlike => {
                    self.line.pop();
                    return self.release();
                }
                Line::Part { .. } => Step::Part,
                Line::Close => Step::Close,
            };
            chunk.advance(1);
            self.matched = 0;
            self.line.clear();
            return step;
        }
        Step::Starved
    }

    /// Gives back what was held: it was content.
    fn release(&mut self) -> Step {
        let mut held = self.delimiter.slice(..self.matched);
        if !self.line.is_empty() {
            held = [&held[..], &self.line].concat().into();
        }
        self.matched = 0;
        self.line.clear();
        Step::Data(held)
    }

    /// The length of the delimiter's longest proper prefix that ends `chunk`.
    fn prefix_at_end(&self, chunk: &[u8]) -> usize {
        let tail = &chunk[chunk.len().saturating_sub(self.delimiter.len() - 1)..];
        match memchr::memrchr(b'\r', tail) {
            Some(at) if self.delimiter.starts_with(&tail[at..]) => tail.len() - at,
            _ => 0,
        }
    }
}

/// Takes `data` bytes as content and drops what follows up to `end`.
fn take(chunk: &mut Bytes, data: usize, end: usize) -> Step {
    let content = chunk.split_to(data);
    chunk.advance(end - data);
    if content.is_empty() { Step::Starved } else { Step::Data(content) }
}

/// Reads what follows a delimiter: blanks and CR LF, or two hyphens.
fn line(rest: &[u8]) -> Line {
    let padding = rest.iter().take(MAX_PADDING).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match (padding, &rest[padding..]) {
        (0, [b'-', b'-', ..]) => Line::Close,
        (0, [b'-']) | (_, [] | [b'\r']) => Line::Incomplete,
        (len, [b'\r', b'\n', ..]) => Line::Part { len: len + 2 },
        _ => Line::LookAlike,
    }
}
