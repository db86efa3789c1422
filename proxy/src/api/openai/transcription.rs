//! `POST /v1/audio/transcriptions`: an upload passes through to an engine, its transcript comes back as asked for.

use std::sync::{Arc, OnceLock};

use axum::extract::{Extension, Request, State};
use axum::response::Response;

use contract::Capability;

use crate::api::form::{Fields, Purpose, Upload};
use crate::api::openai::form::Parameters;
use crate::api::openai::wire;
use crate::api::{Context, RequestId};
use crate::error::Error;
use crate::job::input::InputHash;
use crate::protocol::old_parakeet::{self as parakeet, Options, Transcription};
use crate::upstream::Route;

/// Takes the upload, sends it to an engine while it arrives, renders the engine's reply.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    let parameters = Arc::new(OnceLock::new());
    let route = Arc::new(OnceLock::new());
    let purpose =
        Transcribe { context: context.clone(), parameters: parameters.clone(), route: route.clone() };
    let opened = Upload::open(request, context.body_limit(), purpose).await?;
    let (playing, hash) = (opened.playing, opened.hash.clone());
    let route = route.get().cloned().unwrap_or_else(|| context.default_route(Capability::Stt));
    let form = context.form(opened);
    let outgoing = context.outgoing(route, parakeet::TRANSCRIBE, form, &request_id);
    let (reply, _) = context.ask(&outgoing).await?;
    let reply_bytes = reply.len();
    let Some(parameters) = parameters.get().cloned() else {
        return Err(context.engine_failed(Capability::Stt, "it answered before the upload ended"));
    };
    let work = move || {
        let transcription = Transcription::parse(&reply)?;
        let seconds = wire::duration(&transcription, playing);
        Ok((wire::render(transcription, &parameters, playing), seconds))
    };
    let (response, seconds) = context.digest(reply_bytes, work).await?;
    context.served(&hash);
    context.metrics.audio_seconds(Capability::Stt).inc_by(seconds);
    Ok(response)
}

/// Judges the form of a transcription.
struct Transcribe {
    context: Arc<Context>,
    /// Set once the form is complete.
    parameters: Arc<OnceLock<Parameters>>,
    /// Set once an engine can be chosen.
    route: Arc<OnceLock<Route>>,
}

impl Transcribe {
    fn read(&self, fields: &Fields) -> Result<Parameters, Error> {
        let parameters = Parameters::read(fields)?;
        let route = match &parameters.model {
            None => self.context.default_route(Capability::Stt),
            Some(model) => {
                let route = self.context.model_route(model)?;
                if route.capability != Capability::Stt {
                    let message = format!("the model '{model}' does not transcribe; see GET /v1/models");
                    return Err(Error::param("model", message));
                }
                route
            }
        };
        // The upload is on its way to the engines that served it as far as it was known.
        if *self.route.get_or_init(|| route.clone()) != route {
            return Err(Error::param("model", "send model before file: it is served by other engines"));
        }
        Ok(parameters)
    }
}

impl Purpose for Transcribe {
    fn check(&self, fields: &Fields) -> Result<(), Error> {
        self.read(fields).map(drop)
    }

    fn finish(&mut self, fields: &Fields, hash: &str) -> Result<Vec<(&'static str, String)>, Error> {
        let parameters = self.read(fields)?;
        parameters.check_together()?;
        if self.context.upstreams.is_poison(hash.parse().unwrap_or(InputHash(0))) {
            return Err(Error::PoisonInput);
        }
        let options = Options {
            timestamps: parameters.format.needs_words(),
            language: parameters.language.clone(),
            prompt: parameters.prompt.clone(),
            temperature: parameters.temperature,
        };
        self.parameters.get_or_init(|| parameters);
        Ok(options.fields())
    }
}
