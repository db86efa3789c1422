//! Transcriptions in the background: `async=true` makes a job, `/v1/audio/jobs` tells of it and has its result.

mod view;
mod worker;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::events::PING_PERIOD;
use super::form::Parameters;
use super::transcription;
use super::wire::{self, Heard};
use crate::api::form::{Fields, Form, Playing};
use crate::api::{Context, credential, owner, owner_by, rendered, sse};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::jobs::{Jobs, Record, Status, Webhook};
use contract::Capability;

pub use view::{Job, List};
pub use worker::Transcriber;

/// Jobs of a page of the list.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;
/// Longest idempotency key.
const MAX_KEY: usize = 255;

/// What the headers of a request say of jobs.
pub struct Wanted {
    /// The client prefers a job (RFC 7240).
    pub prefers: bool,
    key: Option<HeaderValue>,
    credential: Option<HeaderValue>,
}

impl Wanted {
    /// Reads them. Most requests make no job, so that nothing is made of them here.
    pub fn of(headers: &HeaderMap) -> Self {
        let prefers = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let prefers = prefers
            .flat_map(|value| value.split(','))
            .any(|preference| preference.trim().eq_ignore_ascii_case("respond-async"));
        let key = headers.get("idempotency-key").cloned();
        Self { prefers, key, credential: credential(headers).cloned() }
    }

    fn key(&self) -> Option<String> {
        self.key.as_ref().and_then(|key| key.to_str().ok()).map(str::to_owned)
    }
}

/// Whether the fields ask for a job, as far as they are there.
pub fn asks(fields: &Fields) -> bool {
    fields.flag("async") == Ok(true)
}

fn jobs(context: &Context) -> Result<&Jobs, Error> {
    context.jobs.as_ref().ok_or_else(|| {
        Error::param("async", "this gateway keeps no jobs: set gateway.jobs.dir, or leave async out")
    })
}

/// Makes a job of a form: 202 once it is on disk.
///
/// # Errors
/// What is wrong with the upload or a parameter; [`Error::TooManyJobs`]; [`Error::KeyReused`]; [`Error::Storage`].
pub async fn create(
    context: &Context,
    form: &Form,
    fields: Fields,
    model: Option<&str>,
    wanted: &Wanted,
    request_id: &RequestId,
) -> Result<Response, Error> {
    let jobs = jobs(context)?;
    let mut parameters = Parameters::read(&fields)?;
    parameters.model = parameters.model.or_else(|| model.map(str::to_owned));
    if parameters.stream {
        return Err(Error::param("stream", "stream and async exclude each other; a job has /events"));
    }
    if parameters.translate_to.is_some() {
        let message = "translate_to is not supported for a job; leave async out";
        return Err(Error::param("translate_to", message));
    }
    if parameters.known.has_recordings() {
        let message =
            "a job takes speakers that are enrolled: POST /v1/audio/speakers, and send their names alone";
        return Err(Error::param("known_speaker_references", message));
    }
    // Refuses now what no engine does.
    let job = transcription::job(context, form, &fields, &parameters, request_id)?;
    let key = wanted.key().or_else(|| fields.set("idempotency_key").map(str::to_owned));
    if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
        return Err(Error::param("Idempotency-Key", "Idempotency-Key must have 1 to 255 characters"));
    }
    let webhook = fields.set("webhook_url").map(|url| {
        jobs.check_webhook(url).map(|()| Webhook { url: url.to_owned(), attempts: 0, delivered: None })
    });
    let webhook = webhook.transpose()?;
    // An upload in parts has its room already.
    jobs.admit(form.announced.filter(|_| !form.is_kept()).unwrap_or(0))?;
    let (id, path) = jobs.reserve();
    let upload = form.link(&path).await;
    let bytes = match (upload, form.announced) {
        (Some(_), Some(bytes)) => bytes,
        _ => form.save(&path, context.config.get().gateway.jobs.disk.as_u64()).await?,
    };
    let gate = job.file.as_ref().map_or(Ok(()), |file| file.gate.check());
    if let Err(error) = gate.and_then(|()| jobs.admit(if upload.is_some() { 0 } else { bytes })) {
        jobs.discard(&id);
        return Err(error);
    }
    let mut pairs = fields.pairs().to_vec();
    pairs.retain(|(name, _)| !matches!(name.as_str(), "async" | "webhook_url" | "idempotency_key"));
    if let (None, Some(model)) = (fields.set("model"), model) {
        pairs.push(("model".into(), model.to_owned()));
    }
    let record = Record {
        owner: owner_by(request_id, wanted.credential.as_ref()),
        status: Status::Queued,
        created: view::now(),
        started: None,
        ended: None,
        attempts: 0,
        fields: pairs,
        filename: form.filename().to_owned(),
        bytes,
        upload: upload.map(str::to_owned),
        input: form.input().map(|input| input.to_string()).unwrap_or_default(),
        seconds: form.playing.seconds,
        heard: 0.0,
        failure: None,
        key,
        webhook,
        revision: 0,
        gateway: None,
        not_before: 0,
        id,
    };
    let charge = request_id
        .charge(Unit::AudioSeconds, record.seconds)
        .await
        .inspect_err(|_| jobs.discard(&record.id))?;
    let (record, is_new) = jobs.submit(record).await?;
    // It will be heard, if not now.
    if let Some(charge) = charge.filter(|_| is_new) {
        charge.settle_all();
    }
    let location = format!("/v1/audio/jobs/{}", record.id);
    let mut response = (StatusCode::ACCEPTED, Json(view::job(context, jobs, &record))).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(header::LOCATION, location);
    }
    if wanted.prefers {
        headers.insert("preference-applied", HeaderValue::from_static("respond-async"));
    }
    Ok(response)
}

/// `GET /v1/audio/jobs`: the newest first, `limit` of them, those before the job `after`.
///
/// # Errors
/// A 400 when this gateway keeps no jobs, or for a limit that is none; [`Error::Storage`].
pub async fn list(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let jobs = jobs(&context)?;
    let query = Fields::of_query(query.as_deref().unwrap_or_default())?;
    let limit = match query.set("limit").map(str::parse) {
        None => PAGE,
        Some(Ok(limit)) if (1..=MAX_PAGE).contains(&limit) => limit,
        Some(_) => return Err(Error::param("limit", format!("limit must be a number from 1 to {MAX_PAGE}"))),
    };
    let owner = owner(&request_id, &headers);
    let (found, more) = jobs.list(&owner, query.set("after"), limit).await?;
    let data = found.iter().map(|record| view::job(&context, jobs, record)).collect();
    Ok(Json(view::List::new(data, more)).into_response())
}

/// `GET /v1/audio/jobs/{id}`.
///
/// # Errors
/// [`Error::JobNotFound`]; [`Error::Storage`].
pub async fn one(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let jobs = jobs(&context)?;
    let record = jobs.get(&id, &owner(&request_id, &headers)).await?;
    Ok(Json(view::job(&context, jobs, &record)).into_response())
}

/// `POST /v1/audio/jobs/{id}/cancel`: ends a job; one that has ended stays as it is.
///
/// # Errors
/// [`Error::JobNotFound`]; [`Error::Storage`].
pub async fn cancel(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let jobs = jobs(&context)?;
    let record = jobs.cancel(&id, &owner(&request_id, &headers)).await?;
    Ok(Json(view::job(&context, jobs, &record)).into_response())
}

/// `DELETE /v1/audio/jobs/{id}`: ends and forgets a job, its upload and its result.
///
/// # Errors
/// [`Error::JobNotFound`]; [`Error::Storage`].
pub async fn remove(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    jobs(&context)?.remove(&id, &owner(&request_id, &headers)).await?;
    Ok(Json(json!({"id": id, "object": "audio.job", "deleted": true})).into_response())
}

/// `GET /v1/audio/jobs/{id}/events`: the job each time it changes, until it ends.
///
/// # Errors
/// [`Error::JobNotFound`]; [`Error::Storage`].
pub async fn events(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let (jobs, owner) = (jobs(&context)?.clone(), owner(&request_id, &headers));
    jobs.get(&id, &owner).await?;
    let changes = jobs.changes();
    let drain = context.drain.clone();
    let state = (context, jobs, id, owner, changes, String::new(), false);
    let events = stream::unfold(state, move |mut state| {
        let drain = drain.clone();
        async move {
            let (context, jobs, id, owner, changes, last, ended) = &mut state;
            if *ended {
                return None;
            }
            loop {
                changes.mark_unchanged();
                // One that is removed meanwhile has no more events.
                let Ok(record) = jobs.known(id, owner) else {
                    *ended = true;
                    return Some((sse::END.to_owned(), state));
                };
                let event = sse::event("job", &view::job(context, jobs, &record));
                *ended = record.status.is_final();
                if *ended {
                    return Some((format!("{event}{}", sse::END), state));
                }
                if event != *last {
                    last.clone_from(&event);
                    return Some((event, state));
                }
                tokio::select! {
                    changed = tokio::time::timeout(PING_PERIOD, changes.changed()) => match changed {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return None,
                        Err(_) => return Some((sse::PING.to_owned(), state)),
                    },
                    () = drain.begun() => return None,
                }
            }
        }
    });
    Ok(sse::response(Body::from_stream(
        events.map(|event| Ok::<_, std::convert::Infallible>(Bytes::from(event))),
    )))
}

/// `GET /v1/audio/jobs/{id}/result`: the transcript, in the format of the query or of the job's form.
///
/// # Errors
/// [`Error::JobNotFound`]; [`Error::JobUnfinished`]; [`Error::JobCanceled`]; a 400 for what the job did not ask engines for.
pub async fn result(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let (jobs, owner) = (jobs(&context)?, owner(&request_id, &headers));
    let asked = Fields::of_query(query.as_deref().unwrap_or_default())?;
    let record = jobs.get(&id, &owner).await?;
    let outcome = match jobs.outcome(&record).await? {
        Ok(outcome) => outcome,
        Err(failure) => return Ok(view::failed(&failure)),
    };
    let parameters = view::parameters(&record, &asked, &outcome)?;
    let (seconds, exact) = outcome.playing;
    let heard = Heard {
        transcript: outcome.transcript,
        turns: outcome.turns.filter(|_| parameters.speakers),
        known: parameters.known.names.clone(),
        playing: Playing { seconds, exact },
        told: 0,
        translated: None,
    };
    let weight = heard.weight();
    let render = move || wire::render(heard, &parameters);
    rendered(weight, render, || context.upstreams.failed(Capability::Stt, "its reply could not be read"))
        .await
}
