use proptest::prelude::*;

use super::*;

/// Gives the scores of a script, one a frame, then silence.
struct Scripted(VecDeque<f32>);

impl Voice for Scripted {
    fn score(&mut self, _: &[i16]) -> f32 {
        self.0.pop_front().unwrap_or(0.0)
    }

    fn reset(&mut self) {}
}

const SECOND: usize = 16_000;

/// Frames of so many milliseconds with one score.
fn frames(milliseconds: usize, score: f32) -> Vec<f32> {
    vec![score; milliseconds / 16]
}

/// The audio counts its samples, so that a range can be told from its values.
fn count_up(len: usize) -> Vec<i16> {
    (0..len).map(|at| (at % 30_011) as i16).collect()
}

fn run(rules: Option<Rules>, max: u64, script: &[f32], len: usize, pieces: &[usize]) -> Vec<Mark> {
    let mut segmenter = Segmenter::new(rules, max);
    let mut voice = Scripted(script.iter().copied().collect());
    let (audio, mut marks, mut at) = (count_up(len), Vec::new(), 0);
    for piece in pieces.iter().copied().chain([len]) {
        let end = (at + piece).min(len);
        segmenter.push(&audio[at..end], &mut voice, &mut marks);
        at = end;
    }
    segmenter.finish(&mut marks);
    marks
}

fn segments(marks: &[Mark]) -> Vec<&Segment> {
    marks
        .iter()
        .filter_map(|mark| match mark {
            Mark::Ended(segment) => Some(segment),
            Mark::Started(_) => None,
        })
        .collect()
}

#[test]
fn a_burst_begins_with_its_padding_and_ends_after_the_silence() {
    let script = [frames(1_600, 0.1), frames(800, 0.9), frames(1_600, 0.1)].concat();
    let marks = run(Some(Rules::default()), samples(15_000), &script, 4 * SECOND, &[]);
    let onset = 100 * 256;
    let [Mark::Started(start), Mark::Ended(segment)] = &marks[..] else { panic!("{marks:?}") };
    assert_eq!(*start, onset - samples(300));
    // 500 ms are 31.25 frames: the 32nd completes them.
    assert_eq!(segment.span, *start..(150 + 32) * 256);
    assert_eq!((segment.spoken, segment.why), (50 * 256, Why::Silence));
    assert_eq!(segment.audio.len() as u64, segment.span.end - segment.span.start);
    assert_eq!(segment.audio[0], (start % 30_011) as i16, "the audio is that of the span");
}

#[test]
fn a_dip_that_is_shallow_or_short_does_not_end_a_segment() {
    for dip in [frames(1_600, 0.4), frames(208, 0.0)] {
        let script = [frames(480, 0.9), dip, frames(480, 0.9), frames(1_600, 0.0)].concat();
        let marks = run(Some(Rules::default()), samples(15_000), &script, 5 * SECOND, &[]);
        assert_eq!(segments(&marks).len(), 1, "{marks:?}");
    }
}

#[test]
fn a_click_is_no_speech() {
    let script = [frames(480, 0.0), frames(48, 0.9), frames(1_600, 0.0)].concat();
    assert!(run(Some(Rules::default()), samples(15_000), &script, 3 * SECOND, &[]).is_empty());
}

#[test]
fn long_speech_is_cut_at_the_valley_and_nothing_is_lost() {
    let script = [frames(4_000, 0.9), vec![0.55], frames(8_000, 0.9), frames(1_600, 0.0)].concat();
    let marks = run(Some(Rules::default()), samples(5_000), &script, 15 * SECOND, &[]);
    let segments = segments(&marks);
    assert!(segments.len() >= 3, "{}", segments.len());
    assert_eq!(segments[0].why, Why::Length);
    assert_eq!(segments[0].span.end, 251 * 256, "behind the frame with the lowest score");
    for pair in segments.windows(2) {
        assert_eq!(pair[0].span.end, pair[1].span.start);
    }
    let spoken: u64 = segments.iter().map(|segment| segment.spoken).sum();
    assert_eq!(spoken, (250 + 1 + 500) * 256);
}

#[test]
fn two_bursts_never_share_audio() {
    let script = [frames(800, 0.9), frames(512, 0.0), frames(800, 0.9), frames(800, 0.0)].concat();
    let rules = Rules { pad: samples(2_000), ..Rules::default() };
    let marks = run(Some(rules), samples(15_000), &script, 4 * SECOND, &[]);
    let segments = segments(&marks);
    assert_eq!(segments.len(), 2);
    assert_eq!(segments[1].span.start, segments[0].span.end, "the padding stops at what was given before");
}

#[test]
fn an_hour_of_silence_keeps_the_memory_flat() {
    let mut segmenter = Segmenter::new(Some(Rules::default()), samples(15_000));
    let (mut voice, mut marks) = (Scripted(VecDeque::new()), Vec::new());
    for _ in 0..3600 {
        segmenter.push(&vec![0; SECOND], &mut voice, &mut marks);
        assert!(segmenter.tape.len() < SECOND, "{}", segmenter.tape.len());
    }
    assert!(marks.is_empty() && segmenter.tape.capacity() < 4 * SECOND);
    assert_eq!(segmenter.position(), 3600 * SECOND as u64);
}

#[test]
fn without_rules_only_the_client_and_the_length_end_a_segment() {
    let mut segmenter = Segmenter::new(None, samples(2_000));
    let (mut voice, mut marks) = (Scripted(VecDeque::new()), Vec::new());
    segmenter.commit(&mut marks);
    assert!(marks.is_empty(), "there is nothing to commit");
    segmenter.push(&count_up(5 * SECOND), &mut voice, &mut marks);
    segmenter.commit(&mut marks);
    let lengths: Vec<_> = segments(&marks).iter().map(|segment| (segment.audio.len(), segment.why)).collect();
    assert_eq!(lengths, [(2 * SECOND, Why::Length), (2 * SECOND, Why::Length), (SECOND, Why::Asked)]);
    assert_eq!(segmenter.running(), None);
    segmenter.push(&[1; 10], &mut voice, &mut marks);
    segmenter.clear();
    let before = marks.len();
    segmenter.commit(&mut marks);
    assert_eq!(marks.len(), before, "what was cleared is not committed");
}

#[test]
fn segments_of_one_length_share_their_joints() {
    let mut segmenter = Segmenter::new(None, samples(2_000));
    segmenter.set_max(samples(2_000), samples(500));
    let (mut voice, mut marks) = (Scripted(VecDeque::new()), Vec::new());
    segmenter.push(&count_up(4 * SECOND), &mut voice, &mut marks);
    segmenter.commit(&mut marks);
    segmenter.push(&count_up(2 * SECOND), &mut voice, &mut marks);
    segmenter.commit(&mut marks);
    let spans: Vec<_> = segments(&marks).iter().map(|segment| segment.span.clone()).collect();
    let at = |milliseconds| samples(milliseconds);
    // What is left behind the last cut is only what it shares: no segment.
    assert_eq!(spans, [at(0)..at(2_000), at(1_500)..at(3_500), at(3_000)..at(4_000), at(4_000)..at(6_000)]);
    assert_eq!(segments(&marks)[1].audio[0], (at(1_500) % 30_011) as i16);
    assert_eq!(segmenter.running(), None);
}

#[test]
fn a_commit_in_silence_takes_what_is_kept() {
    let mut segmenter = Segmenter::new(Some(Rules::default()), samples(15_000));
    let (mut voice, mut marks) = (Scripted(VecDeque::new()), Vec::new());
    segmenter.push(&count_up(SECOND), &mut voice, &mut marks);
    segmenter.commit(&mut marks);
    let segments = segments(&marks);
    assert_eq!((segments[0].span.end, segments[0].spoken), (SECOND as u64, 0));
    assert!(segments[0].audio.len() >= samples(300) as usize);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chunking_gives_the_same_segments(
        runs in prop::collection::vec((1_usize..90, 0.0_f32..1.0), 1..24),
        pieces in prop::collection::vec(1_usize..9_000, 0..40),
        silence in 100_u64..700,
        pad in 0_u64..500,
        max in 1_000_u64..4_000,
    ) {
        let script: Vec<f32> = runs.iter().flat_map(|(count, score)| vec![*score; *count]).collect();
        let len = script.len() * FRAME + 100;
        let rules = Some(Rules { silence: samples(silence), pad: samples(pad), ..Rules::default() });
        let whole = run(rules, samples(max), &script, len, &[]);
        prop_assert!(run(rules, samples(max), &script, len, &pieces) == whole);

        // Segments are in order, share nothing, are bounded, and have the audio of their span.
        let audio = count_up(len);
        let mut behind = 0;
        for segment in segments(&whole) {
            prop_assert!(segment.span.start >= behind && segment.span.end > segment.span.start);
            prop_assert!(segment.span.end - segment.span.start <= samples(max) + FRAME as u64);
            prop_assert!(segment.spoken <= segment.span.end - segment.span.start);
            prop_assert!(segment.audio == audio[segment.span.start as usize..segment.span.end as usize]);
            behind = segment.span.end;
        }
    }

    #[test]
    fn no_speech_is_lost(runs in prop::collection::vec((5_usize..60, prop::bool::ANY), 1..20)) {
        let script: Vec<f32> = runs.iter().flat_map(|(count, loud)| vec![f32::from(*loud); *count]).collect();
        let len = script.len() * FRAME;
        let marks = run(Some(Rules::default()), samples(3_000), &script, len, &[]);
        let segments = segments(&marks);
        for (at, _) in script.iter().enumerate().filter(|(_, score)| **score > 0.5) {
            let (from, to) = ((at * FRAME) as u64, ((at + 1) * FRAME) as u64);
            prop_assert!(
                segments.iter().any(|segment| segment.span.start <= from && segment.span.end >= to),
                "frame {} is in no segment", at
            );
        }
    }
}
