//! The common chunk of an AIFF or AIFF-C file.

use super::boxes::{be_u16, be_u32};

/// What the common chunk says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Common<'a> {
    /// Number of interleaved channels.
    pub(super) channels: u16,
    /// Samples of each channel.
    pub(super) frames: u32,
    /// Bits per sample.
    pub(super) bits: u16,
    /// Samples per second and channel.
    pub(super) rate: f64,
    /// The compression of AIFF-C; `None` in AIFF.
    pub(super) compression: Option<&'a [u8; 4]>,
}

impl<'a> Common<'a> {
    /// Finds the chunk in a file that begins with `prefix`.
    pub(super) fn find(prefix: &'a [u8]) -> Option<Self> {
        let mut at = 12;
        loop {
            let len = be_u32(prefix, at + 4)?;
            if prefix.get(at..at + 4)? == b"COMM" {
                break;
            }
            at = at.checked_add(8 + len as usize + (len & 1) as usize)?;
        }
        let chunk = prefix.get(at + 8..)?;
        // The rate is an 80-bit float.
        let (exponent, mantissa) = (be_u16(chunk, 8)?, be_u32(chunk, 10)?);
        Some(Self {
            channels: be_u16(chunk, 0)?,
            frames: be_u32(chunk, 2)?,
            bits: be_u16(chunk, 6)?,
            rate: f64::from(mantissa) * 2f64.powi(i32::from(exponent & 0x7FFF) - 16_383 - 31),
            compression: chunk.get(18..)?.first_chunk().filter(|_| prefix.get(8..12) == Some(b"AIFC")),
        })
    }

    /// Bytes of one second of uncompressed samples; `None` for compressed ones.
    pub(super) fn byte_rate(&self) -> Option<f64> {
        let bytes = match self.compression {
            None | Some(b"NONE" | b"sowt" | b"twos" | b"fl32" | b"FL32" | b"fl64" | b"FL64") => {
                self.bits.div_ceil(8)
            }
            Some(b"ulaw" | b"ULAW" | b"alaw" | b"ALAW") => 1,
            Some(_) => return None,
        };
        Some(self.rate * f64::from(self.channels) * f64::from(bytes))
    }
}
