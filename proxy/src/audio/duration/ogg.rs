//! Length of an Ogg stream: the granule position of its last page counts samples (RFC 3533, RFC 7845).

use super::{Estimate, File};

/// How granule positions become seconds.
struct Clock {
    rate: f64,
    /// Samples before the audio begins.
    skip: u64,
}

pub(super) fn estimate(file: &File) -> Option<Estimate> {
    let mut at = 0;
    let mut clock = None;
    let mut last = None;
    while let Some(page) = Page::parse(&file.prefix[at..]) {
        clock = clock.or_else(|| Clock::parse(page.body));
        at += page.len;
        if page.granule != u64::MAX && at <= file.prefix.len() {
            last = Some((page.granule, at));
        }
        if at >= file.prefix.len() {
            break;
        }
    }
    let (clock, (granule, seen)) = (clock?, last?);
    let seconds = granule.saturating_sub(clock.skip) as f64 / clock.rate;
    file.extrapolate(0, seen, seconds)
}

struct Page<'a> {
    granule: u64,
    /// As much of the body as is there.
    body: &'a [u8],
    /// Header and body.
    len: usize,
}

impl<'a> Page<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(b"OggS\0")?;
        let granule = u64::from_le_bytes(*rest.get(1..)?.first_chunk()?);
        let segments = usize::from(*bytes.get(26)?);
        let header = 27 + segments;
        let len = header + bytes.get(27..header)?.iter().map(|size| usize::from(*size)).sum::<usize>();
        let body = &bytes[header..len.min(bytes.len())];
        Some(Self { granule, body, len })
    }
}

impl Clock {
    /// Reads the identification header of Opus, Vorbis or FLAC.
    fn parse(body: &[u8]) -> Option<Self> {
        if let Some(head) = body.strip_prefix(b"OpusHead") {
            let skip = u16::from_le_bytes(*head.get(2..)?.first_chunk()?);
            return Some(Self { rate: 48_000.0, skip: u64::from(skip) });
        }
        let rate = if let Some(head) = body.strip_prefix(b"\x01vorbis") {
            u32::from_le_bytes(*head.get(5..)?.first_chunk()?)
        } else {
            // Mapping header of 9 bytes, then `fLaC`, a block header and STREAMINFO.
            let info = body.strip_prefix(b"\x7FFLAC")?.get(8 + 4 + 10..)?;
            u32::from_be_bytes(*info.first_chunk()?) >> 12
        };
        (rate > 0).then(|| Self { rate: f64::from(rate), skip: 0 })
    }
}
