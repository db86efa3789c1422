//! A real two-node Kubernetes on one machine: started in namespaces of its own, used by tests, ended without leftovers.
//!
//! [`sandbox`] makes the namespaces and, at the end, checks that nothing is left; inside them [`boot`] starts the
//! [`control_plane`] and the [`node`]s on a small [`network`], and loads the [`images`]. Node a shares the network of
//! the control plane and of the tests, node b is a veth pair away. Tests enter by [`Cluster::current`], and may serve it metrics by an [`adapter`]. A bare cluster
//! is etcd and an API server alone, which keeps an [`audit`] of what the operator asks.

pub mod adapter;
pub mod audit;
pub mod boot;
pub mod control_plane;
pub mod daemon;
pub mod dump;
pub mod images;
pub mod kubectl;
pub mod layout;
pub mod network;
pub mod node;
pub mod pki;
pub mod sandbox;
pub mod scenario;
pub mod storage;
pub mod stuck;
pub mod suite;
mod turn;
pub mod wait;

use anyhow::{Context, Result, bail};
use kube::Client;

use layout::Layout;
use node::Node;
use turn::Turn;

/// Set for everything that runs inside a cluster; its value is the cluster's name.
pub const INSIDE: &str = "SPEECHSTACK_CLUSTER";

/// Set as well where only etcd and the API server run.
pub const BARE: &str = "SPEECHSTACK_CLUSTER_BARE";

/// The cluster that this process runs in.
#[derive(Clone)]
pub struct Cluster {
    /// A client with the administrator's rights.
    pub client: Client,
    /// The node that shares the network of the control plane and of the tests.
    pub a: Node,
    /// The other node.
    pub b: Node,
    layout: Layout,
    turn: Turn,
}

impl Cluster {
    /// The cluster around this process.
    ///
    /// # Errors
    /// When there is none: the process was not started by `cluster run`.
    pub fn current() -> Result<Self> {
        let Ok(name) = std::env::var(INSIDE) else {
            bail!("no cluster around this process: start it by `cluster run --`");
        };
        Self::of(Layout::new(&name)?)
    }

    pub(crate) fn of(layout: Layout) -> Result<Self> {
        let client =
            control_plane::admin_client(&layout).context("unable to make the administrator's client")?;
        let (a, b) =
            (Node::new(&layout, &node::A, client.clone()), Node::new(&layout, &node::B, client.clone()));
        Ok(Self { client, a, b, layout, turn: Turn::default() })
    }

    /// The same cluster, for the test whose turn this is.
    fn in_turn(self, turn: Turn) -> Self {
        Self { turn, ..self }
    }

    /// Where this cluster keeps its files.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Both nodes.
    pub fn nodes(&self) -> [&Node; 2] {
        [&self.a, &self.b]
    }
}
