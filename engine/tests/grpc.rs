//! Riva over gRPC: recognition, synthesis, health, and how faults show as status.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use speechstack_engine::ffi::Voice;
use speechstack_engine::grpc::messages::grpc::health::v1::HealthCheckRequest;
use speechstack_engine::grpc::messages::grpc::health::v1::health_check_response::ServingStatus;
use speechstack_engine::grpc::messages::grpc::health::v1::health_client::HealthClient;
use speechstack_engine::grpc::messages::nvidia::riva::asr::riva_speech_recognition_client::RivaSpeechRecognitionClient;
use speechstack_engine::grpc::messages::nvidia::riva::asr::streaming_recognize_request::StreamingRequest;
use speechstack_engine::grpc::messages::nvidia::riva::asr::{
    RecognitionConfig, RecognizeRequest, RecognizeResponse, RivaSpeechRecognitionConfigRequest,
    SpeakerDiarizationConfig, StreamingRecognitionConfig, StreamingRecognitionResult,
    StreamingRecognizeRequest,
};
use speechstack_engine::grpc::messages::nvidia::riva::tts::riva_speech_synthesis_client::RivaSpeechSynthesisClient;
use speechstack_engine::grpc::messages::nvidia::riva::tts::{
    RivaSynthesisConfigRequest, SynthesizeSpeechRequest, SynthesizeSpeechResponse,
};
use speechstack_engine::grpc::messages::nvidia::riva::{AudioEncoding, RequestId};
use speechstack_engine::kind::Kind;
use support::{Engine, dialogue, level, mode, plain, samples, speech};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const SAID: &str = "good morning";
const TURNS: [&str; 2] =
    ["please call me back tomorrow morning at nine", "the government will announce the new budget next week"];

async fn channel(engine: &Engine) -> Channel {
    Endpoint::from_shared(format!("http://{}", engine.grpc.unwrap())).unwrap().connect().await.unwrap()
}

type Stt = RivaSpeechRecognitionClient<Channel>;
type Tts = RivaSpeechSynthesisClient<Channel>;

async fn stt() -> (Engine, Stt) {
    let engine = Engine::speaking(Kind::Stt, &["riva", "nim_http"], None).await;
    let client = Stt::new(channel(&engine).await);
    (engine, client)
}

async fn tts() -> (Engine, Tts) {
    let engine = Engine::speaking(Kind::Tts, &["riva_tts"], None).await;
    let client = Tts::new(channel(&engine).await);
    (engine, client)
}

/// A configuration for raw samples at 16 kHz.
fn config() -> RecognitionConfig {
    RecognitionConfig {
        encoding: AudioEncoding::LinearPcm.into(),
        sample_rate_hertz: 16_000,
        language_code: "en-US".into(),
        audio_channel_count: 1,
        ..RecognitionConfig::default()
    }
}

async fn recognize(
    client: &Stt,
    config: RecognitionConfig,
    audio: &[u8],
) -> Result<RecognizeResponse, Status> {
    let id = Some(RequestId { value: "mine".into() });
    let request = RecognizeRequest { config: Some(config), audio: Bytes::copy_from_slice(audio), id };
    client.clone().recognize(request).await.map(tonic::Response::into_inner)
}

fn heard(response: &RecognizeResponse) -> String {
    plain(
        &response.results.iter().map(|result| result.alternatives[0].transcript.as_str()).collect::<String>(),
    )
}

/// Streams samples in pieces of 100 ms and collects all results.
async fn stream(
    client: &Stt,
    config: RecognitionConfig,
    interim_results: bool,
    audio: &[u8],
) -> Result<Vec<StreamingRecognitionResult>, Status> {
    let first = StreamingRequest::StreamingConfig(StreamingRecognitionConfig {
        config: Some(config),
        interim_results,
    });
    let pieces: Vec<Bytes> = audio.chunks(3_200).map(Bytes::copy_from_slice).collect();
    let requests = std::iter::once(first).chain(pieces.into_iter().map(StreamingRequest::AudioContent));
    let requests = requests.map(|request| StreamingRecognizeRequest {
        streaming_request: Some(request),
        ..StreamingRecognizeRequest::default()
    });
    let requests: Vec<_> = requests.collect();
    let mut answers = client.clone().streaming_recognize(futures::stream::iter(requests)).await?.into_inner();
    let mut results = Vec::new();
    while let Some(answer) = answers.message().await? {
        results.extend(answer.results);
    }
    Ok(results)
}

fn finals(results: &[StreamingRecognitionResult]) -> String {
    let ended = results.iter().filter(|result| result.is_final);
    plain(&ended.map(|result| result.alternatives[0].transcript.as_str()).collect::<String>())
}

#[tokio::test]
async fn recordings_are_recognized_in_every_encoding_of_samples() {
    let (engine, client) = stt().await;
    let file = speech(Voice::Rms, SAID);
    let raw = &file[44..];
    let response = recognize(&client, config(), raw).await.unwrap();
    assert_eq!((heard(&response).as_str(), response.id.as_ref().unwrap().value.as_str()), (SAID, "mine"));
    let best = &response.results[0].alternatives[0];
    assert!(best.words.is_empty() && (0.0..=1.0).contains(&best.confidence), "{best:?}");
    assert!((response.results[0].audio_processed - raw.len() as f32 / 32_000.0).abs() < 0.01);
    assert_eq!(heard(&recognize(&client, config(), &file).await.unwrap()), SAID, "with a WAV header");
    let unspecified = RecognitionConfig { encoding: 0, sample_rate_hertz: 0, ..config() };
    assert_eq!(heard(&recognize(&client, unspecified, &file).await.unwrap()), SAID);
    let companded: Vec<u8> = samples(raw).iter().map(|sample| a_law(*sample)).collect();
    let a_law = RecognitionConfig { encoding: AudioEncoding::Alaw.into(), ..config() };
    assert_eq!(heard(&recognize(&client, a_law, &companded).await.unwrap()), SAID);
    for (encoding, file) in
        [(AudioEncoding::Flac, flac(&samples(raw))), (AudioEncoding::Oggopus, ogg_opus(&samples(raw)))]
    {
        let container = RecognitionConfig { encoding: encoding.into(), ..config() };
        let whole = recognize(&client, container.clone(), &file).await;
        assert_eq!(whole.as_ref().map(heard).unwrap_or_default(), SAID, "{encoding:?}: {whole:?}");
        let streamed = stream(&client, container, false, &file).await;
        assert_eq!(streamed.as_deref().map(finals).unwrap_or_default(), SAID, "{encoding:?}: {streamed:?}");
    }
    let silence = recognize(&client, config(), &[0; 64_000]).await.unwrap();
    assert!(silence.results.is_empty());
    engine.stop().await;
}

/// Samples at 16 kHz as a FLAC file.
fn flac(samples: &[i16]) -> Vec<u8> {
    use flacenc::bitsink::ByteSink;
    use flacenc::component::BitRepr;
    use flacenc::error::Verify;
    let config = flacenc::config::Encoder::default().into_verified().map_err(|(_, error)| error).unwrap();
    let mut samples: Vec<i32> = samples.iter().map(|sample| i32::from(*sample)).collect();
    // A short last block would be less than decoders take.
    samples.resize(samples.len().next_multiple_of(config.block_size), 0);
    let source = flacenc::source::MemSource::from_samples(&samples, 1, 16, 16_000);
    let stream = flacenc::encode_with_fixed_block_size(&config, source, config.block_size).unwrap();
    let mut sink = ByteSink::new();
    stream.write(&mut sink).unwrap();
    sink.as_slice().to_vec()
}

/// Samples at 16 kHz as Opus in Ogg, in frames of 20 ms.
fn ogg_opus(samples: &[i16]) -> Vec<u8> {
    use ogg::PacketWriteEndInfo::{EndPage, EndStream, NormalPacket};
    let mut encoder = opus::Encoder::new(16_000, opus::Channels::Mono, opus::Application::Audio).unwrap();
    let mut writer = ogg::PacketWriter::new(Vec::new());
    let head = b"OpusHead\x01\x01\0\0\x80\x3e\0\0\0\0\0".to_vec();
    writer.write_packet(head, 1, EndPage, 0).unwrap();
    writer.write_packet(b"OpusTags\0\0\0\0\0\0\0\0".to_vec(), 1, EndPage, 0).unwrap();
    let frames: Vec<&[i16]> = samples.chunks_exact(320).collect();
    for (index, frame) in frames.iter().enumerate() {
        let end = if index + 1 == frames.len() { EndStream } else { NormalPacket };
        let packet = encoder.encode_vec(frame, 4_000).unwrap();
        writer.write_packet(packet, 1, end, (index as u64 + 1) * 960).unwrap();
    }
    writer.into_inner()
}

/// G.711 A-law of a sample, by search.
fn a_law(sample: i16) -> u8 {
    use speechstack_engine::pcm::Raw;
    let all: Vec<u8> = (0..=255).collect();
    let values = Raw::ALaw.expand(&all);
    all.into_iter()
        .min_by_key(|byte| (i32::from(values[usize::from(*byte)]) - i32::from(sample)).abs())
        .unwrap()
}

#[tokio::test]
async fn words_have_times_in_milliseconds_and_speakers_from_one() {
    let (engine, client) = stt().await;
    let file = dialogue(&TURNS);
    let diarization_config =
        Some(SpeakerDiarizationConfig { enable_speaker_diarization: true, max_speaker_count: 4 });
    let with_speakers = RecognitionConfig { enable_word_time_offsets: true, diarization_config, ..config() };
    let response = recognize(&client, with_speakers.clone(), &file).await.unwrap();
    let words: Vec<_> = response.results.iter().flat_map(|result| &result.alternatives[0].words).collect();
    assert!(words.len() > 10 && words.iter().all(|word| word.start_time < word.end_time), "{words:?}");
    assert!(words.windows(2).all(|pair| pair[0].end_time <= pair[1].start_time));
    assert!(words.last().unwrap().end_time > 3_000, "{words:?}");
    let mut speakers: Vec<i32> = words.iter().map(|word| word.speaker_tag).collect();
    speakers.dedup();
    assert_eq!(speakers, [1, 2]);
    let streamed = stream(&client, with_speakers, false, &file).await.unwrap();
    let mut speakers: Vec<i32> = streamed
        .iter()
        .flat_map(|result| &result.alternatives[0].words)
        .map(|word| word.speaker_tag)
        .collect();
    speakers.dedup();
    assert_eq!(speakers, [1, 2], "over the utterances of a stream");
    let times = RecognitionConfig { enable_word_time_offsets: true, ..config() };
    let without = recognize(&client, times, &file).await.unwrap();
    assert!(without.results[0].alternatives[0].words.iter().all(|word| word.speaker_tag == 0));
    engine.stop().await;
}

#[tokio::test]
async fn streams_have_interim_results_then_finals_at_pauses_and_at_the_end() {
    let (engine, client) = stt().await;
    let file = dialogue(&TURNS);
    let whole = heard(&recognize(&client, config(), &file).await.unwrap());
    let with_times = RecognitionConfig { enable_word_time_offsets: true, ..config() };
    let results = stream(&client, with_times, true, &file[44..]).await.unwrap();
    assert_eq!(finals(&results), whole);
    assert!(results.iter().filter(|result| result.is_final).count() >= 2);
    assert!(!results[0].is_final && results[0].stability < 1.0, "interim results come first: {results:?}");
    let last = results.last().unwrap();
    assert!(last.is_final && last.alternatives[0].words[0].start_time > 2_000, "{last:?}");
    let results = stream(&client, config(), false, &file).await.unwrap();
    assert!(results.iter().all(|result| result.is_final));
    assert_eq!(finals(&results), whole, "with a WAV header and without interim results");
    assert!(stream(&client, config(), true, &[0; 96_000]).await.unwrap().is_empty(), "silence");
    engine.stop().await;
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_invalid_arguments() {
    let (engine, client) = stt().await;
    let file = speech(Voice::Rms, SAID);
    let mut stereo = file.clone();
    (stereo[22], stereo[32]) = (2, 4);
    for (config, audio, code, named) in [
        (
            RecognitionConfig { language_code: String::new(), ..config() },
            &file[..],
            Code::InvalidArgument,
            "Unavailable model",
        ),
        (
            RecognitionConfig { language_code: "en".into(), ..config() },
            &file,
            Code::InvalidArgument,
            "language_code=en",
        ),
        (
            RecognitionConfig { sample_rate_hertz: 7_999, ..config() },
            &file[44..],
            Code::InvalidArgument,
            "8000",
        ),
        (RecognitionConfig { audio_channel_count: 2, ..config() }, &file, Code::InvalidArgument, "mono"),
        (config(), &stereo, Code::InvalidArgument, "mono"),
        (
            RecognitionConfig { encoding: AudioEncoding::Flac.into(), ..config() },
            &file,
            Code::InvalidArgument,
            "encoding",
        ),
        (config(), &[], Code::InvalidArgument, "empty"),
        (config(), &vec![0; (4 << 20) + 1], Code::ResourceExhausted, "larger than max"),
    ] {
        let status = recognize(&client, config.clone(), audio).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(named), "{status}");
        let streamed = stream(&client, config, false, audio).await;
        assert!(audio.len() != file.len() || streamed.is_err() || named == "mono", "{streamed:?}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn faults_show_as_status_of_recognition() {
    let (engine, client) = stt().await;
    let file = speech(Voice::Rms, SAID);
    for (arming, code, text) in [
        (mode("F1"), Code::Internal, "an illegal memory access was encountered"),
        (mode("F2"), Code::Internal, "CUBLAS_STATUS_EXECUTION_FAILED"),
        (mode("F3"), Code::Internal, "Internal Server Error"),
        (mode("F4"), Code::InvalidArgument, "an illegal memory access was encountered"),
        (json!({"mode": "F6", "sticky": true}), Code::ResourceExhausted, "CUDA out of memory"),
        (mode("F12"), Code::Internal, "engine process is not running"),
        (mode("F18"), Code::Unavailable, "model is loading"),
    ] {
        engine.arm(arming.clone()).await;
        let status = recognize(&client, config(), &file).await.unwrap_err();
        assert_eq!(status.code(), code, "{arming}");
        assert!(status.message().contains(text), "{arming}: {status}");
        if arming["mode"] != "F3" {
            let status = stream(&client, config(), false, &file).await.unwrap_err();
            assert_eq!(status.code(), code, "{arming}");
        }
        engine.disarm().await;
        assert_eq!(heard(&recognize(&client, config(), &file).await.unwrap()), SAID);
    }
    engine.arm(mode("F7")).await;
    let short = Duration::from_millis(300);
    assert!(tokio::time::timeout(short, recognize(&client, config(), &file)).await.is_err(), "F7 answered");
    assert!(
        tokio::time::timeout(short, stream(&client, config(), false, &file)).await.is_err(),
        "F7 answered"
    );
    engine.disarm().await;
    engine.arm(json!({"mode": "F13", "rst_after_bytes": 8})).await;
    for reset in [
        recognize(&client, config(), &file).await.map(drop).unwrap_err(),
        stream(&client, config(), false, &file).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(reset.code(), Code::Unknown | Code::Unavailable | Code::Internal), "{reset:?}");
        assert!(!reset.message().contains("CUDA"), "{reset:?}");
    }
    engine.disarm().await;
    for (variant, text) in [("empty", ""), ("punct", ". . ."), ("constant", "thank you"), ("nan", "")] {
        engine.arm(json!({"mode": "F14", "variant": variant})).await;
        assert_eq!(heard(&recognize(&client, config(), &file).await.unwrap()), text, "{variant}");
        assert_eq!(finals(&stream(&client, config(), false, &file).await.unwrap()), text, "{variant}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn one_lane_serves_both_protocols_of_a_process() {
    let (engine, client) = stt().await;
    let file = speech(Voice::Rms, SAID);
    engine.arm(mode("F31")).await;
    let form = support::upload(&file).text("language", "en-US");
    let over_http = engine.post("/v1/audio/transcriptions", form).send();
    let (over_http, over_grpc) = tokio::join!(over_http, recognize(&client, config(), &file));
    let counters = &engine.json("/_engine/fault").await["counters"];
    assert_eq!((&counters["inferences"], &counters["max_concurrent"]), (&json!(2), &json!(2)));
    assert!(
        over_grpc.is_err() != (over_http.unwrap().status() == 500),
        "the second of two overlapping ones failed"
    );
    engine.disarm().await;
    let mut health = HealthClient::new(channel(&engine).await);
    let check = HealthCheckRequest { service: String::new() };
    assert_eq!(health.check(check.clone()).await.unwrap().into_inner().status(), ServingStatus::Serving);
    let mut watch = health.watch(check.clone()).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    engine.arm(mode("F18")).await;
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(health.check(check).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    engine.disarm().await;
    let mut client = client.clone();
    let every = RivaSpeechRecognitionConfigRequest::default();
    let models = client.get_riva_speech_recognition_config(every).await.unwrap().into_inner().model_config;
    assert!(models.iter().any(|model| model.parameters["type"] == "online"), "{models:?}");
    drop((watch, health, client));
    engine.stop().await;
}

fn text(text: &str) -> SynthesizeSpeechRequest {
    SynthesizeSpeechRequest {
        text: text.into(),
        language_code: "en-US".into(),
        encoding: AudioEncoding::LinearPcm.into(),
        sample_rate_hz: 16_000,
        voice_name: "Magpie-Multilingual.EN-US.Jason".into(),
        ..SynthesizeSpeechRequest::default()
    }
}

async fn online(
    client: &Tts,
    requests: Vec<SynthesizeSpeechRequest>,
) -> Result<Vec<SynthesizeSpeechResponse>, Status> {
    let mut answers = client.clone().synthesize_online(futures::stream::iter(requests)).await?.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(answer);
    }
    Ok(all)
}

async fn whole(client: &Tts, request: SynthesizeSpeechRequest) -> Result<SynthesizeSpeechResponse, Status> {
    client.clone().synthesize(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn texts_are_spoken_whole_and_in_pieces() {
    let (engine, client) = tts().await;
    let response = whole(&client, text(SAID)).await.unwrap();
    assert!(level(&samples(&response.audio)) > 500.0 && !response.audio.starts_with(b"RIFF"));
    assert_eq!(response.meta.unwrap().text, SAID);
    let pieces = online(&client, vec![text(SAID), text(SAID)]).await.unwrap();
    assert!(pieces.len() > 4, "{}", pieces.len());
    let bytes: usize = pieces.iter().map(|piece| piece.audio.len()).sum();
    assert_eq!(bytes, 2 * response.audio.len());
    let long = text(&"we need to finish the report before the meeting starts. ".repeat(12));
    assert_eq!(whole(&client, long).await.unwrap().audio.len(), 20 * 2 * 16_000, "cut at 20 s");
    for (request, named) in [
        (text(" "), "characters"),
        (text(&"a".repeat(2_001)), "2000"),
        (SynthesizeSpeechRequest { language_code: "de-DE".into(), ..text(SAID) }, "de-DE"),
        (SynthesizeSpeechRequest { voice_name: "unknown-voice".into(), ..text(SAID) }, "unknown-voice"),
        (SynthesizeSpeechRequest { sample_rate_hz: 4_000, ..text(SAID) }, "sample_rate_hz"),
        (SynthesizeSpeechRequest { encoding: AudioEncoding::Oggopus.into(), ..text(SAID) }, "OGGOPUS"),
    ] {
        for status in [
            whole(&client, request.clone()).await.map(drop).unwrap_err(),
            online(&client, vec![request]).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().contains(named), "{status}");
        }
    }
    let config =
        client.clone().get_riva_synthesis_config(RivaSynthesisConfigRequest::default()).await.unwrap();
    let parameters = &config.into_inner().model_config[0].parameters;
    let subvoice = parameters["subvoices"].split(',').next().unwrap().split(':').next().unwrap();
    let voice_name = format!("{}.{subvoice}", parameters["voice_name"]);
    assert!(whole(&client, SynthesizeSpeechRequest { voice_name, ..text(SAID) }).await.is_ok());
    assert_eq!(engine.json("/v1/health/ready").await["status"], "ready", "a NIM always has its HTTP port");
    engine.stop().await;
}

#[tokio::test]
async fn faults_show_as_status_of_synthesis() {
    let (engine, client) = tts().await;
    let healthy = whole(&client, text(SAID)).await.unwrap().audio;
    for (arming, code, named) in [
        (mode("F1"), Code::Internal, "an illegal memory access was encountered"),
        (json!({"mode": "F6", "oom_above_s": 0.1}), Code::ResourceExhausted, "CUDA out of memory"),
    ] {
        engine.arm(arming.clone()).await;
        for status in [
            whole(&client, text(SAID)).await.map(drop).unwrap_err(),
            online(&client, vec![text(SAID)]).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(status.code(), code, "{arming}");
            assert!(status.message().contains(named), "{arming}: {status}");
        }
        engine.disarm().await;
    }
    engine.arm(mode("F7")).await;
    let hung = tokio::time::timeout(Duration::from_millis(300), online(&client, vec![text(SAID)])).await;
    assert!(hung.is_err(), "F7 answered");
    engine.disarm().await;
    engine.arm(json!({"mode": "F13", "rst_after_bytes": 4_000})).await;
    let mut answers =
        client.clone().synthesize_online(futures::stream::iter([text(SAID)])).await.unwrap().into_inner();
    let mut received = 0;
    let reset = loop {
        match answers.message().await {
            Ok(Some(answer)) => received += answer.audio.len(),
            Ok(None) => panic!("the stream ended well"),
            Err(status) => break status,
        }
    };
    assert!(received < 4_000 && reset.code() != Code::Ok, "{received} {reset:?}");
    engine.disarm().await;
    engine.arm(json!({"mode": "F15", "variant": "silence"})).await;
    let silence = whole(&client, text(SAID)).await.unwrap().audio;
    assert_eq!((silence.len(), level(&samples(&silence))), (healthy.len(), 0.0));
    engine.arm(json!({"mode": "F15", "variant": "bad_header"})).await;
    assert_eq!(whole(&client, text(SAID)).await.unwrap().audio.len() % 2, 1);
    engine.stop().await;
}
