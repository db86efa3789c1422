//! Conversations over WebSocket: both sides' messages and closes, and what bounds them.

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Handshake, Response as Reply};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::guard::path::forward::tests::*;

const PATH: &str = "/v1/realtime?intent=transcription";
const DONE: &str = r#"{"type":"input_audio_buffer.done"}"#;
const LAST: &str = r#"{"type":"conversation.item.input_audio_transcription.completed","transcript":"good morning","is_last_result":true}"#;
/// Ceiling on every wait.
const TIMEOUT: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<TcpStream>;

/// A conversation through a guard: the client's end, and the engine's.
struct Conversation {
    stack: Stack,
    client: Socket,
    engine: Socket,
}

/// A guard in front of an engine whose conversations the test holds.
async fn stack(protocol: &str, adjust: impl FnOnce(&mut config::Policy)) -> (Stack, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (engine, server) = Engine::start().await;
    let protocols = crate::guard::protocols::tests::only(protocol);
    (Stack::build(engine, server, at(&url), protocols, adjust).await, listener)
}

async fn handshake(address: SocketAddr, path: &str) -> Result<Socket, StatusCode> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    request.headers_mut().insert("traceparent", HeaderValue::from_static(TRACE));
    let stream = TcpStream::connect(address).await.unwrap();
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status()),
        Err(error) => panic!("{error}"),
    }
}

impl Conversation {
    async fn of(protocol: &str, path: &str, adjust: impl FnOnce(&mut config::Policy)) -> Self {
        let (stack, listener) = stack(protocol, adjust).await;
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            let check = |request: &Handshake, response: Reply| {
                assert_eq!(request.headers()["traceparent"], TRACE);
                Ok(response)
            };
            tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap()
        };
        let (engine, client) = tokio::join!(accept, handshake(stack.address, path));
        Self { stack, client: client.unwrap(), engine }
    }

    async fn start() -> Self {
        Self::of("nim_realtime", PATH, |_| {}).await
    }

    async fn ended(self) -> Stack {
        let Self { stack, .. } = self;
        eventually("the lane is free", || stack.lane.view().running.is_empty()).await;
        stack
    }
}

async fn next(socket: &mut Socket) -> Option<Message> {
    tokio::time::timeout(TIMEOUT, socket.next()).await.expect("nothing came")?.ok()
}

/// The code of the close that comes next but for messages; 1006 without one.
async fn closed(socket: &mut Socket) -> u16 {
    loop {
        match next(socket).await {
            Some(Message::Close(frame)) => return frame.map_or(1005, |frame| frame.code.into()),
            Some(_) => {}
            None => return 1006,
        }
    }
}

#[tokio::test]
async fn messages_pass_as_they_are_and_the_last_one_ends_the_conversation_well() {
    let mut conversation = Conversation::start().await;
    let Conversation { client, engine, .. } = &mut conversation;
    for message in [
        Message::text("{\"type\":\"conversation.created\"}"),
        Message::binary(vec![0, 255, 7]),
        Message::text("no JSON"),
    ] {
        engine.send(message.clone()).await.unwrap();
        assert_eq!(next(client).await, Some(message.clone()));
        client.send(message.clone()).await.unwrap();
        assert_eq!(next(engine).await, Some(message));
    }
    client.send(Message::text(DONE)).await.unwrap();
    assert_eq!(next(engine).await, Some(Message::text(DONE)));
    engine.send(Message::text(LAST)).await.unwrap();
    assert_eq!(next(client).await, Some(Message::text(LAST)));
    assert_eq!((closed(client).await, closed(engine).await), (1000, 1000));
    conversation.ended().await.nothing_observed();
}

#[tokio::test]
async fn a_conversation_in_which_words_were_heard_speaks_for_its_engine() {
    let mut conversation = Conversation::start().await;
    let Conversation { client, engine, .. } = &mut conversation;
    client.send(Message::text(DONE)).await.unwrap();
    assert_eq!(next(engine).await, Some(Message::text(DONE)));
    engine.send(Message::text(LAST)).await.unwrap();
    assert_eq!((closed(client).await, closed(engine).await), (1000, 1000));
    let observed = conversation.ended().await.observed().await;
    assert!(matches!(observed, Observation::Conversed { .. }), "{observed:?}");
}

#[tokio::test]
async fn an_engine_that_breaks_off_ends_its_clients_conversation_as_failed() {
    let frame = |code: u16| Some(CloseFrame { code: code.into(), reason: "so".into() });
    let closes =
        [(frame(1011), 1011), (frame(1001), 1011), (frame(1000), 1011), (frame(1013), 1013), (None, 1011)];
    for (close, expected) in closes {
        let mut conversation = Conversation::start().await;
        let Conversation { client, engine, .. } = &mut conversation;
        client.send(Message::text("{}")).await.unwrap();
        assert!(next(engine).await.is_some());
        match &close {
            Some(frame) => engine.close(Some(frame.clone())).await.unwrap(),
            // Without a word, as a process that was killed.
            None => engine.get_mut().shutdown().await.unwrap(),
        }
        assert_eq!(closed(client).await, expected, "{close:?}");
        conversation.ended().await;
    }
}

#[tokio::test]
async fn an_engine_that_refuses_what_a_client_sent_is_not_doubted() {
    let mut conversation = Conversation::start().await;
    let Conversation { client, engine, .. } = &mut conversation;
    let failed = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no such language"}}"#;
    engine.send(Message::text(failed)).await.unwrap();
    assert_eq!(next(client).await, Some(Message::text(failed)));
    assert_eq!(closed(client).await, 1008);
    conversation.ended().await.nothing_observed();
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_engines_conversation() {
    for politely in [true, false] {
        let mut conversation = Conversation::start().await;
        let Conversation { client, engine, .. } = &mut conversation;
        if politely {
            client.close(None).await.unwrap();
        } else {
            client.get_mut().shutdown().await.unwrap();
        }
        assert_eq!(closed(engine).await, 1000, "politely: {politely}");
        conversation.ended().await;
    }
}

/// A client that takes its audio elsewhere after a moment of silence is all that is seen of an engine that hangs under load.
#[tokio::test]
async fn an_engine_whose_clients_leave_without_an_answer_is_looked_at() {
    let audio = serde_json::json!({"type": "input_audio_buffer.append", "audio": "A".repeat(40_000)});
    for (message, waits, doubted) in [
        (audio.to_string(), Duration::from_millis(1_200), true),
        (audio.to_string(), Duration::ZERO, false),
        ("{}".to_owned(), Duration::from_millis(1_200), false),
    ] {
        let mut conversation = Conversation::start().await;
        let Conversation { client, engine, .. } = &mut conversation;
        client.send(Message::text(message.clone())).await.unwrap();
        assert!(next(engine).await.is_some());
        tokio::time::sleep(waits).await;
        client.close(None).await.unwrap();
        closed(engine).await;
        let mut stack = conversation.ended().await;
        if doubted {
            let observed = stack.observed().await;
            assert!(matches!(observed, Observation::Owed { .. }), "{observed:?}");
        } else {
            stack.nothing_observed();
        }
    }
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_named_and_ends_the_conversation() {
    let mut conversation = Conversation::start().await;
    let Conversation { client, engine, .. } = &mut conversation;
    // The guard may close before all is sent.
    let _ = client.send(Message::binary(vec![0; (4 << 20) + 1])).await;
    assert_eq!(closed(client).await, 1009);
    assert_eq!(closed(engine).await, 1000);
    conversation.ended().await;
}

#[tokio::test]
async fn a_frame_of_an_engine_that_is_too_large_is_a_broken_conversation() {
    let mut conversation = Conversation::start().await;
    let Conversation { client, engine, .. } = &mut conversation;
    let _ = engine.send(Message::text("x".repeat((4 << 20) + 1))).await;
    assert_eq!(closed(client).await, 1011);
    conversation.ended().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_its_engine_back_and_is_shed() {
    let mut conversation = Conversation::start().await;
    let Conversation { engine, .. } = &mut conversation;
    let flood = async {
        let mut sent = 0;
        while engine.send(Message::text("x".repeat(256 * 1024))).await.is_ok() {
            sent += 256 * 1024;
        }
        sent
    };
    let sent = tokio::time::timeout(TIMEOUT, flood).await.expect("the client is never shed");
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    conversation.ended().await;
}

#[tokio::test]
async fn an_engine_that_hangs_after_the_end_of_the_audio_is_given_up() {
    let commit = r#"{"type":"input_audio_buffer.commit"}"#;
    for (protocol, end) in [("nim_realtime", DONE), ("nemo_speech_streaming", commit)] {
        let mut conversation = Conversation::of(protocol, PATH, impatient).await;
        let Conversation { client, engine, .. } = &mut conversation;
        client.send(Message::text(end)).await.unwrap();
        assert_eq!(next(engine).await, Some(Message::text(end)));
        assert_eq!(closed(client).await, 1011, "{protocol}");
        let mut stack = conversation.ended().await;
        let observed = stack.observed().await;
        assert!(matches!(observed, Observation::Owed { .. }), "{protocol}: {observed:?}");
    }
}

#[tokio::test]
async fn an_engine_that_takes_no_conversation_answers_for_itself() {
    let (stack, listener) = stack("nim_realtime", |_| {}).await;
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 7\r\n\r\nloading")
            .await
            .unwrap();
        stream
    };
    let (_stream, refused) = tokio::join!(answering, handshake(stack.address, PATH));
    assert_eq!(refused.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
    eventually("the lane is free", || stack.is_free()).await;
}

#[tokio::test]
async fn a_guard_that_stops_lets_conversations_end_and_then_sends_their_clients_elsewhere() {
    let mut conversation = Conversation::start().await;
    let Conversation { client, engine, stack } = &mut conversation;
    let drain = stack.drain.clone();
    let stopping = tokio::spawn(async move { drain.finish(TIMEOUT).await });
    stack.drain.begun().await;
    // It goes on for a moment.
    engine.send(Message::text("{}")).await.unwrap();
    assert_eq!(next(client).await, Some(Message::text("{}")));
    assert_eq!(closed(client).await, 1013);
    assert_eq!(closed(engine).await, 1000);
    assert_eq!(stopping.await.unwrap(), 0, "a conversation was cut");
}
