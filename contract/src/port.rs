//! Ports inside the pods that the operator makes.

/// Guard: traffic for its engine.
pub const GUARD: u16 = 9400;
/// Guard: state, metrics, probes, repair orders.
pub const GUARD_ADMIN: u16 = 9401;
/// Gateway: the public API.
pub const GATEWAY: u16 = 8080;
/// Gateway: the public API over HTTPS.
pub const GATEWAY_TLS: u16 = 8443;
/// Gateway: state, metrics, probes.
pub const GATEWAY_ADMIN: u16 = 9090;
