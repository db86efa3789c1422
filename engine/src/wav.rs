//! RIFF/WAVE: writes 16 bit PCM of one channel, and reads where the samples of a stream begin.

use bytes::{BufMut, Bytes, BytesMut};

/// Length of the header written by [`encode`], in bytes.
pub const HEADER_BYTES: usize = 44;

/// A complete WAV file of `samples` at `rate_hz`.
#[must_use]
pub fn encode(samples: &[i16], rate_hz: u32) -> Bytes {
    let data_bytes = u32::try_from(samples.len() * 2).unwrap_or(u32::MAX - 36);
    let mut file = BytesMut::with_capacity(HEADER_BYTES + samples.len() * 2);
    file.put_slice(b"RIFF");
    file.put_u32_le(36 + data_bytes);
    file.put_slice(b"WAVEfmt ");
    file.put_u32_le(16);
    file.put_u16_le(1); // PCM
    file.put_u16_le(1); // channels
    file.put_u32_le(rate_hz);
    file.put_u32_le(rate_hz * 2);
    file.put_u16_le(2); // bytes a frame
    file.put_u16_le(16); // bits a sample
    file.put_slice(b"data");
    file.put_u32_le(data_bytes);
    put_samples(&mut file, samples);
    file.freeze()
}

/// Raw little-endian samples.
#[must_use]
pub fn raw(samples: &[i16]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(samples.len() * 2);
    put_samples(&mut bytes, samples);
    bytes.freeze()
}

/// What the header of a stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Samples a second.
    pub rate_hz: u32,
    /// Number of channels.
    pub channels: u16,
    /// Where the samples begin.
    pub samples_at: usize,
}

/// The header at the start of a stream of samples; `None` when there is none, or not in whole.
#[must_use]
pub fn header(bytes: &[u8]) -> Option<Header> {
    if bytes.get(..4)? != b"RIFF" || bytes.get(8..12)? != b"WAVE" {
        return None;
    }
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (mut at, mut format) = (12, None);
    loop {
        let (name, length) = (bytes.get(at..at + 4)?, number(at + 4)?);
        at += 8;
        match name {
            b"fmt " => {
                let channels = u16::try_from(number(at)? >> 16).ok()?;
                format = Some((number(at + 4)?, channels));
            }
            b"data" => {
                let (rate_hz, channels) = format?;
                return Some(Header { rate_hz, channels, samples_at: at });
            }
            _ => {}
        }
        // Chunks are padded to even lengths.
        at = at.checked_add(usize::try_from(length).ok()?.checked_add(1)? & !1)?;
    }
}

fn put_samples(bytes: &mut BytesMut, samples: &[i16]) {
    for sample in samples {
        bytes.put_i16_le(*sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_says_where_the_samples_begin() {
        let file = encode(&[1, 2, 3], 22_050);
        let read = Header { rate_hz: 22_050, channels: 1, samples_at: HEADER_BYTES };
        assert_eq!(header(&file), Some(read));
        let mut longer = file[..36].to_vec();
        longer.extend(b"LIST\x03\0\0\0abc\0");
        longer.extend(&file[36..]);
        assert_eq!(header(&longer), Some(Header { samples_at: HEADER_BYTES + 12, ..read }));
        for end in 0..HEADER_BYTES {
            assert_eq!(header(&file[..end]), None, "{end} bytes");
        }
        assert_eq!(header(b"no header at all, only samples which go on"), None);
    }
}
