//! What the gateway serves as an OpenAPI 3.1 document at `/openapi.json`. The reference page at `/docs` shows it.
//!
//! Replies are described by the types that are written to the wire, the calls by one table of [`Operation`]s.

mod operations;
mod write;

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub(super) use operations::{get, post};

/// A call.
pub struct Operation {
    /// Its method in lower case.
    pub method: &'static str,
    /// Its path, with `/v1` where that is usual.
    pub path: &'static str,
    /// The group that it belongs to.
    pub group: &'static str,
    /// A unique name.
    pub id: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What the URL may have behind its path.
    pub query: &'static [Field],
    /// Headers that it must have.
    pub headers: &'static [Field],
    /// What is sent.
    pub body: Body,
    /// What comes back: media type and what is in it.
    pub replies: &'static [(u16, &'static str, Content)],
}

/// What is sent with a call.
#[derive(Clone, Copy)]
pub enum Body {
    /// Nothing.
    None,
    /// `multipart/form-data`.
    Form(&'static [Field]),
    /// A JSON object.
    Json(&'static [Field]),
    /// Bytes of that media type.
    Bytes(&'static str),
}

/// A parameter.
#[derive(Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it means.
    pub about: &'static str,
}

/// Types of parameters.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A text.
    Text,
    /// A text that must be there.
    Required,
    /// A file that must be there.
    File,
    /// A file that may be named by another field.
    FileOr,
    /// `true` or `false`.
    Flag,
    /// A number within bounds.
    Number(f64, f64),
    /// A whole number within bounds.
    Whole(i64, i64),
    /// Texts.
    Texts,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Several of these texts.
    SomeOf(&'static [&'static str]),
    /// An object.
    Object,
    /// Objects.
    Objects,
    /// A text or an object with that field.
    TextOr(&'static str),
}

/// What is in a reply.
#[derive(Clone, Copy)]
pub enum Content {
    /// JSON of one of these schemas.
    Schema(&'static [&'static str]),
    /// JSON of any shape.
    Json,
    /// Text.
    Text,
    /// Text that readers of its kind parse: events, YAML.
    Any,
    /// Bytes.
    Bytes,
    /// Nothing.
    Nothing,
}

/// A parameter.
pub const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, about }
}

/// The schemas of replies by their names.
#[derive(Default)]
pub struct Schemas(Map<String, Value>);

impl Schemas {
    /// Adds a type, and those that it is made of.
    pub fn add<T: ToSchema>(&mut self) {
        let mut found = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut found);
        // A schema is always serialised.
        let found =
            found.into_iter().map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default()));
        self.0.extend(found);
    }
}

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| write::document().to_string().into());

/// `GET /openapi.json`.
pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], DOCUMENT.clone())
        .into_response()
}

#[cfg(test)]
mod tests;
