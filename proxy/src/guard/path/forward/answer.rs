//! What is looked at of a successful answer while it passes, by the protocol of the job.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;

use crate::conversation::BINARY;
use crate::grpc::Deframer;
use crate::guard::path::forward::content::{Fault, Speech};
use crate::guard::path::grpc;
use crate::guard::protocols::{Job, Protocols};
use crate::protocol::{Codec, Samples, Task, Transport};

/// Bytes of an answer that are read for its text.
const TEXT_BYTES: usize = 1024 * 1024;
/// The same of a conversation, of which there are many at a time: some minutes of speech.
const HEARD_BYTES: usize = 64 * 1024;

/// The part of an answer that tells whether it has content.
pub enum Answer {
    /// The whole answer, which holds a text.
    Text(BytesMut),
    /// The framed messages of a conversation.
    Heard(BytesMut),
    /// Spoken audio, and what finds it in the answer.
    Speech(Speech, Box<dyn Samples>),
    /// Spoken audio that cannot be found: the answer is not of the protocol.
    Garbled,
    /// Nothing is looked at.
    Unseen,
}

/// What an answer showed.
#[derive(Debug, PartialEq)]
pub enum Shown {
    /// A transcript.
    Text(String),
    /// Seconds of spoken audio, if known.
    Spoken(Option<f64>),
    /// Nothing.
    Nothing,
}

impl Answer {
    /// What is to be looked at of the answer to `job`, which has succeeded so far.
    pub fn of(job: Job, protocols: &Protocols, head: &http::response::Parts) -> Self {
        let media_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let media_type = media_type.split(';').next().unwrap_or("").trim();
        let is_speech = matches!(
            media_type,
            "" | "audio/wav"
                | "audio/x-wav"
                | "audio/wave"
                | "audio/pcm"
                | "audio/l16"
                | "application/octet-stream"
        );
        match (job.task, job.transport) {
            (Task::TranscribeStream, _) => Answer::Heard(BytesMut::new()),
            (Task::Chat, _) => Answer::Unseen,
            (Task::Transcribe | Task::Diarize, Transport::Grpc | Transport::WebSocket) => {
                Answer::Text(BytesMut::new())
            }
            (Task::Transcribe | Task::Diarize, Transport::Http) if media_type == "application/json" => {
                Answer::Text(BytesMut::new())
            }
            (Task::Synthesize, Transport::Http) if is_speech => {
                Answer::Speech(Speech::default(), Box::new(crate::protocol::WholeBytes))
            }
            (Task::SynthesizeStream, Transport::Http) if is_speech => {
                Answer::Speech(Speech::default(), protocols.codec(job.protocol).samples())
            }
            (Task::Synthesize | Task::SynthesizeStream, Transport::Grpc | Transport::WebSocket) => {
                Answer::Speech(Speech::default(), protocols.codec(job.protocol).samples())
            }
            (_, Transport::Http) => Answer::Unseen,
        }
    }

    /// Takes the next bytes of the answer.
    pub fn push(&mut self, data: &Bytes) {
        match self {
            Answer::Text(text) if text.len() + data.len() <= TEXT_BYTES => text.extend_from_slice(data),
            Answer::Heard(said) if said.len() + data.len() <= HEARD_BYTES => said.extend_from_slice(data),
            Answer::Text(_) | Answer::Heard(_) => *self = Answer::Unseen,
            Answer::Speech(speech, samples) => match samples.push(data.clone()) {
                Ok(samples) => speech.push(&samples),
                Err(_) => *self = Answer::Garbled,
            },
            Answer::Garbled | Answer::Unseen => {}
        }
    }

    /// What the complete answer showed.
    ///
    /// # Errors
    /// The [`Fault`] of this answer alone.
    pub fn finish(self, job: Job, codec: &dyn Codec) -> Result<Shown, Fault> {
        match self {
            Answer::Text(reply) => text(&reply, job, codec),
            Answer::Heard(said) => Ok(heard(said.freeze(), codec).map_or(Shown::Nothing, Shown::Text)),
            Answer::Speech(speech, _) => Ok(Shown::Spoken(speech.finish()?)),
            Answer::Garbled => Err(Fault::NotMessage),
            Answer::Unseen => Ok(Shown::Nothing),
        }
    }
}

/// The text of a conversation. What is not of the protocol is for clients to judge: they may speak another version of it.
fn heard(said: Bytes, codec: &dyn Codec) -> Option<String> {
    let mut settled = Vec::new();
    for (_, message) in Deframer::default().push_flagged(said, BINARY).ok()? {
        if codec.live(&[], &message).ok()?.settles {
            settled.extend_from_slice(&message);
        }
    }
    if settled.is_empty() { Some(String::new()) } else { Some(codec.transcript(&settled).ok()?.text) }
}

fn text(reply: &[u8], job: Job, codec: &dyn Codec) -> Result<Shown, Fault> {
    let (reply, fault) = match job.transport {
        Transport::Http => (reply, Fault::NotJson),
        Transport::Grpc | Transport::WebSocket => {
            (grpc::message(reply).ok_or(Fault::NotMessage)?, Fault::NotMessage)
        }
    };
    let text = codec.text(reply).map_err(|_| fault)?;
    Ok(text.map_or(Shown::Nothing, |text| Shown::Text(text.into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::protocols::tests::both;

    #[test]
    fn json_that_cannot_be_read_is_a_fault_and_other_json_is_not() {
        let protocols = both();
        let job = Job { protocol: 0, task: Task::Transcribe, transport: Transport::Http };
        let shown = |json: &str| text(json.as_bytes(), job, protocols.codec(0));
        assert_eq!(shown(r#"{"text":NaN}"#), Err(Fault::NotJson));
        assert_eq!(shown(r#"{"text":"hel"#), Err(Fault::NotJson));
        assert_eq!(shown(r#"{"segments":[],"speakers_detected":0}"#), Ok(Shown::Nothing));
        assert_eq!(shown(r#"{"text":"hello"}"#), Ok(Shown::Text("hello".into())));
    }

    #[test]
    fn an_answer_beyond_the_bound_is_not_kept() {
        let mut answer = Answer::Text(BytesMut::new());
        answer.push(&Bytes::from(vec![b'x'; TEXT_BYTES]));
        assert!(matches!(answer, Answer::Text(_)));
        answer.push(&Bytes::from_static(b"x"));
        assert!(matches!(answer, Answer::Unseen));
    }

    #[test]
    fn the_texts_that_stay_are_what_a_conversation_shows() {
        use crate::conversation::TEXT;
        use crate::guard::protocols::tests::only;
        let framed = |messages: &[serde_json::Value]| {
            let mut said = Vec::new();
            for message in messages {
                let message = message.to_string();
                said.push(TEXT);
                said.extend_from_slice(&(message.len() as u32).to_be_bytes());
                said.extend_from_slice(message.as_bytes());
            }
            Bytes::from(said)
        };
        let of = |kind: &str, name: &str, text: &str| serde_json::json!({"type": format!("conversation.item.input_audio_transcription.{kind}"), name: text});
        let delta = of("delta", "delta", "good");
        for protocol in ["nim_realtime", "nemo_speech_streaming"] {
            let protocols = only(protocol);
            let heard = |messages: &[serde_json::Value]| heard(framed(messages), protocols.codec(0));
            let final_of = |text| of("completed", "transcript", text);
            assert_eq!(heard(&[delta.clone(), final_of("good morning")]).as_deref(), Some("good morning"));
            assert_eq!(heard(&[final_of("")]).as_deref(), Some(""), "{protocol}");
            assert_eq!(heard(&[]).as_deref(), Some(""), "{protocol}");
        }
        assert_eq!(heard(Bytes::from_static(&[TEXT, 0, 0, 0, 1, b'x']), only("nim_realtime").codec(0)), None);
    }
}
