//! Words cut into subtitle cues that are easy to read.
//!
//! The rules are those of broadcasters (BBC Subtitle Guidelines; Netflix Timed Text Style Guide): two lines of 42 columns, at most 7
//! seconds, no more than 20 characters a second where the times allow, no cue over a pause or a change of speaker, cuts at the
//! ends of sentences before cuts at commas before any others, lines of like length, and no word left alone.

use std::ops::Range;

use super::sanitise::reported_spans;
use super::span::{MILLISECOND, SECOND, Span, millis};
use super::subtitle::Cue;
use super::text::{Joint, Spacing, ends_clause, ends_sentence};
use super::unit::{PAUSE, Unit, one_line, units, width};
use super::{Merged, SPEAKER_UNKNOWN, Word};

/// Columns of a line; a cue has up to two.
const LINE_WIDTH: usize = 42;
/// A cue stays on screen no longer than this, and no shorter than [`MIN_DURATION_MS`] if the next leaves room.
const DURATION_LIMIT: i64 = 7 * SECOND;
const MIN_DURATION_MS: i64 = 800;
/// Reading speed that a cue's time on screen is lengthened to, where the next leaves room.
const COLUMNS_PER_SECOND: i64 = 20;
/// Where cues overlap, the first keeps the screen for this long, or for all of its own time if that is less.
const MIN_SHARE_MS: i64 = 300;

/// What cuts cost; the cheapest sequence of cues is taken. One cue more must be worth its [`cost::CUE`].
mod cost {
    pub(super) const CUE: f32 = 10.0;
    pub(super) const ENDS_AT_CLAUSE: f32 = 2.0;
    pub(super) const ENDS_ANYWHERE: f32 = 8.0;
    pub(super) const SENTENCE_INSIDE: f32 = 12.0;
    pub(super) const LONE_WORD: f32 = 8.0;
    pub(super) const TOO_SHORT: f32 = 8.0;
    /// For each column a second above the reading speed, up to [`MOST_HASTE`].
    pub(super) const HASTE: f32 = 0.5;
    pub(super) const MOST_HASTE: f32 = 10.0;
    /// For each column by which two lines differ.
    pub(super) const UNEVEN: f32 = 0.1;
    pub(super) const LINE_ENDS_AT_CLAUSE: f32 = -1.5;
    pub(super) const LONE_WORD_ON_LINE: f32 = 3.0;
}

/// Makes cues from words; with a merge of the same words, also by speaker.
pub fn cues(words: &[Word], merged: Option<&Merged>) -> Vec<Cue> {
    let speaker = |word: usize| merged.map(|merged| merged.label(word).unwrap_or(SPEAKER_UNKNOWN));
    let spans = reported_spans(words).unwrap_or_else(|| vec![Span { start: 0, end: 0 }; words.len()]);
    let units = units(words, &spans, Spacing::of(words), |word| speaker(word) != speaker(word - 1));
    let mut drafts = Vec::new();
    let mut rest = units.as_slice();
    while !rest.is_empty() {
        let label = speaker(rest[0].words.start);
        let same = |pair: &[Unit]| {
            pair[1].span.start - pair[0].span.end <= PAUSE && speaker(pair[1].words.start) == label
        };
        let (run, after) = rest.split_at(1 + rest.windows(2).take_while(|pair| same(pair)).count());
        let run = Run::new(run);
        drafts.extend(run.cut().into_iter().map(|cue| run.draft(cue, label.map(one_line))));
        rest = after;
    }
    time(drafts)
}

/// Words without a pause or a change of speaker between them.
struct Run<'a> {
    units: &'a [Unit],
    /// The columns at which each unit begins and ends when all are on one line.
    columns: Vec<Range<usize>>,
}

impl<'a> Run<'a> {
    fn new(units: &'a [Unit]) -> Self {
        let mut at = 0;
        let columns = units.iter().map(|unit| {
            let begin = at + usize::from(unit.joint == Joint::Space && at > 0);
            at = begin + width(&unit.text);
            begin..at
        });
        Self { units, columns: columns.collect() }
    }

    /// The cues that cost least together, by dynamic programming over where the last one begins.
    fn cut(&self) -> Vec<Range<usize>> {
        // Of the units before each place: the least cost, and where the last cue begins.
        let mut best: Vec<(f32, usize)> = vec![(0.0, 0)];
        for end in 1..=self.units.len() {
            let mut cheapest = (f32::INFINITY, end - 1);
            for begin in (0..end).rev() {
                let Some(cost) = self.cost(begin..end) else { break };
                let total = best[begin].0 + cost;
                if total < cheapest.0 {
                    cheapest = (total, begin);
                }
            }
            best.push(cheapest);
        }
        let mut cues = Vec::new();
        let mut end = self.units.len();
        while end > 0 {
            let begin = best[end].1;
            cues.push(begin..end);
            end = begin;
        }
        cues.reverse();
        cues
    }

    /// What a cue of these units costs; `None` when they do not fit. A single unit always fits.
    fn cost(&self, cue: Range<usize>) -> Option<f32> {
        let units = &self.units[cue.clone()];
        let span = self.span(&cue);
        let lone = units.len() == 1;
        if !lone && span.duration() > DURATION_LIMIT {
            return None;
        }
        let mut total = cost::CUE + self.line_break(&cue)?.1;
        let (last, inner) = units.split_last()?;
        let whole = ends_sentence(&last.text);
        if cue.end < self.units.len() && !whole {
            total += if ends_clause(&last.text) { cost::ENDS_AT_CLAUSE } else { cost::ENDS_ANYWHERE };
        }
        total += inner.iter().filter(|unit| ends_sentence(&unit.text)).count() as f32 * cost::SENTENCE_INSIDE;
        let begins = cue.start == 0 || ends_sentence(&self.units[cue.start - 1].text);
        if lone && self.units.len() > 1 && !(whole && begins) {
            total += cost::LONE_WORD;
        }
        let next = self.units.get(cue.end).map_or(span.end + PAUSE, |next| next.span.start.max(span.end));
        let shown = (next - span.start).max(MILLISECOND);
        if millis(shown) < MIN_DURATION_MS {
            total += cost::TOO_SHORT;
        }
        let pace = self.width(&cue) as f32 * SECOND as f32 / shown as f32;
        total += ((pace - COLUMNS_PER_SECOND as f32).max(0.0) * cost::HASTE).min(cost::MOST_HASTE);
        Some(total)
    }

    /// Where the second line begins, if there is one, and what that costs; `None` when two lines do not hold the units.
    fn line_break(&self, cue: &Range<usize>) -> Option<(Option<usize>, f32)> {
        if self.width(cue) <= LINE_WIDTH || cue.len() == 1 {
            return Some((None, 0.0));
        }
        let begin = self.columns[cue.start].start;
        let middle = begin + self.width(cue) / 2;
        let near = cue.start + self.columns[cue.clone()].partition_point(|columns| columns.end <= middle);
        // The best place is near the middle; further away lines only get less even.
        let places = near.saturating_sub(3).max(cue.start + 1)..(near + 4).min(cue.end);
        let cost = |at: usize| {
            let (first, second) = (self.width(&(cue.start..at)), self.width(&(at..cue.end)));
            let (begin, end) = (at - cue.start, cue.end - at);
            // A word that is wider than a line has one of its own.
            let fits = |width: usize, units: usize| width <= LINE_WIDTH || units == 1;
            if !fits(first, begin) || !fits(second, end) {
                return None;
            }
            let mut cost = first.abs_diff(second) as f32 * cost::UNEVEN;
            if ends_clause(&self.units[at - 1].text) {
                cost += cost::LINE_ENDS_AT_CLAUSE;
            }
            if begin == 1 || end == 1 {
                cost += cost::LONE_WORD_ON_LINE;
            }
            Some((Some(at), cost))
        };
        places.filter_map(cost).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn width(&self, cue: &Range<usize>) -> usize {
        self.columns[cue.end - 1].end - self.columns[cue.start].start
    }

    fn span(&self, cue: &Range<usize>) -> Span {
        let units = &self.units[cue.clone()];
        let start = units[0].span.start;
        Span { start, end: units.iter().map(|unit| unit.span.end).max().unwrap_or(start) }
    }

    fn draft(&self, cue: Range<usize>, speaker: Option<String>) -> Draft {
        let middle = self.line_break(&cue).and_then(|(at, _)| at);
        let lines = match middle {
            None => vec![self.line(&cue)],
            Some(at) => vec![self.line(&(cue.start..at)), self.line(&(at..cue.end))],
        };
        Draft { span: self.span(&cue), speaker, lines, columns: self.width(&cue) }
    }

    fn line(&self, units: &Range<usize>) -> String {
        let mut line = String::new();
        for unit in &self.units[units.clone()] {
            if unit.joint == Joint::Space && !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&unit.text);
        }
        line
    }
}

/// A cue that has its words' times.
struct Draft {
    span: Span,
    speaker: Option<String>,
    lines: Vec<String>,
    columns: usize,
}

/// Gives cues their time on screen: that of their words, lengthened for the reader as far as the next leaves room.
fn time(drafts: Vec<Draft>) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::with_capacity(drafts.len());
    let mut wanted_ms = 0;
    for Draft { span, speaker, lines, columns } in drafts {
        let mut start_ms = millis(span.start);
        let length_ms = (millis(span.end) - start_ms).clamp(0, millis(DURATION_LIMIT));
        if let Some(last) = cues.last_mut() {
            let share_ms = (last.end_ms - last.start_ms).clamp(1, MIN_SHARE_MS);
            start_ms = start_ms.max(last.start_ms + share_ms);
            last.end_ms = (last.start_ms + wanted_ms).min(start_ms);
        }
        let read_ms = columns as i64 * 1000 / COLUMNS_PER_SECOND;
        wanted_ms = length_ms.max(read_ms).clamp(MIN_DURATION_MS, millis(DURATION_LIMIT));
        cues.push(Cue { start_ms, end_ms: start_ms + length_ms, speaker, lines });
    }
    if let Some(last) = cues.last_mut() {
        last.end_ms = last.start_ms + wanted_ms;
    }
    cues
}
