//! An upload on its way to an engine: the file's bytes pass through as they are, everything else is read and written anew.
//!
//! The client's form is taken apart as it arrives. Its file is framed again with the same boundary, its text fields are kept
//! back, and the fields for the engine and the closing delimiter are written only when the client's own closing delimiter
//! was seen and everything was found valid. So an engine never receives a complete request of an upload that is truncated,
//! invalid, refused or too large; and of an upload that fits into the first [`HEAD_BYTES`], it never hears at all.

mod fields;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::{HeaderMap, HeaderValue, header};
use xxhash_rust::xxh3::Xxh3;

use crate::audio::{self, Container};
use crate::error::Error;
use crate::multipart::{self, Boundary, Event, Limits, Parser, Writer};

pub use fields::Fields;

/// What is read of a file before an engine is contacted.
const HEAD_BYTES: u64 = 64 * 1024;
/// Text fields: a prompt is the longest of them.
const LIMITS: Limits = Limits { field_bytes: 16 * 1024, header_bytes: 8 * 1024, fields: 48 };
/// Audio in an upload that tells neither its length nor its rate.
const UNKNOWN: Playing = Playing { seconds: 60.0, exact: false };

/// What an upload is for: judges the client's fields and names the engine's.
pub trait Purpose: Send + Unpin + 'static {
    /// Judges the fields that came before the file was known well enough; more may follow.
    ///
    /// # Errors
    /// Why the request cannot be served whatever follows.
    fn check(&self, fields: &Fields) -> Result<(), Error>;

    /// Judges all fields and the file's hash, and names the fields to send after the file.
    ///
    /// # Errors
    /// Why the request is not served.
    fn finish(&mut self, fields: &Fields, hash: &str) -> Result<Vec<(&'static str, String)>, Error>;
}

/// The body for the engine: a stream of the file in its new frame.
///
/// It ends with an error instead of the closing delimiter when the upload turns out bad.
pub struct Upload<P> {
    body: Body,
    parser: Parser,
    writer: Option<Writer>,
    purpose: P,
    fields: Fields,
    file: Option<File>,
    /// The part being read is a file that nobody asked for.
    foreign: bool,
    hasher: Box<Xxh3>,
    hash: Arc<OnceLock<String>>,
    received: u64,
    limit: u64,
    /// Framed bytes that have not left yet.
    ready: VecDeque<Bytes>,
    /// The form's closing delimiter was seen, or the upload was refused.
    ended: bool,
    /// Nothing more is to be read of the client's body.
    over: bool,
}

struct File {
    filename: Option<String>,
    /// Bytes seen of it.
    len: u64,
}

/// How long an upload plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Playing {
    /// Seconds of audio, exact or estimated.
    pub seconds: f64,
    /// The file states it.
    pub exact: bool,
}

/// An upload of which enough is known to choose an engine.
pub struct Opened<P> {
    /// What to send.
    pub upload: Upload<P>,
    /// Its Content-Type.
    pub content_type: HeaderValue,
    /// Its length, when all of it is there already.
    pub len: Option<u64>,
    /// About its length, when the client announced it.
    pub announced: Option<u64>,
    /// How long it plays.
    pub playing: Playing,
    /// The hash of the file, xxh3-64 in hex, once all of it was seen.
    pub hash: Arc<OnceLock<String>>,
}

impl<P: Purpose> Upload<P> {
    /// Reads the upload until its file is known well enough, or to its end if it is small.
    ///
    /// # Errors
    /// Whatever is wrong with what was read.
    pub async fn open(request: Request, limit: u64, purpose: P) -> Result<Opened<P>, Error> {
        let (head, body) = request.into_parts();
        let announced = announced_len(&head.headers);
        if announced.is_some_and(|len| len > limit) {
            return Err(Error::TooLarge { limit });
        }
        let boundary = boundary(&head.headers)?;
        let content_type = HeaderValue::try_from(boundary.content_type()).map_err(|_| not_multipart())?;
        let mut upload = Self {
            body,
            parser: Parser::new(&boundary, LIMITS),
            writer: Some(Writer::new(boundary)),
            purpose,
            fields: Fields::default(),
            file: None,
            foreign: false,
            hasher: Box::default(),
            hash: Arc::default(),
            received: 0,
            limit,
            ready: VecDeque::new(),
            ended: false,
            over: false,
        };
        while !upload.ended && upload.file.as_ref().is_none_or(|file| file.len < HEAD_BYTES) {
            std::future::poll_fn(|cx| upload.poll_read(cx)).await?;
        }
        if upload.ended {
            std::future::poll_fn(|cx| upload.poll_epilogue(cx)).await;
            upload.over = true;
        }
        upload.purpose.check(&upload.fields)?;
        let playing = upload.judge_file(announced)?;
        if upload.ended {
            upload.close()?;
        }
        let len = upload.ended.then(|| upload.ready.iter().map(|bytes| bytes.len() as u64).sum());
        let hash = Arc::clone(&upload.hash);
        Ok(Opened { upload, content_type, len, announced, playing, hash })
    }

    /// Reads one frame of the client's body.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let data = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) | None => return Poll::Ready(Err(Error::Truncated)),
        };
        self.received += data.len() as u64;
        if self.received > self.limit {
            return Poll::Ready(Err(Error::TooLarge { limit: self.limit }));
        }
        let events = self.parser.push(data).map_err(malformed)?;
        for event in events {
            self.take(event)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what follows the closing delimiter, so that the connection sees the request's end, and a client that leaves.
    fn poll_epilogue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.received <= self.limit {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.received += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(())
    }

    fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Field { name, value } => self.fields.push(name, value),
            Event::FileStart { name, .. } if name != "file" => self.foreign = true,
            Event::FileStart { .. } if self.file.is_some() => {
                return Err(Error::param("file", "send one file"));
            }
            Event::FileStart { filename, .. } => self.file = Some(File { filename, len: 0 }),
            Event::FileData(_) if self.foreign => {}
            Event::FileData(data) => {
                if let Some(file) = &mut self.file {
                    file.len += data.len() as u64;
                }
                self.hasher.update(&data);
                self.ready.push_back(data);
            }
            Event::FileEnd => self.foreign = false,
            Event::End => self.ended = true,
        }
        Ok(())
    }

    /// Judges the file by its first bytes, opens its part in the new frame and tells how long it plays.
    fn judge_file(&mut self, announced: Option<u64>) -> Result<Playing, Error> {
        let file = match &self.file {
            None => return Err(Error::param("file", "file is missing")),
            Some(file) if file.len == 0 => return Err(Error::param("file", "the file is empty")),
            Some(file) => file,
        };
        let prefix = joined(&self.ready);
        let container = container(&prefix, file.filename.as_deref())?;
        let total = if self.ended { Some(file.len) } else { announced };
        let playing = audio::estimate(&prefix, total)
            .map_or(UNKNOWN, |estimate| Playing { seconds: estimate.seconds, exact: estimate.exact });
        let named = file.filename.as_deref().filter(|name| Container::from_filename(name).is_some());
        let filename = match named {
            Some(name) => name.to_owned(),
            None => format!("audio.{}", container.extension()),
        };
        if let Some(writer) = &mut self.writer {
            self.ready.push_front(writer.file("file", &filename, container.mime()));
        }
        Ok(playing)
    }

    /// Writes what follows the file, if nothing speaks against it.
    fn close(&mut self) -> Result<(), Error> {
        let hash = self.hash.get_or_init(|| format!("{:016x}", self.hasher.digest()));
        let fields = self.purpose.finish(&self.fields, hash)?;
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        for (name, value) in fields {
            self.ready.push_back(writer.field(name, &value).map_err(malformed)?);
        }
        self.ready.push_back(writer.close());
        Ok(())
    }
}

impl<P: Purpose> Stream for Upload<P> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let upload = &mut *self;
        loop {
            if let Some(bytes) = upload.ready.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if upload.ended {
                if !upload.over {
                    ready!(upload.poll_epilogue(cx));
                    upload.over = true;
                }
                return Poll::Ready(None);
            }
            let mut read = ready!(upload.poll_read(cx));
            if read.is_ok() && upload.ended {
                read = upload.close();
            }
            if let Err(error) = read {
                (upload.ended, upload.over) = (true, true);
                upload.ready.clear();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

/// The body's length as announced.
fn announced_len(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn boundary(headers: &HeaderMap) -> Result<Boundary, Error> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.and_then(Boundary::parse).ok_or_else(not_multipart)
}

fn not_multipart() -> Error {
    Error::InvalidRequest {
        param: None,
        code: Some("invalid_content_type"),
        message: "send the file as multipart/form-data with a boundary".into(),
    }
}

fn malformed(error: multipart::Error) -> Error {
    match error {
        multipart::Error::Truncated => Error::Truncated,
        error => {
            Error::InvalidRequest { param: None, code: Some("invalid_form"), message: error.to_string() }
        }
    }
}

/// The container by its first bytes, which count more than any name. Only streams of MPEG frames may begin with something
/// else, so only they are believed by name.
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

/// Chunks in one piece; a single one is not copied.
fn joined(chunks: &VecDeque<Bytes>) -> Bytes {
    if let [chunk] = chunks.as_slices().0
        && chunks.len() == 1
    {
        return chunk.clone();
    }
    let mut all = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        all.extend_from_slice(chunk);
    }
    all.freeze()
}

#[cfg(test)]
mod tests;
