//! Jobs of several gateways with one folder and one real Redis: each answers for all of them, runs some, and takes over those of
//! a gateway that was killed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use http::StatusCode;
use redis::AsyncCommands;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::config::{Jobs, Redis};
use crate::gateway::tests::jobs::{get, make, reaches, receiver, request, result, shown, with};
use crate::gateway::tests::long::{spoken, text};
use crate::gateway::tests::redis::Server;
use crate::gateway::tests::stack::{Fake, Stack, TRANSCRIBE, envelope};

const LIMIT: Duration = Duration::from_secs(60);

/// What gateways have in common.
struct Common {
    redis: Server,
    dir: TempDir,
}

impl Common {
    async fn new() -> Self {
        Self { redis: Server::start().await, dir: TempDir::new().unwrap() }
    }

    fn redis(&self) -> Redis {
        Redis {
            url_file: Some(self.redis.url_file()),
            timeout: Duration::from_secs(10),
            ttl: Duration::from_secs(2),
            ..Redis::default()
        }
    }

    async fn gateway(&self) -> Stack {
        self.gateway_with(|jobs| jobs.running = 1).await
    }

    async fn gateway_with(&self, settings: impl FnOnce(&mut Jobs)) -> Stack {
        let redis = self.redis();
        with(self.dir.path(), |jobs| {
            jobs.redis = Some(redis);
            settings(jobs);
        })
        .await
    }

    /// A gateway in a runtime of its own, whose engine takes its time, until it is killed.
    fn mortal(&self, settings: impl FnOnce(&mut Jobs) + Send + 'static) -> Mortal {
        let (dir, redis): (PathBuf, Redis) = (self.dir.path().to_owned(), self.redis());
        let (sender, receiver) = mpsc::channel();
        let (kill, killed) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let stack = runtime.block_on(with(&dir, |jobs| {
                (jobs.running, jobs.redis) = (1, Some(redis));
                settings(jobs);
            }));
            *stack.engines[0].pace.lock() = Duration::from_secs(3600);
            sender.send((stack.url.clone(), Arc::clone(&stack.engines[0]))).unwrap();
            let _ = killed.recv();
            // Nothing of it runs any more, and nothing was handed over.
            runtime.shutdown_background();
            std::mem::forget(stack);
        });
        let (url, engine) = receiver.recv().unwrap();
        Mortal { url, engine, kill, thread }
    }
}

struct Mortal {
    url: String,
    engine: Arc<Fake>,
    kill: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Mortal {
    async fn until_busy(&self) {
        let deadline = Instant::now() + LIMIT;
        while self.engine.begun() == 0 {
            assert!(Instant::now() < deadline, "no job begins");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn kill(self) {
        drop(self.kill);
        self.thread.join().unwrap();
    }
}

/// As [`make`], of a client that knows the URL alone.
async fn make_at(url: &str, client: &Stack, fields: &[(&'static str, &'static str)], words: usize) -> String {
    let fields = [&[("async", "true")], fields].concat();
    let form = crate::gateway::tests::stack::form(&fields, spoken(words));
    let response = client.client.post(format!("{url}{TRANSCRIBE}")).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 202);
    response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_gateway_answers_for_every_job() {
    let common = Common::new().await;
    let (one, other) = (common.gateway().await, common.gateway().await);
    *one.engines[0].pace.lock() = Duration::from_millis(30);
    *other.engines[0].pace.lock() = Duration::from_millis(30);
    let id = make(&one, &[("response_format", "text")], 100).await;
    assert!(["queued", "running"].contains(&get(&other, &id).await["status"].as_str().unwrap()));
    let (here, there) = (
        one.get(&format!("/v1/audio/jobs/{id}/events")).await,
        other.get(&format!("/v1/audio/jobs/{id}/events")).await,
    );
    for events in [here, there] {
        let events = tokio::time::timeout(LIMIT, events.text()).await.unwrap().unwrap();
        let jobs = shown(&events);
        assert_eq!(jobs.last().unwrap()["status"], "succeeded", "{events}");
        assert!(jobs.iter().map(|job| job["progress"].as_f64().unwrap()).is_sorted(), "{events}");
    }
    for gateway in [&one, &other] {
        assert_eq!(result(gateway, &id, "").await.text().await.unwrap().trim(), text(100));
        let list: Value = gateway.get("/v1/audio/jobs").await.json().await.unwrap();
        assert_eq!(list["data"][0]["id"], id.as_str());
    }
    let path = format!("{}/v1/audio/jobs/{id}", other.url);
    assert_eq!(other.client.get(&path).bearer_auth("of another").send().await.unwrap().status(), 404);
    assert_eq!(other.client.delete(&path).send().await.unwrap().status(), 200);
    envelope(result(&one, &id, "").await, 404, None).await;
    let left = |folder: &str| std::fs::read_dir(common.dir.path().join(folder)).unwrap().count();
    assert_eq!((left("uploads"), left("results")), (0, 0));
}

#[tokio::test]
async fn progress_at_one_gateway_is_seen_at_the_other() {
    let common = Common::new().await;
    let (busy, idle) = (common.gateway().await, common.gateway().await);
    *busy.engines[0].pace.lock() = Duration::from_millis(600);
    *idle.engines[0].pace.lock() = Duration::from_millis(600);
    let id = make(&busy, &[], 100).await;
    let (mut seen, deadline) = ([false; 2], Instant::now() + LIMIT);
    while seen != [true; 2] {
        for (gateway, seen) in [&busy, &idle].into_iter().zip(&mut seen) {
            let job = get(gateway, &id).await;
            *seen |= (0.05..0.95).contains(&job["progress"].as_f64().unwrap());
            assert!(*seen || job["status"] != "succeeded", "no progress was seen: {job}");
        }
        assert!(Instant::now() < deadline, "no progress is seen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_job_runs_once_and_all_gateways_work() {
    let common = Common::new().await;
    let (one, other) = (common.gateway().await, common.gateway().await);
    for gateway in [&one, &other] {
        *gateway.engines[0].pace.lock() = Duration::from_millis(150);
    }
    let ids = join_all((0..12).map(|_| make(&one, &[], 12))).await;
    for id in &ids {
        let job = reaches(&other, id, "succeeded").await;
        assert_eq!(job["attempts"], 1);
    }
    let (here, there) = (one.complete(), other.complete());
    assert_eq!(here + there, ids.len());
    assert!(here > 0 && there > 0, "{here} and {there}");
}

#[tokio::test]
async fn an_idempotency_key_makes_one_job_at_all_gateways() {
    let common = Common::new().await;
    let gateways = [common.gateway().await, common.gateway().await];
    let send = |at: usize, words: usize| {
        request(&gateways[at % 2], &[], words).header("Idempotency-Key", "k-1").send()
    };
    let made = join_all((0..8).map(|at| send(at, 12))).await;
    let mut ids = Vec::new();
    for response in made {
        let response = response.unwrap();
        assert_eq!(response.status(), 202);
        ids.push(response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    for at in [0, 1] {
        assert_eq!(send(at, 13).await.unwrap().status(), 422);
        reaches(&gateways[at], &ids[0], "succeeded").await;
    }
    assert_eq!(gateways[0].complete() + gateways[1].complete(), 1);
    let delete = gateways[0].client.delete(format!("{}/v1/audio/jobs/{}", gateways[1].url, ids[0]));
    assert_eq!(delete.send().await.unwrap().status(), 200);
    assert_eq!(send(0, 13).await.unwrap().status(), 202, "the key of a job that is gone is free");
}

#[tokio::test]
async fn a_job_canceled_at_the_other_gateway_leaves_its_engine() {
    let common = Common::new().await;
    let one = common.gateway().await;
    *one.engines[0].pace.lock() = Duration::from_secs(3600);
    let id = make(&one, &[], 60).await;
    reaches(&one, &id, "running").await;
    let other = common.gateway().await;
    *one.engines[0].pace.lock() = Duration::ZERO;
    let canceled = other.post(&format!("/v1/audio/jobs/{id}/cancel")).send().await.unwrap();
    assert_eq!(canceled.json::<Value>().await.unwrap()["status"], "canceled");
    // The one job that may run there at a time is free again.
    let next = join_all((0..6).map(|_| make(&one, &[], 12))).await;
    for id in &next {
        reaches(&one, id, "succeeded").await;
    }
    let deadline = Instant::now() + LIMIT;
    while one.complete() == 0 {
        make(&one, &[], 12).await;
        assert!(Instant::now() < deadline, "the gateway runs no more jobs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(get(&one, &id).await["status"], "canceled");
}

#[tokio::test]
async fn jobs_of_a_killed_gateway_are_run_by_another() {
    let common = Common::new().await;
    let mortal = common.mortal(|_| {});
    let survivor = common.gateway_with(|jobs| jobs.running = 2).await;
    *survivor.engines[0].pace.lock() = Duration::from_secs(3600);
    let running = make_at(&mortal.url, &survivor, &[("response_format", "text")], 60).await;
    mortal.until_busy().await;
    *survivor.engines[0].pace.lock() = Duration::ZERO;
    let queued = make_at(&mortal.url, &survivor, &[], 12).await;
    mortal.kill();
    reaches(&survivor, &queued, "succeeded").await;
    let job = reaches(&survivor, &running, "succeeded").await;
    assert_eq!(job["attempts"], 2);
    assert_eq!(result(&survivor, &running, "").await.text().await.unwrap().trim(), text(60));
}

#[tokio::test]
async fn a_webhook_is_called_though_the_gateway_that_would_is_killed() {
    let common = Common::new().await;
    let (origin, got) = receiver().await;
    let secret = common.dir.path().join("secret");
    std::fs::write(&secret, format!("whsec_{}\n", STANDARD.encode(b"0123456789abcdef0123456789abcdef")))
        .unwrap();
    let url: &'static str = format!("{origin}/hook").leak();
    let hooks = move |jobs: &mut Jobs| {
        jobs.webhooks.allow = vec![origin];
        jobs.webhooks.secret_file = Some(secret);
    };
    // The first delivery fails, and the second one would come in an hour.
    let mortal = common.mortal({
        let hooks = hooks.clone();
        move |jobs| {
            hooks(jobs);
            jobs.webhooks.retry_after = Duration::from_secs(3600);
        }
    });
    *mortal.engine.pace.lock() = Duration::ZERO;
    let client = crate::gateway::tests::long::stack(1, |_| {}).await;
    let id = make_at(&mortal.url, &client, &[("webhook_url", url)], 12).await;
    let deadline = Instant::now() + LIMIT;
    while got.lock().is_empty() {
        assert!(Instant::now() < deadline, "no webhook is called");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    mortal.kill();
    let survivor = common
        .gateway_with(|jobs| {
            hooks(jobs);
            jobs.webhooks.retry_after = Duration::from_millis(20);
        })
        .await;
    while get(&survivor, &id).await["webhook"]["status"] != "delivered" {
        assert!(Instant::now() < deadline, "no webhook is delivered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(got.lock().last().unwrap().0["webhook-id"], id.as_str());
}

async fn until_back(gateway: &Stack, id: &str) {
    let deadline = Instant::now() + LIMIT;
    while gateway.get(&format!("/v1/audio/jobs/{id}")).await.status() != 200 {
        assert!(Instant::now() < deadline, "jobs are never back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_redis_jobs_wait_and_none_is_lost() {
    let mut common = Common::new().await;
    let gateway = common.gateway().await;
    let id = make(&gateway, &[], 12).await;
    reaches(&gateway, &id, "succeeded").await;
    common.redis.save().await;
    common.redis.kill();
    let refused = [
        request(&gateway, &[], 12).send().await.unwrap(),
        gateway.get("/v1/audio/jobs").await,
        gateway.get(&format!("/v1/audio/jobs/{id}")).await,
    ];
    for refused in refused {
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
    }
    assert_eq!(gateway.get("/v1/models").await.status(), 200, "the rest goes on");
    common.redis.restart().await;
    until_back(&gateway, &id).await;
    let again = make(&gateway, &[], 12).await;
    reaches(&gateway, &again, "succeeded").await;
}

#[tokio::test]
async fn what_engines_heard_is_kept_once_redis_is_back() {
    let mut common = Common::new().await;
    let gateway = common.gateway().await;
    *gateway.engines[0].pace.lock() = Duration::from_secs(3);
    let id = make(&gateway, &[], 12).await;
    reaches(&gateway, &id, "running").await;
    common.redis.save().await;
    common.redis.kill();
    let deadline = Instant::now() + LIMIT;
    while gateway.complete() == 0 {
        assert!(Instant::now() < deadline, "the engine does not answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    common.redis.restart().await;
    until_back(&gateway, &id).await;
    reaches(&gateway, &id, "succeeded").await;
    assert_eq!(gateway.complete(), 1, "it was not heard again");
}

#[tokio::test]
async fn a_redis_that_lost_its_data_has_no_jobs_and_takes_new_ones() {
    let common = Common::new().await;
    let gateway = common.gateway().await;
    let ids = join_all((0..3).map(|_| make(&gateway, &[], 12))).await;
    for id in &ids {
        reaches(&gateway, id, "succeeded").await;
    }
    let _: () = common.redis.connection().await.flushall().await.unwrap();
    assert_eq!(gateway.get(&format!("/v1/audio/jobs/{}", ids[0])).await.status(), 404);
    let id = make(&gateway, &[], 12).await;
    reaches(&gateway, &id, "succeeded").await;
    let list: Value = gateway.get("/v1/audio/jobs").await.json().await.unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_comes_in_parts_to_several_gateways() {
    let common = Common::new().await;
    let gateways = [common.gateway().await, common.gateway().await];
    let file = spoken(60);
    let tus = |at: usize, method: http::Method, path: &str| {
        let stack = &gateways[at % 2];
        stack.client.request(method, format!("{}{path}", stack.url)).header("tus-resumable", "1.0.0")
    };
    let begun = tus(0, http::Method::POST, "/v1/audio/uploads").header("upload-length", file.len());
    let begun = begun.send().await.unwrap();
    assert_eq!(begun.status(), 201);
    let path = begun.headers()["location"].to_str().unwrap().to_owned();
    let mut arrived = 0;
    for (at, piece) in file.chunks(300_000).enumerate() {
        let head = tus(at, http::Method::HEAD, &path).send().await.unwrap();
        assert_eq!(head.headers()["upload-offset"], arrived.to_string().as_str());
        let part = tus(at + 1, http::Method::PATCH, &path)
            .header("content-type", "application/offset+octet-stream")
            .header("upload-offset", arrived)
            .body(piece.to_vec());
        assert_eq!(part.send().await.unwrap().status(), 204);
        arrived += piece.len();
    }
    for gateway in &gateways {
        let list: Value = gateway.get("/v1/audio/uploads").await.json().await.unwrap();
        assert_eq!(list["data"].as_array().unwrap().len(), 1);
        let form = reqwest::multipart::Form::new()
            .text("upload_id", path.clone())
            .text("response_format", "text")
            .text("async", "true");
        let job: Value = gateway.post(TRANSCRIBE).multipart(form).send().await.unwrap().json().await.unwrap();
        let id = job["id"].as_str().unwrap_or_else(|| panic!("{job}"));
        reaches(&gateways[0], id, "succeeded").await;
        assert_eq!(result(gateway, id, "").await.text().await.unwrap().trim(), text(60));
    }
    assert_eq!(tus(1, http::Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert_eq!(tus(0, http::Method::HEAD, &path).send().await.unwrap().status(), 404);
}
