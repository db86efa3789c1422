//! A hash of a JSON value that stays the same over builds, releases and orders of keys.

use serde::Serialize;
use serde_json::Value;

/// FNV-1a, 64 bit. The standard library's hasher may change with the compiler, and GPU pods would be replaced.
struct Fnv(u64);

impl Fnv {
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                self.feed(b"{");
                for (key, value) in entries {
                    self.feed(key.as_bytes());
                    self.feed(b"\0:");
                    self.value(value);
                }
                self.feed(b"}");
            }
            Value::Array(items) => {
                self.feed(b"[");
                for item in items {
                    self.value(item);
                    self.feed(b",");
                }
                self.feed(b"]");
            }
            Value::String(text) => {
                self.feed(b"\"");
                self.feed(text.as_bytes());
                self.feed(b"\0");
            }
            other => self.feed(other.to_string().as_bytes()),
        }
    }
}

/// The fingerprint, 16 hexadecimal digits.
#[must_use]
pub fn of(value: &Value) -> String {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    fnv.value(value);
    format!("{:016x}", fnv.0)
}

/// The fingerprint of a text, 8 hexadecimal digits.
#[must_use]
pub fn short(text: &str) -> String {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    fnv.feed(text.as_bytes());
    format!("{:08x}", (fnv.0 >> 32) ^ (fnv.0 & 0xffff_ffff))
}

/// The JSON of an API object; these types always have one.
#[must_use]
pub fn json<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fingerprint_is_fixed_for_ever() {
        // A change of these values would replace every GPU pod at the next operator update.
        assert_eq!(of(&json!({"a": [1, true, null], "b": {"c": "d"}})), "30f3b100888143f1");
        assert_eq!(of(&json!({})), of(&serde_json::from_str("{}").unwrap()));
    }

    #[test]
    fn order_of_keys_does_not_matter_and_all_else_does() {
        let parse = |text: &str| of(&serde_json::from_str(text).unwrap());
        assert_eq!(parse(r#"{"a":1,"b":2}"#), parse(r#"{"b":2,"a":1}"#));
        let different =
            ["{}", "[]", r#""""#, "null", "0", r#"{"a":1}"#, r#"{"a":"1"}"#, r#"{"a":[1]}"#, r#"["a",1]"#];
        let set: std::collections::HashSet<_> = different.iter().map(|text| parse(text)).collect();
        assert_eq!(set.len(), different.len());
    }
}
