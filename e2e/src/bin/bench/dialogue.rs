//! What an engine says of three hours of dialogue: 30,000 words and 4,600 turns of four speakers, the same in every run.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Value, json};

/// Words of the recording.
const WORDS: usize = 30_000;
/// Words of a turn.
const TURN: usize = 13;
const TURNS: usize = WORDS.div_ceil(TURN) * 2;
const WORD_SECONDS: f64 = 0.35;

/// Reply to a transcription with word times.
pub fn words() -> Bytes {
    static REPLY: LazyLock<Bytes> = LazyLock::new(|| {
        let words: Vec<Value> = (0..WORDS)
            .map(|at| {
                let start = rounded(at as f64 * WORD_SECONDS + jitter(at));
                json!({"start": start, "end": rounded(start + 0.3), "text": text(at)})
            })
            .collect();
        let all: String = (0..WORDS).map(text).collect();
        let duration = WORDS as f64 * WORD_SECONDS;
        let reply = json!({"language": "english", "duration": duration, "text": all.trim(), "words": words});
        reply.to_string().into()
    });
    REPLY.clone()
}

/// Reply to a diarization: two turns for each that holds its words, the second a short answer within it.
pub fn turns() -> Bytes {
    static REPLY: LazyLock<Bytes> = LazyLock::new(|| {
        let turn = |at: usize| {
            let begun = (at / 2 * TURN) as f64 * WORD_SECONDS;
            let (after, seconds) =
                if at.is_multiple_of(2) { (0.0, TURN as f64 * WORD_SECONDS) } else { (2.0, 0.5) };
            let start = rounded(begun + after);
            let speaker = format!("speaker_{}", (at / 2 + at % 2) % 4);
            json!({"start_s": start, "end_s": rounded(start + seconds), "speaker": speaker})
        };
        json!({"segments": (0..TURNS).map(turn).collect::<Vec<_>>()}).to_string().into()
    });
    REPLY.clone()
}

fn text(at: usize) -> &'static str {
    if at % TURN == TURN - 1 { " word." } else { [" budget", " yeah", " the", " go"][at * 7 % 4] }
}

/// Up to 0.1 s to either side.
fn jitter(at: usize) -> f64 {
    (at * 37 % 201) as f64 / 1000.0 - 0.1
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round().max(0.0) / 1000.0
}
