//! Riva's speech recognition over gRPC: whole recordings and streams.

mod config;
mod intake;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::{Entry, Side};
use crate::decode::{Channels, Container};
use crate::fault::origin::{Origin, Reply};
use crate::grpc;
use crate::grpc::MAX_MESSAGE_BYTES;
use crate::grpc::messages::nvidia::riva::asr::riva_speech_recognition_config_response::Config;
use crate::grpc::messages::nvidia::riva::asr::riva_speech_recognition_server::{
    RivaSpeechRecognition, RivaSpeechRecognitionServer,
};
use crate::grpc::messages::nvidia::riva::asr::{
    RecognizeRequest, RecognizeResponse, RivaSpeechRecognitionConfigRequest,
    RivaSpeechRecognitionConfigResponse, SpeechRecognitionAlternative, SpeechRecognitionResult,
    StreamingRecognizeRequest, StreamingRecognizeResponse, WordInfo,
};
use crate::language;
use crate::work::transcribe::{Recording, Spoken, confidence, text};
use crate::work::{Cuts, Refusal, Transcriber};
pub(super) use config::Options;
use config::{Coding, unavailable};
pub(super) use intake::Intake;

const SERVICE: &str = "nvidia.riva.asr.RivaSpeechRecognition";
pub(super) static ENTRY: Entry =
    Entry { name: "riva", llm: None, stt: Some(Side::Grpc { service: SERVICE, add: add_all }), tts: None };
/// As NIM containers with a streaming model only.
pub(super) static STREAMING: Entry = Entry {
    name: "riva_streaming",
    llm: None,
    stt: Some(Side::Grpc { service: SERVICE, add: add_streams }),
    tts: None,
};

/// Decoded here, so that the refusal of a larger message has gRPC's own words; no request is larger than this.
const MAX_DECODED_BYTES: usize = 256 << 20;

fn add_all(stt: Arc<Transcriber>, routes: &mut RoutesBuilder) {
    add(Recognition { stt, whole: true }, routes);
}

fn add_streams(stt: Arc<Transcriber>, routes: &mut RoutesBuilder) {
    add(Recognition { stt, whole: false }, routes);
}

fn add(recognition: Recognition, routes: &mut RoutesBuilder) {
    let service = RivaSpeechRecognitionServer::new(recognition);
    routes.add_service(service.max_decoding_message_size(MAX_DECODED_BYTES));
}

struct Recognition {
    stt: Arc<Transcriber>,
    /// Whether whole recordings are recognized, not streams alone.
    whole: bool,
}

#[tonic::async_trait]
impl RivaSpeechRecognition for Recognition {
    /// One result for each sentence-like piece; none when nothing was heard.
    async fn recognize(
        &self,
        request: Request<RecognizeRequest>,
    ) -> Result<Response<RecognizeResponse>, Status> {
        let RecognizeRequest { config, audio, id } = request.into_inner();
        fits(audio.len())?;
        let config = config.ok_or(Refusal::Missing("config"))?;
        if !self.whole {
            return Err(unavailable(&config).into());
        }
        let options = Options::check(&config, &self.stt.core.capability)?;
        let recording = recording(&options, audio)?;
        let origin = origin(Reply::Unary, &config.model);
        let served =
            self.stt.transcribe(recording, options.wanted(options.speakers.is_some()), &origin).await?;
        Ok(served.reply(|heard| {
            let result = |sentence: &Vec<Spoken>| SpeechRecognitionResult {
                alternatives: vec![alternative(sentence, &options, &heard.language, 0.0)],
                channel_tag: 1,
                audio_processed: heard.duration_s as f32,
            };
            RecognizeResponse { results: heard.sentences.iter().map(result).collect(), id }
        }))
    }

    type StreamingRecognizeStream = BoxStream<'static, Result<StreamingRecognizeResponse, Status>>;

    /// Final results at pauses and at the end, interim results in between when they are asked for.
    async fn streaming_recognize(
        &self,
        request: Request<Streaming<StreamingRecognizeRequest>>,
    ) -> Result<Response<Self::StreamingRecognizeStream>, Status> {
        let (sender, answers) = mpsc::channel(4);
        let cuts = Cuts::default();
        let session = stream::Session { stt: self.stt.clone(), answers: sender.clone(), cuts: cuts.clone() };
        let requests = request.into_inner();
        Ok(grpc::stream(session.run(requests), sender, answers, cuts))
    }

    async fn get_riva_speech_recognition_config(
        &self,
        request: Request<RivaSpeechRecognitionConfigRequest>,
    ) -> Result<Response<RivaSpeechRecognitionConfigResponse>, Status> {
        let asked = request.into_inner().model_name;
        let known = asked.is_empty() || asked == self.stt.core.capability.model;
        let jobs = self.stt.core.gate.jobs;
        let kinds: &[&str] = if self.whole { &["offline", "online"] } else { &["online"] };
        let models = kinds.iter().map(|kind| model(kind, jobs, self.stt.core.capability.model));
        let model_config = if known { models.collect() } else { Vec::new() };
        Ok(Response::new(RivaSpeechRecognitionConfigResponse { model_config }))
    }
}

/// A call, whose only text is the name of a model.
fn origin(reply: Reply, model: &str) -> Origin {
    Origin::new(reply, &[("model", Some(model))])
}

/// A message that is larger than a gRPC server takes by default.
fn fits(bytes: usize) -> Result<(), Status> {
    if bytes <= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    let text = format!("Received message larger than max ({bytes} vs. {MAX_MESSAGE_BYTES})");
    Err(Status::resource_exhausted(text))
}

/// The whole audio of a request, by its encoding; a container that is recognized counts more than a claim of raw samples.
fn recording(options: &Options, audio: Bytes) -> Result<Recording, Refusal> {
    if audio.is_empty() {
        return Err(Refusal::parameter("audio", "audio is empty"));
    }
    let container = Container::of(&audio);
    let coding = match options.coding {
        Coding::Container(expected) if expected == container => None,
        Coding::Unspecified if container != Container::Other => None,
        Coding::Raw(_) if container == Container::Wav => None,
        Coding::Raw(coding) => Some(coding),
        Coding::Container(_) | Coding::Unspecified => {
            return Err(Refusal::parameter(
                "encoding",
                "the audio does not have the encoding of the request",
            ));
        }
    };
    Ok(match coding {
        None => Recording::File { bytes: audio, channels: Channels::Mono },
        Some(coding) => Recording::Raw { bytes: audio, coding, rate_hz: options.raw_rate_hz()? },
    })
}

/// The one alternative of a sentence that began `offset_s` seconds after its recording.
fn alternative(
    sentence: &[Spoken],
    options: &Options,
    language: &str,
    offset_s: f64,
) -> SpeechRecognitionAlternative {
    let word = |spoken: &Spoken| WordInfo {
        start_time: milliseconds(offset_s + spoken.word.start_s),
        end_time: milliseconds(offset_s + spoken.word.end_s),
        word: spoken.word.text.clone(),
        confidence: spoken.word.confidence as f32,
        speaker_tag: options.tag(spoken.speaker),
        language_code: language::tag(language).to_owned(),
    };
    let words = if options.words { sentence.iter().map(word).collect() } else { Vec::new() };
    // Clients join transcripts without a space of their own.
    let transcript = format!("{} ", text(sentence));
    SpeechRecognitionAlternative {
        transcript,
        confidence: confidence(sentence) as f32,
        words,
        language_code: vec![language::tag(language).to_owned()],
    }
}

/// Whole milliseconds; 0 for what is no number.
fn milliseconds(seconds: f64) -> i32 {
    (seconds * 1000.0).round() as i32
}

fn model(kind: &str, jobs: usize, name: &str) -> Config {
    let streaming = if kind == "online" { "True" } else { "False" };
    let jobs = jobs.to_string();
    let parameters = [
        ("language_code", language::ENGLISH),
        ("sample_rate", "16000"),
        ("type", kind),
        ("streaming", streaming),
        ("max_batch_size", &jobs),
    ];
    Config {
        model_name: name.to_owned(),
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    }
}
