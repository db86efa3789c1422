//! What acts on an engine: the control loop, probes, actuators, the link to the operator, incidents, the admin port.

pub mod actuator;
pub(super) mod admin;
pub mod child;
pub mod control;
pub mod golden;
pub mod identity;
pub mod incident;
pub mod kubelet;
pub mod metrics;
pub mod operator;
pub mod prober;
pub mod snapshot;
