//! `POST /v1/audio/transcriptions`: an upload goes to an engine, its transcript comes back as asked for.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;

use contract::Capability;

use super::events;
use super::form::{Parameters, streams};
use super::wire::{self, Heard};
use crate::api::form::{Fields, Form};
use crate::api::{Context, check_offers, may_wait, outgoing, rendered};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::work::{Transcribe, Work};
use crate::upstream::{Outgoing, Served};

/// Takes the upload, has it transcribed, renders the transcript.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    by(context, request_id, None, request).await
}

/// As [`create`], by a model unless the form names another one.
pub async fn by(
    context: Arc<Context>,
    request_id: RequestId,
    model: Option<String>,
    request: Request,
) -> Result<Response, Error> {
    let form = context.open(request).await?;
    form.fill().await?;
    if form.says(streams) {
        return events::soon(async move { serve(&context, &form, model.as_deref(), &request_id).await })
            .await;
    }
    serve(&context, &form, model.as_deref(), &request_id).await
}

/// `POST /v1/audio/translations`: a clear refusal, before anything of the upload is read.
pub async fn translate() -> Error {
    let message =
        "no engine here translates; POST /v1/audio/transcriptions keeps the language that is spoken";
    Error::InvalidRequest { param: None, code: Some("unsupported_value"), message: message.into() }
}

async fn serve(
    context: &Context,
    form: &Form,
    model: Option<&str>,
    request_id: &RequestId,
) -> Result<Response, Error> {
    form.serve(|fields| transcribe(context, form, fields, model, request_id)).await
}

async fn transcribe(
    context: &Context,
    form: &Form,
    fields: Fields,
    model: Option<&str>,
    request_id: &RequestId,
) -> Result<Response, Error> {
    let mut parameters = Parameters::read(&fields)?;
    parameters.model = parameters.model.or_else(|| model.map(str::to_owned));
    let job = job(context, form, &fields, &parameters, request_id)?;
    let charge = request_id.charge(Unit::AudioSeconds, form.playing.seconds)?;
    let (heard, engine, hedged) = if parameters.speakers {
        let Served { value: (transcript, turns), engine, hedged } =
            context.upstreams.transcribe_with_speakers(&job).await?;
        (Heard { transcript, turns: Some(turns), playing: form.playing }, engine, hedged)
    } else {
        let Served { value: transcript, engine, hedged } = context.upstreams.transcribe(&job).await?;
        (Heard { transcript, turns: None, playing: form.playing }, engine, hedged)
    };
    context.served(form, request_id, (&engine, hedged), charge, heard.duration());
    let weight = heard.weight();
    let render = move || wire::render(heard, &parameters);
    rendered(weight, render, || context.upstreams.failed(Capability::Stt, "its reply could not be read"))
        .await
}

fn job(
    context: &Context,
    form: &Form,
    fields: &Fields,
    parameters: &Parameters,
    request_id: &RequestId,
) -> Result<Outgoing, Error> {
    let config = context.config.get();
    let route = context.route(request_id, parameters.model.as_deref(), Capability::Stt)?;
    let work = Work::Transcribe(Transcribe {
        words: parameters.needs_words(),
        language: parameters.language.clone(),
        prompt: parameters.prompt.clone(),
        temperature: parameters.temperature,
        speakers: parameters.speakers,
    });
    check_offers(&context.upstreams, &route, &work)?;
    let mut job = outgoing(route, work, form.playing.seconds, request_id);
    job.file = Some(form.upload(fields, &context.upstreams));
    job.may_wait = may_wait(&config, Capability::Stt, form.announced);
    Ok(job)
}
