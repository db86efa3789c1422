//! Joins the words of two stretches of audio that overlap, so that the seam neither loses nor repeats a word.
//!
//! Both stretches have been heard whole, so words near the seam are there twice, and the outermost ones of each stretch may be
//! cut and misheard. Equal words at about the same time are matched by the alignment of greatest weight, and the transcript
//! changes over at the match that is nearest to the seam. Without a match the time decides: words before the seam are the left
//! stretch's.

use super::Word;

/// Two decodes of one word differ by less, seconds: a few encoder frames.
const NEAR: f64 = 0.3;
/// As [`NEAR`] for engines that are less exact; then several words in a row must match.
const FAR: f64 = 1.0;
/// Words in a row that must match at [`FAR`].
const FAR_RUN: usize = 2;

/// Appends the words of the next stretch to those so far, in order, and drops what both have.
///
/// `seam` is the time at which the left stretch is to end and `reach` how far the audio of both goes beyond it, seconds. Times of
/// all words are finite. Words that end more than `reach` before the seam are never touched. Returns how many of the words so
/// far are kept, and how many of the next ones are left out.
pub fn stitch(all: &mut Vec<Word>, next: Vec<Word>, seam: f64, reach: f64) -> (usize, usize) {
    let (first, until) = (tail(all, seam, reach), head(&next, seam, reach));
    let (left, right) = (&all[first..], &next[..until]);
    let keys = |words: &[Word]| words.iter().map(key).collect::<Vec<_>>();
    let (left_keys, right_keys) = (keys(left), keys(right));
    let at = |(i, j): (usize, usize)| (middle(&left[i]) + middle(&right[j])) / 2.0;
    let matches = |within: f64| {
        align(left.len(), right.len(), |i, j| {
            let apart = (middle(&left[i]) - middle(&right[j])).abs();
            let equal = !left_keys[i].is_empty() && left_keys[i] == right_keys[j];
            if equal && apart < within { 1.0 - apart / within } else { 0.0 }
        })
    };
    let mut pairs = matches(NEAR);
    if pairs.is_empty() {
        pairs = in_rows(matches(FAR));
    }
    let nearest = pairs.into_iter().min_by(|a, b| (at(*a) - seam).abs().total_cmp(&(at(*b) - seam).abs()));
    let (keep, skip) = match nearest {
        // The word itself comes from the side that it lies on.
        Some((i, j)) if at((i, j)) < seam => (first + i + 1, j + 1),
        Some((i, j)) => (first + i, j),
        None => (
            all.iter().rposition(|word| middle(word) < seam).map_or(0, |at| at + 1),
            next.iter().position(|word| middle(word) >= seam).unwrap_or(next.len()),
        ),
    };
    all.truncate(keep);
    let floor = all.last().map_or(f64::NEG_INFINITY, |word| word.start);
    all.extend(next.into_iter().skip(skip).map(|mut word| {
        word.start = word.start.max(floor);
        word.end = word.end.max(word.start);
        word
    }));
    (keep, skip)
}

/// How many of the words a later stretch that overlaps from `seam - reach` on leaves as they are.
pub fn settled(words: &[Word], seam: f64, reach: f64) -> usize {
    tail(words, seam, reach)
}

/// The first word that may be in the overlap: none before it ends within it.
fn tail(words: &[Word], seam: f64, reach: f64) -> usize {
    words.iter().rposition(|word| word.end < seam - reach).map_or(0, |at| at + 1)
}

/// The first word behind the overlap.
fn head(words: &[Word], seam: f64, reach: f64) -> usize {
    words.iter().position(|word| word.start > seam + reach).unwrap_or(words.len())
}

fn middle(word: &Word) -> f64 {
    (word.start + word.end) / 2.0
}

/// What is compared of a word: its letters and digits, in lower case.
fn key(word: &Word) -> String {
    word.text.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The pairs of the common subsequence of greatest weight, in order. Pairs of weight 0 do not match.
fn align(left: usize, right: usize, weight: impl Fn(usize, usize) -> f64) -> Vec<(usize, usize)> {
    // best[i][j] is the weight of what can be matched from i and j on.
    let mut best = vec![vec![0.0_f64; right + 1]; left + 1];
    for i in (0..left).rev() {
        for j in (0..right).rev() {
            let weight = weight(i, j);
            let matched = if weight > 0.0 { weight + best[i + 1][j + 1] } else { 0.0 };
            best[i][j] = matched.max(best[i + 1][j]).max(best[i][j + 1]);
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < left && j < right {
        let weight = weight(i, j);
        if weight > 0.0 && best[i][j] == weight + best[i + 1][j + 1] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if best[i][j] == best[i + 1][j] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// The pairs that have a neighbour on both sides.
fn in_rows(pairs: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let follows = |pair: &[(usize, usize)]| pair[0].0 + 1 == pair[1].0 && pair[0].1 + 1 == pair[1].1;
    let mut rows: Vec<Vec<(usize, usize)>> = Vec::new();
    for pair in pairs {
        match rows.last_mut() {
            Some(row) if row.last().is_some_and(|last| follows(&[*last, pair])) => row.push(pair),
            _ => rows.push(vec![pair]),
        }
    }
    rows.into_iter().filter(|row| row.len() >= FAR_RUN).flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(start: f64, end: f64, text: &str) -> Word {
        Word { start, end, text: text.to_owned() }
    }

    fn words(texts: &[(f64, &str)]) -> Vec<Word> {
        texts.iter().map(|&(start, text)| word(start, start + 0.2, text)).collect()
    }

    fn joined(left: &[(f64, &str)], right: &[(f64, &str)], seam: f64) -> String {
        let mut all = words(left);
        stitch(&mut all, words(right), seam, 1.0);
        all.into_iter().map(|word| word.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_that_both_sides_have_come_once() {
        let left = [(8.0, "one"), (9.2, "two"), (9.6, "three"), (10.3, "four")];
        let right = [(9.25, "Two,"), (9.55, "three"), (10.3, "four"), (11.2, "five")];
        assert_eq!(joined(&left, &right, 10.0), "one two three four five");
    }

    #[test]
    fn what_is_misheard_at_the_edges_of_either_side_is_dropped() {
        let left = [(9.2, "two"), (9.6, "three"), (10.1, "four"), (10.9, "fly")];
        let right = [(9.0, "who"), (9.62, "three"), (10.12, "four"), (10.8, "five"), (11.2, "six")];
        assert_eq!(joined(&left, &right, 10.0), "two three four five six");
    }

    #[test]
    fn a_word_at_the_seam_that_moves_over_it_is_neither_lost_nor_repeated() {
        for (left, right) in [(9.85, 9.95), (9.95, 9.85)] {
            let left = [(9.0, "a"), (left, "b"), (10.5, "c")];
            let right = [(9.02, "a"), (right, "b"), (10.52, "c")];
            assert_eq!(joined(&left, &right, 10.0), "a b c");
        }
    }

    #[test]
    fn repeated_words_are_matched_by_their_times() {
        let left = [(9.1, "no"), (9.4, "no"), (9.7, "no"), (10.0, "no"), (10.3, "no")];
        let right = [(9.4, "no"), (9.7, "no"), (10.0, "no"), (10.3, "no"), (10.6, "no")];
        assert_eq!(joined(&left, &right, 10.0), "no no no no no no");
    }

    #[test]
    fn without_a_match_the_time_decides() {
        assert_eq!(joined(&[(9.0, "a"), (10.4, "x")], &[(9.1, "y"), (10.5, "b")], 10.0), "a b");
        assert_eq!(joined(&[], &[(9.1, "y"), (10.5, "b")], 10.0), "b");
        assert_eq!(joined(&[(9.0, "a"), (10.4, "x")], &[], 10.0), "a");
    }

    #[test]
    fn engines_with_vague_times_are_matched_by_words_in_a_row() {
        let left = [(8.2, "on"), (9.3, "the"), (9.5, "mat"), (10.3, "today")];
        let right = [(9.9, "the"), (10.2, "mat"), (10.9, "today"), (11.3, "again")];
        assert_eq!(joined(&left, &right, 10.0), "on the mat today again");
    }

    /// Words of a speech without a cut: starts that ascend, some words again and again.
    fn speech() -> impl Strategy<Value = Vec<Word>> {
        let one = (0.05..0.5_f64, 0.0..0.9_f64, 0..6_usize);
        prop::collection::vec(one, 1..120).prop_map(|steps| {
            let (mut at, mut all) = (0.0, Vec::new());
            for (nth, (len, gap, text)) in steps.into_iter().enumerate() {
                // Neighbours differ, as times alone must not decide.
                let text = format!("{}{}", ["yes", "no", "so", "well", "and", "oh"][text], nth % 3);
                all.push(word(at, at + len, &text));
                at += len + gap;
            }
            all
        })
    }

    /// What an engine hears of a stretch: the words within it, moved a little, and garbage where one is cut.
    fn heard(speech: &[Word], from: f64, to: f64, jitter: &[f64]) -> Vec<Word> {
        let mut all = Vec::new();
        for (nth, spoken) in speech.iter().enumerate() {
            if spoken.end <= from || spoken.start >= to {
                continue;
            }
            let is_cut = spoken.start < from || spoken.end > to;
            let moved = jitter[nth % jitter.len()];
            let text = if is_cut { "uh" } else { &spoken.text };
            all.push(word(spoken.start.max(from) + moved, spoken.end.min(to) + moved, text));
        }
        all
    }

    proptest! {
        #[test]
        fn nothing_is_lost_repeated_or_moved_by_any_cut(
            speech in speech(),
            cuts in prop::collection::vec(0.0..1.0_f64, 0..6),
            jitter in prop::collection::vec(-0.02..0.02_f64, 7),
            other in prop::collection::vec(-0.02..0.02_f64, 5),
        ) {
            // Longer than any word and its jitter on each side.
            const REACH: f64 = 1.2;
            let end = speech.last().map_or(0.0, |word| word.end);
            let mut seams: Vec<f64> = cuts.into_iter().map(|cut| cut * end).collect();
            seams.sort_by(f64::total_cmp);
            seams.dedup_by(|next, before| *next - *before < 3.0 * REACH);
            let (mut all, mut from) = (Vec::new(), 0.0);
            for (nth, to) in seams.iter().copied().chain([end + REACH]).enumerate() {
                let jitter = if nth % 2 == 0 { &jitter } else { &other };
                let piece = heard(&speech, from - REACH, to + REACH, jitter);
                if nth == 0 { all = piece } else { let _ = stitch(&mut all, piece, from, REACH); }
                from = to;
            }
            let texts = |words: &[Word]| words.iter().map(|word| word.text.clone()).collect::<Vec<_>>();
            prop_assert_eq!(texts(&all), texts(&speech));
            prop_assert!(all.windows(2).all(|pair| pair[0].start <= pair[1].start));
        }

        #[test]
        fn settled_words_are_never_touched(
            left in speech(), right in speech(), seam in 0.0..60.0_f64, reach in 0.0..3.0_f64,
        ) {
            let settled = settled(&left, seam, reach);
            let mut all = left.clone();
            stitch(&mut all, right, seam, reach);
            prop_assert!(all.len() >= settled && all[..settled] == left[..settled]);
        }
    }
}
