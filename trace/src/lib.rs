//! Traces: where a request is in its trace, the spans of what was done for it, and their export over OTLP.
//!
//! ```text
//! headers -> Tracer::accept -> Trace -> Trace::span -> Span -> Trace of what is done within it -> headers of the next call
//!                                                       | dropped
//!                                                       v
//!                                         queue -> batch -> POST /v1/traces
//! ```
//!
//! Without an export a trace is only passed on; without a `traceparent` there is then none, and nothing is allocated.

mod context;
mod endpoint;
mod export;
mod otlp;
mod record;
mod tracer;

pub use context::{Context, SpanId, TRACEPARENT, TRACESTATE, TraceId};
pub use endpoint::{Endpoint, Error, HeadersFile};
pub use export::Settings;
pub use record::{Kind, Value};
pub use tracer::{Span, Trace, Tracer};
