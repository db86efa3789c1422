//! Files that come in parts, `/v1/audio/uploads`: the protocol tus 1.0.0 with creation, creation with upload, termination and
//! expiration. A complete one is named by `upload_id` in place of the file of a transcription.

mod metadata;
mod view;

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::{Extension, MatchedPath, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::api::form::{Fields, Form, UPLOAD};
use crate::api::{Context, Owner, owner};
use crate::edge::{EXPOSED, RequestId};
use crate::error::{Error, UploadError};
use crate::jobs::{Jobs, Upload};

use metadata::Metadata;
pub use view::{List, Shown};

/// The version of tus.
const VERSION: &str = "1.0.0";
/// The media type of parts.
const PART: &str = "application/offset+octet-stream";
const RESUMABLE: &str = "tus-resumable";
const OFFSET: &str = "upload-offset";
const LENGTH: &str = "upload-length";
const METADATA: &str = "upload-metadata";
const EXPIRES: &str = "upload-expires";
const METHOD: &str = "x-http-method-override";

type Item<'a> = (&'a Context, &'a str, &'a RequestId);

fn jobs(context: &Context) -> Result<&Jobs, Error> {
    context.jobs.as_ref().ok_or_else(|| {
        let message =
            "this gateway keeps no uploads: set gateway.jobs.dir, or send the file with the request";
        Error::InvalidRequest { param: None, code: Some("unsupported_value"), message: message.into() }
    })
}

/// `POST /v1/audio/uploads`: begins an upload of `Upload-Length` bytes; a body is its first part.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    // With the prefix that the client has.
    location: MatchedPath,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    answer(begin(&context, &request_id, location.as_str(), &head.headers, body).await)
}

async fn begin(
    context: &Context,
    request_id: &RequestId,
    location: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    check_version(headers)?;
    let jobs = jobs(context)?;
    let length = number(headers, LENGTH, "Upload-Length")?;
    let metadata = Metadata::of(headers.get(METADATA))?;
    let upload = jobs.begin_upload(owner(request_id, headers), length, metadata.text().to_owned()).await?;
    let mut offset = 0;
    if is_part(headers) && !body.is_end_stream() {
        offset = match jobs.uploads().append(&upload, 0, body).await {
            Ok(offset) => offset,
            // It is there all the same, with what came.
            Err(_) => jobs.uploads().offset(&upload).await?,
        };
    }
    let shown = view::shown(jobs.uploads(), &upload, offset);
    let mut response = (StatusCode::CREATED, Json(shown)).into_response();
    tell(jobs, &upload, offset, response.headers_mut());
    if let Ok(location) = HeaderValue::try_from(format!("{location}/{}", upload.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET /v1/audio/uploads`: the newest first. There are never more than `gateway.jobs.uploads.per_key`.
///
/// # Errors
/// A 400 when this gateway keeps none.
pub async fn list(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let uploads = jobs(&context)?.uploads();
    let mut data = Vec::new();
    for upload in uploads.list(&owner(&request_id, &headers)).await? {
        // One that is removed meanwhile is left out.
        if let Ok(offset) = uploads.offset(&upload).await {
            data.push(view::shown(uploads, &upload, offset));
        }
    }
    Ok(Json(List::new(data)).into_response())
}

/// `GET /v1/audio/uploads/{id}`.
///
/// # Errors
/// [`UploadError::NotFound`].
pub async fn one(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let uploads = jobs(&context)?.uploads();
    let upload = uploads.get(&id, &owner(&request_id, &headers)).await?;
    let offset = uploads.offset(&upload).await?;
    Ok(Json(view::shown(uploads, &upload, offset)).into_response())
}

/// `HEAD /v1/audio/uploads/{id}`: how much has arrived.
pub async fn head(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    answer(status((&context, &id, &request_id), &headers).await)
}

async fn status((context, id, request_id): Item<'_>, headers: &HeaderMap) -> Result<Response, Error> {
    check_version(headers)?;
    let jobs = jobs(context)?;
    let upload = jobs.uploads().get(id, &owner(request_id, headers)).await?;
    let offset = jobs.uploads().offset(&upload).await?;
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    tell(jobs, &upload, offset, headers);
    headers.insert(LENGTH, HeaderValue::from(upload.length));
    if let Ok(metadata) = HeaderValue::try_from(&upload.metadata)
        && !metadata.is_empty()
    {
        headers.insert(METADATA, metadata);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `PATCH /v1/audio/uploads/{id}`: the next part, which begins at `Upload-Offset`.
pub async fn append(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    answer(add((&context, &id, &request_id), request).await)
}

async fn add((context, id, request_id): Item<'_>, request: Request) -> Result<Response, Error> {
    let (head, body) = request.into_parts();
    check_version(&head.headers)?;
    if !is_part(&head.headers) {
        return Err(UploadError::ContentType.into());
    }
    let jobs = jobs(context)?;
    let upload = jobs.uploads().get(id, &owner(request_id, &head.headers)).await?;
    let offset = number(&head.headers, OFFSET, "Upload-Offset")?;
    let offset = jobs.uploads().append(&upload, offset, body).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    tell(jobs, &upload, offset, response.headers_mut());
    Ok(response)
}

/// `DELETE /v1/audio/uploads/{id}`: forgets an upload. Jobs that were made of it keep its bytes.
pub async fn remove(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    answer(forget((&context, &id, &request_id), &headers).await)
}

async fn forget((context, id, request_id): Item<'_>, headers: &HeaderMap) -> Result<Response, Error> {
    // Those who do not speak tus may delete too.
    if headers.contains_key(RESUMABLE) {
        check_version(headers)?;
    }
    jobs(context)?.uploads().remove(id, &owner(request_id, headers)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/audio/uploads/{id}` with `X-HTTP-Method-Override`, of clients that can send nothing else.
pub async fn overridden(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let item = (&*context, &*id, &request_id);
    match request.headers().get(METHOD).map(HeaderValue::as_bytes) {
        Some(b"PATCH") => answer(add(item, request).await),
        Some(b"DELETE") => answer(forget(item, request.headers()).await),
        Some(b"HEAD") => answer(status(item, request.headers()).await),
        _ => unknown_method().await.into_response(),
    }
}

/// The reply to any other method.
pub async fn unknown_method() -> Error {
    Error::MethodNotAllowed { allowed: "GET, HEAD, PATCH, DELETE" }
}

/// The form of a transcription whose fields name an upload.
///
/// # Errors
/// [`UploadError::NotFound`]; [`UploadError::Incomplete`]; what is wrong with the file.
pub async fn find(context: &Context, fields: Fields, owner: Owner<'_>) -> Result<Form, Error> {
    let uploads = jobs(context)?.uploads();
    // Clients of tus know the URL alone.
    let named = fields.set(UPLOAD).unwrap_or_default().trim_end_matches('/');
    let id = named.rsplit('/').next().unwrap_or_default();
    let upload = uploads.get(id, &owner.digest()).await?;
    let (offset, length) = (uploads.offset(&upload).await?, upload.length);
    if offset < length {
        return Err(UploadError::Incomplete { offset, length }.into());
    }
    let filename = Metadata::kept(&upload.metadata).filename();
    let mut pairs = fields.pairs().to_vec();
    pairs.retain(|(name, _)| name != UPLOAD);
    let (fields, budget) = (Fields::of_pairs(pairs), context.upstreams.budget());
    let file = (upload.id.as_str(), uploads.path(&upload.id));
    Form::of_upload(file, filename.as_deref(), fields, budget).await
}

/// Adds what tus has in every reply, and what browsers must be allowed to read of it.
fn answer(done: Result<Response, Error>) -> Response {
    let offset = match &done {
        Err(Error::Upload(UploadError::Offset { offset })) => Some(*offset),
        _ => None,
    };
    let mut response = done.into_response();
    let is_version_wrong = response.status() == StatusCode::PRECONDITION_FAILED;
    let headers = response.headers_mut();
    headers.insert(RESUMABLE, HeaderValue::from_static(VERSION));
    if is_version_wrong {
        headers.insert("tus-version", HeaderValue::from_static(VERSION));
    }
    if let Some(offset) = offset {
        headers.insert(OFFSET, HeaderValue::from(offset));
    }
    let exposed = format!(
        "{EXPOSED}, tus-resumable, tus-version, upload-offset, upload-length, upload-metadata, upload-expires"
    );
    if let Ok(exposed) = HeaderValue::try_from(exposed) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// How far an upload is, and when it expires.
fn tell(jobs: &Jobs, upload: &Upload, offset: u64, headers: &mut HeaderMap) {
    headers.insert(OFFSET, HeaderValue::from(offset));
    let expires = view::http_date(jobs.uploads().expires(upload));
    if let Some(expires) = expires.and_then(|expires| HeaderValue::try_from(expires).ok()) {
        headers.insert(EXPIRES, expires);
    }
}

fn check_version(headers: &HeaderMap) -> Result<(), Error> {
    match headers.get(RESUMABLE) {
        Some(version) if version == VERSION => Ok(()),
        _ => Err(UploadError::Version.into()),
    }
}

fn is_part(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(PART.as_bytes()))
}

/// The number in a header.
fn number(headers: &HeaderMap, name: &str, param: &'static str) -> Result<u64, Error> {
    let Some(value) = headers.get(name) else {
        return Err(Error::param(param, format!("the header {param} is missing: send a number of bytes")));
    };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::param(param, format!("the header {param} must be a number of bytes")))
}
