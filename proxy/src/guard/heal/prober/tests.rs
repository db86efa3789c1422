use std::convert::Infallible;

use axum::body::{Body, to_bytes};
use axum::response::IntoResponse;
use http::{Request, Response};
use hyper::body::Incoming;
use memchr::memmem;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use contract::Capability;

use crate::audio::quality;
use crate::guard::heal::prober::input::PROBE;
use crate::guard::heal::prober::*;
use crate::guard::protocols::tests::two_transports;
use crate::net::Clients;
use crate::net::drain::Drain;

const DEADLINE: Duration = Duration::from_secs(10);

async fn probe(prober: &Prober, which: Which, deadline: Duration) -> Outcome {
    let sent = prober.turn(which);
    let result = tokio::time::timeout(deadline, prober.attempt(sent.at, which)).await;
    prober.outcome(sent, result.unwrap_or(Err(Failure::Timeout)))
}

/// An engine that answers by path and body.
async fn engine(
    answer: impl Fn(&str, &[u8]) -> Response<Body> + Clone + Send + Sync + 'static,
) -> (Prober, AbortOnDropHandle<()>) {
    let (url, server) = serve(answer).await;
    (prober(&url), server)
}

async fn serve(
    answer: impl Fn(&str, &[u8]) -> Response<Body> + Clone + Send + Sync + 'static,
) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            let path = request.uri().path().to_owned();
            if request.method() == http::Method::POST {
                assert!(request.headers().contains_key(PROBE));
            }
            let body = to_bytes(Body::new(request.into_body()), 1 << 20).await.unwrap();
            Ok::<_, Infallible>(answer(&path, &body))
        }
    });
    let server = tokio::spawn(crate::net::serve(listener, service, Drain::new()));
    (url, AbortOnDropHandle::new(server))
}

fn prober(url: &str) -> Prober {
    probing(url, |engine| Protocols::of(engine).unwrap())
}

fn probing(url: &str, protocols: impl Fn(&config::Engine) -> Protocols) -> Prober {
    probing_for(url, Capability::Stt, protocols)
}

fn probing_for(
    url: &str,
    capability: Capability,
    protocols: impl Fn(&config::Engine) -> Protocols,
) -> Prober {
    let engine = config::Engine {
        name: "engine-0".into(),
        capability,
        url: url.into(),
        grpc: Some(url.into()),
        ..config::Engine::example()
    };
    let catalogue = Arc::new(Catalogue::new(&[]));
    let protocols = Arc::new(protocols(&engine));
    Prober::new(&engine, Arc::new(Clients::fresh(None)), protocols, &config::Probe::default(), catalogue)
        .unwrap()
}

async fn speaker(
    answer: impl Fn(&str, &[u8]) -> Response<Body> + Clone + Send + Sync + 'static,
) -> (Prober, AbortOnDropHandle<()>) {
    let (url, server) = serve(answer).await;
    (probing_for(&url, Capability::Tts, |engine| Protocols::of(engine).unwrap()), server)
}

fn json(status: u16, body: &str) -> Response<Body> {
    (StatusCode::from_u16(status).unwrap(), body.to_owned()).into_response()
}

/// Hears which clip it is given.
fn listen(body: &[u8]) -> Response<Body> {
    let heard = [CLIP_A, CLIP_B].into_iter().find(|clip| memmem::find(body, clip.wav).is_some());
    json(200, &serde_json::json!({ "text": heard.unwrap().words }).to_string())
}

#[tokio::test]
async fn an_engine_that_hears_both_clips_passes() {
    let (prober, _server) = engine(|path, body| {
        assert_eq!(path, "/v1/audio/transcriptions");
        listen(body)
    })
    .await;
    for which in [Which::SttA, Which::SttB, Which::SttA] {
        let outcome = probe(&prober, which, DEADLINE).await;
        assert_eq!((outcome.which, outcome.result), (which, Ok(())));
    }
}

#[tokio::test]
async fn one_text_for_both_clips_fails_as_such() {
    let (prober, _server) = engine(|_, _| json(200, r#"{"text":"thank you"}"#)).await;
    let outcome = probe(&prober, Which::SttA, DEADLINE).await;
    assert_eq!(outcome.result, Err(Failure::Content(golden::Fault::Words { word_error: 1.0 })));
    let outcome = probe(&prober, Which::SttB, DEADLINE).await;
    assert_eq!(outcome.result, Err(Failure::Content(golden::Fault::Alike)));
}

#[tokio::test]
async fn what_is_no_transcript_fails() {
    let (prober, _server) = engine(|_, _| json(200, r#"{"text":NaN}"#)).await;
    let outcome = probe(&prober, Which::SttA, DEADLINE).await;
    assert_eq!(outcome.result, Err(Failure::Content(golden::Fault::NotTranscript)));
}

#[tokio::test]
async fn an_error_is_classified() {
    let (prober, _server) = engine(|_, _| json(422, r#"{"detail":"CUDA error: misaligned address"}"#)).await;
    let outcome = probe(&prober, Which::SttA, DEADLINE).await;
    let finding = Finding { class: Class::Sticky, signature: Some("misaligned_address".into()) };
    assert_eq!(outcome.result, Err(Failure::Status { status: 422, finding: Some(finding) }));
}

#[tokio::test]
async fn speech_is_judged_by_its_sound() {
    let (prober, _server) = speaker(|path, body| {
        if path == "/v1/audio/list_voices" {
            return json(200, r#"{"en-US":{"voices":["M.DE-DE.Leo","M.EN-US.Mia"]}}"#);
        }
        assert_eq!(path, "/v1/audio/synthesize_online");
        assert!(memmem::find(body, golden::SENTENCE.as_bytes()).is_some());
        assert!(memmem::find(body, b"M.EN-US.Mia").is_some());
        let mut wav = CLIP_A.wav[44..].to_vec();
        wav.extend_from_slice(&CLIP_A.wav[44..]);
        Response::new(Body::from(wav))
    })
    .await;
    assert_eq!(probe(&prober, Which::Tts, DEADLINE).await.result, Ok(()));

    let (prober, _server) = speaker(|_, _| Response::new(Body::from(CLIP_A.wav))).await;
    assert_eq!(probe(&prober, Which::Tts, DEADLINE).await.result, Ok(()));

    let (prober, _server) = speaker(|_, _| {
        let mut silent = CLIP_A.wav.to_vec();
        silent[44..].fill(0);
        Response::new(Body::from(silent))
    })
    .await;
    let outcome = probe(&prober, Which::Tts, DEADLINE).await;
    assert!(matches!(
        outcome.result,
        Err(Failure::Content(golden::Fault::Samples(quality::Fault::Silence { .. })))
    ));
}

#[tokio::test]
async fn silence_and_refusal_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let prober = prober(&url);
    let outcome = probe(&prober, Which::SttA, Duration::from_millis(50)).await;
    assert_eq!(outcome.result, Err(Failure::Timeout));
    drop(listener);
    let outcome = probe(&prober, Which::SttA, DEADLINE).await;
    assert_eq!(outcome.result, Err(Failure::Unreachable));
    assert_eq!(prober.shallow().await, Err(ShallowFailure::Unreachable));
}

#[tokio::test]
async fn the_shallow_check_reads_status_and_body() {
    let cases: [(u16, &'static str, Result<(), ShallowFailure>); 6] = [
        (200, r#"{"status":"ready"}"#, Ok(())),
        (200, "OK", Ok(())),
        (200, r#"{"ready":false}"#, Err(ShallowFailure::NotReady { class: None })),
        (200, r#"{"status":"loading"}"#, Err(ShallowFailure::NotReady { class: None })),
        (503, r#"{"detail":"loading"}"#, Err(ShallowFailure::NotReady { class: None })),
        (
            503,
            "CUDA driver version is insufficient for CUDA runtime version",
            Err(ShallowFailure::NotReady { class: Some(Class::Environment) }),
        ),
    ];
    for (status, body, expected) in cases {
        let (prober, _server) = engine(move |_, _| json(status, body)).await;
        assert_eq!(prober.shallow().await, expected, "{status} {body}");
        assert_eq!(prober.says(), expected.err().map(|_| format!("{status}: {body}")));
    }
    let (prober, _server) = engine(|path, _| json(if path == "/health" { 200 } else { 404 }, "{}")).await;
    assert_eq!(prober.shallow().await, Ok(()));
    let (prober, _server) = engine(|_, _| json(404, "{}")).await;
    assert_eq!(prober.shallow().await, Ok(()), "an engine without shallow health is left to golden probes");
}

fn grpc(body: &'static str, status: &str, text: &str) -> Response<Body> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[0][..], &length, body.as_bytes()].concat();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("grpc-message", text.parse().unwrap());
    let frames = [http_body::Frame::data(bytes::Bytes::from(message)), http_body::Frame::trailers(trailers)];
    let frames = futures::stream::iter(frames.map(Ok::<_, Infallible>));
    Response::new(Body::new(http_body_util::StreamBody::new(frames)))
}

/// Hears raw samples in one message.
fn hear(body: &[u8]) -> Response<Body> {
    let heard = [CLIP_A, CLIP_B].into_iter().find(|clip| body.get(5..) == Some(&clip.wav[44..]));
    grpc(heard.unwrap().words, "0", "")
}

#[tokio::test]
async fn probes_alternate_over_the_protocols_and_every_clip_meets_each() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    let (url, _server) = serve(move |path, body| {
        log.lock().push(path.to_owned());
        if path == "/plain/transcribe" { hear(body) } else { listen(body) }
    })
    .await;
    let prober = probing(&url, |_| two_transports());
    for which in [Which::SttA, Which::SttB, Which::SttA, Which::SttB] {
        let outcome = probe(&prober, which, DEADLINE).await;
        assert_eq!(outcome.result, Ok(()), "{which:?} in {}", outcome.protocol);
    }
    let (http, grpc) = ("/v1/audio/transcriptions", "/plain/transcribe");
    assert_eq!(*asked.lock(), [http, grpc, grpc, http]);
}

#[tokio::test]
async fn a_protocol_that_fails_is_probed_until_it_passes() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let fault = broken.clone();
    let (url, _server) = serve(move |path, body| match path {
        "/plain/transcribe" if fault.load(std::sync::atomic::Ordering::Relaxed) => {
            grpc("", "13", "CUDA error%3A misaligned address")
        }
        "/plain/transcribe" => hear(body),
        _ => listen(body),
    })
    .await;
    let prober = probing(&url, |_| two_transports());
    let mut outcomes = Vec::new();
    for at in 0..6 {
        if at == 4 {
            broken.store(false, std::sync::atomic::Ordering::Relaxed);
        }
        let which = if at % 2 == 0 { Which::SttA } else { Which::SttB };
        let outcome = probe(&prober, which, DEADLINE).await;
        outcomes.push((outcome.protocol, outcome.result.is_ok()));
        if let Err(failure) = outcome.result {
            let finding = Finding { class: Class::Sticky, signature: Some("misaligned_address".into()) };
            assert_eq!(failure, Failure::Status { status: 500, finding: Some(finding) });
        }
    }
    let failed = ("plain", false);
    assert_eq!(outcomes[..5], [("parakeet", true), failed, failed, failed, ("plain", true)]);
    assert!(outcomes[5].1);
}
