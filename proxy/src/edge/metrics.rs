//! What the gateway counts.

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
    audio_seconds: CounterVec,
    body_bytes: IntCounterVec,
    in_flight: IntGauge,
}

impl Metrics {
    /// Makes them and registers them.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
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
            audio_seconds: CounterVec::new(
                Opts::new("speechstack_gateway_audio_seconds_total", "Seconds of audio heard or spoken"),
                &["capability"],
            )?,
            body_bytes: IntCounterVec::new(
                Opts::new("speechstack_gateway_body_bytes_total", "Bytes of bodies from and to clients"),
                &["direction"],
            )?,
            in_flight: IntGauge::new("speechstack_gateway_in_flight", "Requests in flight")?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.audio_seconds.clone()))?;
        registry.register(Box::new(metrics.body_bytes.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        for capability in Capability::ALL {
            metrics.audio_seconds(capability);
        }
        Ok(metrics)
    }

    /// Seconds of audio that engines of `capability` heard or spoke.
    pub fn audio_seconds(&self, capability: Capability) -> Counter {
        self.audio_seconds.with_label_values(&[capability.as_str()])
    }

    /// Ended requests of a route. `status` is the reply's, or 499 when the client left before it; a good reply that did not
    /// go out to its end counts as cut.
    pub(super) fn requests(&self, route: &str, status: u16, complete: bool) -> IntCounter {
        let class = match status {
            200..300 if !complete => "cut",
            499 => "client_gone",
            500.. => "5xx",
            400.. => "4xx",
            300.. => "3xx",
            _ => "2xx",
        };
        self.requests.with_label_values(&[route, class])
    }

    pub(super) fn seconds(&self, route: &str) -> Histogram {
        self.seconds.with_label_values(&[route])
    }

    pub(super) fn bytes_in(&self) -> IntCounter {
        self.body_bytes.with_label_values(&["in"])
    }

    pub(super) fn bytes_out(&self) -> IntCounter {
        self.body_bytes.with_label_values(&["out"])
    }

    pub(super) fn in_flight(&self) -> &IntGauge {
        &self.in_flight
    }
}
