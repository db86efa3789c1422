//! What a client has sent of its request: how the body ended, and the text needed to recognise an echo in an error reply.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::guard::path::forward::tail::Broken;

/// Bytes kept of a request's beginning: fields of a form, a text to speak...
const HEAD_BYTES: usize = 16 * 1024;
/// ...and of its end: fields that follow a file.
const TAIL_BYTES: usize = 2 * 1024;

/// What was sent of one request. Shared between its body, on its way to the engine, and its call.
#[derive(Debug, Default)]
pub struct Sent {
    ended: OnceLock<Result<(), Broken>>,
    bytes: AtomicU64,
    words: Mutex<Words>,
}

#[derive(Debug, Default)]
struct Words {
    head: Vec<Bytes>,
    head_bytes: usize,
    tail: Vec<u8>,
}

impl Sent {
    /// Takes the next bytes. They are shared and not copied, but for the end of a long body.
    pub fn push(&self, data: &Bytes) {
        self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.words.lock().push(data);
    }

    /// How many bytes it was so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How the body ended; `None` while it has not.
    pub fn ended(&self) -> Option<Result<(), Broken>> {
        self.ended.get().copied()
    }

    /// It ended so. Only the first end counts.
    pub fn end(&self, end: Result<(), Broken>) {
        let _ = self.ended.set(end);
    }

    /// What the request says, as far as it is kept: its bytes, and the strings of a JSON body as they are meant.
    pub fn words(&self) -> Vec<u8> {
        let mut words = self.words.lock().text();
        if let Ok(json) = serde_json::from_slice(&words) {
            spell_out(&json, &mut words);
        }
        words
    }
}

impl Words {
    fn push(&mut self, data: &Bytes) {
        let room = HEAD_BYTES - self.head_bytes;
        let (head, rest) = data.split_at(room.min(data.len()));
        if !head.is_empty() {
            self.head_bytes += head.len();
            self.head.push(data.slice_ref(head));
        }
        if rest.len() >= TAIL_BYTES {
            self.tail.clear();
        }
        self.tail.extend_from_slice(&rest[rest.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
    }

    fn text(&self) -> Vec<u8> {
        let parts: Vec<&[u8]> = self.head.iter().map(|part| &part[..]).chain([&self.tail[..]]).collect();
        parts.concat()
    }
}

/// Appends every string of a JSON value, each on a line.
fn spell_out(value: &serde_json::Value, words: &mut Vec<u8>) {
    match value {
        serde_json::Value::String(text) => {
            words.push(b'\n');
            words.extend_from_slice(text.as_bytes());
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| spell_out(item, words)),
        serde_json::Value::Object(fields) => fields.values().for_each(|field| spell_out(field, words)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(body: &[u8], chunk: usize) -> Vec<u8> {
        let sent = Sent::default();
        body.chunks(chunk).for_each(|data| sent.push(&Bytes::copy_from_slice(data)));
        sent.words()
    }

    #[test]
    fn the_beginning_and_the_end_are_kept_however_they_are_cut() {
        let body: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        let kept = [&body[..HEAD_BYTES], &body[body.len() - TAIL_BYTES..]].concat();
        for chunk in [1, 333, 5_000, 100_000] {
            assert!(words(&body, chunk) == kept, "chunks of {chunk}");
            assert!(words(&body[..HEAD_BYTES + 100], chunk) == body[..HEAD_BYTES + 100]);
        }
    }

    #[test]
    fn escapes_hide_nothing_in_json() {
        let body = br#"{"a": [{"text": "\u0043UDA error"}], "b": 1}"#;
        assert!(words(body, 7).ends_with(b"\nCUDA error"));
    }

    #[test]
    fn the_first_end_counts() {
        let sent = Sent::default();
        assert_eq!(sent.ended(), None);
        sent.end(Err(Broken::Stalled));
        sent.end(Ok(()));
        assert_eq!(sent.ended(), Some(Err(Broken::Stalled)));
    }
}
