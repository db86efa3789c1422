//! Masks what a support archive must not hold (pure).

use contract::redact::redact;
use serde_json::Value;

/// Stands for what was taken out.
const MASK: &str = "[...]";
/// Parts of names of environment variables whose values are secret.
const SECRET_NAMES: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH", "COOKIE"];
/// Holds the whole object as a user wrote it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object without its field managers, the copy of what was applied, and secret values of environment variables and
/// arguments.
pub fn object(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("managedFields");
            members.remove(LAST_APPLIED);
            for (name, member) in members.iter_mut() {
                match (name.as_str(), member) {
                    ("env", Value::Array(variables)) => variables.iter_mut().for_each(variable),
                    ("env", Value::Object(variables)) => {
                        variables.iter_mut().for_each(|(name, value)| masked(name, value));
                    }
                    ("args" | "command", Value::Array(words)) => {
                        words.iter_mut().for_each(|word| masked("", word))
                    }
                    (_, member) => object(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(object),
        _ => {}
    }
}

fn variable(variable: &mut Value) {
    let name = variable["name"].as_str().unwrap_or_default().to_owned();
    if let Some(value) = variable.get_mut("value") {
        masked(&name, value);
    }
}

/// Masks the value if its name says that it is secret, else what in it looks like a secret.
fn masked(name: &str, value: &mut Value) {
    let Some(text) = value.as_str() else { return };
    let name = name.to_uppercase();
    let secret = SECRET_NAMES.iter().any(|part| name.contains(part));
    *value = Value::String(if secret { MASK.into() } else { redact(text.as_bytes()) });
}

/// A log, line by line, without what looks like a secret or like words of a user.
pub fn log(log: &str) -> String {
    log.lines().map(|line| redact(line.as_bytes()) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let mut stack = json!({
            "metadata": {"managedFields": [1], "annotations": {LAST_APPLIED: "{}", "team": "a"}},
            "spec": {"stt": [{
                "env": [
                    {"name": "NGC_API_KEY", "value": "nvapi-1"},
                    {"name": "NIM_TAGS_SELECTOR", "value": "name=x,mode=str"},
                    {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "ngc", "key": "k"}}}],
                "args": ["--token=abc", "--port", "9000"]}],
                "template": {"env": {"HF_TOKEN": "hf_1", "MODE": "fast"}}},
        });
        object(&mut stack);
        assert_eq!(
            stack,
            json!({
                "metadata": {"annotations": {"team": "a"}},
                "spec": {"stt": [{
                    "env": [
                        {"name": "NGC_API_KEY", "value": "[...]"},
                        {"name": "NIM_TAGS_SELECTOR", "value": "name=x,mode=str"},
                        {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "ngc", "key": "k"}}}],
                    "args": ["--token=[...]", "--port", "9000"]}],
                    "template": {"env": {"HF_TOKEN": "[...]", "MODE": "fast"}}},
            })
        );
    }
}
