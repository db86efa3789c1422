//! Finds the packets of an Ogg stream (RFC 3533) as it grows.

use super::{Error, Found};

/// First bytes of each page.
pub(super) const MAGIC: &[u8] = b"OggS";
/// Bytes of a page's header before its table of segments.
const HEADER_BYTES: usize = 27;
/// Flag of a page that begins with the rest of a packet, and of the first page of a stream.
const CONTINUED: u8 = 0x01;
const FIRST: u8 = 0x02;
/// A segment of this length is followed by more of its packet.
const FULL: u8 = 255;
/// Largest packet: comments with a picture.
const MAX_PACKET: usize = 1024 * 1024;

/// Where a stream is taken apart.
#[derive(Default)]
pub(super) struct Demuxer {
    /// Bytes that are not used yet: less than one page.
    bytes: Vec<u8>,
    /// A packet that goes on in the next page.
    packet: Vec<u8>,
    /// Packets of the stream so far: the first two are headers.
    packets: u64,
}

impl Demuxer {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, more: &[u8], found: &mut impl FnMut(Found<'_>)) -> Result<(), Error> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.extend_from_slice(more);
        let mut at = 0;
        while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
            if !header.starts_with(MAGIC) {
                return Err(Error::Damaged { reason: "a page does not follow a page" });
            }
            let (flags, count) = (header[5], usize::from(header[26]));
            let table = at + HEADER_BYTES;
            let Some(lengths) = bytes.get(table..table + count) else { break };
            let mut body = table + count;
            let end = body + lengths.iter().map(|length| usize::from(*length)).sum::<usize>();
            if bytes.len() < end {
                break;
            }
            if flags & FIRST != 0 {
                self.packets = 0;
            }
            if flags & CONTINUED == 0 {
                self.packet.clear();
            }
            for length in lengths.iter().copied() {
                let next = body + usize::from(length);
                self.packet.extend_from_slice(&bytes[body..next]);
                body = next;
                if self.packet.len() > MAX_PACKET {
                    return Err(Error::Damaged { reason: "a packet does not end" });
                }
                if length < FULL {
                    self.packet(found)?;
                }
            }
            at = end;
        }
        bytes.drain(..at);
        self.bytes = bytes;
        Ok(())
    }

    fn packet(&mut self, found: &mut impl FnMut(Found<'_>)) -> Result<(), Error> {
        match self.packets {
            0 if !self.packet.starts_with(b"OpusHead") => {
                let name: String = self.packet.iter().skip(1).take(6).map(|byte| char::from(*byte)).collect();
                let is_name = name.chars().all(|letter| letter.is_ascii_alphanumeric()) && !name.is_empty();
                let codec = if is_name { name } else { "another codec".to_owned() };
                return Err(Error::Codec { codec });
            }
            0 => found(Found::Head(&self.packet, 1)),
            1 => {}
            _ => found(Found::Packet(&self.packet)),
        }
        self.packets += 1;
        self.packet.clear();
        Ok(())
    }
}
