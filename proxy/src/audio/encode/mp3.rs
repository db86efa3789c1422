//! MP3 (MPEG layer III) at a constant bit rate, by LAME.

use bytes::Bytes;
use mp3lame_encoder::{
    Bitrate, Builder, FlushGap, Mode, MonoPcm, Quality, VbrMode, max_required_buffer_size,
};

use super::Error;

/// Room for what LAME holds back, as its interface asks.
const FLUSH_BYTES: usize = 7200;

pub(super) struct Encoder(mp3lame_encoder::Encoder);

impl Encoder {
    pub(super) fn new(rate: u32) -> Result<Self, Error> {
        let mut builder = Builder::new().ok_or(Error::Mp3Setup(mp3lame_encoder::BuildError::NoMem))?;
        // Transparent for mono speech, and the most that MPEG-2.5 offers.
        let bitrate = if rate < 32_000 { Bitrate::Kbps64 } else { Bitrate::Kbps96 };
        builder.set_num_channels(1).map_err(Error::Mp3Setup)?;
        builder.set_mode(Mode::Mono).map_err(Error::Mp3Setup)?;
        builder.set_sample_rate(rate).map_err(Error::Mp3Setup)?;
        builder.set_output_sample_rate(std::num::NonZeroU32::new(rate)).map_err(Error::Mp3Setup)?;
        builder.set_brate(bitrate).map_err(Error::Mp3Setup)?;
        builder.set_vbr_mode(VbrMode::Off).map_err(Error::Mp3Setup)?;
        builder.set_quality(Quality::Good).map_err(Error::Mp3Setup)?;
        // The tag stands in the first frame and is filled in at the end: no use in a stream, where it would say 0 frames.
        builder.set_to_write_vbr_tag(false).map_err(Error::Mp3Setup)?;
        Ok(Self(builder.build().map_err(Error::Mp3Setup)?))
    }

    pub(super) fn encode(&mut self, pcm: &[i16]) -> Result<Bytes, Error> {
        let mut output = Vec::with_capacity(max_required_buffer_size(pcm.len()));
        self.0.encode_to_vec(MonoPcm(pcm), &mut output).map_err(Error::Mp3)?;
        Ok(output.into())
    }

    pub(super) fn finish(mut self) -> Result<Bytes, Error> {
        let mut output = Vec::with_capacity(FLUSH_BYTES);
        self.0.flush_to_vec::<FlushGap>(&mut output).map_err(Error::Mp3)?;
        Ok(output.into())
    }
}
