//! Transcriptions in the background, over the wire: made, followed, kept over a crash, told of, forgotten.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::gateway::tests::long::{self, spoken, text};
use crate::gateway::tests::stack::{Stack, TRANSCRIBE, envelope, form};

const LIMIT: Duration = Duration::from_secs(60);

async fn stack(dir: &Path) -> Stack {
    with(dir, |_| {}).await
}

pub async fn with(dir: &Path, settings: impl FnOnce(&mut crate::config::Jobs)) -> Stack {
    long::stack(1, |config| {
        config.gateway.jobs.dir = Some(dir.to_owned());
        settings(&mut config.gateway.jobs);
    })
    .await
}

pub fn request(
    stack: &Stack,
    fields: &[(&'static str, &'static str)],
    words: usize,
) -> reqwest::RequestBuilder {
    let fields = [&[("async", "true")], fields].concat();
    stack.post(TRANSCRIBE).multipart(form(&fields, spoken(words)))
}

/// Makes a job and gives its id.
pub async fn make(stack: &Stack, fields: &[(&'static str, &'static str)], words: usize) -> String {
    let response = request(stack, fields, words).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let job: Value = response.json().await.unwrap();
    assert_eq!(job["object"], "audio.job");
    let id = job["id"].as_str().unwrap().to_owned();
    assert_eq!(location, format!("/v1/audio/jobs/{id}"));
    id
}

pub async fn get(stack: &Stack, id: &str) -> Value {
    let response = stack.get(&format!("/v1/audio/jobs/{id}")).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

/// The job once it has that status.
pub async fn reaches(stack: &Stack, id: &str, status: &str) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let job = get(stack, id).await;
        if job["status"] == status {
            return job;
        }
        assert!(Instant::now() < deadline, "{job} is never {status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn result(stack: &Stack, id: &str, query: &str) -> reqwest::Response {
    stack.get(&format!("/v1/audio/jobs/{id}/result{query}")).await
}

#[tokio::test]
async fn a_job_has_its_result_in_every_format() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let id = make(&stack, &[("model", "whisper-1"), ("response_format", "text")], 60).await;
    let job = reaches(&stack, &id, "succeeded").await;
    assert_eq!(
        (&job["progress"], &job["model"], &job["attempts"]),
        (&1.0.into(), &"whisper-1".into(), &1.into())
    );
    assert!(job["expires_at"].as_u64().unwrap() > job["ended_at"].as_u64().unwrap());
    assert_eq!(result(&stack, &id, "").await.text().await.unwrap().trim(), text(60));
    let query = "?response_format=verbose_json&timestamp_granularities[]=word";
    let verbose: Value = result(&stack, &id, query).await.json().await.unwrap();
    assert_eq!((&verbose["text"], verbose["words"].as_array().unwrap().len()), (&text(60).into(), 60));
    let srt = result(&stack, &id, "?response_format=srt").await.text().await.unwrap();
    assert!(srt.starts_with("1\n00:00:00,"), "{srt}");
    envelope(result(&stack, &id, "?response_format=docx").await, 400, Some("response_format")).await;
    envelope(result(&stack, &id, "?response_format=diarized_json").await, 400, Some("response_format")).await;
    let seen = stack.engines[0].seen.lock().clone();
    assert!(seen.len() > 2 && seen.iter().all(|seen| seen.headers["x-speechstack-priority"] == "long"));
    assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0, "the upload is gone");
    assert_eq!(stack.counted("speechstack_gateway_jobs_ended_total", "succeeded"), 1.0);

    let list: Value = stack.get("/v1/audio/jobs").await.json().await.unwrap();
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&id.as_str().into(), &false.into()));
    let path = format!("{}/v1/audio/jobs/{id}", stack.url);
    assert_eq!(stack.client.delete(&path).send().await.unwrap().status(), 200);
    envelope(result(&stack, &id, "").await, 404, None).await;
}

#[tokio::test]
async fn speakers_are_kept_for_later() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let id = make(&stack, &[("diarize", "true")], 30).await;
    reaches(&stack, &id, "succeeded").await;
    let diarized: Value = result(&stack, &id, "?response_format=diarized_json").await.json().await.unwrap();
    assert_eq!(diarized["segments"][0]["speaker"], "A");
}

#[tokio::test]
async fn without_a_folder_a_job_is_refused_by_the_name_of_the_setting() {
    let stack = long::stack(1, |_| {}).await;
    let message = envelope(request(&stack, &[], 12).send().await.unwrap(), 400, Some("async")).await;
    assert!(message.contains("gateway.jobs.dir"), "{message}");
    let preferred = stack.post(TRANSCRIBE).multipart(form(&[], spoken(12))).header("prefer", "respond-async");
    assert_eq!(preferred.send().await.unwrap().status(), 200, "a preference is no demand");
}

#[tokio::test]
async fn a_preference_makes_a_job_of_any_upload() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    // The file first, and its fields behind it.
    let part = reqwest::multipart::Part::bytes(spoken(12)).file_name("speech.wav");
    let form = reqwest::multipart::Form::new().part("file", part).text("model", "whisper-1");
    let response = stack
        .post(TRANSCRIBE)
        .multipart(form)
        .header("Prefer", "respond-async, wait=10")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status(), &response.headers()["preference-applied"]),
        (StatusCode::ACCEPTED, &"respond-async".parse().unwrap())
    );
    let job: Value = response.json().await.unwrap();
    let id = job["id"].as_str().unwrap();
    reaches(&stack, id, "succeeded").await;
    let heard: Value = result(&stack, id, "").await.json().await.unwrap();
    assert_eq!(heard["text"], text(12));
}

#[tokio::test]
async fn an_idempotency_key_makes_one_job() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let send = |words| request(&stack, &[], words).header("Idempotency-Key", "k-1").send();
    let first: Value = send(12).await.unwrap().json().await.unwrap();
    let again: Value = send(12).await.unwrap().json().await.unwrap();
    assert_eq!(first["id"], again["id"]);
    let other = send(13).await.unwrap();
    assert_eq!(other.status(), 422);
    assert_eq!(other.json::<Value>().await.unwrap()["error"]["code"], "idempotency_key_reused");
    reaches(&stack, first["id"].as_str().unwrap(), "succeeded").await;
    assert_eq!(stack.complete(), 1);
}

#[tokio::test]
async fn jobs_wait_in_order_and_a_canceled_one_leaves_its_engine() {
    let dir = TempDir::new().unwrap();
    let stack = with(dir.path(), |jobs| jobs.running = 1).await;
    *stack.engines[0].pace.lock() = Duration::from_secs(3600);
    let first = make(&stack, &[], 60).await;
    reaches(&stack, &first, "running").await;
    let (second, third) = (make(&stack, &[], 12).await, make(&stack, &[], 12).await);
    assert_eq!(get(&stack, &third).await["queue_position"], 2);
    envelope(result(&stack, &second, "").await, 409, None).await;
    let cancel = |id: String| {
        let post = stack.post(&format!("/v1/audio/jobs/{id}/cancel"));
        async move { post.send().await.unwrap().json::<Value>().await.unwrap()["status"].clone() }
    };
    assert_eq!(cancel(second.clone()).await, "canceled");
    assert_eq!(get(&stack, &third).await["queue_position"], 1);
    *stack.engines[0].pace.lock() = Duration::ZERO;
    assert_eq!(cancel(first.clone()).await, "canceled");
    reaches(&stack, &third, "succeeded").await;
    assert_eq!(cancel(third.clone()).await, "succeeded", "what has ended stays");
    let gone = result(&stack, &first, "").await;
    assert_eq!(gone.json::<Value>().await.unwrap()["error"]["code"], "job_canceled");
}

#[tokio::test]
async fn a_crash_loses_no_job() {
    let (dir, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let stack = with(dir.path(), |jobs| jobs.running = 1).await;
    let ended = make(&stack, &[], 12).await;
    reaches(&stack, &ended, "succeeded").await;
    *stack.engines[0].pace.lock() = Duration::from_secs(3600);
    let running = make(&stack, &[("response_format", "text")], 60).await;
    reaches(&stack, &running, "running").await;
    let queued = make(&stack, &[], 13).await;
    let canceled = make(&stack, &[], 14).await;
    stack.post(&format!("/v1/audio/jobs/{canceled}/cancel")).send().await.unwrap();
    // What a process that is killed leaves behind.
    std::fs::create_dir(copy.path().join("uploads")).unwrap();
    std::fs::copy(dir.path().join("jobs.redb"), copy.path().join("jobs.redb")).unwrap();
    for upload in std::fs::read_dir(dir.path().join("uploads")).unwrap() {
        let upload = upload.unwrap();
        std::fs::copy(upload.path(), copy.path().join("uploads").join(upload.file_name())).unwrap();
    }
    std::fs::write(copy.path().join("uploads/job_without_record"), "x").unwrap();
    let second = self::stack(copy.path()).await;
    let job = reaches(&second, &running, "succeeded").await;
    assert_eq!(job["attempts"], 2);
    reaches(&second, &queued, "succeeded").await;
    assert_eq!(get(&second, &canceled).await["status"], "canceled");
    assert_eq!(result(&second, &running, "").await.text().await.unwrap().trim(), text(60));
    let heard: Value = result(&second, &ended, "").await.json().await.unwrap();
    assert_eq!(heard["text"], text(12));
    assert_eq!(std::fs::read_dir(copy.path().join("uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_job_that_an_engine_refuses_fails_with_its_reason() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    stack.engines[0].answer(400, &[], r#"{"detail": "no such language"}"#);
    let id = make(&stack, &[], 12).await;
    let job = reaches(&stack, &id, "failed").await;
    assert!(job["error"]["message"].as_str().unwrap().contains("no such language"), "{job}");
    let refused = result(&stack, &id, "").await;
    assert_eq!(
        (refused.status(), &refused.headers()["x-should-retry"]),
        (StatusCode::BAD_REQUEST, &"false".parse().unwrap())
    );
}

#[tokio::test]
async fn a_job_is_seen_by_the_credential_that_made_it() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    let mine =
        request(&stack, &[], 12).bearer_auth("mine").send().await.unwrap().json::<Value>().await.unwrap();
    let path = format!("{}/v1/audio/jobs/{}", stack.url, mine["id"].as_str().unwrap());
    assert_eq!(stack.client.get(&path).bearer_auth("mine").send().await.unwrap().status(), 200);
    for other in
        [stack.client.get(&path), stack.client.get(&path).bearer_auth("yours"), stack.client.delete(&path)]
    {
        assert_eq!(other.send().await.unwrap().status(), 404);
    }
    let list: Value = stack.get("/v1/audio/jobs").await.json().await.unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn there_are_as_many_jobs_as_there_may_be_and_old_ones_are_forgotten() {
    let dir = TempDir::new().unwrap();
    let stack = with(dir.path(), |jobs| (jobs.max, jobs.ttl) = (1, Duration::from_millis(300))).await;
    let id = make(&stack, &[], 12).await;
    let deadline = Instant::now() + LIMIT;
    let mut full = 0;
    loop {
        let response = request(&stack, &[], 12).send().await.unwrap();
        if response.status() == 202 {
            break;
        }
        assert_eq!(response.status(), 429);
        full += 1;
        assert!(Instant::now() < deadline, "nothing is forgotten");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(full > 0);
    assert_eq!(stack.get(&format!("/v1/audio/jobs/{id}")).await.status(), 404);
}

/// The jobs of a stream of events.
pub fn shown(events: &str) -> Vec<Value> {
    let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn events_follow_a_job_to_its_end() {
    let dir = TempDir::new().unwrap();
    let stack = stack(dir.path()).await;
    *stack.engines[0].pace.lock() = Duration::from_millis(30);
    let id = make(&stack, &[], 100).await;
    let events = stack.get(&format!("/v1/audio/jobs/{id}/events")).await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let events = tokio::time::timeout(LIMIT, events.text()).await.unwrap().unwrap();
    let jobs = shown(&events);
    let progress: Vec<f64> = jobs.iter().map(|job| job["progress"].as_f64().unwrap()).collect();
    assert!(progress.is_sorted() && progress.iter().any(|now| (0.05..0.95).contains(now)), "{progress:?}");
    assert_eq!(jobs.last().unwrap()["status"], "succeeded");
    assert!(events.ends_with("data: [DONE]\n\n"));
}

/// What a receiver of webhooks got.
pub type Got = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// Fails the first message and takes the others.
pub async fn receiver() -> (String, Got) {
    let got = Got::default();
    let take = |Shared(got): Shared<Got>, headers: HeaderMap, body: String| async move {
        let mut got = got.lock();
        got.push((headers, body));
        if got.len() == 1 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
    };
    let router = Router::new().route("/hook", post(take)).with_state(got.clone());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (origin, got)
}

#[tokio::test]
async fn a_webhook_is_signed_and_tried_again_and_goes_nowhere_else() {
    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    let dir = TempDir::new().unwrap();
    let (origin, got) = receiver().await;
    let secret = dir.path().join("secret");
    std::fs::write(&secret, format!("whsec_{}\n", STANDARD.encode(KEY))).unwrap();
    let stack = with(dir.path(), |jobs| {
        jobs.webhooks.allow = vec![origin.clone()];
        jobs.webhooks.secret_file = Some(secret);
        jobs.webhooks.retry_after = Duration::from_millis(20);
    })
    .await;
    let url: &'static str = format!("{origin}/hook").leak();
    let id = make(&stack, &[("webhook_url", url)], 12).await;
    let deadline = Instant::now() + LIMIT;
    while get(&stack, &id).await["webhook"]["status"] != "delivered" {
        assert!(Instant::now() < deadline, "no webhook is delivered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let got = got.lock().clone();
    assert_eq!(got.len(), 2);
    for (headers, body) in &got {
        assert_eq!(headers["webhook-id"], id.as_str());
        let signed = format!("{id}.{}.{body}", headers["webhook-timestamp"].to_str().unwrap());
        let signature = headers["webhook-signature"].to_str().unwrap().strip_prefix("v1,").unwrap();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, KEY);
        aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &STANDARD.decode(signature).unwrap()).unwrap();
        let message: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&message["type"], &message["data"]["status"]),
            (&"audio.job.succeeded".into(), &"succeeded".into())
        );
        assert!(!body.contains("w0 w1"), "nothing of what was said");
    }
    assert_eq!(stack.counted("speechstack_gateway_webhooks_total", "taken"), 1.0);
    for elsewhere in ["http://127.0.0.1:1/hook", "http://169.254.169.254/latest", "file:///etc/passwd"] {
        let refused = request(&stack, &[("webhook_url", elsewhere)], 12).send().await.unwrap();
        envelope(refused, 400, Some("webhook_url")).await;
    }
}
