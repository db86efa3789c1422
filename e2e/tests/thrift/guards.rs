//! The guards of all pods, played by one small server: every loopback address leads to it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A guard's admin port.
const PORT: u16 = 9401;
/// How often a guard with nothing to say shows that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Guards that end with this value.
pub struct Guards(JoinHandle<()>);

impl Drop for Guards {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Guards {
    /// Starts them. Each takes a file of this process, and one of the operator, which inherits the limit.
    pub async fn start() -> Result<Self> {
        // What the machine allows is enough for thousands of pods.
        let limit = getrlimit(Resource::Nofile);
        let wanted = Rlimit { current: limit.maximum, ..limit };
        setrlimit(Resource::Nofile, wanted).context("unable to raise the limit of open files")?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        Ok(Self(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(async move { serve(stream).await.ok() });
                }
                while connections.try_join_next().is_some() {}
            }
        })))
    }
}

/// One healthy guard: its report, then signs of life.
async fn serve(mut stream: TcpStream) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut head).await? > 0, "no request");
    }
    ensure!(head.starts_with(b"GET /state/stream "), "only streams are played");
    let start = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let event = format!("event: report\ndata: {}\n\n", report(stream.local_addr()?.ip()));
    stream.write_all(format!("{start}{}", chunk(&event)).as_bytes()).await?;
    let alive = chunk(":\n\n");
    loop {
        // An operator that went away is noticed at once: its files are needed for the next.
        match tokio::time::timeout(KEEP_ALIVE, stream.read(&mut [0])).await {
            Ok(_) => return Ok(()),
            Err(_) => stream.write_all(alive.as_bytes()).await?,
        }
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A report of the length of a real one.
fn report(address: IpAddr) -> String {
    let stage = json!({"passed": 12, "failed": 0, "seconds": 0.231, "at_unix_ms": 1_800_000_000_000_u64});
    json!({
        "name": format!("parakeet-{address}"), "capability": "stt", "url": "http://127.0.0.1:9000",
        "instance": format!("{address}/1800000000/7"), "state": "healthy", "verdict": "serving", "class": null,
        "restarts": 0, "queue_seconds": 0.0, "repair": null, "weight": 1.0, "in_flight": 0,
        "predictor": {"fixed": 0.1, "per_second": 0.02, "samples": 120}, "probes": {"shallow": stage, "golden": stage},
    })
    .to_string()
}
