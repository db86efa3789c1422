//! Whether the operator listens: counts the state streams that it has open.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

/// The operator's streams. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Contact {
    streams: Arc<Mutex<Streams>>,
}

#[derive(Debug, Default)]
struct Streams {
    open: usize,
    closed: Option<Instant>,
}

impl Contact {
    /// A stream with a verified token is open until what is returned is dropped.
    pub fn open(&self) -> OpenStream {
        self.streams.lock().open += 1;
        OpenStream { contact: self.clone() }
    }

    /// When the operator last listened; `now` while it does.
    pub fn last(&self, now: Instant) -> Option<Instant> {
        let streams = self.streams.lock();
        if streams.open > 0 { Some(now) } else { streams.closed }
    }
}

/// A stream of the operator.
#[derive(Debug)]
pub struct OpenStream {
    contact: Contact,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut streams = self.contact.streams.lock();
        streams.open -= 1;
        streams.closed = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contact_lasts_while_any_stream_is_open() {
        let contact = Contact::default();
        let now = Instant::now();
        assert_eq!(contact.last(now), None);
        let (first, second) = (contact.open(), contact.open());
        drop(first);
        let later = now + std::time::Duration::from_secs(9);
        assert_eq!(contact.last(later), Some(later));
        drop(second);
        assert!(contact.last(later).is_some_and(|last| last < later));
    }
}
