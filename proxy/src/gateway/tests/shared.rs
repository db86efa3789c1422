//! Quotas of two gateways that share a real Redis: they count as one, and each goes on alone while Redis is away.

use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::AsyncCommands;
use serde_json::Value;

use crate::config::{Limits, Redis};
use crate::gateway::tests::keys::Keyed;
use crate::gateway::tests::redis::Server;
use crate::gateway::tests::sessions::Client;
use crate::gateway::tests::stack::{form, wav};
use crate::keys::testing::add;

const DEADLINE: Duration = Duration::from_secs(120);

/// A gateway that shares this Redis, with a key of bob, who has these limits.
async fn gateway(server: &Server, limits: Limits) -> (Keyed, String) {
    let redis = Redis {
        url_file: Some(server.url_file()),
        timeout: Duration::from_secs(10),
        ttl: Duration::from_secs(60),
        ..Redis::default()
    };
    let (keyed, _) = Keyed::configured(|config| config.gateway.quotas.redis = Some(redis)).await;
    let bob = add(&keyed.path, "bob", |record| record.limits = limits);
    keyed.until(&bob, 200).await;
    until_up(&keyed, 1.0).await;
    (keyed, bob)
}

async fn two(server: &Server, limits: Limits) -> [(Keyed, String); 2] {
    [gateway(server, limits).await, gateway(server, limits).await]
}

async fn until_up(keyed: &Keyed, wanted: f64) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let families = keyed.stack.registry.gather();
        let up =
            families.iter().find(|family| family.name() == "speechstack_gateway_quota_redis_up").unwrap();
        if up.get_metric()[0].get_gauge().get_value() == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "speechstack_gateway_quota_redis_up is never {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_served((keyed, key): &(Keyed, String), status: u16) {
    let deadline = Instant::now() + DEADLINE;
    while keyed.transcribe(key, &[]).await.status() != status {
        assert!(Instant::now() < deadline, "no {status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_audio_of_a_day_is_used_up_by_both_together() {
    let server = Server::start().await;
    // Six jobs of a second.
    let both = two(&server, Limits { audio_minutes_per_day: Some(0.1), ..Limits::default() }).await;
    let jobs = (0..20).map(|at| {
        let (keyed, key) = &both[at % 2];
        async { keyed.transcribe(key, &[]).await.status().as_u16() }
    });
    let statuses = join_all(jobs).await;
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    let mut served = statuses.iter().filter(|status| **status == 200).count();
    assert!((1..=6).contains(&served), "{statuses:?}");
    for (keyed, key) in both.iter().cycle().take(12) {
        served += usize::from(keyed.transcribe(key, &[]).await.status() == 200);
    }
    assert_eq!(served, 6, "what was set aside for refused jobs is given back");
    let [(one, key), _] = &both;
    let body: Value = one.transcribe(key, &[]).await.json().await.unwrap();
    assert_eq!(body["error"]["code"], "insufficient_quota");
    assert_eq!(one.stack.counted("speechstack_gateway_quota_redis_checks_total", "local"), 0.0);
    let session = Client::open(&one.stack, "/v1/listen", &[("authorization", format!("Bearer {key}"))]).await;
    assert_eq!(session.err(), Some(429), "sessions have the same day");
}

#[tokio::test]
async fn the_requests_of_a_minute_and_the_places_are_those_of_both() {
    let server = Server::start().await;
    let both = two(&server, Limits { requests_per_minute: Some(4), ..Limits::default() }).await;
    let mut left = Vec::new();
    for (keyed, key) in both.iter().cycle().take(4) {
        let reply = keyed.transcribe(key, &[]).await;
        assert_eq!(reply.status(), 200);
        left.push(reply.headers()["x-ratelimit-remaining-requests"].to_str().unwrap().to_owned());
    }
    assert_eq!(left, ["3", "2", "1", "0"]);
    for (keyed, key) in &both {
        let refused = keyed.transcribe(key, &[]).await;
        let after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(refused.status() == 429 && (1..=15).contains(&after), "{after}");
    }
}

#[tokio::test]
async fn a_place_is_held_across_gateways_and_a_gateway_that_is_gone_holds_none() {
    let server = Server::start().await;
    let limits = Limits { jobs: Some(1), streams: Some(1), ..Limits::default() };
    let both = two(&server, limits).await;
    let [one, other] = &both;
    *one.0.stack.engines[0].pace.lock() = Duration::from_secs(600);
    let request = one.0.stack.post("/v1/audio/transcriptions").bearer_auth(&one.1);
    let held = tokio::spawn(request.multipart(form(&[], wav(100))).send());
    let deadline = Instant::now() + DEADLINE;
    while one.0.stack.engines[0].begun() == 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(other.0.transcribe(&other.1, &[]).await.status(), 429);
    let headers = |key: &str| [("authorization", format!("Bearer {key}"))];
    let session = Client::open(&one.0.stack, "/v1/listen", &headers(&one.1)).await.ok().unwrap();
    assert_eq!(Client::open(&other.0.stack, "/v1/listen", &headers(&other.1)).await.err(), Some(429));
    held.abort();
    until_served(other, 200).await;
    drop(session);
    while Client::open(&other.0.stack, "/v1/listen", &headers(&other.1)).await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A gateway that was killed with a job, and will give no sign of life.
    let mut redis = server.connection().await;
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
    let dead = format!("{} 1 0 0 0", (seconds + 3) * 1000);
    let _: () = redis.hset("speechstack:{bob}:held", "dead", dead).await.unwrap();
    assert_eq!(other.0.transcribe(&other.1, &[]).await.status(), 429);
    until_served(other, 200).await;
}

#[tokio::test]
async fn without_redis_each_counts_alone_and_what_it_used_counts_for_both_once_redis_is_back() {
    let mut server = Server::start().await;
    // Four jobs of a second.
    let both = two(&server, Limits { audio_minutes_per_day: Some(4.0 / 60.0), ..Limits::default() }).await;
    let [one, other] = &both;
    assert_eq!(one.0.transcribe(&one.1, &[]).await.status(), 200);
    assert_eq!(other.0.transcribe(&other.1, &[]).await.status(), 200);
    server.kill();
    let alone = join_all((0..6).map(|_| one.0.transcribe(&one.1, &[]))).await;
    let served = alone.iter().filter(|reply| reply.status() == 200).count();
    assert!((2..=3).contains(&served), "one alone is not beyond the quota: {served}");
    until_up(&one.0, 0.0).await;
    assert!(one.0.stack.counted("speechstack_gateway_quota_redis_checks_total", "local") > 0.0);
    // It comes back and has forgotten all.
    server.restart().await;
    until_up(&one.0, 1.0).await;
    until_up(&other.0, 1.0).await;
    until_served(other, 429).await;
    let used: Vec<String> = server.connection().await.keys("speechstack:{bob}:day:*").await.unwrap();
    assert_eq!(used.len(), 1);
}
