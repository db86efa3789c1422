use std::collections::HashSet;

use proptest::prelude::*;

use crate::guard::heal::golden::*;

/// A WAV file of `samples` at 22,050 Hz.
fn file_of(samples: &[i16]) -> Vec<u8> {
    let mut file = wav::header(22_050, 1, Some(samples.len() as u64 * 2)).to_vec();
    for sample in samples {
        file.extend_from_slice(&sample.to_le_bytes());
    }
    file
}

/// Something with the spread and the smoothness of speech: two seconds of a wavering tone.
fn voice(seconds: f64) -> Vec<i16> {
    (0..(seconds * 22_050.0) as usize)
        .map(|at| {
            let time = at as f64 / 22_050.0;
            (8000.0 * (time * 1400.0).sin() * (time * 21.0).sin()) as i16
        })
        .collect()
}

/// Numbers without pattern.
fn noise(count: usize) -> Vec<i16> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 18) as i16 - 8192
        })
        .collect()
}

fn judge(speech: &[u8]) -> Result<(), Fault> {
    check_speech(speech, 22_050)
}

#[test]
fn raw_samples_are_judged_at_the_rate_of_the_engine() {
    assert_eq!(judge(&file_of(&voice(4.0))[44..]), Ok(()));
    assert!(matches!(check_speech(&file_of(&voice(4.0))[44..], 96_000), Err(Fault::Duration { .. })));
    assert_eq!(samples(&CLIP_A).unwrap().len(), CLIP_A.wav.len() - 44);
}

#[test]
fn the_clips_are_short_voiced_and_share_no_word() {
    for clip in [CLIP_A, CLIP_B] {
        let (header, data) = read(clip.wav).unwrap();
        assert_eq!((header.rate, header.channels), (16_000, 1));
        let seconds = data.len() as f64 / 32_000.0;
        assert!((1.5..2.5).contains(&seconds), "{seconds}");
        assert!((5..=8).contains(&bare_words(clip.words).len()));
    }
    let words: HashSet<String> = bare_words(CLIP_A.words).into_iter().collect();
    assert!(bare_words(CLIP_B.words).iter().all(|word| !words.contains(word)));
}

#[test]
fn a_transcript_may_have_few_wrong_words() {
    assert_eq!(check_transcript(&CLIP_A, "We will leave early tomorrow, mining", 0.34), Ok(()));
    assert_eq!(check_transcript(&CLIP_A, "...", 0.34), Err(Fault::Words { word_error: 1.0 }));
    assert!(check_transcript(&CLIP_A, CLIP_B.words, 0.34).is_err());
}

#[test]
fn the_same_text_for_both_clips_is_seen() {
    assert!(unlike(CLIP_A.words, CLIP_B.words));
    assert!(!unlike("Thank you.", "thank you"));
    assert!(!unlike(". . .", ""));
}

#[test]
fn speech_passes() {
    assert_eq!(judge(&file_of(&voice(4.0))), Ok(()));
    // The clips say other sentences, of about the length.
    assert_eq!(judge(CLIP_B.wav), Ok(()));
}

#[test]
fn broken_audio_does_not() {
    assert_eq!(judge(b""), Err(Fault::NoAudio));
    assert!(matches!(judge(b"{\"detail\":\"no\"}"), Err(Fault::Duration { .. })));
    assert_eq!(judge(b"RIFF"), Err(Fault::NotWav));
    assert!(matches!(judge(&file_of(&voice(0.3))), Err(Fault::Duration { .. })));
    assert!(matches!(judge(&file_of(&voice(20.0))), Err(Fault::Duration { .. })));
    assert!(matches!(judge(&file_of(&[0; 80_000])), Err(Fault::Samples(quality::Fault::Silence { .. }))));
    assert!(matches!(
        judge(&file_of(&[12_345; 80_000])),
        Err(Fault::Samples(quality::Fault::Silence { .. }))
    ));
    let square: Vec<i16> = (0..80_000).map(|at| if at / 50 % 2 == 0 { 8000 } else { -8000 }).collect();
    assert!(matches!(
        judge(&file_of(&square)),
        Err(Fault::Samples(quality::Fault::Constant { distinct: 2 }))
    ));
    let loud: Vec<i16> = voice(4.0).iter().map(|sample| sample.saturating_mul(50)).collect();
    assert!(matches!(judge(&file_of(&loud)), Err(Fault::Samples(quality::Fault::Clipping { .. }))));
    assert_eq!(judge(&file_of(&noise(80_000))), Err(Fault::Samples(quality::Fault::Noise)));
    let whole = file_of(&voice(4.0));
    assert!(matches!(judge(&whole[..whole.len() / 2]), Err(Fault::Length { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..200usize,
    ) {
        let _ = judge(&bytes);
        let mut mangled = file_of(&voice(0.001));
        mangled.truncate(cut);
        for (at, byte) in bytes.iter().enumerate().take(mangled.len()).skip(12) {
            mangled[at] = *byte;
        }
        let _ = judge(&mangled);
    }

    #[test]
    fn word_error_is_zero_only_for_equal_words(text in "[a-z ]{0,40}", other in "[a-z ]{0,40}") {
        prop_assert_eq!(word_error(&text, &text), 0.0);
        prop_assert_eq!(word_error(&text, &other) == 0.0, !unlike(&text, &other));
    }
}
