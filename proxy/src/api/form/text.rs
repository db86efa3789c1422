//! A form of text fields alone, read whole.

use axum::extract::Request;
use bytes::Bytes;
use http::header;

use super::{Fields, invalid, malformed};
use crate::api::small;
use crate::error::Error;
use crate::multipart::{Boundary, Event, Large, Limits, Parser};

/// Largest body.
const BODY_BYTES: usize = 256 * 1024;
/// Largest field, and most of them.
const LIMITS: Limits = Limits {
    field_bytes: 64 * 1024,
    header_bytes: 8 * 1024,
    fields: 48,
    large: Large { prefix: None, bytes: 0, fields: 0 },
};

impl Fields {
    /// The fields of a body, `multipart/form-data` or `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// What is wrong with the body; a 400 that names a field with a file.
    pub async fn of_body(request: Request) -> Result<Self, Error> {
        let (head, body) = request.into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let content_type = content_type.unwrap_or_default();
        let is_urlencoded = super::starts(content_type, "application/x-www-form-urlencoded");
        let boundary = Boundary::parse(content_type);
        if boundary.is_none() && !is_urlencoded {
            let message = "send the fields as multipart/form-data with a boundary";
            return Err(invalid("invalid_content_type", message.into()));
        }
        let body = small::read(body, BODY_BYTES).await?;
        match boundary {
            Some(boundary) => multipart(&boundary, body),
            None => {
                let text = std::str::from_utf8(&body);
                Self::of_query(text.map_err(|_| invalid("invalid_form", "the form is not UTF-8".into()))?)
            }
        }
    }
}

fn multipart(boundary: &Boundary, body: Bytes) -> Result<Fields, Error> {
    let mut parser = Parser::new(boundary, LIMITS);
    let mut fields = Fields::default();
    for event in parser.push(body).map_err(malformed)? {
        match event {
            Event::Field { name, value } => fields.push(name, value),
            Event::FileStart { name, .. } => {
                let name: String = name.chars().take(64).collect();
                let message = format!("the field {name} has a file: only text fields are supported here");
                return Err(invalid("unsupported_value", message));
            }
            Event::FileData(_) | Event::FileEnd | Event::End => {}
        }
    }
    parser.finish().map_err(malformed)?;
    Ok(fields)
}
