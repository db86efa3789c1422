//! Samples that come in pieces and may begin with the header of a WAV file.

use bytes::{Bytes, BytesMut};

use crate::audio::{Sample, wav};
use crate::stream::Format;

/// Longest header.
const HEAD_BYTES: usize = 64 * 1024;
/// What a header may say.
const SUPPORTED: &str = "send a WAV file of 16-bit PCM, A-law or µ-law with one channel, or raw samples";

/// The first bytes, until it is known what they are.
#[derive(Debug, Default)]
pub struct Head {
    bytes: BytesMut,
}

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    /// Not known yet.
    More,
    /// Samples without a header.
    Raw(Bytes),
    /// The samples behind a header, and their format.
    Wav(Format, Bytes),
}

impl Head {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Begun, &'static str> {
        self.bytes.extend_from_slice(bytes);
        let file = match wav::search(&self.bytes) {
            wav::Search::Found(file) => file,
            wav::Search::NotWav => return Ok(Begun::Raw(self.finish())),
            wav::Search::Incomplete if self.bytes.len() < HEAD_BYTES => return Ok(Begun::More),
            wav::Search::Incomplete => return Err("the header of the file does not end"),
        };
        let sample = match (file.coding, file.bits) {
            (wav::Coding::Pcm, 16) => Sample::S16,
            (wav::Coding::ALaw, 8) => Sample::ALaw,
            (wav::Coding::MuLaw, 8) => Sample::MuLaw,
            _ => return Err(SUPPORTED),
        };
        if file.channels != 1 {
            return Err(SUPPORTED);
        }
        let format = Format { sample, rate: file.rate.clamp(8_000, 48_000) };
        let mut all = self.finish();
        Ok(Begun::Wav(format, all.split_off(file.data_offset.min(all.len()))))
    }

    /// All that came, when no more does.
    pub fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_in_pieces_of_any_size() {
        let file = [&wav::header(8_000, 1, None)[..], &[1, 2, 3, 4]].concat();
        for piece in [1, 7, 44, 48] {
            let (mut head, mut samples) = (Head::default(), Vec::new());
            let mut format = None;
            for piece in file.chunks(piece) {
                match (format, head.push(piece)) {
                    (Some(_), _) => samples.extend_from_slice(piece),
                    (None, Ok(Begun::Wav(found, rest))) => {
                        format = Some(found);
                        samples.extend_from_slice(&rest);
                    }
                    (None, other) => assert_eq!(other, Ok(Begun::More)),
                }
            }
            assert_eq!(format, Some(Format { sample: Sample::S16, rate: 8_000 }));
            assert_eq!(samples, [1, 2, 3, 4], "in pieces of {piece}");
        }
    }

    #[test]
    fn samples_without_a_header_come_as_they_are_and_a_wrong_header_is_refused() {
        assert_eq!(Head::default().push(&[1, 2, 3]), Ok(Begun::Raw(Bytes::from_static(&[1, 2, 3]))));
        let mut head = Head::default();
        assert_eq!(head.push(b"RI"), Ok(Begun::More));
        assert_eq!(head.finish(), "RI");
        assert!(Head::default().push(&wav::header(16_000, 2, None)).is_err());
        let endless =
            [&wav::header(16_000, 1, None)[..36], b"LIST\xff\xff\xff\x7f", &vec![0; HEAD_BYTES][..]].concat();
        assert!(Head::default().push(&endless).is_err());
    }
}
