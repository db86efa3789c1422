//! An engine whose speech is cut short: how long its call goes on after the client wants no more of it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::stack::{Elsewhere, EngineOptions, Stack, StackOptions, quick_policy};
use crate::websocket::Socket;
use crate::{binaries, ports};

/// The messages by which a client of OpenAI's realtime API cuts speech short.
pub const CUTS: [&str; 2] = ["response.cancel", "output_audio_buffer.clear"];
/// What requests for speech have in their head.
const SPEECH: &[u8] = b"/v1/audio/synthesize";
/// Ceiling on the wait for a call's end.
const TIMEOUT: Duration = Duration::from_secs(30);
/// About ten seconds of speech.
const TEXT: &str = "The government will announce the new budget next week. We walked along the river until the sun \
    went down. Please call me back tomorrow morning at nine.";

/// A stack whose voice speaks at the pace of speech, behind a relay that sees its calls end.
#[derive(Debug)]
pub struct Interrupted {
    stack: Stack,
    ends: UnboundedReceiver<Instant>,
    _engine: Child,
}

impl Interrupted {
    /// Starts it.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub async fn start(name: &str) -> Result<Self> {
        let address = ports::free()?;
        let _engine = paced_engine(address)?;
        let (relay, ends) = relay(address).await?;
        let elsewhere = Some(Elsewhere { address: relay, entry: json!({}) });
        let engines = vec![EngineOptions { elsewhere, ..EngineOptions::new("tts-0", "tts") }];
        let mut guard = quick_policy();
        guard["probe"]["idle_period"] = json!("12h");
        guard["probe"]["content_period"] = json!("12h");
        let stack = Stack::start(StackOptions { engines, guard, ..StackOptions::new(name) }).await?;
        Ok(Self { stack, ends, _engine })
    }

    /// Time from a message of a client that hears speech, one of [`CUTS`], to the end of the engine's call.
    ///
    /// # Errors
    /// When the call does not end, or its response is not said to be cancelled.
    pub async fn freed(&mut self, cut: &str) -> Result<Duration> {
        let mut socket = Socket::connect(&self.stack.url, "/v1/realtime?model=gpt-realtime", &[]).await?;
        socket.until("session.created").await?;
        let content = json!([{"type": "input_text", "text": TEXT}]);
        let input = json!([{"type": "message", "role": "user", "content": content}]);
        socket.send(&json!({"type": "response.create", "response": {"input": input}})).await?;
        socket.until("response.output_audio.delta").await?;
        while self.ends.try_recv().is_ok() {}
        let began = Instant::now();
        socket.send(&json!({"type": cut})).await?;
        let ended =
            tokio::time::timeout(TIMEOUT, self.ends.recv()).await.context("the engine still speaks")?;
        let taken = ended.context("the relay has ended")?.saturating_duration_since(began);
        let done = socket.until("response.done").await?.pop().context("no end")?;
        ensure!(done["response"]["status"] == "cancelled", "{done}");
        Ok(taken)
    }

    /// Ends it.
    ///
    /// # Errors
    /// As [`Stack::stop`].
    pub async fn stop(self) -> Result<()> {
        self.stack.stop().await
    }
}

/// A voice that speaks at the pace of speech.
fn paced_engine(address: SocketAddr) -> Result<Child> {
    let mut command = Command::new(binaries::find(binaries::ENGINE)?);
    command.args(["--kind", "tts", "--pace", "0,1", "--listen", &address.to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().context("unable to run the engine")
}

/// Passes connections on to an engine, and says when one ends over which it spoke.
async fn relay(engine: SocketAddr) -> Result<(SocketAddr, UnboundedReceiver<Instant>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (sender, ends) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass(client, engine, sender.clone()));
        }
    });
    Ok((address, ends))
}

async fn pass(mut client: TcpStream, engine: SocketAddr, ends: UnboundedSender<Instant>) {
    let Ok(mut engine) = TcpStream::connect(engine).await else { return };
    let (mut asks, mut hears) = client.split();
    let (mut speaks, mut takes) = engine.split();
    let mut speech = false;
    let requests = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = asks.read(&mut bytes).await {
            speech |= bytes[..count].windows(SPEECH.len()).any(|window| window == SPEECH);
            if takes.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        _ = tokio::io::copy(&mut speaks, &mut hears) => {}
    }
    if speech {
        let _ = ends.send(Instant::now());
    }
}
