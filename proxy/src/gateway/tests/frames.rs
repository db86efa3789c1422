//! Frames that no client should send, in every dialect: each is answered, and none ends a session or the gateway.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use contract::Capability;

use crate::gateway::tests::sessions::Client;
use crate::gateway::tests::stack::Stack;

/// A dialect by its path, the field that names an event, events that do not end the session, and what an answer to a text that
/// is no JSON has.
struct Spoken {
    path: &'static str,
    field: &'static str,
    events: &'static [&'static str],
    invalid: &'static str,
}

const REALTIME: [&str; 8] = [
    "session.update",
    "conversation.item.create",
    "conversation.item.retrieve",
    "input_audio_buffer.append",
    "input_audio_buffer.clear",
    "input_audio_buffer.commit",
    "response.create",
    "response.cancel",
];

const DIALECTS: [Spoken; 8] = [
    Spoken {
        path: "/v1/conversation/ws",
        field: "type",
        events: &["config", "audio", "end_turn", "text", "interrupt", "clear", "sing"],
        invalid: "Invalid JSON",
    },
    Spoken { path: "/v1/generate_ws", field: "event", events: &["cancel", "sing"], invalid: "Invalid JSON" },
    Spoken {
        path: "/v1/speech-to-text/stream",
        field: "event",
        events: &["config", "clear", "sing"],
        invalid: "Invalid JSON",
    },
    Spoken {
        path: "/v1/speech-to-text/ws",
        field: "event",
        events: &["commit", "clear", "sing"],
        invalid: "Invalid JSON",
    },
    Spoken {
        path: "/v1/text-to-speech/ws",
        field: "event",
        events: &["cancel", "sing"],
        invalid: "Invalid JSON",
    },
    Spoken { path: "/v1/realtime?dialect=bridge", field: "type", events: &REALTIME, invalid: "invalid JSON" },
    Spoken {
        path: "/v1/realtime?dialect=beta&intent=transcription",
        field: "type",
        events: &REALTIME,
        invalid: "not a JSON object",
    },
    Spoken {
        path: "/v1/realtime?dialect=vllm",
        field: "type",
        events: &["session.update", "input_audio_buffer.append", "sing"],
        invalid: "not a JSON object",
    },
];

/// Names that some dialect reads.
const NAMES: [&str; 24] = [
    "audio",
    "audio_base64",
    "text",
    "input",
    "format",
    "sample_rate",
    "speed",
    "stream",
    "language",
    "temperature",
    "prompt",
    "session",
    "turn_detection",
    "voice",
    "item",
    "item_id",
    "content",
    "response",
    "references",
    "reference_id",
    "model",
    "threshold",
    "aggressiveness",
    "transcription",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[A-Za-z0-9+/=]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES.to_vec()), inner), 0..4).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

fn frame(spoken: &Spoken) -> impl Strategy<Value = Value> + use<> {
    let (field, events) = (spoken.field, spoken.events.to_vec());
    let fields = prop::collection::vec((prop::sample::select(NAMES.to_vec()), value()), 0..5);
    (prop::sample::select(events), fields).prop_map(move |(event, fields)| {
        let mut frame: Map<String, Value> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        frame.insert(field.to_owned(), json!(event));
        Value::Object(frame)
    })
}

#[tokio::test]
async fn frames_of_any_content_are_answered_and_end_nothing() {
    let all = [Capability::Stt, Capability::Tts, Capability::Llm];
    let stack = Stack::with(&all, |_| {}).await;
    let mut runner = TestRunner::deterministic();
    for spoken in &DIALECTS {
        let mut client = Client::open(&stack, spoken.path, &[]).await.ok().unwrap();
        let frames = frame(spoken);
        for round in 0..150 {
            let frame = frames.new_tree(&mut runner).unwrap().current();
            client.send(frame.clone()).await;
            if round % 5 == 0 {
                let bytes = any::<[u8; 33]>().new_tree(&mut runner).unwrap().current();
                client.send_binary(&bytes).await;
            }
            // What is no JSON is always answered: so all before it was taken.
            client.send_text("{").await;
            loop {
                match client.next().await {
                    Ok(answer) if answer.to_string().contains(spoken.invalid) => break,
                    Ok(_) => {}
                    Err(close) => panic!("{} {frame}: {close:?}", spoken.path),
                }
            }
        }
    }
}
