//! The bytes of a form's file as they arrive, while the form around them is read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use parking_lot::Mutex;

use super::{Framing, Seen, invalid, joined, malformed};
use crate::error::Error;
use crate::job::input::InputHasher;
use crate::multipart::{Event, Large, Limits, Parser};
use crate::net::body::late;

/// Text fields: a prompt is the longest of them.
const LIMITS: Limits = Limits {
    field_bytes: 16 * 1024,
    header_bytes: 8 * 1024,
    fields: 48,
    // Ten seconds of 48 kHz stereo as a WAV file are 2.6 MB in base64.
    large: Large { prefix: Some(REFERENCES), bytes: 4 * 1024 * 1024, fields: 4 },
};
/// Recordings of speakers, as `data:` URLs.
const REFERENCES: &str = "known_speaker_references";
/// Names of the part that is the file.
const FILE_PARTS: [&str; 3] = ["file", "audio_sample", "recording"];

/// The file's bytes. The stream ends once the form has ended, or with what is wrong with it.
pub(super) struct Source {
    body: Body,
    /// `None` when the body is the file itself.
    parser: Option<Parser>,
    seen: Arc<Mutex<Seen>>,
    file: Option<File>,
    /// The part being read is no file that is asked for: a text field that came with a file name, or left out.
    other: Option<Other>,
    /// The first bytes of a form whose lines end with LF alone.
    bare_lf: Vec<u8>,
    hasher: InputHasher,
    received: u64,
    limit: u64,
    /// Bytes of the file that have not left yet.
    ready: VecDeque<Bytes>,
    /// The form's closing delimiter was seen, or the upload was refused.
    ended: bool,
    /// Nothing more is to be read of the client's body.
    over: bool,
}

/// A part with a file name that is not the file.
struct Other {
    name: String,
    /// `None` once it is too long for a text field.
    text: Option<BytesMut>,
}

struct File {
    filename: Option<String>,
    /// Bytes seen of it.
    len: u64,
    /// Text fields came before it.
    after_fields: bool,
}

impl Source {
    pub(super) fn new(body: Body, framing: &Framing, limit: u64, seen: Arc<Mutex<Seen>>) -> Self {
        let (parser, file, bare_lf) = match framing {
            Framing::Form(boundary) => {
                let bare_lf = format!("--{}\n", boundary.as_str()).into_bytes();
                (Some(Parser::new(boundary, LIMITS)), None, bare_lf)
            }
            // Its fields are in the URL, and so before it.
            Framing::File => (None, Some(File { filename: None, len: 0, after_fields: true }), Vec::new()),
        };
        Self {
            body,
            parser,
            seen,
            file,
            other: None,
            bare_lf,
            hasher: InputHasher::default(),
            received: 0,
            limit,
            ready: VecDeque::new(),
            ended: false,
            over: false,
        }
    }

    /// Reads until so many bytes of the file are there, or the form has ended.
    pub(super) async fn read_head(&mut self, bytes: u64) -> Result<(), Error> {
        while !self.ended && self.file.as_ref().is_none_or(|file| file.len < bytes) {
            std::future::poll_fn(|cx| self.poll_read(cx)).await?;
        }
        if self.ended {
            std::future::poll_fn(|cx| self.poll_epilogue(cx)).await;
            self.over = true;
        }
        Ok(())
    }

    /// Whether the form has ended without a file.
    pub(super) fn is_without_file(&self) -> bool {
        self.ended && self.file.as_ref().is_none_or(|file| file.len == 0)
    }

    /// What is there of the file: its first bytes, its name, and whether text fields came before it. Of a file whose first chunk
    /// says `enough` only that chunk is given, so that nothing is copied.
    pub(super) fn file(
        &mut self,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<(Bytes, Option<String>, bool), Error> {
        match &self.file {
            None => Err(Error::param("file", "file is missing")),
            Some(file) if file.len == 0 => Err(Error::param("file", "the file is empty")),
            Some(file) => {
                let first = self.ready.front().filter(|first| enough(first)).cloned();
                let bytes = first.unwrap_or_else(|| joined(self.ready.make_contiguous()));
                Ok((bytes, file.filename.clone(), file.after_fields))
            }
        }
    }

    /// The file's length, once the form has ended.
    pub(super) fn file_len(&self) -> Option<u64> {
        self.file.as_ref().filter(|_| self.ended).map(|file| file.len)
    }

    /// The body's length, once the form has ended.
    pub(super) fn received_all(&self) -> Option<u64> {
        self.ended.then_some(self.received)
    }

    /// The whole file, if the form has ended; else the source itself.
    pub(super) fn into_chunks(self) -> Result<VecDeque<Bytes>, Box<Self>> {
        if self.ended { Ok(self.ready) } else { Err(Box::new(self)) }
    }

    /// Reads one frame of the client's body.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let data = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) if late(&error).is_some() => return Poll::Ready(Err(Error::BodyTimeout)),
            None if self.parser.is_none() => return Poll::Ready(self.take(Event::End)),
            Some(Err(_)) | None => return Poll::Ready(Err(Error::Truncated)),
        };
        if self.received == 0 && !self.bare_lf.is_empty() && data.starts_with(&self.bare_lf) {
            let message = "the lines of the form end with LF; multipart/form-data needs CR LF".into();
            return Poll::Ready(Err(invalid("invalid_form", message)));
        }
        self.received += data.len() as u64;
        if self.received > self.limit {
            return Poll::Ready(Err(Error::TooLarge { limit: self.limit }));
        }
        let Some(parser) = &mut self.parser else { return Poll::Ready(self.take(Event::FileData(data))) };
        for event in parser.push(data).map_err(malformed)? {
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
            Event::Field { name, value } => self.seen.lock().fields.push(name, value),
            Event::FileStart { name, .. } if !FILE_PARTS.contains(&name.as_str()) => {
                self.other = Some(Other { name, text: Some(BytesMut::new()) });
            }
            Event::FileStart { .. } if self.file.is_some() => {
                return Err(Error::param("file", "send one file"));
            }
            Event::FileStart { filename, .. } => {
                let after_fields = self.seen.lock().fields.len() > 0;
                self.file = Some(File { filename, len: 0, after_fields });
            }
            Event::FileData(data) if self.other.is_some() => {
                if let Some(Other { text, .. }) = &mut self.other {
                    let fits = |text: &BytesMut| text.len() + data.len() <= LIMITS.field_bytes;
                    *text = text.take().filter(fits);
                    if let Some(text) = text {
                        text.extend_from_slice(&data);
                    }
                }
            }
            Event::FileData(data) => {
                if let Some(file) = &mut self.file {
                    file.len += data.len() as u64;
                }
                self.hasher.push(&data);
                self.ready.push_back(data);
            }
            Event::FileEnd => {
                let text = self.other.take().and_then(|other| Some((other.name, other.text?)));
                if let Some((name, text)) = text
                    && let Ok(text) = str::from_utf8(&text)
                {
                    self.seen.lock().fields.push(name, text.to_owned());
                }
            }
            Event::End => {
                self.ended = true;
                self.seen.lock().input = Some(self.hasher.finish());
            }
        }
        Ok(())
    }
}

impl Stream for Source {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let source = &mut *self;
        loop {
            if let Some(bytes) = source.ready.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if source.ended {
                if !source.over {
                    ready!(source.poll_epilogue(cx));
                    source.over = true;
                }
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(source.poll_read(cx)) {
                (source.ended, source.over) = (true, true);
                source.ready.clear();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
