//! The merge, step by step: words and turns in, speakers and blocks out.

use super::blocks::{self, Block};
use super::span::{MILLISECOND, Span};
use super::{Turn, Word, assign, backchannel, legacy, offset, sanitise, speakers};

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
}

/// Who spoke one word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribution {
    /// Index into [`Merged::labels`]; `None` if nobody can be named.
    pub speaker: Option<usize>,
    /// From 0 (unknown) over 0.5 (a toss between two) towards 1. It ranks words; it is not a calibrated
    /// probability. `None` under [`Rule::Legacy`], which weighs nothing.
    pub confidence: Option<f32>,
    /// Two speakers or more each talk over half of the word. Always `false` under [`Rule::Legacy`].
    pub overlap: bool,
}

/// Counts over a whole merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Words without a speaker.
    pub unknown: usize,
    /// Single words of one speaker between two of another: mostly flicker.
    pub islands: usize,
    /// How late the words' clock was found to run against the turns', in milliseconds.
    pub timing_offset_ms: i64,
    /// Words with [`Attribution::overlap`].
    pub overlaps: usize,
}

/// The result of [`merge`].
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// Speaker labels of all usable turns, in order of appearance.
    pub labels: Vec<String>,
    /// One entry per word.
    pub attributions: Vec<Attribution>,
    /// The words in blocks: every word once, in order.
    pub blocks: Vec<Block>,
    /// Counts.
    pub report: Report,
}

impl Merged {
    /// Label of a word's speaker; `None` if unknown or out of range.
    pub fn label(&self, word: usize) -> Option<&str> {
        let speaker = self.attributions.get(word)?.speaker?;
        self.labels.get(speaker).map(String::as_str)
    }

    /// Labels that own a word, in order of appearance. A diarizer may hear more speakers than spoke words.
    pub fn speakers_used(&self) -> Vec<&str> {
        let mut used = vec![false; self.labels.len()];
        for speaker in self.attributions.iter().filter_map(|word| word.speaker) {
            used[speaker] = true;
        }
        self.labels.iter().zip(used).filter(|(_, used)| *used).map(|(label, _)| label.as_str()).collect()
    }
}

/// Says who spoke which word.
///
/// `words` are taken in the order of the text, `turns` in any order; times may be missing (NaN) or absurd. Under
/// [`Rule::Continuity`], time is `O(turns log turns + words * speakers)` with at most 32 speakers. Under
/// [`Rule::Legacy`], it is words times the turns that overlap each of them.
pub fn merge(words: &[Word], turns: &[Turn], params: &Params<'_>) -> Merged {
    match params.rule {
        Rule::Continuity => by_continuity(words, turns, params.language),
        Rule::Legacy => by_legacy(words, turns),
    }
}

fn by_continuity(words: &[Word], turns: &[Turn], language: Option<&str>) -> Merged {
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
    backchannel::reassign(words, &spans, &speakers, language, &mut assigned);

    let attributions: Vec<Attribution> = assigned
        .iter()
        .map(|word| Attribution {
            speaker: word.speaker,
            confidence: Some(word.speaker.map_or(0.0, |_| logistic(word.margin))),
            overlap: word.overlap,
        })
        .collect();
    let chosen: Vec<Option<usize>> = assigned.iter().map(|word| word.speaker).collect();
    let blocks = blocks::group(words, &reported, &labels, &chosen);
    let report = Report { timing_offset_ms: late / MILLISECOND, ..count(&attributions) };
    Merged { labels, attributions, blocks, report }
}

fn by_legacy(words: &[Word], turns: &[Turn]) -> Merged {
    let (labels, speakers) = legacy::assign(words, turns);
    let blocks = legacy::group(words, &labels, &speakers);
    let attributions: Vec<Attribution> = speakers
        .into_iter()
        .map(|speaker| Attribution { speaker, confidence: None, overlap: false })
        .collect();
    let report = count(&attributions);
    Merged { labels, attributions, blocks, report }
}

fn count(words: &[Attribution]) -> Report {
    let island = |window: &&[Attribution]| {
        window[0].speaker == window[2].speaker && window[1].speaker != window[0].speaker
    };
    Report {
        unknown: words.iter().filter(|word| word.speaker.is_none()).count(),
        islands: words.windows(3).filter(island).count(),
        timing_offset_ms: 0,
        overlaps: words.iter().filter(|word| word.overlap).count(),
    }
}

fn logistic(margin: f32) -> f32 {
    1.0 / (1.0 + (-margin).exp())
}
