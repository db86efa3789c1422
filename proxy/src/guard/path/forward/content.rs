//! Whether answers that came with success have content: many empty or equal transcripts, audio without sound.

use bytes::Bytes;
use twox_hash::XxHash3_64;

use crate::audio::wav::{self, Search};
use crate::job::input::InputHash;

/// Suspicious answers in a row that make a hint: silence and one-word commands are common, in a row they are not.
const BURST: u32 = 5;
/// Shorter audio may well hold no word.
const LEAST_AUDIO_SECONDS: f64 = 1.0;
/// Constant output of this length is no speech.
const LEAST_CONSTANT_SECONDS: f64 = 0.5;
/// Sample rate assumed of raw samples when the request named none.
const RAW_RATE: f64 = 22_050.0;

/// What is wrong with the content of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A JSON answer that cannot be read.
    NotJson,
    /// A gRPC answer that is not of the protocol's messages.
    NotMessage,
    /// Transcripts without a word, in a row.
    EmptyTranscripts,
    /// The same transcript for different audio, in a row.
    EqualTranscripts,
    /// An answer without audio.
    NoAudio,
    /// Audio whose samples are all the same.
    ConstantAudio,
    /// A WAV file shorter than it announces.
    ShortAudio,
}

impl Fault {
    /// The name in hints.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::NotJson => "not_json",
            Fault::NotMessage => "not_message",
            Fault::EmptyTranscripts => "empty_transcripts",
            Fault::EqualTranscripts => "equal_transcripts",
            Fault::NoAudio => "no_audio",
            Fault::ConstantAudio => "constant_audio",
            Fault::ShortAudio => "short_audio",
        }
    }
}

/// Whether a transcript says anything.
pub fn has_words(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

/// The transcripts of an engine in a row. Keeps hashes, never text.
#[derive(Debug, Default)]
pub struct Transcripts {
    empty: u32,
    equal: u32,
    last: Option<(u64, Option<InputHash>)>,
}

impl Transcripts {
    /// Looks at the transcript of `audio` seconds with the hash `input`. A burst is reported once, then counted anew.
    ///
    /// # Errors
    /// The [`Fault`] that this answer completes.
    pub fn look(&mut self, text: &str, input: Option<InputHash>, audio: f64) -> Result<(), Fault> {
        if !has_words(text) {
            (self.equal, self.last) = (0, None);
            if audio >= LEAST_AUDIO_SECONDS {
                self.empty += 1;
            }
            return self.burst();
        }
        self.empty = 0;
        if audio < LEAST_AUDIO_SECONDS {
            return Ok(());
        }
        let text = XxHash3_64::oneshot(text.trim().as_bytes());
        match self.last {
            Some((last, from)) if last == text => {
                if from != input {
                    self.equal += 1;
                }
            }
            _ => self.equal = 1,
        }
        self.last = Some((text, input));
        self.burst()
    }

    fn burst(&mut self) -> Result<(), Fault> {
        if self.empty >= BURST {
            self.empty = 0;
            return Err(Fault::EmptyTranscripts);
        }
        if self.equal >= BURST {
            self.equal = 0;
            return Err(Fault::EqualTranscripts);
        }
        Ok(())
    }
}

/// Looks at spoken audio while it passes: 16-bit samples, with or without a WAV header.
#[derive(Debug, Default)]
pub struct Speech {
    head: Vec<u8>,
    header: Option<Header>,
    bytes: u64,
    odd: Option<u8>,
    first: Option<[u8; 2]>,
    varies: bool,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    rate: f64,
    channels: u16,
    /// Bytes of samples, `None` when the file does not say.
    announced: Option<u64>,
}

/// A WAV header with some metadata fits.
const HEAD_BYTES: usize = 1024;

impl Speech {
    /// Takes the next bytes.
    pub fn push(&mut self, data: &Bytes) {
        if self.header.is_some() {
            self.samples(data);
            return;
        }
        self.head.extend_from_slice(&data[..data.len().min(HEAD_BYTES)]);
        let unread = &data[data.len().min(HEAD_BYTES)..];
        match wav::search(&self.head) {
            Search::Found(wav) => {
                let (rate, channels) = (f64::from(wav.rate.max(1)), wav.channels.max(1));
                self.header = Some(Header { rate, channels, announced: wav.data_len });
                let head = std::mem::take(&mut self.head);
                self.samples(&head[wav.data_offset..]);
            }
            Search::Incomplete if self.head.len() < HEAD_BYTES => return,
            Search::Incomplete | Search::NotWav => self.assume_raw(),
        }
        self.samples(unread);
    }

    fn assume_raw(&mut self) {
        self.header = Some(Header { rate: RAW_RATE, channels: 1, announced: None });
        let head = std::mem::take(&mut self.head);
        self.samples(&head);
    }

    fn samples(&mut self, mut data: &[u8]) {
        self.bytes += data.len() as u64;
        if self.varies || data.is_empty() {
            return;
        }
        if let Some(low) = self.odd.take() {
            self.compare([low, data[0]]);
            data = &data[1..];
        }
        let pairs = data.chunks_exact(2);
        self.odd = pairs.remainder().first().copied();
        for pair in pairs {
            self.compare([pair[0], pair[1]]);
            if self.varies {
                return;
            }
        }
    }

    fn compare(&mut self, sample: [u8; 2]) {
        self.varies |= *self.first.get_or_insert(sample) != sample;
    }

    /// Judges the whole answer; on success, its seconds of audio when the sample rate is known.
    ///
    /// # Errors
    /// The [`Fault`] of this answer.
    pub fn finish(mut self) -> Result<Option<f64>, Fault> {
        let rate_known = self.header.is_some_and(|header| header.announced.is_some());
        let header = match self.header {
            Some(header) => header,
            None => {
                self.assume_raw();
                Header { rate: RAW_RATE, channels: 1, announced: None }
            }
        };
        if self.bytes == 0 {
            return Err(Fault::NoAudio);
        }
        if header.announced.is_some_and(|announced| announced > self.bytes) {
            return Err(Fault::ShortAudio);
        }
        let seconds = self.bytes as f64 / (2.0 * f64::from(header.channels) * header.rate);
        if !self.varies && seconds >= LEAST_CONSTANT_SECONDS {
            return Err(Fault::ConstantAudio);
        }
        Ok(rate_known.then_some(seconds))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look(transcripts: &mut Transcripts, text: &str, input: u64) -> Result<(), Fault> {
        transcripts.look(text, Some(InputHash(input)), 3.0)
    }

    #[test]
    fn five_empty_transcripts_in_a_row_are_a_fault_reported_once() {
        let mut transcripts = Transcripts::default();
        for at in 0..4 {
            assert_eq!(look(&mut transcripts, " ... ", at), Ok(()));
        }
        assert_eq!(look(&mut transcripts, "", 4), Err(Fault::EmptyTranscripts));
        assert_eq!(look(&mut transcripts, "", 5), Ok(()));
    }

    #[test]
    fn a_word_ends_the_row() {
        let mut transcripts = Transcripts::default();
        for at in 0..40 {
            assert_eq!(look(&mut transcripts, if at % 5 == 4 { "hello" } else { "?!" }, at), Ok(()));
        }
    }

    #[test]
    fn short_audio_may_be_empty() {
        let mut transcripts = Transcripts::default();
        for at in 0..20 {
            assert_eq!(transcripts.look("", Some(InputHash(at)), 0.4), Ok(()));
        }
    }

    #[test]
    fn one_text_for_different_audio_is_a_fault_and_for_the_same_audio_is_not() {
        let mut transcripts = Transcripts::default();
        for at in 0..4 {
            assert_eq!(look(&mut transcripts, "thank you", at), Ok(()));
        }
        assert_eq!(look(&mut transcripts, "thank you", 4), Err(Fault::EqualTranscripts));
        let mut transcripts = Transcripts::default();
        for _ in 0..20 {
            assert_eq!(look(&mut transcripts, "thank you", 7), Ok(()));
        }
    }

    fn wav(announced: u32, samples: &[u8]) -> Vec<u8> {
        let mut file = wav::header(16_000, 1, None).to_vec();
        file[40..].copy_from_slice(&announced.to_le_bytes());
        file.extend_from_slice(samples);
        file
    }

    fn judge(body: &[u8], chunk: usize) -> Result<Option<f64>, Fault> {
        let mut speech = Speech::default();
        for data in body.chunks(chunk) {
            speech.push(&Bytes::copy_from_slice(data));
        }
        speech.finish()
    }

    #[test]
    fn audio_is_judged_alike_however_it_is_cut() {
        let sound: Vec<u8> = (0..32_000u32).map(|at| (at * 7 % 251) as u8).collect();
        let silence = vec![0; 32_000];
        for chunk in [1, 3, 1000, 100_000] {
            assert_eq!(judge(&wav(32_000, &sound), chunk), Ok(Some(1.0)));
            assert_eq!(judge(&wav(u32::MAX, &sound), chunk), Ok(None));
            assert_eq!(judge(&sound, chunk), Ok(None));
            assert_eq!(judge(&silence, chunk), Err(Fault::ConstantAudio));
            assert_eq!(judge(&wav(32_000, &silence), chunk), Err(Fault::ConstantAudio));
            assert_eq!(judge(&wav(64_000, &sound), chunk), Err(Fault::ShortAudio));
            assert_eq!(judge(&wav(0, &[]), chunk), Err(Fault::NoAudio));
            assert_eq!(judge(&[1, 2].repeat(20_000), chunk), Err(Fault::ConstantAudio));
            assert_eq!(judge(&[0; 100], chunk), Ok(None));
        }
        assert_eq!(judge(b"", 1), Err(Fault::NoAudio));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(body in proptest::collection::vec(any::<u8>(), 0..3000), chunk in 1..999usize) {
            let _ = judge(&body, chunk);
            let mut headed = wav(1000, &body);
            let _ = judge(&headed, chunk);
            headed.truncate(body.len() % 44);
            let _ = judge(&headed, chunk);
            let mut transcripts = Transcripts::default();
            let _ = transcripts.look(&String::from_utf8_lossy(&body), None, 1.0);
        }
    }
}
