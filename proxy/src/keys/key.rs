//! The text of a key: `sk-ss-`, a public id, and a secret of 256 random bits.
//!
//! The secret has too many values to be guessed, so one SHA-256 of the key is kept and no slow hash is needed.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What keys begin with.
const PREFIX: &str = "sk-ss-";
/// Characters of an id: 64 bits in hexadecimal.
const ID_CHARACTERS: usize = 16;
const SECRET_BYTES: usize = 32;

/// The SHA-256 of a key.
pub type Digest = [u8; 32];

/// A new key. Its text is shown once and kept nowhere.
pub struct Made {
    /// Its public part, 16 hexadecimal digits.
    pub id: String,
    /// The whole key.
    pub text: String,
}

/// Makes a key; `None` when the system has no random numbers.
pub fn make() -> Option<Made> {
    let (mut id, mut secret) = ([0; ID_CHARACTERS / 2], [0; SECRET_BYTES]);
    rand::fill(&mut id).ok()?;
    rand::fill(&mut secret).ok()?;
    let id = hex(&id);
    let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
    Some(Made { id, text })
}

/// The public part of a key's text; `None` when it is no key of this kind.
pub fn id(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(ID_CHARACTERS)?;
    (secret.starts_with('_') && is_id(id)).then_some(id)
}

/// Whether a text is an id of a key.
pub fn is_id(id: &str) -> bool {
    id.len() == ID_CHARACTERS && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The hash that is kept of a key.
pub fn hash(text: &str) -> Digest {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

/// A key as it may be shown: its id, or its first characters when it is none of ours.
pub fn masked(text: &str) -> String {
    match id(text) {
        Some(id) => format!("{PREFIX}{id}_****"),
        // An id of another kind may hold its secret from the first character on.
        None => format!("{}****", text.chars().filter(char::is_ascii_graphic).take(3).collect::<String>()),
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The hash that 64 hexadecimal digits stand for.
pub fn unhex(text: &str) -> Option<Digest> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_carry_their_id() {
        let (one, other) = (make().unwrap(), make().unwrap());
        assert_ne!(one.text, other.text);
        assert_eq!(id(&one.text), Some(&*one.id));
        assert!(
            one.text.len() > 60
                && one.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        for wrong in
            ["", "sk-ss-", "sk-ss-0123456789abcdef", "sk-ss-0123456789ABCDEF_x", "sk-0123", "sk-ss-é"]
        {
            assert_eq!(id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_of_a_key_is_not_its_secret() {
        let key = make().unwrap();
        let shown = masked(&key.text);
        assert!(shown.contains(&key.id) && !key.text.contains(&shown));
        assert_eq!(masked("sk-proj-abcdefgh"), "sk-****");
        assert_eq!(masked("é"), "****");
    }

    #[test]
    fn hashes_are_written_and_read() {
        let hash = hash("abc");
        let text = hex(&hash);
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(unhex(&text), Some(hash));
        for wrong in ["", "zz", &text[..62], &format!("{}zz", &text[..62])] {
            assert_eq!(unhex(wrong), None);
        }
    }
}
