//! Decodes an uploaded file of any common container and codec to 16 kHz mono.

use std::io::{Cursor, ErrorKind};
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;

use bytes::Bytes;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia_adapter_libopus::OpusDecoder;

use crate::resample::{Resampler, to_pcm};

/// The rate of everything that is recognized, in Hz.
pub const RATE_HZ: u32 = 16_000;

/// A small file can hold days of silence: decoding stops here, four hours.
const MAX_SAMPLES: usize = 4 * 3600 * RATE_HZ as usize;

/// Why a file gave no audio.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was uploaded.
    #[error("the file is empty")]
    Empty,
    /// No container that we know.
    #[error("the file is not audio of a known format")]
    Format(#[source] Symphonia),
    /// A known container without an audio track.
    #[error("the file has no audio track")]
    NoTrack,
    /// A codec that we lack.
    #[error("the audio codec of the file is not supported")]
    Codec(#[source] Symphonia),
    /// Not one packet could be decoded.
    #[error("the file holds no decodable audio")]
    NoAudio,
    /// More than four hours.
    #[error("the audio is longer than 4 hours")]
    TooLong,
    /// The demuxer or decoder gave up by a panic.
    #[error("the file is malformed")]
    Malformed,
    /// More than one channel, where one is taken.
    #[error("the audio has {0} channels: only mono is supported")]
    Channels(usize),
    /// A sample rate beyond reason.
    #[error("the sample rate of the file is not supported")]
    Rate(#[source] crate::resample::Error),
}

/// Which numbers of channels are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// Any; they are mixed.
    Any,
    /// One.
    Mono,
}

/// A container, by the first bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// RIFF/WAVE.
    Wav,
    /// Native FLAC.
    Flac,
    /// Opus in Ogg.
    OggOpus,
    /// Another one, or none.
    Other,
}

impl Container {
    /// Looks at the first bytes of a file.
    #[must_use]
    pub fn of(file: &[u8]) -> Self {
        let at = |position: usize, magic: &[u8]| file.get(position..position + magic.len()) == Some(magic);
        if at(0, b"RIFF") && at(8, b"WAVE") {
            Self::Wav
        } else if at(0, b"fLaC") {
            Self::Flac
        } else if at(0, b"OggS") && at(28, b"OpusHead") {
            Self::OggOpus
        } else {
            Self::Other
        }
    }
}

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<OpusDecoder>();
    codecs
});

/// Decodes `file`, mixes its channels and converts it to [`RATE_HZ`]. A file that breaks off gives what it had.
///
/// # Errors
/// When the file yields no audio at all, or too much, or has more channels than are taken.
pub fn decode(file: Bytes, channels: Channels) -> Result<Vec<i16>, Error> {
    if file.is_empty() {
        return Err(Error::Empty);
    }
    // Some malformed headers overflow inside symphonia, which panics in builds that check arithmetic.
    std::panic::catch_unwind(AssertUnwindSafe(|| decode_tracks(file, channels)))
        .unwrap_or(Err(Error::Malformed))
}

fn decode_tracks(file: Bytes, channels: Channels) -> Result<Vec<i16>, Error> {
    let source = MediaSourceStream::new(Box::new(Cursor::new(file)), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), source, FormatOptions::default(), MetadataOptions::default())
        .map_err(Error::Format)?;
    let track = format.default_track(TrackType::Audio).ok_or(Error::NoTrack)?;
    let track_id = track.id;
    let parameters =
        track.codec_params.as_ref().and_then(|parameters| parameters.audio()).ok_or(Error::NoTrack)?;
    let mut decoder =
        CODECS.make_audio_decoder(parameters, &AudioDecoderOptions::default()).map_err(Error::Codec)?;
    let mut mono = Mono { only: channels == Channels::Mono, ..Mono::default() };
    while decode_packet(&mut *format, &mut *decoder, track_id, &mut mono)? {}
    mono.finish()
}

/// Decodes the next packet of the track; `false` at the end of what can be read.
fn decode_packet(
    format: &mut dyn FormatReader,
    decoder: &mut dyn AudioDecoder,
    track_id: u32,
    mono: &mut Mono,
) -> Result<bool, Error> {
    let packet = match format.next_packet() {
        Ok(Some(packet)) => packet,
        Ok(None) => return Ok(false),
        // Live WebM and truncated files end like this.
        Err(Symphonia::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => {
            tracing::debug!(%error, "unreadable packet ends the file");
            return Ok(false);
        }
    };
    if packet.track_id != track_id {
        return Ok(true);
    }
    match decoder.decode(&packet) {
        Ok(audio) => {
            let (rate_hz, channels) = (audio.spec().rate(), audio.spec().channels().count());
            audio.copy_to_vec_interleaved(&mut mono.interleaved);
            mono.push(rate_hz, channels)?;
            Ok(true)
        }
        Err(Symphonia::DecodeError(_)) => Ok(true),
        Err(error) => {
            tracing::debug!(%error, "undecodable packet ends the file");
            Ok(false)
        }
    }
}

/// Collects decoded packets as 16 kHz mono.
#[derive(Default)]
struct Mono {
    /// Several channels are refused instead of mixed.
    only: bool,
    interleaved: Vec<f32>,
    mixed: Vec<f32>,
    converted: Vec<f32>,
    resampler: Option<(u32, Resampler)>,
    samples: Vec<i16>,
}

impl Mono {
    /// Takes the packet in `interleaved`.
    fn push(&mut self, rate_hz: u32, channels: usize) -> Result<(), Error> {
        if channels == 0 || self.interleaved.is_empty() {
            return Ok(());
        }
        if self.only && channels > 1 {
            return Err(Error::Channels(channels));
        }
        self.mixed.clear();
        let share = 1.0 / channels as f32;
        self.mixed
            .extend(self.interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * share));
        // A chained stream may change its rate: what was before is closed first.
        if self.resampler.as_ref().is_none_or(|(rate, _)| *rate != rate_hz) {
            self.close();
            self.resampler = Some((rate_hz, Resampler::new(rate_hz, RATE_HZ).map_err(Error::Rate)?));
        }
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.push(&self.mixed, &mut self.converted);
        }
        self.store();
        if self.samples.len() > MAX_SAMPLES { Err(Error::TooLong) } else { Ok(()) }
    }

    fn close(&mut self) {
        if let Some((_, resampler)) = self.resampler.take() {
            resampler.finish(&mut self.converted);
            self.store();
        }
    }

    fn store(&mut self) {
        self.samples.extend(self.converted.drain(..).map(to_pcm));
    }

    fn finish(mut self) -> Result<Vec<i16>, Error> {
        self.close();
        if self.samples.is_empty() { Err(Error::NoAudio) } else { Ok(self.samples) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wav;

    fn decode(file: Bytes) -> Result<Vec<i16>, Error> {
        super::decode(file, Channels::Any)
    }

    fn tone(rate_hz: u32) -> Vec<i16> {
        (0..rate_hz)
            .map(|i| ((i as f32 * 440.0 * std::f32::consts::TAU / rate_hz as f32).sin() * 9_000.0) as i16)
            .collect()
    }

    #[test]
    fn wav_of_another_rate_becomes_16_khz_of_the_same_duration() {
        let samples = decode(wav::encode(&tone(44_100), 44_100)).unwrap();
        assert_eq!(samples.len(), 16_000);
        let loud = samples.iter().filter(|sample| sample.abs() > 4_000).count();
        assert!(loud > 8_000, "{loud}");
    }

    #[test]
    fn several_channels_are_mixed_or_refused() {
        let mut stereo = wav::encode(&tone(16_000), 8_000).to_vec();
        stereo[22] = 2;
        stereo[32] = 4;
        let stereo = Bytes::from(stereo);
        assert_eq!(Container::of(&stereo), Container::Wav);
        assert_eq!(decode(stereo.clone()).unwrap().len(), 16_000);
        assert!(matches!(super::decode(stereo, Channels::Mono), Err(Error::Channels(2))));
    }

    #[test]
    fn truncated_file_gives_what_it_had() {
        let file = wav::encode(&tone(16_000), 16_000);
        let samples = decode(file.slice(..file.len() / 2)).unwrap();
        assert!((7_000..8_100).contains(&samples.len()), "{}", samples.len());
    }

    #[test]
    fn what_is_not_audio_is_refused_and_kills_nothing() {
        assert!(matches!(decode(Bytes::new()), Err(Error::Empty)));
        for junk in ["x", "hello, this is no audio at all", "RIFF\0\0\0\0WAVE", "OggS", "fLaC", "ID3"] {
            assert!(decode(Bytes::copy_from_slice(junk.as_bytes())).is_err(), "{junk:?}");
        }
        assert!(decode(Bytes::from(vec![0u8; 100_000])).is_err());
        assert!(decode(wav::encode(&[], 16_000)).is_err());
        let file = wav::encode(&tone(16_000), 16_000);
        for end in 0..wav::HEADER_BYTES {
            assert!(decode(file.slice(..end)).is_err(), "{end} bytes of header");
        }
        for position in 0..wav::HEADER_BYTES {
            for value in [0, 1, 127, 255] {
                let mut broken = file.to_vec();
                broken[position] = value;
                let _any_result = decode(broken.into());
            }
        }
    }
}
