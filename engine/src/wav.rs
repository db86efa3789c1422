//! Writes RIFF/WAVE: 16 bit PCM, one channel.

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

fn put_samples(bytes: &mut BytesMut, samples: &[i16]) {
    for sample in samples {
        bytes.put_i16_le(*sample);
    }
}
