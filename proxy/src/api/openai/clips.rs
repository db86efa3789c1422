//! Speakers who are to be recognised by name, `/v1/audio/speakers`, and voices that are to be imitated, `POST /v1/audio/voices`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::consents;
use super::known::{check_name, decode};
use crate::api::{Context, Owner, catalog, owner};
use crate::audio::{Container, wav};
use crate::clips::{self, Clip, Clips, Kind};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::known::SECONDS;
use crate::job::voice;
use crate::job::work::Prompt;

/// Largest file: OpenAI's limit.
pub(super) const FILE_BYTES: usize = 10 * 1024 * 1024;
/// Longest text that comes with a voice, characters.
const TEXT: usize = 4096;

/// A speaker or a voice.
#[derive(Serialize, ToSchema)]
#[schema(as = NamedClip)]
pub struct Shown {
    id: String,
    /// `audio.speaker` or `audio.voice`.
    object: &'static str,
    name: String,
    /// Unix time, seconds.
    created_at: u64,
    /// Seconds of the recording.
    duration: f64,
}

/// Speakers.
#[derive(Serialize, ToSchema)]
#[schema(as = SpeakerList)]
pub struct List {
    object: &'static str,
    data: Vec<Shown>,
}

impl From<Clip> for Shown {
    fn from(clip: Clip) -> Self {
        let object = match clip.kind {
            Kind::Speaker => "audio.speaker",
            Kind::Voice => "audio.voice",
            Kind::Consent => "audio.voice_consent",
        };
        Self { id: clip.id, object, name: clip.name, created_at: clip.created, duration: clip.seconds }
    }
}

/// `POST /v1/audio/speakers`: enrols a speaker from a recording.
///
/// # Errors
/// What is wrong with the form; this gateway keeps none; there is one of that name.
pub async fn enrol(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Shown>, Error> {
    create(&context, &owner(&request_id, &headers), Kind::Speaker, request).await
}

/// `POST /v1/audio/voices`: keeps a voice to be imitated, with the consent of the one whose voice it is.
///
/// # Errors
/// As [`enrol`].
pub async fn imitate(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Shown>, Error> {
    create(&context, &owner(&request_id, &headers), Kind::Voice, request).await
}

async fn create(
    context: &Arc<Context>,
    owner: &str,
    kind: Kind,
    request: Request,
) -> Result<Json<Shown>, Error> {
    let _ = clips(context, kind)?;
    let form = context.open(request).await?;
    let file = form.bytes(FILE_BYTES).await?;
    let read = |name: &str| form.says(|fields| fields.set(name).map(str::to_owned));
    let name = read("name").ok_or_else(|| Error::param("name", "name is missing"))?;
    check_name("name", &name)?;
    let (consent, transcript) = (read("consent"), read("transcript"));
    if kind == Kind::Voice && consent.is_none() {
        let message = "consent is missing: say who gave it and to what, or send the id of a consent";
        return Err(Error::param("consent", message));
    }
    if let Some(id) = consent.as_deref().filter(|consent| consents::is_id(consent)) {
        consents::check(context, owner, id).await?;
    }
    let new = New { name, consent, transcript, language: None };
    Ok(Json(keep(context, owner, kind, new, (file, Some(form.container()))).await?.into()))
}

/// What is said of a recording that is to be kept.
pub struct New {
    /// What it is called.
    pub name: String,
    /// The consent of the one who speaks.
    pub consent: Option<String>,
    /// What is said in it.
    pub transcript: Option<String>,
    /// The language of a consent.
    pub language: Option<String>,
}

/// Keeps a recording.
///
/// # Errors
/// This gateway keeps none; it is no recording of the right length; there is one of that name.
pub async fn keep(
    context: &Arc<Context>,
    owner: &str,
    kind: Kind,
    New { name, consent, transcript, language }: New,
    (file, container): (Bytes, Option<Container>),
) -> Result<Clip, Error> {
    let _ = clips(context, kind)?;
    check_name("name", &name)?;
    for (param, text) in [("consent", &consent), ("transcript", &transcript)] {
        if text.as_ref().is_some_and(|text| text.chars().count() > TEXT) {
            return Err(Error::param(param, format!("{param} must have at most {TEXT} characters")));
        }
    }
    let (seconds, rate) = match kind {
        Kind::Speaker => (SECONDS, crate::audio::convert::RATE),
        Kind::Voice => (voice::PROMPT_SECONDS, voice::PROMPT_RATE),
        Kind::Consent => (consents::SECONDS, crate::audio::convert::RATE),
    };
    let pcm = decode("file", file, container, seconds, rate).await?;
    let seconds = pcm.len() as f64 / 2.0 / f64::from(rate);
    let mut audio = BytesMut::with_capacity(wav::HEADER_LEN + pcm.len());
    audio.put_slice(&wav::header(rate, 1, Some(pcm.len() as u64)));
    audio.put_slice(&pcm);
    let seconds = (seconds * 1000.0).round() / 1000.0;
    let clip =
        Clip { consent, transcript, language, ..Clip::new(kind, name, owner.to_owned(), seconds, rate) };
    let clip = on_disk(context, kind, move |clips| clips.add(&clip, &audio).map(|()| clip)).await?;
    tracing::info!(id = clip.id, kind = kind.noun(), "recording of a voice kept");
    Ok(clip)
}

/// `GET /v1/audio/speakers`: those of the caller.
///
/// # Errors
/// This gateway keeps none.
pub async fn list(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
) -> Result<Json<List>, Error> {
    let owner = owner(&request_id, &headers);
    let found = on_disk(&context, Kind::Speaker, move |clips| clips.list(Kind::Speaker, &owner)).await?;
    Ok(Json(List { object: "list", data: found.into_iter().map(Shown::from).collect() }))
}

/// `DELETE /v1/audio/speakers/{id}`, by id or name.
///
/// # Errors
/// There is none such.
pub async fn forget_speaker(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Error> {
    forget(&context, owner(&request_id, &headers), Kind::Speaker, name).await
}

/// `DELETE /v1/audio/voices/{id}`, by id or name.
///
/// # Errors
/// There is none such.
pub async fn forget_voice(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Error> {
    forget(&context, owner(&request_id, &headers), Kind::Voice, name).await
}

pub(super) async fn forget(
    context: &Context,
    owner: String,
    kind: Kind,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Error> {
    let Path(name) = name.map_err(|_| Error::param("id", "the id is not UTF-8"))?;
    let removed = on_disk(context, kind, move |clips| clips.remove(kind, &owner, &name)).await?;
    let removed = removed.ok_or_else(|| Error::ClipNotFound { kind: kind.noun() })?;
    let object = Shown::from(removed.clone()).object;
    Ok(Json(json!({"id": removed.id, "object": object, "deleted": true})))
}

/// The recording of that name or id, and its WAV file.
///
/// # Errors
/// The disk fails.
pub async fn find(
    context: &Context,
    kind: Kind,
    owner: Owner<'_>,
    name: &str,
) -> Result<Option<(Clip, Bytes)>, Error> {
    if context.clips.is_none() {
        return Ok(None);
    }
    let (owner, name) = (owner.digest().into_owned(), name.to_owned());
    on_disk(context, kind, move |clips| {
        let Some(clip) = clips.find(kind, &owner, &name)? else { return Ok(None) };
        let audio = clips.audio(&clip)?;
        Ok(Some((clip, audio.into())))
    })
    .await
}

/// The voices that a caller keeps; none where they cannot be read.
pub(super) async fn own_voices(context: &Context, owner: String) -> Vec<Clip> {
    if context.clips.is_none() {
        return Vec::new();
    }
    on_disk(context, Kind::Voice, move |clips| clips.list(Kind::Voice, &owner)).await.unwrap_or_default()
}

/// The recording of that name to speak like, unless an engine has a voice of it.
///
/// # Errors
/// As [`find`].
pub async fn imitated(
    context: &Context,
    name: Option<&str>,
    owner: Owner<'_>,
) -> Result<Option<Arc<Prompt>>, Error> {
    let Some(name) = name.filter(|_| context.clips.is_some()) else { return Ok(None) };
    if catalog::voice(&context.config.get(), &context.voices.known(), name).is_some() {
        return Ok(None);
    }
    let Some((clip, file)) = find(context, Kind::Voice, owner, name).await? else { return Ok(None) };
    let pcm = file.slice(file.len().min(wav::HEADER_LEN)..);
    Ok(Some(Arc::new(Prompt { pcm, rate: clip.rate, transcript: clip.transcript })))
}

pub(super) fn clips(context: &Context, kind: Kind) -> Result<&Clips, Error> {
    context.clips.as_ref().ok_or_else(|| {
        let message = format!("this gateway keeps no {}s: set gateway.clips.dir", kind.noun());
        Error::InvalidRequest { param: None, code: Some("unsupported_value"), message }
    })
}

/// Does something with the folder, away from the threads that move bytes.
pub(super) async fn on_disk<T: Send + 'static>(
    context: &Context,
    kind: Kind,
    work: impl FnOnce(&Clips) -> Result<T, clips::Error> + Send + 'static,
) -> Result<T, Error> {
    let folder = clips(context, kind)?.clone();
    let retry_after = context.config.get().gateway.retry_after.min;
    match tokio::task::spawn_blocking(move || work(&folder)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(clips::Error::Taken)) => {
            let message = format!("there is a {} of that name; DELETE it first", kind.noun());
            Err(Error::param("name", message))
        }
        Ok(Err(clips::Error::Full { .. })) => Err(Error::TooManyClips { kind: kind.noun() }),
        Ok(Err(error @ clips::Error::File { .. })) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "unable to use the recordings of voices"
            );
            Err(Error::Storage { retry_after })
        }
        Err(_) => Err(Error::Storage { retry_after }),
    }
}
