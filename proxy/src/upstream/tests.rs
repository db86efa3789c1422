use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::http::{HeaderMap, HeaderValue, StatusCode};
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use prometheus::Registry;
use tokio::net::TcpListener;

use contract::{Class, Incident, VerdictName, header};

use crate::audio::Container;
use crate::error::Error;
use crate::job::work::{Audio, Transcribe, Work};
use crate::multipart::{Boundary, Event, Limits, Parser};
use crate::upstream::spool::Replay;
use crate::upstream::*;

mod fake;
mod hedges;
mod membership;
mod protocols;
mod replies;

use fake::{Answer, Guard};

const PATH: &str = "/v1/audio/transcriptions";

/// A gateway's upstream half over the given guards, and what it counts.
struct Stack {
    upstreams: Upstreams,
    registry: Registry,
    drain: Drain,
}

fn stack(guards: &[&Guard], adjust: impl FnOnce(&mut Config)) -> Stack {
    let mut config =
        Config { engines: guards.iter().map(|guard| guard.engine()).collect(), ..Config::default() };
    adjust(&mut config);
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let upstreams = Upstreams::new(Current::new(config), crate::net::Clients::new(), metrics, Rng::new(7));
    Stack { upstreams, registry, drain: Drain::new() }
}

/// A file of that hash, which is fine.
struct Hashed(Option<InputHash>);

impl Gate for Hashed {
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn input(&self) -> Option<InputHash> {
        self.0
    }
}

impl Stack {
    /// Follows the guards, and waits until each has reported.
    async fn start(self) -> Self {
        self.upstreams.start(&self.drain);
        eventually(|| self.upstreams.reports().iter().all(|report| report.verdict == VerdictName::Serving))
            .await;
        self
    }

    fn outgoing(&self, bytes: Replay) -> Outgoing {
        let audio =
            Audio { container: Container::Wav, filename: "a.wav".into(), mono: true, open_header: None };
        Outgoing {
            route: Capability::Stt.into(),
            work: Work::Transcribe(Transcribe::default()),
            file: Some(Upload::new(audio, bytes, Arc::new(Hashed(None)))),
            audio_seconds: 2.0,
            asker: Asker {
                request_id: HeaderValue::from_static("r-1"),
                tenant: None,
                trace: trace::Trace::default(),
            },
            may_wait: false,
            continues: false,
            background: false,
            long: Long::default(),
            avoid: None,
            prefer: None,
        }
    }

    /// A second of silence.
    fn recording(&self) -> Outgoing {
        let wav = [&crate::audio::wav::header(16_000, 1, Some(32_000))[..], &[0; 32_000]].concat();
        self.outgoing(Replay::full(wav.into(), self.upstreams.budget()))
    }

    fn small(&self) -> Outgoing {
        self.outgoing(Replay::full(Bytes::from_static(b"audio"), self.upstreams.budget()))
    }

    async fn send(&self) -> Result<Served<Bytes>, Error> {
        send(&self.upstreams, &self.small()).await
    }

    /// Sends to the named engine first.
    async fn send_to(&self, guard: &Guard) -> Result<Served<Bytes>, Error> {
        let outgoing = Outgoing { prefer: Some(guard.name.as_str().into()), ..self.small() };
        send(&self.upstreams, &outgoing).await
    }

    /// The sum of a metric over labels that contain `label`.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let metrics = families
            .iter()
            .filter(|family| family.name().ends_with(name))
            .flat_map(|family| family.get_metric());
        metrics
            .filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label))
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came true");
}

/// Runs the job; gives the whole reply.
async fn send(upstreams: &Upstreams, outgoing: &Outgoing) -> Result<Served<Bytes>, Error> {
    upstreams.run(outgoing, |reply| async move { reply.whole().await }).await
}

/// The file in the form that the guard got and gave back.
fn file(reply: Served<Bytes>) -> Vec<u8> {
    let mut parser = Parser::new(Boundary::process(), Limits::default());
    let events = parser.push(reply.value).unwrap();
    parser.finish().unwrap();
    let data = events.iter().filter_map(|event| match event {
        Event::FileData(data) => Some(&data[..]),
        _ => None,
    });
    data.collect::<Vec<_>>().concat()
}

fn elsewhere() -> Answer {
    Answer::new(503).with(header::RETRY, "elsewhere").with(header::CLASS, "A")
}

#[tokio::test]
async fn a_wedged_engines_request_is_served_by_another() {
    let (wedged, sound) = (Guard::start("wedged").await, Guard::start("sound").await);
    wedged.answer(elsewhere());
    let stack = stack(&[&wedged, &sound], |_| {}).start().await;
    let reply = stack.send_to(&wedged).await.unwrap();
    assert_eq!(&*reply.engine, "sound");
    assert_eq!(file(reply), b"audio");
    assert_eq!(wedged.requests(), 1);
    assert_eq!(stack.metric("attempts_total", "faulty"), 1.0);
    assert_eq!(stack.metric("retries_total", "faulty"), 1.0);
}

#[tokio::test]
async fn a_refused_connection_goes_elsewhere_and_is_rechecked() {
    let (gone, sound) = (Guard::start("gone").await, Guard::start("sound").await);
    let address = gone.traffic;
    gone.refuse_traffic().await;
    let stack = stack(&[&gone, &sound], |_| {}).start().await;
    assert_eq!(&*stack.send_to(&gone).await.unwrap().engine, "sound");
    assert_eq!(stack.metric("endpoint_state", "unreachable"), 1.0);
    let before = stack.metric("attempts_total", "refused");
    assert_eq!(&*stack.send_to(&gone).await.unwrap().engine, "sound");
    assert_eq!(stack.metric("attempts_total", "refused"), before, "out until it is reachable again");
    gone.serve_traffic(TcpListener::bind(address).await.unwrap());
    eventually(|| stack.upstreams.free(Capability::Stt) == 2).await;
    assert_eq!(&*stack.send_to(&gone).await.unwrap().engine, "gone");
}

#[tokio::test]
async fn a_connection_reset_before_the_reply_goes_elsewhere() {
    let (resets, sound) = (Guard::start("resets").await, Guard::start("sound").await);
    resets.refuse_traffic().await;
    resets.reset_traffic().await;
    let stack = stack(&[&resets, &sound], |_| {}).start().await;
    assert_eq!(&*stack.send_to(&resets).await.unwrap().engine, "sound");
    assert_eq!(stack.metric("attempts_total", "reset"), 1.0);
}

#[tokio::test]
async fn full_queues_everywhere_are_an_overload_with_the_shortest_wait() {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    left.answer(Answer::new(429).with(header::QUEUE_SECONDS, "60"));
    right.answer(Answer::new(429).with(header::QUEUE_SECONDS, "20"));
    let stack = stack(&[&left, &right], |_| {}).start().await;
    let outgoing = Outgoing { may_wait: true, ..stack.small() };
    let Err(Error::Overloaded { capability, retry_after }) = send(&stack.upstreams, &outgoing).await else {
        panic!()
    };
    assert_eq!(capability, Capability::Stt);
    assert!((15.0..=24.1).contains(&retry_after.as_secs_f64()), "{retry_after:?}");
    assert_eq!((left.requests(), right.requests()), (1, 1));
}

#[tokio::test]
async fn with_no_engine_retry_after_says_when_one_is_due() {
    let guard = Guard::start("only").await;
    let stack = stack(&[&guard], |_| {}).start().await;
    assert!(stack.upstreams.ready(Capability::Stt));
    assert!(!stack.upstreams.ready(Capability::Tts));
    guard.report(|report| {
        (report.state, report.weight, report.recovery_seconds) = (State::Restarting, 0.0, Some(50.0));
    });
    eventually(|| !stack.upstreams.ready(Capability::Stt)).await;
    // It may park, but what is due in 50 s does not come within 20.
    let outgoing = Outgoing { may_wait: true, ..stack.small() };
    let Err(Error::NoEngine { reason, retry_after, .. }) = send(&stack.upstreams, &outgoing).await else {
        panic!()
    };
    assert_eq!(reason, "restarting");
    assert!((39.0..=60.1).contains(&retry_after.as_secs_f64()), "{retry_after:?}");
    assert_eq!(guard.requests(), 0);
}

#[tokio::test]
async fn a_short_request_waits_for_the_engine_to_come_back() {
    let guard = Guard::start("only").await;
    let stack = stack(&[&guard], |_| {}).start().await;
    guard.answer(elsewhere());
    let outgoing = Outgoing { may_wait: true, ..stack.small() };
    let upstreams = stack.upstreams.clone();
    let sending = tokio::spawn(async move { send(&upstreams, &outgoing).await });
    eventually(|| stack.metric("_waiting", "") == 1.0).await;
    guard.report(|report| (report.state, report.weight) = (State::Ejected, 0.0));
    guard.answer(Answer::new(200));
    eventually(|| stack.upstreams.reports()[0].state == State::Ejected).await;
    assert!(!sending.is_finished());
    guard.report(|report| {
        (report.state, report.weight, report.instance) = (State::Probation, 0.1, "2".into());
    });
    let reply = sending.await.unwrap().unwrap();
    assert_eq!(file(reply), b"audio");
    assert_eq!(guard.requests(), 2);
    assert_eq!(stack.metric("_waiting", ""), 0.0);
    assert_eq!(stack.metric("waits_total", ""), 1.0);
}

#[tokio::test]
async fn waiting_is_bounded_in_time_number_and_size() {
    let guard = Guard::start("only").await;
    let limits = |config: &mut Config| {
        config.gateway.wait.max_wait = Duration::from_millis(200);
        config.gateway.wait.max_requests = 1;
        config.gateway.wait.max_body = bytesize::ByteSize(5);
    };
    let stack = stack(&[&guard], limits).start().await;
    guard.report(|report| (report.state, report.weight) = (State::Ejected, 0.0));
    eventually(|| !stack.upstreams.ready(Capability::Stt)).await;
    let large = Replay::full(Bytes::from_static(b"too large"), stack.upstreams.budget());
    let large = Outgoing { may_wait: true, ..stack.outgoing(large) };
    assert!(matches!(send(&stack.upstreams, &large).await, Err(Error::NoEngine { .. })));
    assert_eq!(stack.metric("waits_total", ""), 0.0);
    let waits = || Outgoing { may_wait: true, ..stack.small() };
    let (one, other) = (waits(), waits());
    let (one, other) = tokio::join!(send(&stack.upstreams, &one), send(&stack.upstreams, &other));
    assert!(matches!((one, other), (Err(Error::NoEngine { .. }), Err(Error::NoEngine { .. }))));
    assert_eq!(stack.metric("waits_total", ""), 1.0);
}

#[tokio::test]
async fn a_waiting_client_that_goes_away_frees_its_place() {
    let guard = Guard::start("only").await;
    let stack = stack(&[&guard], |config| config.gateway.wait.max_requests = 1).start().await;
    guard.report(|report| (report.state, report.weight) = (State::Ejected, 0.0));
    eventually(|| !stack.upstreams.ready(Capability::Stt)).await;
    for _ in 0..2 {
        let upstreams = stack.upstreams.clone();
        let outgoing = Outgoing { may_wait: true, ..stack.small() };
        let sending = tokio::spawn(async move { send(&upstreams, &outgoing).await.map(|_| ()) });
        eventually(|| stack.metric("_waiting", "") == 1.0).await;
        sending.abort();
        assert!(sending.await.unwrap_err().is_cancelled());
        assert_eq!(stack.metric("_waiting", ""), 0.0);
    }
}

#[tokio::test]
async fn a_guard_that_is_gone_is_known_without_a_request() {
    let (gone, sound) = (Guard::start("gone").await, Guard::start("sound").await);
    let stack = stack(&[&gone, &sound], |_| {}).start().await;
    gone.refuse_traffic().await;
    gone.refuse_admin();
    eventually(|| stack.metric("endpoint_state", "unreachable") == 1.0).await;
    assert_eq!(stack.upstreams.reports()[0].weight, 0.0);
    assert!(stack.upstreams.ready(Capability::Stt));
}

#[tokio::test]
async fn the_budget_stops_a_retry_storm() {
    let guards = [Guard::start("a").await, Guard::start("b").await, Guard::start("c").await];
    for guard in &guards {
        guard.answer(Answer::new(503).with(header::RETRY, "elsewhere"));
    }
    let stingy = |config: &mut Config| config.gateway.retry.min_per_second = 1;
    let stack = stack(&[&guards[0], &guards[1], &guards[2]], stingy).start().await;
    const OFFERED: usize = 300;
    for _ in 0..OFFERED {
        assert!(matches!(stack.send().await, Err(Error::EngineFailed { .. })));
    }
    let attempts: usize = guards.iter().map(Guard::requests).sum();
    // A fifth of the requests, and one a second of the ten-second window.
    assert!(attempts <= OFFERED * 12 / 10 + 10 + 1, "{attempts}");
    assert!(attempts >= OFFERED * 11 / 10, "{attempts}");
    println!("{OFFERED} offered, {attempts} attempts");
    assert!(stack.metric("retry_budget_exhausted_total", "") > 0.0);
}

#[tokio::test]
async fn a_truncated_upload_is_the_clients_and_is_not_sent_again() {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    let stack = stack(&[&left, &right], |_| {}).start().await;
    let source =
        futures::stream::iter([Ok(Bytes::from_static(b"RIFF")), Err(Error::Truncated)]).then(|chunk| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            chunk
        });
    let body = Replay::new(source, Some(1000), stack.upstreams.budget());
    let outcome = send(&stack.upstreams, &stack.outgoing(body)).await;
    assert_eq!(outcome.err(), Some(Error::Truncated));
    assert_eq!(stack.metric("attempts_total", ""), 1.0);
    assert_eq!(stack.metric("attempts_total", "client_gone"), 1.0);
    assert_eq!(stack.upstreams.free(Capability::Stt), 2, "no engine is to blame");
}

#[tokio::test]
async fn an_upload_that_a_wedge_interrupts_is_replayed_and_then_goes_on() {
    let (wedged, sound) = (Guard::start("wedged").await, Guard::start("sound").await);
    // Answers before it has read the body.
    wedged.answer(elsewhere().early());
    let stack = stack(&[&wedged, &sound], |config| {
        config.gateway.spool.memory_per_request = bytesize::ByteSize::mib(4)
    })
    .start()
    .await;
    let body: Bytes = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    let chunks: Vec<Result<Bytes, Error>> =
        body.chunks(40_000).map(|chunk| Ok(body.slice_ref(chunk))).collect();
    let source = futures::stream::iter(chunks).then(|chunk| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        chunk
    });
    let replay = Replay::new(source, Some(body.len() as u64), stack.upstreams.budget());
    let outgoing = Outgoing { prefer: Some("wedged".into()), ..stack.outgoing(replay) };
    let reply = send(&stack.upstreams, &outgoing).await.unwrap();
    assert_eq!(&*reply.engine, "sound");
    assert!(file(reply) == body, "every byte once");
    drop(outgoing);
    eventually(|| stack.metric("replay_bytes", "") == 0.0).await;
}

#[tokio::test]
async fn a_body_that_is_no_longer_kept_is_not_sent_again() {
    let (wedged, sound) = (Guard::start("wedged").await, Guard::start("sound").await);
    wedged.answer(elsewhere());
    let no_spool = |config: &mut Config| {
        config.gateway.spool.memory_per_request = bytesize::ByteSize(0);
        config.gateway.spool.disk = bytesize::ByteSize(0);
    };
    let stack = stack(&[&wedged, &sound], no_spool).start().await;
    let (go_on, given_up) = tokio::sync::oneshot::channel();
    let first = futures::stream::iter([Ok(Bytes::from(vec![0; 200_000]))]);
    let last = futures::stream::once(async {
        given_up.await.unwrap();
        Ok(Bytes::from_static(b"end"))
    });
    let body = Replay::new(first.chain(last), None, stack.upstreams.budget());
    let outgoing = Outgoing { prefer: Some("wedged".into()), ..stack.outgoing(body.clone()) };
    let waiting = async {
        eventually(|| !body.is_replayable()).await;
        go_on.send(()).unwrap();
    };
    let (outcome, ()) = tokio::join!(send(&stack.upstreams, &outgoing), waiting);
    assert!(matches!(outcome, Err(Error::EngineFailed { reason: "its GPU context is lost", .. })));
    assert_eq!(sound.requests(), 0);
}

#[tokio::test]
async fn a_pushed_eject_takes_an_engine_out_before_the_next_pick() {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    let stack = stack(&[&left, &right], |_| {}).start().await;
    left.report(|report| (report.state, report.weight) = (State::Ejected, 0.0));
    eventually(|| stack.upstreams.reports()[0].state == State::Ejected).await;
    for _ in 0..20 {
        assert_eq!(&*stack.send_to(&left).await.unwrap().engine, "right");
    }
    assert_eq!(left.requests(), 0);
    assert_eq!(stack.metric("endpoint_state", "ejected"), 1.0);
}

#[tokio::test]
async fn an_engine_without_its_stream_is_the_last_resort_and_still_serves() {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    let stack = stack(&[&left, &right], |_| {}).start().await;
    left.refuse_admin();
    eventually(|| {
        stack
            .upstreams
            .of(Capability::Stt.into())
            .any(|endpoint| endpoint.candidate(Instant::now()).0.tier == balance::Tier::Unreported)
    })
    .await;
    for _ in 0..20 {
        assert_eq!(&*stack.send().await.unwrap().engine, "right");
    }
    right.report(|report| (report.state, report.weight) = (State::Ejected, 0.0));
    eventually(|| stack.upstreams.reports()[1].state == State::Ejected).await;
    assert_eq!(&*stack.send().await.unwrap().engine, "left");
}

#[tokio::test]
async fn the_reported_queue_decides() {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    let stack = stack(&[&left, &right], |_| {}).start().await;
    left.report(|report| report.queue_seconds = 100.0);
    eventually(|| stack.upstreams.reports()[0].queue_seconds > 0.0).await;
    assert_eq!(stack.upstreams.free(Capability::Stt), 1);
    for _ in 0..20 {
        assert_eq!(&*stack.send().await.unwrap().engine, "right");
    }
    let avoiding = Outgoing { avoid: Some("right".into()), ..stack.small() };
    assert_eq!(&*send(&stack.upstreams, &avoiding).await.unwrap().engine, "left");
}

#[tokio::test]
async fn a_timeout_is_tried_once_elsewhere_and_then_final() {
    let guards = [Guard::start("a").await, Guard::start("b").await, Guard::start("c").await];
    for guard in &guards {
        guard.answer(Answer::new(504).with(header::RETRY, "elsewhere"));
    }
    let stack = stack(&[&guards[0], &guards[1], &guards[2]], |_| {}).start().await;
    assert_eq!(stack.send().await.err(), Some(Error::Deadline { capability: Capability::Stt }));
    assert_eq!(guards.iter().map(Guard::requests).sum::<usize>(), 2);
}

#[tokio::test]
async fn client_errors_pass_and_poison_is_named() {
    let guard = Guard::start("only").await;
    let stack = stack(&[&guard], |_| {}).start().await;
    guard.answer(Answer::new(415));
    let Err(Error::EngineRefused { status, .. }) = stack.send().await else { panic!() };
    assert_eq!(status, 415);
    guard.answer(Answer::new(422).with(header::POISON, "1"));
    assert_eq!(stack.send().await.err(), Some(Error::PoisonInput));
    guard.answer(Answer::new(500));
    assert!(matches!(stack.send().await, Err(Error::EngineFailed { reason: "internal error", .. })));
    assert_eq!(guard.requests(), 3);
}

#[tokio::test]
async fn the_same_input_behind_incidents_of_two_engines_is_poison() {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    let stack = stack(&[&left, &right], |_| {}).start().await;
    left.incident("f00d");
    eventually(|| !stack.upstreams.reports()[0].incidents.is_empty()).await;
    assert!(!stack.upstreams.is_poison(InputHash(0xf00d)));
    right.incident("f00d");
    eventually(|| stack.upstreams.is_poison(InputHash(0xf00d))).await;
    assert!(!stack.upstreams.is_poison(InputHash(0xbeef)));
    stack.upstreams.served(InputHash(0xf00d));
    assert!(!stack.upstreams.is_poison(InputHash(0xf00d)), "an engine could do it");
}

#[tokio::test]
async fn the_guard_gets_the_headers_that_it_needs() {
    let guard = Guard::start("only").await;
    let stack = stack(&[&guard], |_| {}).start().await;
    stack.send().await.unwrap();
    let (path, headers) = guard.last_request();
    assert_eq!(path, PATH);
    assert_eq!(headers["content-type"], Boundary::process_header());
    assert!(headers["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 5);
    assert_eq!(headers[header::REQUEST_ID], "r-1");
    assert_eq!(headers[header::AUDIO_SECONDS], "2.000");
    assert_eq!(headers["host"], guard.traffic.to_string());
    assert!(!headers.contains_key(header::INPUT), "not known");
    let mut hashed = stack.small();
    if let Some(file) = &mut hashed.file {
        file.gate = Arc::new(Hashed(Some(InputHash(0xf00d))));
    }
    send(&stack.upstreams, &hashed).await.unwrap();
    assert_eq!(guard.last_request().1[header::INPUT], "000000000000f00d");
}
