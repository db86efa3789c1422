//! `GET /api/v1/audio/stream/status` and `/limits`: what streaming there is, and how much of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use contract::Capability;

use crate::api::Context;

/// Whether streaming can be had, and what it has.
pub async fn status(State(context): State<Arc<Context>>) -> Json<Value> {
    let ready = context.upstreams.ready(Capability::Stt);
    Json(json!({
        "status": if ready { "available" } else { "unavailable" },
        "available_models": ["parakeet-standard"],
        "websocket_endpoint": "/api/v1/audio/stream/transcribe",
        "supported_features": {
            "partial_results": true, "multiple_languages": true, "concurrent_streams": true,
            "segment_metadata": true, "live_insights": false, "meeting_notes": false,
            "speaker_diarization": false, "audio_persistence": false,
        },
    }))
}

/// How many sessions there may be. No user has a quota of its own.
pub async fn limits(State(context): State<Arc<Context>>) -> Json<Value> {
    let max = context.config.get().gateway.sessions.max;
    let active = context.sessions.taken();
    Json(json!({
        "user_id": null, "tier": "unlimited",
        "limits": {"daily_minutes": null, "concurrent_streams": max, "concurrent_jobs": null, "max_file_size_mb": null},
        "used_today_minutes": null, "remaining_minutes": null, "active_streams": active,
        "can_start_stream": active < max,
    }))
}
