//! Frames of the dialect that have no state, and what a config wants.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Whether a config turns one of these on or off; `None` when it has none of them.
pub(super) fn wanted(config: &Map<String, Value>, names: &[&str]) -> Option<bool> {
    let on = |value: &Value| match value {
        Value::Bool(on) => *on,
        Value::Object(wanted) => wanted.get("enabled").and_then(Value::as_bool).unwrap_or(true),
        _ => false,
    };
    let given = names.iter().filter_map(|name| config.get(*name));
    given.map(on).reduce(|one, other| one || other)
}

/// Whether a config wants the audio kept; `None` when it says nothing of that.
pub(super) fn stores(config: &Map<String, Value>) -> Option<bool> {
    let within = config.get("diarization").and_then(|wanted| wanted.get("store_audio"));
    within.and_then(Value::as_bool).or_else(|| wanted(config, &["store_audio", "diarization_store_audio"]))
}

/// The name of a speaker.
pub(super) fn label(speaker: usize) -> String {
    format!("SPEAKER_{speaker:02}")
}

/// Who spoke in which final, and where the audio is kept.
pub(super) fn summary(speakers: &[(u64, usize)], path: Option<String>) -> Value {
    let map: Vec<Value> = speakers
        .iter()
        .map(|(segment, speaker)| {
            json!({"segment_id": segment, "speaker_id": speaker, "speaker_label": label(*speaker)})
        })
        .collect();
    let all: BTreeSet<usize> = speakers.iter().map(|(_, speaker)| *speaker).collect();
    let all: Vec<Value> = all
        .into_iter()
        .map(|speaker| json!({"speaker_id": speaker, "speaker_label": label(speaker)}))
        .collect();
    let method = path.as_ref().map(|_| "streaming");
    json!({
        "type": "diarization_summary", "speaker_map": map, "audio_path": path, "persistence_method": method, "speakers": all,
    })
}

/// That the audio is not kept.
pub(super) fn not_kept(why: &str) -> Value {
    json!({"type": "warning", "warning_type": "audio_persistence_unavailable", "message": why})
}

/// Seconds of Unix time.
pub(super) fn timestamp() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1000.0
}

/// An error under both names that clients read.
pub(super) fn failed(code: &str, message: &str) -> Value {
    json!({"type": "error", "code": code, "error_type": code, "message": message})
}
