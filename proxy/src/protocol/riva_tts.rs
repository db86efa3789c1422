//! `riva_tts`: speech synthesis over Riva's gRPC: one request of text and voice, answered with samples as they are made.
//!
//! The call takes a stream of requests; it gets one, and the end of the body. Without a sample rate the server chooses one.
//! What harms a synthesis over HTTP harms it here: see [`super::magpie`].

use std::borrow::Cow;

use bytes::Bytes;
use contract::Capability;
use http::{HeaderValue, Method};
use prost::Message;

use super::magpie::speakable;
use super::{Codec, Encoded, Error, File, Intake, Samples, Settings, Task, Transport};
use crate::grpc::{self, Deframer};
use crate::job::work::{Audio, Prompt, Transcript, Work};
use crate::riva_proto::AudioEncoding;
use crate::riva_proto::tts::{SynthesizeSpeechRequest, SynthesizeSpeechResponse, ZeroShotData};

const SYNTHESIZE: &str = "/nvidia.riva.tts.RivaSpeechSynthesis/Synthesize";
const SYNTHESIZE_ONLINE: &str = "/nvidia.riva.tts.RivaSpeechSynthesis/SynthesizeOnline";

/// How close an imitation is to its recording, 1 to 40: the server's own default.
const QUALITY: i32 = 20;

/// The protocol.
pub struct RivaTts;

impl Codec for RivaTts {
    fn name(&self) -> &'static str {
        "riva_tts"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Tts]
    }

    fn transport(&self) -> Transport {
        Transport::Grpc
    }

    fn intake(&self, _: &Audio) -> Intake {
        Intake::AsSent
    }

    fn encode(&self, work: &Work, _: Option<&File<'_>>, _: &Settings) -> Result<Encoded, Error> {
        let Work::Synthesize(wanted) = work else { return Err(Error::no_transcripts()) };
        let request = SynthesizeSpeechRequest {
            text: speakable(&wanted.text).into_owned(),
            language_code: wanted.language.clone(),
            encoding: AudioEncoding::LinearPcm.into(),
            sample_rate_hz: i32::try_from(wanted.sample_rate).unwrap_or(i32::MAX),
            voice_name: wanted.voice.clone(),
            zero_shot_data: wanted.prompt.as_deref().map(imitated),
            custom_dictionary: wanted.dictionary.clone().unwrap_or_default(),
            ..SynthesizeSpeechRequest::default()
        };
        Ok(Encoded {
            path: SYNTHESIZE_ONLINE,
            content_type: HeaderValue::from_static(grpc::CONTENT_TYPE),
            before: grpc::open_frame(&request.encode_to_vec(), 0).map_err(Error::Frame)?,
            pieces: None,
            after: Bytes::new(),
        })
    }

    fn transcript(&self, _: &[u8]) -> Result<Transcript, Error> {
        Err(Error::no_transcripts())
    }

    fn samples(&self) -> Box<dyn Samples> {
        Box::new(Framed::default())
    }

    fn imitates(&self) -> bool {
        true
    }

    fn stumbles(&self) -> bool {
        true
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        match path {
            _ if method != Method::POST => None,
            SYNTHESIZE => Some(Task::Synthesize),
            SYNTHESIZE_ONLINE => Some(Task::SynthesizeStream),
            _ => None,
        }
    }

    /// There is no transcription.
    fn text<'reply>(&self, _: &'reply [u8]) -> Result<Option<Cow<'reply, str>>, Error> {
        Ok(None)
    }
}

/// A recording whose voice the engine is to take on.
fn imitated(prompt: &Prompt) -> ZeroShotData {
    ZeroShotData {
        audio_prompt: prompt.pcm.clone(),
        sample_rate_hz: i32::try_from(prompt.rate).unwrap_or(i32::MAX),
        encoding: AudioEncoding::LinearPcm.into(),
        quality: QUALITY,
        transcript: prompt.transcript.clone().unwrap_or_default(),
    }
}

/// Samples in the messages of a reply.
#[derive(Default)]
struct Framed {
    frames: Deframer,
}

impl Samples for Framed {
    fn push(&mut self, data: Bytes) -> Result<Bytes, Error> {
        let mut pieces = Vec::new();
        for message in self.frames.push(data).map_err(Error::Frame)? {
            let response = SynthesizeSpeechResponse::decode(message)
                .map_err(|source| Error::Message { path: SYNTHESIZE_ONLINE, source })?;
            pieces.push(response.audio);
        }
        Ok(match pieces.as_mut_slice() {
            [piece] => std::mem::take(piece),
            pieces => pieces.concat().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::job::work::Synthesize;
    use crate::protocol::testing::message;
    use crate::riva_proto::tts::SynthesizeSpeechResponseMetadata;

    #[test]
    fn the_request_reads_back() {
        let work = Work::Synthesize(Synthesize {
            text: "Yes".into(),
            voice: "Magpie-Multilingual.EN-US.Mia".into(),
            language: "en-US".into(),
            sample_rate: 24_000,
            dictionary: None,
            prompt: None,
        });
        let encoded = RivaTts.encode(&work, None, &Settings::default()).unwrap();
        assert_eq!(encoded.path, SYNTHESIZE_ONLINE);
        let expected = SynthesizeSpeechRequest {
            text: "Yes.".into(),
            language_code: "en-US".into(),
            encoding: AudioEncoding::LinearPcm.into(),
            sample_rate_hz: 24_000,
            voice_name: "Magpie-Multilingual.EN-US.Mia".into(),
            ..SynthesizeSpeechRequest::default()
        };
        assert_eq!(SynthesizeSpeechRequest::decode(message(&encoded, b"")).unwrap(), expected);
        let Work::Synthesize(wanted) = work else { unreachable!() };
        let prompt =
            Prompt { pcm: Bytes::from_static(b"abcd"), rate: 22_050, transcript: Some("Hi.".into()) };
        let work = Work::Synthesize(Synthesize { prompt: Some(Arc::new(prompt)), ..wanted });
        let encoded = RivaTts.encode(&work, None, &Settings::default()).unwrap();
        let sent = SynthesizeSpeechRequest::decode(message(&encoded, b"")).unwrap().zero_shot_data.unwrap();
        assert_eq!(
            (sent.audio_prompt.as_ref(), sent.sample_rate_hz, sent.quality),
            (&b"abcd"[..], 22_050, 20)
        );
        assert_eq!(sent.transcript, "Hi.");
        assert!(RivaTts.encode(&Work::Diarize, None, &Settings::default()).is_err());
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for wrong in
            [&b"<html></html>"[..], b"\x01\0\0\0\0", b"\0\0\0\0\x02\x0a\x05", b"\xff\xff\xff\xff\xff"]
        {
            assert!(RivaTts.samples().push(Bytes::from_static(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn calls_of_synthesis_are_tasks() {
        assert_eq!(RivaTts.task(&Method::POST, SYNTHESIZE), Some(Task::Synthesize));
        assert_eq!(RivaTts.task(&Method::POST, SYNTHESIZE_ONLINE), Some(Task::SynthesizeStream));
        assert_eq!(RivaTts.task(&Method::GET, SYNTHESIZE), None);
        assert_eq!(RivaTts.voices_path(), None);
    }

    proptest! {
        #[test]
        fn samples_come_from_chunks_of_any_size(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5),
            size in 1usize..120,
        ) {
            let frame = |audio: &Vec<u8>| {
                let meta = SynthesizeSpeechResponseMetadata { text: "Yes.".into(), ..Default::default() };
                let response =
                    SynthesizeSpeechResponse { audio: audio.clone().into(), meta: Some(meta), id: None };
                grpc::open_frame(&response.encode_to_vec(), 0).unwrap()
            };
            let body = pieces.iter().map(frame).collect::<Vec<_>>().concat();
            let mut samples = RivaTts.samples();
            let mut read = Vec::new();
            for chunk in body.chunks(size) {
                read.extend_from_slice(&samples.push(Bytes::copy_from_slice(chunk)).unwrap());
            }
            prop_assert_eq!(read, pieces.concat());
        }
    }
}
