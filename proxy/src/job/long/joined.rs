//! The transcript of a long file as its pieces are heard, in any order.

use std::collections::BTreeMap;
use std::ops::Range;

use super::seconds;
use crate::job::work::Transcript;
use crate::transcript::text::{Spacing, extend};
use crate::transcript::{Word, repair, stitch};

/// What was heard of a piece.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Place of the piece, from 0.
    pub index: usize,
    /// Position of its first sample.
    pub start: u64,
    /// Positions of its seams.
    pub core: Range<u64>,
    /// What the engine made of it, with times from the piece's start on.
    pub transcript: Transcript,
}

/// Joins the pieces. Text that it has told never changes.
#[derive(Debug)]
pub struct Joined {
    /// How far pieces go beyond their seams, seconds.
    reach: f64,
    words: Vec<Word>,
    /// How sure engines are of each of the words; `None` once one does not say.
    confidences: Option<Vec<f32>>,
    /// Words that are part of `text`.
    told: usize,
    text: String,
    /// Decided by the first piece with two words.
    spacing: Option<Spacing>,
    /// Pieces that are there before those ahead of them.
    early: BTreeMap<usize, Heard>,
    next: usize,
    /// Languages by the length of their text.
    languages: BTreeMap<String, usize>,
    model: Option<String>,
}

impl Joined {
    /// None heard yet of pieces that go so many seconds beyond their seams.
    pub fn new(reach: f64) -> Self {
        Self {
            reach,
            words: Vec::new(),
            confidences: Some(Vec::new()),
            told: 0,
            text: String::new(),
            spacing: None,
            early: BTreeMap::new(),
            next: 0,
            languages: BTreeMap::new(),
            model: None,
        }
    }

    /// Takes a piece. Returns what the text grew by; what it has so far ends at a word that later pieces cannot change.
    pub fn push(&mut self, heard: Heard) -> String {
        self.early.insert(heard.index, heard);
        let mut seam = None;
        while let Some(heard) = self.early.remove(&self.next) {
            self.next += 1;
            seam = Some(seconds(heard.core.end));
            self.append(heard);
        }
        seam.map_or_else(String::new, |seam| self.tell(stitch::settled(&self.words, seam, self.reach)))
    }

    /// The whole, of so many seconds of audio, and what the text grew by at the end.
    pub fn finish(mut self, duration: f64) -> (Transcript, String) {
        let delta = self.tell(self.words.len());
        let language = self.languages.into_iter().max_by_key(|(_, len)| *len).map(|(language, _)| language);
        let transcript = Transcript {
            text: self.text,
            language,
            duration: Some(duration),
            words: self.words,
            turns: None,
            confidences: self.confidences.unwrap_or_default(),
            model: self.model,
        };
        (transcript, delta)
    }

    fn append(&mut self, heard: Heard) {
        let Heard { start, core, transcript, .. } = heard;
        let text = transcript.text.trim();
        if let Some(language) = transcript.language {
            *self.languages.entry(language).or_default() += text.len() + 1;
        }
        self.model = self.model.take().or(transcript.model);
        let (offset, from, to) = (seconds(start), seconds(core.start), seconds(core.end));
        let (mut words, mut confidences) = (transcript.words, transcript.confidences);
        if words.is_empty() && !text.is_empty() {
            // An engine without times: the text of the whole piece.
            words.push(Word { start: from - offset, end: to - offset, text: text.to_owned() });
        }
        repair(&mut words);
        for word in &mut words {
            (word.start, word.end) = (word.start + offset, word.end + offset);
        }
        if self.spacing.is_none() && words.len() > 1 {
            self.spacing = Some(Spacing::of(&words));
        }
        // Where spaces are carried, the first word of an engine's reply may come without one.
        if self.spacing == Some(Spacing::Carried)
            && let Some(first) = words.first_mut()
            && !first.text.starts_with(char::is_whitespace)
        {
            first.text.insert(0, ' ');
        }
        let known = confidences.len() == words.len();
        let (keep, skip) = if self.words.is_empty() {
            self.words = words;
            (0, 0)
        } else {
            stitch::stitch(&mut self.words, words, from, self.reach)
        };
        self.confidences = self.confidences.take().filter(|_| known).map(|mut all| {
            all.truncate(keep);
            all.extend(confidences.drain(skip.min(confidences.len())..));
            all
        });
    }

    /// Adds the words before `until` to the text.
    fn tell(&mut self, until: usize) -> String {
        let from = self.text.len();
        let words = self.words.get(self.told..until).unwrap_or_default();
        extend(&mut self.text, words, self.spacing.unwrap_or(Spacing::Implied));
        self.told = self.told.max(until);
        self.text[from..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::text::join;

    fn heard(index: usize, words: &[(f64, &str)]) -> Heard {
        let (from, to) = (index as u64 * 160_000, (index as u64 + 1) * 160_000);
        let start = from.saturating_sub(16_000);
        let offset = seconds(start);
        let words: Vec<Word> = words
            .iter()
            .map(|&(at, text)| Word { start: at - offset, end: at + 0.3 - offset, text: text.into() })
            .collect();
        let text = join(&words, Spacing::of(&words));
        let confidences = words.iter().map(|word| (word.text.len() as f32) / 10.0).collect();
        let language = Some("en".into());
        let transcript = Transcript { text, words, confidences, language, ..Transcript::default() };
        Heard { index, start, core: from..to, transcript }
    }

    #[test]
    fn pieces_in_any_order_become_one_text_that_only_grows() {
        let pieces = [
            heard(0, &[(0.1, " One"), (5.0, " two."), (9.6, " Three"), (10.6, " f")]),
            heard(1, &[(9.6, "Three"), (10.5, " four"), (19.0, " five.")]),
            heard(2, &[(19.0, "Five."), (21.0, " Six."), (28.0, " Seven.")]),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let (mut joined, mut told) = (Joined::new(1.0), String::new());
            for piece in order {
                told.push_str(&joined.push(pieces[piece].clone()));
            }
            let (transcript, rest) = joined.finish(30.0);
            told.push_str(&rest);
            assert_eq!(transcript.text, "One two. Three four five. Six. Seven.", "{order:?}");
            assert_eq!(told, transcript.text, "{order:?}");
            assert_eq!(transcript.words.len(), 7);
            // Each word has its own, whichever piece it came from; those of the second begin without a space.
            assert_eq!(transcript.confidences.len(), 7);
            assert_eq!(transcript.confidences[5], 0.5, "Six.");
            assert_eq!((transcript.language.as_deref(), transcript.duration), (Some("en"), Some(30.0)));
        }
    }

    #[test]
    fn the_first_words_are_told_before_later_pieces_are_heard() {
        let mut joined = Joined::new(1.0);
        assert_eq!(joined.push(heard(1, &[(12.0, "c")])), "");
        assert_eq!(joined.push(heard(0, &[(0.1, "a"), (8.9, "b")])), "a b c");
    }

    #[test]
    fn an_engine_without_times_gives_the_text_of_each_piece() {
        let piece = |index, text: &str| Heard {
            transcript: Transcript { text: text.into(), ..Transcript::default() },
            ..heard(index, &[])
        };
        let mut joined = Joined::new(0.0);
        joined.push(piece(0, "So it is."));
        joined.push(piece(1, ""));
        joined.push(piece(2, "Yes."));
        assert_eq!(joined.finish(30.0).0.text, "So it is. Yes.");
    }
}
