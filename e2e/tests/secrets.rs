//! No secret and no word of a user in any log line of gateway, guards and engines, at `debug` too.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use speechstack_e2e::client::say;
use speechstack_e2e::websocket::Socket;
use speechstack_e2e::{binaries, ports, processes};

const TEST_TIMEOUT: Duration = Duration::from_secs(180);
const REDIS_PASSWORD: &str = "planted-redis-password";
const ENGINE_KEY: &str = "planted-key-of-the-language-model";
const WRONG_KEY: &str = "sk-planted-wrong-key-of-somebody";
/// What is written and spoken: no other text has these words.
const TEXT: &str = "Zanzibar marmalade in the morning.";
const WORDS: [&str; 2] = ["zanzibar", "marmalade"];

/// A process that does not outlive the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Killed, it would leave its engines behind.
        if let Some(own) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            processes::signal(own, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A key of that name in a file.
fn key(file: &Path, name: &str) -> Result<String> {
    let mut command = Command::new(binaries::find(binaries::PROXY)?);
    let made = command.args(["keys", "--file"]).arg(file).args(["add", name, "--admin"]).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout)?.trim().to_owned())
}

/// Sends requests of several dialects, good and bad.
async fn talk(url: &str, key: &str) -> Result<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(TEST_TIMEOUT).build()?;
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !client.get(format!("{url}/readyz")).send().await.is_ok_and(|reply| reply.status() == 200) {
        ensure!(Instant::now() < deadline, "not ready after {TEST_TIMEOUT:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let clip = say(&[("rms", TEXT)])?;
    let upload = |field: &'static str| {
        Form::new().text("prompt", TEXT).part(field, Part::bytes(clip.to_vec()).file_name("clip.wav"))
    };
    let post = |path: &str| client.post(format!("{url}{path}"));
    let mut heard = false;
    for (path, field) in [
        ("/v1/audio/transcriptions", "file"),
        ("/transcribe", "file"),
        ("/v1/speech-to-text", "file"),
        ("/upload", "file"),
    ] {
        let reply = post(path).header("x-api-key", key).multipart(upload(field)).send().await?;
        let (status, text) = (reply.status(), reply.text().await?);
        heard |= status == 200 && text.to_lowercase().contains("morning");
    }
    ensure!(heard, "no dialect has heard anything");
    let speech = json!({"input": TEXT, "voice": "alloy", "response_format": "wav"});
    let spoken = post("/v1/audio/speech").bearer_auth(key).json(&speech).send().await?;
    ensure!(spoken.status() == 200, "{}", spoken.text().await?);
    let chat = json!({"model": "reference-template", "messages": [{"role": "user", "content": TEXT}]});
    let said = post("/v1/chat/completions").header("api-key", key).json(&chat).send().await?;
    ensure!(said.status() == 200, "{}", said.text().await?);
    let prompt = json!({"prompt": TEXT, "session_id": "one"});
    post(&format!("/v1/generate?api_key={key}")).json(&prompt).send().await?.bytes().await?;
    // What is wrong is named in replies, not in logs.
    let wrong = [
        post("/v1/audio/speech").bearer_auth(key).body(format!("{{{TEXT}")),
        post("/v1/audio/speech").bearer_auth(key).json(&json!({"input": {"text": TEXT}})),
        post("/v1/audio/transcriptions").bearer_auth(key).body(TEXT),
        post(&format!("/v1/audio/speech?token={WRONG_KEY}")).json(&speech),
        post("/v1/audio/speech").bearer_auth(WRONG_KEY).json(&speech),
    ];
    for request in wrong {
        ensure!(request.send().await?.status().is_client_error());
    }
    let secret: Value =
        post("/v1/realtime/client_secrets").bearer_auth(key).json(&json!({})).send().await?.json().await?;
    let secret = secret["value"].as_str().context("no client secret")?.to_owned();
    let bearer = format!("Bearer {secret}");
    let mut realtime =
        Socket::connect(url, "/v1/realtime?model=gpt-realtime", &[("authorization", &bearer)]).await?;
    let item = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": TEXT}]});
    realtime.send(&json!({"type": "conversation.item.create", "item": item})).await?;
    realtime.send(&json!({"type": "response.create", "response": {"instructions": TEXT}})).await?;
    realtime.send_text(format!("{{{TEXT}")).await?;
    realtime.next().await?;
    let mut tldw = Socket::connect(url, "/api/v1/audio/stream/transcribe", &[]).await?;
    tldw.send(&json!({"type": "auth", "token": key})).await?;
    tldw.send(&json!({"type": TEXT})).await?;
    tldw.next().await?;
    Ok(secret)
}

#[tokio::test]
async fn no_log_line_has_a_secret_or_a_word_of_a_user() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (keys, log) = (folder.path().join("keys.yaml"), folder.path().join("log"));
    let key = key(&keys, "alice")?;
    let (redis, model_key) = (folder.path().join("redis"), folder.path().join("model-key"));
    // Nothing listens there: what cannot be reached is logged.
    std::fs::write(&redis, format!("redis://:{REDIS_PASSWORD}@{}/0", ports::free()?))?;
    std::fs::write(&model_key, ENGINE_KEY)?;
    let engine = binaries::find(binaries::ENGINE)?;
    let mut engines = Vec::new();
    for kind in ["stt", "tts", "llm"] {
        let address = ports::free()?;
        let command = [json!(engine), json!("--kind"), json!(kind), json!("--listen"), json!(address)];
        let mut entry = json!({
            "name": format!("{kind}-0"), "capability": kind, "url": format!("http://{address}"),
            "guard": ports::free()?, "guard_admin": ports::free()?, "env": {"RUST_LOG": "debug"},
        });
        if kind == "llm" {
            entry["env"]["SPEECHSTACK_ENGINE_API_KEY"] = json!(ENGINE_KEY);
            entry["key_file"] = json!(model_key);
            entry["model"] = json!("reference-template");
        }
        entry["command"] = json!(command);
        engines.push(entry);
    }
    let listen = ports::free()?;
    let config = json!({
        "gateway": {
            "listen": listen, "admin": ports::free()?, "drain": "3s",
            "auth": {"mode": "keys", "keys_file": keys, "query": true},
            "quotas": {"redis": {"url_file": redis}},
        },
        "engines": engines,
    });
    let file = folder.path().join("stack.yaml");
    std::fs::write(&file, config.to_string())?;
    let mut command = processes::tied_command(&binaries::find(binaries::PROXY)?);
    command.args(["standalone", "--log", "debug", "--config"]).arg(&file);
    command.stdin(Stdio::null()).stdout(File::create(folder.path().join("out"))?).stderr(File::create(&log)?);
    let process = Process(command.spawn()?);
    let talked = talk(&format!("http://{listen}"), &key).await;
    let wanted = ["request ended", "key refused", "unable to reach Redis", "DEBUG"];
    let deadline = Instant::now() + TEST_TIMEOUT;
    let text = loop {
        let text = std::fs::read_to_string(&log)? + &std::fs::read_to_string(folder.path().join("out"))?;
        let missing: Vec<_> = wanted.iter().filter(|line| !text.contains(**line)).collect();
        if talked.is_err() || missing.is_empty() {
            break text;
        }
        ensure!(Instant::now() < deadline, "the log lacks {missing:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    drop(process);
    let secret = talked.with_context(|| text.clone())?;
    // The part of a key behind its id, and all of the others.
    let key = key.split_once('_').context("the key has no secret")?.1;
    let planted = [key, &secret, REDIS_PASSWORD, ENGINE_KEY, &WRONG_KEY[3..]];
    let lower = text.to_lowercase();
    for planted in planted.into_iter().chain(WORDS) {
        let line = lower.lines().find(|line| line.contains(&planted.to_lowercase()));
        ensure!(line.is_none(), "{planted:?} is logged: {line:?}");
    }
    Ok(())
}
