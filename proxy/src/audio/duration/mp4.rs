//! Length of an MP4 file: its movie header, if that stands at the front (ISO/IEC 14496-12).

use super::{be_u32, be_u64};

/// Seconds stated by `moov/mvhd`, or by `moov/mvex/mehd` for fragmented files. `None` if the file has its `moov` at the end.
pub(super) fn duration(prefix: &[u8]) -> Option<f64> {
    let movie = child(prefix, b"moov")?;
    let header = child(movie, b"mvhd")?;
    let wide = header.first()? & 1 == 1;
    let (scale, ticks) = if wide {
        (be_u32(header, 20)?, be_u64(header, 24)?)
    } else {
        (be_u32(header, 12)?, u64::from(be_u32(header, 16)?))
    };
    let unknown = ticks == 0 || ticks == u64::MAX || (!wide && ticks == u64::from(u32::MAX));
    let ticks = if unknown { fragments(movie)? } else { ticks };
    (scale > 0).then(|| ticks as f64 / f64::from(scale))
}

fn fragments(movie: &[u8]) -> Option<u64> {
    let header = child(child(movie, b"mvex")?, b"mehd")?;
    let ticks = if header.first()? & 1 == 1 { be_u64(header, 4)? } else { u64::from(be_u32(header, 4)?) };
    Some(ticks).filter(|ticks| *ticks > 0)
}

/// The body of the first child box of that kind, as much of it as is there.
fn child<'a>(mut boxes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    loop {
        let (header, len) = match be_u32(boxes, 0)? {
            0 => (8, boxes.len() as u64),
            1 => (16, be_u64(boxes, 8)?),
            len => (8, u64::from(len)),
        };
        let len = usize::try_from(len).ok().filter(|len| *len >= header)?;
        if boxes.get(4..8)? == kind {
            return boxes.get(header..len.min(boxes.len()));
        }
        boxes = boxes.get(len..)?;
    }
}
