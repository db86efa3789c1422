//! An upload: its text fields, and its file as a stream that can be read again.
//!
//! It comes as multipart/form-data, or as the file alone with its fields in the URL.
//!
//! The client's form is taken apart as it arrives; only the file's bytes are kept. A form whose fields come before its file is
//! used while the file still arrives. If more fields come after the file, the job is begun anew with all of them, which is
//! possible because no engine gets the end of a request before the form has ended. A form whose file comes first is read to
//! its end before an engine is picked: what is asked for is not known earlier.

mod fields;
mod kept;
mod source;
mod stored;
mod text;
mod whole;

use std::sync::Arc;

use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{HeaderMap, header};
use parking_lot::Mutex;

use crate::audio::{self, Container};
use crate::error::Error;
use crate::job::input::InputHash;
use crate::job::work::Audio;
use crate::multipart::{self, Boundary};
use crate::upstream::spool::{Replay, SpoolBudget};
use crate::upstream::{Gate, Upload, Upstreams};

pub use fields::{Fields, Split};
pub use whole::Whole;

use kept::Kept;
use source::Source;

/// What is read of a file before an engine is picked.
const HEAD_BYTES: u64 = 64 * 1024;
/// Least audio in an upload that states neither its length nor its rate, seconds.
const UNKNOWN_SECONDS: f64 = 60.0;
/// Bytes of a second of such audio: what browsers record.
const UNKNOWN_RATE: f64 = 8_000.0;

/// How long an upload plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Playing {
    /// Seconds of audio, exact or estimated.
    pub seconds: f64,
    /// The file states it, and its bytes can hold it.
    pub exact: bool,
}

/// An upload of which enough is known to pick an engine.
pub struct Form {
    /// How long it plays.
    pub playing: Playing,
    /// Bytes of the whole body, when the client announced them or all of them are there.
    pub announced: Option<u64>,
    audio: Audio,
    bytes: Replay,
    seen: Arc<Mutex<Seen>>,
    /// Text fields came before the file.
    fields_first: bool,
    /// The upload in parts that is the file.
    kept: Option<Kept>,
}

/// What a request's body has.
pub enum Opened {
    /// A form with a file, or the file alone.
    Form(Form),
    /// Fields that name an upload in place of a file, in [`UPLOAD`].
    Fields(Fields),
}

/// The field that names an upload.
pub const UPLOAD: &str = "upload_id";

/// How a body holds its file.
enum Framing {
    /// Among the parts of a form.
    Form(Boundary),
    /// It is the file.
    File,
}

/// What has been seen of a form.
#[derive(Debug, Default)]
struct Seen {
    fields: Fields,
    /// Hash of the file, once all of it was seen.
    input: Option<InputHash>,
}

impl Form {
    /// Reads the form until its file is known well enough, or to its end if it is small.
    ///
    /// # Errors
    /// Whatever is wrong with what was read.
    pub async fn open(request: Request, limit: u64, budget: Arc<SpoolBudget>) -> Result<Opened, Error> {
        let (head, body) = request.into_parts();
        let announced = announced_len(&head.headers);
        if announced.is_some_and(|len| len > limit) {
            return Err(Error::TooLarge { limit });
        }
        let framing = framing(&head.headers)?;
        let mut seen = Seen::default();
        if let (Framing::File, Some(query)) = (&framing, head.uri.query()) {
            seen.fields = Fields::of_query(query)?;
        }
        let seen = Arc::new(Mutex::new(seen));
        let mut source = Source::new(body, &framing, limit, Arc::clone(&seen));
        source.read_head(HEAD_BYTES).await?;
        if source.is_without_file() {
            let fields = seen.lock().fields.clone();
            if fields.set(UPLOAD).is_some() {
                return Ok(Opened::Fields(fields));
            }
        }
        let total = source.file_len().or(announced);
        let says_all = |first: &[u8]| audio::estimate(first, total).is_some_and(|estimate| estimate.exact);
        let (prefix, filename, fields_first) = source.file(says_all)?;
        let container = container(&prefix, filename.as_deref())?;
        let playing = playing(&prefix, total);
        let audio = described(container, &prefix, filename.as_deref(), source.file_len());
        let announced = source.received_all().or(announced);
        let known_len = source.file_len();
        // Small files are whole by now: the hash is known, and nothing is left to read.
        let bytes = match source.into_chunks() {
            Ok(chunks) => Replay::new(stream::iter(chunks.into_iter().map(Ok)), known_len, budget),
            Err(source) => Replay::new(source.boxed(), None, budget),
        };
        Ok(Opened::Form(Self { playing, announced, audio, bytes, seen, fields_first, kept: None }))
    }

    /// Runs a job with the fields that are there, and anew if more come after the file.
    ///
    /// # Errors
    /// Those of the job; what is wrong with the upload.
    pub async fn serve<T, F>(&self, job: impl Fn(Fields) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.fill().await?;
        loop {
            let fields = self.seen.lock().fields.clone();
            match job(fields).await {
                Err(Error::FormChanged) => {}
                outcome => return outcome,
            }
        }
    }

    /// Resolves when it is known what the form asks for, as far as that can be before its file has ended; see [`Form`].
    ///
    /// # Errors
    /// What is wrong with the upload.
    pub async fn fill(&self) -> Result<(), Error> {
        if !self.fields_first && self.seen.lock().input.is_none() {
            self.bytes.fill().await;
            self.bytes.failure().map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// What the fields that are there say.
    pub fn says<T>(&self, read: impl FnOnce(&Fields) -> T) -> T {
        read(&self.seen.lock().fields)
    }

    /// The file for a job that was made of `fields`.
    pub fn upload(&self, fields: &Fields, upstreams: &Upstreams) -> Upload {
        let upstreams = upstreams.clone();
        let gate = self.gate(fields, move |input| upstreams.is_poison(input));
        Upload::new(self.audio.clone(), self.bytes.clone(), gate)
    }

    fn gate<P>(&self, fields: &Fields, is_poison: P) -> Arc<dyn Gate>
    where
        P: Fn(InputHash) -> bool + Send + Sync + 'static,
    {
        Arc::new(FormGate { seen: Arc::clone(&self.seen), fields: fields.len(), is_poison })
    }

    /// Hash of the file, once all of it was seen.
    pub fn input(&self) -> Option<InputHash> {
        self.seen.lock().input
    }
}

/// The gate of a job that was made of the first `fields` of a form.
struct FormGate<P> {
    seen: Arc<Mutex<Seen>>,
    fields: usize,
    is_poison: P,
}

impl<P: Fn(InputHash) -> bool + Send + Sync> Gate for FormGate<P> {
    fn check(&self) -> Result<(), Error> {
        let seen = self.seen.lock();
        if seen.fields.len() != self.fields {
            return Err(Error::FormChanged);
        }
        if seen.input.is_some_and(&self.is_poison) {
            return Err(Error::PoisonInput);
        }
        Ok(())
    }

    fn input(&self) -> Option<InputHash> {
        self.seen.lock().input
    }
}

/// The body's length as announced.
fn announced_len(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn framing(headers: &HeaderMap) -> Result<Framing, Error> {
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    if let Some(encoding) = encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(invalid(
            "invalid_content_encoding",
            format!("Content-Encoding {encoding} is not supported; send the form as it is"),
        ));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if ["audio/", "video/", "application/octet-stream", "application/ogg"].iter().any(|raw| starts(kind, raw))
    {
        return Ok(Framing::File);
    }
    content_type.and_then(Boundary::parse).map(Framing::Form).ok_or_else(|| {
        let message = "send the file as multipart/form-data with a boundary, or alone as audio/* with its fields in the URL";
        invalid("invalid_content_type", message.into())
    })
}

/// Whether a text begins with another one, in any case.
fn starts(text: &str, with: &str) -> bool {
    text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

fn invalid(code: &'static str, message: String) -> Error {
    Error::InvalidRequest { param: None, code: Some(code), message }
}

fn malformed(error: multipart::Error) -> Error {
    match error {
        multipart::Error::Truncated => Error::Truncated,
        error => invalid("invalid_form", error.to_string()),
    }
}

/// The container by its first bytes, which count more than any name. Only streams of MPEG frames may begin with something
/// else, so only they are taken by name.
fn container(prefix: &[u8], filename: Option<&str>) -> Result<Container, Error> {
    if let Some(container) = Container::sniff(prefix) {
        return Ok(container);
    }
    let filename = filename.unwrap_or_default();
    match Container::from_filename(filename) {
        Some(container @ (Container::Mp3 | Container::Adts)) => Ok(container),
        Some(_) => Err(Error::param("file", "Audio file might be corrupted or unsupported")),
        None => {
            let extension = filename.rsplit_once('.').map(|(_, extension)| extension);
            let found = extension.filter(|extension| extension.len() <= 16).unwrap_or("unknown");
            Err(Error::UnsupportedFile { found: found.to_owned() })
        }
    }
}

/// How long a file that begins so plays.
fn playing(prefix: &[u8], bytes: Option<u64>) -> Playing {
    match audio::estimate(prefix, bytes) {
        Some(estimate) => Playing { seconds: estimate.seconds, exact: estimate.exact },
        None => {
            let guessed = bytes.map_or(0.0, |bytes| bytes as f64 / UNKNOWN_RATE);
            Playing { seconds: guessed.max(UNKNOWN_SECONDS), exact: false }
        }
    }
}

/// What is known of the file.
fn described(container: Container, prefix: &[u8], filename: Option<&str>, len: Option<u64>) -> Audio {
    let mono = audio::describe(prefix).and_then(|description| description.channels) == Some(1);
    let open_header = audio::wav::open_header(prefix, len);
    Audio { container, filename: container.filename(filename), mono, open_header }
}

/// Chunks in one piece; a single one is not copied.
fn joined(chunks: &[Bytes]) -> Bytes {
    match chunks {
        [chunk] => chunk.clone(),
        chunks => {
            let mut all = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
            for chunk in chunks {
                all.extend_from_slice(chunk);
            }
            all.freeze()
        }
    }
}

#[cfg(test)]
mod tests;
