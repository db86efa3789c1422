//! What acts on an engine: the control loop, probes, actuators, the link to the operator, incidents, the admin port.

pub(super) mod admin;
pub mod child;
pub mod contact;
pub mod control;
pub mod golden;
pub mod gpu;
pub mod identity;
pub mod incident;
pub mod kubelet;
pub mod metrics;
pub mod output;
pub mod prober;
pub mod record;
pub mod snapshot;
pub mod vitals;
