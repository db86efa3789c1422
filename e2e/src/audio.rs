//! Decodes what the stack speaks, to measure it.

use std::io::Cursor;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use bytes::Bytes;
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia_adapter_libopus::OpusDecoder;

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<OpusDecoder>();
    codecs
});

/// What a piece of audio measures.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Length.
    pub seconds: f64,
    /// Root mean square, 1.0 = full scale.
    pub level: f64,
}

impl Measure {
    /// Measures 16-bit little-endian mono samples.
    pub fn of_pcm(bytes: &[u8], rate_hz: u32) -> Self {
        let samples =
            bytes.chunks_exact(2).map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0);
        let (count, energy) =
            samples.fold((0u64, 0.0), |(count, sum), sample| (count + 1, sum + sample * sample));
        Self { seconds: count as f64 / f64::from(rate_hz), level: (energy / count.max(1) as f64).sqrt() }
    }

    /// Decodes and measures a file of any container that symphonia or libopus knows.
    ///
    /// # Errors
    /// When it is no audio file, or breaks off.
    pub fn of_file(file: Bytes) -> Result<Self> {
        let source = MediaSourceStream::new(Box::new(Cursor::new(file)), Default::default());
        let mut format = symphonia::default::get_probe()
            .probe(&Hint::new(), source, FormatOptions::default(), MetadataOptions::default())
            .context("no known container")?;
        let track = format.default_track(TrackType::Audio).context("no audio track")?;
        let id = track.id;
        let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
        let parameters = parameters.context("no audio parameters")?;
        let mut decoder = CODECS.make_audio_decoder(parameters, &AudioDecoderOptions::default())?;
        let (mut seconds, mut energy, mut count) = (0.0, 0.0, 0u64);
        let mut samples: Vec<f32> = Vec::new();
        loop {
            let packet = match format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                // Streamed WAV has no length of its own: its end is the end of the file.
                Err(Symphonia::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error).context("unreadable packet"),
            };
            if packet.track_id != id {
                continue;
            }
            let audio = decoder.decode(&packet).context("undecodable packet")?;
            let (rate, channels) = (audio.spec().rate(), audio.spec().channels().count().max(1));
            audio.copy_to_vec_interleaved(&mut samples);
            seconds += (samples.len() / channels) as f64 / f64::from(rate.max(1));
            energy += samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>();
            count += samples.len() as u64;
        }
        Ok(Self { seconds, level: (energy / count.max(1) as f64).sqrt() })
    }
}
