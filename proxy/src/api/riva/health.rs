//! gRPC's health service: the gateway as a whole, or one of its services.

use std::sync::Arc;
use std::time::Duration;

use contract::Capability;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::{Request, Response, Status};

use crate::api::Context;
use crate::riva_proto::asr::riva_speech_recognition_server::SERVICE_NAME as RECOGNITION;
use crate::riva_proto::health::health_check_response::ServingStatus::{NotServing, Serving};
use crate::riva_proto::health::health_server;
use crate::riva_proto::health::{HealthCheckRequest, HealthCheckResponse};
use crate::riva_proto::tts::riva_speech_synthesis_server::SERVICE_NAME as SYNTHESIS;

/// State of a service that is not known, which Riva's own health.proto leaves out.
const SERVICE_UNKNOWN: i32 = 3;
/// How often a watched state is looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(500);

/// The service.
pub(super) struct Health {
    pub(super) context: Arc<Context>,
}

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// Every capability that is configured.
    Whole,
    Capability(Capability),
    Unknown,
}

impl Subject {
    fn of(service: &str) -> Self {
        match service {
            "" => Self::Whole,
            RECOGNITION => Self::Capability(Capability::Stt),
            SYNTHESIS => Self::Capability(Capability::Tts),
            _ => Self::Unknown,
        }
    }

    /// The number of its state.
    fn status(self, context: &Context) -> i32 {
        let is_ready = match self {
            Self::Whole => context.unready().is_none(),
            Self::Capability(capability) => {
                !context.drain.is_announced() && context.upstreams.ready(capability)
            }
            Self::Unknown => return SERVICE_UNKNOWN,
        };
        if is_ready { Serving.into() } else { NotServing.into() }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match Subject::of(&request.into_inner().service) {
            Subject::Unknown => Err(Status::not_found("no such service")),
            subject => Ok(Response::new(reply(subject.status(&self.context)))),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// The state and each change of it, until the gateway stops.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let subject = Subject::of(&request.into_inner().service);
        let state = (Arc::clone(&self.context), None);
        let changes = stream::unfold(state, move |(context, last)| async move {
            let mut now = subject.status(&context);
            while last == Some(now) {
                tokio::select! {
                    () = context.drain.begun() => return None,
                    () = tokio::time::sleep(WATCH_PERIOD) => {}
                }
                now = subject.status(&context);
            }
            Some((Ok(reply(now)), (context, Some(now))))
        });
        Ok(Response::new(changes.boxed()))
    }
}

fn reply(status: i32) -> HealthCheckResponse {
    HealthCheckResponse { status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_their_full_names() {
        assert_eq!(Subject::of(""), Subject::Whole);
        let recognition = "nvidia.riva.asr.RivaSpeechRecognition";
        assert_eq!(Subject::of(recognition), Subject::Capability(Capability::Stt));
        assert_eq!(Subject::of("nvidia.riva.tts.RivaSpeechSynthesis"), Subject::Capability(Capability::Tts));
        assert_eq!(Subject::of("recognition"), Subject::Unknown);
    }
}
