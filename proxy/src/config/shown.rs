//! The configuration in effect, as text that can be shown: defaults filled in, secrets left out.

use serde_json::Value;

use super::Config;

/// What stands in place of a secret.
const REDACTED: &str = "<redacted>";
/// What is in the names of arguments whose value is a secret.
const SECRET_NAMES: [&str; 5] = ["key", "token", "secret", "password", "credential"];

/// The configuration as YAML. Values of environment variables, values of arguments such as `--api-key`, and users and passwords
/// in URLs are `<redacted>`; paths of files with secrets are shown.
///
/// # Errors
/// What the writer says of a value that YAML does not have.
pub fn shown(config: &Config) -> Result<String, serde_saphyr::ser::Error> {
    let mut tree = serde_json::to_value(config).unwrap_or_default();
    redact(&mut tree);
    serde_saphyr::to_string(&tree)
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("env", Value::Object(variables)) => {
                        variables.values_mut().for_each(|value| *value = REDACTED.into());
                    }
                    ("command" | "args", Value::Array(words)) => redact_command(words),
                    (_, value) => redact(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::String(text) => {
            if let Some(without) = without_user(text) {
                *text = without;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Hides the values of `--api-key=X`, `--api-key X` and `API_KEY=X`.
fn redact_command(words: &mut [Value]) {
    let mut named = false;
    for word in words {
        let Value::String(text) = word else { continue };
        if named && !text.starts_with("--") {
            *text = REDACTED.into();
            named = false;
            continue;
        }
        match text.split_once('=') {
            Some((name, _)) if is_secret(name) => *text = format!("{name}={REDACTED}"),
            Some(_) => {}
            None => named = text.starts_with('-') && is_secret(text),
        }
        redact(word);
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // A file of secrets is named, not shown.
    !name.ends_with("file") && SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

/// A URL without its user and password, if it has them.
fn without_user(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (_, host) = rest[..end].rsplit_once('@')?;
    Some(format!("{scheme}://{REDACTED}@{host}{}", &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_filled_in_and_secrets_left_out() {
        let config: Config = serde_saphyr::from_str(
            "engines:\n\
             - {name: stt-0, capability: stt, url: 'http://ada:hidden1@127.0.0.1:9000/x', guard: '127.0.0.1:1',\n\
                guard_admin: '127.0.0.1:2', key_file: /run/key, env: {NGC_API_KEY: hidden2},\n\
                command: [engine, --api-key, hidden3, --token=hidden4, --key-file, /run/k, --port, '9000']}\n",
        )
        .unwrap();
        let text = shown(&config).unwrap();
        assert!(!text.contains("hidden"), "{text}");
        for kept in ["127.0.0.1:9000/x", "/run/key", "NGC_API_KEY", "/run/k", "max_in_flight: 1024", "9000"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back["engines"][0]["command"][7], "9000");
        assert_eq!(back["gateway"]["drain"], "30s");
    }

    #[test]
    fn only_a_url_has_a_user() {
        assert_eq!(without_user("redis://:secret@host:1/0").unwrap(), "redis://<redacted>@host:1/0");
        for text in ["ada@example.com", "http://host/a@b", "plain"] {
            assert_eq!(without_user(text), None, "{text}");
        }
    }
}
