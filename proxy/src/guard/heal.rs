//! What acts on an engine: the control loop, probes, actuators (child process, container, unit, kubelet), the link to the operator, incidents, the admin port.

pub mod actuator;
pub(super) mod admin;
pub mod child;
pub mod contact;
pub mod container;
pub mod control;
pub mod golden;
pub mod gpu;
pub mod identity;
pub mod incident;
pub mod kubelet;
pub mod metrics;
pub mod model_cache;
pub mod output;
pub mod prober;
pub mod process_record;
pub mod runner;
pub mod snapshot;
pub mod supervised;
mod traced;
pub mod unit;
pub mod vitals;
