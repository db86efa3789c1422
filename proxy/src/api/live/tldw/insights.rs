//! Insights: notes and action items of what was said so far, by a language model, at intervals and at the end.

use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

use contract::Capability;

use super::frame::timestamp;
use crate::api::Context;
use crate::api::live::{Reply, Work};
use crate::api::llm::answer;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::chat::{Chat, Message, Role};

/// Seconds of audio between two insights, and the bounds of what a client may set.
const INTERVAL: f64 = 60.0;
const INTERVALS: std::ops::RangeInclusive<f64> = 10.0..=3600.0;
/// Characters of the transcript that the model gets: the last ones.
const MAX_TEXT: usize = 24_000;
/// Entries of a list, and characters of each, that are passed on.
const MAX_ENTRIES: usize = 50;
const MAX_ENTRY: usize = 500;

const PROMPT: &str = "You take notes of a meeting. Reply with a JSON object and nothing else: \"notes\", an array of short notes of what \
                      was said, and \"action_items\", an array of what someone has to do. Both are in the language of the transcript.";

/// When insights are due.
pub(super) struct Insights {
    /// Seconds of audio between two.
    interval: f64,
    /// Second of audio of the last one.
    told: f64,
    /// Whether something was said since.
    is_new: bool,
}

/// When an insight is given.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    Live,
    Final,
}

impl Insights {
    /// As a config asks for them, in its `insights` object if it has one.
    pub(super) fn of(config: &Value, seconds: f64) -> Self {
        let named = ["interval", "interval_seconds", "summary_interval_seconds"];
        let interval = named.iter().find_map(|name| config.get(*name)).and_then(Value::as_f64);
        let interval = interval.unwrap_or(INTERVAL).clamp(*INTERVALS.start(), *INTERVALS.end());
        Self { interval, told: seconds, is_new: false }
    }

    /// What is shown of them.
    pub(super) fn shown(&self) -> Value {
        json!({"enabled": true, "interval": self.interval, "notes": true, "action_items": true})
    }

    /// Something was said until that second. Whether an insight is due.
    pub(super) fn said(&mut self, seconds: f64) -> bool {
        self.is_new = true;
        let is_due = seconds - self.told >= self.interval;
        if is_due {
            self.told = seconds;
            self.is_new = false;
        }
        is_due
    }

    /// The transcript is complete. Whether something was said since the last insight.
    pub(super) fn end(&mut self, seconds: f64) -> bool {
        self.told = seconds;
        std::mem::take(&mut self.is_new)
    }
}

/// The frame of an insight.
pub(super) fn frame(context: &Arc<Context>, request_id: &RequestId, text: &str, stage: Stage) -> Work {
    let (context, request_id) = (Arc::clone(context), request_id.clone());
    let skipped = text.chars().count().saturating_sub(MAX_TEXT);
    let text: String = text.chars().skip(skipped).collect();
    let frame = async move {
        let stage = match stage {
            Stage::Live => "live",
            Stage::Final => "final",
        };
        Reply::Json(match ask(&context, &request_id, text).await {
            Ok((notes, items)) => json!({
                "type": "insight", "stage": stage, "notes": notes, "action_items": items, "timestamp": timestamp(),
            }),
            Err(error) => {
                json!({"type": "warning", "state": "insights_unavailable", "message": error.to_string()})
            }
        })
    };
    frame.into_stream().boxed()
}

async fn ask(
    context: &Context,
    request_id: &RequestId,
    text: String,
) -> Result<(Vec<String>, Vec<String>), Error> {
    let messages = vec![Message::new(Role::System, PROMPT), Message::new(Role::User, text)];
    let chat = Chat { temperature: Some(0.2), ..Chat::of(messages) };
    let route = context.route(request_id, None, Capability::Llm)?;
    Ok(read(&answer(context, request_id, route, chat).await?.whole().await?.text))
}

/// Notes and action items of an answer. One that is not of the form that was asked for is a note.
fn read(answer: &str) -> (Vec<String>, Vec<String>) {
    let object = answer.find('{').zip(answer.rfind('}')).and_then(|(begin, end)| answer.get(begin..=end));
    let object: Option<Value> = object.and_then(|object| serde_json::from_str(object).ok());
    let Some(object) = object else {
        let note: String = answer.trim().chars().take(MAX_ENTRY).collect();
        return (if note.is_empty() { Vec::new() } else { vec![note] }, Vec::new());
    };
    let list = |name: &str| -> Vec<String> {
        let entries = object.get(name).and_then(Value::as_array).into_iter().flatten();
        let texts = entries.map(|entry| entry.as_str().map_or_else(|| entry.to_string(), str::to_owned));
        texts.take(MAX_ENTRIES).map(|text| text.chars().take(MAX_ENTRY).collect()).collect()
    };
    (list("notes"), list("action_items"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insights_are_due_at_intervals_and_at_the_end_of_something_new() {
        let mut insights = Insights::of(&json!({"interval": 20}), 0.0);
        assert!(!insights.said(10.0));
        assert!(insights.said(21.0));
        assert!(!insights.end(22.0), "nothing was said since");
        assert!(!insights.said(30.0));
        assert!(insights.end(31.0));
        assert_eq!(Insights::of(&json!(true), 0.0).shown()["interval"], 60.0);
        assert_eq!(Insights::of(&json!({"interval": 0}), 0.0).shown()["interval"], 10.0);
    }

    #[test]
    fn answers_of_any_form_are_read() {
        let fenced = "```json\n{\"notes\": [\"a\", 7], \"action_items\": [\"b\"]}\n```";
        assert_eq!(read(fenced), (vec!["a".into(), "7".into()], vec!["b".into()]));
        assert_eq!(read(" Nothing much. "), (vec!["Nothing much.".into()], Vec::new()));
        assert_eq!(read("{}"), (Vec::new(), Vec::new()));
        assert_eq!(read(""), (Vec::new(), Vec::new()));
    }
}
