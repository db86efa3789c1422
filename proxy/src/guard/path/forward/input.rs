//! The hash of what a request asks the engine to work on, taken while its body passes.

use bytes::Bytes;
use http::{HeaderMap, header};

use contract::header::AUDIO_SECONDS;

use crate::job::input::{InputHash, InputHasher};
use crate::multipart::{Boundary, Event, Limits, Parser};

/// The hash of a request's input. Of a multipart form the part `file` and the field `text` are hashed, of any other body all
/// of it. A hash that a gateway sends takes precedence: it is that of the client's file before any conversion.
pub enum Input {
    /// Sent by the gateway.
    Known(InputHash),
    /// Computed while the body passes.
    Tap(Box<Tap>),
}

/// A hash that is being computed.
pub struct Tap {
    hash: InputHasher,
    form: Option<Form>,
    found: bool,
}

struct Form {
    parser: Box<Parser>,
    in_file: bool,
}

impl Input {
    /// A tap for the body of a request with these headers.
    pub fn new(headers: &HeaderMap) -> Self {
        // Only a gateway sends the seconds.
        let known = headers.get(contract::header::INPUT).filter(|_| headers.contains_key(AUDIO_SECONDS));
        if let Some(known) = known.and_then(|known| known.to_str().ok()?.parse().ok()) {
            return Self::Known(known);
        }
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let form = content_type.and_then(Boundary::parse).map(|boundary| Form {
            parser: Box::new(Parser::new(&boundary, Limits::default())),
            in_file: false,
        });
        Self::Tap(Box::new(Tap { hash: InputHasher::default(), form, found: false }))
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, data: &Bytes) {
        if let Self::Tap(tap) = self {
            tap.push(data);
        }
    }

    /// The hash, if there was any input.
    pub fn finish(&self) -> Option<InputHash> {
        match self {
            Self::Known(hash) => Some(*hash),
            Self::Tap(tap) => tap.found.then(|| tap.hash.finish()),
        }
    }
}

impl Tap {
    fn push(&mut self, data: &Bytes) {
        let Some(form) = &mut self.form else {
            self.found = true;
            self.hash.push(data);
            return;
        };
        let Ok(events) = form.parser.push(data.clone()) else {
            // Malformed: hash the rest as it is. The engine will refuse it.
            self.form = None;
            return;
        };
        for event in events {
            match event {
                Event::Field { name, value } if name == "text" => {
                    self.found = true;
                    self.hash.push(value.as_bytes());
                }
                Event::FileStart { name, .. } => form.in_file = name == "file",
                Event::FileData(data) if form.in_file => {
                    self.found = true;
                    self.hash.push(&data);
                }
                Event::Field { .. } | Event::FileData(_) | Event::FileEnd | Event::End => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn hash(content_type: &str, body: &[u8], chunk: usize) -> Option<InputHash> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        let mut input = Input::new(&headers);
        for data in body.chunks(chunk) {
            input.push(&Bytes::copy_from_slice(data));
        }
        input.finish()
    }

    const FORM: &str = "multipart/form-data; boundary=x";
    const UPLOAD: &[u8] = b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nparakeet\r\n\
        --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF audio\r\n--x--\r\n";
    const SPEECH: &[u8] = b"--x\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nhello\r\n--x--\r\n";

    #[test]
    fn only_the_file_of_a_form_counts_however_it_is_cut() {
        for chunk in [1, 7, 1000] {
            assert_eq!(hash(FORM, UPLOAD, chunk), Some(InputHash::of(b"RIFF audio")));
        }
    }

    #[test]
    fn the_text_to_speak_counts() {
        assert_eq!(hash(FORM, SPEECH, 10), Some(InputHash::of(b"hello")));
    }

    #[test]
    fn the_hash_is_taken_from_a_gateway_and_from_no_other_client() {
        let known = (contract::header::INPUT, HeaderValue::from_static("000000000000f00d"));
        let mut headers = HeaderMap::from_iter([known]);
        let after = |headers: &HeaderMap| {
            let mut input = Input::new(headers);
            input.push(&Bytes::from_static(b"{}"));
            input.finish()
        };
        assert_eq!(after(&headers), Some(InputHash::of(b"{}")), "no gateway");
        headers.insert(AUDIO_SECONDS, HeaderValue::from_static("2.000"));
        assert_eq!(after(&headers), Some(InputHash(0xf00d)));
        headers.insert(contract::header::INPUT, HeaderValue::from_static("no hash"));
        assert_eq!(after(&headers), Some(InputHash::of(b"{}")));
    }

    #[test]
    fn any_other_body_counts_whole() {
        assert_eq!(hash("application/json", b"{}", 1), Some(InputHash::of(b"{}")));
        assert_eq!(hash("application/json", b"", 1), None);
    }
}
