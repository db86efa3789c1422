//! Speech to words with times: cuts a recording at its pauses and recognizes piece by piece.

use crate::activity;
use crate::ffi::{Error, Recognizer, Token};

/// Pauses of half a second separate sentences.
const APART_FRAMES: usize = 50;
/// No piece is longer, 20 s: memory and time stay linear.
const LONGEST_FRAMES: usize = 2_000;

/// A recognized word.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// In seconds from the start of the file.
    pub start_s: f64,
    /// In seconds from the start of the file.
    pub end_s: f64,
    /// Without spaces around it.
    pub text: String,
    /// 0 to 1.
    pub confidence: f64,
    /// Whether it follows the word before it without a space.
    pub joined: bool,
}

/// Recognizes a recording at 16 kHz: the words of each sentence-like piece, in order.
///
/// # Errors
/// When the recognizer refuses a piece.
pub fn recognize(recognizer: &mut Recognizer, samples: &[i16]) -> Result<Vec<Vec<Word>>, Error> {
    let levels = activity::levels(samples);
    let mut sentences = Vec::new();
    for piece in activity::pieces(&activity::speech(&levels), &levels, APART_FRAMES, LONGEST_FRAMES) {
        let tokens =
            recognizer.recognize(&samples[piece.start * activity::FRAME..piece.end * activity::FRAME])?;
        let sentence: Vec<Word> = tokens.iter().filter_map(|token| word(token, piece.start)).collect();
        if !sentence.is_empty() {
            sentences.push(sentence);
        }
    }
    Ok(sentences)
}

/// The word of a token, without its pronunciation suffix; `None` for fillers.
fn word(token: &Token, first_frame: usize) -> Option<Word> {
    const FRAME_S: f64 = 0.01;
    let text = token.text.split('(').next().unwrap_or_default();
    if text.is_empty() || text.starts_with(['<', '[', '+']) {
        return None;
    }
    let seconds = |frame: u32| (first_frame as f64 + f64::from(frame)) * FRAME_S;
    Some(Word {
        start_s: seconds(token.start_frame),
        end_s: seconds(token.end_frame),
        text: text.to_owned(),
        confidence: token.confidence,
        joined: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fillers_and_pronunciation_suffixes_are_stripped() {
        let token = |text: &str| Token { text: text.into(), start_frame: 10, end_frame: 35, confidence: 0.5 };
        for filler in ["<s>", "</s>", "<sil>", "[NOISE]", "++UH++", "(NULL)", ""] {
            assert_eq!(word(&token(filler), 0), None, "{filler}");
        }
        let the = word(&token("the(2)"), 100).unwrap();
        assert_eq!(the.text, "the");
        assert!((the.start_s - 1.1).abs() < 1e-9 && (the.end_s - 1.35).abs() < 1e-9);
    }
}
