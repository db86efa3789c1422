//! What the gateway counts.

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry,
};

use contract::Capability;

/// Upper bounds of the request histogram, seconds: from a refusal to hours of audio.
const SECONDS: [f64; 12] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];

/// The gateway's metrics. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    audio_seconds: [Counter; Capability::ALL.len()],
    bytes_in: IntCounter,
    bytes_out: IntCounter,
    in_flight: IntGauge,
    /// The routes that were asked for, which are few.
    routes: Arc<RwLock<Vec<Arc<Route>>>>,
}

/// One route: its pattern, and its series.
#[derive(Debug)]
pub(super) struct Route {
    /// The same with and without `/v1`.
    pub(super) pattern: String,
    /// Ended requests, by how they ended; made when first needed.
    requests: [OnceLock<IntCounter>; ENDS.len()],
    seconds: Histogram,
}

/// How requests end, as the metrics say it.
const ENDS: [&str; 6] = ["2xx", "3xx", "4xx", "5xx", "client_gone", "cut"];

/// The place in [`ENDS`] of a request that ended with `status`, which is 499 when the client left before the reply. A good reply
/// that did not go out to its end counts as cut.
fn end(status: u16, complete: bool) -> usize {
    match status {
        200..300 if !complete => 5,
        499 => 4,
        500.. => 3,
        400.. => 2,
        300.. => 1,
        _ => 0,
    }
}

impl Metrics {
    /// Makes them and registers them.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let audio_seconds = CounterVec::new(
            Opts::new("speechstack_gateway_audio_seconds_total", "Seconds of audio heard or spoken"),
            &["capability"],
        )?;
        let body_bytes = IntCounterVec::new(
            Opts::new("speechstack_gateway_body_bytes_total", "Bytes of bodies from and to clients"),
            &["direction"],
        )?;
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new(
                    "speechstack_gateway_requests_total",
                    "Requests that ended, by route and status class",
                ),
                &["route", "status"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new(
                    "speechstack_gateway_request_seconds",
                    "Time from a request's head to the last byte of its reply",
                )
                .buckets(SECONDS.to_vec()),
                &["route"],
            )?,
            audio_seconds: Capability::ALL
                .map(|capability| audio_seconds.with_label_values(&[capability.as_str()])),
            bytes_in: body_bytes.with_label_values(&["in"]),
            bytes_out: body_bytes.with_label_values(&["out"]),
            routes: Arc::default(),
            in_flight: IntGauge::new("speechstack_gateway_in_flight", "Requests in flight")?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(audio_seconds))?;
        registry.register(Box::new(body_bytes))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        Ok(metrics)
    }

    /// Seconds of audio that engines of `capability` heard or spoke.
    pub fn audio_seconds(&self, capability: Capability) -> &Counter {
        &self.audio_seconds[capability as usize]
    }

    /// The route of a pattern. Found without a hash or an allocation but the first time.
    pub(super) fn route(&self, pattern: &str) -> Arc<Route> {
        let known = |routes: &[Arc<Route>]| routes.iter().find(|route| route.pattern == pattern).cloned();
        if let Some(route) = known(&self.routes.read()) {
            return route;
        }
        let mut routes = self.routes.write();
        known(&routes).unwrap_or_else(|| {
            let route = Arc::new(Route {
                pattern: pattern.to_owned(),
                requests: Default::default(),
                seconds: self.seconds.with_label_values(&[pattern]),
            });
            routes.push(Arc::clone(&route));
            route
        })
    }

    /// Counts a request that has ended.
    pub(super) fn ended(&self, route: &Route, status: u16, complete: bool, seconds: f64, bytes: u64) {
        let end = end(status, complete);
        let counter = || self.requests.with_label_values(&[route.pattern.as_str(), ENDS[end]]);
        route.requests[end].get_or_init(counter).inc();
        route.seconds.observe(seconds);
        self.bytes_out.inc_by(bytes);
    }

    pub(super) fn bytes_in(&self) -> IntCounter {
        self.bytes_in.clone()
    }

    pub(super) fn in_flight(&self) -> &IntGauge {
        &self.in_flight
    }
}
