//! Words cut into subtitle cues, and cues written as SRT and WebVTT.

use super::sanitise::reported_spans;
use super::span::{MILLISECOND, SECOND, Span, millis};
use super::text::{Joint, Spacing, ends_sentence};
use super::unit::{one_line, units, width};
use super::{Merged, SPEAKER_UNKNOWN, Word};

/// Columns of a line and lines of a cue, as broadcasters have it.
const LINE_WIDTH: usize = 42;
const LINES: usize = 2;
/// A longer silence ends a cue.
const SILENCE: i64 = 800 * MILLISECOND;
/// A cue stays on screen no longer than this, and no shorter than [`MIN_DURATION_MS`] if the next leaves room.
const DURATION_LIMIT: i64 = 7 * SECOND;
const MIN_DURATION_MS: i64 = 700;
/// Where cues overlap, the first keeps the screen for this long, or for all of its own time if that is less.
const MIN_SHARE_MS: i64 = 300;

/// One subtitle. Cues of one list start one after another and never overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    /// First moment on screen, in milliseconds.
    pub start_ms: i64,
    /// Last moment on screen, in milliseconds, after `start_ms`.
    pub end_ms: i64,
    /// Speaker label to show before the text.
    pub speaker: Option<String>,
    /// One or two lines of about 42 columns; only a word that is longer by itself makes a longer line.
    pub lines: Vec<String>,
}

/// Makes cues from words; with a merge of the same words, also by speaker.
pub fn cues(words: &[Word], merged: Option<&Merged>) -> Vec<Cue> {
    let speaker = |word: usize| merged.map(|merged| merged.label(word).unwrap_or(SPEAKER_UNKNOWN));
    let spans = reported_spans(words).unwrap_or_else(|| vec![Span { start: 0, end: 0 }; words.len()]);
    let spacing = Spacing::of(words);
    let mut drafts: Vec<(Span, Cue)> = Vec::new();
    let mut sentence_ended = false;
    for unit in units(words, &spans, spacing, |word| speaker(word) != speaker(word - 1)) {
        let speaker = speaker(unit.words.start);
        let fitting = drafts.last_mut().filter(|(span, cue)| {
            !sentence_ended
                && cue.speaker == speaker.map(one_line)
                && unit.span.start - span.end <= SILENCE
                && unit.span.end - span.start <= DURATION_LIMIT
        });
        sentence_ended = ends_sentence(&unit.text);
        if let Some((span, cue)) = fitting
            && add(&mut cue.lines, unit.joint, &unit.text)
        {
            span.end = span.end.max(unit.span.end);
            continue;
        }
        let cue = Cue { start_ms: 0, end_ms: 0, speaker: speaker.map(one_line), lines: vec![unit.text] };
        drafts.push((unit.span, cue));
    }
    time(drafts)
}

/// Adds text to the last line, or to a new one; `false` if there is no room.
fn add(lines: &mut Vec<String>, joint: Joint, text: &str) -> bool {
    let Some(line) = lines.last_mut() else { return false };
    let space = usize::from(joint == Joint::Space);
    if width(line) + space + width(text) <= LINE_WIDTH {
        line.push_str(if space == 1 { " " } else { "" });
        line.push_str(text);
        return true;
    }
    if lines.len() == LINES {
        return false;
    }
    lines.push(text.to_owned());
    true
}

/// Gives cues their time on screen.
fn time(drafts: Vec<(Span, Cue)>) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::with_capacity(drafts.len());
    for (span, cue) in drafts {
        let mut start_ms = millis(span.start);
        let length_ms = (millis(span.end) - start_ms).min(millis(DURATION_LIMIT));
        if let Some(last) = cues.last_mut() {
            let share_ms = (last.end_ms - last.start_ms).clamp(1, MIN_SHARE_MS);
            start_ms = start_ms.max(last.start_ms + share_ms);
            let wanted_ms = (last.end_ms - last.start_ms).max(MIN_DURATION_MS);
            last.end_ms = (last.start_ms + wanted_ms).min(start_ms);
        }
        cues.push(Cue { start_ms, end_ms: start_ms + length_ms, ..cue });
    }
    if let Some(last) = cues.last_mut() {
        last.end_ms = last.end_ms.max(last.start_ms + MIN_DURATION_MS);
    }
    cues
}

/// Writes cues as SubRip text. A speaker stands before the text: `Speaker_0: Hello`.
pub fn srt(cues: &[Cue]) -> String {
    let mut out = String::new();
    for (index, cue) in cues.iter().enumerate() {
        let prefix = cue.speaker.as_ref().map(|speaker| format!("{speaker}: ")).unwrap_or_default();
        // The format has no escapes; an arrow in the text would pass for a time line.
        let text = format!("{prefix}{}", cue.lines.join("\n")).replace("-->", "->");
        let (start, end) = (timestamp(cue.start_ms, ','), timestamp(cue.end_ms, ','));
        out.push_str(&format!("{}\n{start} --> {end}\n{text}\n\n", index + 1));
    }
    out
}

/// Writes cues as WebVTT. A speaker becomes a voice span: `<v Speaker_0>Hello`.
pub fn vtt(cues: &[Cue]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for cue in cues {
        let voice =
            cue.speaker.as_ref().map(|speaker| format!("<v {}>", escape(speaker))).unwrap_or_default();
        let text = escape(&cue.lines.join("\n"));
        let (start, end) = (timestamp(cue.start_ms, '.'), timestamp(cue.end_ms, '.'));
        out.push_str(&format!("{start} --> {end}\n{voice}{text}\n\n"));
    }
    out
}

fn timestamp(ms: i64, point: char) -> String {
    let (seconds, ms) = (ms.max(0) / 1000, ms.max(0) % 1000);
    format!("{:02}:{:02}:{:02}{point}{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
