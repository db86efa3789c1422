//! One StreamingRecognize call: audio in, results out, each recognition a job of the lane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::config::Options;
use super::intake::Intake;
use super::utterances::{Utterance, Utterances};
use super::{alternative, fits, origin};
use crate::decode::RATE_HZ;
use crate::fault::origin::{Origin, Reply};
use crate::grpc::messages::nvidia::riva::RequestId;
use crate::grpc::messages::nvidia::riva::asr::streaming_recognize_request::StreamingRequest;
use crate::grpc::messages::nvidia::riva::asr::{
    StreamingRecognitionResult, StreamingRecognizeRequest, StreamingRecognizeResponse,
};
use crate::work::transcribe::{Recording, Spoken, tell_speakers};
use crate::work::{Cuts, Refusal, Transcriber};

/// Stability of an interim result.
const STABILITY: f32 = 0.5;
/// A slow interim recognition delays the next one by as much, up to this.
const MAX_INTERIM_PAUSE: Duration = Duration::from_secs(2);

/// A call under way.
pub struct Session {
    pub stt: Arc<Transcriber>,
    pub answers: mpsc::Sender<Result<StreamingRecognizeResponse, Status>>,
    /// Set when a fault is to cut the answers off.
    pub cuts: Cuts,
    /// Set from the first request.
    pub origin: Origin,
    pub id: Option<RequestId>,
    /// All samples so far, when speakers are to be told apart.
    pub history: Vec<i16>,
}

impl Session {
    /// Answers until the client has sent all and has all results.
    pub async fn run(mut self, mut requests: Streaming<StreamingRecognizeRequest>) -> Result<(), Status> {
        let missing = || Status::invalid_argument("the first request must have a streaming_config");
        let first = requests.message().await?.ok_or_else(missing)?;
        self.id = first.id;
        let Some(StreamingRequest::StreamingConfig(config)) = first.streaming_request else {
            return Err(missing());
        };
        let recognition = config.config.as_ref().ok_or(Refusal::Missing("config"))?;
        let options = Options::check(recognition, &self.stt.core.capability)?;
        self.origin = origin(Reply::Streamed, &recognition.model);
        let mut intake = Intake::new(&options);
        let mut utterances = Utterances::default();
        // Interim recognitions take at most half of the time.
        let mut next_interim = Instant::now();
        while let Some(request) = requests.message().await? {
            let Some(StreamingRequest::AudioContent(audio)) = request.streaming_request else {
                return Err(Status::invalid_argument("only the first request may have a streaming_config"));
            };
            fits(audio.len())?;
            intake.push(audio, utterances.samples())?;
            while let Some(utterance) =
                utterances.due(config.interim_results && Instant::now() >= next_interim)
            {
                let (began, ended) = (Instant::now(), utterance.ended);
                self.recognize(utterance, &options, utterances.received()).await?;
                if !ended {
                    next_interim = Instant::now() + began.elapsed().min(MAX_INTERIM_PAUSE);
                }
            }
        }
        intake.finish(utterances.samples())?;
        while let Some(utterance) = utterances.due(false).or_else(|| utterances.rest()) {
            self.recognize(utterance, &options, utterances.received()).await?;
        }
        Ok(())
    }

    /// Recognizes an utterance and sends its results: one for each sentence, or one interim result.
    async fn recognize(
        &mut self,
        utterance: Utterance,
        options: &Options,
        received: usize,
    ) -> Result<(), Status> {
        let offset_s = seconds(utterance.start);
        let speakers = options.speakers.is_some() && utterance.ended;
        if speakers {
            self.history.resize(utterance.start, 0);
            self.history.extend_from_slice(&utterance.samples);
        }
        let served = self
            .stt
            .transcribe(Recording::Samples(utterance.samples), options.wanted(false), &self.origin)
            .await?;
        self.cuts.set(&served);
        let language = served.made.language.clone();
        let result = |sentence: &[Spoken]| StreamingRecognitionResult {
            alternatives: vec![alternative(sentence, options, &language, offset_s)],
            is_final: utterance.ended,
            stability: if utterance.ended { 1.0 } else { STABILITY },
            channel_tag: 1,
            audio_processed: seconds(received) as f32,
            pipeline_states: None,
        };
        let mut sentences = served.made.sentences;
        if speakers && !sentences.is_empty() {
            // Over the whole stream, so that a speaker keeps the tag.
            let heard = self.stt.diarize(Recording::Samples(self.history.clone()), &self.origin).await?;
            tell_speakers(&mut sentences, &heard.made.turns, offset_s);
        }
        if !utterance.ended || sentences.is_empty() {
            sentences = vec![sentences.concat()];
        }
        for sentence in &sentences {
            let answer = StreamingRecognizeResponse { results: vec![result(sentence)], id: self.id.clone() };
            if self.answers.send(Ok(answer)).await.is_err() {
                return Err(Status::cancelled("the client is gone"));
            }
        }
        Ok(())
    }
}

fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(RATE_HZ)
}
