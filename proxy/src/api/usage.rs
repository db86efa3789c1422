//! `GET /v1/usage`: what the caller has used, by day, and what it may; of all names for those who administer.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use serde_json::{Value, json};

use super::Context;
use super::live::query;
use crate::edge::RequestId;
use crate::error::Error;

/// The usage of the caller; of all names with `?all=true`. It is what this gateway has counted since its start.
///
/// # Errors
/// No keys are asked for; the caller asks for all and may not.
pub async fn usage(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let caller = request_id.caller().ok_or_else(|| Error::NotFound { path: "/v1/usage".into() })?;
    if query(&request, "all").is_some_and(|all| all == "true" || all == "1") {
        caller.may_administer()?;
        let all =
            context.access.usage().into_iter().map(|(name, usage)| json!({"key": &*name, "usage": usage}));
        return Ok(Json(json!({"object": "list", "data": all.collect::<Vec<_>>()})));
    }
    Ok(Json(json!({
        "object": "usage", "key": &**caller.name(), "tier": caller.tier(), "usage": caller.usage(),
    })))
}
