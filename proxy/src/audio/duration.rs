//! Estimates how long an upload plays from its first bytes: seconds of audio are what an engine's work costs.

mod matroska;
mod mp4;
mod ogg;

#[cfg(test)]
mod tests;

use super::aiff::Common;
use super::boxes::{be_u32, be_u64};
use super::format::Container;
use super::mpeg::{self, Frame, Walk};
use super::wav;

/// How long an upload plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Finite, not negative.
    pub seconds: f64,
    /// The file states it, or all of it was seen; else it is inferred from a rate. A file may still lie.
    pub exact: bool,
}

/// Bytes of one second of anything not recognised: 128 kbit/s.
const UNKNOWN_BYTES_PER_SECOND: f64 = 16_000.0;

/// Estimates the length of a file of `total_len` bytes that begins with `prefix`. 64 KiB of prefix are enough for most files.
///
/// A stated duration counts if the bytes of the file can hold it. A longer one is replaced by an estimate from `total_len`; without
/// `total_len` it is kept and marked as not exact. `None` if the file states no length and `total_len` is unknown too.
#[must_use]
pub fn estimate(prefix: &[u8], total_len: Option<u64>) -> Option<Estimate> {
    let file = File { prefix, total_len };
    let Some(container) = Container::sniff(prefix) else {
        return file.at_rate(0, UNKNOWN_BYTES_PER_SECOND);
    };
    let found = match container {
        Container::Wav => file.wav(),
        Container::Aiff => file.aiff(),
        Container::Flac => file.flac(),
        Container::Mp3 => file.mp3(),
        Container::Adts => file.walked(mpeg::walk(prefix, mpeg::id3_len(prefix), Frame::adts)),
        Container::OggOpus | Container::OggVorbis | Container::OggFlac => ogg::estimate(&file),
        Container::Mp4 | Container::M4a | Container::ThreeGp => mp4::duration(prefix).and_then(stated),
        Container::WebM | Container::Matroska => matroska::estimate(&file),
        Container::Amr => file.amr(),
        Container::Caf => file.caf(),
        Container::Wave64 | Container::Ogg | Container::Asf => None,
    };
    let by_bytes = || file.at_rate(0, container.typical_bytes_per_second());
    let Some(found) = found else { return by_bytes() };
    if found.seconds <= file.seen() as f64 / container.least_bytes_per_second() {
        return Some(found);
    }
    by_bytes().or(Some(Estimate { exact: false, ..found }))
}

/// What is known of a file.
struct File<'a> {
    prefix: &'a [u8],
    total_len: Option<u64>,
}

impl File<'_> {
    /// The bytes that the file is known to have.
    fn seen(&self) -> u64 {
        self.total_len.unwrap_or(self.prefix.len() as u64)
    }

    /// The prefix is the whole file.
    fn complete(&self) -> bool {
        self.total_len == Some(self.prefix.len() as u64)
    }

    /// The bytes after `offset` at a constant rate.
    fn at_rate(&self, offset: usize, bytes_per_second: f64) -> Option<Estimate> {
        let bytes = self.total_len?.saturating_sub(offset as u64);
        estimated(bytes as f64 / bytes_per_second)
    }

    /// `seconds` for `bytes` after `offset`, continued to the end of the file.
    fn extrapolate(&self, offset: usize, bytes: usize, seconds: f64) -> Option<Estimate> {
        if self.complete() {
            return stated(seconds);
        }
        if bytes == 0 || seconds <= 0.0 {
            return None;
        }
        self.at_rate(offset, bytes as f64 / seconds)
    }

    fn wav(&self) -> Option<Estimate> {
        let wav = wav::parse(self.prefix)?;
        if let (wav::Coding::Other(_), Some(frames)) = (wav.coding, wav.frames) {
            return stated(f64::from(frames) / f64::from(wav.rate));
        }
        let rest = self.seen().saturating_sub(wav.data_offset as u64);
        match (wav.data_len, self.total_len) {
            (Some(declared), None) if declared > rest => estimated(declared as f64 / wav.byte_rate()),
            (None, None) => None,
            (declared, _) => stated(declared.unwrap_or(rest).min(rest) as f64 / wav.byte_rate()),
        }
    }

    /// The common chunk counts frames.
    fn aiff(&self) -> Option<Estimate> {
        let common = Common::find(self.prefix)?;
        let seconds = f64::from(common.frames) / common.rate;
        match common.byte_rate() {
            Some(rate) if seconds * rate > self.seen() as f64 => {
                self.at_rate(0, rate).or_else(|| estimated(seconds))
            }
            _ => stated(seconds),
        }
    }

    /// STREAMINFO comes first (RFC 9639, section 8.2).
    fn flac(&self) -> Option<Estimate> {
        let packed = be_u64(self.prefix.get(mpeg::id3_len(self.prefix)..)?, 18)?;
        let (rate, samples) = (packed >> 44, packed & 0xF_FFFF_FFFF);
        if samples == 0 {
            return None;
        }
        stated(samples as f64 / rate as f64)
    }

    fn mp3(&self) -> Option<Estimate> {
        let tag = mpeg::id3_len(self.prefix);
        let Some(walk) = mpeg::walk(self.prefix, tag, Frame::mpeg) else {
            // The tag, a cover picture most likely, is longer than the prefix.
            return self.at_rate(tag, UNKNOWN_BYTES_PER_SECOND);
        };
        let frame = walk.first;
        if let Some(frames) = vbr_frames(&self.prefix[walk.start..], frame.side_end) {
            return stated(f64::from(frames) * f64::from(frame.samples) / f64::from(frame.rate));
        }
        self.walked(Some(walk))
    }

    fn walked(&self, walk: Option<Walk>) -> Option<Estimate> {
        let walk = walk?;
        self.extrapolate(walk.start, walk.bytes, walk.seconds)
    }

    /// Frames of 20 ms, all as large as the first.
    fn amr(&self) -> Option<Estimate> {
        const NARROW: [u8; 16] = [13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1];
        const WIDE: [u8; 16] = [18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1];
        // A first frame without speech is not what the others are like.
        let (start, sizes, least) =
            if self.prefix.starts_with(b"#!AMR-WB\n") { (9, WIDE, 18) } else { (6, NARROW, 13) };
        let first = usize::from(self.prefix.get(start)? >> 3) & 15;
        self.at_rate(start, f64::from(sizes[first].max(least)) * 50.0)
    }

    /// The description chunk comes first: rate, then how many bytes make how many samples.
    fn caf(&self) -> Option<Estimate> {
        let rate = f64::from_bits(be_u64(self.prefix, 20)?);
        let (bytes, frames) = (be_u32(self.prefix, 36)?, be_u32(self.prefix, 40)?);
        if bytes == 0 {
            return None;
        }
        self.at_rate(0, f64::from(bytes) * rate / f64::from(frames))
    }
}

/// The frame count of a Xing, Info or VBRI header in the first frame.
fn vbr_frames(frame: &[u8], side_end: usize) -> Option<u32> {
    const HAS_FRAMES: u32 = 1;
    const VBRI_OFFSET: usize = 36;
    if matches!(frame.get(side_end..side_end + 4), Some(b"Xing" | b"Info")) {
        let flags = be_u32(frame, side_end + 4)?;
        return be_u32(frame, side_end + 8).filter(|frames| flags & HAS_FRAMES != 0 && *frames > 0);
    }
    if frame.get(VBRI_OFFSET..VBRI_OFFSET + 4) == Some(b"VBRI") {
        return be_u32(frame, VBRI_OFFSET + 14).filter(|frames| *frames > 0);
    }
    None
}

fn stated(seconds: f64) -> Option<Estimate> {
    Some(Estimate { seconds, exact: true }).filter(Estimate::is_sane)
}

fn estimated(seconds: f64) -> Option<Estimate> {
    Some(Estimate { seconds, exact: false }).filter(Estimate::is_sane)
}

impl Estimate {
    fn is_sane(&self) -> bool {
        self.seconds.is_finite() && self.seconds >= 0.0
    }
}
