//! Streaming dialects over real processes: raw WebSocket clients, real speech, an engine that dies meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use speechstack_e2e::audio::Measure;
use speechstack_e2e::barge::{CUTS, Interrupted};
use speechstack_e2e::binaries::repository;
use speechstack_e2e::client::{say, say_into};
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions, quick_policy};
use speechstack_e2e::websocket::{Got, Socket};
use speechstack_e2e::words::word_error;

#[path = "stream/dialects.rs"]
mod dialects;
#[path = "stream/engines.rs"]
mod engines;
#[path = "stream/speakers.rs"]
mod speakers;

const SENTENCE: &str = "She told me that the train was late again.";
const OTHER: &str = "Please open the window and turn off the light.";
const REALTIME: &str = "/v1/realtime?intent=transcription";

fn options(name: &str) -> StackOptions {
    StackOptions {
        engines: vec![EngineOptions::new("parakeet-0", "stt"), EngineOptions::new("magpie-0", "tts")],
        ..StackOptions::new(name)
    }
}

/// 16 kHz PCM of a sentence.
fn spoken(text: &str) -> Result<Vec<i16>> {
    let file = say(&[("rms", text)])?;
    let at = file.windows(4).position(|four| four == b"data").context("no samples in the file")?;
    Ok(file[at + 8..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
}

fn silence(seconds: f64) -> Vec<i16> {
    vec![0; (seconds * 16_000.0) as usize]
}

fn pcm16(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

fn append(samples: &[i16]) -> Value {
    json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(pcm16(samples))})
}

fn update(turn_detection: &Value) -> Value {
    json!({"type": "session.update", "session": {"type": "transcription", "audio": {"input": {
        "format": {"type": "audio/pcm", "rate": 16000},
        "transcription": {"model": "parakeet", "language": "en"}, "turn_detection": turn_detection,
    }}}})
}

async fn realtime(stack: &Stack, turn_detection: Value) -> Result<Socket> {
    let mut socket = Socket::connect(&stack.url, REALTIME, &[]).await?;
    let created = socket.json().await?;
    ensure!(created["type"] == "session.created", "{created}");
    ensure!(created["session"]["type"] == "transcription", "{created}");
    socket.send(&update(&turn_detection)).await?;
    let updated = socket.json().await?;
    ensure!(updated["type"] == "session.updated", "{updated}");
    ensure!(updated["session"]["audio"]["input"]["format"]["rate"] == 16_000, "{updated}");
    Ok(socket)
}

fn text<'a>(message: &'a Value, name: &str) -> &'a str {
    message[name].as_str().unwrap_or_default()
}

/// Sends audio at the pace of speech while messages are read, until `count` messages of type `last` came. Each message has the
/// time at which it came.
async fn talk(socket: &mut Socket, audio: &[i16], last: &str, count: usize) -> Result<Vec<(Instant, Value)>> {
    let (mut got, mut found) = (Vec::new(), 0);
    let mut pieces = audio.chunks(1_600);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut sending = true;
    while found < count {
        tokio::select! {
            _ = tick.tick(), if sending => match pieces.next() {
                Some(piece) => socket.send(&append(piece)).await?,
                None => sending = false,
            },
            message = socket.json() => {
                let message = message?;
                ensure!(message["type"] != "error", "{message}");
                found += usize::from(message["type"] == last);
                got.push((Instant::now(), message));
            }
        }
    }
    Ok(got)
}

const DELTA: &str = "conversation.item.input_audio_transcription.delta";
const COMPLETED: &str = "conversation.item.input_audio_transcription.completed";

#[tokio::test]
async fn openai_realtime_transcribes_while_it_is_spoken() -> Result<()> {
    let stack = Stack::start(options("stream-realtime")).await?;
    let mut socket = realtime(&stack, json!({"type": "server_vad", "silence_duration_ms": 500})).await?;
    let (first, second) = (spoken(SENTENCE)?, spoken(OTHER)?);
    let audio = [silence(0.5), first.clone(), silence(1.2), second, silence(1.2)].concat();
    let began = Instant::now();
    let got = talk(&mut socket, &audio, COMPLETED, 2).await?;

    let of = |kind: &str| -> Vec<&Value> {
        got.iter().filter(|(_, message)| message["type"] == kind).map(|(_, message)| message).collect()
    };
    let completed = of(COMPLETED);
    for (message, sentence) in completed.iter().zip([SENTENCE, OTHER]) {
        let error = word_error(sentence, text(message, "transcript"));
        ensure!(error <= 0.3, "word error {error:.2}: {message}");
        ensure!(message["usage"]["seconds"].as_f64().is_some_and(|seconds| seconds > 1.0), "{message}");
    }
    let started = of("input_audio_buffer.speech_started");
    let stopped = of("input_audio_buffer.speech_stopped");
    let committed = of("input_audio_buffer.committed");
    ensure!((started.len(), stopped.len(), committed.len()) == (2, 2, 2), "{got:?}");
    ensure!(committed[1]["previous_item_id"] == committed[0]["item_id"], "{committed:?}");
    for at in 0..2 {
        let item = &started[at]["item_id"];
        ensure!(
            [stopped[at], committed[at], completed[at]].iter().all(|event| event["item_id"] == *item),
            "{got:?}"
        );
        let (from, to) = (started[at]["audio_start_ms"].as_u64(), stopped[at]["audio_end_ms"].as_u64());
        ensure!(from < to, "{started:?} {stopped:?}");
        // What deltas said is part of the end of it, and nothing is said twice.
        let mine = of(DELTA).into_iter().filter(|delta| delta["item_id"] == *item);
        let deltas: String = mine.map(|delta| text(delta, "delta")).collect();
        let error = word_error(text(completed[at], "transcript"), &deltas);
        ensure!(error <= 0.5, "the deltas {deltas:?} are not {:?}", completed[at]["transcript"]);
    }
    let from = started[0]["audio_start_ms"].as_u64().unwrap_or_default();
    ensure!((100..=900).contains(&from), "speech began after 500 ms, found at {from} ms less its padding");

    let at = |kind: &str| got.iter().find(|(_, message)| message["type"] == kind).map(|(at, _)| *at - began);
    let speech_end = Duration::from_secs_f64(0.5 + first.len() as f64 / 16_000.0);
    println!(
        "first delta {:?} and completed {:?} after the start, speech from 0.5 s to {speech_end:?}",
        at(DELTA),
        at(COMPLETED),
    );
    stack.stop().await
}

#[tokio::test]
async fn openai_realtime_answers_whatever_a_client_sends() -> Result<()> {
    let stack = Stack::start(options("stream-errors")).await?;
    let mut socket = realtime(&stack, Value::Null).await?;
    for (message, code, param) in [
        (
            json!({"type": "input_audio_buffer.commit", "event_id": "mine"}),
            "input_audio_buffer_commit_empty",
            Value::Null,
        ),
        (json!({"type": "input_audio_buffer.append", "audio": "*"}), "invalid_value", json!("audio")),
        (json!({"type": "input_audio_buffer.append"}), "invalid_value", json!("audio")),
        (json!({"type": "nothing"}), "invalid_value", json!("type")),
        (json!({"type": 7}), "invalid_value", json!("type")),
        (json!({"type": "session.update", "session": {"type": "x"}}), "invalid_value", json!("session.type")),
        (json!({"type": "response.create"}), "invalid_value", json!("response.input")),
        (json!({"type": "response.cancel"}), "response_cancel_not_active", Value::Null),
        (json!([1]), "invalid_json", Value::Null),
    ] {
        socket.send(&message).await?;
        let error = socket.until("error").await?.pop().context("no error")?;
        ensure!(error["error"]["code"] == code && error["error"]["param"] == param, "{message}: {error}");
    }
    socket.send_text("{").await?;
    let error = socket.json().await?;
    ensure!(error["error"]["code"] == "invalid_json", "{error}");
    socket.send_binary(vec![0; 10]).await?;
    let error = socket.json().await?;
    ensure!(error["error"]["param"] == "type", "{error}");

    // Audio that is cut within its samples is the same audio.
    let bytes = pcm16(&spoken(SENTENCE)?);
    for piece in bytes.chunks(7_777) {
        socket.send(&json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(piece)})).await?;
    }
    socket.send(&json!({"type": "input_audio_buffer.commit"})).await?;
    let completed = socket.until(COMPLETED).await?.pop().context("no text")?;
    ensure!(word_error(SENTENCE, text(&completed, "transcript")) <= 0.2, "{completed}");

    // Little audio, and silence, are answered too.
    for samples in [100, 16_000] {
        socket.send(&append(&vec![0; samples])).await?;
        socket.send(&json!({"type": "input_audio_buffer.commit"})).await?;
        socket.until(COMPLETED).await?;
    }
    socket.send(&append(&[0; 1_600])).await?;
    socket.send(&json!({"type": "input_audio_buffer.clear"})).await?;
    socket.until("input_audio_buffer.cleared").await?;

    let big = "A".repeat(17 << 20);
    // The server closes before all of it is taken.
    let _ = socket.send_text(json!({"type": "input_audio_buffer.append", "audio": big}).to_string()).await;
    let (code, _) = socket.closed().await?;
    ensure!(code == 1009, "{code}");

    let plain = stack.client.get(REALTIME).await?;
    ensure!(plain.status == 426, "{} {}", plain.status, plain.text());
    for (path, status) in [
        ("/v1/realtime?model=none", "404"),
        ("/v1/realtime?intent=x", "400"),
        ("/v1/listen?encoding=opus", "400"),
    ] {
        let refused = Socket::connect(&stack.url, path, &[]).await.err().map(|error| error.to_string());
        ensure!(refused.as_ref().is_some_and(|refused| refused.contains(status)), "{path}: {refused:?}");
    }
    stack.stop().await
}

#[tokio::test]
async fn a_client_secret_opens_the_session_it_was_made_for() -> Result<()> {
    let stack = Stack::start(options("stream-secret")).await?;
    let body = json!({"expires_after": {"anchor": "created_at", "seconds": 60}, "session": {
        "type": "transcription", "audio": {"input": {"turn_detection": null, "transcription": {"model": "whisper-1"}}},
    }});
    let made = stack.client.post("/v1/realtime/client_secrets", &body).await?.json()?;
    ensure!(made["session"]["audio"]["input"]["turn_detection"].is_null(), "{made}");
    let key = text(&made, "value");
    ensure!(key.starts_with("ek_") && made["expires_at"].is_u64(), "{made}");
    let offered = format!("realtime, openai-insecure-api-key.{key}");
    let mut socket =
        Socket::connect(&stack.url, "/v1/realtime", &[("sec-websocket-protocol", &offered)]).await?;
    ensure!(socket.protocol.as_deref() == Some("realtime"), "{:?}", socket.protocol);
    let created = socket.json().await?;
    let input = &created["session"]["audio"]["input"];
    ensure!(created["session"]["type"] == "transcription" && input["turn_detection"].is_null(), "{created}");
    let refused = Socket::connect(&stack.url, "/v1/realtime", &[("authorization", "Bearer ek_e30")]).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("401")));
    let wrong = stack.client.post("/v1/realtime/client_secrets", &json!({"session": {"type": 1}})).await?;
    ensure!(wrong.status == 400, "{}", wrong.text());
    stack.stop().await
}

#[tokio::test]
async fn a_response_speaks_its_text_as_it_stands() -> Result<()> {
    let stack = Stack::start(options("stream-response")).await?;
    let mut socket = Socket::connect(&stack.url, "/v1/realtime?model=gpt-realtime", &[]).await?;
    socket.until("session.created").await?;
    let session = json!({"type": "realtime", "output_modalities": ["audio"], "instructions": "Read aloud.",
        "audio": {"output": {"voice": "alloy", "format": {"type": "audio/pcm", "rate": 24000}}}, "tool_choice": "none"});
    socket.send(&json!({"type": "session.update", "session": session})).await?;
    socket.until("session.updated").await?;
    let create = |text: &str| {
        json!({"type": "response.create", "response": {
            "conversation": "none", "output_modalities": ["audio"],
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}],
        }})
    };
    socket.send(&create(SENTENCE)).await?;
    let events = socket.until("response.done").await?;
    let created = events.first().context("no events")?;
    ensure!(created["type"] == "response.created" && created["response"]["id"].is_string(), "{created}");
    let deltas = events.iter().filter(|event| event["type"] == "response.output_audio.delta");
    let audio: Vec<u8> =
        deltas.map(|event| STANDARD.decode(text(event, "delta"))).collect::<Result<Vec<_>, _>>()?.concat();
    let measure = Measure::of_pcm(&audio, 24_000);
    ensure!((1.0..6.0).contains(&measure.seconds) && measure.level > 0.01, "{measure:?}");
    let transcript = events.iter().find(|event| event["type"] == "response.output_audio_transcript.done");
    ensure!(transcript.is_some_and(|done| done["transcript"] == SENTENCE), "{transcript:?}");
    let done = events.last().context("no events")?;
    ensure!(done["response"]["status"] == "completed", "{done}");

    // A long one is cancelled: the next one is spoken soon.
    socket.send(&create(&format!("{SENTENCE} ").repeat(40))).await?;
    socket.until("response.output_audio.delta").await?;
    socket.send(&json!({"type": "response.cancel"})).await?;
    let done = socket.until("response.done").await?.pop().context("no end")?;
    ensure!(done["response"]["status"] == "cancelled", "{done}");
    socket.send(&create("Good morning.")).await?;
    let done = socket.until("response.done").await?.pop().context("no end")?;
    ensure!(done["response"]["status"] == "completed", "{done}");
    stack.stop().await
}

/// Without an end of its call the engine would speak on for many seconds.
#[tokio::test]
async fn a_client_that_interrupts_frees_the_engine() -> Result<()> {
    let mut speech = Interrupted::start("stream-barge").await?;
    for cut in CUTS {
        let taken = speech.freed(cut).await?;
        println!("the engine was free {taken:?} after {cut}");
        ensure!(taken < Duration::from_secs(2), "the engine was free {taken:?} after {cut}");
    }
    speech.stop().await
}

#[tokio::test]
async fn wrapper_clients_never_see_each_others_text() -> Result<()> {
    let stack = Stack::start(options("stream-wrapper")).await?;
    let mut sockets = Vec::new();
    for sentence in [SENTENCE, OTHER] {
        let mut socket = Socket::connect(&stack.url, "/ws", &[]).await?;
        let audio = pcm16(&[silence(0.3), spoken(sentence)?, silence(1.0)].concat());
        // Pieces of no whole frame, and of no whole sample.
        for piece in audio.chunks(3_333) {
            socket.send_binary(piece.to_vec()).await?;
        }
        sockets.push((socket, sentence));
    }
    for (socket, sentence) in &mut sockets {
        let queued = socket.json().await?;
        ensure!(queued == json!({"status": "queued"}), "{queued}");
        let mut heard = String::new();
        // A pause may have made two utterances of one sentence.
        while word_error(sentence, &heard) > 0.3 {
            let message = socket.json().await?;
            ensure!(message["error"].is_null(), "{message}");
            heard = format!("{heard} {}", text(&message, "text"));
        }
    }
    stack.stop().await
}

#[tokio::test]
async fn deepgram_clients_get_interim_and_final_results() -> Result<()> {
    let stack = Stack::start(options("stream-deepgram")).await?;
    let path = "/v1/listen?model=nova-3&encoding=linear16&sample_rate=16000&interim_results=true&vad_events=true&endpointing=500";
    let mut socket =
        Socket::connect(&stack.url, path, &[("sec-websocket-protocol", "token, secret")]).await?;
    ensure!(socket.protocol.as_deref() == Some("token"), "{:?}", socket.protocol);
    socket.send(&json!({"type": "KeepAlive"})).await?;
    let audio = [silence(0.3), spoken(SENTENCE)?, silence(1.0), spoken(OTHER)?].concat();
    for piece in audio.chunks(1_600) {
        socket.send_binary(pcm16(piece)).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    socket.send(&json!({"type": "CloseStream"})).await?;
    let (mut finals, mut interims, mut started, mut metadata) = (Vec::new(), 0, 0, Value::Null);
    let code = loop {
        match socket.next().await? {
            Got::Closed(code, _) => break code,
            Got::Json(message) => match text(&message, "type") {
                "Results" if message["is_final"] == true => finals.push(message),
                "Results" => interims += 1,
                "SpeechStarted" => started += 1,
                "Metadata" => metadata = message,
                other => anyhow::bail!("{other}: {message}"),
            },
        }
    };
    ensure!(code == 1000 && metadata["request_id"].is_string(), "{code} {metadata}");
    ensure!(interims > 0 && started >= 2, "{interims} interim results, {started} starts");
    let heard: Vec<&str> =
        finals.iter().map(|message| text(&message["channel"]["alternatives"][0], "transcript")).collect();
    let error = word_error(&format!("{SENTENCE} {OTHER}"), &heard.join(" "));
    ensure!(error <= 0.3, "word error {error:.2}: {heard:?}");
    let mut behind = 0.0;
    for word in
        finals.iter().flat_map(|message| message["channel"]["alternatives"][0]["words"].as_array()).flatten()
    {
        let (start, end) = (word["start"].as_f64().unwrap_or(-1.0), word["end"].as_f64().unwrap_or(-1.0));
        ensure!(
            start >= behind - 0.2 && end >= start && end <= audio.len() as f64 / 16_000.0 + 0.2,
            "{word}"
        );
        behind = start;
    }
    stack.stop().await
}

#[tokio::test]
async fn tldw_clients_get_segments_and_the_whole_transcript() -> Result<()> {
    let stack = Stack::start(options("stream-tldw")).await?;
    let status = stack.client.get("/api/v1/audio/stream/status").await?.json()?;
    ensure!(status["status"] == "available", "{status}");
    for (path, confirms) in [("/api/v1/audio/stream/transcribe", false), ("/core/parakeet/stream", true)] {
        let mut socket = Socket::connect(&stack.url, path, &[]).await?;
        let config = json!({"type": "config", "sample_rate": 16000, "chunk_duration": 4.0, "overlap_duration": 1.0,
            "enable_partial": true});
        socket.send(&config).await?;
        socket.send(&json!({"type": "ping"})).await?;
        let first = socket.json().await?;
        if confirms {
            ensure!(first == json!({"type": "status", "state": "configured"}), "{first}");
            socket.until("pong").await?;
        } else {
            ensure!(first["type"] == "pong", "{first}");
        }
        socket.send(&json!({"type": "audio"})).await?;
        let error = socket.json().await?;
        ensure!(error["message"] == "Missing audio payload", "{error}");

        let samples = [spoken(SENTENCE)?, spoken(OTHER)?].concat();
        let floats: Vec<u8> =
            samples.iter().flat_map(|sample| (f32::from(*sample) / 32_768.0).to_le_bytes()).collect();
        for piece in floats.chunks(16_000) {
            socket.send(&json!({"type": "audio", "data": STANDARD.encode(piece)})).await?;
        }
        socket.send(&json!({"type": "commit"})).await?;
        let got = socket.until("full_transcript").await?;
        let finals: Vec<&Value> = got.iter().filter(|message| message["type"] == "final").collect();
        ensure!(
            finals[0]["segment_id"] == 1 && finals[0]["chunk_end"] == 4.0 && finals[0]["overlap"] == 0.0,
            "{finals:?}"
        );
        ensure!(
            finals[1]["chunk_start"] == 3.0
                && finals[1]["segment_start"] == 4.0
                && finals[1]["overlap"] == 1.0,
            "{finals:?}"
        );
        let seconds = samples.len() as f64 / 16_000.0;
        let end = finals.last().and_then(|last| last["cumulative_audio"].as_f64()).unwrap_or_default();
        ensure!((end - seconds).abs() < 0.01, "{end}, and {seconds} s were sent");
        let full = got.last().map(|message| text(message, "text")).unwrap_or_default();
        let error = word_error(&format!("{SENTENCE} {OTHER}"), full);
        println!("{path}: word error {error:.2}, {full:?}");
        ensure!(error <= 0.5, "word error {error:.2}: {full:?}");
        socket.send(&json!({"type": "reset"})).await?;
        socket.until("status").await?;
        socket.send(&json!({"type": "stop"})).await?;
        let (code, _) = socket.closed().await?;
        ensure!(code == 1000, "{code}");
    }
    stack.stop().await
}

#[tokio::test]
async fn openais_and_nvidias_own_clients_work() -> Result<()> {
    contract("stream-clients", "realtime.py").await
}

/// Runs a contract of `e2e/sdk/` against a stack of its own.
async fn contract(name: &str, script: &str) -> Result<()> {
    let python = repository().join(".venv/bin/python");
    ensure!(python.exists(), "{} is missing: `make sdks` makes it", python.display());
    let stack = Stack::start(options(name)).await?;
    let folder = tempfile::tempdir()?;
    let clip = folder.path().join("clip.wav");
    say_into(&clip, &[("rms", SENTENCE)])?;
    let output = tokio::process::Command::new(&python)
        .arg(repository().join("e2e/sdk").join(script))
        .env("SPEECHSTACK_URL", &stack.url)
        .env("SPEECHSTACK_CLIP", &clip)
        .env("SPEECHSTACK_WORD", "train")
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output()
        .await?;
    let shown =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{shown}");
    ensure!(output.status.success(), "the contract does not hold:\n{shown}");
    stack.stop().await
}

#[tokio::test]
async fn a_stop_lets_sessions_say_goodbye() -> Result<()> {
    let stack = Stack::start(options("stream-drain")).await?;
    let mut socket = realtime(&stack, Value::Null).await?;
    let mut tldw = Socket::connect(&stack.url, "/core/parakeet/stream", &[]).await?;
    socket.send(&append(&spoken(SENTENCE)?)).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stopping = tokio::spawn(stack.stop());
    // What was said before is still transcribed.
    let completed = socket.until(COMPLETED).await?.pop().context("no text")?;
    ensure!(word_error(SENTENCE, text(&completed, "transcript")) <= 0.3, "{completed}");
    let goodbye = socket.until("error").await?.pop().context("no goodbye")?;
    ensure!(goodbye["error"]["code"] == "server_shutdown", "{goodbye}");
    ensure!(socket.closed().await?.0 == 1012);
    ensure!(tldw.closed().await? == (1013, "shutdown_draining".to_owned()));
    stopping.await?
}
