//! A stream of samples cut at its pauses: what is to be recognized now, and whether that is final.

use crate::activity::{self, FRAME};
use crate::decode::RATE_HZ;

/// A pause this long ends an utterance, in frames of 10 ms.
const PAUSE: usize = 60;
/// Silence kept behind an utterance, in frames.
const MARGIN: usize = 30;
/// No utterance is longer, in samples: 20 s.
const LONGEST: usize = 20 * RATE_HZ as usize;
/// An interim recognition is due after this many new samples: 0.8 s.
const INTERIM: usize = RATE_HZ as usize * 4 / 5;
/// Of silence this many samples are kept at most, 5 s, and then this many, 1 s.
const SILENCE: (usize, usize) = (5 * RATE_HZ as usize, RATE_HZ as usize);

/// Samples to recognize.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// At 16 kHz.
    pub samples: Vec<i16>,
    /// Samples of the stream before it.
    pub start: usize,
    /// Whether it has ended; its samples are then taken out of the stream.
    pub ended: bool,
}

/// The samples of a stream that have not been recognized for good.
#[derive(Debug, Default)]
pub struct Utterances {
    samples: Vec<i16>,
    start: usize,
    interim_at: usize,
}

impl Utterances {
    /// Where new samples are appended.
    pub fn samples(&mut self) -> &mut Vec<i16> {
        &mut self.samples
    }

    /// Samples of the stream so far.
    #[must_use]
    pub fn received(&self) -> usize {
        self.start + self.samples.len()
    }

    /// What is to be recognized now; `interims` asks also for utterances that have not ended.
    pub fn due(&mut self, interims: bool) -> Option<Utterance> {
        let levels = activity::levels(&self.samples);
        let speech = activity::speech(&levels);
        let Some(last) = speech.last() else {
            if self.samples.len() > SILENCE.0 {
                self.drop_before(self.samples.len() - SILENCE.1);
            }
            return None;
        };
        if levels.len() - last.end >= PAUSE {
            return Some(self.take((last.end + MARGIN) * FRAME));
        }
        if self.samples.len() >= LONGEST {
            return Some(self.take(self.samples.len()));
        }
        if !interims || self.samples.len() < self.interim_at + INTERIM {
            return None;
        }
        self.interim_at = self.samples.len();
        Some(Utterance { samples: self.samples.clone(), start: self.start, ended: false })
    }

    /// The rest at the end of the stream; `None` when nothing was said in it.
    pub fn rest(&mut self) -> Option<Utterance> {
        let silent = activity::speech(&activity::levels(&self.samples)).is_empty();
        if silent { None } else { Some(self.take(self.samples.len())) }
    }

    fn take(&mut self, end: usize) -> Utterance {
        let (samples, start) = (self.samples[..end].to_vec(), self.start);
        self.drop_before(end);
        Utterance { samples, start, ended: true }
    }

    fn drop_before(&mut self, end: usize) {
        self.samples.drain(..end);
        self.start += end;
        self.interim_at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a loud tone or of silence.
    fn sound(loud: bool, seconds: f64) -> Vec<i16> {
        let count = (seconds * f64::from(RATE_HZ)) as usize;
        (0..count).map(|i| if loud { ((i % 40) as i16 - 20) * 300 } else { 0 }).collect()
    }

    /// What becomes due when a stream arrives in pieces of 100 ms: start and length in tenths of a second.
    fn due(parts: &[(bool, f64)], interims: bool) -> Vec<(usize, usize, bool)> {
        let tenth = RATE_HZ as usize / 10;
        let stream: Vec<i16> = parts.iter().flat_map(|(loud, seconds)| sound(*loud, *seconds)).collect();
        let (mut utterances, mut found) = (Utterances::default(), Vec::new());
        for piece in stream.chunks(tenth) {
            utterances.samples().extend_from_slice(piece);
            found.extend(utterances.due(interims));
        }
        assert_eq!(utterances.received(), stream.len());
        found.extend(utterances.rest());
        let shown = |found: &Utterance| (found.start / tenth, found.samples.len() / tenth, found.ended);
        found.iter().map(shown).collect()
    }

    #[test]
    fn utterances_end_at_pauses_and_at_the_end_of_the_stream() {
        let parts = [(false, 0.5), (true, 1.0), (false, 1.0), (true, 1.0), (false, 0.3)];
        assert_eq!(due(&parts, false), [(0, 18, true), (18, 20, true)]);
        assert_eq!(due(&[(false, 3.0)], false), []);
    }

    #[test]
    fn interims_come_while_an_utterance_lasts() {
        let parts = [(false, 0.2), (true, 1.8), (false, 1.0)];
        assert_eq!(due(&parts, true), [(0, 8, false), (0, 16, false), (0, 24, false), (0, 23, true)]);
    }

    #[test]
    fn endless_speech_is_cut_and_endless_silence_is_dropped() {
        assert_eq!(due(&[(true, 25.0)], false), [(0, 200, true), (200, 50, true)]);
        let parts = [(false, 60.0), (true, 1.0), (false, 1.0)];
        let found = due(&parts, false);
        assert!(found.len() == 1 && found[0].0 > 540 && found[0].1 < 70, "{found:?}");
    }
}
