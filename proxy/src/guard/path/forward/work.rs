//! What a request asks of the engine, and how much audio that is.

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request};

/// What the engine is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Speech to text, translated or not.
    Transcribe,
    /// Who spoke when.
    Diarize,
    /// Text to a whole file of speech.
    Speak,
    /// Text to speech that streams as it is made.
    SpeakOnline,
}

/// Bytes of a second of the audio that most clients send: 16 kHz, mono, 16 bits.
const UPLOAD_BYTES_PER_SECOND: f64 = 32_000.0;
/// Speech to be made when the request does not say.
const SPOKEN_SECONDS: f64 = 2.0;
/// Longest believable audio, a day.
const MOST_AUDIO_SECONDS: f64 = 86_400.0;

impl Work {
    /// The job that a request asks for; `None` when it needs no GPU.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        if request.method() != Method::POST {
            return None;
        }
        match request.uri().path() {
            "/v1/audio/transcriptions" | "/v1/audio/translations" => Some(Work::Transcribe),
            "/v1/audio/diarize" => Some(Work::Diarize),
            "/v1/audio/synthesize" => Some(Work::Speak),
            "/v1/audio/synthesize_online" => Some(Work::SpeakOnline),
            _ => None,
        }
    }

    /// Seconds of audio by the request's headers, and whether that is only a guess.
    pub fn audio(self, headers: &HeaderMap) -> (f64, bool) {
        let number = |name: &HeaderName| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
        if let Some(seconds) = number(&contract::header::AUDIO_SECONDS).filter(|seconds| seconds.is_finite())
        {
            return (seconds.clamp(0.0, MOST_AUDIO_SECONDS), false);
        }
        (self.audio_of_bytes(number(&header::CONTENT_LENGTH).unwrap_or(0.0)), true)
    }

    /// A guess by the length of the body.
    pub fn audio_of_bytes(self, bytes: f64) -> f64 {
        match self {
            Work::Transcribe | Work::Diarize => {
                (bytes / UPLOAD_BYTES_PER_SECOND).clamp(0.0, MOST_AUDIO_SECONDS)
            }
            Work::Speak | Work::SpeakOnline => SPOKEN_SECONDS,
        }
    }

    /// Which predictor learns of it: diarization costs many times a transcription.
    pub fn predictor(self) -> usize {
        match self {
            Work::Transcribe => 0,
            Work::Diarize => 1,
            Work::Speak | Work::SpeakOnline => 2,
        }
    }
}

/// The engine's own control paths, however they are written.
pub fn is_hidden(path: &str) -> bool {
    path.split('/').any(|segment| decode(segment) == b"_engine")
}

/// Undoes percent-encoding.
fn decode(segment: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if *byte == b'%' => {
                decoded.push(value);
                rest = &after[2..];
            }
            _ => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn only_posts_to_audio_paths_are_jobs() {
        let work = |method: Method, path: &str| {
            Work::of(&Request::builder().method(method).uri(path).body(()).unwrap())
        };
        assert_eq!(work(Method::POST, "/v1/audio/diarize?x=1"), Some(Work::Diarize));
        assert_eq!(work(Method::POST, "/v1/audio/synthesize_online"), Some(Work::SpeakOnline));
        assert_eq!(work(Method::GET, "/v1/audio/transcriptions"), None);
        assert_eq!(work(Method::POST, "/v1/models"), None);
    }

    #[test]
    fn seconds_come_from_the_header_or_are_guessed_from_the_length() {
        let seconds = |name, value| Work::Transcribe.audio(&headers(name, value));
        assert_eq!(seconds("x-speechstack-audio-seconds", "12.5"), (12.5, false));
        assert_eq!(seconds("x-speechstack-audio-seconds", "1e99"), (86_400.0, false));
        assert_eq!(seconds("x-speechstack-audio-seconds", "-1"), (0.0, false));
        assert_eq!(seconds("x-speechstack-audio-seconds", "NaN"), (0.0, true));
        assert_eq!(seconds("content-length", "64000"), (2.0, true));
        assert_eq!(Work::Speak.audio(&headers("content-length", "64000")), (2.0, true));
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
