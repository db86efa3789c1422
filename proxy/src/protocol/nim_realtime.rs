//! `nim_realtime`: NVIDIA's recognition NIM over its realtime WebSocket: a configuration, audio in pieces, text as it is heard.
//!
//! Sessions need not be made beforehand: the configuration that the client sends replaces the default one. What the server calls
//! a delta is all text so far of the segment that runs.

use std::borrow::Cow;

use bytes::Bytes;
use contract::Capability;
use http::{HeaderValue, Method};
use serde_json::json;

use super::boost::{BOOST, phrases};
use super::event::{self, Event, events};
use super::locale::locale;
use super::{Codec, Encoded, Error, File, Intake, Live, Settings, Task, Transport};
use crate::conversation::{Rules, Said};
use crate::job::work::{Audio, Need, Offers, Speakers, Transcribe, Transcript, Work};

const PATH: &str = "/v1/realtime";
const TRANSCRIBE: &str = "/v1/realtime?intent=transcription";
const DONE: &str = "input_audio_buffer.done";
/// Samples per second of [`Intake::Pcm`].
const RATE_HZ: u32 = 16_000;
/// Most speakers that any of NVIDIA's models tells apart.
const MAX_SPEAKERS: u32 = 8;

/// The protocol.
pub struct NimRealtime;

impl Codec for NimRealtime {
    fn name(&self) -> &'static str {
        "nim_realtime"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Stt]
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn rules(&self) -> Rules {
        Rules { closes: |message| event::is(message, DONE), said, ..Rules::default() }
    }

    fn offers(&self) -> Offers {
        Offers { words: true, speakers: Speakers::SameCall, live: true }
    }

    fn intake(&self, _: &Audio) -> Intake {
        Intake::Pcm
    }

    fn encode(&self, work: &Work, file: Option<&File<'_>>, engine: &Settings) -> Result<Encoded, Error> {
        let wanted = match work {
            Work::Transcribe(wanted) => wanted,
            Work::Diarize => return Err(Error::no_speakers()),
            Work::Synthesize(_) => return Err(Error::no_speech()),
            Work::Chat(_) => return Err(Error::no_chat()),
        };
        file.ok_or_else(Error::no_speech)?;
        Ok(Encoded {
            path: TRANSCRIBE,
            content_type: HeaderValue::from_static("application/json"),
            before: update(wanted, engine),
            pieces: Some(event::pieces(|piece| [event::append(&piece), commit()])),
            after: event::framed(&json!({ "type": DONE })),
        })
    }

    fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error> {
        Ok(event::transcript(events(PATH, reply)?, ""))
    }

    fn live(&self, settled: &[u8], message: &[u8]) -> Result<Live, Error> {
        let event = Event::read(PATH, message)?;
        let before = if settled.is_empty() { Vec::new() } else { events(PATH, settled)? };
        let (settles, running) = (event.is_final(), event.delta().unwrap_or_default().to_owned());
        Ok(Live { so_far: event::transcript(before.into_iter().chain([event]).collect(), &running), settles })
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        (method == Method::GET && path == PATH).then_some(Task::TranscribeStream)
    }

    fn text<'reply>(&self, reply: &'reply [u8]) -> Result<Option<Cow<'reply, str>>, Error> {
        Ok(Some(Cow::Owned(self.transcript(reply)?.text)))
    }
}

/// The configuration, whole as the server sends its default.
fn update(wanted: &Transcribe, engine: &Settings) -> Bytes {
    let phrases = phrases(wanted.prompt.as_deref());
    let boosted = !phrases.is_empty();
    let list = if boosted { json!([{ "phrases": phrases, "boost": BOOST }]) } else { json!([]) };
    let mut transcription = json!({ "language": locale(wanted.language.as_deref(), engine), "prompt": "" });
    if let Some(model) = &engine.model {
        transcription["model"] = json!(model);
    }
    event::framed(&json!({ "type": "transcription_session.update", "session": {
        "modalities": ["text"],
        "input_audio_format": "pcm16",
        "input_audio_transcription": transcription,
        "input_audio_params": { "sample_rate_hz": RATE_HZ, "num_channels": 1 },
        "recognition_config": {
            "max_alternatives": 1,
            "enable_automatic_punctuation": true,
            "enable_word_time_offsets": wanted.words != Need::No || wanted.speakers,
            "enable_profanity_filter": false,
            "enable_verbatim_transcripts": false,
        },
        "speaker_diarization": {
            "enable_speaker_diarization": wanted.speakers, "max_speaker_count": MAX_SPEAKERS,
        },
        "word_boosting": { "enable_word_boosting": boosted, "word_boosting_list": list },
    }}))
}

fn commit() -> Bytes {
    event::framed(&json!({ "type": event::COMMIT }))
}

fn said(message: &[u8]) -> Said {
    match Event::read(PATH, message) {
        Ok(event) => match event.failure() {
            Some(status) => Said::Failed(status),
            None if event.is_final() && event.is_last_result => Said::Last,
            None => Said::More,
        },
        Err(_) => Said::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{BINARY, TEXT};
    use crate::grpc::{Code, Deframer};
    use crate::protocol::testing::wav;
    use base64::Engine as _;
    use serde_json::Value;

    fn sent(encoded: &Encoded, file: &[u8]) -> Vec<Value> {
        let frames = Deframer::default().push_flagged(encoded.body(file), BINARY).unwrap();
        frames
            .into_iter()
            .map(|(flag, message)| {
                assert_eq!(flag, TEXT);
                serde_json::from_slice(&message).unwrap()
            })
            .collect()
    }

    #[test]
    fn the_configuration_comes_first_then_all_audio_then_the_end() {
        let audio = wav();
        let described = File { audio: &audio, form: Intake::Pcm, len: None };
        let wanted = Transcribe {
            language: Some("de".into()),
            words: Need::Required,
            prompt: Some("Kowalczyk".into()),
            ..Transcribe::default()
        };
        let encoded = NimRealtime.encode(&Work::Transcribe(wanted), Some(&described), &Settings::default());
        let file: Vec<u8> = (0..40_001).map(|at| (at % 251) as u8).collect();
        let encoded = encoded.unwrap();
        assert_eq!(NimRealtime.task(&Method::GET, PATH), Some(Task::TranscribeStream));
        let sent = sent(&encoded, &file);
        let session = &sent[0]["session"];
        assert_eq!(session["input_audio_transcription"], json!({ "language": "de-DE", "prompt": "" }));
        assert_eq!(session["recognition_config"]["enable_word_time_offsets"], true);
        assert_eq!(session["speaker_diarization"]["enable_speaker_diarization"], false);
        assert_eq!(session["word_boosting"]["word_boosting_list"][0]["phrases"], json!(["Kowalczyk"]));
        let kinds: Vec<&str> = sent[1..].iter().map(|event| event["type"].as_str().unwrap()).collect();
        let pair = [event::APPEND, event::COMMIT];
        assert_eq!(kinds, [&pair[..], &pair, &pair, &[DONE]].concat());
        let audio = sent.iter().filter_map(|event| event["audio"].as_str());
        let decoded: Vec<u8> = audio
            .flat_map(|audio| base64::engine::general_purpose::STANDARD.decode(audio).unwrap())
            .collect();
        assert_eq!(decoded, file);
        let rules = NimRealtime.rules();
        let closes: Vec<bool> =
            sent.iter().map(|event| (rules.closes)(event.to_string().as_bytes())).collect();
        assert_eq!(closes.iter().position(|closes| *closes), Some(sent.len() - 1));
    }

    #[test]
    fn deltas_replace_each_other_and_finals_add_up() {
        let delta = |text: &str| {
            json!({ "type": "conversation.item.input_audio_transcription.delta", "delta": text }).to_string()
        };
        let word = json!({ "word": "there", "start_time": 80, "end_time": 400, "confidence": 0.5, "speaker_tag": 2 });
        let done = json!({
            "type": "conversation.item.input_audio_transcription.completed", "transcript": "hello there ",
            "is_last_result": false, "words_info": { "words": [word] },
        })
        .to_string();
        let live = |settled: &str, message: &str| {
            let live = NimRealtime.live(settled.as_bytes(), message.as_bytes()).unwrap();
            (live.so_far.text, live.settles)
        };
        assert_eq!(live("", &delta("hel")), ("hel".into(), false));
        assert_eq!(live("", &delta("hello the")), ("hello the".into(), false));
        assert_eq!(live("", &done), ("hello there".into(), true));
        assert_eq!(live(&done, &delta("and")), ("hello there and".into(), false));
        assert_eq!(live(&done, r#"{"type":"conversation.created"}"#).0, "hello there");
        let read = NimRealtime.transcript([&*done, &*done].concat().as_bytes()).unwrap();
        assert_eq!((&*read.text, read.words.len()), ("hello there hello there", 2));
        assert_eq!(read.words[0], crate::transcript::Word { start: 0.08, end: 0.4, text: "there".into() });
        assert_eq!(read.turns.unwrap().speakers, ["Speaker_1"]);
        assert_eq!(read.confidences, [0.5, 0.5]);
    }

    #[test]
    fn the_last_result_and_errors_end_a_conversation() {
        let said = |message: &str| (NimRealtime.rules().said)(message.as_bytes());
        let completed = "conversation.item.input_audio_transcription.completed";
        assert_eq!(said(&json!({ "type": completed, "is_last_result": true }).to_string()), Said::Last);
        assert_eq!(said(&json!({ "type": completed, "transcript": "a" }).to_string()), Said::More);
        assert_eq!(said("no JSON"), Said::More);
        let error = |kind: &str| {
            json!({ "type": "error", "error": { "type": kind, "message": "CUDA error" } }).to_string()
        };
        let failed = |code| Said::Failed(crate::grpc::Status { code, message: "CUDA error".into() });
        assert_eq!(said(&error("server_error")), failed(Code::Internal));
        assert_eq!(said(&error("invalid_request_error")), failed(Code::InvalidArgument));
    }
}
