//! Boxes of MP4 and QuickTime files, found in bytes that may be cut (ISO/IEC 14496-12, section 4.2).

/// The header of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The four characters of its type.
    pub(super) kind: [u8; 4],
    /// Bytes of the header: 8, or 16 with a 64-bit size.
    pub(super) len: u64,
    /// Bytes of the whole box; `None` if it extends to the end of the file.
    pub(super) size: Option<u64>,
}

impl Header {
    /// Reads the header that `bytes` begin with. `None` if it is cut or its size is smaller than itself.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = *bytes.get(4..)?.first_chunk()?;
        let (len, size) = match be_u32(bytes, 0)? {
            0 => return Some(Self { kind, len: 8, size: None }),
            1 => (16, be_u64(bytes, 8)?),
            size => (8, u64::from(size)),
        };
        (size >= len).then_some(Self { kind, len, size: Some(size) })
    }
}

/// The bodies of the boxes in `bytes` that are of that kind, each as much of it as is there.
pub(super) fn children<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            let header = Header::parse(rest)?;
            let here = rest;
            let len = header.size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
            rest = here.get(len..).unwrap_or_default();
            if header.kind == *kind {
                return here.get(header.len as usize..len.min(here.len()));
            }
        }
    })
}

/// The body of the box at the end of `path`, following the first box of each kind.
pub(super) fn descend<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| children(bytes, kind).next())
}

/// The first track whose handler is `soun`: the body of its `trak` box within the body of a `moov` box.
pub(super) fn sound_track(movie: &[u8]) -> Option<&[u8]> {
    children(movie, b"trak").find(|track| {
        descend(track, &[b"mdia", b"hdlr"]).and_then(|handler| handler.get(8..12)) == Some(b"soun")
    })
}

/// Time scale in Hz and duration in its ticks of an `mvhd` or `mdhd` box. The duration is `None` where it is unknown.
pub(super) fn times(header: &[u8]) -> Option<(u32, Option<u64>)> {
    let wide = header.first()? & 1 == 1;
    let (scale, ticks, unknown) = if wide {
        (be_u32(header, 20)?, be_u64(header, 24)?, u64::MAX)
    } else {
        (be_u32(header, 12)?, u64::from(be_u32(header, 16)?), u64::from(u32::MAX))
    };
    (scale > 0).then_some((scale, Some(ticks).filter(|ticks| *ticks != 0 && *ticks != unknown)))
}

pub(super) fn be_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

pub(super) fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

pub(super) fn be_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_be_bytes)
}
