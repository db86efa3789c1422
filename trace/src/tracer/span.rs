//! A span: a named piece of work from its beginning to its end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::record::{Ended, Value, unix};
use crate::tracer::{Export, Trace};

/// A span under way, if it is recorded at all. It ends when dropped.
#[derive(Debug, Default)]
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    trace: Trace,
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    span: Ended,
    /// When it began.
    clock: Instant,
    /// Unix time at which it ended, where that is not now.
    until: Option<Duration>,
    export: Arc<Export>,
}

impl Span {
    /// One that is not recorded: what is done within it belongs to `trace`.
    pub(super) fn unrecorded(trace: Trace) -> Self {
        Self { trace, open: None }
    }

    pub(super) fn begin(trace: Trace, export: Arc<Export>, span: Ended) -> Self {
        let passed = unix(SystemTime::now()).saturating_sub(span.started);
        let now = Instant::now();
        let clock = now.checked_sub(passed).unwrap_or(now);
        Self { trace, open: Some(Box::new(Open { span, clock, until: None, export })) }
    }

    /// Where what is done within it is in the trace.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Whether it will be exported: what is costly to find out for its attributes can be spared otherwise.
    pub fn is_recorded(&self) -> bool {
        self.open.is_some()
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(open) = &mut self.open {
            open.span.name = name().into();
        }
    }

    /// Adds an attribute, or replaces that of the same key.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let Some(open) = &mut self.open else { return };
        let value = value.into();
        match open.span.attributes.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => open.span.attributes.push((key, value)),
        }
    }

    /// Marks it as failed. The first reason counts.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.open {
            open.span.error.get_or_insert_with(|| why.into());
        }
    }

    /// Ends it at a time that has passed already.
    pub fn end_at(mut self, at: SystemTime) {
        if let Some(open) = &mut self.open {
            open.until = Some(unix(at));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let Open { mut span, clock, until, export } = *open;
        // By the monotonic clock: the other one may be set meanwhile.
        span.ended = until.unwrap_or_else(|| span.started + clock.elapsed()).max(span.started);
        export.queue.push(span);
    }
}
