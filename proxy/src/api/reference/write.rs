//! The document, written from the table of calls and the types of replies.

use serde_json::{Map, Value, json};

use super::operations::{self, Tables};
use super::{Body, Content, Field, Kind, Operation, Schemas};
use crate::api::{diarization, openai, parakeet_fastapi, spark};

const ABOUT: &str = "Speech to text and text to speech, in the dialects that clients speak. Each path also works \
    without /v1, with /openai/v1 in its place, and with a slash at its end.";

/// The whole document.
pub(super) fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "SpeechStack", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": operations::GROUPS.map(|(name, about)| json!({"name": name, "description": about})),
        "security": [{}, {"bearer": []}, {"x_api_key": []}, {"api_key": []}],
        "paths": paths(operations::ALL),
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x_api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "api_key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    })
}

fn schemas() -> Map<String, Value> {
    let mut schemas = Schemas::default();
    openai::wire::schemas(&mut schemas);
    schemas.add::<openai::models::List>();
    schemas.add::<openai::models::Speaking>();
    schemas.add::<openai::voices::List>();
    schemas.add::<openai::jobs::Job>();
    schemas.add::<openai::jobs::List>();
    schemas.add::<openai::uploads::Shown>();
    schemas.add::<openai::uploads::List>();
    schemas.add::<openai::clips::Shown>();
    schemas.add::<openai::clips::List>();
    schemas.add::<openai::consents::Consent>();
    schemas.add::<openai::consents::List>();
    diarization::schemas(&mut schemas);
    spark::schemas(&mut schemas);
    parakeet_fastapi::schemas(&mut schemas);
    schemas.0.insert("Error".into(), error());
    let flat = json!({"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}});
    schemas.0.insert("FlatError".into(), flat);
    schemas.0
}

/// The envelope of every error.
fn error() -> Value {
    let text = json!({"type": "string"});
    let maybe = json!({"type": ["string", "null"]});
    json!({
        "type": "object", "required": ["error"],
        "properties": {
            "error": {
                "type": "object", "required": ["message", "type", "param", "code"],
                "properties": {"message": text, "type": text, "param": maybe, "code": maybe},
            },
            "detail": {"type": "string", "description": "The message again, for clients of FastAPI servers."},
        },
    })
}

fn paths(tables: Tables) -> Map<String, Value> {
    let mut paths = Map::new();
    for operation in tables.iter().copied().flatten() {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method] = call(operation);
    }
    paths
}

fn call(operation: &Operation) -> Value {
    let mut call = json!({
        "tags": [operation.group], "operationId": operation.id, "summary": operation.about,
        "responses": responses(operation),
    });
    let mut parameters: Vec<Value> = in_path(operation.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(operation.query.iter().map(|field| {
        json!({"name": field.name, "in": "query", "description": field.about, "schema": schema(field.kind)})
    }));
    parameters.extend(operation.headers.iter().map(|field| {
        json!({
            "name": field.name, "in": "header", "required": true, "description": field.about,
            "schema": schema(field.kind),
        })
    }));
    if !parameters.is_empty() {
        call["parameters"] = parameters.into();
    }
    let (media, body) = match operation.body {
        Body::None => return call,
        Body::Form(fields) => ("multipart/form-data", object(fields)),
        Body::Json(fields) => ("application/json", object(fields)),
        Body::Bytes(media) => (media, json!({"type": "string", "format": "binary"})),
    };
    call["requestBody"] = json!({"required": true, "content": { media: {"schema": body} }});
    call
}

fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn responses(operation: &Operation) -> Map<String, Value> {
    let mut all = Map::new();
    for (status, media, content) in operation.replies {
        let described = match status {
            101 => "The session begins: the connection speaks WebSocket.",
            202 => "The job, which runs in the background.",
            _ => "The reply.",
        };
        let reply = all.entry(status.to_string()).or_insert_with(|| json!({"description": described}));
        if let Some(schema) = content_schema(*content) {
            reply["content"][*media] = json!({ "schema": schema });
        }
    }
    // GemmaVoice and the bridge have errors of their own form, but for what no dialect sees.
    let own = ["Gemma", "Bridge"].iter().any(|dialect| operation.id.contains(dialect))
        || operation.about.starts_with("As GemmaVoice");
    let error = content_schema(Content::Schema(if own { &["FlatError", "Error"] } else { &["Error"] }));
    all.insert(
        "default".into(),
        json!({
            "description": "What is wrong, and what to do.",
            "content": {"application/json": {"schema": error}},
        }),
    );
    all
}

fn content_schema(content: Content) -> Option<Value> {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    Some(match content {
        Content::Schema([name]) => reference(name),
        Content::Schema(names) => {
            json!({"anyOf": names.iter().map(|name| reference(name)).collect::<Vec<_>>()})
        }
        Content::Json => json!({"type": "object"}),
        Content::Text => json!({"type": "string"}),
        // Readers of these make what they like of them.
        Content::Any => json!({}),
        Content::Bytes => json!({"type": "string", "format": "binary"}),
        Content::Nothing => return None,
    })
}

fn object(fields: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in fields {
        let mut schema = schema(field.kind);
        schema["description"] = field.about.into();
        properties.insert(field.name.into(), schema);
    }
    let required = fields.iter().filter(|field| matches!(field.kind, Kind::Required | Kind::File));
    let required: Vec<&str> = required.map(|field| field.name).collect();
    let mut object = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Text | Kind::Required => json!({"type": "string"}),
        Kind::File | Kind::FileOr => json!({"type": "string", "format": "binary"}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Number(least, most) => json!({"type": "number", "minimum": least, "maximum": most}),
        Kind::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::OneOf(names) => json!({"type": "string", "enum": names}),
        Kind::SomeOf(names) => json!({"type": "array", "items": {"type": "string", "enum": names}}),
        Kind::Object => json!({"type": "object"}),
        Kind::Objects => json!({"type": "array", "items": {"type": "object"}}),
        Kind::TextOr(field) => json!({"anyOf": [
            {"type": "string"},
            {"type": "object", "properties": { field: {"type": "string"} }, "required": [field]},
        ]}),
    }
}
