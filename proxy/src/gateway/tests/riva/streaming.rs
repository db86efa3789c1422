//! Speech while it is spoken.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use contract::Capability;
use http::HeaderMap;

use super::client::{Answer, Client, Sending};
use super::recognition::config;
use super::{STREAMING_RECOGNIZE, SYNTHESIZE_ONLINE};
use crate::audio::signal;
use crate::audio::wav;
use crate::gateway::tests::stack::Stack;
use crate::grpc::{Code, Status};
use crate::riva_proto::asr::streaming_recognize_request::StreamingRequest;
use crate::riva_proto::asr::{
    EndpointingConfig, RecognitionConfig, StreamingRecognitionConfig, StreamingRecognitionResult,
    StreamingRecognizeRequest, StreamingRecognizeResponse,
};
use crate::riva_proto::{AudioEncoding, RequestId};

fn first(config: RecognitionConfig) -> StreamingRecognizeRequest {
    let streaming = StreamingRecognitionConfig { config: Some(config), interim_results: true };
    StreamingRecognizeRequest {
        streaming_request: Some(StreamingRequest::StreamingConfig(streaming)),
        id: Some(RequestId { value: "mine".into() }),
        ..StreamingRecognizeRequest::default()
    }
}

fn audio(bytes: impl Into<Bytes>) -> StreamingRecognizeRequest {
    StreamingRecognizeRequest {
        streaming_request: Some(StreamingRequest::AudioContent(bytes.into())),
        ..StreamingRecognizeRequest::default()
    }
}

/// So many seconds of what passes for speech, and after it of silence.
fn utterance(speech: f64, silence: f64) -> Vec<u8> {
    let spoken = signal::speech(16_000, speech);
    let silent = vec![0; (silence * 16_000.0) as usize];
    spoken.into_iter().chain(silent).flat_map(i16::to_le_bytes).collect()
}

async fn begin(stack: &Stack, config: RecognitionConfig) -> (Sending, Answer) {
    let mut client = Client::connect(stack).await;
    let (mut sending, answer) = client.open(STREAMING_RECOGNIZE, HeaderMap::new()).await;
    sending.send(&first(config)).await;
    (sending, answer)
}

async fn all(answer: &mut Answer) -> (Vec<StreamingRecognitionResult>, Option<Status>) {
    let (responses, ended) = answer.all::<StreamingRecognizeResponse>().await;
    assert!(responses.iter().all(|response| response.id.as_ref().is_some_and(|id| id.value == "mine")));
    (responses.into_iter().flat_map(|response| response.results).collect(), ended)
}

fn sessions(stack: &Stack) -> f64 {
    let families = stack.registry.gather();
    let family = families.iter().find(|family| family.name() == "speechstack_gateway_sessions").unwrap();
    family.get_metric().iter().map(|metric| metric.get_gauge().get_value()).sum()
}

#[tokio::test]
async fn interim_results_come_while_it_is_spoken_and_a_final_one_with_words_when_it_has_ended() {
    let stack = Stack::start().await;
    let (mut sending, mut answer) =
        begin(&stack, RecognitionConfig { enable_word_time_offsets: true, ..config() }).await;
    let spoken = utterance(2.0, 1.5);
    let (begun, rest) = spoken.split_at(48_000);
    sending.send(&audio(begun.to_vec())).await;
    let interim = answer.next::<StreamingRecognizeResponse>().await.unwrap().unwrap();
    let [result] = &interim.results[..] else { panic!("{interim:?}") };
    assert!(!result.is_final && (0.0..=1.0).contains(&result.stability), "{result:?}");
    assert_eq!(result.alternatives[0].transcript, "So it is. ", "the last word may be cut");
    assert_eq!(sessions(&stack), 1.0);
    sending.send(&audio(rest.to_vec())).await;
    let last = loop {
        let response = answer.next::<StreamingRecognizeResponse>().await.unwrap().unwrap();
        if response.results[0].is_final {
            break response.results[0].clone();
        }
    };
    assert_eq!((last.stability, last.channel_tag), (1.0, 1));
    assert!((1.5..=3.5).contains(&last.audio_processed), "{last:?}");
    let words = &last.alternatives[0].words;
    assert_eq!(words.len(), 4);
    assert_eq!(words[1].start_time - words[0].start_time, 400);
    drop(sending);
    let (rest, ended) = all(&mut answer).await;
    assert!(rest.is_empty() && ended.is_none(), "{rest:?} {ended:?}");
    drop(answer);
    while sessions(&stack) > 0.0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn the_end_of_the_audio_ends_the_utterance_and_so_does_the_client() {
    let stack = Stack::start().await;
    let (mut sending, mut answer) = begin(&stack, config()).await;
    let mut forced = audio(utterance(1.0, 0.0));
    forced.runtime_config = HashMap::from([("force_eou".to_owned(), "true".to_owned())]);
    sending.send(&forced).await;
    while !answer.next::<StreamingRecognizeResponse>().await.unwrap().unwrap().results[0].is_final {}
    sending.send(&audio(utterance(1.0, 0.0))).await;
    drop(sending);
    let (results, ended) = all(&mut answer).await;
    assert_eq!((results.iter().filter(|result| result.is_final).count(), ended), (1, None));
}

#[tokio::test]
async fn a_file_brings_its_own_format_and_silence_no_result() {
    let stack = Stack::start().await;
    let file = [&wav::header(16_000, 1, None)[..], &utterance(1.0, 1.0)].concat();
    for config in [config(), RecognitionConfig::default()] {
        let (mut sending, mut answer) = begin(&stack, config).await;
        for piece in file.chunks(30_000) {
            sending.send(&audio(piece.to_vec())).await;
        }
        drop(sending);
        let (results, ended) = all(&mut answer).await;
        assert_eq!((results.iter().filter(|result| result.is_final).count(), ended), (1, None));
    }
    let (mut sending, mut answer) = begin(&stack, config()).await;
    sending.send(&audio(vec![0; 64_000])).await;
    drop(sending);
    assert_eq!(all(&mut answer).await, (Vec::new(), None));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_name() {
    let stack = Stack::start().await;
    let endless = EndpointingConfig { stop_history: Some(99_999), ..EndpointingConfig::default() };
    for (config, field) in [
        (RecognitionConfig { audio_channel_count: 2, ..config() }, "audio_channel_count"),
        (RecognitionConfig { encoding: AudioEncoding::Flac.into(), ..config() }, "encoding"),
        (RecognitionConfig { sample_rate_hertz: 7, ..config() }, "sample_rate_hertz"),
        (RecognitionConfig { sample_rate_hertz: 0, ..config() }, "sample_rate_hertz"),
        (RecognitionConfig { endpointing_config: Some(endless), ..config() }, "stop_history"),
    ] {
        let (mut sending, mut answer) = begin(&stack, config).await;
        sending.send(&audio(vec![1; 100])).await;
        let (results, ended) = all(&mut answer).await;
        let ended = ended.unwrap();
        assert_eq!((results.len(), ended.code), (0, Code::InvalidArgument), "{field}");
        assert!(ended.message.contains(field), "{field}: {}", ended.message);
    }
    let mut client = Client::connect(&stack).await;
    for wrong in [vec![], vec![audio(vec![1; 100])], vec![first(config()), first(config())]] {
        let mut answer = client.call(STREAMING_RECOGNIZE, wrong, HeaderMap::new()).await;
        let ended = answer.next::<StreamingRecognizeResponse>().await.unwrap().unwrap_err();
        assert_eq!(ended.code, Code::InvalidArgument);
        assert!(ended.message.contains("streaming_config"), "{}", ended.message);
    }
}

#[tokio::test]
async fn sessions_are_limited_and_one_that_is_idle_ends() {
    let stack = Stack::with(&[Capability::Stt], |config| {
        config.gateway.sessions.max = 1;
        config.gateway.sessions.idle_timeout = Duration::from_millis(300);
    })
    .await;
    let (_sending, mut answer) = begin(&stack, config()).await;
    let mut client = Client::connect(&stack).await;
    let (_second, mut refused) = client.open(STREAMING_RECOGNIZE, HeaderMap::new()).await;
    let ended = refused.next::<StreamingRecognizeResponse>().await.unwrap().unwrap_err();
    assert_eq!(ended.code, Code::ResourceExhausted);
    let (_, ended) = all(&mut answer).await;
    assert_eq!(ended.unwrap().code, Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_stop_brings_the_last_text_and_asks_to_connect_again() {
    let stack = Stack::start().await;
    let (mut sending, mut answer) = begin(&stack, config()).await;
    sending.send(&audio(utterance(1.5, 0.0))).await;
    answer.next::<StreamingRecognizeResponse>().await.unwrap().unwrap();
    let drain = stack.drain.clone();
    let stopping = tokio::spawn(async move { drain.finish(Duration::from_secs(20)).await });
    let (results, ended) = all(&mut answer).await;
    assert_eq!(results.iter().filter(|result| result.is_final).count(), 1);
    assert_eq!(ended.unwrap().code, Code::Unavailable);
    drop((sending, answer));
    assert_eq!(stopping.await.unwrap(), 0);
}

#[tokio::test]
async fn calls_in_which_nothing_was_said_hold_no_stop() {
    let stack = Stack::start().await;
    let mut client = Client::connect(&stack).await;
    let (hearing, mut heard) = client.open(STREAMING_RECOGNIZE, HeaderMap::new()).await;
    let (speaking, mut spoken) = client.open(SYNTHESIZE_ONLINE, HeaderMap::new()).await;
    let drain = stack.drain.clone();
    let stopping = tokio::spawn(async move { drain.finish(Duration::from_secs(60)).await });
    for answer in [&mut heard, &mut spoken] {
        let ended = answer.next::<StreamingRecognizeResponse>().await.unwrap().unwrap_err();
        assert_eq!(ended.code, Code::Unavailable);
    }
    drop((hearing, speaking, heard, spoken));
    assert_eq!(stopping.await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_session() {
    let stack = Stack::start().await;
    *stack.engines[0].pace.lock() = Duration::from_secs(60);
    let (mut sending, answer) = begin(&stack, config()).await;
    sending.send(&audio(utterance(1.5, 0.0))).await;
    while stack.engines[0].begun() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop((sending, answer));
    let ended = async {
        while sessions(&stack) > 0.0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_refuses_the_audio_ends_the_call_with_its_words() {
    let stack = Stack::with(&[Capability::Stt], |config| config.gateway.retry.attempts = 1).await;
    let (mut sending, mut answer) = begin(&stack, config()).await;
    for _ in 0..8 {
        stack.engines[0].answer(422, &[], r#"{"detail": "no such language"}"#);
    }
    sending.send(&audio(utterance(1.0, 1.5))).await;
    let (_, ended) = all(&mut answer).await;
    let ended = ended.unwrap();
    assert_eq!(ended.code, Code::InvalidArgument);
    assert!(ended.message.contains("no such language"), "{}", ended.message);
}
