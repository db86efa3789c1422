//! A raw WebSocket client, for tests of streaming dialects.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Longest wait for a message.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An open connection.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// The subprotocol that the server chose.
    pub protocol: Option<String>,
}

/// What the server sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// A JSON message.
    Json(Value),
    /// A close with its code and reason.
    Closed(u16, String),
}

impl Socket {
    /// Connects to `path` of the stack at `base`, `http://host:port`, with extra headers.
    ///
    /// # Errors
    /// When the server refuses, with its status.
    pub async fn connect(base: &str, path: &str, headers: &[(&'static str, &str)]) -> Result<Self> {
        let address = base.strip_prefix("http://").context("no http:// base")?;
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse()?);
        }
        let stream = TcpStream::connect(address).await?;
        let config = WebSocketConfig::default().max_message_size(Some(1 << 20));
        let connected = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
        let (stream, response) = match connected {
            Ok(connected) => connected,
            Err(Error::Http(response)) => bail!("refused with {}", response.status()),
            Err(error) => return Err(error.into()),
        };
        let protocol = response.headers().get("sec-websocket-protocol");
        let protocol = protocol.and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Self { stream, protocol })
    }

    /// Sends a JSON text message.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, message: &Value) -> Result<()> {
        self.send_text(message.to_string()).await
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<()> {
        Ok(self.stream.send(Message::text(text.into())).await?)
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_binary(&mut self, bytes: impl Into<Bytes>) -> Result<()> {
        Ok(self.stream.send(Message::Binary(bytes.into())).await?)
    }

    /// The next message.
    ///
    /// # Errors
    /// None comes in time, or it is no JSON.
    pub async fn next(&mut self) -> Result<Got> {
        timeout(TIMEOUT, self.arrives()).await.context("the server says nothing")?
    }

    /// The next message, however late it is. Pings are answered meanwhile.
    ///
    /// # Errors
    /// It is no JSON, or the connection is gone.
    pub async fn arrives(&mut self) -> Result<Got> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Got::Json(serde_json::from_str(&text)?)),
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                    let (code, reason) = frame.unwrap_or((1005, String::new()));
                    return Ok(Got::Closed(code, reason));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(bytes))) => bail!("{} binary bytes came", bytes.len()),
                Some(Err(error)) => return Err(error).context("the connection broke"),
                None => bail!("the connection ended without a close"),
            }
        }
    }

    /// The next JSON message.
    ///
    /// # Errors
    /// As [`Socket::next`]; also when the server closes.
    pub async fn json(&mut self) -> Result<Value> {
        match self.next().await? {
            Got::Json(value) => Ok(value),
            Got::Closed(code, reason) => bail!("closed with {code} {reason:?}"),
        }
    }

    /// Messages up to and with the first whose `type` is `kind`.
    ///
    /// # Errors
    /// As [`Socket::json`]; also on an event `error` that is not looked for.
    pub async fn until(&mut self, kind: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        loop {
            let message = self.json().await?;
            ensure!(kind == "error" || message["type"] != "error", "waiting for {kind}: {message}");
            let found = message["type"] == kind;
            all.push(message);
            if found {
                return Ok(all);
            }
        }
    }

    /// Waits for the close, past any messages.
    ///
    /// # Errors
    /// As [`Socket::next`].
    pub async fn closed(&mut self) -> Result<(u16, String)> {
        loop {
            if let Got::Closed(code, reason) = self.next().await? {
                return Ok((code, reason));
            }
        }
    }
}
