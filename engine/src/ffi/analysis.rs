//! flite's analysis of text: what is said for numbers, dates, money and abbreviations.
//!
//! Declarations are from `cst_utterance.h`, `cst_utt_utils.h`, `cst_synth.h`, `cst_item.h` and `cst_relation.h` (flite 2.2).
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};

use super::{Error, FLITE, Voice, VoiceHead, c_string, speakable};

/// More tokens or words of one text than this are left out.
const MAX_ITEMS: usize = 4_096;

/// A piece of text between spaces, and the words that are said for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Marks before it.
    pub before: String,
    /// Without the marks around it.
    pub text: String,
    /// In lower case.
    pub words: Vec<String>,
    /// Marks behind it.
    pub after: String,
}

/// The tokens of a text of US English.
///
/// # Errors
/// [`Error::Synthesize`] when flite refuses.
pub fn analyze(text: &str) -> Result<Vec<Token>, Error> {
    let voice = Voice::Slt;
    let refuse = || Error::Synthesize(voice.name());
    let text = c_string(speakable(text));
    let _only_user = FLITE.lock();
    let head = voice.register();
    let mut tokens = Vec::new();
    // SAFETY: under the lock no other thread touches the voice. The utterance is released once, after its last item was
    // read; strings of items are copied before that; null items end every walk.
    unsafe {
        if head.is_null() {
            return Err(refuse());
        }
        let utterance = new_utterance();
        if utterance.is_null() {
            return Err(refuse());
        }
        utt_set_input_text(utterance, text.as_ptr());
        utt_init(utterance, head);
        if default_tokenization(utterance).is_null() || default_textanalysis(utterance).is_null() {
            delete_utterance(utterance);
            return Err(refuse());
        }
        let relation = utt_relation(utterance, c"Token".as_ptr());
        let mut item = if relation.is_null() { std::ptr::null_mut() } else { relation_head(relation) };
        while !item.is_null() && tokens.len() < MAX_ITEMS {
            let mut words = Vec::new();
            let mut word = item_daughter(item);
            while !word.is_null() && words.len() < MAX_ITEMS {
                words.push(feature(word, c"name"));
                word = item_next(word);
            }
            let (before, after) = (feature(item, c"prepunctuation"), feature(item, c"punc"));
            tokens.push(Token { before, text: feature(item, c"name"), words, after });
            item = item_next(item);
        }
        delete_utterance(utterance);
    }
    Ok(tokens)
}

/// A feature of an item as text; empty when it has none.
///
/// # Safety
/// `item` belongs to a live utterance.
unsafe fn feature(item: *const c_void, name: &CStr) -> String {
    // SAFETY: the caller's, and a feature's string lives as long as its item.
    unsafe {
        if item_feat_present(item, name.as_ptr()) == 0 {
            return String::new();
        }
        let text = item_feat_string(item, name.as_ptr());
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

unsafe extern "C" {
    fn new_utterance() -> *mut c_void;
    fn delete_utterance(utterance: *mut c_void);
    fn utt_set_input_text(utterance: *mut c_void, text: *const c_char) -> c_int;
    fn utt_init(utterance: *mut c_void, voice: *mut VoiceHead) -> *mut c_void;
    fn default_tokenization(utterance: *mut c_void) -> *mut c_void;
    fn default_textanalysis(utterance: *mut c_void) -> *mut c_void;
    fn utt_relation(utterance: *mut c_void, name: *const c_char) -> *mut c_void;
    fn relation_head(relation: *mut c_void) -> *mut c_void;
    fn item_next(item: *const c_void) -> *mut c_void;
    fn item_daughter(item: *const c_void) -> *mut c_void;
    fn item_feat_present(item: *const c_void, name: *const c_char) -> c_int;
    fn item_feat_string(item: *const c_void, name: *const c_char) -> *const c_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_money_and_marks_are_read() {
        let tokens = analyze("\"Wait,\" said Dr. Smith: it costs $5.20 in 1984!").unwrap();
        let words: Vec<String> = tokens.iter().flat_map(|token| token.words.clone()).collect();
        assert_eq!(
            words.join(" "),
            "wait said doctor smith it costs five dollars twenty cents in nineteen eighty four"
        );
        assert_eq!((tokens[0].before.as_str(), tokens[0].after.as_str()), ("\"", ",\""));
        assert_eq!(tokens.last().unwrap().after, "!");
        assert!(analyze("").unwrap().is_empty());
    }
}
