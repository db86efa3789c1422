//! Opus packets of 20 ms, made as samples come; the containers around them differ.

use opus::{Application, Bitrate, Channels, Signal};

use super::Error;

/// Positions count samples at this rate, whatever the input's.
pub(super) const GRANULE_RATE: u64 = 48_000;
/// Frames of 20 ms.
pub(super) const FRAMES_PER_SECOND: u32 = 50;
/// Transparent for mono speech.
const BITS_PER_SECOND: i32 = 32_000;
/// The largest packet libopus makes of one frame.
const MAX_PACKET_BYTES: usize = 1275;

/// An encoder of packets.
pub(super) struct Frames {
    encoder: opus::Encoder,
    rate: u32,
    /// Samples the decoder has to drop, at [`GRANULE_RATE`].
    pre_skip: u64,
    /// Samples that fill no frame yet.
    pending: Vec<i16>,
    /// Frames encoded so far.
    frames: u64,
}

impl Frames {
    pub(super) fn new(rate: u32) -> Result<Self, Error> {
        let mut encoder =
            opus::Encoder::new(rate, Channels::Mono, Application::Audio).map_err(Error::Opus)?;
        encoder.set_bitrate(Bitrate::Bits(BITS_PER_SECOND)).map_err(Error::Opus)?;
        encoder.set_signal(Signal::Voice).map_err(Error::Opus)?;
        let lookahead = encoder.get_lookahead().map_err(Error::Opus)?;
        let pre_skip = u64::try_from(lookahead).unwrap_or(0) * GRANULE_RATE / u64::from(rate);
        Ok(Self { encoder, rate, pre_skip, pending: Vec::new(), frames: 0 })
    }

    /// Samples per second of the input.
    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    pub(super) fn pre_skip(&self) -> u64 {
        self.pre_skip
    }

    /// The packets that are full now.
    pub(super) fn push(&mut self, pcm: &[i16]) -> Result<Vec<Vec<u8>>, Error> {
        self.pending.extend_from_slice(pcm);
        let pending = std::mem::take(&mut self.pending);
        let frames = pending.chunks_exact(self.len());
        self.pending.extend_from_slice(frames.remainder());
        frames.map(|frame| self.packet(frame)).collect()
    }

    /// The last packets, and where the audio ends at [`GRANULE_RATE`], pre-skip included. Silence pushes the last samples
    /// through the encoder's lookahead.
    pub(super) fn finish(&mut self) -> Result<(Vec<Vec<u8>>, u64), Error> {
        let frame = self.len();
        let samples = self.frames * frame as u64 + self.pending.len() as u64;
        let end = samples * GRANULE_RATE / u64::from(self.rate) + self.pre_skip;
        let last = end.div_ceil(GRANULE_RATE / u64::from(FRAMES_PER_SECOND));
        let mut rest = std::mem::take(&mut self.pending);
        rest.resize(usize::try_from(last - self.frames).unwrap_or(0) * frame, 0);
        let packets: Result<_, _> = rest.chunks_exact(frame).map(|frame| self.packet(frame)).collect();
        Ok((packets?, end))
    }

    fn len(&self) -> usize {
        (self.rate / FRAMES_PER_SECOND) as usize
    }

    fn packet(&mut self, frame: &[i16]) -> Result<Vec<u8>, Error> {
        self.frames += 1;
        self.encoder.encode_vec(frame, MAX_PACKET_BYTES).map_err(Error::Opus)
    }
}

/// The identification header (RFC 7845, section 5.1).
pub(super) fn head(pre_skip: u64, rate: u32) -> Vec<u8> {
    let mut head = b"OpusHead\x01\x01".to_vec();
    head.extend((pre_skip as u16).to_le_bytes());
    head.extend(rate.to_le_bytes());
    // Output gain, and the channel mapping of mono and stereo.
    head.extend([0, 0, 0]);
    head
}
