//! What a file that is there whole can say of itself and a stream cannot: how long it is, and where to seek to.

use bytes::{BufMut, Bytes, BytesMut};

use super::OutputFormat;
use crate::audio::mpeg::{Frame, walk};
use crate::audio::wav;

/// Entries of the table of a Xing header: a place for each percent of the time.
const PLACES: usize = 100;
/// Bytes of a Xing header: its name, its flags, frames, bytes, and the table.
const XING_BYTES: usize = 16 + PLACES;
/// It has frames, bytes and the table.
const XING_FLAGS: u32 = 0b111;

impl OutputFormat {
    /// The file as it leaves when it need not be streamed: WAV with its sizes, MP3 with a Xing header. Others say it already, or
    /// by the place of their last page.
    #[must_use]
    pub fn whole(self, file: Bytes) -> Bytes {
        match self {
            Self::Wav => wav::patch(&file, file.len() as u64).unwrap_or(file),
            Self::Mp3 => with_xing(&file).unwrap_or(file),
            Self::Pcm | Self::Flac | Self::Opus | Self::Webm | Self::Aac => file,
        }
    }
}

/// The file behind a frame with a Xing header, which is named `Info` where the bit rate is constant; `None` when it has no frames,
/// or none that it fits in.
fn with_xing(file: &[u8]) -> Option<Bytes> {
    /// Set where a frame has a byte more, to keep the bit rate.
    const PADDING: u8 = 0b10;
    let walk = walk(file, 0, Frame::mpeg)?;
    let mut header: [u8; 4] = file.get(walk.start..walk.start + 4)?.try_into().ok()?;
    header[2] &= !PADDING;
    let frame = Frame::mpeg(&header)?;
    if frame.bytes < frame.side_end + XING_BYTES {
        return None;
    }
    let len = frame.bytes + file.len();
    let mut out = BytesMut::with_capacity(len);
    out.put_slice(&header);
    out.resize(frame.side_end, 0);
    out.put_slice(b"Info");
    out.put_u32(XING_FLAGS);
    out.put_u32(u32::try_from(walk.frames).ok()?);
    out.put_u32(u32::try_from(len).ok()?);
    // In 256ths of the file: of a constant bit rate the same share as of the time.
    (0..PLACES).for_each(|percent| out.put_u8((percent * 256 / PLACES) as u8));
    out.resize(frame.bytes, 0);
    out.put_slice(file);
    Some(out.freeze())
}
