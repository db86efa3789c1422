//! Frame headers of MPEG audio (ISO/IEC 11172-3, 13818-3) and of AAC in ADTS (ISO/IEC 13818-7).

/// One frame, as its header describes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame {
    /// Samples per second.
    pub(super) rate: u32,
    /// Number of channels; 0 if the frame leaves it to its content.
    pub(super) channels: u16,
    /// Samples per channel in this frame.
    pub(super) samples: u32,
    /// Bytes of the frame, header included.
    pub(super) bytes: usize,
    /// Bytes from the frame's start to its side information's end: where a Xing header would stand.
    pub(super) side_end: usize,
}

impl Frame {
    /// Reads an MPEG audio frame header, layers I to III.
    pub(super) fn mpeg(at: &[u8]) -> Option<Self> {
        const RATES: [u32; 3] = [44_100, 48_000, 32_000];
        // Kilobits per second. MPEG-1: layers I, II, III; MPEG-2 and 2.5: layer I, then II and III.
        const BITRATES: [[u32; 15]; 5] = [
            [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
            [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
            [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
            [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
            [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        ];
        let &[0xFF, b, c, d, ..] = at else { return None };
        if b & 0xE0 != 0xE0 {
            return None;
        }
        // Version: 0 is 2.5, 2 is 2, 3 is 1. Layer: 3 is I, 2 is II, 1 is III.
        let (version, layer) = ((b >> 3) & 3, (b >> 1) & 3);
        let row = match (version, layer) {
            (1, _) | (_, 0) => return None,
            (3, layer) => usize::from(3 - layer),
            (_, 3) => 3,
            _ => 4,
        };
        let kilobits = *BITRATES[row].get(usize::from(c >> 4)).filter(|kilobits| **kilobits > 0)?;
        let halvings = match version {
            3 => 0,
            2 => 1,
            _ => 2,
        };
        let rate = RATES.get(usize::from((c >> 2) & 3))? >> halvings;
        let padding = u32::from((c >> 1) & 1);
        let samples = match (version, layer) {
            (_, 3) => 384,
            (3, _) | (_, 2) => 1152,
            _ => 576,
        };
        let bytes = match layer {
            3 => (12_000 * kilobits / rate + padding) * 4,
            _ => samples / 8 * 1000 * kilobits / rate + padding,
        };
        let mono = d >> 6 == 3;
        let side_end = 4 + match (version == 3, mono) {
            (true, false) => 32,
            (false, true) => 9,
            _ => 17,
        };
        Some(Self { rate, channels: if mono { 1 } else { 2 }, samples, bytes: bytes as usize, side_end })
    }

    /// Reads an ADTS frame header.
    pub(super) fn adts(at: &[u8]) -> Option<Self> {
        const RATES: [u32; 13] = [
            96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
            7_350,
        ];
        let &[0xFF, b, c, d, e, f, g, ..] = at else { return None };
        if b & 0xF6 != 0xF0 {
            return None;
        }
        let rate = *RATES.get(usize::from((c >> 2) & 15))?;
        let bytes = usize::from(d & 3) << 11 | usize::from(e) << 3 | usize::from(f >> 5);
        let blocks = u32::from(g & 3) + 1;
        let channels = match (c & 1) << 2 | d >> 6 {
            7 => 8,
            channels => u16::from(channels),
        };
        (bytes >= 7).then_some(Self { rate, channels, samples: 1024 * blocks, bytes, side_end: 7 })
    }
}

/// Where the frames begin and what those within the prefix add up to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Walk {
    /// Offset of the first frame.
    pub(super) start: usize,
    /// The first frame.
    pub(super) first: Frame,
    /// Whole or begun frames found one after the other.
    pub(super) frames: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// Their length.
    pub(super) seconds: f64,
}

/// How far to look for the first frame: encoders and cutters leave some junk, never much.
const SEARCH_BYTES: usize = 4096;

/// Walks frames from `from` on. A first frame counts only if a second follows it or the prefix ends before that.
pub(super) fn walk(prefix: &[u8], from: usize, read: fn(&[u8]) -> Option<Frame>) -> Option<Walk> {
    let last = prefix.len().min(from.saturating_add(SEARCH_BYTES));
    for start in from..last {
        if prefix[start] != 0xFF {
            continue;
        }
        let Some(first) = read(&prefix[start..]) else { continue };
        let alike = |at: usize| read(&prefix[at..]).is_some_and(|next| next.rate == first.rate);
        let second = start + first.bytes;
        if second + 7 <= prefix.len() && !alike(second) {
            continue;
        }
        return Some(measure(prefix, start, first, read));
    }
    None
}

fn measure(prefix: &[u8], start: usize, first: Frame, read: fn(&[u8]) -> Option<Frame>) -> Walk {
    let mut walk = Walk { start, first, frames: 0, bytes: 0, seconds: 0.0 };
    let mut at = start;
    while let Some(frame) = prefix.get(at..).and_then(read) {
        walk.frames += 1;
        walk.bytes += frame.bytes;
        walk.seconds += f64::from(frame.samples) / f64::from(frame.rate);
        at += frame.bytes;
    }
    walk
}

/// Length of the ID3v2 tag at the start of `prefix`, 0 without one.
pub(super) fn id3_len(prefix: &[u8]) -> usize {
    match prefix {
        &[b'I', b'D', b'3', _, _, flags, a, b, c, d, ..] => {
            let size = [a, b, c, d].iter().fold(0, |size, byte| size << 7 | usize::from(byte & 0x7F));
            let footer = if flags & 0x10 != 0 { 10 } else { 0 };
            10 + size + footer
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_sizes_follow_the_standard() {
        let mpeg =
            |header: [u8; 4]| Frame::mpeg(&header).map(|frame| (frame.rate, frame.samples, frame.bytes));
        // 128 kbit/s 44.1 kHz MPEG-1 layer III, without and with padding.
        assert_eq!(mpeg([0xFF, 0xFB, 0x90, 0x00]), Some((44_100, 1152, 417)));
        assert_eq!(mpeg([0xFF, 0xFB, 0x92, 0x00]), Some((44_100, 1152, 418)));
        // 64 kbit/s 24 kHz MPEG-2 layer III.
        assert_eq!(mpeg([0xFF, 0xF3, 0x84, 0xC0]), Some((24_000, 576, 192)));
        // 8 kHz MPEG-2.5 layer III at 8 kbit/s.
        assert_eq!(mpeg([0xFF, 0xE3, 0x18, 0xC0]), Some((8_000, 576, 72)));
        // 384 kbit/s 48 kHz MPEG-1 layer I.
        assert_eq!(mpeg([0xFF, 0xFF, 0xC4, 0x00]), Some((48_000, 384, 384)));
        assert_eq!(mpeg([0xFF, 0xFB, 0xF0, 0x00]), None);
        assert_eq!(mpeg([0xFF, 0xFB, 0x9C, 0x00]), None);
        assert_eq!(mpeg([0xFF, 0xEB, 0x90, 0x00]), None);
    }

    #[test]
    fn adts_header_is_read() {
        // AAC-LC, 24 kHz, mono, 100 bytes.
        let frame = Frame::adts(&[0xFF, 0xF1, 0x58, 0x40, 0x0C, 0x9F, 0xFC]).unwrap();
        assert_eq!((frame.rate, frame.channels, frame.samples, frame.bytes), (24_000, 1, 1024, 100));
        assert_eq!(Frame::mpeg(&[0xFF, 0xF1, 0x58, 0x40]), None);
        assert_eq!(Frame::adts(&[0xFF, 0xFB, 0x90, 0, 0, 0, 0]), None);
    }
}
