//! Makes the decoder settings of HE-AAC those of the AAC-LC stream within it.
//!
//! HE-AAC is AAC-LC at half the sample rate plus side data for the upper half of the spectrum and, in version 2, for stereo.
//! A decoder that ignores the side data gives the lower half in mono or stereo, which is all that speech at 16 kHz needs.

/// An AudioSpecificConfig of plain AAC-LC (ISO/IEC 14496-3, section 1.6.2.1) in place of `config`, which may signal HE-AAC
/// before or behind it. `None` if the core is not AAC-LC.
pub(super) fn core_config(config: &[u8]) -> Option<Box<[u8]>> {
    const LC: u64 = 2;
    const SBR: u64 = 5;
    const PS: u64 = 29;
    let mut bits = Bits { bytes: config, at: 0 };
    let outer = bits.take(5)?;
    let rate = bits.rate()?;
    let channels = bits.take(4)?;
    let core = if matches!(outer, SBR | PS) {
        bits.rate()?;
        bits.take(5)?
    } else {
        outer
    };
    if core != LC {
        return None;
    }
    // Frame length, dependence on another stream, extension.
    let flags = bits.take(3)?;
    let (rate_index, rate_hz) = rate;
    let (packed, len) = match rate_hz {
        Some(hz) => ((((LC << 4 | rate_index) << 24 | hz) << 4 | channels) << 3 | flags, 40),
        None => (((LC << 4 | rate_index) << 4 | channels) << 3 | flags, 16),
    };
    let bytes = packed.to_be_bytes();
    Some(bytes[bytes.len() - len / 8..].into())
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u64> {
        let mut value = 0;
        for at in self.at..self.at + count {
            let byte = self.bytes.get(at / 8)?;
            value = value << 1 | u64::from(byte >> (7 - at % 8) & 1);
        }
        self.at += count;
        Some(value)
    }

    /// The index of a sample rate, and the rate in Hz where the index stands for none.
    fn rate(&mut self) -> Option<(u64, Option<u64>)> {
        const EXPLICIT: u64 = 15;
        let index = self.take(4)?;
        let hz = if index == EXPLICIT { Some(self.take(24)?) } else { None };
        Some((index, hz))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_of_he_aac_is_aac_lc() {
        // AAC-LC, 44.1 kHz, mono.
        assert_eq!(core_config(&[0x12, 0x08]).as_deref(), Some(&[0x12, 0x08][..]));
        // The same, with the extension behind it that says HE-AAC.
        assert_eq!(core_config(&[0x12, 0x08, 0x56, 0xE5, 0x00]).as_deref(), Some(&[0x12, 0x08][..]));
        // HE-AAC: type 5, 22.05 kHz, stereo, extended to 44.1 kHz, type 2.
        assert_eq!(core_config(&[0x2B, 0x92, 0x08, 0x00]).as_deref(), Some(&[0x13, 0x90][..]));
        // HE-AAC version 2: type 29, 24 kHz, mono, extended to 48 kHz, type 2.
        assert_eq!(core_config(&[0xEB, 0x09, 0x88, 0x00]).as_deref(), Some(&[0x13, 0x08][..]));
        // Type 2 with a sample rate of its own, 16,001 Hz.
        let explicit = [0x17, 0x80, 0x1F, 0x40, 0x88];
        assert_eq!(core_config(&explicit).as_deref(), Some(&explicit[..]));
        // Low delay.
        assert_eq!(core_config(&[0xB9, 0x08]), None);
        assert_eq!(core_config(&[0x12]), None);
    }
}
