//! `riva`: speech recognition over Riva's gRPC: one request with the whole file, one reply with words and speakers.
//!
//! The audio has one channel. An engine refuses a message beyond its limit, 4 MB by default, which is two minutes of PCM.

use std::borrow::Cow;
use std::num::NonZeroU32;

use contract::Capability;
use http::{HeaderValue, Method};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::boost::{BOOST, phrases};
use super::locale::locale;
use super::{Codec, Encoded, Error, File, Intake, Settings, Task, Transport, words};
use crate::audio::Container;
use crate::grpc;
use crate::job::work::{Audio, Need, Offers, Speakers, Transcribe, Transcript, Work};
use crate::riva_proto::AudioEncoding;
use crate::riva_proto::asr::{
    RecognitionConfig, RecognizeRequest, RecognizeResponse, SpeakerDiarizationConfig, SpeechContext,
    SpeechRecognitionAlternative, WordInfo,
};
use crate::transcript::Word;
use crate::transcript::text::{Spacing, join};

mod streaming;

pub use streaming::RivaStreaming;

const RECOGNIZE: &str = "/nvidia.riva.asr.RivaSpeechRecognition/Recognize";
const STREAMING_RECOGNIZE: &str = "/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize";

/// Number of the field `audio` of `RecognizeRequest`.
const AUDIO_FIELD: u32 = 2;
/// Samples per second of [`Intake::Pcm`].
const PCM_RATE_HZ: i32 = 16_000;
/// Largest message that a gRPC server takes when nothing else is configured.
const MAX_MESSAGE_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// Most speakers that any of NVIDIA's models tells apart.
const MAX_SPEAKERS: i32 = 8;

/// The protocol.
pub struct Riva;

impl Codec for Riva {
    fn name(&self) -> &'static str {
        "riva"
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Stt]
    }

    fn transport(&self) -> Transport {
        Transport::Grpc
    }

    fn offers(&self) -> Offers {
        Offers { words: true, speakers: Speakers::SameCall, live: false }
    }

    fn has_confidences(&self) -> bool {
        true
    }

    fn intake(&self, audio: &Audio) -> Intake {
        match audio.container {
            Container::Flac | Container::OggOpus if audio.mono => Intake::AsSent,
            _ => Intake::Pcm,
        }
    }

    fn max_audio_seconds(&self) -> f64 {
        MAX_MESSAGE_BYTES / (2.0 * f64::from(PCM_RATE_HZ))
    }

    fn encode(&self, work: &Work, file: Option<&File<'_>>, engine: &Settings) -> Result<Encoded, Error> {
        let wanted = match work {
            Work::Transcribe(wanted) => wanted,
            Work::Diarize => return Err(Error::no_speakers()),
            Work::Synthesize(_) => return Err(Error::no_speech()),
            Work::Chat(_) => return Err(Error::no_chat()),
        };
        let file = file.ok_or_else(Error::no_speech)?;
        let len = file.len.ok_or(Error::UnknownLength)?;
        let request =
            RecognizeRequest { config: Some(config(wanted, file, engine)), ..RecognizeRequest::default() };
        let mut start = request.encode_to_vec();
        encode_key(AUDIO_FIELD, WireType::LengthDelimited, &mut start);
        encode_varint(len, &mut start);
        Ok(Encoded {
            path: RECOGNIZE,
            content_type: HeaderValue::from_static(grpc::CONTENT_TYPE),
            before: grpc::open_frame(&start, len).map_err(Error::Frame)?,
            pieces: None,
            after: bytes::Bytes::new(),
        })
    }

    fn transcript(&self, reply: &[u8]) -> Result<Transcript, Error> {
        let results = decode(reply)?.results.into_iter();
        Ok(transcript(results.map(|result| (result.audio_processed, result.alternatives))))
    }

    fn task(&self, method: &Method, path: &str) -> Option<Task> {
        task(method, path)
    }

    fn text<'reply>(&self, reply: &'reply [u8]) -> Result<Option<Cow<'reply, str>>, Error> {
        let results = decode(reply)?.results.into_iter();
        Ok(Some(Cow::Owned(text(&best(results.map(|result| result.alternatives))))))
    }
}

fn task(method: &Method, path: &str) -> Option<Task> {
    match path {
        _ if method != Method::POST => None,
        RECOGNIZE => Some(Task::Transcribe),
        STREAMING_RECOGNIZE => Some(Task::TranscribeStream),
        _ => None,
    }
}

/// What is asked of the engine. The rate of a FLAC or Opus file is in the file.
fn config(wanted: &Transcribe, file: &File<'_>, engine: &Settings) -> RecognitionConfig {
    let (encoding, rate) = match (file.form, file.audio.container) {
        (Intake::AsSent, Container::Flac) => (AudioEncoding::Flac, 0),
        (Intake::AsSent, Container::OggOpus) => (AudioEncoding::Oggopus, 0),
        (Intake::AsSent, _) => (AudioEncoding::EncodingUnspecified, 0),
        (Intake::Wav | Intake::Pcm, _) => (AudioEncoding::LinearPcm, PCM_RATE_HZ),
    };
    let phrases = phrases(wanted.prompt.as_deref());
    let context = (!phrases.is_empty()).then_some(SpeechContext { phrases, boost: BOOST });
    let speakers =
        SpeakerDiarizationConfig { enable_speaker_diarization: true, max_speaker_count: MAX_SPEAKERS };
    RecognitionConfig {
        encoding: encoding.into(),
        sample_rate_hertz: rate,
        language_code: locale(wanted.language.as_deref(), engine).to_owned(),
        max_alternatives: 1,
        speech_contexts: context.into_iter().collect(),
        audio_channel_count: 1,
        enable_word_time_offsets: wanted.words != Need::No || wanted.speakers,
        enable_automatic_punctuation: true,
        diarization_config: wanted.speakers.then_some(speakers),
        ..RecognitionConfig::default()
    }
}

fn decode(reply: &[u8]) -> Result<RecognizeResponse, Error> {
    RecognizeResponse::decode(reply).map_err(|source| Error::Message { path: RECOGNIZE, source })
}

/// What results say: for each the seconds of audio that were heard until it, and its alternatives.
fn transcript(results: impl Iterator<Item = (f32, Vec<SpeechRecognitionAlternative>)>) -> Transcript {
    let (processed, alternatives): (Vec<f32>, Vec<_>) = results.unzip();
    let processed = processed.into_iter().map(seconds);
    let duration = processed.filter(|duration| *duration > 0.0 && duration.is_finite()).reduce(f64::max);
    let heard = best(alternatives.into_iter());
    let all = || latest(&heard).iter().flat_map(|best| &best.words);
    let timed: Vec<(Option<NonZeroU32>, Word)> = all().map(timed).collect();
    Transcript {
        text: text(&heard),
        language: heard.iter().find_map(|best| best.language_code.first()).cloned(),
        duration,
        turns: words::turns(timed.iter().map(|(tag, word)| (*tag, word)), duration),
        confidences: words::confidences(all().map(|word| word.confidence)),
        words: timed.into_iter().map(|(_, word)| word).collect(),
        model: None,
    }
}

/// The best alternative of each result.
fn best(
    results: impl Iterator<Item = Vec<SpeechRecognitionAlternative>>,
) -> Vec<SpeechRecognitionAlternative> {
    results.filter_map(|alternatives| alternatives.into_iter().next()).collect()
}

/// The results whose words are all words once. With speakers, the last result may repeat the words of all others.
fn latest(heard: &[SpeechRecognitionAlternative]) -> &[SpeechRecognitionAlternative] {
    let [first, .., last] = heard else { return heard };
    let repeats = !first.words.is_empty()
        && last.words.len() > first.words.len()
        && first.words.iter().zip(&last.words).all(|(one, other)| one.start_time == other.start_time);
    if repeats { std::slice::from_ref(last) } else { heard }
}

/// The text of all results, with a space between where the script has one.
fn text(heard: &[SpeechRecognitionAlternative]) -> String {
    let latest = latest(heard);
    let repeated = latest.iter().any(|best| !best.transcript.trim().is_empty());
    let pieces = if repeated { latest } else { heard };
    let piece = |best: &SpeechRecognitionAlternative| Word {
        start: f64::NAN,
        end: f64::NAN,
        text: best.transcript.trim().to_owned(),
    };
    join(&pieces.iter().map(piece).collect::<Vec<_>>(), Spacing::Implied)
}

/// A word in seconds, and the number of its speaker. Riva's words come without spaces.
fn timed(word: &WordInfo) -> (Option<NonZeroU32>, Word) {
    let speaker = u32::try_from(word.speaker_tag).ok().and_then(NonZeroU32::new);
    let (start, end) = (f64::from(word.start_time) / 1000.0, f64::from(word.end_time) / 1000.0);
    (speaker, Word { start, end, text: word.word.clone() })
}

/// Seconds without the digits that a conversion from 32 bits adds.
fn seconds(processed: f32) -> f64 {
    (f64::from(processed) * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
