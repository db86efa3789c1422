//! Riva's speech synthesis over gRPC.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::{Entry, Side};
use crate::backend::Capability;
use crate::fault::origin::{Origin, Reply};
use crate::grpc;
use crate::grpc::messages::nvidia::riva::tts::riva_speech_synthesis_server::{
    RivaSpeechSynthesis, RivaSpeechSynthesisServer,
};
use crate::grpc::messages::nvidia::riva::tts::riva_synthesis_config_response::Config;
use crate::grpc::messages::nvidia::riva::tts::{
    RivaSynthesisConfigRequest, RivaSynthesisConfigResponse, SynthesizeSpeechRequest,
    SynthesizeSpeechResponse, SynthesizeSpeechResponseMetadata,
};
use crate::grpc::messages::nvidia::riva::{AudioEncoding, RequestId};
use crate::work::speech::{LONGEST_OFFLINE_S, MAX_CHARACTERS, Speech};
use crate::work::{Cuts, Refusal, Synthesizer, voices};

const SERVICE: &str = "nvidia.riva.tts.RivaSpeechSynthesis";
pub(super) static ENTRY: Entry =
    Entry { name: "riva_tts", llm: None, stt: None, tts: Some(Side::Grpc { service: SERVICE, add }) };

/// Rate when none is asked for, in Hz.
const DEFAULT_HZ: u32 = 22_050;

fn add(tts: Arc<Synthesizer>, routes: &mut RoutesBuilder) {
    routes.add_service(RivaSpeechSynthesisServer::new(Synthesis { tts }));
}

struct Synthesis {
    tts: Arc<Synthesizer>,
}

#[tonic::async_trait]
impl RivaSpeechSynthesis for Synthesis {
    /// All samples of one text, cut at 20 s.
    async fn synthesize(
        &self,
        request: Request<SynthesizeSpeechRequest>,
    ) -> Result<Response<SynthesizeSpeechResponse>, Status> {
        let request = request.into_inner();
        let mut speech = parse(&self.tts, &request)?;
        speech.longest_s = Some(LONGEST_OFFLINE_S);
        let served = self.tts.whole(speech, &origin(Reply::Unary, &request)).await?;
        Ok(served.reply(|sound| reply(sound.raw(), Some(&request), request.id.clone())))
    }

    type SynthesizeOnlineStream = BoxStream<'static, Result<SynthesizeSpeechResponse, Status>>;

    /// The texts of the stream one after the other.
    async fn synthesize_online(
        &self,
        request: Request<Streaming<SynthesizeSpeechRequest>>,
    ) -> Result<Response<Self::SynthesizeOnlineStream>, Status> {
        let (sender, answers) = mpsc::channel(1);
        let (tts, requests, cuts) = (self.tts.clone(), request.into_inner(), Cuts::default());
        let answering = speak(tts, requests, sender.clone(), cuts.clone());
        Ok(grpc::stream(answering, sender, answers, cuts))
    }

    async fn get_riva_synthesis_config(
        &self,
        request: Request<RivaSynthesisConfigRequest>,
    ) -> Result<Response<RivaSynthesisConfigResponse>, Status> {
        let Capability { model, multilingual, .. } = self.tts.core.capability;
        let asked = request.into_inner().model_name;
        let known = asked.is_empty() || asked == model;
        Ok(Response::new(RivaSynthesisConfigResponse {
            model_config: known.then(|| config(model, multilingual)).into_iter().collect(),
        }))
    }
}

type Answers = mpsc::Sender<Result<SynthesizeSpeechResponse, Status>>;

async fn speak(
    tts: Arc<Synthesizer>,
    mut requests: Streaming<SynthesizeSpeechRequest>,
    answers: Answers,
    cuts: Cuts,
) -> Result<(), Status> {
    while let Some(request) = requests.message().await? {
        let mut served = tts.online(parse(&tts, &request)?, &origin(Reply::Streamed, &request)).await?;
        cuts.set(&served);
        // Only the first piece says what the text was.
        let mut first = Some(&request);
        while let Some(piece) = served.made.next().await {
            let piece = piece.map_err(Refusal::from)?;
            if piece.is_empty() {
                continue;
            }
            let answer = reply(piece, first.take(), request.id.clone());
            if answers.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn origin(reply: Reply, request: &SynthesizeSpeechRequest) -> Origin {
    Origin::new(reply, &[("text", Some(&request.text))])
}

fn parse(tts: &Synthesizer, request: &SynthesizeSpeechRequest) -> Result<Speech, Refusal> {
    match request.encoding() {
        AudioEncoding::EncodingUnspecified | AudioEncoding::LinearPcm => {}
        other => {
            let text = format!("encoding {} is not supported: use LINEAR_PCM", other.as_str_name());
            return Err(Refusal::parameter("encoding", text));
        }
    }
    let rate_hz = if request.sample_rate_hz == 0 {
        DEFAULT_HZ
    } else {
        u32::try_from(request.sample_rate_hz).unwrap_or_default()
    };
    Speech::new(&request.text, MAX_CHARACTERS, rate_hz)?.voiced(
        &request.voice_name,
        Some(&request.language_code),
        tts.core.capability.multilingual,
    )
}

fn reply(
    audio: Bytes,
    request: Option<&SynthesizeSpeechRequest>,
    id: Option<RequestId>,
) -> SynthesizeSpeechResponse {
    let meta = request.map(|request| SynthesizeSpeechResponseMetadata {
        text: request.text.clone(),
        processed_text: request.text.trim().to_owned(),
        ..SynthesizeSpeechResponseMetadata::default()
    });
    SynthesizeSpeechResponse { audio, meta, id }
}

/// The model with its voices: `voice_name`, a dot and one of `subvoices`, each with its number, make a full name.
fn config(model: &str, multilingual: bool) -> Config {
    let (tags, voices): (Vec<&str>, Vec<Vec<String>>) = voices::subvoices(multilingual).into_iter().unzip();
    let numbered = voices.concat().into_iter().enumerate().map(|(index, voice)| format!("{voice}:{index}"));
    let parameters = [
        ("language_code", tags.join(",")),
        ("voice_name", voices::MODEL.to_owned()),
        ("subvoices", numbered.collect::<Vec<_>>().join(",")),
        ("sample_rate", DEFAULT_HZ.to_string()),
        ("type", "streaming".to_owned()),
    ];
    Config {
        model_name: model.to_owned(),
        parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}
