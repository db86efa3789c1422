//! What files of a Parakeet there are in a folder: two layouts, each in 32 bits or 8 bits.

use std::path::{Path, PathBuf};

/// The networks of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// From spectrum to frames.
    pub encoder: PathBuf,
    /// What predicts and joins.
    pub decoder: Decoder,
    /// The tokens.
    pub vocabulary: PathBuf,
    /// Whether the weights have 8 bits.
    pub quantized: bool,
}

/// What predicts the next token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoder {
    /// As exported by NeMo: one network.
    Whole(PathBuf),
    /// As sherpa-onnx has it: what predicts, and what joins.
    Split(PathBuf, PathBuf),
}

/// The layout of a folder, that with 8 bits first; `None` when there is none.
#[must_use]
pub fn find(folder: &Path) -> Option<Layout> {
    let file = |name: String| Some(folder.join(name)).filter(|path| path.is_file());
    for (ending, quantized) in [(".int8.onnx", true), (".onnx", false)] {
        let whole = || {
            Some(Layout {
                encoder: file(format!("encoder-model{ending}"))?,
                decoder: Decoder::Whole(file(format!("decoder_joint-model{ending}"))?),
                vocabulary: file("vocab.txt".into())?,
                quantized,
            })
        };
        let split = || {
            let (decoder, joiner) = (file(format!("decoder{ending}"))?, file(format!("joiner{ending}"))?);
            Some(Layout {
                encoder: file(format!("encoder{ending}"))?,
                decoder: Decoder::Split(decoder, joiner),
                vocabulary: file("tokens.txt".into())?,
                quantized,
            })
        };
        if let Some(layout) = whole().or_else(split) {
            return Some(layout);
        }
    }
    None
}

/// The tokens of a file, `token id` a line, in order of their numbers; the last one is the blank.
#[must_use]
pub fn tokens(text: &str) -> Option<Vec<String>> {
    const MAX_TOKENS: usize = 65_536;
    let mut tokens: Vec<Option<String>> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (token, id) = line.trim_end().rsplit_once(' ')?;
        let id: usize = id.parse().ok().filter(|id| *id < MAX_TOKENS)?;
        if tokens.len() <= id {
            tokens.resize(id + 1, None);
        }
        tokens[id] = Some(token.to_owned());
    }
    let tokens: Option<Vec<String>> = tokens.into_iter().collect();
    tokens.filter(|tokens| tokens.last().is_some_and(|last| last.contains("blk")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_in_order_and_end_with_the_blank() {
        assert_eq!(tokens("b 1\na 0\n<blk> 2\n").unwrap(), ["a", "b", "<blk>"]);
        for wrong in ["", "a 0\nb 1\n", "a 0\n<blk> 2\n", "a\n", "a x\n", "a 99999999\n"] {
            assert_eq!(tokens(wrong), None, "{wrong}");
        }
    }
}
