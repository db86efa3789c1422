//! `riva_streaming`: whole recordings to an engine that recognizes streams only, as NVIDIA's streaming models do.
//!
//! One `StreamingRecognize` call: the configuration, the audio in pieces, and the final results until the engine ends the call.

use std::borrow::Cow;

use bytes::Bytes;
use contract::Capability;
use http::{HeaderValue, Method};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::super::{Codec, Encoded, Error, File, Intake, Live, Pieces, Settings, Task, Transport};
use super::{STREAMING_RECOGNIZE, best, config, task, text, transcript};
use crate::grpc;
use crate::job::work::{Audio, Offers, Transcript, Work};
use crate::riva_proto::asr::streaming_recognize_request::StreamingRequest;
use crate::riva_proto::asr::{
    SpeechRecognitionAlternative, StreamingRecognitionConfig, StreamingRecognizeRequest,
    StreamingRecognizeResponse,
};

/// Number of the field `audio_content` of `StreamingRecognizeRequest`.
const AUDIO_CONTENT_FIELD: u32 = 2;
/// Audio of a message: half a second. Engines are made for pieces of about that length.
const PIECE_BYTES: usize = 16_000;

/// The protocol.
pub struct RivaStreaming;

impl Codec for RivaStreaming {
    fn name(&self) -> &'static str {
        "riva_streaming"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Stt]
    }

    fn transport(&self) -> Transport {
        Transport::Grpc
    }

    fn offers(&self) -> Offers {
        Offers { live: true, ..super::Riva.offers() }
    }

    fn has_confidences(&self) -> bool {
        true
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
        let file = file.ok_or_else(Error::no_speech)?;
        let streaming = StreamingRecognitionConfig {
            config: Some(config(wanted, file, engine)),
            interim_results: wanted.live,
        };
        let first = StreamingRecognizeRequest {
            streaming_request: Some(StreamingRequest::StreamingConfig(streaming)),
            ..StreamingRecognizeRequest::default()
        };
        Ok(Encoded {
            path: STREAMING_RECOGNIZE,
            content_type: HeaderValue::from_static(grpc::CONTENT_TYPE),
            before: grpc::open_frame(&first.encode_to_vec(), 0).map_err(Error::Frame)?,
            pieces: Some(Pieces { most: PIECE_BYTES, message: framed }),
            after: Bytes::new(),
        })
    }

    fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error> {
        Ok(transcript(finals(reply)?))
    }

    fn live(&self, settled: &[u8], message: &[u8]) -> Result<Live, Error> {
        let message = decode(message)?;
        let settles = message.results.iter().any(|result| result.is_final);
        let heard = message.results.into_iter().map(|result| (result.audio_processed, result.alternatives));
        Ok(Live { so_far: transcript(finals(settled)?.chain(heard)), settles })
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        task(method, path)
    }

    fn text<'reply>(&self, reply: &'reply [u8]) -> Result<Option<Cow<'reply, str>>, Error> {
        Ok(Some(Cow::Owned(text(&best(finals(reply)?.map(|(_, alternatives)| alternatives))))))
    }
}

/// A piece of audio after its frame and the field that holds it.
fn framed(piece: Bytes) -> [Bytes; 2] {
    let len = piece.len() as u64;
    let mut field = Vec::with_capacity(8);
    encode_key(AUDIO_CONTENT_FIELD, WireType::LengthDelimited, &mut field);
    encode_varint(len, &mut field);
    [grpc::open_frame(&field, len).unwrap_or_default(), piece]
}

fn decode(reply: &[u8]) -> Result<StreamingRecognizeResponse, Error> {
    StreamingRecognizeResponse::decode(reply)
        .map_err(|source| Error::Message { path: STREAMING_RECOGNIZE, source })
}

/// The final results of a call, in order. Messages of one type that follow each other read as one with all their results.
fn finals(reply: &[u8]) -> Result<impl Iterator<Item = (f32, Vec<SpeechRecognitionAlternative>)>, Error> {
    let finals = decode(reply)?.results.into_iter().filter(|result| result.is_final);
    Ok(finals.map(|result| (result.audio_processed, result.alternatives)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Container;
    use crate::job::work::{Need, Transcribe};
    use crate::riva_proto::asr::{StreamingRecognitionResult, WordInfo};

    fn encoded(file: &[u8]) -> (Encoded, Vec<StreamingRequest>) {
        let audio =
            Audio { container: Container::Wav, filename: "a.wav".into(), mono: true, open_header: None };
        let described = File { audio: &audio, form: Intake::Pcm, len: Some(file.len() as u64) };
        let wanted =
            Transcribe { language: Some("de".into()), words: Need::Required, ..Transcribe::default() };
        let encoded =
            RivaStreaming.encode(&Work::Transcribe(wanted), Some(&described), &Settings::default()).unwrap();
        let mut deframer = grpc::Deframer::default();
        let messages = deframer.push(encoded.body(file)).unwrap();
        deframer.finish().unwrap();
        let request =
            |message: Bytes| StreamingRecognizeRequest::decode(message).unwrap().streaming_request.unwrap();
        (encoded, messages.into_iter().map(request).collect())
    }

    #[test]
    fn the_configuration_comes_first_and_all_audio_follows_in_pieces() {
        for len in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 500] {
            let file: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let (encoded, messages) = encoded(&file);
            assert_eq!(encoded.path, STREAMING_RECOGNIZE);
            let StreamingRequest::StreamingConfig(config) = &messages[0] else { panic!("{messages:?}") };
            let recognition = config.config.as_ref().unwrap();
            assert!(!config.interim_results && recognition.enable_word_time_offsets);
            assert_eq!((recognition.sample_rate_hertz, &*recognition.language_code), (16_000, "de-DE"));
            let audio: Vec<&Bytes> = messages[1..]
                .iter()
                .map(|message| match message {
                    StreamingRequest::AudioContent(audio) => audio,
                    StreamingRequest::StreamingConfig(_) => panic!("a second configuration"),
                })
                .collect();
            assert!(audio.iter().all(|piece| (1..=PIECE_BYTES).contains(&piece.len())), "{len}");
            assert!(audio.iter().flat_map(|piece| piece.iter()).eq(&file), "{len}");
        }
    }

    #[test]
    fn final_results_of_all_messages_are_one_transcript() {
        let result = |text: &str, is_final: bool, start: i32, processed: f32| {
            let word = WordInfo {
                start_time: start,
                end_time: start + 400,
                word: text.into(),
                speaker_tag: 1,
                ..WordInfo::default()
            };
            let best = SpeechRecognitionAlternative {
                transcript: text.into(),
                words: vec![word],
                language_code: vec!["en-US".into()],
                ..SpeechRecognitionAlternative::default()
            };
            StreamingRecognizeResponse {
                results: vec![StreamingRecognitionResult {
                    alternatives: vec![best],
                    is_final,
                    audio_processed: processed,
                    ..StreamingRecognitionResult::default()
                }],
                id: None,
            }
        };
        let reply = [
            result("hel", false, 0, 0.5),
            result("hello ", true, 0, 1.0),
            result("there", true, 1_500, 2.25),
        ]
        .map(|message| message.encode_to_vec())
        .concat();
        let transcript = RivaStreaming.transcript(&reply).unwrap();
        assert_eq!((&*transcript.text, transcript.duration), ("hello there", Some(2.25)));
        let starts: Vec<f64> = transcript.words.iter().map(|word| word.start).collect();
        assert_eq!((starts, transcript.language.as_deref()), (vec![0.0, 1.5], Some("en-US")));
        assert_eq!(RivaStreaming.text(&reply).unwrap().as_deref(), Some("hello there"));
        assert_eq!(RivaStreaming.transcript(&[]).unwrap().text, "", "nothing was heard");
        assert!(RivaStreaming.transcript(b"no message").is_err());
        let said = |settled: &[u8], message: StreamingRecognizeResponse| {
            let live = RivaStreaming.live(settled, &message.encode_to_vec()).unwrap();
            (live.so_far.text, live.settles)
        };
        assert_eq!(said(&[], result("hel", false, 0, 0.5)), ("hel".into(), false));
        assert_eq!(said(&reply, result("and", false, 3_000, 3.0)), ("hello there and".into(), false));
        assert_eq!(said(&[], result("hello", true, 0, 1.0)), ("hello".into(), true));
    }
}
