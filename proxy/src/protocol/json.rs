//! Reads the JSON that Python services write, in which numbers may be bare `NaN` and `Infinity`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Error;

/// Numbers that Python's `json.dumps` writes by default and JSON does not have.
const NOT_JSON: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];

/// Parses `text`; numbers that JSON cannot express are read as null.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        Err(error) => match nulled(text) {
            Cow::Borrowed(_) => Err(error),
            Cow::Owned(text) => serde_json::from_slice(&text),
        },
    }
}

/// `text` with `null` in the place of each such number outside of strings.
fn nulled(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Vec<u8> = Vec::new();
    let (mut copied, mut at) = (0, 0);
    let mut in_string = false;
    while at < text.len() {
        match text[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                if let Some(number) = NOT_JSON.iter().find(|number| text[at..].starts_with(number)) {
                    out.extend_from_slice(&text[copied..at]);
                    out.extend_from_slice(b"null");
                    at += number.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text[copied..]);
    Cow::Owned(out)
}

/// The `text` of a JSON object, if it has one.
///
/// # Errors
/// [`Error::Shape`] when it is not JSON. Bare `NaN` counts as not JSON here: no engine that works writes it.
pub(super) fn text(reply: &[u8]) -> Result<Option<Cow<'_, str>>, Error> {
    #[derive(Deserialize)]
    struct Reply<'json> {
        #[serde(default, borrow)]
        text: Option<Cow<'json, str>>,
    }
    let reply: Reply<'_> =
        serde_json::from_slice(reply).map_err(|source| Error::Shape { path: "the job", source })?;
    Ok(reply.text)
}

/// A number, or a number in quotes, as some servers write durations. NaN is a text that is no number.
#[derive(Clone, Copy)]
pub(super) struct Number(f64);

impl Number {
    /// The number, unless it is none.
    pub(super) fn finite(self) -> Option<f64> {
        self.0.is_finite().then_some(self.0)
    }
}

/// Not derived: an untagged enum would first copy each of the many numbers of a transcript.
impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Number;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number, or one in quotes")
            }

            fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_str<E>(self, text: &str) -> Result<Number, E> {
                Ok(Number(text.trim().parse().unwrap_or(f64::NAN)))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

/// Seconds; NaN where there are none.
pub(super) fn seconds(number: Option<Number>) -> f64 {
    number.and_then(Number::finite).unwrap_or(f64::NAN)
}

/// A string; other values count as none.
pub(super) fn string(value: Option<Value>) -> Option<String> {
    value.and_then(|value| value.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bare_nan_and_infinity_become_null() {
        let value: Value = parse(br#"{"a":[NaN,-Infinity,Infinity,-1.5],"b":NaN}"#).unwrap();
        assert_eq!(value, json!({"a": [null, null, null, -1.5], "b": null}));
    }

    #[test]
    fn strings_keep_their_content() {
        let value: Value = parse(br#"{"a":"NaN \" Infinity","b":NaN}"#).unwrap();
        assert_eq!(value, json!({"a": "NaN \" Infinity", "b": null}));
    }

    #[test]
    fn other_faults_stay_faults() {
        for text in ["", "{", "{\"a\":Na}", "{\"a\":\"\\", "NaN]", "{\"text\":\"CUDA"] {
            assert!(parse::<Value>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
