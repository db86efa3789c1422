//! Riva's synthesis service: texts to speech, whole or as it is made.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::live::ended;
use super::{models, request_id, status};
use crate::api::Context;
use crate::api::live::Ending;
use crate::api::speech::{self, Asked, Speech};
use crate::audio::OutputFormat;
use crate::edge::RequestId;
use crate::error::Error;
use crate::riva_proto::AudioEncoding;
use crate::riva_proto::RequestId as Name;
use crate::riva_proto::tts::riva_speech_synthesis_server::RivaSpeechSynthesis;
use crate::riva_proto::tts::{
    RivaSynthesisConfigRequest, RivaSynthesisConfigResponse, SynthesizeSpeechRequest,
    SynthesizeSpeechResponse, SynthesizeSpeechResponseMetadata,
};

/// Samples per second when a request names none.
const SAMPLE_RATE: i64 = 22_050;
/// Responses that wait for the client.
const RESPONSES: usize = 4;

/// The service.
pub(super) struct Synthesis {
    pub(super) context: Arc<Context>,
}

type Responses = mpsc::Sender<Result<SynthesizeSpeechResponse, Status>>;

#[tonic::async_trait]
impl RivaSpeechSynthesis for Synthesis {
    /// All of the speech in one message.
    async fn synthesize(
        &self,
        request: Request<SynthesizeSpeechRequest>,
    ) -> Result<Response<SynthesizeSpeechResponse>, Status> {
        let (id, request) = (request_id(request.extensions())?, request.into_inner());
        let speech = wanted(&self.context, &id, &request).await?;
        let audio = speech::speak(Arc::clone(&self.context), id, speech).await?;
        let mut audio = std::pin::pin!(audio);
        let mut whole = BytesMut::new();
        while let Some(piece) = audio.next().await {
            whole.extend_from_slice(&piece.map_err(Status::from)?);
        }
        Ok(Response::new(reply(whole.freeze(), Some(&request.text), request.id)))
    }

    type SynthesizeOnlineStream = BoxStream<'static, Result<SynthesizeSpeechResponse, Status>>;

    /// The texts of the stream, one after the other, each piece as it is made.
    async fn synthesize_online(
        &self,
        request: Request<Streaming<SynthesizeSpeechRequest>>,
    ) -> Result<Response<Self::SynthesizeOnlineStream>, Status> {
        let (id, requests) = (request_id(request.extensions())?, request.into_inner());
        let context = Arc::clone(&self.context);
        let (sender, receiver) = mpsc::channel(RESPONSES);
        let speaking = async move {
            tokio::select! {
                ended = speak(context, id, requests, sender.clone()) => if let Err(status) = ended {
                    let _ = sender.send(Err(status)).await;
                },
                // A client that leaves ends the speech, which frees the engine.
                () = sender.closed() => {}
            }
        };
        self.context.drain.spawn(speaking.in_current_span());
        let responses =
            stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        Ok(Response::new(responses.boxed()))
    }

    async fn get_riva_synthesis_config(
        &self,
        request: Request<RivaSynthesisConfigRequest>,
    ) -> Result<Response<RivaSynthesisConfigResponse>, Status> {
        let voices = self.context.voices.current().await;
        let asked = request.into_inner().model_name;
        Ok(Response::new(models::that_speak(&self.context.config.get(), &voices, &asked)))
    }
}

async fn speak(
    context: Arc<Context>,
    id: RequestId,
    mut requests: Streaming<SynthesizeSpeechRequest>,
    responses: Responses,
) -> Result<(), Status> {
    let gateway = &context.config.get().gateway;
    let (idle, max) = (gateway.sessions.idle_timeout, gateway.grpc.max_bytes());
    let mut any = false;
    loop {
        let next = tokio::select! {
            next = timeout(idle, requests.message()) => next.map_err(|_| ended(Ending::Idle))?,
            () = context.drain.begun() => return Err(ended(Ending::Draining)),
        };
        let Some(request) = next.map_err(|error| status::tidy(error, max))? else { break };
        any = true;
        let speech = wanted(&context, &id, &request).await?;
        let audio = speech::speak(Arc::clone(&context), id.clone(), speech).await?;
        let mut audio = std::pin::pin!(audio);
        // Only the first piece says what the text was.
        let mut text = Some(request.text.as_str());
        while let Some(piece) = audio.next().await {
            let response = reply(piece.map_err(Status::from)?, text.take(), request.id.clone());
            if responses.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
    }
    if any { Ok(()) } else { Err(Error::param("text", "there is no request with a text").into()) }
}

fn reply(audio: Bytes, text: Option<&str>, id: Option<Name>) -> SynthesizeSpeechResponse {
    let meta = text.map(|text| SynthesizeSpeechResponseMetadata {
        text: text.to_owned(),
        processed_text: text.trim().to_owned(),
        ..SynthesizeSpeechResponseMetadata::default()
    });
    SynthesizeSpeechResponse { audio, meta, id }
}

/// What a request asks for. Times of words are the engine's to give and none does; a client that asks gets none.
async fn wanted(
    context: &Context,
    request_id: &RequestId,
    request: &SynthesizeSpeechRequest,
) -> Result<Speech, Error> {
    if request.zero_shot_data.as_ref().is_some_and(|data| !data.audio_prompt.is_empty()) {
        let message = "zero_shot_data is not supported; choose a voice with voice_name";
        return Err(Error::param("zero_shot_data", message));
    }
    let asked = Asked {
        text: &request.text,
        language: ("language_code", &request.language_code),
        voice: ("voice_name", &request.voice_name),
        sample_rate: if request.sample_rate_hz == 0 { SAMPLE_RATE } else { request.sample_rate_hz.into() },
        format: format(request)?,
        dictionary: &request.custom_dictionary,
    };
    asked.check(context, request_id).await
}

fn format(request: &SynthesizeSpeechRequest) -> Result<OutputFormat, Error> {
    match AudioEncoding::try_from(request.encoding) {
        Ok(AudioEncoding::EncodingUnspecified | AudioEncoding::LinearPcm) => Ok(OutputFormat::Pcm),
        Ok(AudioEncoding::Oggopus) => Ok(OutputFormat::Opus),
        Ok(AudioEncoding::Flac) => Ok(OutputFormat::Flac),
        Ok(AudioEncoding::Mulaw | AudioEncoding::Alaw) | Err(_) => {
            Err(Error::param("encoding", "encoding must be LINEAR_PCM, OGGOPUS or FLAC"))
        }
    }
}
