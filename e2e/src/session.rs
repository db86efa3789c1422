//! A client of a realtime transcription session that speaks at the pace of speech.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::websocket::{Got, Socket};

/// Samples per second of what is spoken.
pub const RATE: usize = 16_000;
/// Where transcription sessions of OpenAI's realtime API are.
pub const REALTIME: &str = "/v1/realtime?intent=transcription";
/// Text that is added.
pub const DELTA: &str = "conversation.item.input_audio_transcription.delta";
/// The last text of a segment.
pub const COMPLETED: &str = "conversation.item.input_audio_transcription.completed";
/// A segment without a text.
const FAILED: &str = "conversation.item.input_audio_transcription.failed";
/// Audio of a message.
const PIECE: Duration = Duration::from_millis(100);
/// Silence after which a segment ends, milliseconds.
const SILENCE_MS: u64 = 500;
/// Silence around what is said, seconds: before it, and after it so that its segment ends.
const AROUND: (f64, f64) = (0.2, 0.9);

/// The 16 kHz samples of a WAV file.
///
/// # Errors
/// When it has none.
pub fn samples(file: &Bytes) -> Result<Vec<i16>> {
    let at = file.windows(4).position(|four| four == b"data").context("no samples in the file")?;
    Ok(file[at + 8..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
}

/// So many seconds of silence.
pub fn silence(seconds: f64) -> Vec<i16> {
    vec![0; (seconds * RATE as f64) as usize]
}

/// The message that carries samples.
pub fn append(samples: &[i16]) -> Value {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(bytes)})
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    socket: Socket,
}

/// What came of something that was said.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The text, of all segments that it was taken for.
    pub text: String,
    /// Longest time from the end of a segment to its text.
    pub gap: Duration,
}

impl Session {
    /// Opens a session of a stack at `url`, whose segments end by silence.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn open(url: &str) -> Result<Self> {
        let mut socket = Socket::connect(url, REALTIME, &[]).await?;
        socket.until("session.created").await?;
        let input = json!({
            "format": {"type": "audio/pcm", "rate": RATE},
            "transcription": {"model": "parakeet", "language": "en"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": SILENCE_MS},
        });
        let session = json!({"type": "transcription", "audio": {"input": input}});
        socket.send(&json!({"type": "session.update", "session": session})).await?;
        socket.until("session.updated").await?;
        Ok(Self { socket })
    }

    /// Says something with silence around it, and waits for its text.
    ///
    /// # Errors
    /// When the session ends, a segment gets no text, or nothing comes in time.
    pub async fn say(&mut self, samples: &[i16]) -> Result<Heard> {
        let audio = [silence(AROUND.0), samples.to_vec(), silence(AROUND.1)].concat();
        let mut pieces = audio.chunks((RATE as f64 * PIECE.as_secs_f64()) as usize);
        let mut tick = interval(PIECE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sending = true;
        let (mut began, mut ended, mut heard) = (0, Vec::new(), Heard::default());
        let mut answered = 0;
        while sending || began == 0 || began > ended.len() || ended.len() > answered {
            let message = tokio::select! {
                _ = tick.tick(), if sending => {
                    match pieces.next() {
                        Some(piece) => self.socket.send(&append(piece)).await?,
                        None => sending = false,
                    }
                    continue;
                }
                message = self.socket.json() => message?,
            };
            match message["type"].as_str().unwrap_or_default() {
                "error" | FAILED => bail!("{message}"),
                "input_audio_buffer.speech_started" => began += 1,
                "input_audio_buffer.committed" => ended.push(Instant::now()),
                COMPLETED => {
                    let since = ended.get(answered).context("a text before the end of its segment")?;
                    heard.gap = heard.gap.max(since.elapsed());
                    let text = message["transcript"].as_str().unwrap_or_default();
                    heard.text = format!("{} {text}", heard.text).trim().to_owned();
                    answered += 1;
                }
                _ => {}
            }
        }
        ensure!(answered == began, "{began} segments and {answered} texts");
        Ok(heard)
    }

    /// Says nothing until a moment, and answers the server's pings.
    ///
    /// # Errors
    /// When the session ends, or a text comes of nothing.
    pub async fn rest(&mut self, until: Instant) -> Result<()> {
        while let Ok(got) = timeout_at(until, self.socket.arrives()).await {
            match got? {
                Got::Json(message)
                    if ["error", FAILED, COMPLETED].iter().all(|bad| message["type"] != *bad) => {}
                other => bail!("{other:?} came of nothing"),
            }
        }
        Ok(())
    }

    /// Whether the session still answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&mut self) -> Result<()> {
        self.socket.send(&json!({"type": "input_audio_buffer.clear"})).await?;
        self.socket.until("input_audio_buffer.cleared").await.map(|_| ())
    }

    /// Says the first half of something, waits, and leaves without a word.
    ///
    /// # Errors
    /// When the session ends before that.
    pub async fn leave(mut self, samples: &[i16], wait: Duration) -> Result<()> {
        for piece in samples[..samples.len() / 2].chunks(RATE / 10) {
            self.socket.send(&append(piece)).await?;
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
