//! The page for people at `/`: its files, which are part of this program, and what it shows of the engines.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use twox_hash::XxHash3_64;

use contract::incident::Moment;
use contract::{Capability, Class, EngineReport, State as EngineState};

use super::Context;
use crate::error::Error;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Name, type and content of each file.
const FILES: [(&str, &str, &[u8]); 12] = [
    ("index.html", HTML, include_bytes!("../../page/index.html")),
    ("style.css", STYLE, include_bytes!("../../page/style.css")),
    ("api.js", SCRIPT, include_bytes!("../../page/api.js")),
    ("engines.js", SCRIPT, include_bytes!("../../page/engines.js")),
    ("live.js", SCRIPT, include_bytes!("../../page/live.js")),
    ("main.js", SCRIPT, include_bytes!("../../page/main.js")),
    ("reference.html", HTML, include_bytes!("../../page/reference.html")),
    ("reference.js", SCRIPT, include_bytes!("../../page/reference.js")),
    ("speak.js", SCRIPT, include_bytes!("../../page/speak.js")),
    ("transcribe.js", SCRIPT, include_bytes!("../../page/transcribe.js")),
    ("transcript.js", SCRIPT, include_bytes!("../../page/transcript.js")),
    ("wave.js", SCRIPT, include_bytes!("../../page/wave.js")),
];

/// Nothing from elsewhere. The microphone's worklet and recordings are blobs of the page's own.
const POLICY: &str = "default-src 'none'; script-src 'self' blob:; style-src 'self'; img-src data:; media-src blob:; \
    connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`.
///
/// # Errors
/// A 404 when the page is turned off.
pub async fn index(State(context): State<Arc<Context>>, headers: HeaderMap) -> Result<Response, Error> {
    serve(&context, "index.html", "/", &headers)
}

/// `GET /docs`: the calls that the gateway serves.
///
/// # Errors
/// A 404 when the page is turned off.
pub async fn reference(State(context): State<Arc<Context>>, headers: HeaderMap) -> Result<Response, Error> {
    serve(&context, "reference.html", "/docs", &headers)
}

/// `GET /page/{name}`.
///
/// # Errors
/// A 404 when there is no such file, or the page is turned off.
pub async fn file(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    serve(&context, &name, &format!("/page/{name}"), &headers)
}

fn serve(context: &Context, name: &str, path: &str, headers: &HeaderMap) -> Result<Response, Error> {
    let found = FILES.iter().find(|(known, _, _)| *known == name);
    let Some((_, kind, content)) = found.filter(|_| context.config.get().gateway.page.enabled) else {
        return Err(Error::NotFound { path: path.chars().take(256).collect() });
    };
    let tag = format!("\"{:016x}\"", XxHash3_64::oneshot(content));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = Response::new(if known { Body::empty() } else { Body::from(*content) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        fields.insert(header::ETAG, tag);
    }
    Ok(response)
}

/// What the page shows of a stack.
#[derive(Debug, Serialize)]
pub struct Stack {
    engines: Vec<Engine>,
}

/// An engine, without its address and without what clients sent.
#[derive(Debug, Serialize)]
struct Engine {
    name: String,
    capability: Capability,
    state: EngineState,
    class: Option<Class>,
    says: Option<String>,
    weight: f64,
    queue_seconds: f64,
    restarts: u64,
    incidents: Vec<Repair>,
}

/// An incident of an engine.
#[derive(Debug, Serialize)]
struct Repair {
    engine: String,
    started_unix_ms: u64,
    class: Class,
    signature: Option<String>,
    timeline: Vec<Moment>,
    healthy_after_ms: Option<u64>,
}

impl From<EngineReport> for Engine {
    fn from(report: EngineReport) -> Self {
        let repairs = report.incidents.into_iter().map(|incident| Repair {
            engine: incident.engine,
            started_unix_ms: incident.started_unix_ms,
            class: incident.class,
            signature: incident.signature,
            timeline: incident.timeline,
            healthy_after_ms: incident.healthy_after_ms,
        });
        Self {
            incidents: repairs.collect(),
            name: report.name,
            capability: report.capability,
            state: report.state,
            class: report.class,
            says: report.says,
            weight: report.weight,
            queue_seconds: report.queue_seconds,
            restarts: report.restarts,
        }
    }
}

/// `GET /page/stack`: the engines.
///
/// # Errors
/// A 404 where they are not shown.
pub async fn stack(State(context): State<Arc<Context>>) -> Result<Json<Stack>, Error> {
    let config = context.config.get();
    if !config.gateway.page.shows_engines(config.gateway.listen) {
        return Err(Error::NotFound { path: "/page/stack".into() });
    }
    Ok(Json(Stack { engines: context.upstreams.reports().into_iter().map(Engine::from).collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_loads_nothing_from_elsewhere() {
        let size: usize = FILES.iter().map(|(_, _, content)| content.len()).sum();
        assert!(size < 200_000, "{size} bytes");
        for (name, _, content) in FILES {
            let text = std::str::from_utf8(content).unwrap();
            assert!(!text.contains("http://") && !text.contains("https://"), "{name}");
            for (_, after) in
                text.match_indices(" from \"./").map(|(at, found)| text.split_at(at + found.len()))
            {
                let wanted = after.split('"').next().unwrap();
                assert!(FILES.iter().any(|(known, _, _)| *known == wanted), "{name} imports {wanted}");
            }
        }
    }
}
