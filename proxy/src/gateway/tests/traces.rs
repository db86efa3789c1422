//! W3C Trace Context through the gateway, without any export.

use serde_json::json;

use crate::gateway::tests::sessions::Client;
use crate::gateway::tests::stack::{Stack, form, wav};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";

/// The trace that an engine was sent last.
fn seen(stack: &Stack, engine: usize) -> [Option<String>; 2] {
    let seen = stack.engines[engine].seen.lock();
    let headers = &seen.last().unwrap().headers;
    ["traceparent", "tracestate"]
        .map(|name| headers.get(name).map(|value| value.to_str().unwrap().to_owned()))
}

async fn transcribe(stack: &Stack, headers: &[(&str, &str)]) {
    let mut request = stack.post(TRANSCRIPTIONS).multipart(form(&[], wav(100)));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_trace_goes_on_to_engines_and_what_is_malformed_is_ignored() {
    let stack = Stack::start().await;
    let passed = |parent: &str, state: Option<&str>| [Some(parent.to_owned()), state.map(str::to_owned)];
    transcribe(&stack, &[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]).await;
    assert_eq!(seen(&stack, 0), passed(PARENT, Some("a=1,b=2")));
    transcribe(&stack, &[("traceparent", PARENT)]).await;
    assert_eq!(seen(&stack, 0), passed(PARENT, None));
    let unsampled = PARENT.replace("-01", "-00");
    transcribe(&stack, &[("traceparent", &unsampled)]).await;
    assert_eq!(seen(&stack, 0), passed(&unsampled, None));
    for malformed in ["", "00-0-0-0", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &PARENT[1..]]
    {
        transcribe(&stack, &[("traceparent", malformed), ("tracestate", "a=1")]).await;
        assert_eq!(seen(&stack, 0), [None, None], "{malformed:?}");
    }
    transcribe(&stack, &[("traceparent", PARENT), ("traceparent", PARENT)]).await;
    assert_eq!(seen(&stack, 0), [None, None], "given twice");
    transcribe(&stack, &[]).await;
    assert_eq!(seen(&stack, 0), [None, None], "none begins without an export");
}

#[tokio::test]
async fn what_is_said_in_a_session_belongs_to_the_trace_of_its_handshake() {
    let stack = Stack::start().await;
    let headers = [("openai-beta", "realtime=v1".to_owned()), ("traceparent", PARENT.to_owned())];
    let path = "/v1/realtime?model=gpt-4o-realtime-preview";
    let mut client = Client::open(&stack, path, &headers).await.ok().unwrap();
    let content = json!([{"type": "input_text", "text": "Hi."}]);
    let item = json!({"type": "message", "role": "user", "content": content});
    client.send(json!({"type": "conversation.item.create", "item": item})).await;
    client.send(json!({"type": "response.create", "response": {"modalities": ["audio", "text"]}})).await;
    client.until("type", "response.done").await.unwrap();
    assert_eq!(seen(&stack, 1)[0].as_deref(), Some(PARENT));
}
