//! Opus in Ogg (RFC 6716, RFC 7845), paged for streaming.

use bytes::Bytes;
use ogg::{PacketWriteEndInfo, PacketWriter};
use opus::{Application, Bitrate, Channels, Signal};

use super::Error;

/// Granule positions count samples at this rate, whatever the input's.
const GRANULE_RATE: u64 = 48_000;
/// Frames of 20 ms.
const FRAMES_PER_SECOND: u32 = 50;
/// 100 ms: after the first page, a page costs 28 bytes and is not worth less.
const FRAMES_PER_PAGE: u32 = 5;
/// Transparent for mono speech.
const BITS_PER_SECOND: i32 = 32_000;
/// The largest packet libopus makes of one frame.
const MAX_PACKET_BYTES: usize = 1275;

pub(super) struct Encoder {
    encoder: opus::Encoder,
    writer: PacketWriter<'static, Vec<u8>>,
    rate: u32,
    /// Samples the decoder has to drop, at the granule rate.
    pre_skip: u64,
    serial: u32,
    /// Samples that fill no frame yet.
    pending: Vec<i16>,
    /// Frames encoded so far.
    frames: u64,
    /// Frames in the page being filled.
    page_frames: u32,
}

impl Encoder {
    pub(super) fn new(rate: u32) -> Result<Self, Error> {
        let mut encoder =
            opus::Encoder::new(rate, Channels::Mono, Application::Audio).map_err(Error::Opus)?;
        encoder.set_bitrate(Bitrate::Bits(BITS_PER_SECOND)).map_err(Error::Opus)?;
        encoder.set_signal(Signal::Voice).map_err(Error::Opus)?;
        let lookahead = encoder.get_lookahead().map_err(Error::Opus)?;
        let pre_skip = u64::try_from(lookahead).unwrap_or(0) * GRANULE_RATE / u64::from(rate);
        // Chained streams must differ in this number.
        let serial = uuid::Uuid::now_v7().as_u128() as u32;
        let writer = PacketWriter::new(Vec::new());
        Ok(Self { encoder, writer, rate, pre_skip, serial, pending: Vec::new(), frames: 0, page_frames: 0 })
    }

    pub(super) fn encode(&mut self, pcm: &[i16]) -> Result<Bytes, Error> {
        self.pending.extend_from_slice(pcm);
        let frame = self.frame_len();
        let pending = std::mem::take(&mut self.pending);
        let frames = pending.chunks_exact(frame);
        self.pending.extend_from_slice(frames.remainder());
        for frame in frames {
            // The first frame leaves alone, for the sake of the time to first audio.
            let full = self.frames == 0 || self.page_frames + 1 == FRAMES_PER_PAGE;
            let end = if full { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            let granule = (self.frames + 1) * GRANULE_RATE / u64::from(FRAMES_PER_SECOND);
            self.packet(frame, end, granule)?;
        }
        Ok(self.take_output())
    }

    /// Silence pushes the last samples through the encoder's lookahead; the last granule position trims it off again.
    pub(super) fn finish(mut self) -> Result<Bytes, Error> {
        let frame = self.frame_len();
        let samples = self.frames * frame as u64 + self.pending.len() as u64;
        let end = samples * GRANULE_RATE / u64::from(self.rate) + self.pre_skip;
        let frame_granules = GRANULE_RATE / u64::from(FRAMES_PER_SECOND);
        let last = end.div_ceil(frame_granules);
        let mut rest = std::mem::take(&mut self.pending);
        let missing = usize::try_from(last - self.frames).unwrap_or(0);
        rest.resize(missing * frame, 0);
        for frame in rest.chunks_exact(frame) {
            let granule = (self.frames + 1) * frame_granules;
            if self.frames + 1 == last {
                self.packet(frame, PacketWriteEndInfo::EndStream, end)?;
            } else {
                self.packet(frame, PacketWriteEndInfo::NormalPacket, granule)?;
            }
        }
        Ok(self.take_output())
    }

    fn frame_len(&self) -> usize {
        (self.rate / FRAMES_PER_SECOND) as usize
    }

    fn packet(&mut self, frame: &[i16], end: PacketWriteEndInfo, granule: u64) -> Result<(), Error> {
        if self.frames == 0 {
            self.headers()?;
        }
        let packet = self.encoder.encode_vec(frame, MAX_PACKET_BYTES).map_err(Error::Opus)?;
        self.writer.write_packet(packet, self.serial, end, granule).map_err(Error::Ogg)?;
        self.frames += 1;
        self.page_frames = if end == PacketWriteEndInfo::NormalPacket { self.page_frames + 1 } else { 0 };
        Ok(())
    }

    /// Identification and comment header, each on its own page (RFC 7845, section 5).
    fn headers(&mut self) -> Result<(), Error> {
        let mut head = b"OpusHead\x01\x01".to_vec();
        head.extend((self.pre_skip as u16).to_le_bytes());
        head.extend(self.rate.to_le_bytes());
        // Output gain, and the channel mapping of mono and stereo.
        head.extend([0, 0, 0]);
        let vendor = b"speechstack";
        let mut tags = b"OpusTags".to_vec();
        tags.extend((vendor.len() as u32).to_le_bytes());
        tags.extend(vendor);
        tags.extend([0; 4]);
        for header in [head, tags] {
            self.writer
                .write_packet(header, self.serial, PacketWriteEndInfo::EndPage, 0)
                .map_err(Error::Ogg)?;
        }
        Ok(())
    }

    fn take_output(&mut self) -> Bytes {
        std::mem::take(self.writer.inner_mut()).into()
    }
}
