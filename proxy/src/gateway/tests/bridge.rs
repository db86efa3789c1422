//! The Realtime Speech Bridge: its uploads and speech over HTTP, its frames on the realtime path, its events over Socket.IO.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use contract::Capability;

use crate::audio::signal::speech;
use crate::gateway::tests::keys::Keyed;
use crate::gateway::tests::sessions::Client;
use crate::gateway::tests::stack::{Stack, form, said, samples, wav};

const REALTIME: &str = "/v1/realtime?dialect=bridge";
const EVENTS: &str = "/socket.io/?EIO=4&transport=websocket";
const HEARD: &str = "So it is. Yes.";

/// Something like speech between two silences, 24 kHz, in pieces of base64.
fn spoken() -> Vec<String> {
    let samples = [vec![0; 12_000], speech(24_000, 2.0), vec![0; 24_000]].concat();
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    bytes.chunks(9_601).map(|piece| STANDARD.encode(piece)).collect()
}

#[tokio::test]
async fn an_upload_comes_back_with_its_language_and_its_speakers() {
    let stack = Stack::start().await;
    let fields = [("target_lang", "bg"), ("primary_lang", "fr")];
    let reply = stack.post("/upload").multipart(form(&fields, wav(64_000))).send().await.unwrap();
    let reply: Value = reply.json().await.unwrap();
    assert_eq!((&reply["detected_lang"], &reply["transcription"]), (&json!("en"), &json!(HEARD)), "{reply}");
    assert_eq!(reply["diarization"]["speakers"], json!(["Speaker_0", "Speaker_1"]), "{reply}");
    assert!(reply.get("translation_bg").is_none());
    let complete = stack.complete();
    let tiny = stack.post("/upload").multipart(form(&[], wav(8_000))).send().await.unwrap();
    assert_eq!(tiny.json::<Value>().await.unwrap(), json!({"text": ""}));
    assert_eq!(stack.complete(), complete);
    let none =
        stack.post("/upload").header("content-type", "text/plain").body("x".repeat(20_000)).send().await;
    let none = none.unwrap();
    assert_eq!(none.status(), 400);
    assert!(none.json::<Value>().await.unwrap()["error"].is_string());
}

#[tokio::test]
async fn speech_is_opus_unless_another_format_is_named() {
    let stack = Stack::start().await;
    let body = json!({"model": "gpt-4o-mini-tts", "input": "Bonjour !", "voice": "coral"});
    let opus = stack.post("/tts-proxy").json(&body).send().await.unwrap();
    assert!(opus.bytes().await.unwrap().starts_with(b"OggS"));
    let mut body = body;
    body["response_format"] = json!("pcm");
    let pcm = stack.post("/tts-proxy").json(&body).send().await.unwrap();
    assert!(pcm.bytes().await.unwrap() == samples());
    for body in ["{", "[]", "{}", r#"{"input": "Hi.", "response_format": "midi"}"#] {
        let refused = stack.post("/tts-proxy").body(body).send().await.unwrap();
        assert_eq!(refused.status(), 400, "{body}");
        assert!(refused.json::<Value>().await.unwrap()["error"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn its_frames_transcribe_a_turn_and_speak_an_item() {
    let stack = Stack::start().await;
    let mut client = Client::open(&stack, REALTIME, &[]).await.ok().unwrap();
    let created = client.next().await.unwrap();
    assert_eq!((&created["type"], &created["session"]["sr"]), (&json!("session.created"), &json!(24_000)));
    client.send(json!({"type": "session.update", "session": {"voice": "shimmer", "modalities": ["audio", "text"]}})).await;
    let updated = client.next().await.unwrap();
    assert_eq!(
        (&updated["type"], &updated["session"]["voice"]),
        (&json!("session.updated"), &json!("shimmer"))
    );
    for audio in spoken() {
        client.send(json!({"type": "input_audio_buffer.append", "audio": audio})).await;
    }
    client.send(json!({"type": "input_audio_buffer.commit"})).await;
    let item = client.until("type", "conversation.item.created").await.unwrap()["item"]["id"].clone();
    assert_eq!(
        client.next().await.unwrap(),
        json!({"type": "input_audio_buffer.committed", "item_id": item})
    );
    let completed =
        client.until("type", "conversation.item.input_audio_transcription.completed").await.unwrap();
    assert_eq!((&completed["transcript"], &completed["item_id"]), (&json!(HEARD), &item));
    let retrieved = client.next().await.unwrap();
    assert_eq!(retrieved["item"]["content"][0]["transcript"], HEARD, "{retrieved}");

    client.send(json!({"type": "response.create"})).await;
    let done = client.until("type", "response.output_text.delta").await.unwrap();
    assert_eq!(done["delta"], HEARD);
    let mut audio = Vec::new();
    loop {
        let frame = client.next().await.unwrap();
        match frame["type"].as_str().unwrap() {
            "response.audio.delta" => {
                assert_eq!(frame["audio"], frame["delta"]);
                audio.extend(STANDARD.decode(frame["delta"].as_str().unwrap()).unwrap());
            }
            "response.done" => break assert_eq!(frame["response"]["status"], "completed"),
            _ => {}
        }
    }
    assert_eq!(audio.len(), samples().len());

    let content = json!([{"type": "input_text", "text": "Hi."}]);
    let mine = json!({"id": "mine", "type": "message", "role": "user", "content": content});
    client.send(json!({"type": "conversation.item.create", "item": mine})).await;
    assert_eq!(client.next().await.unwrap()["item"]["id"], "mine");
    client.send(json!({"type": "conversation.item.retrieve", "item_id": "mine"})).await;
    assert_eq!(client.next().await.unwrap()["item"]["content"], content);
    client.send(json!({"type": "conversation.item.delete", "item_id": "mine"})).await;
    assert_eq!(client.next().await.unwrap(), json!({"type": "conversation.item.deleted", "item_id": "mine"}));
}

#[tokio::test]
async fn its_frames_tell_what_is_wrong() {
    let stack = Stack::start().await;
    let mut client = Client::open(&stack, REALTIME, &[]).await.ok().unwrap();
    client.next().await.unwrap();
    client.send_text("{").await;
    assert_eq!(client.next().await.unwrap(), json!({"type": "error", "error": {"message": "invalid JSON"}}));
    for (message, told) in [
        (json!({"type": "sing"}), "unhandled type: sing"),
        (json!({"type": "input_audio_buffer.append", "audio": "*"}), "bad audio base64"),
        (json!({"type": "input_audio_buffer.commit"}), "the input audio buffer is empty"),
        (json!({"type": "conversation.item.retrieve", "item_id": "x"}), "no such item"),
        (json!({"type": "response.cancel"}), "no response is in progress"),
    ] {
        client.send(message.clone()).await;
        assert_eq!(client.next().await.unwrap()["error"]["message"], told, "{message}");
    }
    for message in [
        json!({"type": "response.create"}),
        json!({"type": "session.update"}),
        json!({"type": "session.update", "session": {"turn_detection": {"type": "server_vad", "aggressiveness": 9}}}),
        json!({"type": "conversation.item.create", "item": 7}),
        json!({"type": 7}),
    ] {
        client.send(message.clone()).await;
        assert_eq!(client.next().await.unwrap()["type"], "error", "{message}");
    }
    client.send_binary(&[1]).await;
    assert_eq!(client.next().await.unwrap()["type"], "error");
    assert_eq!(Client::open(&stack, "/v1/realtime?dialect=latin", &[]).await.err(), Some(400));
}

/// A client of Socket.IO in the namespace, with its `auth`; the refusal when there is one.
async fn events(stack: &Stack, auth: &Value) -> Result<Client, Value> {
    let mut client = Client::open(stack, EVENTS, &[]).await.ok().unwrap();
    assert!(client.next_text().await.starts_with('0'));
    client.send_text(&format!("40/realtime,{auth}")).await;
    let answer = packet(&mut client).await;
    match answer.strip_prefix("44/realtime,") {
        Some(refused) => Err(serde_json::from_str(refused).unwrap()),
        None => {
            assert!(answer.starts_with("40/realtime,"), "{answer}");
            Ok(client)
        }
    }
}

/// The next packet of Socket.IO. Pings of the connection may come at any time and are answered.
async fn packet(client: &mut Client) -> String {
    loop {
        match client.next_text().await {
            ping if ping == "2" => client.send_text("3").await,
            packet => return packet,
        }
    }
}

async fn emit(client: &mut Client, event: &Value) {
    client.send_text(&format!("42/realtime,{event}")).await;
}

/// The content of the next event `message`.
async fn message(client: &mut Client) -> Value {
    loop {
        let text = packet(client).await;
        if let Some(event) = text.strip_prefix("42/realtime,") {
            let event: Value = serde_json::from_str(event).unwrap();
            assert_eq!(event[0], "message");
            return event[1].clone();
        }
    }
}

#[tokio::test]
async fn a_turn_over_socket_io_is_heard_and_spoken() {
    let stack = Stack::start().await;
    let mut client = events(&stack, &json!({})).await.unwrap();
    let connected = message(&mut client).await;
    assert_eq!(connected, json!({"type": "connected", "content": {"engine": "internal", "sr": 24_000}}));
    let session = json!({"turn_detection": {"type": "server_vad", "aggressiveness": 2, "end_ms": 400}});
    emit(&mut client, &json!(["update_session", {"session": session}])).await;
    emit(&mut client, &json!(["system_prompt", {"prompt": "none"}])).await;
    for audio in spoken() {
        emit(&mut client, &json!(["audio", {"audio": audio}])).await;
    }
    let mut kinds = Vec::new();
    let mut audio = Vec::new();
    loop {
        let frame = message(&mut client).await;
        let kind = frame["type"].as_str().unwrap().to_owned();
        match kind.as_str() {
            "transcript_final" => assert_eq!(frame["content"], HEARD),
            "audio" => audio.extend(STANDARD.decode(frame["content"].as_str().unwrap()).unwrap()),
            "event" => assert_eq!(frame["content"]["type"], "turn.start"),
            "transcript_temp" | "turn_done" => {}
            other => panic!("{other}: {frame}"),
        }
        kinds.push(kind);
        if kinds.last().is_some_and(|kind| kind == "turn_done") {
            break;
        }
    }
    kinds.dedup();
    assert_eq!(kinds, ["event", "transcript_temp", "transcript_final", "audio", "turn_done"]);
    assert_eq!(audio.len(), samples().len());
}

#[tokio::test]
async fn socket_io_clients_are_answered_whatever_they_send() {
    let stack = Stack::with(&[Capability::Stt], |_| {}).await;
    let mut client = events(&stack, &json!({})).await.unwrap();
    message(&mut client).await;
    for (event, told) in [
        (json!(["audio", {}]), "Missing audio"),
        (json!(["audio"]), "Missing audio"),
        (json!(["audio", {"audio": "*"}]), "bad audio base64"),
        (json!(["sing", {}]), "unhandled event: sing"),
    ] {
        emit(&mut client, &event).await;
        assert_eq!(message(&mut client).await, json!({"type": "error", "content": told}), "{event}");
    }
    emit(&mut client, &json!(["update_session", {"session": {"turn_detection": {"end_ms": "soon"}}}])).await;
    assert_eq!(message(&mut client).await["type"], "error");
    // Without an engine that speaks a turn ends with its text.
    emit(&mut client, &json!(["update_session", {"session": {}}])).await;
    for audio in spoken() {
        emit(&mut client, &json!(["audio", {"audio": audio}])).await;
    }
    emit(&mut client, &json!(["commit"])).await;
    loop {
        let frame = message(&mut client).await;
        if frame["type"] == "transcript_final" {
            break assert_eq!(frame["content"], HEARD);
        }
    }
    assert_eq!(message(&mut client).await, json!({"type": "turn_done"}));
}

#[tokio::test]
async fn socket_io_clients_show_their_key_in_a_header_or_in_auth() {
    let (keyed, alice) = Keyed::start().await;
    for auth in [json!({}), json!({"token": "sk-wrong"}), json!("x")] {
        let refused = events(&keyed.stack, &auth).await.err().unwrap();
        assert_eq!(refused, json!({"message": "unauthorized"}), "{auth}");
    }
    for auth in [json!({"token": alice}), json!({"Authorization": format!("Bearer {alice}")})] {
        let mut client = events(&keyed.stack, &auth).await.unwrap();
        assert_eq!(message(&mut client).await["type"], "connected");
    }
}

async fn talking() -> Stack {
    Stack::with(&[Capability::Stt, Capability::Tts, Capability::Llm], |_| {}).await
}

#[tokio::test]
async fn an_upload_is_translated_to_both_languages_but_the_spoken_one_and_once() {
    let stack = talking().await;
    let upload = |fields: &'static [(&'static str, &'static str)]| async {
        let reply = stack.post("/upload").multipart(form(fields, wav(64_000))).send().await.unwrap();
        reply.json::<Value>().await.unwrap()
    };
    let reply = upload(&[("target_lang", "bg"), ("primary_lang", "en")]).await;
    assert_eq!(reply["translation_bg"], format!("You said {HEARD} That is all I know."), "{reply}");
    assert!(reply.get("translation_en").is_none(), "{reply}");
    let asked = stack.engines[2].complete();
    assert_eq!(upload(&[("target_lang", "bg"), ("primary_lang", "en")]).await, reply);
    assert_eq!(stack.engines[2].complete(), asked, "the same text is translated once");
    let both = upload(&[("target_lang", "bg")]).await;
    assert!(both["translation_bg"].is_string() && both["translation_fr"].is_string(), "{both}");
    for _ in 0..4 {
        stack.engines[2].answer(500, &[], "broken");
    }
    let failed = upload(&[("target_lang", "de"), ("primary_lang", "en")]).await;
    assert_eq!(failed["transcription"], HEARD);
    assert!(failed["translation_error"].is_string(), "{failed}");
    let wrong = stack.post("/upload").multipart(form(&[("target_lang", "klingon")], wav(64_000)));
    assert_eq!(wrong.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_response_is_the_answer_of_a_language_model_and_can_be_cut() {
    let stack = talking().await;
    let mut client = Client::open(&stack, REALTIME, &[]).await.ok().unwrap();
    client.send(json!({"type": "session.update", "session": {"instructions": "Be brief."}})).await;
    let item =
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]});
    client.send(json!({"type": "conversation.item.create", "item": item})).await;
    client.send(json!({"type": "response.create"})).await;
    let text = client.until("type", "response.output_text.done").await.unwrap();
    assert_eq!(text["text"], "You said Hello. That is all I know.");
    let done = client.until("type", "response.done").await.unwrap();
    assert_eq!(done["response"]["status"], "completed");
    let sent: Value = serde_json::from_slice(&stack.engines[2].seen.lock()[0].body).unwrap();
    assert_eq!(sent["messages"][0]["content"], "Be brief.");

    let (model, voice) = (stack.engines[2].stream(), stack.engines[1].stream());
    client.send(json!({"type": "response.create"})).await;
    model.send(Ok(said("It is so. And").into())).await.unwrap();
    voice.send(Ok(samples().into())).await.unwrap();
    client.until("type", "response.audio.delta").await.unwrap();
    client.send(json!({"type": "response.cancel"})).await;
    let done = client.until("type", "response.done").await.unwrap();
    assert_eq!(done["response"]["status"], "cancelled");
    let closed = async { tokio::join!(model.closed(), voice.closed()) };
    tokio::time::timeout(std::time::Duration::from_secs(10), closed).await.expect("the answer goes on");
    client.send(json!({"type": "response.create"})).await;
    client.until("type", "response.done").await.unwrap();
    let sent = stack.engines[2].seen.lock().last().unwrap().body.clone();
    assert!(String::from_utf8_lossy(&sent).contains("It is so. And"), "what was heard is remembered");
}

#[tokio::test]
async fn turns_over_socket_io_are_answered_where_a_prompt_asks_for_it() {
    let stack = talking().await;
    let mut client = events(&stack, &json!({})).await.unwrap();
    message(&mut client).await;
    emit(&mut client, &json!(["system_prompt", {"prompt": "Be brief."}])).await;
    for audio in spoken() {
        emit(&mut client, &json!(["audio", {"audio": audio}])).await;
    }
    let (mut answer, mut audio) = (None, Vec::new());
    loop {
        let frame = message(&mut client).await;
        match frame["type"].as_str().unwrap() {
            "assistant" => answer = Some(frame["content"].clone()),
            "audio" => audio.extend(STANDARD.decode(frame["content"].as_str().unwrap()).unwrap()),
            "error" => panic!("{frame}"),
            "turn_done" => break,
            _ => {}
        }
    }
    assert_eq!(answer, Some(json!(format!("You said {HEARD} That is all I know."))));
    assert!(audio.starts_with(&samples()));
}
