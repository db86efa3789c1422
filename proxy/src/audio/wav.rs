//! Reads, writes and corrects WAV headers (RIFF/WAVE, RF64, BW64).

use bytes::{BufMut, Bytes, BytesMut};

/// How the samples of a WAV file are coded: its `wFormatTag`, looked up in the sub-format for `WAVE_EXTENSIBLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Integers; unsigned for 8 bits, else signed little-endian.
    Pcm,
    /// IEEE floating point.
    Float,
    /// G.711 A-law.
    ALaw,
    /// G.711 µ-law.
    MuLaw,
    /// Anything else, by its tag.
    Other(u16),
}

/// What the header of a WAV file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wav {
    /// How samples are coded.
    pub coding: Coding,
    /// Number of interleaved channels.
    pub channels: u16,
    /// Frames per second: samples of each channel, in Hz.
    pub rate: u32,
    /// Bits per sample.
    pub bits: u16,
    /// Bytes of one block: for PCM a frame, which is one sample of each channel.
    pub block: u16,
    /// Bytes per second on average, as declared.
    pub bytes_per_second: u32,
    /// Frames by the `fact` chunk, which compressed files have.
    pub frames: Option<u32>,
    /// Offset of the first sample.
    pub data_offset: usize,
    /// Bytes of samples; `None` if the header leaves it open, as streams do.
    pub data_len: Option<u64>,
}

/// What the first bytes of a file show of a WAV header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The whole header, up to the first sample.
    Found(Wav),
    /// A header that goes on behind these bytes.
    Incomplete,
    /// Not a WAV file, or its samples come before their format.
    NotWav,
}

impl Wav {
    /// Bytes of a second: of the samples' size for PCM and G.711, else as declared.
    #[must_use]
    pub fn byte_rate(&self) -> f64 {
        match self.coding {
            Coding::Pcm | Coding::Float | Coding::ALaw | Coding::MuLaw => {
                f64::from(self.rate) * f64::from(self.channels) * f64::from(self.bits.div_ceil(8))
            }
            Coding::Other(_) => f64::from(self.bytes_per_second),
        }
    }

    /// The samples of `file` that are there, without what follows the declared length.
    #[must_use]
    pub fn data<'file>(&self, file: &'file [u8]) -> &'file [u8] {
        let rest = file.get(self.data_offset..).unwrap_or_default();
        let len = self.data_len.and_then(|len| usize::try_from(len).ok()).unwrap_or(usize::MAX);
        &rest[..len.min(rest.len())]
    }
}

/// A whole file of samples of one channel.
#[must_use]
pub fn file(rate: u32, samples: &[i16]) -> Bytes {
    let mut file = BytesMut::with_capacity(HEADER_LEN + samples.len() * 2);
    file.extend_from_slice(&header(rate, 1, Some(samples.len() as u64 * 2)));
    for sample in samples {
        file.put_i16_le(*sample);
    }
    file.freeze()
}

/// Length of the headers written here.
pub const HEADER_LEN: usize = 44;

/// A header for `data_len` bytes of interleaved 16-bit samples. Without a length, or with one beyond 4 GiB, both sizes are
/// `0xFFFF_FFFF`, which readers take to last until the stream ends.
#[must_use]
pub fn header(rate: u32, channels: u16, data_len: Option<u64>) -> [u8; HEADER_LEN] {
    let sizes = data_len.and_then(|len| Some((u32::try_from(len + 36).ok()?, u32::try_from(len).ok()?)));
    let (riff_len, data_len) = sizes.unwrap_or((u32::MAX, u32::MAX));
    let block = channels.saturating_mul(2);
    let mut header = *b"RIFF....WAVEfmt \x10\0\0\0\x01\0..........\0\0\x10\0data....";
    header[4..8].copy_from_slice(&riff_len.to_le_bytes());
    header[22..24].copy_from_slice(&channels.to_le_bytes());
    header[24..28].copy_from_slice(&rate.to_le_bytes());
    header[28..32].copy_from_slice(&rate.saturating_mul(u32::from(block)).to_le_bytes());
    header[32..34].copy_from_slice(&block.to_le_bytes());
    header[40..44].copy_from_slice(&data_len.to_le_bytes());
    header
}

/// `prefix`, the first bytes of a file of `total_len` bytes with its whole header, with sizes that fit that length.
///
/// `None` if they fit already, cannot be expressed in 32 bits, or stand elsewhere: RF64 and BW64 keep them in a `ds64` chunk.
#[must_use]
pub fn patch(prefix: &[u8], total_len: u64) -> Option<Bytes> {
    let wav = parse(prefix).filter(|_| prefix.starts_with(b"RIFF"))?;
    let rest = total_len.checked_sub(wav.data_offset as u64)?;
    let riff_len = total_len - 8;
    let riff_fits = u32_at(prefix, 4).is_some_and(|len| len > 0 && u64::from(len) <= riff_len);
    let data_len = match wav.data_len {
        Some(len) if len <= rest && riff_fits => return None,
        Some(len) if len <= rest => len,
        _ => rest - rest % u64::from(wav.block.max(1)),
    };
    let mut patched = BytesMut::from(prefix);
    patched[4..8].copy_from_slice(&u32::try_from(riff_len).ok()?.to_le_bytes());
    patched[wav.data_offset - 4..wav.data_offset]
        .copy_from_slice(&u32::try_from(data_len).ok()?.to_le_bytes());
    Some(patched.freeze())
}

/// The header at the start of `prefix`, if its sizes must be corrected: they are left open, as streaming writers do, or are
/// found not to fit a file of `total_len` bytes, where that is known.
#[must_use]
pub fn open_header(prefix: &[u8], total_len: Option<u64>) -> Option<Bytes> {
    let wav = parse(prefix).filter(|_| prefix.starts_with(b"RIFF"))?;
    let header = prefix.get(..wav.data_offset)?;
    let open = wav.data_len.is_none() || total_len.is_some_and(|len| patch(header, len).is_some());
    open.then(|| Bytes::copy_from_slice(header))
}

/// Reads the header at the start of `prefix`, as [`search`] does.
#[must_use]
pub fn parse(prefix: &[u8]) -> Option<Wav> {
    match search(prefix) {
        Search::Found(wav) => Some(wav),
        Search::Incomplete | Search::NotWav => None,
    }
}

/// Looks for the header at the start of `prefix`, up to the begin of the data chunk; chunks in any order, unknown ones skipped.
#[must_use]
pub fn search(prefix: &[u8]) -> Search {
    let magic = &prefix[..prefix.len().min(4)];
    let form = prefix.get(8..prefix.len().min(12)).unwrap_or_default();
    let known = [b"RIFF", b"RF64", b"BW64"].iter().any(|known| known.starts_with(magic));
    if !known || !b"WAVE".starts_with(form) {
        return Search::NotWav;
    }
    chunks(prefix).unwrap_or(Search::Incomplete)
}

/// Walks the chunks. `None` if the bytes end before the samples do begin.
fn chunks(prefix: &[u8]) -> Option<Search> {
    let riff_len = u32_at(prefix, 4)?;
    let (mut format, mut frames, mut long_len) = (None, None, None);
    let mut at = 12;
    loop {
        let (id, len) = (prefix.get(at..at + 4)?, u32_at(prefix, at + 4)?);
        let body = at + 8;
        let end = body.checked_add(usize::try_from(len).ok()?)?;
        match id {
            b"ds64" => long_len = Some(u64_at(prefix, body + 8)?),
            b"fmt " => format = Some(prefix.get(body..end)?),
            b"fact" => frames = Some(u32_at(prefix, body)?).filter(|frames| !matches!(frames, 0 | &u32::MAX)),
            b"data" => {
                let data_len = declared(len, long_len, riff_len, body);
                let read = format.and_then(|format| read_format(format, frames, body, data_len));
                return Some(read.map_or(Search::NotWav, Search::Found));
            }
            _ => {}
        }
        // Chunks are padded to even lengths.
        at = end.checked_add((len & 1) as usize)?;
    }
}

/// The data length that is meant: streams write 0, a very large number, or the length of the header.
fn declared(len: u32, long_len: Option<u64>, riff_len: u32, data_offset: usize) -> Option<u64> {
    let header_only = riff_len as usize + 8 <= data_offset;
    match (len, long_len) {
        (u32::MAX, Some(long)) => Some(long).filter(|long| !matches!(long, 0 | &u64::MAX)),
        (0 | 0x7FFF_0000..=0x7FFF_FFFF | 0xFFFF_0000..=u32::MAX, _) => None,
        (len, _) if header_only && (len as usize == data_offset || len as usize + 8 == data_offset) => None,
        (len, _) => Some(u64::from(len)),
    }
}

fn read_format(format: &[u8], frames: Option<u32>, data_offset: usize, data_len: Option<u64>) -> Option<Wav> {
    const EXTENSIBLE: u16 = 0xFFFE;
    let tag = match u16_at(format, 0)? {
        EXTENSIBLE => u16_at(format, 24)?,
        tag => tag,
    };
    let coding = match tag {
        1 => Coding::Pcm,
        3 => Coding::Float,
        6 => Coding::ALaw,
        7 => Coding::MuLaw,
        other => Coding::Other(other),
    };
    Some(Wav {
        coding,
        channels: u16_at(format, 2)?,
        rate: u32_at(format, 4)?,
        bits: u16_at(format, 14)?,
        block: u16_at(format, 12)?,
        bytes_per_second: u32_at(format, 8)?,
        frames,
        data_offset,
        data_len,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn written_headers_are_read_back() {
        let wav = parse(&header(24_000, 1, Some(4800))).unwrap();
        assert_eq!((wav.coding, wav.channels, wav.rate, wav.bits), (Coding::Pcm, 1, 24_000, 16));
        assert_eq!((wav.bytes_per_second, wav.data_offset, wav.data_len), (48_000, 44, Some(4800)));
        let wav = parse(&header(16_000, 2, None)).unwrap();
        assert_eq!((wav.rate, wav.channels, wav.block, wav.data_len), (16_000, 2, 4, None));
    }

    #[test]
    fn extensible_format_and_leading_chunks_are_read() {
        let mut file = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x28\0\0\0".to_vec();
        file.extend([
            0xFE, 0xFF, 2, 0, 0x80, 0xBB, 0, 0, 0, 0xDC, 5, 0, 8, 0, 32, 0, 22, 0, 32, 0, 3, 0, 0, 0,
        ]);
        file.extend(b"\x03\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71data\x08\0\0\0");
        let wav = parse(&file).unwrap();
        assert_eq!((wav.coding, wav.channels, wav.rate, wav.bits), (Coding::Float, 2, 48_000, 32));
        assert_eq!((wav.data_offset, wav.data_len), (file.len(), Some(8)));
    }

    #[test]
    fn long_files_carry_their_length_aside() {
        let mut file = b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0".to_vec();
        file.extend([0; 8]);
        file.extend(5_000_000_000_u64.to_le_bytes());
        file.extend([0; 12]);
        file.extend(&header(48_000, 1, None)[12..]);
        assert_eq!(parse(&file).unwrap().data_len, Some(5_000_000_000));
    }

    #[test]
    fn lengths_of_streams_are_unknown() {
        // (RIFF size, data size, bytes of samples, if known).
        for (riff_len, data_len, known) in [
            (0, 0, None),
            (36, 0, None),
            (u32::MAX, u32::MAX, None),
            (0x7FFF_FFFF, 0x7FFF_FFFF, None),
            (0x7FFF_FFFF, 0x7FFF_FFFF - 36, None),
            (0xFFFF_FFFF, 0xFFFF_FFFF - 44, None),
            (36, 36, None),
            (36, 44, None),
            (80, 44, Some(44)),
            (0, 3200, Some(3200)),
        ] {
            let mut file = header(16_000, 1, None);
            file[4..8].copy_from_slice(&u32::to_le_bytes(riff_len));
            file[40..].copy_from_slice(&u32::to_le_bytes(data_len));
            assert_eq!(parse(&file).unwrap().data_len, known, "{riff_len:#x} {data_len:#x}");
        }
    }

    #[test]
    fn patched_headers_fit_their_file() {
        for data_len in [None, Some(1_000_000)] {
            let stream = [&header(16_000, 2, data_len)[..], &[7; 100]].concat();
            let patched = patch(&stream, 44 + 4003).unwrap();
            assert_eq!(patched.len(), stream.len());
            assert_eq!(u32_at(&patched, 4), Some(36 + 4003));
            // Whole frames of four bytes.
            assert_eq!(parse(&patched).unwrap().data_len, Some(4000));
            assert_eq!(patched[44..], stream[44..]);
            assert_eq!(patch(&patched, 44 + 4003), None);
        }
        // More chunks may follow the samples.
        assert_eq!(patch(&header(16_000, 1, Some(400)), 44 + 400 + 26), None);
        let mut no_riff_len = header(16_000, 1, Some(400));
        no_riff_len[4..8].fill(0);
        let patched = patch(&no_riff_len, 44 + 400 + 26).unwrap();
        assert_eq!((u32_at(&patched, 4), u32_at(&patched, 40)), (Some(36 + 400 + 26), Some(400)));
        assert_eq!(patch(&header(16_000, 1, None), 44 + 5_000_000_000), None);
        assert_eq!(patch(&header(16_000, 1, None)[..40], 4000), None);
        assert_eq!(patch(&header(16_000, 1, None), 20), None);
        for magic in [b"RF64", b"BW64"] {
            let mut long = header(16_000, 1, None);
            long[..4].copy_from_slice(magic);
            assert_eq!(patch(&long, 4000), None);
        }
    }

    #[test]
    fn headers_with_open_or_wrong_sizes_are_told_from_sound_ones() {
        let sound = [&header(16_000, 1, Some(400))[..], &[7; 400]].concat();
        assert_eq!(open_header(&sound, None), None);
        assert_eq!(open_header(&sound, Some(444)), None);
        assert_eq!(open_header(&sound, Some(440)).unwrap(), sound[..44], "a file that was cut");
        let stream = [&header(16_000, 1, None)[..], &[7; 400]].concat();
        assert_eq!(open_header(&stream, None).unwrap(), stream[..44]);
        assert_eq!(open_header(b"OggS", Some(4)), None);
    }

    #[test]
    fn a_header_is_found_once_it_is_complete() {
        let file = header(16_000, 1, Some(4));
        for end in 0..file.len() {
            assert_eq!(search(&file[..end]), Search::Incomplete, "{end} bytes");
        }
        assert!(matches!(search(&file), Search::Found(_)));
        assert_eq!(search(b"RIFX"), Search::NotWav);
        assert_eq!(search(b"RIFF\0\0\0\0AVI "), Search::NotWav);
        assert_eq!(search(b"RIFF\0\0\0\0WAVEdata\0\0\0\0"), Search::NotWav);
    }

    #[test]
    fn data_is_what_is_there_of_the_declared_length() {
        let file = [&header(16_000, 1, Some(4))[..], &[1, 2, 3, 4, 5]].concat();
        let wav = parse(&file).unwrap();
        assert_eq!(wav.data(&file), [1, 2, 3, 4]);
        assert_eq!(wav.data(&file[..46]), [1, 2]);
        assert!(wav.data(&file[..40]).is_empty());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            mut file in prop::collection::vec(any::<u8>(), 0..120),
            id in prop::sample::select(vec![&b"fmt "[..], b"data", b"ds64", b"LIST"]),
            at in 8usize..60,
        ) {
            let fixed = [(0, &b"RIFF"[..]), (8, b"WAVE"), (at + 4, id)];
            for (start, bytes) in fixed {
                if let Some(slot) = file.get_mut(start..start + 4) {
                    slot.copy_from_slice(bytes);
                }
            }
            let _ = parse(&file).map(|wav| wav.data(&file).len());
            let _ = patch(&file, 1000);
        }
    }
}
