//! Opus in Ogg (RFC 6716, RFC 7845), paged for streaming.

use bytes::Bytes;
use ogg::{PacketWriteEndInfo, PacketWriter};

use super::Error;
use super::frames::{FRAMES_PER_SECOND, Frames, GRANULE_RATE, head};

/// 100 ms: after the first page, a page costs 28 bytes and is not worth less.
const FRAMES_PER_PAGE: u32 = 5;

pub(super) struct Encoder {
    frames: Frames,
    writer: PacketWriter<'static, Vec<u8>>,
    serial: u32,
    /// Frames written.
    written: u64,
    /// Frames in the page being filled.
    page_frames: u32,
}

impl Encoder {
    pub(super) fn new(rate: u32) -> Result<Self, Error> {
        // Chained streams must differ in this number.
        let serial = uuid::Uuid::now_v7().as_u128() as u32;
        let writer = PacketWriter::new(Vec::new());
        Ok(Self { frames: Frames::new(rate)?, writer, serial, written: 0, page_frames: 0 })
    }

    pub(super) fn encode(&mut self, pcm: &[i16]) -> Result<Bytes, Error> {
        for packet in self.frames.push(pcm)? {
            // The first frame leaves alone, for the sake of the time to first audio.
            let full = self.written == 0 || self.page_frames + 1 == FRAMES_PER_PAGE;
            let end = if full { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.packet(packet, end, None)?;
        }
        Ok(self.take_output())
    }

    /// The last granule position trims off the silence behind the audio.
    pub(super) fn finish(mut self) -> Result<Bytes, Error> {
        let (packets, end) = self.frames.finish()?;
        let last = packets.len().saturating_sub(1);
        for (nth, packet) in packets.into_iter().enumerate() {
            match nth == last {
                true => self.packet(packet, PacketWriteEndInfo::EndStream, Some(end))?,
                false => self.packet(packet, PacketWriteEndInfo::NormalPacket, None)?,
            }
        }
        Ok(self.take_output())
    }

    fn packet(
        &mut self,
        packet: Vec<u8>,
        end: PacketWriteEndInfo,
        granule: Option<u64>,
    ) -> Result<(), Error> {
        if self.written == 0 {
            self.headers()?;
        }
        self.written += 1;
        let granule = granule.unwrap_or_else(|| self.written * GRANULE_RATE / u64::from(FRAMES_PER_SECOND));
        self.writer.write_packet(packet, self.serial, end, granule).map_err(Error::Ogg)?;
        self.page_frames = if end == PacketWriteEndInfo::NormalPacket { self.page_frames + 1 } else { 0 };
        Ok(())
    }

    /// Identification and comment header, each on its own page (RFC 7845, section 5).
    fn headers(&mut self) -> Result<(), Error> {
        let head = head(self.frames.pre_skip(), self.frames.rate());
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
