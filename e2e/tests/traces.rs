//! Traces of real binaries, as a collector gets them: one trace from the client to the engine, and what a repair did.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use serde_json::json;
use speechstack_e2e::client::say;
use speechstack_e2e::collector::{Collector, Taken};
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};

const SENTENCE: &str = "She told me that the train was late again.";
/// A client's span; its trace is made of the given digit.
fn parent(digit: char, flags: &str) -> (String, String) {
    let trace = digit.to_string().repeat(32);
    let header = format!("00-{trace}-b7ad6b7169203331-{flags}");
    (trace, header)
}

fn options(name: &str, engines: &[&str], tracing: serde_json::Value) -> StackOptions {
    let engines = engines.iter().map(|name| EngineOptions::new(name, "stt")).collect();
    StackOptions { engines, tracing, ..StackOptions::new(name) }
}

/// Transcribes a clip with that `traceparent`; the status.
async fn transcribe(stack: &Stack, clip: &Bytes, traceparent: Option<&str>) -> Result<u16> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90)).build()?;
    let part = Part::stream_with_length(clip.clone(), clip.len() as u64).file_name("clip.wav");
    let form = Form::new().text("model", "whisper-1").part("file", part);
    let mut request = client.post(format!("{}/v1/audio/transcriptions", stack.url)).multipart(form);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent).header("x-request-id", "req-1");
    }
    Ok(request.send().await?.status().as_u16())
}

fn of<'a>(spans: &'a [Taken], trace: &'a str, name: &'a str) -> impl Iterator<Item = &'a Taken> {
    spans.iter().filter(move |span| span.trace == trace && span.name == name)
}

fn one<'a>(spans: &'a [Taken], trace: &'a str, name: &'a str) -> Result<&'a Taken> {
    let mut found = of(spans, trace, name);
    let first = found.next().with_context(|| format!("no span {name:?} in {trace}"))?;
    ensure!(found.next().is_none(), "two spans {name:?}");
    Ok(first)
}

const REQUEST: &str = "POST /audio/transcriptions";
const FORWARD: &str = "forward /v1/audio/transcriptions";

#[tokio::test]
async fn one_trace_leads_from_the_client_to_the_engine_that_served_it_in_the_end() -> Result<()> {
    let collector = Collector::start().await?;
    let tracing = json!({"otlp": {"endpoint": collector.url}});
    let mut options = options("traces", &["parakeet-0", "parakeet-1"], tracing);
    // A request is to find the fault, not a golden probe.
    options.guard["probe"]["idle_period"] = json!("10m");
    options.guard["probe"]["content_period"] = json!("10m");
    let stack = Stack::start(options).await?;
    let clip = say(&[("rms", SENTENCE)])?;

    let (trace, header) = parent('a', "01");
    ensure!(transcribe(&stack, &clip, Some(&header)).await? == 200);
    let spans =
        collector.until("the request is exported", |spans| one(spans, &trace, REQUEST).is_ok()).await?;
    let request = one(&spans, &trace, REQUEST)?;
    let attempt = one(&spans, &trace, "engine attempt")?;
    let spans =
        collector.until("the guard's part is exported", |spans| one(spans, &trace, FORWARD).is_ok()).await?;
    let forward = one(&spans, &trace, FORWARD)?;
    let wait = one(&spans, &trace, "queue wait")?;
    ensure!((request.kind, attempt.kind, forward.kind, wait.kind) == (2, 3, 2, 1));
    ensure!(request.parent == "b7ad6b7169203331" && request.service == "speechstack", "{request:?}");
    ensure!(attempt.parent == request.id && forward.parent == attempt.id && wait.parent == forward.id);
    for (span, key, value) in [
        (request, "http.request.method", "POST"),
        (request, "http.route", "/audio/transcriptions"),
        (request, "http.response.status_code", "200"),
        (request, "speechstack.request_id", "req-1"),
        (attempt, "speechstack.outcome", "served"),
        (attempt, "speechstack.hedge", "false"),
        (forward, "speechstack.outcome", "served"),
        (forward, "speechstack.request_id", "req-1"),
        (forward, "http.response.status_code", "200"),
    ] {
        ensure!(span.attributes.get(key).map(String::as_str) == Some(value), "{key} of {span:?}");
    }
    ensure!(request.attributes["speechstack.engine"] == attempt.attributes["speechstack.engine"]);
    let within = |inner: &Taken, outer: &Taken| {
        // One machine, and times by two clocks that are read one after the other.
        let slack = 50_000_000;
        inner.times[0] + slack >= outer.times[0] && inner.times[1] <= outer.times[1] + slack
    };
    ensure!(within(attempt, request) && within(wait, forward), "{spans:?}");
    ensure!(spans.iter().all(|span| !format!("{span:?}").contains("train")), "what was said is in a span");

    // The engine fails on a request, and the other one serves it.
    stack.arm("parakeet-0", &json!({"mode": "F1"})).await?;
    let mut retried = None;
    for digit in "123456789".chars() {
        let (trace, header) = parent(digit, "01");
        ensure!(transcribe(&stack, &clip, Some(&header)).await? == 200);
        let spans =
            collector.until("the request is exported", |spans| one(spans, &trace, REQUEST).is_ok()).await?;
        if of(&spans, &trace, "engine attempt").count() == 2 {
            retried = Some(trace);
            break;
        }
    }
    let trace = retried.context("no request met the faulty engine")?;
    let forwarded = |spans: &[Taken]| of(spans, &trace, FORWARD).count() == 2;
    let spans = collector.until("both guards have exported", forwarded).await?;
    let request = one(&spans, &trace, REQUEST)?;
    let attempts: BTreeMap<&str, &Taken> = of(&spans, &trace, "engine attempt")
        .map(|span| (span.attributes["speechstack.engine"].as_str(), span))
        .collect();
    let (failed, served) = (attempts["parakeet-0"], attempts["parakeet-1"]);
    ensure!(failed.failed && failed.attributes["speechstack.outcome"] == "faulty", "{failed:?}");
    ensure!(!served.failed && served.attributes["speechstack.outcome"] == "served", "{served:?}");
    ensure!(served.attributes["http.request.resend_count"] == "1", "{served:?}");
    ensure!([failed, served].iter().all(|span| span.parent == request.id));
    for forward in of(&spans, &trace, FORWARD) {
        let attempt = attempts[forward.attributes["speechstack.engine"].as_str()];
        ensure!(forward.parent == attempt.id && forward.failed == attempt.failed, "{forward:?}");
    }

    // Its repair is a trace of its own.
    stack.healed("parakeet-0", 1).await?;
    let repaired = |spans: &[Taken]| spans.iter().any(|span| span.name == "repair");
    let spans = collector.until("the repair is exported", repaired).await?;
    let repair = spans.iter().find(|span| span.name == "repair").context("no repair")?;
    ensure!(repair.parent.is_empty() && !repair.failed, "{repair:?}");
    ensure!(repair.attributes["speechstack.engine"] == "parakeet-0", "{repair:?}");
    ensure!(repair.attributes["speechstack.class"] == "A", "{repair:?}");
    let mut last = repair.times[0];
    for name in ["judge", "restart", "verify"] {
        let phase = one(&spans, &repair.trace, name)?;
        ensure!(phase.parent == repair.id && phase.times[0] >= last && phase.times[1] <= repair.times[1]);
        last = phase.times[1];
    }
    ensure!(of(&spans, &repair.trace, "golden probe").count() >= 1);

    let log = stack.log().to_owned();
    stack.stop().await?;
    let log = std::fs::read_to_string(log)?;
    let ended = log.lines().filter(|line| line.contains("request ended") && line.contains(&trace)).count();
    ensure!(ended == 1, "the access log names the trace of a request {ended} times");
    let named = |message: &str| log.lines().any(|line| line.contains(message) && line.contains(&trace));
    ensure!(named("attempt failed"), "the gateway's line about the attempt has no trace");
    ensure!(named("the answer shows a fault"), "the guard's line about the fault has no trace");
    Ok(())
}

#[tokio::test]
async fn a_ratio_of_zero_records_only_what_a_client_asks_for() -> Result<()> {
    let collector = Collector::start().await?;
    let tracing = json!({"otlp": {"endpoint": collector.url, "sample_ratio": 0, "service_name": "mine"}});
    let stack = Stack::start(options("traces-none", &["parakeet-0"], tracing)).await?;
    let clip = say(&[("rms", SENTENCE)])?;
    let (_, unsampled) = parent('b', "00");
    let (_, malformed) = parent('0', "01");
    for header in [None, Some(unsampled.as_str()), Some(malformed.as_str()), Some("nonsense")] {
        ensure!(transcribe(&stack, &clip, header).await? == 200, "{header:?}");
    }
    let (trace, sampled) = parent('c', "01");
    ensure!(transcribe(&stack, &clip, Some(&sampled)).await? == 200);
    // What has ended is exported before the stop.
    stack.stop().await?;
    let spans = collector.spans();
    for name in [REQUEST, "engine attempt", FORWARD, "queue wait"] {
        ensure!(one(&spans, &trace, name)?.service == "mine");
    }
    let other = spans.iter().find(|span| span.trace != trace);
    ensure!(other.is_none(), "{other:?}");
    Ok(())
}

#[tokio::test]
async fn without_a_collector_requests_go_on_and_one_warning_says_so() -> Result<()> {
    let endpoint = Collector::start().await?.url.clone();
    let tracing = json!({"otlp": {"endpoint": endpoint}});
    let stack = Stack::start(options("traces-alone", &["parakeet-0"], tracing)).await?;
    let clip = say(&[("rms", SENTENCE)])?;
    for _ in 0..3 {
        ensure!(transcribe(&stack, &clip, None).await? == 200);
    }
    let log = stack.log().to_owned();
    let warnings = || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.lines().filter(|line| line.contains("unable to export spans of traces")).count()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while warnings() == 0 {
        ensure!(Instant::now() < deadline, "there is no warning");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(transcribe(&stack, &clip, None).await? == 200);
    stack.stop().await?;
    ensure!(warnings() == 1, "{} warnings", warnings());
    Ok(())
}
