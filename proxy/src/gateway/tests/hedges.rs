//! A client whose engine hangs is answered by another one, and the log says so.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use contract::Capability;

use crate::gateway::tests::stack::{Stack, form, samples, wav};

/// How long a hung engine keeps a job.
const FOREVER: Duration = Duration::from_secs(3600);
/// Far less than what is waited for an engine that no other one replaces.
const SOON: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_clip_on_a_hung_engine_is_answered_by_the_other_one() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let stack = Stack::with(&[Capability::Stt, Capability::Stt], |_| {}).await;
    *stack.engines[0].pace.lock() = FOREVER;
    let mut slowest = Duration::ZERO;
    while stack.engines[0].begun() == 0 {
        let begun = Instant::now();
        assert_eq!(stack.transcribe(&[("model", "whisper-1")]).await.status(), 200);
        slowest = slowest.max(begun.elapsed());
    }
    println!("the slowest clip took {slowest:?}");
    assert!(slowest >= Duration::from_secs(1) && slowest < SOON, "{slowest:?}");
    assert_eq!(stack.counted("speechstack_hedges_total", "won"), 1.0);
    let log = String::from_utf8(lines.0.lock().clone()).unwrap();
    let ended: Vec<&str> = log.lines().filter(|line| line.contains("request ended")).collect();
    assert_eq!(ended.iter().filter(|line| line.contains("hedged=true")).count(), 1, "{log}");
    assert!(ended.last().unwrap().contains("engine=stt-1"), "{log}");
    // The engine that owes an answer gets few more of them.
    for _ in 0..10 {
        assert_eq!(stack.transcribe(&[]).await.status(), 200);
    }
    assert!(stack.engines[0].begun() <= 4, "{} of 11", stack.engines[0].begun());
}

#[tokio::test]
async fn speech_that_a_hung_engine_does_not_begin_comes_from_the_other_one() {
    let stack = Stack::with(&[Capability::Tts, Capability::Tts], |config| {
        config.gateway.hedge.after = Duration::from_millis(100);
    })
    .await;
    *stack.engines[0].pace.lock() = FOREVER;
    while stack.engines[0].begun() == 0 {
        let begun = Instant::now();
        let request = json!({"model": "tts-1", "input": "Hi.", "voice": "alloy", "response_format": "pcm"});
        assert_eq!(stack.speak(request).await.bytes().await.unwrap(), samples());
        assert!(begun.elapsed() < SOON);
    }
    assert_eq!(stack.counted("speechstack_hedges_total", "won"), 1.0);
}

#[tokio::test]
async fn speaker_turns_of_a_hung_engine_come_from_the_other_one() {
    let stack = Stack::with(&[Capability::Stt, Capability::Stt], |config| {
        config.gateway.hedge.after = Duration::from_millis(100);
    })
    .await;
    *stack.engines[0].pace.lock() = FOREVER;
    let request = stack.post("/api/audio/transcribe-with-speakers").multipart(form(&[], wav(32_000)));
    let begun = Instant::now();
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert!(begun.elapsed() < SOON);
    assert_eq!(stack.engines[0].begun(), 1);
    assert_eq!(stack.engines[1].complete(), 2);
}
