//! `GET /debug/cfg`, as the Parakeet FastAPI wrapper has it: the configuration in effect, as YAML and without secrets.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use super::Context;
use crate::config;
use crate::edge::RequestId;
use crate::error::Error;

/// Shows it to keys with the scope `admin`, and where no keys are asked for to clients of a gateway on loopback alone.
///
/// # Errors
/// The caller may not.
pub async fn show(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
) -> Result<Response, Error> {
    let config = context.config.get();
    match request_id.caller() {
        Some(caller) => caller.may_administer()?,
        None if config.gateway.listen.ip().is_loopback() => {}
        None => return Err(Error::NotFound { path: "/debug/cfg".into() }),
    }
    let shown = config::shown(&config).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "the configuration cannot be shown");
        Error::NotFound { path: "/debug/cfg".into() }
    })?;
    Ok(([(CONTENT_TYPE, "application/yaml")], shown).into_response())
}
