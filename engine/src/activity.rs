//! Voice activity by energy: where somebody speaks, and pieces short enough to recognize.

use std::ops::Range;

/// Samples of one frame: 10 ms at 16 kHz.
pub const FRAME: usize = 160;

/// Below this nothing counts as speech, in dB of full scale.
const FLOOR_DB: f32 = -65.0;
/// Gaps within words (stop consonants) are shorter than this many frames.
const STOP_GAP: usize = 10;
/// Shorter noises than this many frames are no speech.
const SHORTEST: usize = 6;

/// Level of every whole frame, in dB of full scale.
#[must_use]
pub fn levels(samples: &[i16]) -> Vec<f32> {
    samples
        .chunks_exact(FRAME)
        .map(|frame| {
            let energy: f32 = frame.iter().map(|sample| f32::from(*sample) / 32_768.0).map(|s| s * s).sum();
            (10.0 * (energy / FRAME as f32).max(1e-10).log10()).max(-100.0)
        })
        .collect()
}

/// Stretches of speech, in frames of 10 ms, in order, at least 100 ms apart.
///
/// The threshold lies above the quietest tenth of the file and below its loud part, so that it follows recording
/// level and noise.
#[must_use]
pub fn speech(levels: &[f32]) -> Vec<Range<usize>> {
    let mut sorted = levels.to_vec();
    sorted.sort_by(f32::total_cmp);
    let quantile = |share: f32| sorted.get((sorted.len() as f32 * share) as usize).copied().unwrap_or(-100.0);
    let (quiet, loud) = (quantile(0.1), quantile(0.95));
    let threshold = (quiet + 10.0).max(loud - 36.0).min(loud - 15.0).max(FLOOR_DB);
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for (index, level) in levels.iter().enumerate() {
        if *level < threshold {
            continue;
        }
        match stretches.last_mut() {
            Some(last) if index - last.end < STOP_GAP => last.end = index + 1,
            _ => stretches.push(index..index + 1),
        }
    }
    stretches.retain(|stretch| stretch.len() >= SHORTEST);
    stretches
}

/// Joins stretches of speech to pieces of at most `longest` frames. Pauses of `apart` frames always separate; where a piece is full it
/// is cut at the longest pause of its second half, and speech without any pause at its quietest frame. Each piece takes up to 20
/// frames of the silence on either side.
#[must_use]
pub fn pieces(stretches: &[Range<usize>], levels: &[f32], apart: usize, longest: usize) -> Vec<Range<usize>> {
    const MARGIN: usize = 20;
    let mut joined: Vec<Range<usize>> = Vec::new();
    // Stretches that are in no piece yet; together they fit one.
    let mut open: Vec<Range<usize>> = Vec::new();
    let join = |open: &mut Vec<Range<usize>>, count: usize| {
        let taken: Vec<Range<usize>> = open.drain(..count).collect();
        taken.first().zip(taken.last()).map(|(first, last)| first.start..last.end)
    };
    for stretch in short(stretches, levels, longest) {
        if open.last().is_some_and(|last| stretch.start - last.end >= apart) {
            let count = open.len();
            joined.extend(join(&mut open, count));
        }
        while open.first().is_some_and(|first| stretch.end - first.start > longest) {
            let count = cut(&open, &stretch, longest);
            joined.extend(join(&mut open, count));
        }
        open.push(stretch);
    }
    let count = open.len();
    joined.extend(join(&mut open, count));
    let mut padded = joined.clone();
    for index in 0..joined.len() {
        let before = index.checked_sub(1).map_or(0, |previous| joined[previous].end);
        let after = joined.get(index + 1).map_or(levels.len(), |next| next.start);
        let (start, end) = (joined[index].start, joined[index].end);
        padded[index].start = start - ((start - before) / 2).min(MARGIN);
        padded[index].end = end + ((after - end) / 2).min(MARGIN);
        if index == 0 {
            padded[index].start = start.saturating_sub(MARGIN);
        }
        if index + 1 == joined.len() {
            padded[index].end = (end + MARGIN).min(levels.len());
        }
    }
    padded
}

/// The stretches, those that are too long in parts.
fn short(stretches: &[Range<usize>], levels: &[f32], longest: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    for stretch in stretches {
        let mut rest = stretch.clone();
        while rest.len() > longest {
            let window = rest.start + longest * 3 / 4..rest.start + longest;
            let cut = window.clone().min_by(|a, b| levels[*a].total_cmp(&levels[*b])).unwrap_or(window.end);
            parts.push(rest.start..cut);
            rest.start = cut;
        }
        parts.push(rest);
    }
    parts
}

/// How many of the open stretches make a piece, now that the next one does not fit: those before the longest pause in the second
/// half, at least one.
fn cut(open: &[Range<usize>], next: &Range<usize>, longest: usize) -> usize {
    let start = open.first().map_or(0, |first| first.start);
    let pause = |count: &usize| {
        let behind = open.get(*count).map_or(next.start, |stretch| stretch.start);
        behind.saturating_sub(open[count - 1].end)
    };
    let late = (1..=open.len()).filter(|count| open[count - 1].end - start >= longest / 2);
    // Of equals the last.
    late.max_by_key(pause).unwrap_or(open.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(parts: &[(f32, usize)]) -> Vec<f32> {
        parts.iter().flat_map(|(level, frames)| vec![*level; *frames]).collect()
    }

    #[test]
    fn speech_follows_the_level_of_the_recording() {
        for offset in [0.0, -25.0] {
            let levels: Vec<f32> = track(&[(-90.0, 50), (-20.0, 100), (-90.0, 20), (-20.0, 60), (-90.0, 30)])
                .iter()
                .map(|level| level + offset)
                .collect();
            assert_eq!(speech(&levels), [50..150, 170..230], "{offset} dB");
        }
    }

    #[test]
    fn stop_gaps_and_clicks_do_not_count_and_silence_has_no_speech() {
        let levels =
            track(&[(-90.0, 50), (-20.0, 50), (-90.0, 8), (-20.0, 50), (-90.0, 40), (-20.0, 3), (-90.0, 40)]);
        assert_eq!(speech(&levels), vec![Range { start: 50, end: 158 }]);
        assert!(speech(&track(&[(-100.0, 500)])).is_empty());
        assert!(speech(&[]).is_empty());
    }

    #[test]
    fn pieces_stay_short_cover_all_speech_and_never_overlap() {
        let mut levels = track(&[(-20.0, 5000)]);
        levels[1900] = -30.0;
        let whole = Range { start: 0, end: levels.len() };
        let cut = pieces(std::slice::from_ref(&whole), &levels, 50, 2000);
        assert_eq!(cut[0], 0..1900);
        assert_eq!(cut.last().unwrap().end, 5000);
        assert!(cut.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(cut.iter().all(|piece| piece.len() <= 2000));
        let levels = track(&[(-90.0, 1000)]);
        assert_eq!(pieces(&[100..200, 220..300, 400..450], &levels, 50, 2000), [80..320, 380..470]);
        assert!(pieces(&[], &[], 50, 2000).is_empty());
    }

    #[test]
    fn a_full_piece_is_cut_at_its_longest_late_pause() {
        let levels = track(&[(-90.0, 4000)]);
        // Pauses of 100, 40, 90 and 20 frames.
        let speech = [0..400, 500..1100, 1140..1500, 1590..1900, 1920..2300];
        assert_eq!(pieces(&speech, &levels, 200, 2000), [0..1520, 1570..2320]);
        // The rest goes on until it is full.
        let more = [&speech[..], &[2310..3000, 3010..3700]].concat();
        let cut = pieces(&more, &levels, 200, 2000);
        assert!(cut.len() == 3 && cut.iter().all(|piece| piece.len() <= 2040), "{cut:?}");
    }
}
