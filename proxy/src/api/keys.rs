//! `GET`, `POST /v1/keys` and `DELETE /v1/keys/{key}`: the file of API keys, for keys with the scope `admin`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use serde_json::{Value, json};

use super::{Context, small};
use crate::edge::{AUDIT, Principal, RequestId};
use crate::error::Error;
use crate::keys::{self, NewKey};

/// Largest body.
const BODY_BYTES: usize = 64 * 1024;

/// The keys, without what they are checked by.
///
/// # Errors
/// The caller may not; there is no file of keys.
pub async fn list(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
) -> Result<Json<Value>, Error> {
    administrator(&request_id, "/v1/keys")?;
    let records = change(&context, |store, auth| store.list(auth)).await?;
    Ok(Json(json!({"object": "list", "data": records})))
}

/// Makes a key, which is in the reply and is kept nowhere.
///
/// # Errors
/// The caller may not; a field that cannot be; the file cannot be written.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let caller = administrator(&request_id, "/v1/keys")?;
    let wanted = read(request.into_body()).await?;
    let (record, text) = change(&context, move |store, auth| store.add(auth, wanted)).await?;
    tracing::info!(target: AUDIT, by = %caller.name(), id = record.id, name = record.name, "key added");
    Ok(Json(json!({"object": "key", "value": text, "key": record})))
}

/// Revokes the key of that id, or all of that name.
///
/// # Errors
/// The caller may not; there is none such; the file cannot be written.
pub async fn revoke(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    key: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Error> {
    let caller = administrator(&request_id, "/v1/keys")?;
    let Path(key) = key.map_err(|_| Error::param("key", "key must be an id or a name"))?;
    let named: String = key.chars().take(64).collect();
    let count = change(&context, move |store, auth| store.revoke(auth, &key)).await?;
    tracing::info!(target: AUDIT, by = %caller.name(), key = named, count, "keys revoked");
    Ok(Json(json!({"object": "key.revoked", "count": count})))
}

/// The caller, who must be one that administers keys.
fn administrator(request_id: &RequestId, path: &str) -> Result<Arc<Principal>, Error> {
    let caller = request_id.caller().ok_or_else(|| Error::NotFound { path: path.into() })?;
    caller.may_administer()?;
    Ok(caller)
}

/// Does something with the file, away from the threads that move bytes.
async fn change<T: Send + 'static>(
    context: &Arc<Context>,
    change: impl FnOnce(&keys::Store, &crate::config::Auth) -> Result<T, keys::Error> + Send + 'static,
) -> Result<T, Error> {
    let (store, config) = (context.access.keys().clone(), context.config.get());
    let changed = tokio::task::spawn_blocking(move || change(&store, &config.gateway.auth)).await;
    match changed {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(keys::Error::Order(message))) => {
            Err(Error::InvalidRequest { param: None, code: Some("invalid_value"), message })
        }
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "unable to change the API keys");
            Err(Error::KeysFile)
        }
        Err(_) => Err(Error::KeysFile),
    }
}

async fn read(body: Body) -> Result<NewKey, Error> {
    let body = small::read(body, BODY_BYTES).await?;
    serde_json::from_slice(&body).map_err(|error| Error::InvalidRequest {
        param: None,
        code: Some("invalid_json"),
        message: format!("the request body is no key: {error}"),
    })
}
