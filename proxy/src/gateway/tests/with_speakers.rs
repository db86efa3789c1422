//! The diarized call: spark-control's exact shape, one job at a time in one engine, two engines side by side.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use contract::Capability;

use crate::gateway::tests::stack::{DIARIZE, Stack, TRANSCRIBE, envelope, form, wav};

const PATH: &str = "/api/audio/transcribe-with-speakers";

#[tokio::test]
async fn words_and_turns_are_merged_in_sparks_shape() {
    let stack = Stack::start().await;
    for query in ["", "?merge=legacy"] {
        let response =
            stack.post(&format!("{PATH}{query}")).multipart(form(&[], wav(100_000))).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body: Value = response.json().await.unwrap();
        let first = body["segments"][0].take();
        assert_eq!(
            (&first["start_ms"], &first["speaker"], &first["text"]),
            (&json!(100), &json!("Speaker_0"), &json!("So it is."))
        );
        body["segments"].as_array_mut().unwrap().remove(0);
        assert_eq!(
            body,
            json!({
                "duration": 2.5,
                "language": "en",
                "speakers_detected": ["Speaker_0", "Speaker_1"],
                "segments": [{"start_ms": 1500, "end_ms": 1900, "speaker": "Speaker_1", "text": "Yes."}],
                "models": {"transcription": "parakeet-tdt-0.6b-v3", "diarization": "nvidia/diar_sortformer_4spk-v1"},
            })
        );
    }
}

#[tokio::test]
async fn one_engine_gets_one_job_after_the_other() {
    let stack = Stack::start().await;
    *stack.engines[0].pace.lock() = Duration::from_millis(50);
    let file = wav(300_000);
    stack.post(PATH).multipart(form(&[], file.clone())).send().await.unwrap();
    let seen = stack.engines[0].seen.lock().clone();
    assert_eq!([&seen[0].path[..], &seen[1].path], [TRANSCRIBE, DIARIZE]);
    assert!(seen.iter().all(|seen| seen.file() == file));
    assert_eq!(stack.engines[0].most_busy.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn two_free_engines_work_side_by_side() {
    let stack = Stack::with(&[Capability::Stt, Capability::Stt], |_| {}).await;
    for engine in &stack.engines {
        *engine.pace.lock() = Duration::from_millis(50);
    }
    let file = wav(300_000);
    let response = stack.post(PATH).multipart(form(&[], file.clone())).send().await.unwrap();
    assert_eq!(response.status(), 200);
    for engine in &stack.engines {
        assert_eq!(engine.complete(), 1);
        assert_eq!(engine.seen.lock()[0].file(), file);
    }
}

#[tokio::test]
async fn bad_uploads_are_refused() {
    let stack = Stack::start().await;
    let response = stack.post(PATH).multipart(form(&[], Vec::new())).send().await.unwrap();
    assert_eq!(envelope(response, 400, Some("file")).await, "the file is empty");
    assert_eq!(stack.engines[0].begun(), 0);
    let response =
        stack.post(&format!("{PATH}?merge=best")).multipart(form(&[], wav(100))).send().await.unwrap();
    envelope(response, 400, Some("merge")).await;
}

#[tokio::test]
async fn turns_alone_come_as_json_and_rttm() {
    let stack = Stack::start().await;
    let ask = |format: &'static str| {
        stack
            .post("/v1/audio/diarizations")
            .multipart(form(&[("response_format", format)], wav(32_000)))
            .send()
    };
    let body: serde_json::Value = ask("json").await.unwrap().json().await.unwrap();
    let alias = stack.post("/v1/audio/diarization").multipart(form(&[("max_speakers", "4")], wav(32_000)));
    assert_eq!(alias.send().await.unwrap().json::<serde_json::Value>().await.unwrap(), body);
    assert_eq!((&body["num_speakers"], &body["duration"]), (&2.into(), &2.5.into()));
    assert_eq!(body["segments"][1]["speaker"], "SPEAKER_01");
    let rttm = ask("rttm").await.unwrap().text().await.unwrap();
    assert!(rttm.starts_with("SPEAKER audio 1 0.000 1.480 <NA> <NA> SPEAKER_00"), "{rttm}");
    envelope(ask("srt").await.unwrap(), 400, Some("response_format")).await;
}

#[tokio::test]
async fn turns_alone_come_in_sparks_shape() {
    let stack = Stack::start().await;
    let ask = |fields: &[(&'static str, &'static str)]| {
        stack.post("/v1/audio/diarize").multipart(form(fields, wav(32_000))).send()
    };
    let body: serde_json::Value = ask(&[]).await.unwrap().json().await.unwrap();
    assert_eq!(body, crate::gateway::tests::stack::diarization());
    let rttm = ask(&[("response_format", "rttm")]).await.unwrap().text().await.unwrap();
    assert!(rttm.starts_with("SPEAKER audio 1 0.000"), "{rttm}");
}
