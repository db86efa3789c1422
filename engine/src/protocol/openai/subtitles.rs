//! Subtitles of a transcript. Pure.

use crate::work::transcribe::{Transcript, text};

/// SubRip: numbered cues with commas in their times.
pub(super) fn srt(heard: &Transcript) -> String {
    let cue = |(index, (start_s, end_s, text)): (usize, (f64, f64, String))| {
        format!("{}\n{} --> {}\n{text}\n\n", index + 1, time(start_s, ','), time(end_s, ','))
    };
    cues(heard).enumerate().map(cue).collect()
}

/// WebVTT: a header, and cues with points in their times.
pub(super) fn vtt(heard: &Transcript) -> String {
    let cue = |(start_s, end_s, text): (f64, f64, String)| {
        format!("{} --> {}\n{text}\n\n", time(start_s, '.'), time(end_s, '.'))
    };
    std::iter::once("WEBVTT\n\n".to_owned()).chain(cues(heard).map(cue)).collect()
}

fn cues(heard: &Transcript) -> impl Iterator<Item = (f64, f64, String)> {
    heard.sentences.iter().filter_map(|sentence| {
        let (first, last) = (&sentence.first()?.word, &sentence.last()?.word);
        Some((first.start_s, last.end_s, text(sentence)))
    })
}

fn time(seconds: f64, point: char) -> String {
    let ms = (seconds * 1000.0).round() as u64;
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{point}{:03}", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recognize::Word;
    use crate::work::transcribe::Spoken;

    #[test]
    fn each_sentence_is_a_cue() {
        let spoken = |start_s, text: &str| Spoken {
            word: Word { start_s, end_s: start_s + 0.25, text: text.into(), confidence: 1.0, joined: false },
            speaker: None,
        };
        let sentences = vec![vec![spoken(0.5, "good"), spoken(0.8, "morning")], vec![spoken(3_661.0, "bye")]];
        let heard = Transcript { sentences, duration_s: 3_700.0, language: "en".into(), model: "test" };
        assert_eq!(
            srt(&heard),
            "1\n00:00:00,500 --> 00:00:01,050\ngood morning\n\n2\n01:01:01,000 --> 01:01:01,250\nbye\n\n"
        );
        assert!(vtt(&heard).starts_with("WEBVTT\n\n00:00:00.500 --> 00:00:01.050\ngood morning\n\n"));
    }
}
