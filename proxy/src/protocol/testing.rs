//! What tests of protocols share.

use bytes::Bytes;

use super::Encoded;
use super::grpc::Deframer;
use crate::audio::Container;
use crate::job::work::Audio;
use crate::multipart::{Boundary, Event, Limits, Parser};

/// A mono WAV file.
pub(super) fn wav() -> Audio {
    audio(Container::Wav, true)
}

/// A file of that container, named after it.
pub(super) fn audio(container: Container, mono: bool) -> Audio {
    Audio { container, filename: format!("a.{}", container.extension()), mono }
}

/// The only message in a gRPC request, with `file` as the file's content.
pub(super) fn message(encoded: &Encoded, file: &'static [u8]) -> Bytes {
    let mut deframer = Deframer::default();
    let mut messages = Vec::new();
    for chunk in [encoded.before.clone(), Bytes::from_static(file), encoded.after.clone()] {
        messages.extend(deframer.push(chunk).unwrap());
    }
    deframer.finish().unwrap();
    let [message]: [Bytes; 1] = messages.try_into().unwrap();
    message
}

/// The form's parts in order, with `file` as the file's content.
pub(super) fn fields(encoded: &Encoded, file: &'static [u8]) -> Vec<(String, String)> {
    let boundary = Boundary::parse(encoded.content_type.to_str().unwrap()).unwrap();
    let mut parser = Parser::new(&boundary, Limits::default());
    let mut fields: Vec<(String, String)> = Vec::new();
    for chunk in [encoded.before.clone(), Bytes::from_static(file), encoded.after.clone()] {
        for event in parser.push(chunk).unwrap() {
            match event {
                Event::Field { name, value } => fields.push((name, value)),
                Event::FileStart { name, .. } => fields.push((name, String::new())),
                Event::FileData(data) => fields.last_mut().unwrap().1 += str::from_utf8(&data).unwrap(),
                Event::FileEnd | Event::End => {}
            }
        }
    }
    parser.finish().unwrap();
    fields
}
