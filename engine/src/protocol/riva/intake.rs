//! Makes samples at 16 kHz of a stream's bytes, whatever their encoding.

use bytes::{Bytes, BytesMut};

use super::config::{Coding, Options};
use crate::decode::{self, Channels, Container};
use crate::pcm::{self, Raw};
use crate::wav;
use crate::work::Refusal;

/// A container is decoded again when it has grown by this many bytes.
const GROWTH_BYTES: usize = 16 << 10;
/// A WAV header that is longer is none.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// A stream's bytes on their way to samples.
pub struct Intake {
    options: Options,
    /// What came before the form was known, or a whole container.
    pending: BytesMut,
    form: Form,
}

enum Form {
    /// Not known yet: samples may begin with a WAV header.
    Raw(Raw),
    /// Samples.
    Samples(Box<pcm::Stream>),
    /// A container, decoded from its start again and again: its bytes the last time, and the samples given.
    File { decoded: usize, given: usize },
}

impl Intake {
    /// For a stream that has not begun.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let form = match options.coding {
            Coding::Raw(coding) => Form::Raw(coding),
            Coding::Container(_) | Coding::Unspecified => Form::File { decoded: 0, given: 0 },
        };
        Self { options: options.clone(), pending: BytesMut::new(), form }
    }

    /// Takes bytes, cut anywhere, and appends what they give to `samples`.
    ///
    /// # Errors
    /// When they do not have the encoding of the request.
    pub fn push(&mut self, audio: Bytes, samples: &mut Vec<i16>) -> Result<(), Refusal> {
        self.advance(&audio, false, samples)
    }

    /// Appends the rest to `samples`.
    ///
    /// # Errors
    /// As [`Intake::push`].
    pub fn finish(mut self, samples: &mut Vec<i16>) -> Result<(), Refusal> {
        self.advance(&[], true, samples)?;
        if let Form::Samples(stream) = self.form {
            stream.finish(samples);
        }
        Ok(())
    }

    fn advance(&mut self, audio: &[u8], end: bool, samples: &mut Vec<i16>) -> Result<(), Refusal> {
        match &mut self.form {
            Form::Samples(stream) => stream.push(audio, samples),
            Form::Raw(coding) => {
                let coding = *coding;
                self.pending.extend_from_slice(audio);
                if let Some((rate_hz, samples_at)) = self.begin(end)? {
                    let mut stream = pcm::Stream::new(coding, rate_hz)?;
                    stream.push(&self.pending[samples_at..], samples);
                    self.pending = BytesMut::new();
                    self.form = Form::Samples(Box::new(stream));
                }
            }
            Form::File { decoded, given } => {
                self.pending.extend_from_slice(audio);
                let length = self.pending.len();
                if length >= *decoded + GROWTH_BYTES || (end && length > *decoded) {
                    *decoded = length;
                    let file = Bytes::copy_from_slice(&self.pending);
                    let whole = decode_container(self.options.coding, file, end)?;
                    samples.extend(whole.get(*given..).unwrap_or_default());
                    *given = whole.len().max(*given);
                }
            }
        }
        Ok(())
    }

    /// The rate of the samples in Hz and where they begin; `None` while more bytes are needed to tell.
    fn begin(&self, end: bool) -> Result<Option<(u32, usize)>, Refusal> {
        let known = self.pending.len().min(4);
        if !end && known < 4 && self.pending[..known] == b"RIFF"[..known] {
            return Ok(None);
        }
        if !self.pending.starts_with(b"RIFF") {
            return if self.pending.is_empty() {
                Ok(None)
            } else {
                Ok(Some((self.options.raw_rate_hz()?, 0)))
            };
        }
        match wav::header(&self.pending) {
            Some(header) if header.channels == 1 => Ok(Some((header.rate_hz, header.samples_at))),
            Some(header) => Err(decode::Error::Channels(header.channels.into()).into()),
            None if !end && self.pending.len() < MAX_HEADER_BYTES => Ok(None),
            None => Err(Refusal::parameter("audio", "the WAV header is malformed")),
        }
    }
}

/// All samples so far; a container that has only begun has none.
fn decode_container(coding: Coding, file: Bytes, end: bool) -> Result<Vec<i16>, Refusal> {
    let container = Container::of(&file);
    let expected = match coding {
        Coding::Container(expected) => container == expected,
        Coding::Unspecified | Coding::Raw(_) => container != Container::Other,
    };
    if !expected {
        return Err(Refusal::parameter("encoding", "the audio does not have the encoding of the request"));
    }
    match decode::decode(file, Channels::Mono) {
        Ok(samples) => Ok(samples),
        Err(decode::Error::NoAudio | decode::Error::Format(_)) if !end => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Models;
    use crate::grpc::messages::nvidia::riva::AudioEncoding;
    use crate::grpc::messages::nvidia::riva::asr::RecognitionConfig;
    use crate::kind::Kind;

    fn options(encoding: AudioEncoding, sample_rate_hertz: i32) -> Options {
        let config = RecognitionConfig {
            encoding: encoding.into(),
            sample_rate_hertz,
            language_code: "en-US".into(),
            ..RecognitionConfig::default()
        };
        Options::check(&config, &Models::default().capability(Kind::Stt)).unwrap()
    }

    fn take(options: &Options, bytes: &[u8], piece: usize) -> Result<Vec<i16>, Refusal> {
        let (mut intake, mut samples) = (Intake::new(options), Vec::new());
        for piece in bytes.chunks(piece) {
            intake.push(Bytes::copy_from_slice(piece), &mut samples)?;
        }
        intake.finish(&mut samples)?;
        Ok(samples)
    }

    #[test]
    fn samples_come_with_or_without_a_header_in_pieces_of_any_size() {
        let tone: Vec<i16> = (0..20_000_i16).map(|i| (i % 100 - 50) * 100).collect();
        let (raw, file) = (wav::raw(&tone), wav::encode(&tone, 16_000));
        for piece in [1, 7, 30, 3_200, 100_000] {
            let linear = options(AudioEncoding::LinearPcm, 16_000);
            assert_eq!(take(&linear, &raw, piece).unwrap(), tone, "raw in pieces of {piece}");
            // The header's rate counts.
            let wrong_rate = options(AudioEncoding::LinearPcm, 48_000);
            assert_eq!(take(&wrong_rate, &file, piece).unwrap(), tone, "file in pieces of {piece}");
            let unspecified = options(AudioEncoding::EncodingUnspecified, 0);
            assert_eq!(take(&unspecified, &file, piece.max(100)).unwrap(), tone);
        }
        assert_eq!(take(&options(AudioEncoding::Mulaw, 8_000), &[0xff; 800], 100).unwrap().len(), 1_600);
    }

    #[test]
    fn what_is_not_in_the_encoding_of_the_request_is_refused() {
        for (encoding, rate_hz, bytes) in [
            (AudioEncoding::Flac, 16_000, &[0; 200][..]),
            (AudioEncoding::EncodingUnspecified, 16_000, &[0; 200]),
            (AudioEncoding::LinearPcm, 0, &[0; 200]),
            (AudioEncoding::LinearPcm, 16_000, b"RIFF and then no header"),
        ] {
            assert!(take(&options(encoding, rate_hz), bytes, 50).is_err(), "{encoding:?}");
        }
        assert_eq!(take(&options(AudioEncoding::LinearPcm, 0), &[], 1).unwrap(), [0; 0]);
    }
}
