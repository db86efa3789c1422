//! The merge, step by step: words and turns in, speakers and blocks out.

use super::blocks::{self, Block};
use super::span::Span;
use super::{Turn, Word, assign, backchannel, confidence, legacy, offset, sanitise, speakers};

/// How words find their speaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// The likeliest sequence of speakers over the whole recording.
    #[default]
    Continuity,
    /// Each word alone, by midpoint then overlap, as the proxy that this one replaces did it.
    Legacy,
}

/// What the caller decides or knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Params<'a> {
    /// The rule.
    pub rule: Rule,
    /// Language of the words: a code ("en", "en-US") or an English name. `None` if unknown.
    pub language: Option<&'a str>,
    /// Whether [`Merged::confidences`] are wanted. [`Rule::Legacy`] has none.
    pub confidences: bool,
}

/// The result of [`merge`].
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// Speaker labels of all usable turns, in order of appearance.
    pub labels: Vec<String>,
    /// Who spoke each word: an index into [`Merged::labels`]; `None` if no speaker can be named.
    pub speakers: Vec<Option<usize>>,
    /// How sure that is for each word, 0 to 1; empty when not asked for.
    pub confidences: Vec<f32>,
    /// The words in blocks: every word once, in order.
    pub blocks: Vec<Block>,
}

impl Merged {
    /// Label of a word's speaker; `None` if unknown or out of range.
    pub fn label(&self, word: usize) -> Option<&str> {
        let speaker = *self.speakers.get(word)?;
        self.labels.get(speaker?).map(String::as_str)
    }

    /// Names speakers anew, in the order in which they speak; those of `known` keep their names.
    pub fn rename(&mut self, known: &[String], name: impl Fn(usize) -> String) {
        let mut renamed: Vec<Option<String>> = vec![None; self.labels.len()];
        let mut named = 0;
        for speaker in self.speakers.iter().flatten().copied().chain(0..self.labels.len()) {
            if renamed[speaker].is_some() {
                continue;
            }
            if known.contains(&self.labels[speaker]) {
                renamed[speaker] = Some(self.labels[speaker].clone());
                continue;
            }
            let mut free = name(named);
            named += 1;
            while known.contains(&free) {
                free = name(named);
                named += 1;
            }
            renamed[speaker] = Some(free);
        }
        self.labels = renamed.into_iter().map(Option::unwrap_or_default).collect();
        for block in &mut self.blocks {
            let speaker = self.speakers.get(block.words.start).copied().flatten();
            if let Some(label) = speaker.and_then(|speaker| self.labels.get(speaker)) {
                block.speaker.clone_from(label);
            }
        }
    }
}

/// Says who spoke which word.
///
/// `words` are taken in the order of the text, `turns` in any order; times may be missing (NaN) or absurd. Under
/// [`Rule::Continuity`], time is `O(turns log turns + words * speakers)` with at most 32 speakers. Under
/// [`Rule::Legacy`], it is words times the turns that overlap each of them.
pub fn merge(words: &[Word], turns: &[Turn], params: &Params<'_>) -> Merged {
    match params.rule {
        Rule::Continuity => by_continuity(words, turns, params),
        Rule::Legacy => by_legacy(words, turns),
    }
}

fn by_continuity(words: &[Word], turns: &[Turn], params: &Params<'_>) -> Merged {
    let mut speakers = speakers::collect(turns);
    let labels: Vec<String> = speakers.iter().map(|speaker| speaker.label.clone()).collect();
    let reported = sanitise::reported_spans(words).unwrap_or_else(|| {
        // Words without any time have no speaker either.
        speakers.clear();
        vec![Span { start: 0, end: 0 }; words.len()]
    });

    let mut spans = sanitise::scoring_spans(words, &reported);
    let late = offset::estimate(&spans, &speakers);
    for span in &mut spans {
        *span = Span { start: span.start - late, end: span.end - late };
    }
    let costs = assign::switch_costs(words, &spans);
    let mut assigned = assign::assign(&spans, &speakers, &costs);
    backchannel::reassign(words, &spans, &speakers, params.language, &mut assigned);

    let chosen: Vec<Option<usize>> = assigned.iter().map(|word| word.speaker).collect();
    let confidences =
        if params.confidences { confidence::confidences(&spans, &speakers, &chosen) } else { Vec::new() };
    let blocks = blocks::group(words, &reported, &labels, &chosen);
    Merged { labels, speakers: chosen, confidences, blocks }
}

fn by_legacy(words: &[Word], turns: &[Turn]) -> Merged {
    let (labels, speakers) = legacy::assign(words, turns);
    let blocks = legacy::group(words, &labels, &speakers);
    Merged { labels, speakers, confidences: Vec::new(), blocks }
}
