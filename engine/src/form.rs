//! Reads a request's form: multipart with an optional file, or urlencoded.

use axum::RequestExt;
use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::rejection::RawFormRejection;
use axum::extract::{Multipart, RawForm, Request};
use axum::http::{StatusCode, header};
use bytes::BytesMut;

use crate::backend::Capability;
use crate::fault::origin::{Origin, Reply};
use crate::language;
use crate::work::Refusal;
use crate::work::transcribe::Wanted;

/// Largest body, 1 GiB.
pub const MAX_BODY_BYTES: usize = 1 << 30;
const MAX_FIELD_BYTES: usize = 64 << 10;
const MAX_FIELDS: usize = 64;

/// A form whose body has arrived in whole.
#[derive(Debug, Default)]
pub struct Form {
    /// Text fields in order.
    pub fields: Vec<(String, String)>,
    /// The part named `file`.
    pub file: Option<Upload>,
}

/// An uploaded file.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    /// As the client named it; empty when it did not.
    pub name: String,
    /// The whole file.
    pub bytes: Bytes,
}

impl Upload {
    /// What follows the last dot of the name, in lower case; empty without a dot.
    #[must_use]
    pub fn extension(&self) -> String {
        self.name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default()
    }
}

impl Form {
    /// A text field that is not empty; of several with one name, the last.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// What a transcript is to have, by the field `language`. Engines of one language take no notice of it.
    ///
    /// # Errors
    /// When there is no such language.
    pub fn wanted(&self, capability: &Capability, speakers: bool) -> Result<Wanted, Refusal> {
        let given = self
            .field("language")
            .filter(|given| capability.multilingual && !matches!(*given, "auto" | language::MULTI));
        let unknown =
            |given: &str| Refusal::parameter("language", format!("language '{given}' is not known"));
        let language = given.map(|given| language::code(given).ok_or_else(|| unknown(given))).transpose()?;
        Ok(Wanted { speakers, language })
    }

    /// All text fields of a name that are not empty.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.fields.iter().filter(move |(known, value)| known == name && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    }

    /// A field that is `true` or `false`, in any case, or `1` or `0`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool, Refusal> {
        match self.field(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => {
                Err(Refusal::parameter(name, format!("{name} must be true or false, not '{other}'")))
            }
        }
    }

    /// The request as faults look at it, before the file is taken out.
    #[must_use]
    pub fn origin(&self, reply: Reply) -> Origin {
        let named = ["prompt", "model", "text"].map(|name| (name, self.field(name)));
        let file = self.file.as_ref().map(|file| file.name.as_str());
        Origin::new(reply, &[named[0], named[1], named[2], ("file", file)])
    }

    /// Takes the file out.
    ///
    /// # Errors
    /// When there is none.
    pub fn take_file(&mut self) -> Result<Upload, Refusal> {
        self.file.take().ok_or(Refusal::Missing("file"))
    }

    /// Reads the form of a request.
    ///
    /// # Errors
    /// When the body is malformed or too large.
    pub async fn read(request: Request) -> Result<Self, Refusal> {
        let multipart = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"multipart/form-data"));
        if multipart { Self::read_multipart(request).await } else { Self::read_urlencoded(request).await }
    }

    async fn read_multipart(request: Request) -> Result<Self, Refusal> {
        let refuse = |error: MultipartError| Refusal::Body(error.status(), error.body_text());
        let mut multipart: Multipart = request
            .extract()
            .await
            .map_err(|_| Refusal::Body(StatusCode::BAD_REQUEST, "malformed multipart header".into()))?;
        let mut form = Self::default();
        while let Some(mut field) = multipart.next_field().await.map_err(refuse)? {
            let name = field.name().unwrap_or_default().to_owned();
            let is_file = name == "file";
            let file_name = field.file_name().unwrap_or_default().to_owned();
            let mut content = BytesMut::new();
            while let Some(piece) = field.chunk().await.map_err(refuse)? {
                content.extend_from_slice(&piece);
                if !is_file && content.len() > MAX_FIELD_BYTES {
                    let text = format!("field {name} is too large");
                    return Err(Refusal::Body(StatusCode::PAYLOAD_TOO_LARGE, text));
                }
            }
            if is_file {
                form.file = Some(Upload { name: file_name, bytes: content.freeze() });
            } else if form.fields.len() < MAX_FIELDS {
                form.fields.push((name, String::from_utf8_lossy(&content).into_owned()));
            }
        }
        Ok(form)
    }

    async fn read_urlencoded(request: Request) -> Result<Self, Refusal> {
        let RawForm(body) = request
            .extract()
            .await
            .map_err(|error: RawFormRejection| Refusal::Body(error.status(), error.body_text()))?;
        let fields = form_urlencoded::parse(&body).into_owned().take(MAX_FIELDS).collect();
        Ok(Self { fields, file: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_is_what_follows_the_last_dot() {
        for (name, extension) in [("a.b.WAV", "wav"), ("noise", ""), ("", ""), ("dot.", "")] {
            assert_eq!(Upload { name: name.into(), bytes: Bytes::new() }.extension(), extension, "{name}");
        }
    }

    #[test]
    fn fields_can_repeat_and_empty_ones_do_not_count() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = vec![pair("a", "1"), pair("a", "2"), pair("a", ""), pair("b", ""), pair("c", "True")];
        let form = Form { fields, file: None };
        assert_eq!((form.field("a"), form.field("b")), (Some("2"), None));
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert!(form.flag("c", false).unwrap() && form.flag("b", true).unwrap());
        assert!(form.flag("a", false).is_err());
    }
}
