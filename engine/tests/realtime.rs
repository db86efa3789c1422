//! Realtime WebSockets of NIM and of NeMo-Speech.cpp: events in order, refusals, and faults that cut conversations off.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use speechstack_engine::ffi::Voice;
use speechstack_engine::kind::Kind;
use support::{Engine, TEST_TIMEOUT, mode, plain, speech};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const SAID: &str = "please call me back tomorrow morning at nine";
const DELTA: &str = "conversation.item.input_audio_transcription.delta";
const COMPLETED: &str = "conversation.item.input_audio_transcription.completed";

struct Socket(WebSocketStream<TcpStream>);

/// What came: an event, a close with its code, or the end of the connection.
#[derive(Debug, PartialEq)]
enum Got {
    Event(Value),
    Closed(u16),
    Reset,
}

impl Socket {
    async fn open(engine: &Engine, path: &str) -> Self {
        let stream = TcpStream::connect(engine.address).await.unwrap();
        let url = format!("ws://{}{path}", engine.address);
        Self(tokio_tungstenite::client_async(url, stream).await.unwrap().0)
    }

    async fn send(&mut self, event: Value) {
        self.0.send(Message::text(event.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Got {
        loop {
            match tokio::time::timeout(TEST_TIMEOUT, self.0.next()).await.unwrap() {
                Some(Ok(Message::Text(text))) => return Got::Event(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(close))) => {
                    return Got::Closed(close.map_or(1005, |close| close.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Got::Reset,
            }
        }
    }

    /// The events up to one of that type.
    async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let Got::Event(event) = self.next().await else { panic!("the end before {kind}: {events:?}") };
            let found = event["type"] == kind;
            events.push(event);
            if found {
                return events;
            }
        }
    }

    /// Appends raw samples in pieces of 100 ms.
    async fn speak(&mut self, samples: &[u8]) {
        for piece in samples.chunks(3_200) {
            let audio = STANDARD.encode(piece);
            self.send(json!({ "type": "input_audio_buffer.append", "audio": audio })).await;
        }
    }
}

/// Speech with 0.3 s of silence on both sides, too little to end an utterance.
fn spoken() -> Vec<u8> {
    let silence = [0; 9_600];
    [&silence[..], &speech(Voice::Slt, SAID)[44..], &silence].concat()
}

async fn nim() -> (Engine, Socket) {
    let engine = Engine::speaking(Kind::Stt, &["nim_realtime", "nim_http"], None).await;
    let socket = nim_socket(&engine).await;
    (engine, socket)
}

async fn nim_socket(engine: &Engine) -> Socket {
    let mut socket = Socket::open(engine, "/v1/realtime?intent=transcription").await;
    let Got::Event(created) = socket.next().await else { panic!("no event") };
    assert_eq!(created["type"], "conversation.created");
    socket
}

#[tokio::test]
async fn a_nim_hears_a_session_to_its_last_result() {
    let (engine, mut socket) = nim().await;
    let update = json!({ "recognition_config": { "enable_word_time_offsets": true } });
    socket.send(json!({ "type": "transcription_session.update", "session": update })).await;
    let updated = socket.until("transcription_session.updated").await.pop().unwrap();
    assert_eq!(updated["session"]["recognition_config"]["max_alternatives"], 1, "the rest is kept");
    socket.speak(&spoken()).await;
    socket.send(json!({ "type": "input_audio_buffer.commit" })).await;
    socket.send(json!({ "type": "input_audio_buffer.done" })).await;
    let last = socket.until(COMPLETED).await.pop().unwrap();
    assert_eq!(
        (&last["is_last_result"], plain(last["transcript"].as_str().unwrap())),
        (&true.into(), SAID.into())
    );
    let words = last["words_info"]["words"].as_array().unwrap();
    assert!(words.len() == 8 && words[0]["end_time"].as_i64().unwrap() > 0, "{words:?}");
    assert_eq!(socket.next().await, Got::Closed(1000));

    let mut silent = nim_socket(&engine).await;
    silent.send(json!({ "type": "input_audio_buffer.done" })).await;
    let last = silent.until(COMPLETED).await.pop().unwrap();
    assert_eq!((&last["is_last_result"], &last["transcript"]), (&true.into(), &"".into()));
    engine.stop().await;
}

#[tokio::test]
async fn a_nim_ends_a_session_that_is_wrong() {
    let (engine, _) = nim().await;
    let mut aimless = Socket::open(&engine, "/v1/realtime").await;
    assert_eq!(aimless.next().await, Got::Closed(1008));
    let klingon = json!({ "input_audio_transcription": { "language": "tlh" } });
    for wrong in [
        json!({ "type": "transcription_session.update", "session": klingon }),
        json!({ "type": "input_audio_buffer.append", "audio": "*" }),
        json!({ "type": "response.create" }),
    ] {
        let mut socket = nim_socket(&engine).await;
        socket.send(wrong.clone()).await;
        let error = socket.until("error").await.pop().unwrap();
        assert_eq!(error["error"]["type"], "invalid_request_error", "{wrong}");
        assert_eq!(socket.next().await, Got::Closed(1008));
    }
    let plain = engine.get("/v1/realtime?intent=transcription").await;
    assert_eq!(plain.status(), 426, "no handshake");
    engine.stop().await;
}

#[tokio::test]
async fn faults_show_in_a_conversation() {
    let (engine, mut socket) = nim().await;
    engine.arm(mode("F1")).await;
    socket.speak(&spoken()).await;
    socket.send(json!({ "type": "input_audio_buffer.done" })).await;
    let error = socket.until("error").await.pop().unwrap();
    assert_eq!(error["error"]["type"], "server_error");
    assert!(error["error"]["message"].as_str().unwrap().contains("CUDA error"), "{error}");
    assert_eq!(socket.next().await, Got::Closed(1011));
    engine.disarm().await;

    engine.arm(json!({ "mode": "F13", "rst_after_bytes": 10 })).await;
    let mut reset = nim_socket(&engine).await;
    reset.speak(&spoken()).await;
    reset.send(json!({ "type": "input_audio_buffer.done" })).await;
    assert_eq!(reset.next().await, Got::Reset);
    engine.disarm().await;

    // A hang, and a client that leaves: the next one is served.
    engine.arm(json!({ "mode": "F7" })).await;
    let mut hung = nim_socket(&engine).await;
    hung.speak(&spoken()).await;
    hung.send(json!({ "type": "input_audio_buffer.done" })).await;
    engine
        .until(|report| {
            report["counters"]["in_flight"].as_u64() > Some(0)
                || report["armed"][0]["fired"].as_u64() > Some(0)
        })
        .await;
    drop(hung);
    engine.disarm().await;
    let mut served = nim_socket(&engine).await;
    served.speak(&spoken()).await;
    served.send(json!({ "type": "input_audio_buffer.done" })).await;
    served.until(COMPLETED).await;
}

#[tokio::test]
async fn nemo_speech_acknowledges_a_commit_after_its_text_and_goes_on() {
    let engine = Engine::speaking(Kind::Stt, &["nemo_speech_streaming"], None).await;
    let mut socket = Socket::open(&engine, "/v1/realtime").await;
    let created = socket.until("session.created").await.pop().unwrap();
    assert_eq!(created["session"]["sample_rate"], 16_000);
    let session = json!({ "word_timestamps": true, "speaker_diarization": true });
    socket.send(json!({ "type": "session.update", "session": session })).await;
    socket.until("session.updated").await;
    for _ in 0..2 {
        let audio = [spoken(), vec![0; 32_000]].concat();
        // As binary messages, cut within samples.
        for piece in audio.chunks(3_202) {
            socket.0.send(Message::Binary(piece.to_vec().into())).await.unwrap();
        }
        socket.send(json!({ "type": "session.update", "session": {} })).await;
        socket.send(json!({ "type": "input_audio_buffer.commit" })).await;
        let events = socket.until("input_audio_buffer.committed").await;
        let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
        let [completed] = of(COMPLETED)[..] else { panic!("{events:?}") };
        assert_eq!(plain(completed["transcript"].as_str().unwrap()), SAID);
        assert_eq!(completed["words"][0]["speaker"], 1, "{completed}");
        assert_eq!(of("error")[0]["error"]["type"], "invalid_request_error", "no update once audio came");
        assert!(of(DELTA).iter().all(|delta| delta["delta"].is_string()), "{events:?}");
    }
    socket.send(json!({ "type": "input_audio_buffer.clear" })).await;
    socket.until("input_audio_buffer.cleared").await;
    drop(socket);
    engine.stop().await;
}
