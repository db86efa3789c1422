//! What reads bytes of any origin: targets for `cargo fuzz`, which `make test` runs on a corpus and its mutations.
//!
//! A target fails by a panic. None does IO.

use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;

use crate::audio::live::Recording;
use crate::audio::{self, Container, convert, wav};
use crate::grpc;
use crate::job::chat::Delta;
use crate::job::plain::plain;
use crate::multipart::{Boundary, Event, Large, Limits, Parser};
use crate::protocol::Protocol;

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));
/// What is read of a form: its fields, and the bytes of its files.
type Form = (Vec<(String, String)>, Vec<u8>);

/// The targets.
pub const TARGETS: [Target; 6] = [
    ("multipart", multipart),
    ("audio", decode),
    ("live", live),
    ("head", head),
    ("reply", reply),
    ("text", text),
];

/// A form with the boundary `x`, in chunks whose size is the first byte. Cut anywhere, it reads the same.
pub fn multipart(data: &[u8]) {
    let Some((size, body)) = data.split_first() else { return };
    let size = usize::from(*size).max(1);
    let Some(boundary) = Boundary::parse("multipart/form-data; boundary=x") else { return };
    let large = Large { prefix: Some("large"), bytes: 4096, fields: 2 };
    let limits = Limits { field_bytes: 1024, header_bytes: 512, fields: 8, large };
    let read = |size: usize| -> Option<Form> {
        let mut parser = Parser::new(&boundary, limits);
        let (mut fields, mut file) = (Vec::new(), Vec::new());
        for chunk in body.chunks(size) {
            for event in parser.push(Bytes::copy_from_slice(chunk)).ok()? {
                match event {
                    Event::Field { name, value } => fields.push((name, value)),
                    Event::FileData(data) => file.extend_from_slice(&data),
                    Event::FileStart { .. } | Event::FileEnd | Event::End => {}
                }
            }
        }
        parser.finish().ok().map(|()| (fields, file))
    };
    assert_eq!(read(size), read(body.len().max(1)));
}

/// A file as any container that its first bytes may be, whole.
pub fn decode(data: &[u8]) {
    let Some(container) = Container::sniff(data) else { return };
    let limits = convert::Limits { max_seconds: 5.0, rate: convert::RATE, stop: Arc::default() };
    let mut pcm = Vec::new();
    if let Ok(converted) = convert::to_pcm(Cursor::new(data.to_vec()), container, &limits, &mut pcm) {
        assert_eq!(converted.samples * 2, pcm.len() as u64);
    }
}

/// A recording that is decoded while it grows, in pieces whose size is the first byte. Cut anywhere, it gives the same.
pub fn live(data: &[u8]) {
    let Some((size, file)) = data.split_first() else { return };
    let heard = |size: usize| {
        let mut recording = Recording::of(file)?;
        let mut samples = Vec::new();
        let ended = file.chunks(size).try_for_each(|piece| recording.push(piece, &mut samples));
        Some((samples.len(), ended))
    };
    let (pieces, whole) = (heard(usize::from(*size).max(1)), heard(file.len().max(1)));
    // What came before the damage is given in pieces; as a whole it may be lost with it.
    if let (Some((some, Ok(()))), Some((all, Ok(())))) = (pieces, whole) {
        assert_eq!(some, all);
    }
}

/// What an engine answers, in the protocol that the first byte names, in pieces whose size is the second one.
pub fn reply(data: &[u8]) {
    let Some(([protocol, size], reply)) = data.split_first_chunk() else { return };
    let protocol = Protocol::ALL[usize::from(*protocol) % Protocol::ALL.len()];
    let pieces = || reply.chunks(usize::from(*size).max(1)).map(Bytes::copy_from_slice);
    let _ = (protocol.turns(reply), protocol.voices(reply), protocol.text(reply));
    let _ = protocol.live(&reply[..reply.len() / 2], &reply[reply.len() / 2..]);
    if let Ok(transcript) = protocol.transcript(reply) {
        assert!(transcript.duration.is_none_or(f64::is_finite), "{:?}", transcript.duration);
    }
    let _ = grpc::joined(Bytes::copy_from_slice(reply));
    let mut samples = protocol.samples();
    let _ = pieces().try_for_each(|piece| samples.push(piece).map(|_| ()));
    if protocol.words().is_some() {
        assert_eq!(said(protocol, pieces()), said(protocol, std::iter::once(Bytes::copy_from_slice(reply))));
    }
}

/// What a language model says in these pieces, if it says it all.
fn said(protocol: Protocol, pieces: impl Iterator<Item = Bytes>) -> Option<Vec<Delta>> {
    let mut words = protocol.words()?;
    let mut deltas = Vec::new();
    for piece in pieces {
        deltas.extend(words.push(piece).ok()?);
    }
    deltas.extend(words.finish().ok()?);
    Some(deltas)
}

/// What is read of the first bytes of a file.
pub fn head(data: &[u8]) {
    for total in [None, Some(data.len() as u64), Some(u64::MAX)] {
        if let Some(estimate) = audio::estimate(data, total) {
            assert!(estimate.seconds.is_finite() && estimate.seconds >= 0.0);
        }
        if let Some(header) = wav::open_header(data, total) {
            let _ = wav::patch(&header, total.unwrap_or(0));
        }
    }
    let _ = (audio::describe(data), wav::search(data));
}

/// A text as it is cleaned for speech.
pub fn text(data: &[u8]) {
    let _ = plain(&String::from_utf8_lossy(data));
}

#[cfg(test)]
mod tests;
