//! Who decides which traces are recorded, and where a request is in its trace.

use std::hash::{BuildHasher, RandomState};
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use parking_lot::RwLock;
use prometheus::Registry;

use crate::context::{self, Context, SpanId, TRACEPARENT, TRACESTATE, TraceId};
use crate::endpoint::Error;
use crate::export::{self, Metrics, Queue, Settings};
use crate::record::{Ended, Kind, unix};

mod span;

pub use span::Span;

/// How long the end of an export waits for the last spans to be sent.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Begins traces and takes the spans of those that are recorded. Cloning shares it; the default one never exports any.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    /// The export under way.
    export: RwLock<Option<Arc<Export>>>,
    metrics: Metrics,
}

/// An export, and which traces are recorded for it.
#[derive(Debug)]
struct Export {
    ids: Ids,
    /// Share of the traces that begin here which is recorded, of 2^64.
    threshold: u128,
    queue: Queue,
}

impl Export {
    fn new(sample_ratio: f64, queue: Queue) -> Arc<Self> {
        // What is no number counts as 0.
        let threshold = (sample_ratio.clamp(0.0, 1.0) * 2_f64.powi(64)) as u128;
        Arc::new(Self { ids: Ids::default(), threshold, queue })
    }
}

impl Tracer {
    /// One that exports nothing yet.
    ///
    /// # Errors
    /// [`Error::Metrics`].
    pub fn new() -> Result<Self, Error> {
        let shared = Shared { export: RwLock::default(), metrics: Metrics::new()? };
        Ok(Self(Some(Arc::new(shared))))
    }

    /// Exports there from now on, on the runtime that this is called on; nothing any more when `None`. Spans of requests under
    /// way are lost with the export that they began under.
    ///
    /// # Errors
    /// [`Error`]; the export under way goes on then.
    pub fn export(&self, settings: Option<Settings>) -> Result<(), Error> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let start = |settings: Settings| {
            let ratio = settings.sample_ratio;
            Ok::<_, Error>(Export::new(ratio, export::start(settings, shared.metrics.clone())?))
        };
        let next = settings.map(start).transpose()?;
        if let Some(last) = std::mem::replace(&mut *shared.export.write(), next) {
            tokio::spawn(async move { last.queue.stop(LAST_SPANS).await });
        }
        Ok(())
    }

    /// Adds the metric of the export.
    ///
    /// # Errors
    /// When it is registered there already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.0.as_ref().map_or(Ok(()), |shared| shared.metrics.register(registry))
    }

    /// Ends the export once the spans that have ended are sent, or a few seconds later.
    pub async fn stop(&self) {
        let Some(shared) = &self.0 else { return };
        let last = shared.export.write().take();
        if let Some(last) = last {
            last.queue.stop(LAST_SPANS).await;
        }
    }

    /// Whether spans are exported.
    pub fn is_on(&self) -> bool {
        self.under_way().is_some()
    }

    fn under_way(&self) -> Option<Arc<Export>> {
        self.0.as_ref()?.export.read().clone()
    }

    /// Where a request is in its trace. One that comes without begins a trace where spans are exported; without an export it
    /// has none. Whether a trace is recorded is decided where it begins.
    pub fn accept(&self, headers: &HeaderMap) -> Trace {
        let Some(Context { trace, span, sampled }) = Context::of(headers) else { return self.begin() };
        let (parent, state) = (Some(span), context::state(headers));
        Trace(Some(Arc::new(Place { trace, parent, sampled, state, export: self.under_way() })))
    }

    /// A trace that begins here, recorded if the sample ratio says so; none where nothing is exported.
    pub fn begin(&self) -> Trace {
        self.root(|export, trace| u128::from(trace.0.get() as u64) < export.threshold)
    }

    /// A trace that begins here and is recorded whatever the sample ratio is: for what is rare.
    pub fn begin_recorded(&self) -> Trace {
        self.root(|_, _| true)
    }

    fn root(&self, is_sampled: impl FnOnce(&Export, TraceId) -> bool) -> Trace {
        let Some(export) = self.under_way() else { return Trace::default() };
        let trace = export.ids.trace();
        let sampled = is_sampled(&export, trace);
        Trace(Some(Arc::new(Place { trace, parent: None, sampled, state: None, export: Some(export) })))
    }
}

/// Where something is in a trace, if it is in one. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Arc<Place>>);

#[derive(Debug)]
struct Place {
    trace: TraceId,
    /// The span that all that is done here belongs to.
    parent: Option<SpanId>,
    sampled: bool,
    state: Option<HeaderValue>,
    export: Option<Arc<Export>>,
}

impl Trace {
    /// The trace's id.
    pub fn id(&self) -> Option<TraceId> {
        self.0.as_ref().map(|place| place.trace)
    }

    /// Begins a span.
    pub fn span(&self, name: &'static str, kind: Kind) -> Span {
        self.span_at(name, kind, SystemTime::now)
    }

    /// Begins a span at a time that has passed already.
    pub fn span_since(&self, name: &'static str, kind: Kind, since: SystemTime) -> Span {
        self.span_at(name, kind, || since)
    }

    fn span_at(&self, name: &'static str, kind: Kind, at: impl FnOnce() -> SystemTime) -> Span {
        let Some(place) = &self.0 else { return Span::default() };
        let Some(export) = place.export.as_ref().filter(|_| place.sampled) else {
            return Span::unrecorded(self.clone());
        };
        let (id, started) = (export.ids.span(), unix(at()));
        let within = Place {
            trace: place.trace,
            parent: Some(id),
            sampled: true,
            state: place.state.clone(),
            export: place.export.clone(),
        };
        let span = Ended {
            trace: place.trace,
            id,
            parent: place.parent,
            state: place.state.clone(),
            name: name.into(),
            kind,
            started,
            ended: started,
            attributes: Vec::new(),
            error: None,
        };
        Span::begin(Self(Some(Arc::new(within))), Arc::clone(export), span)
    }

    /// Puts it into the headers of a request that is sent on its behalf. Headers stay as they are where there is no trace.
    pub fn inject(&self, headers: &mut HeaderMap) {
        let Some(place) = &self.0 else { return };
        let span = match (place.parent, &place.export) {
            (Some(span), _) => span,
            // Who is sent a trace is also sent a span of it, recorded or not.
            (None, Some(export)) => export.ids.span(),
            (None, None) => return,
        };
        let context = Context { trace: place.trace, span, sampled: place.sampled };
        let Some(value) = context.header() else { return };
        headers.insert(TRACEPARENT, value);
        match &place.state {
            Some(state) => headers.insert(TRACESTATE, state.clone()),
            None => headers.remove(TRACESTATE),
        };
    }
}

/// Ids that no one else makes: keyed hashes of a count, with keys of the system's randomness.
#[derive(Debug, Default)]
struct Ids {
    keys: [RandomState; 2],
    count: AtomicU64,
}

impl Ids {
    fn trace(&self) -> TraceId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let [high, low] = [&self.keys[0], &self.keys[1]].map(|key| u128::from(key.hash_one(count)));
        TraceId(NonZeroU128::new(high << 64 | low).unwrap_or(NonZeroU128::MIN))
    }

    fn span(&self) -> SpanId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        SpanId(NonZeroU64::new(self.keys[0].hash_one(count)).unwrap_or(NonZeroU64::MIN))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::record::Value;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    fn asked(flags: &str) -> HeaderMap {
        HeaderMap::from_iter([
            (TRACEPARENT, HeaderValue::try_from(format!("{PARENT}-{flags}")).unwrap()),
            (TRACESTATE, HeaderValue::from_static("a=1")),
        ])
    }

    fn sent(trace: &Trace) -> (Context, Option<String>) {
        let mut headers = HeaderMap::from_iter([(TRACESTATE, HeaderValue::from_static("stale=1"))]);
        trace.inject(&mut headers);
        let state = headers.get(TRACESTATE).map(|state| state.to_str().unwrap().to_owned());
        (Context::of(&headers).unwrap(), state)
    }

    /// A tracer whose spans stay in its queue.
    fn kept(sample_ratio: f64) -> (Tracer, tokio::sync::mpsc::Receiver<Ended>) {
        let tracer = Tracer::new().unwrap();
        let shared = tracer.0.as_ref().unwrap();
        let (queue, kept) = Queue::kept(shared.metrics.clone());
        *shared.export.write() = Some(Export::new(sample_ratio, queue));
        (tracer, kept)
    }

    #[test]
    fn without_an_export_a_trace_is_passed_on_unchanged_and_none_begins() {
        let tracer = Tracer::default();
        let none = tracer.accept(&HeaderMap::new());
        let mut headers = HeaderMap::new();
        none.inject(&mut headers);
        assert!(none.id().is_none() && headers.is_empty());

        let trace = tracer.accept(&asked("01"));
        let span = trace.span("request", Kind::Server);
        assert!(!span.is_recorded());
        let mut headers = HeaderMap::new();
        span.trace().inject(&mut headers);
        assert_eq!(headers[TRACEPARENT], format!("{PARENT}-01"));
        assert_eq!(headers[TRACESTATE], "a=1");
    }

    #[test]
    fn a_parent_decides_whether_a_trace_is_recorded() {
        let (tracer, mut kept) = kept(0.0);
        let trace = tracer.accept(&asked("01"));
        let mut outer = trace.span("outer", Kind::Server);
        outer.set("a", 1_u16);
        outer.set("a", 2_u16);
        let (within, state) = sent(outer.trace());
        assert!(within.sampled && state.as_deref() == Some("a=1"));
        let inner = outer.trace().span("inner", Kind::Client);
        drop(inner);
        drop(outer);
        let (inner, outer) = (kept.try_recv().unwrap(), kept.try_recv().unwrap());
        assert_eq!((inner.parent, outer.id), (Some(outer.id), within.span));
        assert_eq!(outer.parent.unwrap().to_string(), "b7ad6b7169203331");
        assert_eq!((inner.trace, outer.trace), (within.trace, within.trace));
        assert_eq!(outer.attributes, [("a", Value::Int(2))]);

        let trace = tracer.accept(&asked("00"));
        let span = trace.span("outer", Kind::Server);
        assert_eq!(sent(span.trace()).0.header().unwrap(), format!("{PARENT}-00"));
        drop(span);
        assert!(kept.try_recv().is_err());
    }

    #[test]
    fn the_ratio_decides_for_traces_that_begin_here_and_the_next_is_told() {
        for (ratio, wanted) in [(0.0, 0..=0), (0.25, 150..=350), (1.0, 1000..=1000), (f64::NAN, 0..=0)] {
            let (tracer, _kept) = kept(ratio);
            let sampled = (0..1000).filter(|_| sent(&tracer.begin()).0.sampled).count();
            assert!(wanted.contains(&sampled), "{ratio}: {sampled}");
        }
        let (tracer, _kept) = kept(0.0);
        let trace = tracer.begin();
        assert_eq!((sent(&trace).0.trace, sent(&trace).1), (trace.id().unwrap(), None));
        assert!(tracer.begin_recorded().span("repair", Kind::Internal).is_recorded());
    }

    #[test]
    fn a_root_has_no_parent_and_times_that_have_passed_are_kept() {
        let (tracer, mut kept) = kept(1.0);
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let span = tracer.begin().span_since("repair", Kind::Internal, since);
        span.end_at(since + Duration::from_secs(7));
        let ended = kept.try_recv().unwrap();
        assert_eq!((ended.parent, ended.ended - ended.started), (None, Duration::from_secs(7)));
        let span = tracer.begin().span_since("repair", Kind::Internal, since);
        span.end_at(SystemTime::UNIX_EPOCH);
        let ended = kept.try_recv().unwrap();
        assert_eq!(ended.ended, ended.started, "no span ends before it begins");
    }

    #[test]
    fn ids_do_not_repeat() {
        let ids = Ids::default();
        let traces: HashSet<_> = (0..10_000).map(|_| ids.trace()).collect();
        let spans: HashSet<_> = (0..10_000).map(|_| ids.span()).collect();
        assert_eq!((traces.len(), spans.len()), (10_000, 10_000));
    }
}
