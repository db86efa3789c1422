//! Elements of WebM and Matroska files, found in bytes that may be cut (RFC 8794, RFC 9559).

/// Identifier of the element that holds all others but the header.
pub(super) const SEGMENT: u32 = 0x1853_8067;
/// Identifier of a group of blocks of audio and video.
pub(super) const CLUSTER: u32 = 0x1F43_B675;

/// An EBML element within the prefix, where only its header is sure to be.
pub(super) struct Element {
    /// The identifier, its length marker included.
    pub(super) id: u32,
    /// Offset of the first byte of the body.
    pub(super) body: usize,
    /// Offset behind the body.
    pub(super) end: usize,
}

impl Element {
    /// Reads the header at offset `at`.
    pub(super) fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        let id_len = bytes.get(at)?.leading_zeros() as usize + 1;
        if id_len > 4 {
            return None;
        }
        let id = big_endian(bytes.get(at..at + id_len)?) as u32;
        let at = at + id_len;
        let size_len = bytes.get(at)?.leading_zeros() as usize + 1;
        if size_len > 8 {
            return None;
        }
        let size = big_endian(bytes.get(at..at + size_len)?) & (u64::MAX >> (64 - 7 * size_len));
        let body = at + size_len;
        // All ones means unknown; only containers may have that, and those are entered.
        let end = body.saturating_add(usize::try_from(size).ok()?);
        Some(Self { id, body, end })
    }

    /// The body as an unsigned integer.
    pub(super) fn integer(&self, bytes: &[u8]) -> Option<u64> {
        bytes.get(self.body..self.end).filter(|value| value.len() <= 8).map(big_endian)
    }

    /// The body as bytes.
    pub(super) fn bytes<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.body..self.end)
    }

    /// The body as a floating-point number.
    pub(super) fn float(&self, bytes: &[u8]) -> Option<f64> {
        let value = bytes.get(self.body..self.end)?;
        match value.len() {
            4 => Some(f64::from(f32::from_bits(big_endian(value) as u32))),
            8 => Some(f64::from_bits(big_endian(value))),
            _ => None,
        }
    }
}

/// The value of at most eight bytes.
fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
