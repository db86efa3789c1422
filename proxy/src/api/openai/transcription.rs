//! `POST /v1/audio/transcriptions`: an upload goes to an engine, its transcript comes back as asked for.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::HeaderValue;

use contract::Capability;

use super::events::{self, Teller};
use super::form::{Parameters, streams};
use super::jobs::{self, Wanted};
use super::translated::translated;
use super::wire::{self, Heard};
use crate::api::form::{Fields, Form};
use crate::api::{Context, Owner, check_offers, credential, llm, may_wait, outgoing, rendered};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::known::Reference;
use crate::job::work::{Transcribe, Transcript, Turns, Work};
use crate::upstream::{Listener, Long, Outgoing, Served};

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
    let wanted = Wanted::of(request.headers());
    let credential = credential(request.headers()).cloned();
    let form = context.open_or_find(request, Owner::Sender(&request_id, credential.as_ref())).await?;
    form.fill().await?;
    if wanted.prefers && context.jobs.is_some() || form.says(jobs::asks) {
        let (context, form) = (&*context, &form);
        let make = |fields| jobs::create(context, form, fields, model.as_deref(), &wanted, &request_id);
        return form.serve(make).await;
    }
    if form.says(streams) {
        let (teller, told) = Teller::new();
        let work = async move {
            let caller = (&request_id, credential.as_ref());
            serve(&context, &form, model.as_deref(), caller, Some(&teller)).await
        };
        return events::soon(work, told).await;
    }
    serve(&context, &form, model.as_deref(), (&request_id, credential.as_ref()), None).await
}

/// `POST /v1/audio/translations`: as [`create`], in English. Where no engine translates that is said before anything is read.
///
/// # Errors
/// A 400 that says so; else as [`create`].
pub async fn translate(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    translate_by(context, request_id, None, request).await
}

/// As [`translate`], by a model unless the form names another one.
///
/// # Errors
/// As [`translate`].
pub async fn translate_by(
    context: Arc<Context>,
    request_id: RequestId,
    model: Option<String>,
    request: Request,
) -> Result<Response, Error> {
    let by_model = context.config.get().has(Capability::Llm);
    if !by_model && !context.upstreams.translates(&Capability::Stt.into()) {
        return Err(untranslated());
    }
    let credential = credential(request.headers()).cloned();
    let form = context.open_or_find(request, Owner::Sender(&request_id, credential.as_ref())).await?;
    form.fill().await?;
    let caller = (&request_id, credential.as_ref());
    form.serve(|fields| async {
        let mut parameters = Parameters::translation(&fields)?;
        parameters.model = parameters.model.or_else(|| model.clone());
        let route = context.route(&request_id, parameters.model.as_deref(), Capability::Stt)?;
        if by_model && !context.upstreams.translates(&route) {
            (parameters.translate, parameters.translate_to) = (false, Some("en".to_owned()));
        }
        answer(&context, &form, fields, parameters, caller, None).await
    })
    .await
}

fn untranslated() -> Error {
    let message = "no engine here translates, and there is no language model (engines[].capability: llm); POST /v1/audio/transcriptions keeps the language that is spoken";
    Error::InvalidRequest { param: None, code: Some("unsupported_value"), message: message.into() }
}

/// The request and its credential.
type Caller<'a> = (&'a RequestId, Option<&'a HeaderValue>);

async fn serve(
    context: &Context,
    form: &Form,
    model: Option<&str>,
    caller: Caller<'_>,
    teller: Option<&Arc<Teller>>,
) -> Result<Response, Error> {
    form.serve(|fields| transcribe(context, form, fields, model, caller, teller)).await
}

async fn transcribe(
    context: &Context,
    form: &Form,
    fields: Fields,
    model: Option<&str>,
    caller: Caller<'_>,
    teller: Option<&Arc<Teller>>,
) -> Result<Response, Error> {
    let mut parameters = Parameters::read(&fields)?;
    parameters.model = parameters.model.or_else(|| model.map(str::to_owned));
    answer(context, form, fields, parameters, caller, teller).await
}

async fn answer(
    context: &Context,
    form: &Form,
    fields: Fields,
    parameters: Parameters,
    (request_id, credential): Caller<'_>,
    teller: Option<&Arc<Teller>>,
) -> Result<Response, Error> {
    if parameters.translate_to.is_some() {
        llm::check(context)?;
    }
    let mut job = job(context, form, &fields, &parameters, request_id)?;
    let references = parameters.known.references(context, Owner::Sender(request_id, credential)).await?;
    let charge = request_id.charge(Unit::AudioSeconds, form.playing.seconds).await?;
    let teller = teller.filter(|_| parameters.stream && !parameters.speakers);
    job.long.listener = teller.map(|teller| Arc::clone(teller) as Arc<dyn Listener>);
    let Served { value: (transcript, turns), engine, hedged } = hear(context, &job, &references).await?;
    let told = teller.map_or(0, |teller| teller.told());
    let known = parameters.known.names.clone();
    let mut heard = Heard { transcript, turns, known, playing: form.playing, told, translated: None };
    context.served(form, request_id, (&engine, hedged), charge, heard.duration());
    if let Some(target) = &parameters.translate_to {
        let seconds = heard.duration();
        let translated = translated(context, request_id, &mut heard.transcript, seconds, target).await?;
        heard.translated = Some(translated);
    }
    let weight = heard.weight();
    let render = move || wire::render(heard, &parameters);
    rendered(weight, render, || context.upstreams.failed(Capability::Stt, "its reply could not be read"))
        .await
}

/// Has a job's file transcribed, with speaker turns where it asks for them, named after references where there are some.
pub(super) async fn hear(
    context: &Context,
    job: &Outgoing,
    references: &[Reference],
) -> Result<Served<(Transcript, Option<Turns>)>, Error> {
    if !references.is_empty() {
        let Served { value: (transcript, turns), engine, hedged } =
            context.upstreams.transcribe_with_known(job, references).await?;
        return Ok(Served { value: (transcript, Some(turns)), engine, hedged });
    }
    if matches!(&job.work, Work::Transcribe(wanted) if wanted.speakers) {
        let Served { value: (transcript, turns), engine, hedged } =
            context.upstreams.transcribe_with_speakers(job).await?;
        return Ok(Served { value: (transcript, Some(turns)), engine, hedged });
    }
    let Served { value: transcript, engine, hedged } = context.upstreams.transcribe(job).await?;
    Ok(Served { value: (transcript, None), engine, hedged })
}

/// The job that a form asks for.
pub(super) fn job(
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
        live: false,
        translate: parameters.translate,
    });
    check_offers(&context.upstreams, &route, &work)?;
    if parameters.translate && !context.upstreams.translates(&route) {
        return Err(untranslated());
    }
    if parameters.logprobs && !context.upstreams.has_confidences(&route) {
        let message =
            "include[]=logprobs is not supported: the engine does not say how sure it is of its words";
        return Err(Error::param("include", message));
    }
    let mut job = outgoing(route, work, form.playing.seconds, request_id);
    job.file = Some(form.upload(fields, &context.upstreams));
    job.may_wait = may_wait(&config, Capability::Stt, form.announced);
    job.long =
        Long { threshold: parameters.chunking.threshold, pause: parameters.chunking.pause, listener: None };
    Ok(job)
}
