//! Uncompressed samples as they are stored: integers, floating point, and G.711.

/// How one sample is stored. Numbers of more than one byte are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 16 bits.
    S16,
    /// Signed, 24 bits.
    S24,
    /// Signed, 32 bits.
    S32,
    /// Floating point, 32 bits, full scale 1.0.
    F32,
    /// Floating point, 64 bits, full scale 1.0.
    F64,
    /// G.711 A-law.
    ALaw,
    /// G.711 µ-law.
    MuLaw,
}

impl Sample {
    /// Bytes of one sample.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::ALaw | Self::MuLaw => 1,
            Self::S16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Appends all whole samples in `bytes`, full scale 1.0. Integers of a size between are stored in the upper bits, so they need no
    /// more.
    pub fn read(self, bytes: &[u8], samples: &mut Vec<f32>) {
        const S16: f32 = 32_768.0;
        match self {
            Self::U8 => samples.extend(bytes.iter().map(|byte| (f32::from(*byte) - 128.0) / 128.0)),
            Self::ALaw => samples.extend(bytes.iter().map(|byte| f32::from(a_law(*byte)) / S16)),
            Self::MuLaw => samples.extend(bytes.iter().map(|byte| f32::from(mu_law(*byte)) / S16)),
            Self::S16 => {
                let read = |pair: &[u8; 2]| f32::from(i16::from_le_bytes(*pair)) / S16;
                samples.extend(bytes.as_chunks().0.iter().map(read));
            }
            Self::S24 => {
                let read = |[a, b, c]: &[u8; 3]| i32::from_le_bytes([0, *a, *b, *c]) as f32 / 2_147_483_648.0;
                samples.extend(bytes.as_chunks().0.iter().map(read));
            }
            Self::S32 => {
                let read = |four: &[u8; 4]| i32::from_le_bytes(*four) as f32 / 2_147_483_648.0;
                samples.extend(bytes.as_chunks().0.iter().map(read));
            }
            Self::F32 => samples.extend(bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four))),
            Self::F64 => {
                samples.extend(bytes.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight) as f32));
            }
        }
    }
}

/// Expands an A-law byte (ITU-T G.711, table 1a).
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (segment, step) = ((byte >> 4) & 7, i16::from(byte & 0x0F) << 4);
    let level = match segment {
        0 => step + 8,
        segment => (step + 0x108) << (segment - 1),
    };
    if byte & 0x80 == 0 { -level } else { level }
}

/// Expands a µ-law byte (ITU-T G.711, table 2a).
fn mu_law(byte: u8) -> i16 {
    const BIAS: i16 = 0x84;
    let byte = !byte;
    let level = (((i16::from(byte & 0x0F) << 3) + BIAS) << ((byte >> 4) & 7)) - BIAS;
    if byte & 0x80 == 0 { level } else { -level }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g711_follows_the_tables() {
        // The ends and the middle of the tables of ITU-T G.711, scaled to 16 bits.
        assert_eq!([0x00, 0x0F, 0x7F, 0x80, 0xFF].map(mu_law), [-32_124, -16_764, 0, 32_124, 0]);
        assert_eq!([0x2A, 0xAA, 0x55, 0xD5].map(a_law), [-32_256, 32_256, -8, 8]);
        // Each step up in code is a step up in level.
        let levels: Vec<i16> = (0x80..=0xFF).rev().map(mu_law).collect();
        assert!(levels.is_sorted());
        let levels: Vec<i16> = (0..=0x7F).map(|code: u8| a_law((code | 0x80) ^ 0x55)).collect();
        assert!(levels.is_sorted());
    }
}
