//! A transcript in another language: translated segment by segment, each with the times of what was spoken.

use crate::api::Context;
use crate::api::llm::translate::translate;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::speech::pieces;
use crate::job::work::Transcript;
use crate::transcript::segments::{Segment, segments};
use crate::transcript::{Word, repair};

/// Translates a transcript of so many seconds, and gives its segments. Its words get the times that they take of their segment.
///
/// # Errors
/// What the language model showed.
pub(super) async fn translated(
    context: &Context,
    request_id: &RequestId,
    transcript: &mut Transcript,
    seconds: f64,
    target: &str,
) -> Result<Vec<Segment>, Error> {
    repair(&mut transcript.words);
    let mut segments = segments(&transcript.words, None);
    let texts: Vec<String> = match segments.is_empty() {
        false => segments.iter().map(|segment| segment.text.clone()).collect(),
        // An engine without times: the text is one segment, however many calls its translation takes.
        true => pieces(&transcript.text),
    };
    let made = translate(context, request_id, &texts, target).await?;
    transcript.text = made.iter().map(|text| text.trim()).collect::<Vec<_>>().join(" ");
    transcript.language = Some(target.to_owned());
    transcript.confidences.clear();
    transcript.words = match segments.is_empty() {
        true => spread(&transcript.text, 0.0, seconds),
        false => segments
            .iter()
            .zip(&made)
            .flat_map(|(segment, text)| spread(text, segment.start, segment.end))
            .collect(),
    };
    if segments.is_empty() {
        return Ok(whole(&transcript.text, seconds));
    }
    for (segment, text) in segments.iter_mut().zip(made) {
        text.trim().clone_into(&mut segment.text);
    }
    Ok(segments)
}

/// One segment of all the text.
fn whole(text: &str, seconds: f64) -> Vec<Segment> {
    let mut all = segments(&[Word { start: 0.0, end: seconds, text: "-".into() }], None);
    all.retain(|_| !text.is_empty());
    for segment in &mut all {
        text.clone_into(&mut segment.text);
    }
    all
}

/// The words of a text, each with its share of the time by its length.
fn spread(text: &str, start: f64, end: f64) -> Vec<Word> {
    let letters = text.split_whitespace().map(|word| word.chars().count()).sum::<usize>().max(1) as f64;
    let each = (end - start).max(0.0) / letters;
    let mut at = start;
    text.split_whitespace()
        .map(|word| {
            let begins = at;
            at += word.chars().count() as f64 * each;
            Word { start: begins, end: at, text: format!(" {word}") }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_share_the_time_of_their_segment() {
        let words = spread("Guten  Tag", 1.0, 2.6);
        let expected = [(1.0, 2.0, " Guten"), (2.0, 2.6, " Tag")];
        for (word, (start, end, text)) in words.iter().zip(expected) {
            assert!((word.start - start).abs() < 1e-9 && (word.end - end).abs() < 1e-9, "{word:?}");
            assert_eq!(word.text, text);
        }
        assert!(spread(" ", 0.0, 1.0).is_empty());
        let all = whole("Alles", 3.0);
        assert_eq!((all.len(), all[0].end, all[0].text.as_str()), (1, 3.0, "Alles"));
        assert!(whole("", 3.0).is_empty());
    }
}
