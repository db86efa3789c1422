//! `GET /v1/audio/voices`: what speech can be asked for, for voice pickers.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clips;
use crate::api::{Context, owner};
use crate::clips::Clip;
use crate::edge::RequestId;
use crate::job::voice::VoiceName;

/// Query of the list.
#[derive(Debug, Deserialize)]
pub struct Options {
    /// Names alone, as some clients expect.
    legacy: Option<String>,
}

/// The list of voices.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VoiceList)]
pub struct List {
    voices: Vec<Entry>,
}

/// A voice, or with `legacy` its name alone.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Voice)]
#[serde(untagged)]
enum Entry {
    Name(String),
    Voice {
        id: String,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        emotion: Option<String>,
        /// The engine's voice behind a mapped name.
        #[serde(skip_serializing_if = "Option::is_none")]
        voice: Option<String>,
    },
}

/// `GET /v1/audio/voices`: the caller's own first, then mapped names, then the engine's.
pub async fn list(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    options: Result<Query<Options>, QueryRejection>,
) -> Json<List> {
    let legacy = options.is_ok_and(|Query(options)| matches!(options.legacy.as_deref(), Some("true" | "1")));
    let engine = context.voices.current().await;
    let config = context.config.get();
    let mapped = config.gateway.voices.iter();
    let mapped = mapped.filter(|(_, voice)| engine.is_empty() || engine.contains(voice));
    let own = clips::own_voices(&context, owner(&request_id, &headers)).await;
    let mut voices: Vec<Entry> = own.iter().map(|clip| own_entry(clip, legacy)).collect();
    voices.extend(mapped.map(|(name, voice)| entry(name, Some(voice), legacy)));
    voices.extend(engine.iter().map(|voice| entry(voice, None, legacy)));
    Json(List { voices })
}

fn own_entry(clip: &Clip, legacy: bool) -> Entry {
    let name = clip.name.clone();
    if legacy {
        return Entry::Name(name);
    }
    Entry::Voice { id: clip.id.clone(), name, language: None, emotion: None, voice: None }
}

fn entry(id: &str, mapped: Option<&String>, legacy: bool) -> Entry {
    if legacy {
        return Entry::Name(id.to_owned());
    }
    let parts = VoiceName::parse(mapped.map_or(id, String::as_str));
    let name = match (mapped, parts) {
        (None, Some(VoiceName { speaker, emotion: Some(emotion), .. })) => format!("{speaker} {emotion}"),
        (None, Some(VoiceName { speaker, .. })) => speaker.to_owned(),
        _ => id.to_owned(),
    };
    Entry::Voice {
        id: id.to_owned(),
        name,
        language: parts.map(|parts| parts.language()),
        emotion: parts.and_then(|parts| parts.emotion).map(str::to_owned),
        voice: mapped.cloned(),
    }
}
