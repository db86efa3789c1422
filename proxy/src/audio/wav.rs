//! Reads and writes WAV headers (RIFF/WAVE, RF64).

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
    /// Samples per second and channel.
    pub rate: u32,
    /// Bits per sample.
    pub bits: u16,
    /// Bytes per second on average, as declared.
    pub bytes_per_second: u32,
    /// Offset of the first sample.
    pub data_offset: usize,
    /// Bytes of samples; `None` if the header leaves it open, as streams do.
    pub data_len: Option<u64>,
}

/// Length of the headers written here.
pub const HEADER_LEN: usize = 44;

/// A header for `data_len` bytes of 16-bit mono samples.
#[must_use]
pub fn header(rate: u32, data_len: u32) -> [u8; HEADER_LEN] {
    write(rate, data_len.saturating_add(36), data_len)
}

/// A header for 16-bit mono samples of unknown number, which readers take to last until the stream ends.
#[must_use]
pub fn streaming_header(rate: u32) -> [u8; HEADER_LEN] {
    write(rate, u32::MAX, u32::MAX)
}

fn write(rate: u32, riff_len: u32, data_len: u32) -> [u8; HEADER_LEN] {
    let mut header = *b"RIFF....WAVEfmt \x10\0\0\0\x01\0\x01\0........\x02\0\x10\0data....";
    header[4..8].copy_from_slice(&riff_len.to_le_bytes());
    header[24..28].copy_from_slice(&rate.to_le_bytes());
    header[28..32].copy_from_slice(&rate.saturating_mul(2).to_le_bytes());
    header[40..44].copy_from_slice(&data_len.to_le_bytes());
    header
}

/// Reads the header at the start of `prefix`, up to the begin of the data chunk; chunks in any order, unknown ones skipped.
#[must_use]
pub fn parse(prefix: &[u8]) -> Option<Wav> {
    let magic = prefix.get(..4)?;
    if !matches!(magic, b"RIFF" | b"RF64" | b"BW64") || prefix.get(8..12)? != b"WAVE" {
        return None;
    }
    let mut format = None;
    let mut long_len = None;
    let mut at = 12;
    loop {
        let (id, len) = (prefix.get(at..at + 4)?, u32_at(prefix, at + 4)?);
        let body = at + 8;
        match id {
            b"ds64" => long_len = Some(u64_at(prefix, body + 8)?),
            b"fmt " => format = Some(prefix.get(body..body.checked_add(usize::try_from(len).ok()?)?)?),
            b"data" => return finish(format?, body, declared(len, long_len)),
            _ => {}
        }
        // Chunks are padded to even lengths.
        at = body.checked_add(usize::try_from(len).ok()?)?.checked_add((len & 1) as usize)?;
    }
}

/// The data length that is meant: streams write 0 or a very large number.
fn declared(len: u32, long_len: Option<u64>) -> Option<u64> {
    match (len, long_len) {
        (u32::MAX, Some(long)) => Some(long),
        (0 | 0x7FFF_0000..=0x7FFF_FFFF | 0xFFFF_0000..=u32::MAX, _) => None,
        (len, _) => Some(u64::from(len)),
    }
}

fn finish(format: &[u8], data_offset: usize, data_len: Option<u64>) -> Option<Wav> {
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
        bytes_per_second: u32_at(format, 8)?,
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
        let wav = parse(&header(24_000, 4800)).unwrap();
        assert_eq!((wav.coding, wav.channels, wav.rate, wav.bits), (Coding::Pcm, 1, 24_000, 16));
        assert_eq!((wav.bytes_per_second, wav.data_offset, wav.data_len), (48_000, 44, Some(4800)));
        let wav = parse(&streaming_header(16_000)).unwrap();
        assert_eq!((wav.rate, wav.data_offset, wav.data_len), (16_000, 44, None));
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
        file.extend(&header(48_000, u32::MAX)[12..]);
        assert_eq!(parse(&file).unwrap().data_len, Some(5_000_000_000));
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
            let _ = parse(&file);
        }
    }
}
