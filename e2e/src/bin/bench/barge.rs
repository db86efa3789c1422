//! How soon an engine is free whose speech is not wanted any more: from the client's message to the end of the engine's call.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_e2e::stack::{Elsewhere, EngineOptions, Stack, StackOptions, quick_policy};
use speechstack_e2e::websocket::Socket;
use speechstack_e2e::{binaries, ports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::meter::{median, percentile};
use crate::report::Table;

const ROUNDS: usize = 12;
/// Bytes of an engine from which on they are speech.
const SPEECH_BYTES: usize = 8 * 1024;
/// Ceiling on the wait for a call's end.
const TIMEOUT: Duration = Duration::from_secs(30);
const TEXT: &str = "The government will announce the new budget next week. We walked along the river until the sun \
    went down. Please call me back tomorrow morning at nine.";

/// Measures it on an engine that speaks at the pace of speech.
pub async fn row(table: &mut Table) -> Result<()> {
    let address = ports::free()?;
    let _engine = paced_engine(address)?;
    let (relay, mut ends) = relay(address).await?;
    let elsewhere = Some(Elsewhere { address: relay, entry: json!({}) });
    let engines = vec![EngineOptions { elsewhere, ..EngineOptions::new("tts-0", "tts") }];
    let mut guard = quick_policy();
    guard["probe"]["idle_period"] = json!("12h");
    guard["probe"]["content_period"] = json!("12h");
    let stack = Stack::start(StackOptions { engines, guard, ..StackOptions::new("bench-barge") }).await?;
    for event in ["response.cancel", "output_audio_buffer.clear"] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(freed(&stack, event, &mut ends).await?);
        }
        table.row(
            &format!("engine free after {event}, p95"),
            format!("{:.0} ms", percentile(&times, 0.95) * 1000.0),
            format!("p50 {:.0} ms", median(&times) * 1000.0),
            None,
            "<= 50 ms",
        );
    }
    stack.stop().await
}

/// Seconds from the message of a client that hears speech to the end of the engine's call.
async fn freed(stack: &Stack, event: &str, ends: &mut UnboundedReceiver<Instant>) -> Result<f64> {
    let mut socket = Socket::connect(&stack.url, "/v1/realtime?model=gpt-realtime", &[]).await?;
    socket.until("session.created").await?;
    let content = json!([{"type": "input_text", "text": TEXT}]);
    let input = json!([{"type": "message", "role": "user", "content": content}]);
    socket.send(&json!({"type": "response.create", "response": {"input": input}})).await?;
    socket.until("response.output_audio.delta").await?;
    while ends.try_recv().is_ok() {}
    let began = Instant::now();
    socket.send(&json!({"type": event})).await?;
    let ended = tokio::time::timeout(TIMEOUT, ends.recv()).await.context("the engine still speaks")?;
    let taken = ended.context("the relay has ended")?.saturating_duration_since(began);
    let done = socket.until("response.done").await?.pop().context("no end")?;
    ensure!(done["response"]["status"] == "cancelled", "{done}");
    Ok(taken.as_secs_f64())
}

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
    let mut said = 0;
    let replies = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = speaks.read(&mut bytes).await {
            said += count;
            if hears.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = tokio::io::copy(&mut asks, &mut takes) => {}
        () = replies => {}
    }
    if said > SPEECH_BYTES {
        let _ = ends.send(Instant::now());
    }
}
