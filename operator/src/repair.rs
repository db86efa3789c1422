//! Repair above the container: budgets, the ladder, and the record that makes every act happen once.
//!
//! ```text
//! guard's report -> view -> decide -> record in status -> act -> report ...
//!                   pure    pure      IO                  IO
//! ```
//! A guard's change is looked at at once; a timer serves only rules that depend on time.

use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::Client;
use kube::runtime::reflector::Store;
use speechstack_crds::SpeechStack;
use tokio_util::sync::CancellationToken;
use trace::Tracer;

use crate::guards::Guards;
use crate::pods::Pods;
use crate::preset::Presets;

mod budget;
mod decide;
mod driver;
mod events;
mod execute;
mod history;
mod ladder;
mod node;
mod plan;
mod traced;
mod tracked;
mod view;
mod volume;

pub use events::Metrics;
pub use view::RESET;

/// What repair works with.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// All stacks.
    pub stacks: Store<SpeechStack>,
    /// All engine pods.
    pub pods: Pods,
    /// The only namespace of stacks; all when unset.
    pub namespace: Option<String>,
    /// All nodes; may stay empty where nodes cannot be read.
    pub nodes: Store<Node>,
    /// All volumes; empty unless engines may move.
    pub volumes: Store<PersistentVolume>,
    /// What the guards say.
    pub guards: Guards,
    /// What is known of engine containers.
    pub presets: Presets,
    /// Repairs of pods of all stacks within ten minutes.
    pub per_cluster: usize,
    /// Whether nodes may be labelled and tainted.
    pub node_escalation: bool,
    /// Counters.
    pub metrics: Metrics,
    /// Where the spans of repairs go.
    pub tracer: Tracer,
}

/// Repairs until cancelled. Only the leader may run it.
pub async fn run(context: Context, cancel: CancellationToken) {
    driver::Driver::new(context, cancel).run().await;
}

#[cfg(test)]
mod tests;
