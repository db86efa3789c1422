//! The body of one attempt: what comes before the file, the file, what comes after it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::outgoing::Gate;
use super::spool::{self, Reader};
use crate::error::Error;
use crate::protocol::Pieces;

/// Why an attempt's body ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// The file cannot be read.
    #[error("unable to send the file")]
    File(#[source] spool::Error),
    /// The engine is not to have the end of it.
    #[error("the request is not to be completed")]
    Gate,
}

/// The error by which the gate stopped an attempt, for the attempt to find.
pub(super) type Refused = Arc<Mutex<Option<Error>>>;

/// The body.
pub(super) struct Framed {
    before: [Option<Bytes>; 2],
    file: Option<(Reader, Arc<dyn Gate>)>,
    pieces: Option<Pieces>,
    /// What was read of the file and not sent, when it goes in pieces.
    read: Bytes,
    after: Option<Bytes>,
    refused: Refused,
}

impl Framed {
    /// A body of these parts; empty ones are left out.
    pub(super) fn new(
        before: [Bytes; 2],
        file: Option<(Reader, Arc<dyn Gate>)>,
        pieces: Option<Pieces>,
        after: Bytes,
        refused: Refused,
    ) -> Self {
        let part = |bytes: Bytes| (!bytes.is_empty()).then_some(bytes);
        Self { before: before.map(part), file, pieces, read: Bytes::new(), after: part(after), refused }
    }
}

impl Framed {
    /// The first part of the message with the next piece of what was read of the file; the other part follows.
    fn piece(&mut self) -> Option<Bytes> {
        let Pieces { most, message } = self.pieces.filter(|_| !self.read.is_empty())?;
        let [first, second] = message(self.read.split_to(most.min(self.read.len())));
        self.before[0] = (!second.is_empty()).then_some(second);
        Some(first)
    }
}

impl Body for Framed {
    type Data = Bytes;
    type Error = Stopped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        let this = &mut *self;
        if let Some(bytes) = this.before.iter_mut().find_map(Option::take).or_else(|| this.piece()) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some((reader, gate)) = &mut this.file {
            match ready!(Pin::new(reader).poll_frame(context)) {
                Some(Ok(frame)) if this.pieces.is_none() => return Poll::Ready(Some(Ok(frame))),
                Some(Ok(frame)) => {
                    this.read = frame.into_data().unwrap_or_default();
                    return self.poll_frame(context);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(Stopped::File(error)))),
                None => {}
            }
            if let Err(error) = gate.check() {
                *this.refused.lock() = Some(error);
                return Poll::Ready(Some(Err(Stopped::Gate)));
            }
            this.file = None;
        }
        Poll::Ready(this.after.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.before.iter().all(Option::is_none)
            && self.file.is_none()
            && self.read.is_empty()
            && self.after.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let around =
            self.before.iter().chain([&self.after]).flatten().map(|bytes| bytes.len() as u64).sum::<u64>();
        match &self.file {
            None => SizeHint::with_exact(around),
            Some((reader, _)) => match reader.size_hint().exact() {
                Some(file) if self.pieces.is_none() => SizeHint::with_exact(around + file),
                _ => SizeHint::default(),
            },
        }
    }
}
