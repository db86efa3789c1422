//! The audio of a recognition: a file as it is, or a file made of samples without a header.

use bytes::{BufMut, Bytes, BytesMut};

use crate::audio::{Container, Sample, wav};
use crate::error::Error;
use crate::riva_proto::AudioEncoding;
use crate::riva_proto::asr::RecognitionConfig;

/// Samples per second that are taken.
const RATES: std::ops::RangeInclusive<i32> = 8_000..=48_000;
/// Channels of samples without a header that are taken; they are mixed.
const CHANNELS: std::ops::RangeInclusive<i32> = 0..=8;

/// How audio is coded, by what the request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Samples without a header, or a WAV file all the same.
    Raw(Sample),
    /// A file.
    File,
}

/// The coding of a request's audio.
///
/// # Errors
/// No such encoding.
pub(super) fn coding(config: &RecognitionConfig) -> Result<Coding, Error> {
    match AudioEncoding::try_from(config.encoding) {
        Ok(AudioEncoding::LinearPcm) => Ok(Coding::Raw(Sample::S16)),
        Ok(AudioEncoding::Mulaw) => Ok(Coding::Raw(Sample::MuLaw)),
        Ok(AudioEncoding::Alaw) => Ok(Coding::Raw(Sample::ALaw)),
        Ok(AudioEncoding::EncodingUnspecified | AudioEncoding::Flac | AudioEncoding::Oggopus) => {
            Ok(Coding::File)
        }
        Err(_) => {
            let message = "encoding must be LINEAR_PCM, FLAC, MULAW, OGGOPUS, ALAW or unset for a file";
            Err(Error::param("encoding", message))
        }
    }
}

/// Samples per second of audio without a header.
///
/// # Errors
/// None, or one that is not taken.
pub(super) fn raw_rate(config: &RecognitionConfig) -> Result<u32, Error> {
    let rate = config.sample_rate_hertz;
    u32::try_from(rate).ok().filter(|_| RATES.contains(&rate)).ok_or_else(|| {
        let message =
            format!("sample_rate_hertz must be from 8000 to 48000 for audio without a header, not {rate}");
        Error::param("sample_rate_hertz", message)
    })
}

/// The file of a whole recording.
///
/// # Errors
/// What of the request does not fit its audio.
pub(super) fn file(config: &RecognitionConfig, audio: Bytes) -> Result<Bytes, Error> {
    if audio.is_empty() {
        return Err(Error::param("audio", "audio is empty"));
    }
    let container = Container::sniff(&audio);
    let sample = match coding(config)? {
        // The first bytes of samples may look like those of other files by chance.
        Coding::Raw(_) if matches!(container, Some(Container::Wav | Container::Flac)) => return Ok(audio),
        Coding::Raw(sample) => sample,
        Coding::File if container.is_some() => return Ok(audio),
        Coding::File => {
            let message = "the audio is no file of a known format; for samples without a header set encoding to LINEAR_PCM, MULAW \
                or ALAW, and sample_rate_hertz";
            return Err(Error::param("encoding", message));
        }
    };
    let rate = raw_rate(config)?;
    let channels = config.audio_channel_count;
    let channels = u16::try_from(channels)
        .ok()
        .filter(|_| CHANNELS.contains(&channels))
        .ok_or_else(|| Error::param("audio_channel_count", "audio_channel_count must be from 1 to 8"))?;
    Ok(wav_file(&audio, sample, rate, channels.max(1)))
}

/// A WAV file of 16-bit samples.
fn wav_file(audio: &Bytes, sample: Sample, rate: u32, channels: u16) -> Bytes {
    let len = audio.len() / sample.bytes() * 2;
    let mut file = BytesMut::with_capacity(wav::HEADER_LEN + len);
    file.extend_from_slice(&wav::header(rate, channels, Some(len as u64)));
    if sample == Sample::S16 {
        file.extend_from_slice(audio.get(..len).unwrap_or_default());
        return file.freeze();
    }
    let mut samples = Vec::new();
    for piece in audio.chunks(4096) {
        samples.clear();
        sample.read(piece, &mut samples);
        samples.iter().for_each(|sample| file.put_i16_le((sample * 32_768.0) as i16));
    }
    file.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(encoding: AudioEncoding, rate: i32, channels: i32) -> RecognitionConfig {
        RecognitionConfig {
            encoding: encoding.into(),
            sample_rate_hertz: rate,
            audio_channel_count: channels,
            ..RecognitionConfig::default()
        }
    }

    #[test]
    fn samples_become_a_file_and_files_stay_what_they_are() {
        let raw = Bytes::from_static(&[1, 0, 2, 0, 3]);
        let made = file(&config(AudioEncoding::LinearPcm, 8_000, 0), raw).unwrap();
        let header = wav::parse(&made).unwrap();
        assert_eq!((header.rate, header.channels, header.bits), (8_000, 1, 16));
        assert_eq!(header.data(&made), [1, 0, 2, 0], "half a sample is none");
        let stereo = file(&config(AudioEncoding::LinearPcm, 44_100, 2), Bytes::from_static(&[0; 8])).unwrap();
        assert_eq!(wav::parse(&stereo).unwrap().channels, 2);
        // With its header the rate of the request does not matter.
        assert_eq!(file(&config(AudioEncoding::LinearPcm, 0, 0), made.clone()).unwrap(), made);
        assert_eq!(file(&config(AudioEncoding::EncodingUnspecified, 0, 0), made.clone()).unwrap(), made);
    }

    #[test]
    fn g711_is_expanded() {
        for (encoding, coded, level) in
            [(AudioEncoding::Mulaw, 0x80, 32_124_i16), (AudioEncoding::Alaw, 0xAA, 32_256)]
        {
            let made = file(&config(encoding, 8_000, 1), Bytes::from(vec![coded; 5000])).unwrap();
            let data = wav::parse(&made).unwrap().data(&made);
            assert_eq!(data.len(), 10_000);
            assert!(data.chunks(2).all(|pair| pair == level.to_le_bytes()), "{encoding:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let noise = || Bytes::from_static(&[7; 200]);
        let blamed = |config: &RecognitionConfig, audio| file(config, audio).unwrap_err().param_name();
        assert_eq!(blamed(&config(AudioEncoding::LinearPcm, 16_000, 1), Bytes::new()), Some("audio"));
        for encoding in [AudioEncoding::Flac, AudioEncoding::Oggopus, AudioEncoding::EncodingUnspecified] {
            assert_eq!(blamed(&config(encoding, 16_000, 1), noise()), Some("encoding"));
        }
        for rate in [0, -1, 7_999, 48_001] {
            let config = config(AudioEncoding::LinearPcm, rate, 1);
            assert_eq!(blamed(&config, noise()), Some("sample_rate_hertz"));
        }
        for channels in [-1, 9] {
            let config = config(AudioEncoding::LinearPcm, 16_000, channels);
            assert_eq!(blamed(&config, noise()), Some("audio_channel_count"));
        }
        let unknown = RecognitionConfig { encoding: 99, ..RecognitionConfig::default() };
        assert_eq!(blamed(&unknown, noise()), Some("encoding"));
    }
}
