//! What symphonia does not read of MP4 files: the edit list, which trims the encoder's priming, and a missing first box.

use std::io::{Read, Seek};

use super::source::Source;
use crate::audio::boxes::{self, Header, be_u32, be_u64};
use crate::audio::convert::Error;

/// A `ftyp` box of QuickTime. Files from before it existed are read as if they ended with it, so that no offset changes.
pub(super) const FILE_TYPE: &[u8] = b"\0\0\0\x14ftypqt  \0\0\0\0qt  ";

/// Movie boxes are not longer: a day of audio has one of some 20 MB.
const MAX_MOVIE_BYTES: u64 = 64 << 20;
/// Boxes before the movie box. Files that are made in fragments have it in front of those.
const MAX_BOXES: usize = 1000;

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Movie {
    pub(super) has_file_type: bool,
    /// The part of the first sound track that is to be played.
    pub(super) edit: Option<Edit>,
    /// The four-character code of the first sound track's codec.
    pub(super) codec: Option<[u8; 4]>,
}

/// The one edit of a track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Edit {
    /// Seconds to drop at the start.
    pub(super) start: f64,
    /// Seconds to keep behind those; `None` for all.
    pub(super) seconds: Option<f64>,
}

impl Movie {
    /// Looks through the boxes at the top of the file, and leaves the source at its start.
    pub(super) fn find<R: Read + Seek>(source: &mut Source<R>) -> Result<Self, Error> {
        let mut movie = Self::default();
        let mut at = 0;
        for _ in 0..MAX_BOXES {
            source.go_to(at)?;
            let mut head = [0; 16];
            let filled = source.fill(&mut head)?;
            let Some(header) = Header::parse(&head[..filled]) else { break };
            movie.has_file_type |= header.kind == *b"ftyp";
            let size = header.size.unwrap_or(source.len() - at);
            if header.kind == *b"moov" {
                source.go_to(at + header.len)?;
                let body = source.take_bytes(size.saturating_sub(header.len).min(MAX_MOVIE_BYTES))?;
                movie.read(&body);
                break;
            }
            at = match at.checked_add(size) {
                Some(next) if next < source.len() => next,
                _ => break,
            };
        }
        source.go_to(0)?;
        Ok(movie)
    }

    fn read(&mut self, body: &[u8]) {
        let Some(track) = boxes::sound_track(body) else { return };
        self.edit = edit(body, track);
        let table = boxes::descend(track, &[b"mdia", b"minf", b"stbl", b"stsd"]);
        self.codec = table.and_then(|table| table.get(12..)?.first_chunk().copied());
    }
}

/// The edit list of a track, if it has one part (ISO/IEC 14496-12, section 8.6.6). Silence in front of it is left out.
fn edit(movie: &[u8], track: &[u8]) -> Option<Edit> {
    let (movie_scale, _) = boxes::times(boxes::descend(movie, &[b"mvhd"])?)?;
    let (scale, _) = boxes::times(boxes::descend(track, &[b"mdia", b"mdhd"])?)?;
    let list = boxes::descend(track, &[b"edts", b"elst"])?;
    let wide = list.first()? & 1 == 1;
    let entry = if wide { 20 } else { 12 };
    let mut parts = list.get(8..)?.chunks_exact(entry).take(be_u32(list, 4)? as usize).filter_map(|entry| {
        let (duration, start) = if wide {
            (be_u64(entry, 0)?, be_u64(entry, 8)? as i64)
        } else {
            (u64::from(be_u32(entry, 0)?), i64::from(be_u32(entry, 4)? as i32))
        };
        Some((duration, u64::try_from(start).ok()?))
    });
    let (duration, start) = parts.next()?;
    if parts.next().is_some() {
        return None;
    }
    // The fragments are not part of the edit's duration.
    let fragmented = boxes::descend(movie, &[b"mvex"]).is_some();
    let seconds = (duration > 0 && !fragmented).then(|| duration as f64 / f64::from(movie_scale));
    Some(Edit { start: start as f64 / f64::from(scale), seconds })
}
