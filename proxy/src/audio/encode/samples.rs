//! Joins bytes to samples across chunk borders.

/// Turns chunks of signed 16-bit little-endian bytes into samples, holding back an odd byte until its other half comes.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    odd: Option<u8>,
}

impl Samples {
    /// Samples complete with `bytes`, in order.
    #[must_use]
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<i16> {
        let mut samples = Vec::with_capacity(bytes.len() / 2 + 1);
        if let Some(low) = self.odd {
            let Some((high, rest)) = bytes.split_first() else { return samples };
            samples.push(i16::from_le_bytes([low, *high]));
            bytes = rest;
        }
        let (pairs, odd) = bytes.as_chunks::<2>();
        samples.extend(pairs.iter().copied().map(i16::from_le_bytes));
        self.odd = odd.first().copied();
        samples
    }

    /// Half a sample is waiting: if the stream ends here, it was cut.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.odd.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_samples(
            pcm in prop::collection::vec(any::<i16>(), 0..100),
            sizes in prop::collection::vec(1usize..9, 1..6),
        ) {
            let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            let (mut samples, mut joined, mut rest) = (Samples::default(), Vec::new(), &bytes[..]);
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                joined.extend(samples.push(chunk));
                rest = after;
            }
            prop_assert_eq!(joined, pcm);
            prop_assert!(!samples.is_split());
        }
    }

    #[test]
    fn an_odd_byte_waits() {
        let mut samples = Samples::default();
        assert_eq!(samples.push(&[0x34]), Vec::<i16>::new());
        assert!(samples.is_split());
        assert_eq!(samples.push(&[]), Vec::<i16>::new());
        assert_eq!(samples.push(&[0x12, 0x78, 0x56, 0xFF]), vec![0x1234, 0x5678]);
        assert!(samples.is_split());
    }
}
