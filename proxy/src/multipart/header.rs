//! Reads the parameters of Content-Type and Content-Disposition.

use std::borrow::Cow;
use std::sync::LazyLock;

use encoding_rs::{Encoding, WINDOWS_1252};
use http::HeaderValue;
use uuid::Uuid;

use crate::multipart::Error;

/// The boundary of a multipart body: 1 to 70 printable ASCII characters, no blank at the end (RFC 2046, section 5.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary(String);

impl Boundary {
    /// The boundary named in a `multipart/form-data` Content-Type, quoted or not.
    #[must_use]
    pub fn parse(content_type: &str) -> Option<Self> {
        let (mime, parameters) = split_at(content_type, b';')?;
        if !mime.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let (_, boundary) = Parameters(parameters).find(|(name, _)| name.eq_ignore_ascii_case("boundary"))?;
        Self::new(&boundary)
    }

    /// `raw` as a boundary, if it may be one.
    #[must_use]
    pub fn new(raw: &str) -> Option<Self> {
        let printable = raw.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let valid = printable && (1..=70).contains(&raw.len()) && !raw.ends_with(' ');
        valid.then(|| Self(raw.to_owned()))
    }

    /// The boundary of every form that this process writes: random, so that no client can write it into a file.
    pub fn process() -> &'static Self {
        static BOUNDARY: LazyLock<Boundary> =
            LazyLock::new(|| Boundary(format!("speechstack-{}", Uuid::now_v7().simple())));
        &BOUNDARY
    }

    /// The Content-Type of those forms.
    pub fn process_header() -> &'static HeaderValue {
        static HEADER: LazyLock<HeaderValue> = LazyLock::new(|| {
            // Letters, digits and hyphens make a valid value.
            HeaderValue::try_from(Boundary::process().content_type())
                .unwrap_or(HeaderValue::from_static("multipart/form-data"))
        });
        &HEADER
    }

    /// The boundary itself, without hyphens or quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The Content-Type of a body with this boundary.
    #[must_use]
    pub fn content_type(&self) -> String {
        let mut quoted = String::with_capacity(self.0.len());
        for letter in self.0.chars() {
            if matches!(letter, '"' | '\\') {
                quoted.push('\\');
            }
            quoted.push(letter);
        }
        let token =
            self.0.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if token {
            format!("multipart/form-data; boundary={quoted}")
        } else {
            format!("multipart/form-data; boundary=\"{quoted}\"")
        }
    }
}

/// What the header block of one part says.
#[derive(Debug)]
pub(super) struct PartHeader {
    pub(super) name: String,
    pub(super) filename: Option<String>,
    /// The encoding that the part's Content-Type names.
    pub(super) charset: Option<&'static Encoding>,
}

impl PartHeader {
    /// Reads `block`: header lines joined by CR LF.
    pub(super) fn parse(block: &[u8]) -> Result<Self, Error> {
        // Names that are not UTF-8 come from clients that write their own code page: mostly this one.
        let text = match std::str::from_utf8(block) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => WINDOWS_1252.decode_without_bom_handling(block).0,
        };
        let mut disposition = None;
        let mut charset = None;
        for line in lines(&unfold(&text)) {
            let (name, value) = split_at(line, b':').ok_or(Error::MalformedHeader)?;
            if name.eq_ignore_ascii_case("content-disposition") {
                disposition = Some(Disposition::parse(value.trim())?);
            } else if name.eq_ignore_ascii_case("content-type") {
                charset = named_charset(value);
            }
        }
        let Disposition { name, filename } = disposition.ok_or(Error::MissingName)?;
        Ok(Self { name, filename, charset })
    }

    pub(super) fn is_file(&self) -> bool {
        self.filename.is_some() || self.name == "file"
    }
}

struct Disposition {
    name: String,
    filename: Option<String>,
}

impl Disposition {
    fn parse(value: &str) -> Result<Self, Error> {
        let (kind, parameters) = split_at(value, b';').ok_or(Error::MissingName)?;
        if !kind.trim().eq_ignore_ascii_case("form-data") {
            return Err(Error::MissingName);
        }
        let (mut name, mut filename, mut extended) = (None, None, None);
        for (key, value) in Parameters(parameters) {
            if key.eq_ignore_ascii_case("name") {
                name = Some(value.into_owned());
            } else if key.eq_ignore_ascii_case("filename") {
                filename = Some(value.into_owned());
            } else if key.eq_ignore_ascii_case("filename*") {
                extended = extended_value(&value);
            }
        }
        Ok(Self { name: name.ok_or(Error::MissingName)?, filename: extended.or(filename) })
    }
}

fn named_charset(content_type: &str) -> Option<&'static Encoding> {
    let (_, parameters) = split_at(content_type, b';')?;
    let (_, charset) = Parameters(parameters).find(|(name, _)| name.eq_ignore_ascii_case("charset"))?;
    Encoding::for_label(charset.as_bytes())
}

/// The text before and after the first such ASCII byte. Names are short: to prepare a faster search costs more than it saves.
fn split_at(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|found| found == byte)?;
    Some((&text[..at], &text[at + 1..]))
}

/// The lines of a header block, which CR LF ends; empty ones are left out.
fn lines(block: &str) -> impl Iterator<Item = &str> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let begun = rest;
        let mut from = 0;
        // By single bytes: to prepare a search for two costs more than most blocks are long.
        while let Some(at) = memchr::memchr(b'\n', &begun.as_bytes()[from..]) {
            let end = from + at;
            if let Some(line) = begun[..end].strip_suffix('\r') {
                rest = &begun[end + 1..];
                return Some(line);
            }
            from = end + 1;
        }
        rest = "";
        (!begun.is_empty()).then_some(begun)
    })
    .filter(|line| !line.is_empty())
}

/// Joins continued header lines (RFC 5322, section 2.2.3).
fn unfold(block: &str) -> Cow<'_, str> {
    if lines(block).all(|line| !line.starts_with([' ', '\t'])) {
        return Cow::Borrowed(block);
    }
    Cow::Owned(block.replace("\r\n ", " ").replace("\r\n\t", " "))
}

/// Decodes `charset'language'percent-encoded` (RFC 8187); only UTF-8, the charset it requires.
fn extended_value(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let high = char::from(digits[0]).to_digit(16)?;
        let low = char::from(digits[1]).to_digit(16)?;
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).ok()
}

/// The `; key=value` parameters of a header; ends at the first that is malformed.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches([';', ' ', '\t']);
        let (key, rest) = split_at(text, b'=')?;
        let rest = rest.trim_start();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted)?,
            None => {
                let end = rest.bytes().position(|byte| byte == b';').unwrap_or(rest.len());
                (Cow::Borrowed(rest[..end].trim_end()), &rest[end..])
            }
        };
        self.0 = rest;
        Some((key.trim(), value))
    }
}

/// Reads up to the closing quote. A backslash escapes only a quote or a backslash: old browsers send `C:\music.wav` bare.
fn quoted_value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let special = memchr::memchr2(b'"', b'\\', text.as_bytes())?;
    if let Some(rest) = text[special..].strip_prefix('"') {
        return Some((Cow::Borrowed(&text[..special]), rest));
    }
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((Cow::Owned(value), &text[at + 1..])),
            '\\' => {
                let escaped = letters.next_if(|(_, next)| matches!(next, '"' | '\\'));
                value.push(escaped.map_or('\\', |(_, next)| next));
            }
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boundary(content_type: &str) -> Option<String> {
        Boundary::parse(content_type).map(|boundary| boundary.as_str().to_owned())
    }

    #[test]
    fn boundary_is_read_bare_and_quoted() {
        assert_eq!(boundary("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(
            boundary("Multipart/Form-Data; charset=utf-8; Boundary=\"a b;c\"; x=1").as_deref(),
            Some("a b;c")
        );
        assert_eq!(boundary("multipart/form-data;boundary=----X--").as_deref(), Some("----X--"));
    }

    #[test]
    fn impossible_boundaries_are_refused() {
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"unclosed",
            "multipart/form-data; boundary=\"ends with blank \"",
            "multipart/mixed; boundary=abc",
            "application/json",
        ] {
            assert_eq!(boundary(content_type), None, "{content_type}");
        }
        assert!(Boundary::new(&"x".repeat(70)).is_some());
        assert!(Boundary::new(&"x".repeat(71)).is_none());
        assert!(Boundary::new("a\r\nb").is_none());
    }

    #[test]
    fn content_type_reads_back_as_the_same_boundary() {
        for raw in ["plain", "with blank", "q\"uote\\", "a=b;c"] {
            assert_eq!(boundary(&Boundary::new(raw).unwrap().content_type()).as_deref(), Some(raw));
        }
    }

    #[test]
    fn filenames_are_unescaped() {
        let filename = |disposition: &str| {
            let block = format!("Content-Disposition: form-data; name=\"file\"; {disposition}");
            PartHeader::parse(block.as_bytes()).unwrap().filename
        };
        assert_eq!(filename(r#"filename="a \"b\".wav""#).as_deref(), Some(r#"a "b".wav"#));
        assert_eq!(filename(r#"filename="C:\music\a.wav""#).as_deref(), Some(r"C:\music\a.wav"));
        assert_eq!(filename("filename=bare.mp3; size=3").as_deref(), Some("bare.mp3"));
        assert_eq!(
            filename("filename=x.wav; filename*=UTF-8''%E2%82%AC%20rates.wav").as_deref(),
            Some("€ rates.wav")
        );
        assert_eq!(filename("filename=x.wav; filename*=UTF-8''%zz").as_deref(), Some("x.wav"));
        assert_eq!(filename("filename=\"\"").as_deref(), Some(""));
        assert_eq!(filename("filename=\"unclosed"), None);
    }

    #[test]
    fn folded_headers_are_joined() {
        let header =
            PartHeader::parse(b"Content-Disposition: form-data;\r\n name=\"model\"\r\nX-Other: 1").unwrap();
        assert_eq!(header.name, "model");
        assert!(!header.is_file());
    }

    #[test]
    fn parts_without_a_name_are_refused() {
        let parse = |block: &[u8]| PartHeader::parse(block).err();
        assert_eq!(parse(b""), Some(Error::MissingName));
        assert_eq!(parse(b"Content-Type: text/plain"), Some(Error::MissingName));
        assert_eq!(parse(b"Content-Disposition: attachment; name=\"x\""), Some(Error::MissingName));
        assert_eq!(parse(b"no colon"), Some(Error::MalformedHeader));
        assert_eq!(parse(b"Content-Disposition: form-data; name=\"\xff\""), None, "read as windows-1252");
    }
}
