//! NVIDIA's Riva over gRPC: recognition, synthesis and gRPC's own health service, as Riva's clients call them.
//!
//! Engines behind may speak any protocol: a call becomes the same job as any other dialect's.

mod audio;
mod config;
mod deadline;
mod endpointing;
mod health;
mod live;
mod models;
mod recognition;
mod status;
mod synthesis;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method, Version, header};
use tonic::Status;
use tower::{Service, ServiceExt};

use self::health::Health;
use self::recognition::Recognition;
use self::synthesis::Synthesis;
use super::Context;
use crate::edge::{Passage, RequestId};
use crate::error::Error;
use crate::grpc::CONTENT_TYPE;
use crate::riva_proto::asr::riva_speech_recognition_server::RivaSpeechRecognitionServer;
use crate::riva_proto::health::health_server::HealthServer;
use crate::riva_proto::tts::riva_speech_synthesis_server::RivaSpeechSynthesisServer;

/// A call of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A recording to text.
    Recognize,
    /// Speech to text while it is spoken.
    StreamingRecognize,
    /// The models that recognize.
    RecognitionConfig,
    /// A text to all of its speech.
    Synthesize,
    /// Texts to speech as it is made.
    SynthesizeOnline,
    /// The models that speak, with their voices.
    SynthesisConfig,
    /// Whether a service can serve.
    Check,
    /// The same, and each change.
    Watch,
    /// There is no such call.
    Unknown,
}

const CALLS: [(&str, Call); 8] = [
    ("/nvidia.riva.asr.RivaSpeechRecognition/Recognize", Call::Recognize),
    ("/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize", Call::StreamingRecognize),
    ("/nvidia.riva.asr.RivaSpeechRecognition/GetRivaSpeechRecognitionConfig", Call::RecognitionConfig),
    ("/nvidia.riva.tts.RivaSpeechSynthesis/Synthesize", Call::Synthesize),
    ("/nvidia.riva.tts.RivaSpeechSynthesis/SynthesizeOnline", Call::SynthesizeOnline),
    ("/nvidia.riva.tts.RivaSpeechSynthesis/GetRivaSynthesisConfig", Call::SynthesisConfig),
    ("/grpc.health.v1.Health/Check", Call::Check),
    ("/grpc.health.v1.Health/Watch", Call::Watch),
];

impl Call {
    /// The call that a request makes; `None` when it is not one of gRPC.
    pub fn of<B>(request: &http::Request<B>) -> Option<Self> {
        let version = request.version();
        if version != Version::HTTP_2 || request.method() != Method::POST || !is_grpc(request.headers()) {
            return None;
        }
        let path = request.uri().path();
        Some(CALLS.iter().find(|(known, _)| *known == path).map_or(Self::Unknown, |(_, call)| *call))
    }

    /// How it passes the edge. A session has a permit of its own, and what is asked often takes none.
    pub fn passage(self) -> Passage<'static> {
        let takes_permit = matches!(self, Self::Recognize | Self::Synthesize | Self::SynthesizeOnline);
        let is_paced = !matches!(self, Self::StreamingRecognize | Self::SynthesizeOnline);
        let pattern = CALLS.iter().find(|(_, call)| *call == self).map_or("unmatched", |(path, _)| *path);
        Passage { pattern, takes_permit, is_paced, is_grpc: true, refuse: Some(refuse) }
    }

    /// Answers it within the client's deadline.
    pub async fn serve(self, context: Arc<Context>, id: RequestId, mut request: Request) -> Response {
        let limit = match deadline::of(request.headers()) {
            Ok(limit) => limit,
            Err(status) => return status.into_http(),
        };
        request.extensions_mut().insert(id);
        deadline::within(limit, self.answer(context, request)).await
    }

    async fn answer(self, context: Arc<Context>, request: Request) -> Response {
        let max = context.config.get().gateway.grpc.max_bytes();
        let response = match self {
            Self::Recognize | Self::StreamingRecognize | Self::RecognitionConfig => {
                let server = RivaSpeechRecognitionServer::new(Recognition { context });
                call(server.max_decoding_message_size(max), request).await
            }
            Self::Synthesize | Self::SynthesizeOnline | Self::SynthesisConfig => {
                let server = RivaSpeechSynthesisServer::new(Synthesis { context });
                call(server.max_decoding_message_size(max), request).await
            }
            Self::Check | Self::Watch => call(HealthServer::new(Health { context }), request).await,
            Self::Unknown => {
                let path: String = request.uri().path().chars().take(256).collect();
                return Status::unimplemented(format!("no such call: {path}")).into_http();
            }
        };
        match response.extensions().get::<Status>() {
            Some(status) => status::tidy(status.clone(), max).into_http(),
            None => response,
        }
    }
}

/// Whether a request is one of gRPC: its content type, with or without the name of a serialisation, which is protobuf.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let rest = kind.strip_prefix(CONTENT_TYPE);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(';') || rest.starts_with("+proto"))
}

async fn call<S>(server: S, request: Request) -> Response
where
    S: Service<Request, Response = http::Response<tonic::body::Body>, Error = Infallible>,
{
    match server.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

fn refuse(error: Error) -> Response {
    Status::from(error).into_http()
}

/// The id of a request, which [`Call::serve`] put there.
fn request_id(extensions: &tonic::Extensions) -> Result<RequestId, Status> {
    extensions.get::<RequestId>().cloned().ok_or_else(|| Status::internal("the request has no id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, path: &str, kind: &str) -> Option<Call> {
        let request = http::Request::builder().version(Version::HTTP_2).method(method).uri(path);
        Call::of(&request.header(header::CONTENT_TYPE, kind).body(()).unwrap())
    }

    #[test]
    fn calls_are_known_by_method_type_and_path() {
        for (path, call) in CALLS {
            for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
                assert_eq!(of(Method::POST, path, kind), Some(call), "{path} {kind}");
            }
            assert_eq!(call.passage().pattern, path);
        }
        assert_eq!(of(Method::POST, "/a.B/C", "application/grpc"), Some(Call::Unknown));
        assert_eq!(Call::Unknown.passage().pattern, "unmatched");
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/json", ""] {
            assert_eq!(of(Method::POST, CALLS[0].0, kind), None, "{kind}");
        }
        assert_eq!(of(Method::GET, CALLS[0].0, "application/grpc"), None);
    }
}
