//! Length of a WebM or Matroska file: its Duration element, else the time stamps seen so far (RFC 9559).

use super::{Estimate, File, stated};
use crate::audio::ebml::{CLUSTER, Element, SEGMENT};

const INFO: u32 = 0x1549_A966;
const TIMESTAMP_SCALE: u32 = 0x002A_D7B1;
const DURATION: u32 = 0x4489;
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
                let offset = block_offset(file.prefix, element.body).unwrap_or(0);
                last = cluster.map(|ticks| (ticks.saturating_add_signed(offset), element.body));
            }
            _ => {}
        }
    }
    let (ticks, end) = last.filter(|(ticks, _)| *ticks > 0)?;
    let seconds = ticks as f64 * scale as f64 / 1e9;
    file.at_rate(first_cluster, end.saturating_sub(first_cluster) as f64 / seconds)
}

/// Ticks of a block relative to its cluster, which stand behind its track number.
fn block_offset(bytes: &[u8], block: usize) -> Option<i64> {
    let track_len = bytes.get(block)?.leading_zeros() as usize + 1;
    let offset = bytes.get(block + track_len..)?.first_chunk().copied().map(i16::from_be_bytes)?;
    Some(i64::from(offset))
}
