//! `POST /v1/audio/transcriptions`: an upload goes to an engine, its transcript comes back as asked for.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;

use contract::Capability;

use super::form::Parameters;
use super::wire;
use crate::api::form::{Fields, Form};
use crate::api::{Context, catalog, check_offers, may_wait, outgoing, rendered};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::work::{Transcribe, Work};
use crate::upstream::Outgoing;

/// Takes the upload, has it transcribed, renders the transcript.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    let limit = context.config.get().gateway.body_limit.as_u64();
    let form = Form::open(request, limit, context.upstreams.budget()).await?;
    let (context, form) = (&*context, &form);
    form.serve(|fields| transcribe(context, form, fields, &request_id)).await
}

async fn transcribe(
    context: &Context,
    form: &Form,
    fields: Fields,
    request_id: &RequestId,
) -> Result<Response, Error> {
    let parameters = Parameters::read(&fields)?;
    let job = job(context, form, &fields, &parameters, request_id)?;
    let served = context.upstreams.transcribe(&job).await?;
    request_id.served_by(&served.engine, served.hedged);
    if let Some(input) = form.input() {
        context.upstreams.served(input);
    }
    let (transcript, playing) = (served.value, form.playing);
    context.metrics.audio_seconds(Capability::Stt).inc_by(wire::duration(&transcript, playing));
    let words = transcript.words.len();
    let render = move || wire::render(transcript, &parameters, playing);
    rendered(words, render, || context.upstreams.failed(Capability::Stt, "its reply could not be read")).await
}

fn job(
    context: &Context,
    form: &Form,
    fields: &Fields,
    parameters: &Parameters,
    request_id: &RequestId,
) -> Result<Outgoing, Error> {
    let config = context.config.get();
    let voices = context.voices.known();
    let route = catalog::route_for(&config, &voices, parameters.model.as_deref(), Capability::Stt)?;
    let work = Work::Transcribe(Transcribe {
        words: parameters.needs_words(),
        language: parameters.language.clone(),
        prompt: parameters.prompt.clone(),
        temperature: parameters.temperature,
        speakers: false,
    });
    check_offers(&context.upstreams, &route, &work)?;
    let mut job = outgoing(route, work, form.playing.seconds, request_id);
    job.file = Some(form.upload(fields, &context.upstreams));
    job.may_wait = may_wait(&config, Capability::Stt, form.announced);
    Ok(job)
}
