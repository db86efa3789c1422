//! `nemo_speech_streaming`: NeMo-Speech.cpp over its realtime WebSocket: text while audio still comes.
//!
//! What the server calls a delta is what the text of the running segment grew by, or all of it when its beginning has changed.
//! A commit ends the audio: the last text is followed by an acknowledgement. Every error has the type of a wrong request.

use std::borrow::Cow;

use contract::Capability;
use http::{HeaderValue, Method};
use serde_json::json;

use super::super::boost::{BOOST, phrases};
use super::super::event::{self, Event, events};
use super::super::{Codec, Encoded, Error, File, Intake, Live, Settings, Task, Transport};
use crate::conversation::{Rules, Said};
use crate::job::work::{Audio, Need, Offers, Speakers, Transcribe, Transcript, Work};

const PATH: &str = "/v1/realtime";
const ALIAS: &str = "/v1/audio/transcriptions/realtime";
const COMMITTED: &str = "input_audio_buffer.committed";
/// Samples per second of [`Intake::Pcm`].
const RATE_HZ: u32 = 16_000;

/// The protocol.
pub struct NemoSpeechStreaming;

impl Codec for NemoSpeechStreaming {
    fn name(&self) -> &'static str {
        "nemo_speech_streaming"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Stt]
    }

    fn transport(&self) -> Transport {
        Transport::WebSocket
    }

    fn rules(&self) -> Rules {
        Rules { closes: |message| event::is(message, event::COMMIT), said, ..Rules::default() }
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
            path: PATH,
            content_type: HeaderValue::from_static("application/json"),
            before: update(wanted, engine),
            pieces: Some(event::pieces(|piece| [event::append(&piece), bytes::Bytes::new()])),
            after: event::framed(&json!({ "type": event::COMMIT })),
        })
    }

    fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error> {
        Ok(event::transcript(events(PATH, reply)?, ""))
    }

    fn live(&self, settled: &[u8], message: &[u8]) -> Result<Live, Error> {
        let event = Event::read(PATH, message)?;
        let mut all = if settled.is_empty() { Vec::new() } else { events(PATH, settled)? };
        // Deltas are kept too: the next one may go on from them.
        let settles = event.is_final() || event.delta().is_some() || event.kind == COMMITTED;
        all.push(event);
        let running = running(&all);
        Ok(Live { so_far: event::transcript(all, &running), settles })
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        (method == Method::GET && (path == PATH || path == ALIAS)).then_some(Task::TranscribeStream)
    }

    fn text<'reply>(&self, reply: &'reply [u8]) -> Result<Option<Cow<'reply, str>>, Error> {
        Ok(Some(Cow::Owned(self.transcript(reply)?.text)))
    }

    fn health_paths(&self) -> &'static [&'static str] {
        super::HEALTH_PATHS
    }
}

fn update(wanted: &Transcribe, engine: &Settings) -> bytes::Bytes {
    let mut session = json!({
        "sample_rate": RATE_HZ,
        "word_timestamps": wanted.words != Need::No || wanted.speakers,
        "speaker_diarization": wanted.speakers,
    });
    if let Some(language) = wanted.language.as_deref().or(engine.language.as_deref()) {
        session["language"] = json!(language);
    }
    let phrases = phrases(wanted.prompt.as_deref());
    if !phrases.is_empty() {
        session["speech_contexts"] = json!([{ "phrases": phrases, "boost": BOOST }]);
    }
    event::framed(&json!({ "type": "session.update", "session": session }))
}

/// The text of the segment that runs after these events.
fn running(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        if event.is_final() {
            text.clear();
        }
        let Some(delta) = event.delta() else { continue };
        // One that begins as the text did stands for all of it.
        let again = |text: &str| {
            let first = |text: &str| text.split_whitespace().next().map(str::to_lowercase);
            !delta.starts_with(char::is_whitespace) && first(text) == first(delta)
        };
        if again(&text) {
            text.clear();
        }
        text.push_str(delta);
    }
    text
}

fn said(message: &[u8]) -> Said {
    match Event::read(PATH, message) {
        Ok(event) => match event.failure() {
            Some(status) => Said::Failed(status),
            None if event.kind == COMMITTED => Said::Last,
            None => Said::More,
        },
        Err(_) => Said::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::{Code, Deframer, Status};
    use crate::protocol::testing::wav;
    use serde_json::Value;

    #[test]
    fn the_flat_configuration_has_what_was_asked_for() {
        let audio = wav();
        let described = File { audio: &audio, form: Intake::Pcm, len: None };
        let wanted =
            Transcribe { prompt: Some("Grace, Hopper".into()), speakers: true, ..Transcribe::default() };
        let settings = Settings { language: Some("fr".into()), ..Settings::default() };
        let work = Work::Transcribe(wanted);
        let encoded = NemoSpeechStreaming.encode(&work, Some(&described), &settings).unwrap();
        let messages = Deframer::default().push(encoded.body(&[0; 20_000])).unwrap();
        let sent: Vec<Value> =
            messages.iter().map(|message| serde_json::from_slice(message).unwrap()).collect();
        assert_eq!(
            sent[0]["session"],
            json!({
                "sample_rate": 16_000, "word_timestamps": true, "speaker_diarization": true, "language": "fr",
                "speech_contexts": [{ "phrases": ["Grace", "Hopper"], "boost": 2.0 }],
            })
        );
        let kinds: Vec<&str> = sent[1..].iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, [event::APPEND, event::APPEND, event::COMMIT]);
    }

    #[test]
    fn deltas_add_up_until_a_segment_ends() {
        let delta = |text: &str| {
            json!({ "type": "conversation.item.input_audio_transcription.delta", "delta": text }).to_string()
        };
        let done = json!({
            "type": "conversation.item.input_audio_transcription.completed", "transcript": "She told me.",
            "audio_processed": 1.5, "words": [{ "word": "She", "start": 0.1, "end": 0.4, "confidence": 1, "speaker": 1 }],
        })
        .to_string();
        let mut settled = String::new();
        for (message, text) in [
            (delta("She"), "She"),
            (delta(" toll"), "She toll"),
            (delta("She told"), "She told"),
            (done, "She told me."),
            (delta("And"), "She told me. And"),
            (delta(" so"), "She told me. And so"),
            (r#"{"type":"input_audio_buffer.committed"}"#.to_owned(), "She told me. And so"),
        ] {
            let live = NemoSpeechStreaming.live(settled.as_bytes(), message.as_bytes()).unwrap();
            assert_eq!((&*live.so_far.text, live.settles), (text, true));
            settled.push_str(&message);
        }
        let read = NemoSpeechStreaming.transcript(settled.as_bytes()).unwrap();
        assert_eq!((&*read.text, read.duration, read.words.len()), ("She told me.", Some(1.5), 1));
        assert_eq!(read.turns.unwrap().speakers, ["Speaker_0"]);
    }

    #[test]
    fn the_acknowledgement_and_errors_end_a_conversation() {
        let said = |message: &str| (NemoSpeechStreaming.rules().said)(message.as_bytes());
        assert_eq!(said(r#"{"type":"input_audio_buffer.committed"}"#), Said::Last);
        assert_eq!(said(r#"{"type":"session.updated"}"#), Said::More);
        let failed = Status { code: Code::InvalidArgument, message: "bad rate".into() };
        let error = r#"{"type":"error","error":{"type":"invalid_request_error","message":"bad rate"}}"#;
        assert_eq!(said(error), Said::Failed(failed));
    }
}
