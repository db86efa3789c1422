//! Cuts 16 kHz audio into pieces: at pauses where there are some, else where it is quietest.

use std::ops::Range;

use super::samples;
use crate::audio::voice::{FRAME, Voice};

/// Audio that the voice activity hears before it counts: a recurrent network needs some.
const WARM_UP: usize = 40 * FRAME;
/// A frame is part of a pause when its score is so far below the threshold.
const HYSTERESIS: f32 = 0.15;
/// Frames over which loudness is averaged: about the length of a syllable.
const SYLLABLE: usize = 9;
/// Frames beyond which a longer pause is no better place.
const ENOUGH: usize = 62;
/// Seconds in which a pause is looked for, where pieces are long enough.
const SEARCH: f64 = 10.0;

/// Where audio may be cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Longest piece, seconds.
    pub piece: f64,
    /// How far a piece goes beyond its seams, seconds.
    pub reach: f64,
    /// Score from which a frame is speech, 0 to 1.
    pub threshold: f32,
    /// Least length of a pause, seconds.
    pub pause: f64,
}

/// A stretch of audio. Neighbours overlap.
#[derive(Debug, PartialEq)]
pub struct Piece {
    /// Place among the pieces, from 0.
    pub index: usize,
    /// Position of its first sample.
    pub start: u64,
    /// Positions of its seams: what it is there for.
    pub core: Range<u64>,
    /// Its samples, with what lies beyond the seams.
    pub samples: Vec<i16>,
    /// Whether it ends with the audio.
    pub is_last: bool,
}

/// Takes audio and gives pieces. Never holds more than a piece and what decides about its end.
pub struct Cutter<V> {
    rules: Rules,
    voice: V,
    /// Audio from `base` on.
    tape: Vec<i16>,
    base: u64,
    /// Where the next piece's core begins.
    seam: u64,
    index: usize,
    ended: bool,
}

impl<V: Voice> Cutter<V> {
    /// One at position 0.
    pub fn new(rules: Rules, voice: V) -> Self {
        Self { rules, voice, tape: Vec::new(), base: 0, seam: 0, index: 0, ended: false }
    }

    /// Whether it needs more audio before it can give a piece.
    pub fn is_hungry(&self) -> bool {
        !self.ended && self.position() - self.seam < self.enough()
    }

    /// Takes samples.
    pub fn push(&mut self, samples: impl IntoIterator<Item = i16>) {
        self.tape.extend(samples);
    }

    /// No more audio comes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Position behind the last sample.
    pub fn position(&self) -> u64 {
        self.base + self.tape.len() as u64
    }

    /// The next piece; `None` when there is no more, or while the cutter is hungry.
    pub fn next(&mut self) -> Option<Piece> {
        let left = self.position() - self.seam;
        if self.is_hungry() || left == 0 {
            return None;
        }
        let is_last = left <= self.longest();
        let end = if is_last { self.position() } else { self.cut(left) };
        let reach = samples(self.rules.reach);
        let from = self.seam.saturating_sub(reach).max(self.base);
        let to = (end + reach).min(self.position());
        let piece = Piece {
            index: self.index,
            start: from,
            core: self.seam..end,
            samples: self.tape[self.at(from)..self.at(to)].to_vec(),
            is_last,
        };
        let kept = if is_last { end } else { end.saturating_sub(reach).max(self.base) };
        self.tape.drain(..self.at(kept));
        (self.base, self.seam, self.index) = (kept, end, self.index + 1);
        Some(piece)
    }

    fn at(&self, position: u64) -> usize {
        usize::try_from(position - self.base).unwrap_or(usize::MAX).min(self.tape.len())
    }

    fn longest(&self) -> u64 {
        samples(self.rules.piece).max(FRAME as u64)
    }

    /// Audio from the seam on that two pieces share evenly when it ends before this: no piece is a short rest.
    fn enough(&self) -> u64 {
        self.longest() * 4 / 3
    }

    /// The best place for the end of the next piece: in the end of the longest one, and in the middle of what is `left` if that
    /// is enough for two only.
    fn cut(&mut self, left: u64) -> u64 {
        let longest = self.longest();
        let search = (longest / 6).max((longest / 3).min(samples(SEARCH)));
        let last = if left < self.enough() { (left + search) / 2 } else { longest };
        let (first, last) = (self.seam + last - search, self.seam + last);
        let (from, to) = (self.at(first), self.at(last));
        let lead = from.saturating_sub(WARM_UP);
        self.voice.reset();
        for frame in self.tape[lead..from].chunks_exact(FRAME) {
            self.voice.score(frame);
        }
        let frames: Vec<Frame> = self.tape[from..to]
            .chunks_exact(FRAME)
            .map(|frame| Frame { score: self.voice.score(frame), level: level(frame) })
            .collect();
        let pause = (self.rules.pause * 16_000.0) as usize / FRAME;
        first + best(&frames, self.rules.threshold - HYSTERESIS, pause) as u64 * FRAME as u64
    }
}

/// What is known of 16 ms.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Frame {
    score: f32,
    /// Mean of the squared samples.
    level: f64,
}

fn level(frame: &[i16]) -> f64 {
    frame.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / frame.len() as f64
}

/// The frame to cut before: in the middle of the longest pause of at least `pause` frames below `quiet`, the last of equals, and
/// not long before the end of one that is longer than enough; without a pause where the loudness around is least.
fn best(frames: &[Frame], quiet: f32, pause: usize) -> usize {
    let mut found: Option<(usize, usize)> = None;
    let mut start = None;
    for at in 0..=frames.len() {
        match (frames.get(at).is_some_and(|frame| frame.score < quiet), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                let len = (at - from).min(ENOUGH);
                if at - from >= pause.max(1) && found.is_none_or(|(longest, _)| len >= longest) {
                    found = Some((len, at - len.div_ceil(2)));
                }
                start = None;
            }
            _ => {}
        }
    }
    if let Some((_, place)) = found {
        return place;
    }
    let around = |at: usize| {
        let near = &frames[at.saturating_sub(SYLLABLE / 2)..(at + SYLLABLE / 2 + 1).min(frames.len())];
        near.iter().map(|frame| frame.level).sum::<f64>() / near.len() as f64
    };
    (0..frames.len()).min_by(|a, b| around(*a).total_cmp(&around(*b))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { piece: 6.0, reach: 0.5, threshold: 0.5, pause: 0.2 };
    const SECOND: usize = 16_000;

    /// Takes what is loud for speech.
    struct Loud;

    impl Voice for Loud {
        fn score(&mut self, frame: &[i16]) -> f32 {
            if level(frame) > 10_000.0 { 0.9 } else { 0.1 }
        }

        fn reset(&mut self) {}
    }

    /// Sound without end, silent in these ranges of seconds.
    fn sound(seconds: f64, pauses: &[Range<f64>]) -> Vec<i16> {
        let silent = |at: f64| pauses.iter().any(|pause| pause.contains(&at));
        (0..(seconds * SECOND as f64) as usize)
            .map(|at| if silent(at as f64 / SECOND as f64) { 0 } else { (at % 97) as i16 * 100 - 4800 })
            .collect()
    }

    fn pieces(audio: &[i16], rules: Rules, push: usize) -> Vec<Piece> {
        let mut cutter = Cutter::new(rules, Loud);
        let (mut pieces, mut rest) = (Vec::new(), audio.chunks(push));
        loop {
            while cutter.is_hungry() {
                match rest.next() {
                    Some(chunk) => cutter.push(chunk.iter().copied()),
                    None => cutter.end(),
                }
            }
            match cutter.next() {
                Some(piece) => pieces.push(piece),
                None => return pieces,
            }
        }
    }

    #[test]
    fn cuts_are_in_the_middle_of_the_longest_pause() {
        let audio = sound(11.0, &[1.0..2.0, 4.3..4.6, 5.0..5.6]);
        let pieces = pieces(&audio, RULES, 1000);
        assert_eq!(pieces.len(), 2);
        let seam = pieces[0].core.end as f64 / SECOND as f64;
        assert!((5.2..5.4).contains(&seam), "{seam}");
        assert!(pieces[1].is_last && !pieces[0].is_last);
    }

    #[test]
    fn without_a_pause_the_quietest_place_is_cut() {
        let mut audio = sound(9.0, &[]);
        audio[5 * SECOND..5 * SECOND + 2400].iter_mut().for_each(|sample| *sample /= 4);
        let rules = Rules { pause: 1.0, ..RULES };
        let seam = pieces(&audio, rules, 4096)[0].core.end as f64 / SECOND as f64;
        assert!((4.9..5.3).contains(&seam), "{seam}");
    }

    #[test]
    fn what_is_little_longer_than_a_piece_is_halved() {
        assert_eq!(pieces(&sound(6.0, &[]), RULES, 333).len(), 1);
        for seconds in [6.1, 7.9] {
            let halves = pieces(&sound(seconds, &[]), RULES, 333);
            assert_eq!(halves.len(), 2, "{seconds}");
            let seam = halves[0].core.end as f64 / SECOND as f64;
            assert!((seam - seconds / 2.0).abs() <= 1.01, "{seam} of {seconds}");
        }
        assert_eq!(pieces(&[], RULES, 333), []);
    }

    #[test]
    fn silence_makes_pieces_of_the_whole_length() {
        let seams: Vec<f64> = pieces(&vec![0; 30 * SECOND], RULES, 4096)
            .iter()
            .map(|piece| piece.core.end as f64 / SECOND as f64)
            .collect();
        assert!((seams[0] - 5.5).abs() < 0.05 && seams.len() == 6, "{seams:?}");
    }

    proptest! {
        #[test]
        fn pieces_cover_the_audio_in_order_and_overlap_by_the_reach(
            seconds in 0.01..40.0_f64,
            pauses in prop::collection::vec((0.0..40.0_f64, 0.05..3.0_f64), 0..12),
            reach in 0.0..1.5_f64,
            push in 1..50_000_usize,
        ) {
            let pauses: Vec<Range<f64>> = pauses.into_iter().map(|(from, len)| from..from + len).collect();
            let audio = sound(seconds, &pauses);
            let pieces = pieces(&audio, Rules { reach, ..RULES }, push);
            let reach = samples(reach);
            let mut end = 0;
            for (nth, piece) in pieces.iter().enumerate() {
                prop_assert_eq!((piece.index, piece.core.start), (nth, end));
                end = piece.core.end;
                prop_assert!(end > piece.core.start && end - piece.core.start <= 6 * SECOND as u64);
                let from = piece.start as usize;
                prop_assert_eq!(&piece.samples[..], &audio[from..from + piece.samples.len()]);
                prop_assert_eq!(piece.start, piece.core.start.saturating_sub(reach));
                let to = piece.start + piece.samples.len() as u64;
                prop_assert_eq!(to, (piece.core.end + reach).min(audio.len() as u64));
                prop_assert_eq!(piece.is_last, end == audio.len() as u64);
            }
            prop_assert_eq!(end, audio.len() as u64);
        }
    }
}
