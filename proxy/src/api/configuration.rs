//! `GET /debug/cfg`, as the Parakeet FastAPI wrapper has it: the configuration in effect, as YAML and without secrets.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;

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
    headers: HeaderMap,
) -> Result<Response, Error> {
    let config = context.config.get();
    match request_id.caller() {
        Some(caller) => caller.may_administer()?,
        None if config.gateway.listen.ip().is_loopback() && is_of_this_machine(&headers) => {}
        None => return Err(Error::NotFound { path: "/debug/cfg".into() }),
    }
    let shown = config::shown(&config).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "the configuration cannot be shown");
        Error::NotFound { path: "/debug/cfg".into() }
    })?;
    Ok(([(CONTENT_TYPE, "application/yaml")], shown).into_response())
}

/// Whether a request was not made by a page of another site in a browser here: of another origin, or by a name that was made to lead
/// here.
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let is_here = host.is_some_and(|host| {
        let name = host.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    is_here && !headers.contains_key(ORIGIN)
}
