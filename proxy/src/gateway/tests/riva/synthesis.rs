//! Speech, whole and as it is made.

use std::time::Duration;

use http::HeaderMap;

use super::client::{Client, metadata};
use super::{SYNTHESIZE, SYNTHESIZE_ONLINE};
use crate::gateway::tests::stack::{Stack, samples};
use crate::grpc::{Code, Status};
use crate::riva_proto::tts::{SynthesizeSpeechRequest, SynthesizeSpeechResponse, ZeroShotData};
use crate::riva_proto::{AudioEncoding, RequestId};

fn request(text: &str) -> SynthesizeSpeechRequest {
    SynthesizeSpeechRequest {
        text: text.into(),
        language_code: "en-US".into(),
        encoding: AudioEncoding::LinearPcm.into(),
        sample_rate_hz: 24_000,
        ..SynthesizeSpeechRequest::default()
    }
}

async fn speak(stack: &Stack, request: &SynthesizeSpeechRequest) -> Result<SynthesizeSpeechResponse, Status> {
    Client::connect(stack).await.unary(SYNTHESIZE, request, HeaderMap::new()).await
}

#[tokio::test]
async fn a_text_comes_back_as_samples_with_what_was_said() {
    let stack = Stack::start().await;
    let wanted = SynthesizeSpeechRequest {
        voice_name: "Magpie-Multilingual.EN-US.Mia.Angry".into(),
        custom_dictionary: "Mia  ˈmiːə".into(),
        id: Some(RequestId { value: "mine".into() }),
        ..request(" Hi there. ")
    };
    let response = speak(&stack, &wanted).await.unwrap();
    assert_eq!((response.audio.as_ref(), &response.id), (&samples()[..], &wanted.id));
    let meta = response.meta.unwrap();
    assert_eq!((meta.text.as_str(), meta.processed_text.as_str()), (" Hi there. ", "Hi there."));
    let seen = stack.engines[1].seen.lock()[0].clone();
    for (field, value) in [
        ("text", "Hi there."),
        ("voice", "Magpie-Multilingual.EN-US.Mia.Angry"),
        ("language", "en-US"),
        ("sample_rate_hz", "24000"),
        ("custom_dictionary", "Mia  ˈmiːə"),
    ] {
        assert_eq!(seen.field(field).as_deref(), Some(value), "{field}");
    }
    assert_eq!(stack.counted("speechstack_gateway_audio_seconds_total", "tts"), 0.1);
}

#[tokio::test]
async fn encodings_are_those_of_the_request() {
    let stack = Stack::start().await;
    for (encoding, rate, magic) in
        [(AudioEncoding::Oggopus, 24_000, &b"OggS"[..]), (AudioEncoding::Flac, 24_000, b"fLaC")]
    {
        let wanted =
            SynthesizeSpeechRequest { encoding: encoding.into(), sample_rate_hz: rate, ..request("Hi.") };
        assert!(speak(&stack, &wanted).await.unwrap().audio.starts_with(magic), "{encoding:?}");
    }
    let unset = SynthesizeSpeechRequest { sample_rate_hz: 0, encoding: 0, ..request("Hi.") };
    speak(&stack, &unset).await.unwrap();
    assert_eq!(stack.engines[1].seen.lock()[2].field("sample_rate_hz").as_deref(), Some("22050"));
}

#[tokio::test]
async fn a_language_alone_finds_its_voice() {
    let stack = Stack::start().await;
    for (language, voice) in [
        ("es-US", "Magpie-Multilingual.ES-US.Diego"),
        ("es", "Magpie-Multilingual.ES-US.Diego"),
        ("en-US", "Magpie-Multilingual.EN-US.Mia"),
        ("", "Magpie-Multilingual.EN-US.Mia"),
    ] {
        let wanted = SynthesizeSpeechRequest { language_code: language.into(), ..request("Hi.") };
        speak(&stack, &wanted).await.unwrap();
        let seen = stack.engines[1].seen.lock().last().unwrap().clone();
        assert_eq!(seen.field("voice").as_deref(), Some(voice), "{language}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_name() {
    let stack = Stack::start().await;
    let prompt = ZeroShotData { audio_prompt: vec![1].into(), ..ZeroShotData::default() };
    for (wrong, field) in [
        (request(" "), "text"),
        (request(&"a".repeat(4097)), "text"),
        (SynthesizeSpeechRequest { voice_name: "Unknown".into(), ..request("Hi.") }, "Unknown"),
        (SynthesizeSpeechRequest { language_code: "fr-FR".into(), ..request("Hi.") }, "fr-FR"),
        (SynthesizeSpeechRequest { sample_rate_hz: 1, ..request("Hi.") }, "sample_rate_hz"),
        (SynthesizeSpeechRequest { encoding: 3, ..request("Hi.") }, "encoding"),
        (SynthesizeSpeechRequest { encoding: 99, ..request("Hi.") }, "encoding"),
        (SynthesizeSpeechRequest { zero_shot_data: Some(prompt), ..request("Hi.") }, "zero_shot_data"),
    ] {
        let ended = speak(&stack, &wrong).await.unwrap_err();
        assert_eq!(ended.code, Code::InvalidArgument, "{field}");
        assert!(ended.message.contains(field), "{field}: {}", ended.message);
        let mut client = Client::connect(&stack).await;
        let (pieces, ended) = client
            .call(SYNTHESIZE_ONLINE, vec![wrong], HeaderMap::new())
            .await
            .all::<SynthesizeSpeechResponse>()
            .await;
        assert_eq!((pieces.len(), ended.unwrap().code), (0, Code::InvalidArgument), "{field}");
    }
    assert_eq!(stack.complete(), 0);
}

#[tokio::test]
async fn the_first_piece_leaves_before_the_engine_is_done() {
    let stack = Stack::start().await;
    let engine = stack.engines[1].stream();
    let mut client = Client::connect(&stack).await;
    let mut answer = client.call(SYNTHESIZE_ONLINE, vec![request("Hi.")], HeaderMap::new()).await;
    engine.send(Ok(samples().into())).await.unwrap();
    let first = answer.next::<SynthesizeSpeechResponse>().await.unwrap().unwrap();
    assert_eq!((first.audio.as_ref(), first.meta.unwrap().text.as_str()), (&samples()[..], "Hi."));
    engine.send(Ok(samples().into())).await.unwrap();
    let second = answer.next::<SynthesizeSpeechResponse>().await.unwrap().unwrap();
    assert_eq!((second.audio.as_ref(), second.meta), (&samples()[..], None));
    drop(engine);
    assert!(answer.next::<SynthesizeSpeechResponse>().await.is_none());
}

#[tokio::test]
async fn texts_of_one_call_are_spoken_one_after_the_other_as_they_come() {
    let stack = Stack::start().await;
    let mut client = Client::connect(&stack).await;
    let (mut sending, mut answer) = client.open(SYNTHESIZE_ONLINE, HeaderMap::new()).await;
    for text in ["One.", "Two."] {
        sending.send(&request(text)).await;
        let piece = answer.next::<SynthesizeSpeechResponse>().await.unwrap().unwrap();
        assert_eq!(piece.meta.unwrap().text, text);
    }
    drop(sending);
    assert!(answer.next::<SynthesizeSpeechResponse>().await.is_none());
    let spoken: Vec<_> =
        stack.engines[1].seen.lock().iter().map(|seen| seen.field("text").unwrap()).collect();
    assert_eq!(spoken, ["One.", "Two."]);
    let (_, ended) = client
        .call(SYNTHESIZE_ONLINE, Vec::<SynthesizeSpeechRequest>::new(), HeaderMap::new())
        .await
        .all::<SynthesizeSpeechResponse>()
        .await;
    assert_eq!(ended.unwrap().code, Code::InvalidArgument);
}

#[tokio::test]
async fn a_client_that_leaves_or_whose_deadline_passes_frees_the_engine() {
    let stack = Stack::start().await;
    for headers in [HeaderMap::new(), metadata(&[("grpc-timeout", "500m")])] {
        let leaves = headers.is_empty();
        let engine = stack.engines[1].stream();
        let mut client = Client::connect(&stack).await;
        let mut answer = client.call(SYNTHESIZE_ONLINE, vec![request("Hi.")], headers).await;
        engine.send(Ok(samples().into())).await.unwrap();
        answer.next::<SynthesizeSpeechResponse>().await.unwrap().unwrap();
        if leaves {
            drop(answer);
        } else {
            let ended = answer.next::<SynthesizeSpeechResponse>().await.unwrap().unwrap_err();
            assert_eq!(ended.code, Code::DeadlineExceeded);
        }
        tokio::time::timeout(Duration::from_secs(20), engine.closed()).await.unwrap();
    }
    // The whole call too, whose reply has not begun.
    let engine = stack.engines[1].stream();
    let mut client = Client::connect(&stack).await;
    let whole = tokio::spawn(async move {
        client.unary::<_, SynthesizeSpeechResponse>(SYNTHESIZE, &request("Hi."), HeaderMap::new()).await
    });
    engine.send(Ok(samples().into())).await.unwrap();
    while !stack.engines[1].canned.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    whole.abort();
    tokio::time::timeout(Duration::from_secs(20), engine.closed()).await.unwrap();
}

#[tokio::test]
async fn speech_that_breaks_off_ends_the_call_with_an_error() {
    let stack = Stack::start().await;
    let engine = stack.engines[1].stream();
    let mut client = Client::connect(&stack).await;
    let mut answer = client.call(SYNTHESIZE_ONLINE, vec![request("Hi.")], HeaderMap::new()).await;
    engine.send(Ok(samples().into())).await.unwrap();
    answer.next::<SynthesizeSpeechResponse>().await.unwrap().unwrap();
    engine.send(Err(std::io::Error::other("gone"))).await.unwrap();
    let ended = answer.next::<SynthesizeSpeechResponse>().await.unwrap().unwrap_err();
    assert_eq!(ended.code, Code::Unavailable);
}
