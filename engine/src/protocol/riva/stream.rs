//! One StreamingRecognize call: audio in, results out.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::config::Options;
use super::intake::Intake;
use super::{alternative, fits, origin};
use crate::fault::origin::Reply;
use crate::grpc::messages::nvidia::riva::RequestId;
use crate::grpc::messages::nvidia::riva::asr::streaming_recognize_request::StreamingRequest;
use crate::grpc::messages::nvidia::riva::asr::{
    StreamingRecognitionResult, StreamingRecognizeRequest, StreamingRecognizeResponse,
};
use crate::protocol::listening::{Heard, Listening};
use crate::work::transcribe::Spoken;
use crate::work::{Cuts, Refusal, Transcriber};

/// Stability of an interim result.
const STABILITY: f32 = 0.5;

/// A call under way.
pub struct Session {
    pub stt: Arc<Transcriber>,
    pub answers: mpsc::Sender<Result<StreamingRecognizeResponse, Status>>,
    /// Set when a fault is to cut the answers off.
    pub cuts: Cuts,
}

impl Session {
    /// Answers until the client has sent all and has all results.
    pub async fn run(self, mut requests: Streaming<StreamingRecognizeRequest>) -> Result<(), Status> {
        let missing = || Status::invalid_argument("the first request must have a streaming_config");
        let first = requests.message().await?.ok_or_else(missing)?;
        let id = first.id;
        let Some(StreamingRequest::StreamingConfig(config)) = first.streaming_request else {
            return Err(missing());
        };
        let recognition = config.config.as_ref().ok_or(Refusal::Missing("config"))?;
        let options = Options::check(recognition, &self.stt.core.capability)?;
        let origin = origin(Reply::Streamed, &recognition.model);
        let mut listening =
            Listening::new(self.stt, origin, self.cuts, options.language, options.speakers.is_some());
        let mut intake = Intake::new(&options);
        while let Some(request) = requests.message().await? {
            let Some(StreamingRequest::AudioContent(audio)) = request.streaming_request else {
                return Err(Status::invalid_argument("only the first request may have a streaming_config"));
            };
            fits(audio.len())?;
            intake.push(audio, listening.samples())?;
            while let Some(heard) = listening.due(config.interim_results).await? {
                send(&self.answers, &heard, &options, id.as_ref()).await?;
            }
        }
        intake.finish(listening.samples())?;
        while let Some(heard) = listening.rest().await? {
            send(&self.answers, &heard, &options, id.as_ref()).await?;
        }
        Ok(())
    }
}

/// Sends the results of an utterance: one for each sentence, or one interim result.
async fn send(
    answers: &mpsc::Sender<Result<StreamingRecognizeResponse, Status>>,
    heard: &Heard,
    options: &Options,
    id: Option<&RequestId>,
) -> Result<(), Status> {
    let result = |sentence: &[Spoken]| StreamingRecognitionResult {
        alternatives: vec![alternative(sentence, options, &heard.language, heard.offset_s)],
        is_final: heard.ended,
        stability: if heard.ended { 1.0 } else { STABILITY },
        channel_tag: 1,
        audio_processed: heard.received_s as f32,
        pipeline_states: None,
    };
    for sentence in &heard.sentences {
        let answer = StreamingRecognizeResponse { results: vec![result(sentence)], id: id.cloned() };
        if answers.send(Ok(answer)).await.is_err() {
            return Err(Status::cancelled("the client is gone"));
        }
    }
    Ok(())
}
