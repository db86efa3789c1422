//! Tests that hold for every protocol, and a table of the forms and replies of recognition.

use proptest::prelude::*;

use super::testing::{fields, replies, wav};
use super::*;
use crate::job::work::{Need, Transcribe};

/// Fields of a form after the file; `None` when the job is refused.
type Form = Option<&'static [(&'static str, &'static str)]>;

/// A protocol of recognition over HTTP: its forms for text, for words and for speakers.
struct Row {
    name: &'static str,
    path: &'static str,
    text: Form,
    words: Form,
    speakers: Form,
}

const ROWS: [Row; 5] = [
    Row {
        name: "parakeet",
        path: "/v1/audio/transcriptions",
        text: Some(&[("response_format", "json")]),
        words: Some(&[("response_format", "verbose_json")]),
        speakers: Some(&[("response_format", "verbose_json")]),
    },
    Row {
        name: "nim_http",
        path: "/v1/audio/transcriptions",
        text: Some(&[("language", "multi"), ("response_format", "json")]),
        words: None,
        speakers: None,
    },
    Row {
        name: "nemo_speech",
        path: "/v1/audio/transcriptions",
        text: Some(&[("response_format", "json")]),
        words: Some(&[("response_format", "verbose_json")]),
        speakers: Some(&[("response_format", "verbose_json"), ("diarization", "true")]),
    },
    Row {
        name: "parakeet_fastapi",
        path: "/transcribe",
        text: Some(&[("should_chunk", "true")]),
        words: Some(&[("include_timestamps", "true"), ("should_chunk", "true")]),
        speakers: None,
    },
    Row {
        name: "openai",
        path: "/v1/audio/transcriptions",
        text: Some(&[("model", "whisper-1"), ("response_format", "json")]),
        words: Some(&[
            ("model", "whisper-1"),
            ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "word"),
            ("timestamp_granularities[]", "segment"),
        ]),
        speakers: None,
    },
];

const NAMES: [&str; 11] = [
    "parakeet",
    "magpie",
    "nim_http",
    "nim_realtime",
    "riva",
    "riva_streaming",
    "riva_tts",
    "nemo_speech",
    "nemo_speech_streaming",
    "parakeet_fastapi",
    "openai",
];

#[test]
fn every_protocol_is_configured_by_its_name() {
    assert_eq!(Protocol::ALL.map(|protocol| protocol.name()), NAMES);
    for name in NAMES {
        let read: Protocol = serde_json::from_value(name.into()).unwrap();
        assert_eq!(read.name(), name);
    }
    for wrong in ["", "Riva", "riva ", "nim_grpc"] {
        let error = serde_json::from_value::<Protocol>(wrong.into()).unwrap_err().to_string();
        assert!(error.contains("nim_http"), "{error}");
    }
}

#[test]
fn every_protocol_of_recognition_is_in_the_table() {
    for protocol in Protocol::ALL {
        let listed = replies().iter().any(|(listed, _)| *listed == protocol);
        assert_eq!(listed, protocol.capabilities().contains(&Capability::Stt), "{protocol:?}");
        assert!(!protocol.health_paths().is_empty() && !protocol.capabilities().is_empty());
    }
}

#[test]
fn forms_have_exactly_the_fields_of_the_table() {
    let audio = wav();
    let words = Transcribe { words: Need::Required, ..Transcribe::default() };
    let speakers = Transcribe { speakers: true, ..words.clone() };
    for row in ROWS {
        let protocol = Protocol::named(row.name).unwrap();
        let file = File { audio: &audio, form: protocol.intake(&audio), len: None };
        for (wanted, expected) in
            [(Transcribe::default(), row.text), (words.clone(), row.words), (speakers.clone(), row.speakers)]
        {
            let work = Work::Transcribe(wanted);
            let Some(expected) = expected else {
                let refused = protocol.encode(&work, Some(&file), &Settings::default());
                assert!(matches!(refused, Err(Error::Unsupported { .. })), "{} {work:?}", row.name);
                continue;
            };
            let encoded = protocol.encode(&work, Some(&file), &Settings::default()).unwrap();
            assert_eq!(encoded.path, row.path);
            assert_eq!(protocol.task(&Method::POST, encoded.path), Some(Task::Transcribe));
            let sent = fields(&encoded, b"abc");
            let sent: Vec<(&str, &str)> = sent.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(sent, [&[("file", "abc")][..], expected].concat(), "{} {work:?}", row.name);
        }
        assert_eq!(row.words.is_some(), protocol.offers().words, "{}", row.name);
        assert_eq!(row.speakers.is_some(), protocol.offers().speakers != Speakers::No, "{}", row.name);
    }
}

#[test]
fn a_job_without_its_file_is_refused() {
    for (protocol, _) in replies() {
        for work in [Work::Transcribe(Transcribe::default()), Work::Diarize] {
            assert!(protocol.encode(&work, None, &Settings::default()).is_err(), "{protocol:?}");
        }
    }
}

#[test]
fn replies_are_read_whole() {
    for (protocol, reply) in replies() {
        let read = protocol.transcript(&reply).unwrap();
        assert_eq!(read.text, "so", "{protocol:?}");
        assert_eq!(protocol.text(&reply).unwrap().unwrap(), "so", "{protocol:?}");
        assert_eq!(read.words.len(), usize::from(protocol.offers().words), "{protocol:?}");
        assert!(read.duration.is_none_or(|duration| duration == 1.5), "{protocol:?}");
    }
}

#[test]
fn replies_of_another_shape_are_errors() {
    for (protocol, reply) in replies() {
        for wrong in
            ["<html><body>502</body></html>", "[]", "{}", "null", "{\"text\":3}", "CUDA error", "\u{fffd}"]
        {
            assert!(protocol.transcript(wrong.as_bytes()).is_err(), "{protocol:?} {wrong}");
        }
        // A message of gRPC without a byte is one without results.
        let shortest = usize::from(protocol.transport() == Transport::Grpc);
        for len in shortest..reply.len() {
            assert!(protocol.transcript(&reply[..len]).is_err(), "{protocol:?} cut at {len}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_replies_never_panic(reply in prop::collection::vec(any::<u8>(), 0..300)) {
        for protocol in Protocol::ALL {
            let _ = protocol.transcript(&reply);
            let _ = protocol.turns(&reply);
            let _ = protocol.voices(&reply);
            let _ = protocol.text(&reply);
            let _ = protocol.samples().push(Bytes::copy_from_slice(&reply));
        }
    }

    #[test]
    fn replies_with_changed_bytes_never_panic(at in 0usize..200, byte: u8) {
        for (protocol, mut reply) in replies() {
            let len = reply.len();
            reply[at % len] = byte;
            let _ = protocol.transcript(&reply);
            let _ = protocol.text(&reply);
        }
    }
}
