//! The realtime path: the beta of OpenAI's API, vLLM's frames, what is not served, and speech that is cut off.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::audio::signal::speech;
use crate::gateway::tests::sessions::Client;
use crate::gateway::tests::stack::{Stack, envelope, samples};

const HEARD: &str = "So it is. Yes.";

fn spoken() -> Vec<String> {
    let samples = [vec![0; 8_000], speech(16_000, 2.0), vec![0; 16_000]].concat();
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    bytes.chunks(6_401).map(|piece| STANDARD.encode(piece)).collect()
}

#[tokio::test]
async fn the_betas_sessions_come_with_a_key_that_opens_them() {
    let stack = Stack::start().await;
    let beta = |path: &str| stack.post(path).header("openai-beta", "assistants=v2");
    let body = json!({"input_audio_format": "g711_ulaw", "turn_detection": null, "input_audio_transcription": {"model": "gpt-4o-transcribe"}});
    let made = beta("/v1/realtime/transcription_sessions").json(&body).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    assert_eq!(
        (&made["input_audio_format"], &made["turn_detection"]),
        (&json!("g711_ulaw"), &Value::Null),
        "{made}"
    );
    let key = made["client_secret"]["value"].as_str().unwrap();
    assert!(key.starts_with("ek_") && made["client_secret"]["expires_at"].is_u64(), "{made}");
    let offered = format!("realtime, openai-insecure-api-key.{key}, openai-beta.realtime-v1");
    let mut client =
        Client::open(&stack, "/v1/realtime", &[("sec-websocket-protocol", offered)]).await.ok().unwrap();
    let created = client.next().await.unwrap();
    assert_eq!(created["type"], "transcription_session.created");
    assert_eq!(created["session"]["input_audio_format"], "g711_ulaw", "{created}");

    let body = json!({"model": "gpt-4o-realtime-preview", "voice": "alloy", "modalities": ["audio", "text"]});
    let made: Value = beta("/v1/realtime/sessions").json(&body).send().await.unwrap().json().await.unwrap();
    assert_eq!((&made["voice"], &made["object"]), (&json!("alloy"), &json!("realtime.session")), "{made}");
    assert!(made["client_secret"]["value"].as_str().unwrap().starts_with("ek_"));
    envelope(
        beta("/v1/realtime/sessions").json(&json!({"voice": 7})).send().await.unwrap(),
        400,
        Some("session.voice"),
    )
    .await;
    // A NIM's client sends no such header.
    let nim: Value = stack
        .post("/v1/realtime/transcription_sessions")
        .json(&json!({}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&nim["input_audio_params"]["sample_rate_hz"], &nim["client_secret"]),
        (&json!(16_000), &Value::Null)
    );
}

#[tokio::test]
async fn the_beta_has_its_own_names_and_shapes() {
    let stack = Stack::start().await;
    let headers = [("openai-beta", "realtime=v1".to_owned())];
    let mut client =
        Client::open(&stack, "/v1/realtime?model=gpt-4o-realtime-preview", &headers).await.ok().unwrap();
    let created = client.next().await.unwrap();
    assert_eq!(
        (&created["type"], &created["session"]["input_audio_format"]),
        (&json!("session.created"), &json!("pcm16"))
    );
    let content = json!([{"type": "input_text", "text": "Hi."}]);
    let item = json!({"type": "message", "role": "user", "content": content});
    client.send(json!({"type": "conversation.item.create", "item": item})).await;
    assert_eq!(client.next().await.unwrap()["type"], "conversation.item.created");
    client.send(json!({"type": "response.create", "response": {"modalities": ["audio", "text"]}})).await;
    let mut kinds = Vec::new();
    let done = loop {
        let event = client.next().await.unwrap();
        kinds.push(event["type"].as_str().unwrap().to_owned());
        if event["type"] == "response.done" {
            break event;
        }
    };
    for kind in ["response.audio.delta", "response.audio_transcript.delta", "response.audio.done"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind}: {kinds:?}");
    }
    let response = &done["response"];
    assert_eq!(
        (&response["modalities"], &response["output_audio_format"]),
        (&json!(["text", "audio"]), &json!("pcm16"))
    );
    assert_eq!(response["output"][0]["content"][0]["type"], "audio", "{done}");
    assert!(response.get("audio").is_none() && response.get("output_modalities").is_none());
}

#[tokio::test]
async fn vllms_clients_get_deltas_and_one_text() {
    let stack = Stack::start().await;
    for path in ["/v1/realtime", "/v1/realtime?dialect=vllm"] {
        let mut client = Client::open(&stack, path, &[]).await.ok().unwrap();
        let created = client.next().await.unwrap();
        assert_eq!(created["type"], "session.created");
        assert!(created["id"].is_string() && created["created"].is_u64(), "{created}");
        client
            .send(json!({"type": "session.update", "model": "mistralai/Voxtral-Mini-4B-Realtime-2602"}))
            .await;
        client.send(json!({"type": "input_audio_buffer.commit"})).await;
        for audio in spoken() {
            client.send(json!({"type": "input_audio_buffer.append", "audio": audio})).await;
        }
        client.send(json!({"type": "input_audio_buffer.commit", "final": true})).await;
        let mut deltas = String::new();
        let done = loop {
            let event = client.next().await.unwrap();
            match event["type"].as_str().unwrap() {
                "transcription.delta" => deltas.push_str(event["delta"].as_str().unwrap()),
                other => {
                    break {
                        assert_eq!(other, "transcription.done", "{event}");
                        event
                    };
                }
            }
        };
        assert_eq!((done["text"].as_str(), deltas.as_str()), (Some(HEARD), HEARD));
        assert!(done["usage"]["seconds"].as_u64() >= Some(3), "{done}");
        assert_eq!(client.next().await, Err((1000, String::new())));
    }
    let mut client = Client::open(&stack, "/v1/realtime?dialect=vllm", &[]).await.ok().unwrap();
    client.next().await.unwrap();
    for wrong in
        [json!([]), json!({"type": "sing"}), json!({"type": "input_audio_buffer.append", "audio": 1})]
    {
        client.send(wrong.clone()).await;
        let error = client.next().await.unwrap();
        assert!(error["error"].is_string() && error["code"].is_string(), "{wrong}: {error}");
    }
    client.send_binary(&[0]).await;
    assert_eq!(client.next().await.unwrap()["type"], "error");
}

#[tokio::test]
async fn webrtc_is_refused_with_what_to_do_instead() {
    let stack = Stack::start().await;
    for path in ["/v1/realtime/calls", "/v1/realtime/calls/rtc_1/hangup", "/v1/realtime"] {
        let offer = stack.post(path).header("content-type", "application/sdp").body("v=0");
        let response = offer.send().await.unwrap();
        assert_eq!(response.headers()["x-should-retry"], "false", "{path}");
        assert!(envelope(response, 501, None).await.contains("WebSocket"), "{path}");
    }
}

#[tokio::test]
async fn speech_that_is_cut_off_frees_its_engine() {
    let stack = Stack::start().await;
    for cut in ["response.cancel", "output_audio_buffer.clear"] {
        let mut client = Client::open(&stack, "/v1/realtime?model=gpt-realtime", &[]).await.ok().unwrap();
        client.next().await.unwrap();
        let engine = stack.engines[1].stream();
        let input = json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "A long text."}]}]);
        client
            .send(json!({"type": "response.create", "response": {"conversation": "none", "input": input}}))
            .await;
        engine.send(Ok(samples().into())).await.unwrap();
        client.until("type", "response.output_audio.delta").await.unwrap();
        client.send(json!({"type": cut})).await;
        let done = client.until("type", "response.done").await.unwrap();
        assert_eq!(done["response"]["status"], "cancelled", "{done}");
        timeout(Duration::from_secs(1), engine.closed()).await.expect("the engine still speaks");
    }
}

/// Else a client hears all of a text before its gateway reads that it wants no more.
#[tokio::test]
async fn a_client_is_heard_while_an_engine_speaks_faster_than_it_can_be_sent() {
    let stack = Stack::start().await;
    let mut client = Client::open(&stack, "/v1/realtime?model=gpt-realtime", &[]).await.ok().unwrap();
    client.next().await.unwrap();
    let engine = stack.engines[1].stream();
    let input = json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "A long text."}]}]);
    client.send(json!({"type": "response.create", "response": {"input": input}})).await;
    // Some minutes of speech at once.
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        while sent < 2_000 && engine.send(Ok(samples().repeat(20).into())).await.is_ok() {
            sent += 1;
        }
        engine.closed().await;
        sent
    });
    client.until("type", "response.output_audio.delta").await.unwrap();
    client.send(json!({"type": "response.cancel"})).await;
    let done = client.until("type", "response.done").await.unwrap();
    assert_eq!(done["response"]["status"], "cancelled", "{done}");
    let sent = timeout(Duration::from_secs(10), flood).await.expect("the engine still speaks").unwrap();
    assert!(sent < 2_000, "all of it was spoken");
}

#[tokio::test]
async fn finals_say_who_speaks_when_that_is_asked_for() {
    let stack = Stack::start().await;
    let mut client = Client::open(&stack, "/v1/realtime?intent=transcription", &[]).await.ok().unwrap();
    client.next().await.unwrap();
    let update = |diarize: Value| {
        let transcription = json!({"model": "gpt-4o-transcribe", "diarize": diarize});
        json!({"type": "session.update", "session": {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}, "transcription": transcription}}}})
    };
    client.send(update(json!("yes"))).await;
    let error = client.until("type", "error").await.unwrap();
    assert_eq!(error["error"]["param"], "session.audio.input.transcription.diarize", "{error}");
    client.send(update(json!(true))).await;
    let updated = client.until("type", "session.updated").await.unwrap();
    assert_eq!(updated["session"]["audio"]["input"]["transcription"]["diarize"], true, "{updated}");
    for audio in spoken() {
        client.send(json!({"type": "input_audio_buffer.append", "audio": audio})).await;
    }
    let mut segments = Vec::new();
    let completed = loop {
        let event = client.next().await.unwrap();
        match event["type"].as_str().unwrap().rsplit('.').next().unwrap() {
            "segment" => segments.push(event),
            "completed" => break event,
            _ => {}
        }
    };
    let texts: Vec<&str> = segments.iter().map(|segment| segment["text"].as_str().unwrap()).collect();
    assert_eq!(Some(&*texts.join(" ")), completed["transcript"].as_str(), "{segments:?}");
    for segment in &segments {
        assert_eq!(segment["item_id"], completed["item_id"], "{segment}");
        assert!(segment["speaker"].as_str().unwrap().starts_with(['A', 'B']), "{segment}");
        assert!(segment["start"].as_f64() <= segment["end"].as_f64(), "{segment}");
    }
}

#[tokio::test]
async fn items_are_shown_again_cut_and_forgotten() {
    let stack = Stack::start().await;
    let mut client = Client::open(&stack, "/v1/realtime?model=gpt-realtime", &[]).await.ok().unwrap();
    client.next().await.unwrap();
    let content = json!([{"type": "input_text", "text": "Hi."}]);
    let item = json!({"id": "mine", "type": "message", "role": "user", "content": content});
    client.send(json!({"type": "conversation.item.create", "item": item})).await;
    client.until("type", "conversation.item.done").await.unwrap();
    let ask = |what: &str| json!({"type": format!("conversation.item.{what}"), "item_id": "mine", "content_index": 0, "audio_end_ms": 70});
    client.send(ask("retrieve")).await;
    let shown = client.until("type", "conversation.item.retrieved").await.unwrap();
    assert_eq!(shown["item"]["content"], content, "{shown}");
    client.send(ask("truncate")).await;
    assert_eq!(client.until("type", "conversation.item.truncated").await.unwrap()["audio_end_ms"], 70);
    client.send(ask("delete")).await;
    assert_eq!(client.until("type", "conversation.item.deleted").await.unwrap()["item_id"], "mine");
    client.send(ask("retrieve")).await;
    assert_eq!(client.until("type", "error").await.unwrap()["error"]["code"], "item_not_found");
}
