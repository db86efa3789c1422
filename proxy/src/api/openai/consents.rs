//! `/v1/audio/voice_consents`: recordings in which people consent to have their voice imitated, as OpenAI's API keeps them. The id
//! of one is the `consent` of `POST /v1/audio/voices`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::clips::{self, FILE_BYTES, New};
use super::known::check_name;
use crate::api::{Context, owner, small};
use crate::clips::{Clip, Clips, Kind};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::language;

/// Shortest and longest recording, seconds.
pub(super) const SECONDS: RangeInclusive<f64> = 1.0..=60.0;
/// What ids begin with.
const PREFIX: &str = "cons_";
/// Consents of a page of the list, and the most that a page may have.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;
/// Longest body of a change.
const BODY_BYTES: usize = 16 * 1024;

/// A recorded consent.
#[derive(Serialize, ToSchema)]
#[schema(as = VoiceConsent)]
pub struct Consent {
    /// `audio.voice_consent`.
    object: &'static str,
    id: String,
    name: String,
    /// The tag of the language that is spoken.
    language: String,
    /// Unix time, seconds.
    created_at: u64,
}

/// Consents.
#[derive(Serialize, ToSchema)]
#[schema(as = VoiceConsentList)]
pub struct List {
    object: &'static str,
    data: Vec<Consent>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// Query of the list.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// Most of them.
    limit: Option<usize>,
    /// The last one of the page before.
    after: Option<String>,
}

impl From<Clip> for Consent {
    fn from(clip: Clip) -> Self {
        let (object, language) = ("audio.voice_consent", clip.language.unwrap_or_default());
        Self { object, id: clip.id, name: clip.name, language, created_at: clip.created }
    }
}

/// `POST /v1/audio/voice_consents`: keeps a recording of a consent.
///
/// # Errors
/// What is wrong with the form; this gateway keeps none; there is one of that name.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Consent>, Error> {
    let _ = clips::clips(&context, Kind::Consent)?;
    let form = context.open(request).await?;
    let file = form.bytes(FILE_BYTES).await?;
    let read = |name: &'static str, hint: &str| {
        let value = form.says(|fields| fields.set(name).map(str::to_owned));
        value.ok_or_else(|| Error::param(name, format!("{name} is missing: {hint}")))
    };
    let name = read("name", "what the consent is called")?;
    let spoken = read("language", "the tag of the language that is spoken, such as en-US")?;
    let language = language::requested(&spoken).ok().flatten();
    let wrong = || Error::param("language", format!("'{spoken}' is not a language code such as en-US"));
    let new = New { name, consent: None, transcript: None, language: Some(language.ok_or_else(wrong)?) };
    let (owner, file) = (owner(&request_id, &headers), (file, Some(form.container())));
    Ok(Json(clips::keep(&context, &owner, Kind::Consent, new, file).await?.into()))
}

/// `GET /v1/audio/voice_consents`: those of the caller, the newest first.
///
/// # Errors
/// This gateway keeps none; a page that cannot be.
pub async fn list(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<List>, Error> {
    let wrong = || Error::param("limit", format!("limit must be a whole number from 1 to {MAX_PAGE}"));
    let Query(Page { limit, after }) = page.map_err(|_| wrong())?;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(wrong());
    }
    let owner = owner(&request_id, &headers);
    let all = clips::on_disk(&context, Kind::Consent, move |clips| clips.list(Kind::Consent, &owner));
    let mut all = all.await?;
    all.reverse();
    // Ids grow with time.
    all.retain(|clip| after.as_ref().is_none_or(|after| clip.id < *after));
    let has_more = all.len() > limit;
    all.truncate(limit);
    let id = |clip: Option<&Clip>| clip.map(|clip| clip.id.clone());
    let (first_id, last_id) = (id(all.first()), id(all.last()));
    let data = all.into_iter().map(Consent::from).collect();
    Ok(Json(List { object: "list", data, first_id, last_id, has_more }))
}

/// `GET /v1/audio/voice_consents/{id}`.
///
/// # Errors
/// There is none such.
pub async fn one(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Consent>, Error> {
    let (id, owner) = (named(id)?, owner(&request_id, &headers));
    let found = clips::on_disk(&context, Kind::Consent, move |clips| clips.find(Kind::Consent, &owner, &id));
    Ok(Json(found.await?.ok_or_else(missing)?.into()))
}

/// `POST /v1/audio/voice_consents/{id}`: gives it another `name`, in JSON.
///
/// # Errors
/// There is none such; there is one of that name; what is wrong with the body.
pub async fn change(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Consent>, Error> {
    let (id, owner) = (named(id)?, owner(&request_id, &headers));
    let body = small::read(request.into_body(), BODY_BYTES).await?;
    let body: Value = serde_json::from_slice(&body).map_err(|error| Error::InvalidRequest {
        param: None,
        code: Some("invalid_json"),
        message: format!("the request body is not valid JSON: {error}"),
    })?;
    let name = body.get("name").and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    check_name("name", &name)?;
    let renamed = move |clips: &Clips| clips.rename(Kind::Consent, &owner, &id, name);
    let renamed = clips::on_disk(&context, Kind::Consent, renamed).await?;
    Ok(Json(renamed.ok_or_else(missing)?.into()))
}

/// `DELETE /v1/audio/voice_consents/{id}`. Voices that were made with it stay.
///
/// # Errors
/// There is none such.
pub async fn forget(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Error> {
    clips::forget(&context, owner(&request_id, &headers), Kind::Consent, id).await
}

/// Whether a text is built like the id of a consent.
pub(super) fn is_id(consent: &str) -> bool {
    consent.starts_with(PREFIX) && !consent.contains(char::is_whitespace)
}

/// Refuses the id of a consent that the owner has not recorded.
pub(super) async fn check(context: &Context, owner: &str, id: &str) -> Result<(), Error> {
    let (owner, wanted) = (owner.to_owned(), id.to_owned());
    let found = move |clips: &Clips| clips.find(Kind::Consent, &owner, &wanted);
    if clips::on_disk(context, Kind::Consent, found).await?.is_some() {
        return Ok(());
    }
    let id: String = id.chars().take(64).collect();
    Err(Error::param("consent", format!("no consent '{id}'; POST /v1/audio/voice_consents records one")))
}

fn named(id: Result<Path<String>, PathRejection>) -> Result<String, Error> {
    id.map(|Path(id)| id).map_err(|_| Error::param("id", "the id is not UTF-8"))
}

fn missing() -> Error {
    Error::ClipNotFound { kind: Kind::Consent.noun() }
}
