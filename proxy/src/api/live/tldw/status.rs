//! `GET /api/v1/audio/stream/status` and `/limits`: what streaming there is, and how much of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use serde_json::{Value, json};

use contract::Capability;

use crate::api::Context;
use crate::edge::RequestId;

/// Whether streaming can be had, and what it has.
pub async fn status(State(context): State<Arc<Context>>) -> Json<Value> {
    let ready = context.upstreams.ready(Capability::Stt);
    let config = context.config.get();
    let (has_model, keeps) = (config.has(Capability::Llm), config.gateway.recordings.dir.is_some());
    Json(json!({
        "status": if ready { "available" } else { "unavailable" },
        "available_models": ["parakeet-standard"],
        "websocket_endpoint": "/api/v1/audio/stream/transcribe",
        "supported_features": {
            "partial_results": true, "multiple_languages": true, "concurrent_streams": true,
            "segment_metadata": true, "live_insights": has_model, "meeting_notes": has_model,
            "speaker_diarization": true, "audio_persistence": keeps,
        },
    }))
}

/// How many sessions there may be, and what is left of the caller's quotas where there are any.
pub async fn limits(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
) -> Json<Value> {
    let max = context.config.get().gateway.sessions.max;
    let Some(caller) = request_id.caller() else {
        let active = context.sessions.taken();
        return Json(json!({
            "user_id": null, "tier": "unlimited",
            "limits": {"daily_minutes": null, "concurrent_streams": max, "concurrent_jobs": null, "max_file_size_mb": null},
            "used_today_minutes": null, "remaining_minutes": null, "active_streams": active,
            "can_start_stream": active < max,
        }));
    };
    let usage = caller.usage();
    let (limits, (used, active)) = (usage.limits(), usage.now());
    let streams = limits
        .streams
        .and_then(|streams| usize::try_from(streams).ok())
        .map_or(max, |streams| streams.min(max));
    let remaining = limits.audio_minutes_per_day.map(|minutes| (minutes - used).max(0.0));
    Json(json!({
        "user_id": &**caller.name(), "tier": caller.tier().unwrap_or("unlimited"),
        "limits": {
            "daily_minutes": limits.audio_minutes_per_day, "concurrent_streams": streams,
            "concurrent_jobs": limits.jobs, "max_file_size_mb": null,
        },
        "used_today_minutes": used, "remaining_minutes": remaining, "active_streams": active,
        "can_start_stream": active < streams && remaining != Some(0.0),
    }))
}
