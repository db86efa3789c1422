//! Whole recordings.

use std::time::Duration;

use bytes::Bytes;
use contract::Capability;
use http::HeaderMap;

use super::RECOGNIZE;
use super::client::{Client, metadata};
use crate::gateway::tests::stack::{DIARIZE, Stack, TRANSCRIBE, wav};
use crate::grpc::{Code, Status, open_frame};
use crate::riva_proto::asr::{
    RecognitionConfig, RecognizeRequest, RecognizeResponse, SpeakerDiarizationConfig, SpeechContext,
};
use crate::riva_proto::{AudioEncoding, RequestId};

/// A second of sound as samples without a header.
pub fn request(config: RecognitionConfig) -> RecognizeRequest {
    let audio = Bytes::from(wav(32_000)).slice(44..);
    RecognizeRequest { config: Some(config), audio, id: None }
}

pub fn config() -> RecognitionConfig {
    RecognitionConfig {
        encoding: AudioEncoding::LinearPcm.into(),
        sample_rate_hertz: 16_000,
        language_code: "en-US".into(),
        ..RecognitionConfig::default()
    }
}

async fn recognize(stack: &Stack, request: &RecognizeRequest) -> Result<RecognizeResponse, Status> {
    Client::connect(stack).await.unary(RECOGNIZE, request, HeaderMap::new()).await
}

#[tokio::test]
async fn samples_become_a_file_and_a_transcript_comes_back_with_words() {
    let stack = Stack::start().await;
    let contexts = SpeechContext { phrases: vec!["Ada".into(), "Grace Hopper".into()], boost: 20.0 };
    let mut request = request(RecognitionConfig {
        enable_word_time_offsets: true,
        enable_automatic_punctuation: true,
        max_alternatives: 3,
        speech_contexts: vec![contexts],
        model: "parakeet-1.1b-ctc-en-us".into(),
        ..config()
    });
    request.id = Some(RequestId { value: "mine".into() });
    let mut client = Client::connect(&stack).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let sent = metadata(&[
        ("x-request-id", "abc-1"),
        ("traceparent", trace),
        ("authorization", "Bearer x"),
        ("function-id", "y"),
    ]);
    let mut answer = client.call(RECOGNIZE, vec![request.clone()], sent).await;
    assert_eq!(answer.headers["x-request-id"], "abc-1");
    let (messages, ended) = answer.all::<RecognizeResponse>().await;
    assert_eq!((messages.len(), ended), (1, None));
    assert_eq!(messages[0].id, request.id);
    let [result] = &messages[0].results[..] else { panic!("{messages:?}") };
    assert_eq!((result.channel_tag, result.audio_processed), (1, 2.5));
    let alternative = &result.alternatives[0];
    assert_eq!(alternative.transcript, "So it is. Yes. ");
    assert_eq!(alternative.language_code, ["en-US"]);
    let words: Vec<_> =
        alternative.words.iter().map(|word| (word.word.as_str(), word.start_time, word.end_time)).collect();
    assert_eq!(words, [("So", 100, 400), ("it", 500, 700), ("is.", 700, 1500), ("Yes.", 1500, 1900)]);
    assert!(alternative.words.iter().all(|word| word.speaker_tag == 0 && word.confidence == 0.0));

    let seen = stack.engines[0].seen.lock()[0].clone();
    assert_eq!((seen.path.as_str(), seen.headers["x-request-id"].to_str().unwrap()), (TRANSCRIBE, "abc-1"));
    assert_eq!(seen.headers["traceparent"], trace);
    assert!(
        seen.file().starts_with(b"RIFF") && seen.file().ends_with(&wav(32_000)[44..]),
        "samples with a header"
    );
    assert_eq!(seen.field("language").as_deref(), Some("en-US"));
    assert_eq!(seen.field("prompt").as_deref(), Some("Ada, Grace Hopper"));
    assert_eq!(stack.counted("speechstack_gateway_requests_total", RECOGNIZE), 1.0);
    assert_eq!(stack.counted("speechstack_gateway_audio_seconds_total", "stt"), 2.5);
}

#[tokio::test]
async fn files_go_as_they_are_whatever_the_request_calls_them() {
    let stack = Stack::start().await;
    for encoding in [AudioEncoding::EncodingUnspecified, AudioEncoding::LinearPcm, AudioEncoding::Flac] {
        let config = RecognitionConfig { encoding: encoding.into(), ..RecognitionConfig::default() };
        let request = RecognizeRequest { config: Some(config), audio: wav(32_000).into(), id: None };
        let response = recognize(&stack, &request).await.unwrap();
        assert!(response.results[0].alternatives[0].words.is_empty(), "none were asked for");
        let file = stack.engines[0].seen.lock().last().unwrap().file();
        assert!(file.len() == 32_044 && file.ends_with(&wav(32_000)[44..]), "{encoding:?}");
    }
}

#[tokio::test]
async fn speakers_have_tags() {
    let stack = Stack::start().await;
    let diarization = SpeakerDiarizationConfig { enable_speaker_diarization: true, max_speaker_count: 4 };
    let request = request(RecognitionConfig { diarization_config: Some(diarization), ..config() });
    let response = recognize(&stack, &request).await.unwrap();
    let tags: Vec<_> =
        response.results[0].alternatives[0].words.iter().map(|word| word.speaker_tag).collect();
    assert_eq!(tags, [1, 1, 1, 2]);
    let paths: Vec<_> = stack.engines[0].seen.lock().iter().map(|seen| seen.path.clone()).collect();
    assert_eq!(paths, [TRANSCRIBE, DIARIZE]);
}

#[tokio::test]
async fn nothing_heard_is_no_result() {
    let stack = Stack::start().await;
    stack.engines[0].answer(200, &[], r#"{"text": " "}"#);
    assert_eq!(recognize(&stack, &request(config())).await.unwrap().results, []);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_name_and_reaches_no_engine() {
    let stack = Stack::start().await;
    let empty = RecognizeRequest { config: Some(config()), ..RecognizeRequest::default() };
    let no_config = RecognizeRequest { audio: Bytes::from_static(b"1234"), ..RecognizeRequest::default() };
    let opus = RecognitionConfig { encoding: AudioEncoding::Oggopus.into(), ..config() };
    for (wrong, field) in [
        (empty, "audio"),
        (no_config, "config"),
        (request(opus), "encoding"),
        (request(RecognitionConfig { sample_rate_hertz: 0, ..config() }), "sample_rate_hertz"),
        (request(RecognitionConfig { language_code: "klingon".into(), ..config() }), "language code"),
        (request(RecognitionConfig { profanity_filter: true, ..config() }), "profanity_filter"),
    ] {
        let ended = recognize(&stack, &wrong).await.unwrap_err();
        assert_eq!(ended.code, Code::InvalidArgument, "{field}");
        assert!(ended.message.contains(field), "{field}: {}", ended.message);
    }
    let mut client = Client::connect(&stack).await;
    for garbage in [&b"\0\0\0\0\x02\x0a\x05"[..], b"\x01\0\0\0\0", b"\x07\0\0\0\0", b""] {
        let frames = vec![Bytes::from_static(garbage)];
        let (_, ended) =
            client.raw(RECOGNIZE, frames, HeaderMap::new()).await.all::<RecognizeResponse>().await;
        assert_eq!(ended.unwrap().code, Code::InvalidArgument, "{garbage:?}");
    }
    assert_eq!(stack.complete(), 0);
    assert_eq!(stack.counted("speechstack_gateway_requests_total", "4xx"), 10.0, "by the call's own status");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_by_its_length() {
    let stack = Stack::with(&[Capability::Stt], |config| {
        config.gateway.grpc.max_message = bytesize::ByteSize::kib(32)
    })
    .await;
    let mut client = Client::connect(&stack).await;
    let large = open_frame(&[], 32 * 1024 + 1).unwrap();
    let mut answer = client.raw(RECOGNIZE, vec![large], HeaderMap::new()).await;
    let ended = answer.next::<RecognizeResponse>().await.unwrap().unwrap_err();
    assert_eq!(ended.code, Code::ResourceExhausted);
    assert!(ended.message.contains("larger than max"), "{}", ended.message);
    assert!(recognize(&stack, &request(config())).await.is_ok(), "and one below it is not");
}

#[tokio::test]
async fn what_engines_answer_becomes_codes() {
    let stack = Stack::with(&[Capability::Stt], |config| config.gateway.wait.max_wait = Duration::ZERO).await;
    for (status, code) in [
        (400, Code::InvalidArgument),
        (422, Code::InvalidArgument),
        (413, Code::ResourceExhausted),
        (500, Code::Unavailable),
    ] {
        for _ in 0..3 {
            stack.engines[0].answer(status, &[], r#"{"detail": "the engine's words"}"#);
        }
        let mut client = Client::connect(&stack).await;
        let mut answer = client.call(RECOGNIZE, vec![request(config())], HeaderMap::new()).await;
        let ended = answer.next::<RecognizeResponse>().await.unwrap().unwrap_err();
        assert_eq!(ended.code, code, "{status}");
        let told = answer.headers.contains_key("grpc-retry-pushback-ms");
        assert_eq!(told, code == Code::Unavailable, "{status}");
        if code == Code::InvalidArgument {
            assert!(ended.message.contains("the engine's words"), "{}", ended.message);
        }
        stack.engines[0].canned.lock().clear();
    }
}

#[tokio::test]
async fn a_full_gateway_refuses_in_the_terms_of_grpc() {
    let stack = Stack::with(&[Capability::Stt], |config| config.gateway.max_in_flight = 0).await;
    let mut client = Client::connect(&stack).await;
    let mut answer = client.call(RECOGNIZE, vec![request(config())], HeaderMap::new()).await;
    let ended = answer.next::<RecognizeResponse>().await.unwrap().unwrap_err();
    assert_eq!(ended.code, Code::ResourceExhausted);
    assert!(answer.headers.contains_key("grpc-retry-pushback-ms"));
    assert_eq!(stack.complete(), 0);
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let stack = Stack::start().await;
    *stack.engines[0].pace.lock() = Duration::from_secs(60);
    let mut client = Client::connect(&stack).await;
    let mut answer =
        client.call(RECOGNIZE, vec![request(config())], metadata(&[("grpc-timeout", "300m")])).await;
    let ended = answer.next::<RecognizeResponse>().await.unwrap().unwrap_err();
    assert_eq!(ended.code, Code::DeadlineExceeded);
    assert_eq!(stack.counted("speechstack_gateway_requests_total", "5xx"), 1.0);
}

#[tokio::test]
async fn an_engine_that_fails_is_made_up_for_by_another_one() {
    let stack = Stack::with(&[Capability::Stt, Capability::Stt], |_| {}).await;
    let headers = [("x-speechstack-class", "A"), ("x-speechstack-retry", "elsewhere")];
    stack.engines[0].answer(500, &headers, "CUBLAS_STATUS_EXECUTION_FAILED");
    while stack.engines[0].complete() == 0 {
        assert!(recognize(&stack, &request(config())).await.is_ok());
    }
}
