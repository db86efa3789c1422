//! A text to speak, in pieces that an engine takes.

use super::sentence::{self, Limit};

/// Longest text of one synthesis, characters. Magpie's own limit is 2,000 of *normalised* text, in which numbers grow.
pub const PIECE_CHARACTERS: usize = 1_800;
/// The first piece is short: its audio is heard sooner.
const LIMIT: Limit = Limit { first: PIECE_CHARACTERS / 6, rest: PIECE_CHARACTERS };

/// The pieces of a text that have something to speak, in order. None for text like "…" or emoji alone.
pub fn pieces(text: &str) -> Vec<String> {
    let speakable = |piece: &&str| piece.chars().any(char::is_alphanumeric);
    sentence::split(text, LIMIT).into_iter().filter(speakable).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_spoken_is_left_out() {
        assert_eq!(pieces("Good morning. … Good night."), ["Good morning. … Good night."]);
        for silent in ["…", "🙂", "?!", " - "] {
            assert!(pieces(silent).is_empty(), "{silent}");
        }
        assert_eq!(pieces("早上好"), ["早上好"]);
    }
}
