//! Finds the packets of the first audio track of a WebM or Matroska stream (RFC 9559) as it grows.
//!
//! Containers are entered by going on behind their header, so that those of unknown size need nothing else.

use super::{Error, Found};
use crate::audio::ebml::{CLUSTER, Element, SEGMENT};

/// First bytes of a file.
pub(super) const MAGIC: &[u8] = &[0x1A, 0x45, 0xDF, 0xA3];
const HEADER: u32 = 0x1A45_DFA3;
const TRACKS: u32 = 0x1654_AE6B;
const TRACK_ENTRY: u32 = 0xAE;
const TRACK_NUMBER: u32 = 0xD7;
const TRACK_TYPE: u32 = 0x83;
const CODEC_ID: u32 = 0x86;
const CODEC_PRIVATE: u32 = 0x63A2;
const AUDIO: u32 = 0xE1;
const CHANNELS: u32 = 0x9F;
const BLOCK_GROUP: u32 = 0xA0;
const BLOCK: u32 = 0xA1;
const SIMPLE_BLOCK: u32 = 0xA3;
/// A track type.
const IS_AUDIO: u64 = 2;
/// Longest header of an element: an identifier and a size.
const HEADER_BYTES: usize = 12;
/// Largest element that is read whole. A block of video is larger at most, and is skipped.
const MAX_ELEMENT: usize = 256 * 1024;
/// Flags of a block that holds several packets.
const LACED: u8 = 0x06;

#[derive(Default)]
struct Track {
    number: Option<u64>,
    is_audio: bool,
    codec: String,
    head: Vec<u8>,
    channels: u16,
}

/// Where a stream is taken apart.
#[derive(Default)]
pub(super) struct Demuxer {
    /// Bytes that are not used yet: less than one element.
    bytes: Vec<u8>,
    /// Bytes of an element to drop.
    skip: u64,
    /// The track that is being described.
    track: Option<Track>,
    /// Number of the track that is decoded.
    chosen: Option<u64>,
}

impl Demuxer {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, more: &[u8], found: &mut impl FnMut(Found<'_>)) -> Result<(), Error> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.extend_from_slice(more);
        let mut at = 0;
        loop {
            let dropped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len() - at);
            self.skip -= dropped as u64;
            at += dropped;
            let Some(element) = Element::parse(&bytes, at) else {
                if bytes.len() - at >= HEADER_BYTES {
                    return Err(Error::Damaged { reason: "an element has no valid header" });
                }
                break;
            };
            match element.id {
                SEGMENT | TRACKS | AUDIO | BLOCK_GROUP => at = element.body,
                TRACK_ENTRY => {
                    self.described(found)?;
                    self.track = Some(Track::default());
                    at = element.body;
                }
                CLUSTER => {
                    self.described(found)?;
                    if self.chosen.is_none() {
                        return Err(Error::Damaged { reason: "it has no audio track" });
                    }
                    at = element.body;
                }
                TRACK_NUMBER | TRACK_TYPE | CODEC_ID | CODEC_PRIVATE | CHANNELS | BLOCK | SIMPLE_BLOCK
                    if element.end - element.body <= MAX_ELEMENT =>
                {
                    let Some(value) = element.bytes(&bytes) else { break };
                    self.read(&element, value, found);
                    at = element.end;
                }
                id => {
                    if id == HEADER {
                        // Another recording, or the same one begun anew.
                        (self.track, self.chosen) = (None, None);
                    }
                    self.skip = (element.end - element.body) as u64;
                    at = element.body;
                }
            }
        }
        bytes.drain(..at);
        self.bytes = bytes;
        Ok(())
    }

    fn read(&mut self, element: &Element, value: &[u8], found: &mut impl FnMut(Found<'_>)) {
        let integer = || value.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        match (element.id, &mut self.track) {
            (BLOCK | SIMPLE_BLOCK, _) => self.block(value, found),
            (TRACK_NUMBER, Some(track)) => track.number = Some(integer()),
            (TRACK_TYPE, Some(track)) => track.is_audio = integer() == IS_AUDIO,
            (CODEC_ID, Some(track)) => {
                track.codec = String::from_utf8_lossy(&value[..value.len().min(64)]).into_owned();
            }
            (CODEC_PRIVATE, Some(track)) => track.head = value.to_vec(),
            (CHANNELS, Some(track)) => track.channels = u16::try_from(integer()).unwrap_or(1),
            _ => {}
        }
    }

    /// All is known of the track that was being described.
    fn described(&mut self, found: &mut impl FnMut(Found<'_>)) -> Result<(), Error> {
        let Some(track) = self.track.take().filter(|track| track.is_audio && self.chosen.is_none()) else {
            return Ok(());
        };
        if track.codec.trim_end_matches('\0') != "A_OPUS" {
            return Err(Error::Codec { codec: track.codec });
        }
        self.chosen = Some(track.number.unwrap_or(1));
        found(Found::Head(&track.head, track.channels.clamp(1, 2)));
        Ok(())
    }

    /// A block: the number of its track, its time, flags, and a packet.
    fn block(&self, value: &[u8], found: &mut impl FnMut(Found<'_>)) {
        let Some(first) = value.first() else { return };
        let length = first.leading_zeros() as usize + 1;
        let (Some(number), Some(flags)) = (value.get(..length.min(8)), value.get(length + 2)) else { return };
        let number = number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let number = number & (u64::MAX >> (64 - 7 * length.min(8)));
        // No recorder of one packet in 20 ms puts several into a block.
        if Some(number) == self.chosen && flags & LACED == 0 {
            found(Found::Packet(&value[length + 3..]));
        }
    }
}
