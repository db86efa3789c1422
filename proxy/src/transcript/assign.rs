//! Step 4 of the merge: the likeliest sequence of speakers, by Viterbi with one switch cost for all pairs.

use super::Word;
use super::emission::{Claim, Scorer};
use super::span::{SECOND, Span};
use super::speakers::Speaker;
use super::text::ends_sentence;

/// Cost of a change of speaker in nats, [`SWITCH_MIN`] at least. It is small: strong smoothing loses more short
/// answers than it mends flicker.
const SWITCH_MIN: f32 = 0.1;
/// More in running speech, fading over this much silence.
const SWITCH_FLUENT: f32 = 0.8;
const SWITCH_FADE: f32 = SECOND as f32;
/// After the end of a sentence a change is this much cheaper.
const AFTER_SENTENCE: f32 = 0.1;
/// Words per sentence end, at most, for punctuation to be trusted. Without it every change of speaker falls
/// inside a "sentence", and the cost for fluent speech does harm.
const WORDS_PER_SENTENCE: usize = 50;

/// Further than this from any talk, a word has no speaker.
const OUT_OF_REACH: i64 = 3 * SECOND;

/// Two sequences this close in score are a tie: rounding must not decide.
const TIE: f32 = 1e-4;

/// What the likeliest sequence says of one word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    /// Index of the speaker, `None` if no talk is near.
    pub(super) speaker: Option<usize>,
    /// Bit per speaker who covers any of the word.
    pub(super) covered_by: u32,
}

/// Cost of a change of speaker before each word.
pub(super) fn switch_costs(words: &[Word], spans: &[Span]) -> Vec<f32> {
    let ends: Vec<bool> = words.iter().map(|word| ends_sentence(&word.text)).collect();
    let sentences = ends.iter().filter(|&&ends| ends).count();
    let fluent = if sentences * WORDS_PER_SENTENCE > words.len() { SWITCH_FLUENT } else { 0.0 };
    let mut costs = vec![SWITCH_MIN; words.len()];
    for index in 1..words.len() {
        let silence = (spans[index].start - spans[index - 1].end).max(0);
        costs[index] += if silence > 0 { fluent * (-(silence as f32) / SWITCH_FADE).exp() } else { fluent };
        if ends[index - 1] {
            costs[index] *= AFTER_SENTENCE;
        }
    }
    costs
}

/// Forward scores, kept for the way back. Rows are words, columns speakers.
struct Lattice {
    /// Score of the best sequence up to this word that ends with this speaker, less that of the row's best:
    /// running sums over an hour would eat the precision.
    best: Vec<f32>,
    /// Speaker with the best score of each row.
    leader: Vec<usize>,
}

/// Assigns a speaker to every word. `spans` ascend by start; `costs` has one entry per word.
///
/// Ties go to the speaker who talked before, else to the one whose turn began earlier, else by order of
/// `speakers`.
pub(super) fn assign(spans: &[Span], speakers: &[Speaker], costs: &[f32]) -> Vec<Assigned> {
    let unassigned = Assigned { speaker: None, covered_by: 0 };
    let mut assigned = vec![unassigned; spans.len()];
    if speakers.is_empty() || spans.is_empty() {
        return assigned;
    }
    let width = speakers.len();
    let mut lattice =
        Lattice { best: Vec::with_capacity(spans.len() * width), leader: Vec::with_capacity(spans.len()) };
    let mut out_of_reach = Vec::new();
    let mut scorer = Scorer::new(speakers);
    for (index, &span) in spans.iter().enumerate() {
        let claims = scorer.score(span);
        lattice.push_row(claims, costs[index]);
        let (mut in_reach, mut covered_by) = (false, 0);
        for (speaker, claim) in claims.iter().enumerate() {
            in_reach |= claim.distance <= OUT_OF_REACH;
            covered_by |= u32::from(claim.covered > 0) << speaker;
        }
        assigned[index].covered_by = covered_by;
        if !in_reach {
            out_of_reach.push(index);
        }
    }
    lattice.trace_back(width, costs, &mut assigned);
    for index in out_of_reach {
        assigned[index] = unassigned;
    }
    assigned
}

impl Lattice {
    /// Adds a word: each speaker either talked before or takes over from the row's best.
    fn push_row(&mut self, claims: &[Claim], cost: f32) {
        let row = self.best.len();
        self.best.extend(claims.iter().map(|claim| claim.log));
        let (before, scores) = self.best.split_at_mut(row);
        if let Some(last_row) = row.checked_sub(claims.len()) {
            for (score, stay) in scores.iter_mut().zip(&before[last_row..]) {
                *score += stay.max(-cost);
            }
        }
        let mut leader = 0;
        for speaker in 1..scores.len() {
            let ahead = scores[speaker] - scores[leader];
            if ahead > TIE || (ahead > -TIE && claims[speaker].onset < claims[leader].onset) {
                leader = speaker;
            }
        }
        let top = scores[leader];
        scores.iter_mut().for_each(|score| *score -= top);
        self.leader.push(leader);
    }

    /// Walks the best sequence from its end.
    fn trace_back(&self, width: usize, costs: &[f32], assigned: &mut [Assigned]) {
        let mut speaker = self.leader.last().copied().unwrap_or(0);
        for index in (0..assigned.len()).rev() {
            assigned[index].speaker = Some(speaker);
            if index > 0 && self.best[(index - 1) * width + speaker] < TIE - costs[index] {
                speaker = self.leader[index - 1];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Turn, speakers};
    use super::*;

    fn scene(words: &[(f64, f64)], turns: &[(f64, f64, &str)], cost: f32) -> Vec<Assigned> {
        let spans: Vec<Span> = words
            .iter()
            .map(|&(start, end)| Span { start: (start * 1e6) as i64, end: (end * 1e6) as i64 })
            .collect();
        let turns: Vec<Turn> = turns
            .iter()
            .map(|&(start, end, speaker)| Turn { start, end, speaker: speaker.to_owned() })
            .collect();
        assign(&spans, &speakers::collect(&turns), &vec![cost; words.len()])
    }

    fn path(assigned: &[Assigned]) -> Vec<Option<usize>> {
        assigned.iter().map(|word| word.speaker).collect()
    }

    #[test]
    fn a_change_must_be_worth_its_cost() {
        let words = [(0.0, 0.2), (0.2, 0.4), (0.4, 0.6)];
        let turns = [(0.0, 0.2, "A"), (0.2, 0.4, "B"), (0.4, 0.6, "A")];
        assert_eq!(path(&scene(&words, &turns, 0.1)), [Some(0), Some(1), Some(0)]);
        assert_eq!(path(&scene(&words, &turns, 2.0)), [Some(0), Some(0), Some(0)]);
    }

    #[test]
    fn where_two_talk_the_one_who_talked_goes_on() {
        let words = [(0.0, 0.2), (1.0, 1.2), (2.0, 2.2)];
        let turns = [(0.9, 2.3, "A"), (0.0, 1.3, "B")];
        let assigned = scene(&words, &turns, 0.1);
        assert_eq!(path(&assigned), [Some(0), Some(0), Some(1)]);
        assert_eq!(assigned[1].covered_by, 0b11);
    }

    #[test]
    fn ties_go_to_the_earlier_turn() {
        let turns = [(-9.0, -8.0, "B"), (0.0, 1.0, "A"), (2.0, 3.0, "B")];
        let assigned = scene(&[(1.4, 1.6)], &turns, 0.1);
        assert_eq!(path(&assigned), [Some(1)]);
    }

    #[test]
    fn words_far_from_all_talk_have_no_speaker() {
        let assigned = scene(&[(0.0, 0.5), (3.9, 4.0), (4.1, 4.2)], &[(0.0, 1.0, "A")], 0.1);
        assert_eq!(path(&assigned), [Some(0), Some(0), None]);
    }

    #[test]
    fn without_punctuation_changes_are_nearly_free() {
        let words: Vec<Word> = ["so", "it", "goes", "on"]
            .map(|text| Word { start: 0.0, end: 0.0, text: text.to_owned() })
            .to_vec();
        let spans = [0, 1, 2, 4].map(|n| Span { start: n * SECOND, end: (n + 1) * SECOND });
        assert_eq!(switch_costs(&words, &spans), [0.1; 4]);
        let mut ended = words;
        ended[1].text = "it.".to_owned();
        let costs = switch_costs(&ended, &spans);
        assert!((costs[1] - 0.9).abs() < 1e-6 && (costs[2] - 0.09).abs() < 1e-6, "{costs:?}");
        assert!(costs[3] > 0.1 && costs[3] < 0.9, "{costs:?}");
    }
}
