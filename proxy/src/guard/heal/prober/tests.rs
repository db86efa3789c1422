use std::convert::Infallible;

use axum::body::{Body, to_bytes};
use axum::response::IntoResponse;
use http::{Request, Response};
use hyper::body::Incoming;
use memchr::memmem;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::audio::quality;
use crate::guard::heal::prober::*;
use crate::net::drain::Drain;

const DEADLINE: Duration = Duration::from_secs(10);

/// An engine that answers by path and body.
async fn engine(
    answer: impl Fn(&str, &[u8]) -> Response<Body> + Clone + Send + Sync + 'static,
) -> (Prober, AbortOnDropHandle<()>) {
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
    (prober(&url), AbortOnDropHandle::new(server))
}

fn prober(url: &str) -> Prober {
    Prober::new(url, None, &config::Probe::default(), Arc::new(Catalogue::new(&[]))).unwrap()
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
        let outcome = prober.probe(which, DEADLINE).await;
        assert_eq!((outcome.which, outcome.result), (which, Ok(())));
    }
}

#[tokio::test]
async fn one_text_for_both_clips_fails_as_such() {
    let (prober, _server) = engine(|_, _| json(200, r#"{"text":"thank you"}"#)).await;
    let outcome = prober.probe(Which::SttA, DEADLINE).await;
    assert_eq!(outcome.result, Err(Failure::Content(golden::Fault::Words { word_error: 1.0 })));
    let outcome = prober.probe(Which::SttB, DEADLINE).await;
    assert_eq!(outcome.result, Err(Failure::Content(golden::Fault::Alike)));
}

#[tokio::test]
async fn what_is_no_transcript_fails() {
    let (prober, _server) = engine(|_, _| json(200, r#"{"text":NaN}"#)).await;
    let outcome = prober.probe(Which::SttA, DEADLINE).await;
    assert_eq!(outcome.result, Err(Failure::Content(golden::Fault::NotTranscript)));
}

#[tokio::test]
async fn an_error_is_classified() {
    let (prober, _server) = engine(|_, _| json(422, r#"{"detail":"CUDA error: misaligned address"}"#)).await;
    let outcome = prober.probe(Which::SttA, DEADLINE).await;
    let finding = Finding { class: Class::Sticky, signature: Some("misaligned_address".into()) };
    assert_eq!(outcome.result, Err(Failure::Status { status: 422, finding: Some(finding) }));
}

#[tokio::test]
async fn speech_is_judged_by_its_sound() {
    let (prober, _server) = engine(|path, body| {
        assert_eq!(path, "/v1/audio/synthesize");
        assert!(memmem::find(body, SENTENCE.as_bytes()).is_some());
        Response::new(Body::from(CLIP_A.wav))
    })
    .await;
    assert_eq!(prober.probe(Which::Tts, DEADLINE).await.result, Ok(()));

    let (prober, _server) = engine(|_, _| {
        let mut silent = CLIP_A.wav.to_vec();
        silent[44..].fill(0);
        Response::new(Body::from(silent))
    })
    .await;
    let outcome = prober.probe(Which::Tts, DEADLINE).await;
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
    let outcome = prober.probe(Which::SttA, Duration::from_millis(50)).await;
    assert_eq!(outcome.result, Err(Failure::Timeout));
    drop(listener);
    let outcome = prober.probe(Which::SttA, DEADLINE).await;
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
    }
    let (prober, _server) = engine(|path, _| json(if path == "/health" { 200 } else { 404 }, "{}")).await;
    assert_eq!(prober.shallow().await, Ok(()));
}
