//! Long files in parts against a live stack: a gateway that is killed, a network that breaks, a user who interrupts, and a
//! client of the protocol from a registry.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::multipart::Form;
use reqwest::{Body, Method, RequestBuilder};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use speechstack_e2e::client::say_into;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};
use speechstack_e2e::words::word_error;
use speechstack_e2e::{binaries, processes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const TEST_TIMEOUT: Duration = Duration::from_secs(120);
const UPLOADS: &str = "/v1/audio/uploads";
const SENTENCES: [&str; 3] = [
    "She told me that the train was late again.",
    "Please open the window and turn off the light.",
    "Then we should take the bus to the city tomorrow morning.",
];

/// A stack that keeps jobs, and a recording of some seconds.
async fn start(name: &str, folder: &Path) -> Result<(Stack, Vec<u8>)> {
    say_into(&folder.join("talk.wav"), &SENTENCES.map(|sentence| ("rms", sentence)))?;
    let stack = Stack::start(StackOptions {
        engines: vec![EngineOptions::new("parakeet-0", "stt")],
        gateway: json!({"jobs": {"dir": folder.join("jobs")}}),
        ..StackOptions::new(name)
    });
    Ok((stack.await?, std::fs::read(folder.join("talk.wav"))?))
}

fn check(text: &str) -> Result<()> {
    ensure!(word_error(&SENTENCES.join(" "), text) <= 0.2, "{text:?}");
    Ok(())
}

#[tokio::test]
async fn an_upload_goes_on_after_the_gateway_was_killed_in_the_middle_of_a_part() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut stack, talk) = start("uploads-kill", folder.path()).await?;
    let http = reqwest::Client::builder().no_proxy().timeout(TEST_TIMEOUT).build()?;
    let base = stack.url.clone();
    let tus = |method: Method, path: &str| -> RequestBuilder {
        http.request(method, format!("{base}{path}")).header("tus-resumable", "1.0.0")
    };
    let offset = async |path: &str| -> Result<usize> {
        let response = tus(Method::HEAD, path).send().await?.error_for_status()?;
        Ok(response.headers()["upload-offset"].to_str()?.parse()?)
    };
    // What is behind the recording's samples is no sound; it only makes the file long enough to be killed in.
    let mut file = talk;
    file.resize(file.len() + (8 << 20), 0);
    let made =
        tus(Method::POST, UPLOADS).header("upload-length", file.len()).send().await?.error_for_status()?;
    let path = made.headers()["location"].to_str()?.to_owned();
    let patch = |at: usize, body: Body| {
        let patch = tus(Method::PATCH, &path).header("upload-offset", at);
        patch.header("content-type", "application/offset+octet-stream").body(body)
    };
    // Three times in the middle of a part that never ends.
    let mut at = 0;
    for _ in 0..3 {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let pieces = futures::stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        let part = tokio::spawn(patch(at, Body::wrap_stream(pieces)).send());
        let until = at + (2 << 20);
        for piece in file[at..until].chunks(64 << 10) {
            sender.send(Ok(Bytes::copy_from_slice(piece))).await?;
        }
        let deadline = Instant::now() + TEST_TIMEOUT;
        while offset(&path).await? == at {
            ensure!(Instant::now() < deadline, "nothing of the part is kept");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stack.crash().await?;
        ensure!(part.await?.is_err(), "a killed gateway has answered");
        let now = offset(&path).await?;
        ensure!(now > at && now <= until, "{now} bytes after {at} and {until}");
        at = now;
    }
    patch(at, Body::from(file[at..].to_vec())).send().await?.error_for_status()?;
    let id = path.rsplit('/').next().unwrap_or_default().to_owned();
    let ask = |fields: [(&'static str, String); 3]| {
        let form = fields.into_iter().fold(Form::new(), |form, (name, value)| form.text(name, value));
        http.post(format!("{base}/v1/audio/transcriptions")).multipart(form).send()
    };
    let fields = |wait: &str| {
        [("upload_id", id.clone()), ("response_format", "text".to_owned()), ("async", wait.to_owned())]
    };
    check(&ask(fields("false")).await?.error_for_status()?.text().await?)?;
    let job: Value = ask(fields("true")).await?.error_for_status()?.json().await?;
    let path = format!("/v1/audio/jobs/{}", job["id"].as_str().unwrap_or_default());
    let deadline = Instant::now() + TEST_TIMEOUT;
    while stack.client.get(&path).await?.json()?["status"] != "succeeded" {
        ensure!(Instant::now() < deadline, "the job does not end: {}", stack.client.get(&path).await?.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    check(&stack.client.get(&format!("{path}/result")).await?.text())?;
    stack.stop().await
}

/// A network between a client and a gateway, whose first connections carry so many bytes to the gateway and no more.
struct Network {
    address: SocketAddr,
    /// Bytes that went to the gateway, of all connections.
    carried: Arc<AtomicU64>,
    /// Connections that reached their limit.
    broken: Arc<AtomicUsize>,
}

impl Network {
    /// Connections that reach `limit` are cut, or lose what comes after it if the network `hangs`.
    async fn start(gateway: &str, limit: u64, breaks: usize, hangs: bool) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let gateway: SocketAddr = gateway.trim_start_matches("http://").parse()?;
        let (carried, broken) = (Arc::<AtomicU64>::default(), Arc::<AtomicUsize>::default());
        let network = Self {
            address: listener.local_addr()?,
            carried: Arc::clone(&carried),
            broken: Arc::clone(&broken),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (carried, broken) = (Arc::clone(&carried), Arc::clone(&broken));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(gateway).await else { return };
                    let (mut from, mut to) = client.into_split();
                    let (mut answers, mut server) = server.into_split();
                    let back = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut to).await });
                    let (mut block, mut sent) = ([0; 16 << 10], 0);
                    while let Ok(bytes @ 1..) = from.read(&mut block).await {
                        if server.write_all(&block[..bytes]).await.is_err() {
                            break;
                        }
                        sent += bytes as u64;
                        carried.fetch_add(bytes as u64, Ordering::SeqCst);
                        if sent >= limit && broken.load(Ordering::SeqCst) < breaks {
                            broken.fetch_add(1, Ordering::SeqCst);
                            // Until the client leaves, what it sends is lost.
                            while hangs && matches!(from.read(&mut block).await, Ok(1..)) {}
                            back.abort();
                            return;
                        }
                    }
                    drop(server);
                    let _ = back.await;
                });
            }
        });
        Ok(network)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }

    fn broken(&self) -> usize {
        self.broken.load(Ordering::SeqCst)
    }
}

fn transcribe(url: &str, folder: &Path) -> Result<Command> {
    let mut command = Command::new(binaries::find("speechstack")?);
    command.current_dir(folder).args(["--server", url, "transcribe", "talk.wav", "--job"]);
    command.env("NO_PROXY", "127.0.0.1").kill_on_drop(true);
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    Ok(command)
}

async fn output(command: &mut Command) -> Result<Output> {
    let ended = tokio::time::timeout(TEST_TIMEOUT, command.output()).await;
    ended.context("speechstack has not ended")?.context("unable to run speechstack")
}

#[tokio::test]
async fn a_file_gets_through_a_network_that_breaks_and_an_interrupted_one_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (stack, talk) = start("uploads-network", folder.path()).await?;
    let size = talk.len() as u64;

    // A third of the file for each connection: what came is not sent again.
    let network = Network::start(&stack.url, size / 3, 3, false).await?;
    let ended = output(&mut transcribe(&network.url(), folder.path())?).await?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    check(&String::from_utf8(ended.stdout)?)?;
    ensure!(network.broken() >= 2, "{} connections broke", network.broken());
    ensure!(network.carried() < size * 2, "{} bytes for a file of {size}", network.carried());

    // Interrupted in the middle, and begun again: the rest is sent, and the gateway keeps nothing at the end.
    stack.client.delete(&format!("/v1/audio/jobs/{}", job(&stack).await?)).await?;
    let network = Network::start(&stack.url, size / 2, 1, true).await?;
    let mut interrupted = transcribe(&network.url(), folder.path())?.spawn()?;
    let deadline = Instant::now() + TEST_TIMEOUT;
    while network.broken() == 0 {
        ensure!(Instant::now() < deadline, "the upload does not begin");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pid = interrupted.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    processes::signal(pid.context("speechstack has ended")?, Signal::INT);
    let status =
        tokio::time::timeout(TEST_TIMEOUT, interrupted.wait()).await.context("it does not end")??;
    ensure!(status.code() == Some(130), "{status}");
    drop(interrupted);
    let kept = stack.client.get(UPLOADS).await?.json()?;
    ensure!(kept["data"][0]["status"] == "uploading", "{kept}");
    let network = Network::start(&stack.url, u64::MAX, 0, false).await?;
    let ended = output(&mut transcribe(&network.url(), folder.path())?).await?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    check(&String::from_utf8(ended.stdout)?)?;
    ensure!(network.carried() < size, "{} bytes for the rest of a file of {size}", network.carried());
    let kept = stack.client.get(UPLOADS).await?.json()?;
    ensure!(kept["data"].as_array().is_some_and(Vec::is_empty), "{kept}");
    stack.stop().await
}

/// The id of the newest job.
async fn job(stack: &Stack) -> Result<String> {
    let jobs = stack.client.get("/v1/audio/jobs").await?.json()?;
    Ok(jobs["data"][0]["id"].as_str().with_context(|| format!("no job: {jobs}"))?.to_owned())
}

#[tokio::test]
async fn a_client_of_tus_resumes_and_its_upload_is_transcribed() -> Result<()> {
    let modules = binaries::repository().join("e2e/sdk/node/node_modules/tus-js-client");
    ensure!(modules.exists(), "{} is missing: `make sdks` makes it", modules.display());
    let folder = tempfile::tempdir()?;
    let (stack, _) = start("uploads-tus", folder.path()).await?;
    let script = binaries::repository().join("e2e/sdk/node/uploads.mjs");
    let mut command = Command::new("node");
    command
        .arg(script)
        .env("SPEECHSTACK_URL", &stack.url)
        .env("SPEECHSTACK_FILE", folder.path().join("talk.wav"));
    command.env("NO_PROXY", "127.0.0.1").kill_on_drop(true);
    let ended =
        tokio::time::timeout(TEST_TIMEOUT, command.output()).await.context("the client does not end")??;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{said}");
    check(&String::from_utf8(ended.stdout)?)?;
    stack.stop().await
}
