//! What tests of protocols share.

use bytes::Bytes;
use prost::Message;

use super::{Encoded, Protocol};
use crate::audio::Container;
use crate::grpc::Deframer;
use crate::job::work::Audio;
use crate::multipart::{Boundary, Event, Limits, Parser};
use crate::riva_proto::asr::{
    RecognizeResponse, SpeechRecognitionAlternative, SpeechRecognitionResult, StreamingRecognitionResult,
    StreamingRecognizeResponse, WordInfo,
};

/// A mono WAV file.
pub(super) fn wav() -> Audio {
    audio(Container::Wav, true)
}

/// A file of that container, named after it.
pub(super) fn audio(container: Container, mono: bool) -> Audio {
    Audio { container, filename: format!("a.{}", container.extension()), mono, open_header: None }
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

/// A whole reply of each protocol of recognition over HTTP and WebSocket: "so", half a second long.
const REPLIES: [(&str, &str); 7] = [
    ("parakeet", r#"{"text":"so","duration":1.5,"words":[{"text":" so","start":0,"end":0.5}]}"#),
    ("nim_http", r#"{"text":"so","usage":{"type":"duration","seconds":1.5}}"#),
    (
        "nemo_speech",
        r#"{"text":"so","duration":1.5,"words":[{"word":"so","start":0,"end":0.5,"speaker":1}]}"#,
    ),
    (
        "nim_realtime",
        r#"{"type":"conversation.item.input_audio_transcription.completed","transcript":"so","is_last_result":true,"words_info":{"words":[{"word":"so","start_time":0,"end_time":500}]}}"#,
    ),
    (
        "nemo_speech_streaming",
        r#"{"type":"conversation.item.input_audio_transcription.completed","transcript":"so","audio_processed":1.5,"words":[{"word":"so","start":0,"end":0.5}]}"#,
    ),
    ("parakeet_fastapi", r#"{"text":"so","timestamps":{"word":[{"word":"so","start":0,"end":0.5}]}}"#),
    ("openai", r#"{"text":"so","duration":1.5,"words":[{"word":"so","start":0,"end":0.5}]}"#),
];

/// Replies of Riva, whole and streamed, in which each byte belongs to one result.
fn riva_replies() -> [Vec<u8>; 2] {
    let word = WordInfo { start_time: 80, end_time: 500, word: "so".into(), ..WordInfo::default() };
    let best = SpeechRecognitionAlternative {
        transcript: "so ".into(),
        words: vec![word],
        ..SpeechRecognitionAlternative::default()
    };
    let streamed = StreamingRecognitionResult {
        alternatives: vec![best.clone()],
        is_final: true,
        channel_tag: 1,
        audio_processed: 1.5,
        ..StreamingRecognitionResult::default()
    };
    let result = SpeechRecognitionResult { alternatives: vec![best], channel_tag: 1, audio_processed: 1.5 };
    [
        RecognizeResponse { results: vec![result], id: None }.encode_to_vec(),
        StreamingRecognizeResponse { results: vec![streamed], id: None }.encode_to_vec(),
    ]
}

/// Every protocol of recognition with a whole reply.
pub(crate) fn replies() -> Vec<(Protocol, Vec<u8>)> {
    let replies = REPLIES.into_iter().map(|(name, reply)| (name, reply.as_bytes().to_vec()));
    let replies = replies.chain(["riva", "riva_streaming"].into_iter().zip(riva_replies()));
    replies.map(|(name, reply)| (Protocol::named(name).unwrap(), reply)).collect()
}
