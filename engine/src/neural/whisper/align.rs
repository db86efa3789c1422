//! When each word was said: the cheapest path through the attention of some heads (dynamic time warping), as Whisper does.

use super::graphs::STEPS;
use super::vocabulary::Vocabulary;

/// Steps of attention in a second.
pub const STEPS_PER_SECOND: f64 = 50.0;
/// Steps over which attention is smoothed by their median.
const MEDIAN: usize = 7;

/// A word of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// With a space before it where the text has one.
    pub text: String,
    /// Its first token.
    pub first: usize,
    /// The token behind its last one.
    pub end: usize,
}

/// Puts tokens together to words: at spaces, in languages without spaces at each character.
pub fn words(vocabulary: &Vocabulary, tokens: &[usize], spaced: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let (mut bytes, mut first) = (Vec::new(), 0);
    for (index, token) in tokens.iter().enumerate() {
        bytes.extend_from_slice(vocabulary.bytes(*token));
        // A character may be spread over tokens.
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        let joins = !text.starts_with(' ') && (spaced || text.chars().all(|sign| !sign.is_alphanumeric()));
        match groups.last_mut() {
            Some(last) if joins => {
                last.text.push_str(text);
                last.end = index + 1;
            }
            _ => groups.push(Group { text: text.to_owned(), first, end: index + 1 }),
        }
        bytes.clear();
        first = index + 1;
    }
    groups
}

/// The step at which each token begins, and at the end the step at which the last one ends. `attention` has a row for each
/// token that was put in, of which the first `prompt` are no text; of each head the first `steps` steps are of the piece.
pub fn token_steps(attention: &[Vec<f32>], prompt: usize, steps: usize) -> Vec<usize> {
    let heads = attention.first().map_or(0, |row| row.len() / STEPS);
    let steps = steps.clamp(1, STEPS);
    // What predicts the first word is the last token of the prompt.
    let from = prompt.saturating_sub(1);
    if heads == 0 || attention.len() <= from {
        return Vec::new();
    }
    let rows = attention.len() - from;
    let mut merged = vec![0.0_f32; rows * steps];
    let mut head_rows = vec![0.0_f32; attention.len() * steps];
    for head in 0..heads {
        for (row, weights) in head_rows.chunks_exact_mut(steps).zip(attention) {
            row.copy_from_slice(&weights[head * STEPS..head * STEPS + steps]);
            let sum = row.iter().sum::<f32>().max(1e-9);
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
        standardize(&mut head_rows, attention.len(), steps);
        for (into, row) in merged.chunks_exact_mut(steps).zip(head_rows.chunks_exact(steps).skip(from)) {
            add_medians(into, row);
        }
    }
    path(&merged, rows, steps)
}

/// Gives each step mean 0 and deviation 1 over the rows.
fn standardize(matrix: &mut [f32], rows: usize, steps: usize) {
    for step in 0..steps {
        let column = |row: usize| row * steps + step;
        let mean = (0..rows).map(|row| matrix[column(row)]).sum::<f32>() / rows as f32;
        let variance = (0..rows).map(|row| (matrix[column(row)] - mean).powi(2)).sum::<f32>() / rows as f32;
        let deviation = variance.sqrt().max(1e-9);
        (0..rows).for_each(|row| matrix[column(row)] = (matrix[column(row)] - mean) / deviation);
    }
}

/// Adds the running median of a row, mirrored at its ends.
fn add_medians(into: &mut [f32], row: &[f32]) {
    let reach = (MEDIAN / 2) as isize;
    let last = row.len() as isize - 1;
    let mirrored = |index: isize| {
        let index = index.abs();
        row[(if index > last { 2 * last - index } else { index }).clamp(0, last) as usize]
    };
    for (step, value) in into.iter_mut().enumerate() {
        let mut near = [0.0; MEDIAN];
        near.iter_mut().zip(step as isize - reach..).for_each(|(near, index)| *near = mirrored(index));
        near.sort_by(f32::total_cmp);
        *value += near[MEDIAN / 2];
    }
}

/// The step at which the best monotonic path enters each row, and the end.
fn path(matrix: &[f32], rows: usize, steps: usize) -> Vec<usize> {
    // Costs with a border before the first row and step; `moves` remembers whence the cheapest path came.
    let (width, mut before) = (steps + 1, vec![f32::INFINITY; steps + 1]);
    before[0] = 0.0;
    let mut moves = vec![0_u8; (rows + 1) * width];
    for row in 1..=rows {
        let mut costs = vec![f32::INFINITY; width];
        for step in 1..=steps {
            let choices = [before[step - 1], before[step], costs[step - 1]];
            let best = (0..3).min_by(|a, b| choices[*a].total_cmp(&choices[*b])).unwrap_or(0);
            costs[step] = choices[best] - matrix[(row - 1) * steps + step - 1];
            moves[row * width + step] = best as u8;
        }
        before = costs;
    }
    let mut starts = vec![0; rows];
    let (mut row, mut step) = (rows, steps);
    while row > 0 && step > 0 {
        starts[row - 1] = step - 1;
        match moves[row * width + step] {
            0 => (row, step) = (row - 1, step - 1),
            1 => row -= 1,
            _ => step -= 1,
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_follows_the_bright_squares() {
        let (rows, steps) = (3, 9);
        let matrix: Vec<f32> =
            (0..rows * steps).map(|i| if (i % steps) / 3 == i / steps { 1.0 } else { -1.0 }).collect();
        assert_eq!(path(&matrix, rows, steps), [0, 3, 6]);
    }

    #[test]
    fn tokens_begin_where_their_rows_look() {
        // Two heads, a prompt of two tokens, then three rows that look at steps 0, 10 and 20 of 30.
        let row = |at: usize| {
            let mut row = vec![1e-4; 2 * STEPS];
            for head in 0..2 {
                row[head * STEPS + at..head * STEPS + at + 10].fill(1.0);
            }
            row
        };
        let attention = [row(100), row(0), row(10), row(20)];
        assert_eq!(token_steps(&attention, 2, 30), [0, 10, 20]);
        assert!(token_steps(&[], 2, 30).is_empty());
    }
}
