//! Long files: split, heard by several engines, joined without a seam.

use std::time::Duration;

use serde_json::{Value, json};

use contract::Capability;

use crate::config::Config;
use crate::gateway::tests::stack::{DIARIZE, Stack, TRANSCRIBE, envelope, form};

const RATE: usize = 16_000;
/// Samples of a word and from the start of one to the next. Every tenth word a pause follows.
const WORD: usize = RATE * 3 / 10;
const STEP: usize = RATE / 2;
const PAUSE: usize = RATE * 6 / 10;

/// Where word `nth` begins, samples.
fn start(nth: usize) -> usize {
    RATE / 10 + nth * STEP + nth / 10 * PAUSE
}

/// Words beyond it begin anew.
const WORDS: usize = 3000;

/// A WAV file with that many words: each a buzz whose loudness is its number.
pub fn spoken(words: usize) -> Vec<u8> {
    let mut samples = vec![0_i16; start(words) + RATE / 10];
    for nth in 0..words {
        for (at, sample) in samples[start(nth)..start(nth) + WORD].iter_mut().enumerate() {
            let loud = 500 + (nth % WORDS) as i16 * 10;
            *sample = if at / 20 % 2 == 0 { loud } else { -loud };
        }
    }
    let mut file = crate::audio::wav::header(RATE as u32, 1, Some(samples.len() as u64 * 2)).to_vec();
    file.extend(samples.into_iter().flat_map(i16::to_le_bytes));
    file
}

/// What those words are.
pub fn text(words: usize) -> String {
    (0..words).map(|nth| format!("w{}", nth % WORDS)).collect::<Vec<_>>().join(" ")
}

/// Hears the words of such a file; one that is cut is misheard.
pub fn hears(file: &[u8]) -> Value {
    let samples: Vec<i16> = file[44..].as_chunks().0.iter().copied().map(i16::from_le_bytes).collect();
    let (mut words, mut at) = (Vec::new(), 0);
    while at < samples.len() {
        let loud = samples[at].unsigned_abs();
        let len = samples[at..].iter().take_while(|sample| sample.unsigned_abs() == loud).count();
        if loud > 0 {
            let text = if len == WORD { format!(" w{}", (loud - 500) / 10) } else { " uh".into() };
            let seconds = |samples: usize| samples as f64 / RATE as f64;
            words.push(json!({"start": seconds(at), "end": seconds(at + len), "text": text}));
        }
        at += len;
    }
    let text: String = words.iter().map(|word| word["text"].as_str().unwrap()).collect();
    json!({"text": text.trim(), "language": "en", "duration": 1.0, "model": "fake", "words": words})
}

/// So many engines that hear, in front of which files of more than ten seconds are split.
pub async fn stack(engines: usize, settings: impl FnOnce(&mut Config)) -> Stack {
    let stack = Stack::with(&vec![Capability::Stt; engines], |config| {
        config.gateway.long.piece = Duration::from_secs(10);
        config.gateway.long.split_after = Duration::from_secs(10);
        config.gateway.long.overlap = Duration::from_secs(2);
        settings(config);
    })
    .await;
    for engine in &stack.engines {
        *engine.hears.lock() = Some(hears);
    }
    stack
}

/// Bytes of pieces that are in memory.
fn held(registry: &prometheus::Registry) -> f64 {
    let families = registry.gather();
    let held = families.iter().find(|family| family.name() == "speechstack_gateway_long_bytes").unwrap();
    held.get_metric()[0].get_gauge().get_value()
}

async fn send(stack: &Stack, fields: &[(&'static str, &'static str)], words: usize) -> reqwest::Response {
    stack.post(TRANSCRIBE).multipart(form(fields, spoken(words))).send().await.unwrap()
}

#[tokio::test]
async fn a_long_file_is_heard_by_all_engines_and_has_no_seams() {
    let stack = stack(3, |_| {}).await;
    for engine in &stack.engines {
        *engine.pace.lock() = Duration::from_millis(30);
    }
    let fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    let body: Value = send(&stack, &fields, 300).await.json().await.unwrap();
    assert_eq!(body["text"], text(300));
    let words = body["words"].as_array().unwrap();
    assert_eq!(words.len(), 300);
    for (nth, word) in words.iter().enumerate() {
        let expected = start(nth) as f64 / RATE as f64;
        assert!((word["start"].as_f64().unwrap() - expected).abs() < 0.02, "{word} of {nth}");
    }
    assert!((body["duration"].as_f64().unwrap() - (start(300) as f64 / RATE as f64 + 0.1)).abs() < 0.01);
    assert!(stack.engines.iter().all(|engine| engine.complete() > 2), "all take part");
    for engine in &stack.engines {
        assert_eq!(engine.most_busy.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert!(engine.seen.lock().iter().all(|seen| seen.headers["x-speechstack-priority"] == "long"));
    }
    assert_eq!(stack.counted("speechstack_gateway_long_files_total", "ok"), 1.0);
    assert!(stack.counted("speechstack_gateway_long_pieces_total", "ok") >= 15.0);
}

#[tokio::test]
async fn every_format_and_dialect_gets_the_joined_words() {
    let stack = stack(2, |_| {}).await;
    assert_eq!(send(&stack, &[("response_format", "text")], 60).await.text().await.unwrap().trim(), text(60));
    let vtt = send(&stack, &[("response_format", "vtt")], 60).await.text().await.unwrap();
    assert!(
        (0..60).all(|nth| vtt.split_whitespace().filter(|word| **word == format!("w{nth}")).count() == 1)
    );
    let sent = stack.post("/transcribe").multipart(form(&[], spoken(60))).send().await.unwrap();
    assert_eq!(sent.json::<Value>().await.unwrap()["text"], text(60));
}

#[tokio::test]
async fn a_short_file_is_sent_as_it_is() {
    let stack = stack(1, |_| {}).await;
    let response = send(&stack, &[], 12).await;
    assert_eq!(response.json::<Value>().await.unwrap()["text"], text(12));
    let seen = stack.engines[0].seen.lock()[0].clone();
    assert_eq!((stack.complete(), seen.file()), (1, spoken(12)));
    assert!(!seen.headers.contains_key("x-speechstack-priority"));
}

#[tokio::test]
async fn a_piece_that_fails_is_heard_elsewhere() {
    let stack = stack(2, |_| {}).await;
    stack.engines[0].answer(500, &[("x-speechstack-retry", "elsewhere")], "no");
    stack.engines[1].answer(200, &[], "no json");
    let body: Value = send(&stack, &[], 100).await.json().await.unwrap();
    assert_eq!(body["text"], text(100));
}

#[tokio::test]
async fn an_engine_that_refuses_a_piece_fails_the_file_with_its_reason() {
    let stack = stack(1, |_| {}).await;
    stack.engines[0].answer(400, &[], r#"{"detail": "no such language"}"#);
    let message = envelope(send(&stack, &[], 100).await, 400, Some("file")).await;
    assert!(message.contains("no such language"), "{message}");
    assert_eq!(stack.counted("speechstack_gateway_long_files_total", "failed"), 1.0);
}

#[tokio::test]
async fn a_client_that_leaves_ends_all_pieces() {
    let stack = stack(2, |_| {}).await;
    for engine in &stack.engines {
        *engine.pace.lock() = Duration::from_secs(3600);
    }
    let request = stack.post(TRANSCRIBE).multipart(form(&[], spoken(200)));
    let sent = tokio::spawn(request.send());
    let begun = || stack.engines.iter().map(|engine| engine.begun()).sum::<usize>();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while begun() == 0 {
        assert!(tokio::time::Instant::now() < deadline, "no piece is begun");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    sent.abort();
    while held(&stack.registry) > 0.0 {
        assert!(tokio::time::Instant::now() < deadline, "pieces are still held");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(begun() <= 2, "no piece is begun for a client that has left");
}

#[tokio::test]
async fn speakers_are_told_apart_over_the_whole_file() {
    let stack = stack(2, |_| {}).await;
    let fields = [("response_format", "diarized_json")];
    let body: Value = send(&stack, &fields, 60).await.json().await.unwrap();
    let said: Vec<&str> = body["segments"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|segment| segment["text"].as_str().unwrap().split(' '))
        .collect();
    assert_eq!(said.join(" "), text(60));
    let seen: Vec<_> = stack.engines.iter().flat_map(|engine| engine.seen.lock().clone()).collect();
    let whole: Vec<_> = seen.iter().filter(|seen| seen.path == DIARIZE).collect();
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].file(), spoken(60));
    assert!(seen.len() > 4, "the words come from pieces");
}

#[tokio::test]
async fn a_long_file_that_is_no_audio_is_the_clients_error() {
    let stack = stack(1, |_| {}).await;
    let mut flac = b"fLaC".to_vec();
    flac.resize(400_000, 7);
    let form = reqwest::multipart::Form::new()
        .part("file", reqwest::multipart::Part::bytes(flac).file_name("speech.flac"));
    let response = stack.post(TRANSCRIBE).multipart(form).send().await.unwrap();
    envelope(response, 400, Some("file")).await;
    assert_eq!(stack.engines[0].begun(), 0);
}

#[tokio::test]
async fn events_come_as_pieces_are_heard() {
    use futures::StreamExt;

    let stack = stack(1, |_| {}).await;
    *stack.engines[0].pace.lock() = Duration::from_millis(50);
    let fields = [("model", "gpt-4o-transcribe"), ("stream", "true")];
    let mut body = send(&stack, &fields, 100).await.bytes_stream();
    let mut events = Vec::new();
    let first = body.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: transcript.text.delta"), "{first:?}");
    events.extend_from_slice(&first);
    assert!(stack.complete() < 4, "the first words do not wait for the last piece");
    while let Some(more) = body.next().await {
        events.extend_from_slice(&more.unwrap());
    }
    let events = String::from_utf8(events).unwrap();
    let data: Vec<Value> = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: ").filter(|data| *data != "[DONE]"))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let deltas: String = data.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!((deltas.as_str(), &data.last().unwrap()["text"]), (text(100).as_str(), &text(100).into()));
    assert!(events.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_failure_after_the_first_words_is_an_event_that_sdks_raise() {
    let stack = stack(1, |_| {}).await;
    let first = hears(&spoken(17));
    stack.engines[0].answer(200, &[("content-type", "application/json")], first.to_string());
    stack.engines[0].answer(400, &[], r#"{"detail": "no such language"}"#);
    let fields = [("model", "gpt-4o-transcribe"), ("stream", "true")];
    let response = send(&stack, &fields, 100).await;
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (200.try_into().unwrap(), &"text/event-stream".parse().unwrap())
    );
    let events = response.text().await.unwrap();
    assert!(events.starts_with("event: transcript.text.delta"), "{events}");
    // Nothing of an end: SDKs raise what is in `error`, and take an end for success.
    let mut data = events.lines().filter_map(|line| line.strip_prefix("data: "));
    let last = data.rfind(|data| *data != "[DONE]").unwrap();
    let error = &serde_json::from_str::<Value>(last).unwrap()["error"];
    assert!(error["message"].as_str().unwrap().contains("no such language"), "{error}");
    for key in ["type", "param", "code"] {
        assert!(error.get(key).is_some(), "{key} is missing: {error}");
    }
    assert!(!events.contains("transcript.text.done"), "{events}");
}

#[tokio::test]
async fn a_client_may_say_where_to_cut() {
    let stack = stack(1, |_| {}).await;
    let vad = [("chunking_strategy", r#"{"type":"server_vad","silence_duration_ms":400}"#)];
    assert_eq!(send(&stack, &vad, 60).await.json::<Value>().await.unwrap()["text"], text(60));
    let message = envelope(
        send(&stack, &[("chunking_strategy", "semantic")], 60).await,
        400,
        Some("chunking_strategy"),
    )
    .await;
    assert!(message.contains("server_vad"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_of_sound_takes_the_memory_of_some_pieces() {
    let stack = Stack::with(&[Capability::Stt, Capability::Stt], |_| {}).await;
    for engine in &stack.engines {
        *engine.hears.lock() = Some(hears);
        engine.forgets.store(true, std::sync::atomic::Ordering::SeqCst);
    }
    let words = (1..).take_while(|words| start(*words) < 3600 * RATE).last().unwrap();
    let file = bytes::Bytes::from(spoken(words));
    assert!(file.len() > 110_000_000);
    let (registry, (done, ended)) = (stack.registry.clone(), tokio::sync::oneshot::channel::<()>());
    let watch = tokio::spawn(async move {
        let (mut most, mut ended) = (0.0_f64, ended);
        while ended.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            most = most.max(held(&registry));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        most
    });
    let part = reqwest::multipart::Part::stream(file).file_name("hour.wav");
    let form = reqwest::multipart::Form::new().text("response_format", "text").part("file", part);
    let response = stack.post(TRANSCRIBE).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap().trim(), text(words));
    drop(done);
    let most = watch.await.unwrap();
    let piece = 32_000.0 * 123.0;
    assert!(most > 0.0 && most <= 4.0 * piece, "{most} bytes of pieces in memory");
}
