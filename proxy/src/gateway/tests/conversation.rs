//! Conversations: OpenAI's chat completions, GemmaVoice's dialogues and prompts, and what cuts them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::timeout;

use contract::Capability;

use crate::audio::wav;
use crate::gateway::tests::sessions::Client;
use crate::gateway::tests::stack::{
    CHAT, SAID_ALL, SYNTHESIZE, Stack, envelope, form, said, samples, wav as wav_file,
};

const TALK: &str = "/v1/conversation/ws";
/// What the fake engine hears in everything.
const HEARD: &str = "So it is. Yes.";
const ANSWER: &str = "You said So it is. Yes. That is all I know.";

async fn talking() -> Stack {
    Stack::with(&[Capability::Stt, Capability::Tts, Capability::Llm], |_| {}).await
}

/// The bodies that the fake language model got.
fn asked(stack: &Stack) -> Vec<Value> {
    let seen = stack.engines[2].seen.lock();
    seen.iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect()
}

/// The texts that the fake voice was to speak.
fn spoken(stack: &Stack) -> Vec<String> {
    stack.engines[1].seen.lock().iter().filter_map(|seen| seen.field("text")).collect()
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The audio of frames that have it in base64.
fn audio<'a>(frames: impl Iterator<Item = &'a Value>) -> Vec<u8> {
    frames.flat_map(|frame| STANDARD.decode(frame.as_str().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn a_chat_is_continued_whole_or_as_events_with_its_tools() {
    let stack = talking().await;
    let messages = json!([{"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}, {"role": "user", "content": "Hi."}]);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let body = json!({"model": "fake-model", "messages": messages, "max_tokens": 9, "tools": tools, "tool_choice": "auto"});
    let reply: Value = stack.post(CHAT).json(&body).send().await.unwrap().json().await.unwrap();
    assert_eq!(reply["choices"][0]["message"]["content"], "You said Hi. That is all I know.", "{reply}");
    assert_eq!(
        (&reply["choices"][0]["finish_reason"], &reply["model"]),
        (&json!("stop"), &json!("fake-model"))
    );
    let sent = asked(&stack)[0].clone();
    assert_eq!(
        sent["messages"],
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}])
    );
    assert_eq!(
        (&sent["model"], &sent["tools"], &sent["max_tokens"]),
        (&json!("fake-model"), &tools, &json!(9))
    );

    let calls =
        json!([{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
    let chunk = json!({"choices": [{"delta": {"tool_calls": calls}, "finish_reason": null}]});
    stack.engines[2].answer(200, &[], format!("data: {chunk}\n\n{SAID_ALL}"));
    let streamed = json!({"messages": [{"role": "user", "content": "Hi."}], "stream": true});
    let events =
        stack.post("/v1/chat/completions").json(&streamed).send().await.unwrap().text().await.unwrap();
    assert!(events.contains("\"tool_calls\"") && events.ends_with("data: [DONE]\n\n"), "{events}");

    let models: Value = stack.get("/v1/models").await.json().await.unwrap();
    let known = models["data"].as_array().unwrap().iter().find(|model| model["id"] == "fake-model").unwrap();
    assert_eq!(known["kind"], "llm");
    for (body, param) in [
        (json!({"messages": []}), Some("messages")),
        (json!({"messages": [{"role": "robot", "content": "x"}]}), Some("messages")),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), Some("messages")),
        (json!({"messages": [{"role": "user", "content": "x"}], "n": 2}), Some("n")),
        (json!({"messages": [{"role": "user", "content": "x"}], "temperature": 9}), Some("temperature")),
        (json!({"messages": [{"role": "user", "content": "x"}], "model": "whisper-1"}), Some("model")),
    ] {
        let response = stack.post(CHAT).json(&body).send().await.unwrap();
        envelope(response, 400, param).await;
    }
}

#[tokio::test]
async fn an_answer_that_fails_before_its_first_word_is_made_by_another_model() {
    let stack = Stack::with(&[Capability::Llm, Capability::Llm], |_| {}).await;
    let body = json!({"messages": [{"role": "user", "content": "Hi."}]});
    for failing in &stack.engines {
        failing.answer(200, &[], "data: {\"error\":{\"message\":\"CUDA\"}}\n\n");
    }
    let reply: Value = stack.post(CHAT).json(&body).send().await.unwrap().json().await.unwrap();
    assert_eq!(reply["choices"][0]["message"]["content"], "You said Hi. That is all I know.", "{reply}");
    assert_eq!(stack.complete(), 3, "both have failed, and one of them was asked once more");
    for breaking in &stack.engines {
        breaking.answer(200, &[], said("Hal"));
    }
    // What the client has begun to read cannot be taken over.
    let broken = stack.post(CHAT).json(&body).send().await.unwrap();
    envelope(broken, 503, None).await;
    assert_eq!(stack.complete(), 4);
}

#[tokio::test]
async fn without_a_language_model_the_error_says_where_one_is_configured() {
    let stack = Stack::start().await;
    for (path, body) in [
        (CHAT, json!({"messages": [{"role": "user", "content": "Hi."}]})),
        ("/v1/generate", json!({"prompt": "Hi."})),
        ("/v1/generate_stream", json!({"prompt": "Hi."})),
        ("/v1/conversation/dialogue", json!({"text": "Hi."})),
    ] {
        let response = stack.post(path).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 501, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains("capability llm") && text.contains("engines"), "{path}: {text}");
    }
    for path in [TALK, "/v1/generate_ws"] {
        let mut client = Client::open(&stack, path, &[]).await.ok().unwrap();
        let error = client.next().await.unwrap();
        assert!(error["detail"].as_str().unwrap().contains("capability llm"), "{path}: {error}");
        assert_eq!(client.next().await.unwrap_err().0, 1013, "{path}");
    }
    let health: Value = stack.get("/health").await.json().await.unwrap();
    assert_eq!(health["components"]["llm"]["status"], "not_configured");
    assert_eq!(
        (stack.get("/health/llm").await.status(), stack.get("/health/stt").await.status()),
        (501.try_into().unwrap(), 200.try_into().unwrap())
    );
}

#[tokio::test]
async fn a_prompt_is_answered_and_a_session_remembers() {
    let stack = talking().await;
    let post = |path: &str, body: Value| stack.post(path).json(&body).send();
    let body = json!({"prompt": "One.", "max_tokens": 256, "session_id": "s1", "system_prompt": "Be brief."});
    let reply: Value = post("/v1/generate", body).await.unwrap().json().await.unwrap();
    assert_eq!(reply["generated_text"], "You said One. That is all I know.");
    let events = post("/v1/generate_stream", json!({"prompt": "Two.", "session_id": "s1"})).await.unwrap();
    let events = events.text().await.unwrap();
    assert!(events.starts_with("event: token\ndata: {\"text\":\"You \"}"), "{events}");
    assert!(
        events.contains("event: done\n") && events.contains("\"generated_text\":\"You said Two."),
        "{events}"
    );
    let remembered = asked(&stack)[1]["messages"].clone();
    let texts: Vec<&str> =
        remembered.as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap()).collect();
    assert_eq!(texts, ["One.", "You said One. That is all I know.", "Two."]);
    let mut client = Client::open(&stack, "/v1/generate_ws", &[]).await.ok().unwrap();
    client.send(json!({"prompt": "Three."})).await;
    assert_eq!(client.next().await.unwrap(), json!({"event": "token", "data": {"text": "You "}}));
    let done = client.until("event", "done").await.unwrap();
    assert_eq!(done["data"]["generated_text"], "You said Three. That is all I know.");
    let stream = stack.engines[2].stream();
    client.send(json!({"prompt": "Four."})).await;
    stream.send(Ok(said("Well").into())).await.unwrap();
    client.until("event", "token").await.unwrap();
    client.send(json!({"event": "cancel"})).await;
    client.until("event", "cancelled").await.unwrap();
    timeout(Duration::from_secs(10), stream.closed()).await.expect("the model still writes");
    for wrong in [json!({}), json!({"prompt": ""}), json!({"prompt": "x", "top_p": 7})] {
        assert_eq!(post("/v1/generate", wrong.clone()).await.unwrap().status(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_dialogue_is_heard_answered_and_spoken() {
    let stack = talking().await;
    let fields = [
        ("instructions", "Be kind."),
        ("generation_config", r#"{"temperature": 0.1}"#),
        ("synthesis_config", r#"{"format": "pcm"}"#),
        ("session_id", "s2"),
    ];
    let post = |path: &str, fields: &[(&'static str, &'static str)]| {
        stack.post(path).multipart(form(fields, wav_file(32_000))).send()
    };
    let reply: Value = post("/v1/conversation/dialogue", &fields).await.unwrap().json().await.unwrap();
    assert_eq!(
        (&reply["transcript"]["text"], &reply["assistant_text"]),
        (&json!(HEARD), &json!(ANSWER)),
        "{reply}"
    );
    assert_eq!((&reply["session_id"], &reply["audio"]["response_format"]), (&json!("s2"), &json!("pcm")));
    assert!(reply["timings"]["first_audio_ms"].is_u64(), "{reply}");
    // The sentences go to the voice one by one, and their audio is one file.
    assert_eq!(spoken(&stack), ["You said So it is.", "Yes. That is all I know."]);
    assert!(audio([&reply["audio"]["audio_base64"]].into_iter()) == samples().repeat(2));
    let sent = asked(&stack)[0].clone();
    assert_eq!((&sent["temperature"], &sent["messages"][0]["content"]), (&json!(0.1), &json!("Be kind.")));

    let fields = [("stream_audio", "true"), ("session_id", "s2")];
    let response = post("/v1/dialogue", &fields).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let lines = events(&response.text().await.unwrap());
    let names: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!((names[0], names[1], *names.last().unwrap()), ("metadata", "transcript", "done"));
    let all = |name: &str| lines.iter().filter(|line| line["type"] == name).collect::<Vec<_>>();
    assert_eq!(all("assistant_text")[0]["data"]["text"], ANSWER);
    let deltas: String =
        all("assistant_delta").iter().map(|line| line["data"]["text"].as_str().unwrap()).collect();
    assert_eq!(deltas, ANSWER);
    let chunks = all("audio_chunk");
    let file = audio(chunks.iter().map(|line| &line["data"]["audio_base64"]));
    assert!(wav::parse(&file).unwrap().data(&file) == samples().repeat(2), "one file of all sentences");
    assert_eq!(asked(&stack)[1]["messages"].as_array().unwrap().len(), 4, "the session remembers");

    let by_text = json!({"text": "Hello.", "synthesis_config": {"format": "pcm"}});
    let reply: Value = stack.post("/v1/dialogue").json(&by_text).send().await.unwrap().json().await.unwrap();
    assert_eq!(reply["assistant_text"], "You said Hello. That is all I know.");
    for wrong in [
        json!({}),
        json!({"text": "Hi.", "synthesis_config": {"speed": 9}}),
        json!({"text": "Hi.", "generation_config": 7}),
        json!({"text": "Hi.", "session_id": "x".repeat(200)}),
        json!({"audio_base64": "*"}),
    ] {
        let response = stack.post("/v1/dialogue").json(&wrong).send().await.unwrap();
        assert_eq!(response.status(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_sentence_is_spoken_while_the_model_still_writes() {
    let stack = talking().await;
    let model = stack.engines[2].stream();
    let body = json!({"text": "Go on.", "stream_audio": true, "synthesis_config": {"format": "pcm"}});
    let request = tokio::spawn(stack.post("/v1/dialogue").json(&body).send());
    model.send(Ok(said("The first sentence. And").into())).await.unwrap();
    let mut response = request.await.unwrap().unwrap();
    let mut lines = Vec::new();
    let heard = async {
        while !String::from_utf8_lossy(&lines).contains("audio_chunk") {
            lines.extend(response.chunk().await.unwrap().unwrap());
        }
    };
    timeout(Duration::from_secs(30), heard).await.expect("nothing is spoken before the model has ended");
    assert_eq!(spoken(&stack), ["The first sentence."]);
    model.send(Ok(format!("{}{SAID_ALL}", said(" more.")).into())).await.unwrap();
    drop(model);
    while let Some(more) = response.chunk().await.unwrap() {
        lines.extend(more);
    }
    let lines = events(&String::from_utf8(lines).unwrap());
    assert_eq!(lines.last().unwrap()["event"], "done");
    assert_eq!(spoken(&stack), ["The first sentence.", "And more."]);
}

#[tokio::test]
async fn a_voice_that_fails_leaves_the_text() {
    let stack = talking().await;
    for _ in 0..4 {
        stack.engines[1].answer(500, &[], "broken");
    }
    let reply = stack.post("/v1/dialogue").json(&json!({"text": "Hi."})).send().await.unwrap();
    let reply: Value = reply.json().await.unwrap();
    assert_eq!(reply["assistant_text"], "You said Hi. That is all I know.");
    assert!(
        reply["warning"].as_str().unwrap().contains("not spoken") && reply["audio"]["audio_base64"].is_null(),
        "{reply}"
    );
    let mute = Stack::with(&[Capability::Llm], |_| {}).await;
    let reply: Value =
        mute.post("/v1/dialogue").json(&json!({"text": "Hi."})).send().await.unwrap().json().await.unwrap();
    assert_eq!(reply["assistant_text"], "You said Hi. That is all I know.");
}

#[tokio::test]
async fn turns_are_taken_and_new_audio_cuts_the_answer() {
    let stack = talking().await;
    let mut client = Client::open(&stack, TALK, &[]).await.ok().unwrap();
    assert_eq!(client.next().await.unwrap()["type"], "ready");
    let config = json!({"instructions": "Be brief.", "synthesis_config": {"format": "pcm"}});
    client.send(json!({"type": "config", "data": config})).await;
    assert_eq!(client.next().await.unwrap()["type"], "configured");
    let file = wav_file(32_000);
    for (at, piece) in file.chunks(20_000).enumerate() {
        client.send(json!({"type": "audio", "data": STANDARD.encode(piece), "format": "wav"})).await;
        let buffering = client.next().await.unwrap();
        assert_eq!((&buffering["type"], &buffering["chunks"]), (&json!("buffering"), &json!(at + 1)));
    }
    client.send(json!({"type": "end_turn"})).await;
    assert_eq!(client.next().await.unwrap()["type"], "processing");
    let transcript = client.next().await.unwrap();
    assert_eq!(transcript, json!({"type": "transcript", "role": "user", "content": HEARD}));
    let (mut text, mut heard) = (None, Vec::new());
    loop {
        let frame = client.next().await.unwrap();
        match frame["type"].as_str().unwrap() {
            "text" => text = Some(frame),
            "audio" => heard.extend(audio([&frame["data"]].into_iter())),
            "text_delta" => {}
            other => break assert_eq!(other, "ready"),
        }
    }
    assert_eq!(text.unwrap(), json!({"type": "text", "role": "assistant", "content": ANSWER}));
    assert!(heard == samples().repeat(2));

    // The model still writes and the voice still speaks when the client speaks again.
    let (model, voice) = (stack.engines[2].stream(), stack.engines[1].stream());
    client.send(json!({"type": "text", "content": "Tell me a story."})).await;
    model.send(Ok(said("Once upon a time. There").into())).await.unwrap();
    voice.send(Ok(samples().into())).await.unwrap();
    client.until("type", "audio").await.unwrap();
    client.send_binary(&file).await;
    client.until("type", "interrupted").await.unwrap();
    timeout(Duration::from_secs(10), async { tokio::join!(model.closed(), voice.closed()) })
        .await
        .expect("model or voice goes on after the answer was cut");
    client.until("type", "buffering").await.unwrap();
    client.send(json!({"type": "end_turn"})).await;
    client.until("type", "ready").await.unwrap();
    let remembered = asked(&stack).last().unwrap()["messages"].to_string();
    assert!(remembered.contains("Once upon a time. There"), "what was heard is remembered: {remembered}");

    client.send(json!({"type": "end_turn"})).await;
    assert_eq!(client.next().await.unwrap()["type"], "error");
    for wrong in [
        json!({"type": "sing"}),
        json!([]),
        json!({"type": "audio"}),
        json!({"type": "config", "data": {"instructions": 7}}),
    ] {
        client.send(wrong.clone()).await;
        assert_eq!(client.next().await.unwrap()["type"], "error", "{wrong}");
    }
    assert_eq!(stack.engines[1].seen.lock().last().unwrap().path, SYNTHESIZE);
}

#[tokio::test]
async fn tldws_insights_come_at_the_end_and_without_a_model_they_are_unavailable() {
    let stack = talking().await;
    let mut client = Client::open(&stack, "/core/parakeet/stream", &[]).await.ok().unwrap();
    client.send(json!({"type": "config", "insights": {"enabled": true, "interval": 600}})).await;
    let enabled = client.until("state", "insights_enabled").await.unwrap();
    assert_eq!(enabled["insights"]["interval"], 600.0, "{enabled}");
    let notes = json!({"notes": ["Someone agrees."], "action_items": ["Say so."]}).to_string();
    stack.engines[2].answer(200, &[], format!("{}{SAID_ALL}", said(&notes)));
    let samples = crate::audio::signal::speech(16_000, 1.5);
    let bytes: Vec<u8> =
        samples.iter().flat_map(|sample| (f32::from(*sample) / 32_768.0).to_le_bytes()).collect();
    client.send(json!({"type": "audio", "data": STANDARD.encode(bytes)})).await;
    client.send(json!({"type": "commit"})).await;
    client.until("type", "full_transcript").await.unwrap();
    let insight = client.until("type", "insight").await.unwrap();
    assert_eq!(
        (&insight["stage"], &insight["notes"], &insight["action_items"]),
        (&json!("final"), &json!(["Someone agrees."]), &json!(["Say so."]))
    );
    let sent = asked(&stack)[0]["messages"].to_string();
    assert!(sent.contains("So it is"), "{sent}");
    client.send(json!({"type": "stop"})).await;
    assert_eq!(client.until("type", "insight").await.unwrap_err().0, 1000, "nothing was said since");
    let status: Value = stack.get("/api/v1/audio/stream/status").await.json().await.unwrap();
    assert_eq!(status["supported_features"]["live_insights"], true);

    let without = Stack::start().await;
    let mut client = Client::open(&without, "/core/parakeet/stream", &[]).await.ok().unwrap();
    client.send(json!({"type": "config", "insights": true})).await;
    client.until("state", "insights_unavailable").await.unwrap();
    let status: Value = without.get("/api/v1/audio/stream/status").await.json().await.unwrap();
    assert_eq!(status["supported_features"]["live_insights"], false);
}

#[tokio::test]
async fn tldws_audio_is_kept_where_it_is_asked_for_and_configured() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_path_buf();
    let stack =
        Stack::with(&[Capability::Stt], move |config| config.gateway.recordings.dir = Some(folder)).await;
    let mut client = Client::open(&stack, "/core/parakeet/stream", &[]).await.ok().unwrap();
    let samples = crate::audio::signal::speech(16_000, 1.5);
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let wanted = json!({"enabled": true, "store_audio": true});
    client.send(json!({"type": "config", "audio_format": "pcm16", "diarization": wanted})).await;
    let enabled = client.until("state", "diarization_enabled").await.unwrap();
    assert_eq!(enabled["diarization"]["store_audio"], true, "{enabled}");
    client.send(json!({"type": "audio", "data": STANDARD.encode(&bytes)})).await;
    client.send(json!({"type": "commit"})).await;
    let summary = client.until("type", "diarization_summary").await.unwrap();
    let path = summary["audio_path"].as_str().unwrap().to_owned();
    let header = crate::audio::wav::header(16_000, 1, Some(bytes.len() as u64));
    let whole = [&header[..], &bytes].concat();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while std::fs::read(&path).ok().as_ref() != Some(&whole) {
        assert!(tokio::time::Instant::now() < deadline, "{path} is not what was sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status: Value = stack.get("/api/v1/audio/stream/status").await.json().await.unwrap();
    assert_eq!(status["supported_features"]["audio_persistence"], true);

    let without = Stack::start().await;
    let mut client = Client::open(&without, "/core/parakeet/stream", &[]).await.ok().unwrap();
    client.send(json!({"type": "config", "store_audio": true})).await;
    client.until("warning_type", "audio_persistence_unavailable").await.unwrap();
}

#[tokio::test]
async fn a_reference_is_kept_and_needs_an_engine_that_imitates() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_path_buf();
    let stack = Stack::with(&[Capability::Tts], move |config| config.gateway.clips.dir = Some(folder)).await;
    let encode = |file: Vec<u8>| {
        let fields = [("reference_id", "mia"), ("text", "Guten Tag.")];
        stack.post("/v1/encode-reference").multipart(form(&fields, file)).send()
    };
    let kept: Value = encode(wav_file(4 * 32_000)).await.unwrap().json().await.unwrap();
    assert_eq!(
        (&kept["reference_id"], &kept["duration"], &kept["text"]),
        (&json!("mia"), &json!(4.0), &json!("Guten Tag."))
    );
    for (file, told) in [(wav_file(4 * 32_000), "of that name"), (wav_file(100), "")] {
        let refused = encode(file).await.unwrap();
        assert_eq!(refused.status(), 400);
        assert!(refused.text().await.unwrap().contains(told));
    }
    // The engine of this stack does not imitate: that is said, by the field that asks for it.
    let recording = STANDARD.encode(wav_file(4 * 32_000));
    for (body, param) in [
        (json!({"text": "Hi.", "reference_id": "mia"}), "reference_id"),
        (json!({"text": "Hi.", "references": [recording]}), "references"),
        (json!({"text": "Hi.", "references": [recording, recording]}), "references"),
    ] {
        let reply: Value =
            stack.post("/v1/text-to-speech").json(&body).send().await.unwrap().json().await.unwrap();
        assert_eq!(reply["details"]["param"], param, "{reply}");
    }
    let none = Stack::start().await;
    let refused =
        none.post("/v1/encode-reference").multipart(form(&[], wav_file(4 * 32_000))).send().await.unwrap();
    assert!(refused.text().await.unwrap().contains("gateway.clips.dir"));
}
