//! How much audio a request is, by its headers or its length, and which paths are not for clients.

use http::header::{self, HeaderMap, HeaderName};
use percent_encoding::percent_decode;

use crate::protocol::Task;

/// Bytes of a second of the audio that most clients send: 16 kHz, mono, 16 bits.
const UPLOAD_BYTES_PER_SECOND: f64 = 32_000.0;
/// Speech to be made when the request does not say.
const SPOKEN_SECONDS: f64 = 2.0;
/// Longest believable audio, a day.
const MAX_AUDIO_SECONDS: f64 = 86_400.0;

/// Predictors; see [`predictor`].
pub const PREDICTORS: usize = 4;

/// Seconds of audio by the request's headers, and whether that is only a guess.
pub fn audio(task: Task, headers: &HeaderMap) -> (f64, bool) {
    let number = |name: &HeaderName| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    if let Some(seconds) = number(&contract::header::AUDIO_SECONDS).filter(|seconds| seconds.is_finite()) {
        return (seconds.clamp(0.0, MAX_AUDIO_SECONDS), false);
    }
    (audio_of_bytes(task, number(&header::CONTENT_LENGTH).unwrap_or(0.0)), true)
}

/// A guess by the length of the body.
pub fn audio_of_bytes(task: Task, bytes: f64) -> f64 {
    match task {
        Task::Transcribe | Task::Diarize => (bytes / UPLOAD_BYTES_PER_SECOND).clamp(0.0, MAX_AUDIO_SECONDS),
        Task::Synthesize | Task::SynthesizeStream => SPOKEN_SECONDS,
        // Nothing is known before its end.
        Task::TranscribeStream | Task::Chat => 0.0,
    }
}

/// Who asks, if the gateway tells it.
pub fn tenant(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(contract::header::TENANT)?.to_str().ok()?;
    u64::from_str_radix(text, 16).ok()
}

/// Which predictor learns of it: diarization costs many times a transcription.
pub fn predictor(task: Task) -> usize {
    match task {
        Task::Transcribe | Task::TranscribeStream => 0,
        Task::Diarize => 1,
        Task::Synthesize | Task::SynthesizeStream => 2,
        Task::Chat => 3,
    }
}

/// Whether the engine stops working on it when its client has gone.
pub fn stops_with_client(task: Task) -> bool {
    match task {
        Task::Transcribe | Task::Diarize | Task::Synthesize => false,
        Task::SynthesizeStream | Task::TranscribeStream | Task::Chat => true,
    }
}

/// The engine's own control paths, however they are written.
pub fn is_hidden(path: &str) -> bool {
    path.split('/').any(|segment| percent_decode(segment.as_bytes()).eq(b"_engine".iter().copied()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn seconds_come_from_the_header_or_are_guessed_from_the_length() {
        let seconds = |name, value| audio(Task::Transcribe, &headers(name, value));
        assert_eq!(seconds("x-speechstack-audio-seconds", "12.5"), (12.5, false));
        assert_eq!(seconds("x-speechstack-audio-seconds", "1e99"), (86_400.0, false));
        assert_eq!(seconds("x-speechstack-audio-seconds", "-1"), (0.0, false));
        assert_eq!(seconds("x-speechstack-audio-seconds", "NaN"), (0.0, true));
        assert_eq!(seconds("content-length", "64000"), (2.0, true));
        assert_eq!(audio(Task::Synthesize, &headers("content-length", "64000")), (2.0, true));
    }

    #[test]
    fn control_paths_are_hidden_however_they_are_written() {
        for path in [
            "/_engine",
            "/_engine/fault",
            "//_engine/fault",
            "/%5Fengine/fault",
            "/./_%65ngine",
            "/v1/../_engine/fault",
        ] {
            assert!(is_hidden(path), "{path}");
        }
        for path in ["/", "/v1/models", "/my_engine", "/_engines", "/%", "/%zz", "/%5"] {
            assert!(!is_hidden(path), "{path}");
        }
    }
}
