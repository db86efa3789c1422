//! Answers by templates, in place of a language model: the same for the same conversation.
//!
//! | asked for | answer |
//! |---|---|
//! | "Reply with the single word: W" | W |
//! | a system message that asks to translate, and a list of texts in JSON | the texts in a list, each marked with the language |
//! | a system message that asks for `action_items` | JSON with a note and an action item |
//! | anything else | three sentences: what was said, how often something was said, and what answers |

use serde_json::{Value, json};

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Its text.
    pub text: String,
}

const ONE_WORD: &str = "Reply with the single word:";

/// The answer to a conversation.
#[must_use]
pub fn answer(messages: &[Message]) -> String {
    let of = |role: &'static str| messages.iter().filter(move |message| message.role == role);
    let asked = of("user").next_back().map_or("", |message| message.text.trim());
    if let Some((_, word)) = asked.split_once(ONE_WORD) {
        return word.trim().trim_end_matches('.').to_owned();
    }
    let system: Vec<&str> = of("system").map(|message| message.text.as_str()).collect();
    let system = system.join("\n");
    if let Some(language) = target(&system) {
        return translated(asked, language);
    }
    if system.contains("action_items") {
        let first = asked.lines().next().unwrap_or_default();
        return json!({"notes": [format!("Said: {first}")], "action_items": [format!("Follow up: {first}")]})
            .to_string();
    }
    let turns = of("user").count();
    format!("You said: {asked}. That was message number {turns}. I am a test answerer without a model.")
}

/// The language that a system message asks to translate to: the word behind "into" or "to".
fn target(system: &str) -> Option<&str> {
    let (_, rest) = system.split_once("ranslate")?;
    let (_, rest) = rest.split_once(" into ").or_else(|| rest.split_once(" to "))?;
    rest.split(|letter: char| !letter.is_alphanumeric() && letter != '-').find(|word| !word.is_empty())
}

fn translated(text: &str, language: &str) -> String {
    let marked = |text: &str| format!("[{language}] {text}");
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(texts) => texts.iter().map(|text| Value::from(marked(text))).collect::<Value>().to_string(),
        Err(_) => marked(text),
    }
}

/// An answer in pieces as a model would make them: words with their blanks.
#[must_use]
pub fn pieces(answer: &str) -> Vec<&str> {
    answer.split_inclusive(' ').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: &str, text: &str) -> Message {
        Message { role: role.into(), text: text.into() }
    }

    #[test]
    fn answers_follow_their_templates() {
        let ask = |system: &str, user: &str| answer(&[said("system", system), said("user", user)]);
        assert_eq!(ask("", "Reply with the single word: ready."), "ready");
        assert_eq!(ask("Translate each text into fr.", r#"["a","b"]"#), r#"["[fr] a","[fr] b"]"#);
        assert_eq!(ask("You translate to German.", "Hello"), "[German] Hello");
        let notes: Value = serde_json::from_str(&ask("Give notes and action_items", "Buy milk")).unwrap();
        assert_eq!(notes["action_items"][0], "Follow up: Buy milk");
        let more = answer(&[said("user", "Hi"), said("assistant", "Yes?"), said("user", "Bye")]);
        assert!(more.starts_with("You said: Bye. That was message number 2."), "{more}");
        assert_eq!(pieces(&more).concat(), more);
        assert!(answer(&[]).starts_with("You said: ."));
    }
}
