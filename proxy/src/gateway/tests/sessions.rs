//! Who may open a session: keys of browsers, keys in a first message, and refusals as each dialect has them.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::gateway::tests::keys::Keyed;
use crate::gateway::tests::stack::{Stack, envelope};
use crate::keys::testing::add;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A client's side of a session.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    /// Opens a session with these headers; the status of the refusal when its handshake is refused.
    pub async fn open(stack: &Stack, path: &str, headers: &[(&'static str, String)]) -> Result<Self, u16> {
        let mut request = format!("ws://{}{path}", stack.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(stack.address).await.unwrap();
        match timeout(TIMEOUT, tokio_tungstenite::client_async(request, stream)).await.unwrap() {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text.to_owned())).await.unwrap();
    }

    pub async fn send_binary(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).await.unwrap();
    }

    /// The next text message.
    pub async fn next_text(&mut self) -> String {
        loop {
            if let Message::Text(text) = timeout(TIMEOUT, self.socket.next()).await.unwrap().unwrap().unwrap()
            {
                return text.as_str().to_owned();
            }
        }
    }

    /// The next frame as JSON, or the code and the reason of the close.
    pub async fn next(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match timeout(TIMEOUT, self.socket.next()).await.expect("nothing came").unwrap().unwrap() {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => {
                    let frame = frame.unwrap();
                    return Err((frame.code.into(), frame.reason.to_string()));
                }
                _ => {}
            }
        }
    }

    /// The frame that has a field of that value, or the close.
    pub async fn until(&mut self, field: &str, value: &str) -> Result<Value, (u16, String)> {
        loop {
            let frame = self.next().await?;
            if frame[field] == value {
                return Ok(frame);
            }
        }
    }
}

pub fn bearer(key: &str) -> [(&'static str, String); 1] {
    [("authorization", format!("Bearer {key}"))]
}

#[tokio::test]
async fn a_session_needs_a_key_and_each_dialect_refuses_in_its_own_way() {
    let (keyed, alice) = Keyed::start().await;
    let stack = &keyed.stack;
    for path in ["/v1/listen", "/ws"] {
        assert_eq!(Client::open(stack, path, &[]).await.err(), Some(401), "{path}");
        assert!(Client::open(stack, path, &bearer(&alice)).await.is_ok(), "{path}");
    }
    let offered = [("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-wrong".to_owned())];
    let mut client = Client::open(stack, "/v1/realtime", &offered).await.ok().unwrap();
    let error = client.next().await.unwrap();
    assert_eq!((&error["type"], &error["error"]["code"]), (&json!("error"), &json!("invalid_api_key")));
    assert_eq!(client.next().await, Err((3000, "invalid_request_error.invalid_api_key".into())));
    for path in ["/api/v1/audio/stream/transcribe", "/v1/core/parakeet/stream"] {
        let mut client = Client::open(stack, path, &bearer("sk-wrong")).await.ok().unwrap();
        let error = client.next().await.unwrap();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("invalid_api_key")), "{path}");
        assert_eq!(client.next().await.unwrap_err().0, 4401, "{path}");
    }
    for offered in
        [format!("realtime, openai-insecure-api-key.{alice}"), format!("realtime, realtime-token.{alice}")]
    {
        let offered = [("sec-websocket-protocol", offered)];
        let mut client = Client::open(stack, "/v1/realtime", &offered).await.ok().unwrap();
        assert_ne!(client.next().await.unwrap()["type"], "error");
    }
    let offered = [("sec-websocket-protocol", format!("token, {alice}"))];
    assert!(Client::open(stack, "/v1/listen", &offered).await.is_ok());
}

#[tokio::test]
async fn tldws_clients_may_send_the_key_first() {
    let (keyed, alice) = Keyed::start().await;
    let path = "/api/v1/audio/stream/transcribe";
    let mut client = Client::open(&keyed.stack, path, &[]).await.ok().unwrap();
    client.send(json!({"type": "auth", "token": alice})).await;
    client.send(json!({"type": "ping"})).await;
    assert_eq!(client.next().await.unwrap()["type"], "pong");
    for first in [json!({"type": "auth", "token": "sk-wrong"}), json!({"type": "ping"}), json!([])] {
        let mut client = Client::open(&keyed.stack, path, &[]).await.ok().unwrap();
        client.send(first.clone()).await;
        assert_eq!(client.next().await.unwrap()["type"], "error", "{first}");
        assert_eq!(client.next().await.unwrap_err().0, 4401, "{first}");
    }
    let limited = add(&keyed.path, "limited", |record| record.scopes.dialects = vec!["openai".into()]);
    keyed.until(&limited, 200).await;
    let mut client = Client::open(&keyed.stack, path, &[]).await.ok().unwrap();
    client.send(json!({"type": "auth", "token": limited})).await;
    assert_eq!(client.next().await.unwrap()["code"], "insufficient_permissions");
    assert_eq!(client.next().await.unwrap_err().0, 4403);
}

#[tokio::test]
async fn a_client_secret_opens_a_session_and_nothing_else() {
    let (keyed, alice) = Keyed::start().await;
    let request = keyed.stack.post("/v1/realtime/client_secrets");
    let session = json!({"session": {"type": "transcription"}});
    envelope(request.try_clone().unwrap().json(&session).send().await.unwrap(), 401, None).await;
    let made: Value = request.bearer_auth(&alice).json(&session).send().await.unwrap().json().await.unwrap();
    let secret = made["value"].as_str().unwrap();
    assert!(secret.starts_with("ek_"), "{secret}");
    let offered = [("sec-websocket-protocol", format!("realtime, openai-insecure-api-key.{secret}"))];
    let mut client = Client::open(&keyed.stack, "/v1/realtime", &offered).await.ok().unwrap();
    let created = client.next().await.unwrap();
    assert_eq!(created["session"]["type"], "transcription", "{created}");
    let (unsigned, _) = secret.split_once('.').unwrap();
    for wrong in [unsigned.to_owned(), secret.replace(".", "0."), "ek_e30".into()] {
        let mut client = Client::open(&keyed.stack, "/v1/realtime", &bearer(&wrong)).await.ok().unwrap();
        assert_eq!(client.next().await.unwrap()["error"]["code"], "invalid_api_key", "{wrong}");
    }
    envelope(keyed.get("/v1/models", secret).await, 401, None).await;
    assert_eq!(Client::open(&keyed.stack, "/v1/listen", &bearer(secret)).await.err(), Some(401));
}
