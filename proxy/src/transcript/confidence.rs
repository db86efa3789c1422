//! How sure it is who spoke a word.

use super::emission::Scorer;
use super::span::Span;
use super::speakers::Speaker;

/// The share that the chosen speaker has in all speakers' claims on each word, seen alone: 1 when no other one talks near it.
/// 0 for a word without a speaker. `spans` ascend by start.
pub(super) fn confidences(spans: &[Span], speakers: &[Speaker], chosen: &[Option<usize>]) -> Vec<f32> {
    let mut scorer = Scorer::new(speakers);
    let confidence = |(&span, &speaker): (&Span, &Option<usize>)| {
        let claims = scorer.score(span);
        let of = |claim: &super::emission::Claim| claim.log.exp();
        let all: f32 = claims.iter().map(of).sum();
        speaker.and_then(|speaker| claims.get(speaker)).map_or(0.0, |claim| of(claim) / all)
    };
    spans.iter().zip(chosen).map(confidence).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Params, Turn, Word, merge};

    #[test]
    fn a_word_that_two_speakers_cover_is_less_sure() {
        let turn = |start, end, speaker: &str| Turn { start, end, speaker: speaker.to_owned() };
        let turns = [turn(0.0, 2.0, "A"), turn(1.0, 4.0, "B")];
        let word = |start: f64| Word { start, end: start + 0.4, text: "word".to_owned() };
        let words = [word(0.2), word(1.3), word(3.0)];
        let params = Params { confidences: true, ..Params::default() };
        let sure = merge(&words, &turns, &params).confidences;
        assert!(sure[0] > 0.8 && sure[2] > 0.8 && sure[1] < 0.6, "{sure:?}");
        assert!(merge(&words, &turns, &Params::default()).confidences.is_empty());
        assert_eq!(merge(&words, &[], &params).confidences, [0.0; 3]);
    }
}
