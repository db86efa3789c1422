//! Figures of streaming sessions: how late their texts are, what a session costs, and what a wedge costs it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use speechstack_e2e::audio::Measure;
use speechstack_e2e::client::say;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions, quick_policy};
use speechstack_e2e::websocket::Socket;
use speechstack_e2e::words::{normalise, word_error};

use crate::barge;
use crate::meter::{cpu_ns, median, median_ratio, percentile, resident_kib};
use crate::report::Table;
use crate::subject;

const SENTENCES: [(&str, &str); 6] = [
    ("rms", "She told me that the train was late again."),
    ("slt", "Please open the window and turn off the light."),
    ("rms", "The government will announce the new budget next week."),
    ("slt", "Please call me back tomorrow morning at nine."),
    ("rms", "I think it will cost a lot of money."),
    ("slt", "We walked along the river until the sun went down."),
];
const REALTIME: &str = "/v1/realtime?intent=transcription";
const DELTA: &str = "conversation.item.input_audio_transcription.delta";
const COMPLETED: &str = "conversation.item.input_audio_transcription.completed";
/// Samples per second of what is spoken.
const RATE: usize = 16_000;
/// Silence that ends a segment, milliseconds.
const SILENCE_MS: u64 = 500;
/// Silence before speech, seconds.
const LEAD: f64 = 0.5;
/// Sessions that send audio at a time.
const SPEAKING: usize = 32;
/// How long they do.
const SPEAKING_TIME: Duration = Duration::from_secs(8);
/// Rounds of the relay against the raw one.
const ROUNDS: usize = 3;
const FRAME: Duration = Duration::from_millis(20);

/// Runs all of them; `idle` sessions are held open at a time.
pub async fn all(idle: usize) -> Result<Table> {
    let mut table = Table::default();
    latency(&mut table, "offline engine", &[]).await?;
    latency(&mut table, "engine that streams", &["nim_realtime", "nim_http"]).await?;
    barge::row(&mut table).await?;
    for mode in ["F1", "F7"] {
        wedge(&mut table, mode).await?;
    }
    relay(&mut table).await?;
    voice(&mut table).await?;
    held(&mut table, idle).await?;
    Ok(table)
}

fn engine(name: &str, protocols: &'static [&'static str]) -> EngineOptions {
    EngineOptions { protocols, ..EngineOptions::new(name, "stt") }
}

/// Level from which on sound is speech.
const LOUD: i16 = 500;

/// 16 kHz samples of a sentence, from its first sound to its last, and the file.
fn spoken((voice, text): (&'static str, &'static str)) -> Result<(Vec<i16>, bytes::Bytes)> {
    let file = say(&[(voice, text)])?;
    ensure!(Measure::of_file(file.clone())?.seconds > 0.5, "nothing was said");
    let at = file.windows(4).position(|four| four == b"data").context("no samples in the file")?;
    let samples = file[at + 8..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
    let samples: Vec<i16> = samples.collect();
    let is_loud = |sample: &i16| sample.unsigned_abs() > LOUD.unsigned_abs();
    let first = samples.iter().position(is_loud).context("nothing was said")?;
    let last = samples.iter().rposition(is_loud).context("nothing was said")?;
    Ok((samples[first..=last].to_vec(), file))
}

fn silence(seconds: f64) -> Vec<i16> {
    vec![0; (seconds * RATE as f64) as usize]
}

fn append(samples: &[i16]) -> Value {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(bytes)})
}

async fn realtime(stack: &Stack) -> Result<Socket> {
    let mut socket = Socket::connect(&stack.url, REALTIME, &[]).await?;
    socket.until("session.created").await?;
    let input = json!({
        "format": {"type": "audio/pcm", "rate": RATE},
        "transcription": {"model": "parakeet", "language": "en"},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": SILENCE_MS},
    });
    socket
        .send(&json!({"type": "session.update", "session": {"type": "transcription", "audio": {"input": input}}}))
        .await?;
    socket.until("session.updated").await?;
    Ok(socket)
}

/// What came of a sentence that was spoken at its pace: seconds from the start of speech to the first text, seconds from its
/// end to the last one, the texts so far joined, and the last one.
struct Heard {
    first: Option<f64>,
    last: f64,
    deltas: String,
    text: String,
}

/// Speaks a sentence into a session; `half` is called in its middle.
async fn speak(
    socket: &mut Socket,
    samples: &[i16],
    mut half: impl AsyncFnMut() -> Result<()>,
) -> Result<Heard> {
    let audio = [silence(LEAD), samples.to_vec(), silence(1.5)].concat();
    let middle = (LEAD * RATE as f64) as usize + samples.len() / 2;
    let mut pieces = audio.chunks(RATE / 10).enumerate();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let (began, mut halved) = (Instant::now(), false);
    let end = LEAD + samples.len() as f64 / RATE as f64;
    let mut heard = Heard { first: None, last: 0.0, deltas: String::new(), text: String::new() };
    loop {
        tokio::select! {
            _ = tick.tick() => if let Some((at, piece)) = pieces.next() {
                if !halved && at * (RATE / 10) >= middle {
                    halved = true;
                    half().await?;
                }
                socket.send(&append(piece)).await?;
            },
            message = socket.json() => {
                let (message, at) = (message?, began.elapsed().as_secs_f64());
                ensure!(message["type"] != "error", "{message}");
                if message["type"] == DELTA {
                    heard.first.get_or_insert(at - LEAD);
                    heard.deltas += message["delta"].as_str().unwrap_or_default();
                } else if message["type"] == COMPLETED {
                    let text = message["transcript"].as_str().unwrap_or_default();
                    heard.text = format!("{} {text}", heard.text).trim().to_owned();
                    heard.last = at - end;
                    // A pause may have made two segments of one sentence.
                    if at >= end {
                        return Ok(heard);
                    }
                }
            }
        }
    }
}

async fn latency(table: &mut Table, what: &str, protocols: &'static [&'static str]) -> Result<()> {
    let engines = vec![engine("asr-0", protocols)];
    let name = if protocols.is_empty() { "bench-offline" } else { "bench-native" };
    let stack = Stack::start(StackOptions { engines, ..StackOptions::new(name) }).await?;
    let (mut firsts, mut lasts, mut streamed, mut offline, mut decodes) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut violations, mut changed, mut words, mut interims) = (0, 0, 0, Vec::new());
    let mut socket = realtime(&stack).await?;
    for sentence in SENTENCES {
        let (samples, file) = spoken(sentence)?;
        let heard = speak(&mut socket, &samples, async || Ok(())).await?;
        firsts.extend(heard.first);
        lasts.push(heard.last);
        streamed.push(word_error(sentence.1, &heard.text));
        let (said, last) = (normalise(&heard.deltas), normalise(&heard.text));
        violations += usize::from(!last.starts_with(&said[..said.len().min(last.len())]));
        let began = Instant::now();
        let reply = stack.client.transcribe("clip.wav", file, "json").await?.json()?;
        decodes.push(began.elapsed().as_secs_f64());
        offline.push(word_error(sentence.1, reply["text"].as_str().unwrap_or_default()));
        let shown = interim(&stack, &samples).await?;
        interims.extend(shown.first);
        (changed, words) = (changed + shown.changed, words + shown.words);
    }
    stack.stop().await?;
    let mean = |errors: &[f64]| 100.0 * errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    let goal = SILENCE_MS as f64 / 1000.0 + percentile(&decodes, 0.95) + 0.1;
    let row = |what: &str, of: &str| format!("{what}, {of}");
    table.row(
        &row("first interim text, p50", what),
        format!("{:.2} s", median(&interims)),
        format!("{:.2} s first text that stays", median(&firsts)),
        None,
        "<= 0.70 s",
    );
    let last = percentile(&lasts, 0.95);
    table.row(
        &row("last text after the end of speech, p95", what),
        format!("{last:.2} s"),
        format!("{goal:.2} s"),
        Some(last / goal),
        "<= silence + decode + 0.1 s",
    );
    table.row(&row("committed words revised", what), violations.to_string(), "-".into(), None, "0");
    let churn = 100.0 * changed as f64 / words.max(1) as f64;
    table.row(&row("churn", what), format!("{churn:.1} %"), "-".into(), None, "<= 10 %");
    let (of_stream, of_file) = (mean(&streamed), mean(&offline));
    table.row(
        &row("word errors", what),
        format!("{of_stream:.1} %"),
        format!("{of_file:.1} % offline"),
        None,
        "<= offline + 2 points",
    );
    Ok(())
}

/// What a client sees of interim texts, which later ones replace.
#[derive(Default)]
struct Shown {
    /// Seconds from the start of speech to the first text.
    first: Option<f64>,
    /// Words that a later text took back.
    changed: usize,
    /// Words of the last texts.
    words: usize,
}

/// Speaks a sentence to a client of interim texts.
async fn interim(stack: &Stack, samples: &[i16]) -> Result<Shown> {
    let mut socket =
        Socket::connect(&stack.url, "/v1/listen?interim_results=true&sample_rate=16000", &[]).await?;
    let audio = [silence(LEAD), samples.to_vec(), silence(1.0)].concat();
    let (mut before, mut shown): (Vec<String>, Shown) = (Vec::new(), Shown::default());
    let began = Instant::now();
    let mut pieces = audio.chunks(RATE / 10);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut closing = false;
    loop {
        tokio::select! {
            _ = tick.tick(), if !closing => match pieces.next() {
                Some(piece) => {
                    let bytes: Vec<u8> = piece.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                    socket.send_binary(bytes).await?;
                }
                None => {
                    closing = true;
                    socket.send(&json!({"type": "CloseStream"})).await?;
                }
            },
            message = socket.json() => {
                let message = message?;
                if message["type"] == "Metadata" {
                    return Ok(shown);
                }
                let text = &message["channel"]["alternatives"][0]["transcript"];
                let now = normalise(text.as_str().unwrap_or_default());
                let kept = before.iter().zip(&now).take_while(|(one, other)| one == other).count();
                shown.changed += before.len() - kept;
                if !now.is_empty() {
                    shown.first.get_or_insert_with(|| began.elapsed().as_secs_f64() - LEAD);
                }
                before = now;
                if message["is_final"] == true {
                    shown.words += std::mem::take(&mut before).len();
                }
            }
        }
    }
}

/// How late the text of a sentence is whose engine is wedged in its middle, while another one lives.
async fn wedge(table: &mut Table, mode: &str) -> Result<()> {
    let engines = vec![engine("asr-0", &["nim_realtime"]), engine("asr-1", &["nim_realtime"])];
    let name = format!("bench-wedge-{}", mode.to_lowercase());
    let stack =
        Stack::start(StackOptions { engines, guard: quick_policy(), ..StackOptions::new(&name) }).await?;
    let (mut gaps, mut errors) = (Vec::new(), Vec::new());
    let mut socket = realtime(&stack).await?;
    for (at, sentence) in SENTENCES.into_iter().enumerate() {
        let (samples, _) = spoken(sentence)?;
        let wedged = ["asr-0", "asr-1"][at % 2];
        let arm = json!({"mode": mode});
        let heard = speak(&mut socket, &samples, async || stack.arm(wedged, &arm).await).await?;
        gaps.push(heard.last);
        errors.push(word_error(sentence.1, &heard.text));
        stack.disarm(wedged).await.ok();
        stack.healthy().await?;
    }
    stack.stop().await?;
    let worst = percentile(&gaps, 0.95);
    table.row(
        &format!("text of a sentence wedged by {mode} in its middle, p95"),
        format!("{worst:.2} s"),
        format!("p50 {:.2} s", median(&gaps)),
        None,
        "<= 3 s",
    );
    let mean = 100.0 * errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    table.row(&format!("word errors under {mode}"), format!("{mean:.1} %"), "-".into(), None, "as without");
    Ok(())
}

/// CPU of a guard per message of a conversation, against a relay of bytes.
async fn relay(table: &mut Table) -> Result<()> {
    let engines = vec![engine("asr-0", &["nim_realtime"])];
    let guard = json!({"lane": {"max_streams": 4 * SPEAKING}, "probe": {"idle_period": "12h", "content_period": "12h"}});
    let stack = Stack::start(StackOptions { engines, guard, ..StackOptions::new("bench-relay") }).await?;
    let (own, guarded) = (stack.engine_address("asr-0")?, stack.guard_address("asr-0")?);
    let raw = subject::raw_relay(own)?;
    let (mut ours, mut raws) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(converse(guarded, stack.pid()).await?);
        raws.push(converse(raw.address, raw.pid()).await?);
    }
    stack.stop().await?;
    table.row(
        "guard's CPU per message of 20 ms",
        format!("{:.1} us", median(&ours)),
        format!("{:.1} us raw TCP", median(&raws)),
        Some(median_ratio(&ours, &raws)),
        "<= 1.2",
    );
    Ok(())
}

/// Microseconds of CPU that a process uses per message while sessions send silence to `address`.
async fn converse(address: SocketAddr, pid: u32) -> Result<f64> {
    let base = format!("http://{address}");
    let mut sockets = Vec::new();
    for _ in 0..SPEAKING {
        let mut socket = Socket::connect(&base, REALTIME, &[]).await?;
        socket.until("conversation.created").await?;
        sockets.push(socket);
    }
    let frame = append(&silence(FRAME.as_secs_f64())).to_string();
    let before = cpu_ns(pid)?;
    let sent = paced(&mut sockets, &Said::Text(frame)).await?;
    Ok((cpu_ns(pid)? - before) as f64 / 1000.0 / sent as f64)
}

/// A message that is sent again and again.
enum Said {
    Text(String),
    Bytes(bytes::Bytes),
}

/// Has every socket send a message each 20 ms for a while; returns how many there were.
async fn paced(sockets: &mut [Socket], said: &Said) -> Result<usize> {
    let until = Instant::now() + SPEAKING_TIME;
    let mut tick = tokio::time::interval(FRAME);
    let mut sent = 0;
    while Instant::now() < until {
        tick.tick().await;
        for socket in &mut *sockets {
            match said {
                Said::Text(text) => socket.send_text(text.clone()).await?,
                Said::Bytes(bytes) => socket.send_binary(bytes.clone()).await?,
            }
            sent += 1;
        }
    }
    Ok(sent)
}

/// Sessions that one core carries, with voice activity and resampling from 48 kHz.
async fn voice(table: &mut Table) -> Result<()> {
    let stack = Stack::start(StackOptions {
        engines: vec![engine("asr-0", &[])],
        ..StackOptions::new("bench-voice")
    })
    .await?;
    let mut sockets = Vec::new();
    for _ in 0..SPEAKING {
        sockets.push(Socket::connect(&stack.url, "/v1/listen?sample_rate=48000", &[]).await?);
    }
    // Noise: below speech, and yet every frame has to be judged.
    let noise: Vec<u8> = (0..960_u32)
        .flat_map(|at| ((at.wrapping_mul(2_654_435_761) >> 24) as i16 - 128).to_le_bytes())
        .collect();
    let (before, began) = (cpu_ns(stack.pid())?, Instant::now());
    let sent = paced(&mut sockets, &Said::Bytes(noise.into())).await?;
    let used = (cpu_ns(stack.pid())? - before) as f64;
    let seconds = sent as f64 * FRAME.as_secs_f64();
    let of_time = 100.0 * used / began.elapsed().as_nanos() as f64;
    stack.stop().await?;
    table.row(
        "sessions per core, voice activity, 48 kHz, 20 ms frames",
        format!("{:.0}", seconds * 1e9 / used),
        format!("{SPEAKING} sessions took {of_time:.0} % of a core"),
        None,
        ">= 600",
    );
    Ok(())
}

/// Memory of sessions that are open and say nothing.
async fn held(table: &mut Table, wanted: usize) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let room = usize::try_from(most.unwrap_or(1 << 20)).unwrap_or(wanted).saturating_sub(300);
    let count = wanted.min(room);
    let gateway =
        json!({"sessions": {"max": count + 10, "idle_timeout": "1h"}, "connections": {"max": count + 100}});
    let engines = vec![engine("asr-0", &[])];
    let stack = Stack::start(StackOptions { engines, gateway, ..StackOptions::new("bench-idle") }).await?;
    let before = resident_kib(stack.pid())?;
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let batch = (0..64.min(count - sockets.len())).map(|_| Socket::connect(&stack.url, "/ws", &[]));
        sockets.extend(futures::future::try_join_all(batch).await?);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = resident_kib(stack.pid())?.saturating_sub(before);
    drop(sockets);
    stack.stop().await?;
    table.row(
        &format!("memory of {count} idle sessions"),
        format!("{:.0} MB", grown as f64 / 1024.0),
        format!("{:.1} KiB each", grown as f64 / count as f64),
        None,
        "<= 300 MB, <= 24 KB each",
    );
    Ok(())
}
