//! Length of a WebM or Matroska file: its Duration element, else the time stamps seen so far (RFC 9559).

use super::{Estimate, File, stated};

const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_A966;
const TIMESTAMP_SCALE: u32 = 0x002A_D7B1;
const DURATION: u32 = 0x4489;
const CLUSTER: u32 = 0x1F43_B675;
const TIMESTAMP: u32 = 0xE7;
const SIMPLE_BLOCK: u32 = 0xA3;
const BLOCK_GROUP: u32 = 0xA0;

/// Nanoseconds of one tick unless the file says otherwise.
const DEFAULT_SCALE: u64 = 1_000_000;

pub(super) fn estimate(file: &File) -> Option<Estimate> {
    let mut scale = DEFAULT_SCALE;
    let mut cluster = None;
    let mut first_cluster = 0;
    // The last block's ticks, and where it begins: the bytes before it are the time before it.
    let mut last = None;
    let mut at = 0;
    while let Some(element) = Element::parse(file.prefix, at) {
        // Containers are entered by going on behind their header; everything else is skipped.
        at = match element.id {
            SEGMENT | INFO | CLUSTER | BLOCK_GROUP => element.body,
            _ => element.end,
        };
        match element.id {
            TIMESTAMP_SCALE => scale = element.integer(file.prefix)?.max(1),
            DURATION => return stated(element.float(file.prefix)? * scale as f64 / 1e9),
            CLUSTER if first_cluster == 0 => first_cluster = element.body,
            TIMESTAMP => cluster = element.integer(file.prefix),
            SIMPLE_BLOCK => {
                let offset = element.block_offset(file.prefix).unwrap_or(0);
                last = cluster.map(|ticks| (ticks.saturating_add_signed(offset), element.body));
            }
            _ => {}
        }
    }
    let (ticks, end) = last.filter(|(ticks, _)| *ticks > 0)?;
    let seconds = ticks as f64 * scale as f64 / 1e9;
    file.at_rate(first_cluster, end.saturating_sub(first_cluster) as f64 / seconds)
}

/// An EBML element within the prefix, where only its header is sure to be.
struct Element {
    id: u32,
    body: usize,
    end: usize,
}

impl Element {
    fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        let id_len = bytes.get(at)?.leading_zeros() as usize + 1;
        if id_len > 4 {
            return None;
        }
        let id = big_endian(bytes.get(at..at + id_len)?) as u32;
        let at = at + id_len;
        let size_len = bytes.get(at)?.leading_zeros() as usize + 1;
        if size_len > 8 {
            return None;
        }
        let size = big_endian(bytes.get(at..at + size_len)?) & (u64::MAX >> (64 - 7 * size_len));
        let body = at + size_len;
        // All ones means unknown; only containers may have that, and those are entered.
        let end = body.saturating_add(usize::try_from(size).ok()?);
        Some(Self { id, body, end })
    }

    fn integer(&self, bytes: &[u8]) -> Option<u64> {
        bytes.get(self.body..self.end).filter(|value| value.len() <= 8).map(big_endian)
    }

    fn float(&self, bytes: &[u8]) -> Option<f64> {
        let value = bytes.get(self.body..self.end)?;
        match value.len() {
            4 => Some(f64::from(f32::from_bits(big_endian(value) as u32))),
            8 => Some(f64::from_bits(big_endian(value))),
            _ => None,
        }
    }

    /// A block begins with its track number, then its time relative to the cluster.
    fn block_offset(&self, bytes: &[u8]) -> Option<i64> {
        let track_len = bytes.get(self.body)?.leading_zeros() as usize + 1;
        let offset = bytes.get(self.body + track_len..)?.first_chunk().copied().map(i16::from_be_bytes)?;
        Some(i64::from(offset))
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
