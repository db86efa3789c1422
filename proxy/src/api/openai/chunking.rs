//! `chunking_strategy`: what a client says of the cuts in a long file.

use std::time::Duration;

use serde_json::Value;

use crate::api::form::Fields;
use crate::error::Error;

/// Where a long file may be cut, as far as the client says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chunking {
    /// Score of voice activity from which sound is speech, 0 to 1.
    pub threshold: Option<f32>,
    /// Least pause to cut at.
    pub pause: Option<Duration>,
}

/// Longest pause that can be asked for.
const MAX_PAUSE_MS: f64 = 10_000.0;

impl Chunking {
    /// Reads `auto`, an object as JSON, or an object as fields `chunking_strategy[type]` and so on. `prefix_padding_ms` is not
    /// needed: pieces always go beyond their seams.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub fn read(fields: &Fields) -> Result<Self, Error> {
        let mut object = serde_json::Map::new();
        match fields.set(NAME) {
            None | Some("auto") => {}
            Some(text) => match serde_json::from_str(text) {
                Ok(Value::Object(given)) => object = given,
                _ => return Err(refused("must be auto or an object of type server_vad")),
            },
        }
        for (key, name) in KEYS {
            if let Some(text) = fields.set(name) {
                object.insert(key.into(), Value::String(text.to_owned()));
            }
        }
        if object.is_empty() {
            return Ok(Self::default());
        }
        if object.get("type").and_then(Value::as_str) != Some("server_vad") {
            return Err(refused("must be of type server_vad"));
        }
        Ok(Self {
            threshold: number(&object, "threshold", 1.0)?.map(|threshold| threshold as f32),
            pause: number(&object, "silence_duration_ms", MAX_PAUSE_MS)?
                .map(|millis| Duration::from_secs_f64(millis / 1000.0)),
        })
    }
}

const NAME: &str = "chunking_strategy";
/// The keys of the object, and the fields that stand for them.
const KEYS: [(&str, &str); 3] = [
    ("type", "chunking_strategy[type]"),
    ("threshold", "chunking_strategy[threshold]"),
    ("silence_duration_ms", "chunking_strategy[silence_duration_ms]"),
];

fn number(object: &serde_json::Map<String, Value>, key: &str, most: f64) -> Result<Option<f64>, Error> {
    let number = match object.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_f64(),
    };
    let number = number.filter(|number| (0.0..=most).contains(number));
    number.map(Some).ok_or_else(|| refused(&format!("{key} must be a number from 0 to {most}")))
}

fn refused(what: &str) -> Error {
    Error::param(NAME, format!("{NAME}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<Chunking, Error> {
        let mut all = Fields::default();
        for (name, value) in fields {
            all.push((*name).to_owned(), (*value).to_owned());
        }
        Chunking::read(&all)
    }

    #[test]
    fn every_spelling_is_read() {
        assert_eq!(read(&[]), Ok(Chunking::default()));
        assert_eq!(read(&[(NAME, "auto")]), Ok(Chunking::default()));
        let expected = Chunking { threshold: Some(0.25), pause: Some(Duration::from_millis(500)) };
        let json =
            r#"{"type":"server_vad","threshold":0.25,"silence_duration_ms":500,"prefix_padding_ms":300}"#;
        assert_eq!(read(&[(NAME, json)]), Ok(expected));
        let bracketed = [
            ("chunking_strategy[type]", "server_vad"),
            ("chunking_strategy[threshold]", "0.25"),
            ("chunking_strategy[silence_duration_ms]", "500"),
        ];
        assert_eq!(read(&bracketed), Ok(expected));
    }

    #[test]
    fn what_it_cannot_mean_is_refused() {
        for wrong in ["none at all", "{}x", r#"{"type":"other"}"#, r#"{"type":"server_vad","threshold":"x"}"#]
        {
            assert_eq!(read(&[(NAME, wrong)]).unwrap_err().param_name(), Some(NAME), "{wrong}");
        }
        let negative = [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "-1")];
        assert!(read(&negative).is_err());
    }
}
