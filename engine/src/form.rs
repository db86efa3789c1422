//! Reads a request's form: multipart with an optional file, or urlencoded.

use std::collections::HashMap;

use axum::RequestExt;
use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{Multipart, RawForm, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use serde_json::json;

use crate::inference::detail;

/// Largest body, 1 GiB.
pub const MAX_BODY_BYTES: usize = 1 << 30;
const MAX_FIELD_BYTES: usize = 64 << 10;
const MAX_FIELDS: usize = 64;

/// A form whose body has arrived in whole.
#[derive(Debug, Default)]
pub struct Form {
    /// Text fields; of several with one name, the last.
    pub fields: HashMap<String, String>,
    /// The part named `file`.
    pub file: Option<Bytes>,
}

impl Form {
    /// A text field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// Reads the form of a request.
    ///
    /// # Errors
    /// The response that tells what is wrong with it.
    pub async fn read(request: Request) -> Result<Self, Response> {
        let multipart = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"multipart/form-data"));
        if multipart { Self::read_multipart(request).await } else { Self::read_urlencoded(request).await }
    }

    async fn read_multipart(request: Request) -> Result<Self, Response> {
        let refuse = |error: MultipartError| detail(error.status(), error.body_text());
        let mut multipart: Multipart = request
            .extract()
            .await
            .map_err(|_| detail(StatusCode::BAD_REQUEST, "malformed multipart header"))?;
        let mut form = Self::default();
        while let Some(mut field) = multipart.next_field().await.map_err(refuse)? {
            let name = field.name().unwrap_or_default().to_owned();
            let is_file = name == "file";
            let mut content = BytesMut::new();
            while let Some(piece) = field.chunk().await.map_err(refuse)? {
                content.extend_from_slice(&piece);
                if !is_file && content.len() > MAX_FIELD_BYTES {
                    return Err(detail(StatusCode::PAYLOAD_TOO_LARGE, format!("field {name} is too large")));
                }
            }
            if is_file {
                form.file = Some(content.freeze());
            } else if form.fields.len() < MAX_FIELDS {
                form.fields.insert(name, String::from_utf8_lossy(&content).into_owned());
            }
        }
        Ok(form)
    }

    async fn read_urlencoded(request: Request) -> Result<Self, Response> {
        let RawForm(body) = request.extract().await.map_err(IntoResponse::into_response)?;
        let fields = form_urlencoded::parse(&body).into_owned().take(MAX_FIELDS).collect();
        Ok(Self { fields, file: None })
    }
}

/// FastAPI's answer to a form without a required field.
#[must_use]
pub fn missing(field: &str) -> Response {
    let errors =
        json!([{ "type": "missing", "loc": ["body", field], "msg": "Field required", "input": null }]);
    (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(json!({ "detail": errors }))).into_response()
}
