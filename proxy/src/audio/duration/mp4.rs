//! Length of an MP4 file: its movie header, if that stands at the front (ISO/IEC 14496-12).

use crate::audio::boxes::{be_u32, be_u64, children, descend, times};

/// Seconds stated by `moov/mvhd`, or by `moov/mvex/mehd` for fragmented files. `None` if the file has its `moov` at the end.
pub(super) fn duration(prefix: &[u8]) -> Option<f64> {
    let movie = children(prefix, b"moov").next()?;
    let (scale, ticks) = times(children(movie, b"mvhd").next()?)?;
    let ticks = ticks.or_else(|| fragments(movie))?;
    Some(ticks as f64 / f64::from(scale))
}

fn fragments(movie: &[u8]) -> Option<u64> {
    let header = descend(movie, &[b"mvex", b"mehd"])?;
    let ticks = if header.first()? & 1 == 1 { be_u64(header, 4)? } else { u64::from(be_u32(header, 4)?) };
    Some(ticks).filter(|ticks| *ticks > 0)
}
