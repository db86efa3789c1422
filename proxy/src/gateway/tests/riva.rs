//! Riva's clients over gRPC: every call, its errors, deadlines and cancels.

mod client;
mod recognition;
mod streaming;
mod synthesis;

use std::time::Duration;

use contract::Capability;
use http::HeaderMap;

use self::client::{Client, metadata};
use crate::gateway::tests::keys::Keyed;
use crate::gateway::tests::stack::Stack;
use crate::grpc::Code;
use crate::keys::testing::add;
use crate::riva_proto::asr::{
    RecognizeRequest, RecognizeResponse, RivaSpeechRecognitionConfigRequest,
    RivaSpeechRecognitionConfigResponse, StreamingRecognizeRequest, StreamingRecognizeResponse,
};
use crate::riva_proto::health::{HealthCheckRequest, HealthCheckResponse};
use crate::riva_proto::tts::{RivaSynthesisConfigRequest, RivaSynthesisConfigResponse};

const RECOGNIZE: &str = "/nvidia.riva.asr.RivaSpeechRecognition/Recognize";
const STREAMING_RECOGNIZE: &str = "/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize";
const SYNTHESIZE: &str = "/nvidia.riva.tts.RivaSpeechSynthesis/Synthesize";
const SYNTHESIZE_ONLINE: &str = "/nvidia.riva.tts.RivaSpeechSynthesis/SynthesizeOnline";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

fn service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.into() }
}

#[tokio::test]
async fn health_is_that_of_the_gateway_or_of_a_service() {
    let stack = Stack::with(&[Capability::Stt], |config| config.gateway.max_in_flight = 0).await;
    let mut client = Client::connect(&stack).await;
    let mut status = async |name: &str| {
        client.unary::<_, HealthCheckResponse>(CHECK, &service(name), HeaderMap::new()).await
    };
    for serving in ["", "nvidia.riva.asr.RivaSpeechRecognition"] {
        // Without a permit: load says nothing about health.
        assert_eq!(status(serving).await.unwrap().status, 1, "{serving}");
    }
    let synthesis = "nvidia.riva.tts.RivaSpeechSynthesis";
    assert_eq!(status(synthesis).await.unwrap().status, 2, "there is no such engine");
    assert_eq!(status("riva").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn where_keys_are_asked_for_calls_need_one_and_health_needs_none() {
    let (keyed, alice) = Keyed::start().await;
    let forms = add(&keyed.path, "forms", |record| record.scopes.dialects = vec!["openai".into()]);
    keyed.until(&forms, 200).await;
    let mut client = Client::connect(&keyed.stack).await;
    let health = client.unary::<_, HealthCheckResponse>(CHECK, &service(""), HeaderMap::new()).await;
    assert_eq!(health.unwrap().status, 1);
    let recognize = RecognizeRequest::default();
    let asked = StreamingRecognizeRequest::default();
    for (key, expected) in [
        (None, Code::Unauthenticated),
        (Some("sk-ss-0123456789abcdef_wrong"), Code::Unauthenticated),
        (Some(forms.as_str()), Code::PermissionDenied),
        // Let in, and refused for what it asks.
        (Some(alice.as_str()), Code::InvalidArgument),
    ] {
        let bearer = key.map(|key| format!("Bearer {key}"));
        let with = |bearer: &Option<String>| {
            bearer.as_ref().map_or_else(HeaderMap::new, |bearer| metadata(&[("authorization", bearer)]))
        };
        let refused = client.unary::<_, RecognizeResponse>(RECOGNIZE, &recognize, with(&bearer)).await;
        assert_eq!(refused.unwrap_err().code, expected, "{key:?}");
        let mut streamed = client.call(STREAMING_RECOGNIZE, vec![asked.clone()], with(&bearer)).await;
        let (none, ended) = streamed.all::<StreamingRecognizeResponse>().await;
        assert_eq!((none.len(), ended.unwrap().code), (0, expected), "{key:?}");
    }
}

#[tokio::test]
async fn a_watched_state_comes_at_once_and_when_it_changes_and_ends_with_the_gateway() {
    let stack = Stack::start().await;
    let mut client = Client::connect(&stack).await;
    let mut watched = client.call(WATCH, vec![service("")], HeaderMap::new()).await;
    assert_eq!(watched.next::<HealthCheckResponse>().await.unwrap().unwrap().status, 1);
    stack.drain.announce();
    assert_eq!(watched.next::<HealthCheckResponse>().await.unwrap().unwrap().status, 2);
    assert_eq!(stack.drain.finish(Duration::from_secs(20)).await, 0, "no watcher holds a stop");
    assert!(watched.next::<HealthCheckResponse>().await.is_none());
    let unknown = Stack::start().await;
    let mut client = Client::connect(&unknown).await;
    let mut watched = client.call(WATCH, vec![service("riva")], HeaderMap::new()).await;
    assert_eq!(watched.next::<HealthCheckResponse>().await.unwrap().unwrap().status, 3);
}

#[tokio::test]
async fn models_and_voices_are_listed_as_clients_read_them() {
    let stack = Stack::start().await;
    let mut client = Client::connect(&stack).await;
    let recognizers: RivaSpeechRecognitionConfigResponse = client
        .unary(
            "/nvidia.riva.asr.RivaSpeechRecognition/GetRivaSpeechRecognitionConfig",
            &RivaSpeechRecognitionConfigRequest::default(),
            HeaderMap::new(),
        )
        .await
        .unwrap();
    let kinds: Vec<&str> =
        recognizers.model_config.iter().map(|model| model.parameters["type"].as_str()).collect();
    assert_eq!(kinds, ["offline", "online"]);
    let speakers: RivaSynthesisConfigResponse = client
        .unary(
            "/nvidia.riva.tts.RivaSpeechSynthesis/GetRivaSynthesisConfig",
            &RivaSynthesisConfigRequest::default(),
            HeaderMap::new(),
        )
        .await
        .unwrap();
    let languages: Vec<(&str, &str)> = speakers
        .model_config
        .iter()
        .map(|model| (model.parameters["language_code"].as_str(), model.parameters["subvoices"].as_str()))
        .collect();
    assert_eq!(
        languages,
        [("en-US", "EN-US.Mia:0,EN-US.Mia.Angry:1,EN-US.Sofia:2"), ("es-US", "ES-US.Diego:0")]
    );
}

#[tokio::test]
async fn what_is_no_call_is_told_so_and_counted_under_one_route() {
    let stack = Stack::start().await;
    let mut client = Client::connect(&stack).await;
    let ended = client.unary::<_, HealthCheckResponse>("/a.B/C", &service(""), HeaderMap::new()).await;
    let ended = ended.unwrap_err();
    assert_eq!(ended.code, Code::Unimplemented);
    assert!(ended.message.contains("/a.B/C"), "{}", ended.message);
    assert_eq!(stack.counted("speechstack_gateway_requests_total", "unmatched"), 1.0);
    for (name, value, code) in
        [("grpc-timeout", "soon", Code::InvalidArgument), ("grpc-encoding", "gzip", Code::Unimplemented)]
    {
        let ended =
            client.unary::<_, HealthCheckResponse>(CHECK, &service(""), metadata(&[(name, value)])).await;
        assert_eq!(ended.unwrap_err().code, code, "{name}");
    }
    // A request that is not one of gRPC goes the way of all others.
    assert_eq!(stack.post(CHECK).body("{}").send().await.unwrap().status(), 404);
}
