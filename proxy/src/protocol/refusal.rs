//! What an engine says in the body of a 4xx.

use super::json;

/// Longest message of an engine that is passed on, characters.
const MESSAGE_CHARACTERS: usize = 500;

/// The message, in whichever envelope: OpenAI's `error`, FastAPI's `detail`, or plain text.
pub fn refusal(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let envelope: serde_json::Value = json::parse(body).unwrap_or_default();
    let places = ["/error/message", "/error", "/detail", "/message"];
    let message = places.iter().find_map(|place| envelope.pointer(place)?.as_str());
    let message = message.unwrap_or(&text).trim();
    if message.is_empty() {
        return "the engine refused the input".into();
    }
    message.chars().take(MESSAGE_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_found_in_every_envelope() {
        for body in [
            r#"{"error":{"message":"audio too long"},"detail":"x"}"#,
            r#"{"error":"audio too long"}"#,
            r#"{"detail":"audio too long"}"#,
            " audio too long\n",
        ] {
            assert_eq!(refusal(body.as_bytes()), "audio too long", "{body}");
        }
        assert_eq!(refusal(b""), "the engine refused the input");
        assert_eq!(refusal(&[b'x'; 10_000]).len(), 500);
    }
}
