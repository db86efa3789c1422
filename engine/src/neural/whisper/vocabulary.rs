//! Whisper's tokens: which begin and end a transcript, which name a language, and the text of the others.

use std::path::Path;

use serde::Deserialize;

use super::graphs::{LAYERS, VOCABULARY};
use crate::neural::{Error, files};

/// Ends a transcript; all tokens from here on are no text.
pub const END: usize = 50_257;
/// Begins a transcript.
pub const START: usize = 50_258;
/// The task of writing down what was said.
pub const TRANSCRIBE: usize = 50_359;
/// Nothing was said.
pub const NO_SPEECH: usize = 50_362;
/// No times are to be written.
pub const NO_TIMES: usize = 50_363;

/// What is published beside the weights.
#[derive(Deserialize)]
struct Config {
    alignment_heads: Vec<(usize, usize)>,
    lang_ids: Vec<usize>,
    suppress_ids: Vec<usize>,
    suppress_ids_begin: Vec<usize>,
}

/// The tokens.
pub struct Vocabulary {
    /// The bytes of each token that is text.
    texts: Vec<Vec<u8>>,
    /// Each language's token and code, such as `en`.
    pub languages: Vec<(usize, String)>,
    /// Tokens that are never written.
    pub suppressed: Vec<usize>,
    /// Tokens that never come first.
    pub suppressed_first: Vec<usize>,
    /// Layers and heads whose attention follows the words in time.
    pub alignment_heads: Vec<(usize, usize)>,
}

impl Vocabulary {
    /// Reads the published files.
    ///
    /// # Errors
    /// When one cannot be read, is another one, or malformed.
    pub fn open(models: &Path) -> Result<Self, Error> {
        const CONFIG: &str = "whisper-base/config.json";
        const TOKENS: &str = "whisper-base/vocabulary.txt";
        let refuse = |file, reason| Error::Format { file, reason };
        let config: Config = serde_json::from_slice(&files::read(models, CONFIG)?)
            .map_err(|_| refuse(CONFIG, "not the settings of a model"))?;
        let text = String::from_utf8(files::read(models, TOKENS)?).map_err(|_| refuse(TOKENS, "not text"))?;
        let tokens: Vec<&str> = text.trim_end_matches('\n').split('\n').collect();
        let ids = config.lang_ids.iter().chain(&config.suppress_ids).chain(&config.suppress_ids_begin);
        if tokens.len() != VOCABULARY || ids.clone().any(|id| *id >= VOCABULARY) {
            return Err(refuse(TOKENS, "not of the size of the model"));
        }
        if config.alignment_heads.is_empty()
            || config.alignment_heads.iter().any(|(layer, head)| *layer >= LAYERS || *head >= 8)
        {
            return Err(refuse(CONFIG, "no such heads"));
        }
        let code = |id: &usize| {
            let name = tokens[*id].strip_prefix("<|").and_then(|name| name.strip_suffix("|>"));
            (*id, name.unwrap_or_default().to_owned())
        };
        Ok(Self {
            languages: config.lang_ids.iter().map(code).collect(),
            texts: tokens[..END].iter().map(|token| token.chars().filter_map(byte_of).collect()).collect(),
            suppressed: config.suppress_ids,
            suppressed_first: config.suppress_ids_begin,
            alignment_heads: config.alignment_heads,
        })
    }

    /// The token of a language by its code.
    pub fn language(&self, code: &str) -> Option<usize> {
        self.languages.iter().find(|(_, known)| known == code).map(|(token, _)| *token)
    }

    /// The bytes of a token; none when it is no text.
    pub fn bytes(&self, token: usize) -> &[u8] {
        self.texts.get(token).map_or(&[], Vec::as_slice)
    }

    /// The text of tokens.
    pub fn text(&self, tokens: &[usize]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.bytes(*token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The byte for which a letter of a token stands (GPT-2's table: printable bytes stand for themselves, the others for
/// letters from U+0100 on, in order).
fn byte_of(letter: char) -> Option<u8> {
    let code = u32::from(letter);
    if printable(code) {
        return u8::try_from(code).ok();
    }
    let place = code.checked_sub(256)?;
    (0..=255_u8).filter(|byte| !printable(u32::from(*byte))).nth(place as usize)
}

fn printable(code: u32) -> bool {
    matches!(code, 33..=126 | 161..=172 | 174..=255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_stand_for_all_bytes() {
        assert_eq!(
            ['A', '\u{120}', '\u{10a}', 'é'].map(byte_of),
            [Some(b'A'), Some(b' '), Some(b'\n'), Some(0xe9)]
        );
        let letters = (0..0x144).filter_map(char::from_u32);
        let mut bytes: Vec<u8> = letters.filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('あ'), None);
    }
}
