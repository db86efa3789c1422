//! Which program runs an engine, by its configuration, and the actuator for it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config;
use crate::guard::heal::actuator::{self, Actuator};
use crate::guard::heal::child::ChildProcess;
use crate::guard::heal::kubelet::Kubelet;
use crate::guard::heal::output::Output;
use crate::guard::heal::{container, unit};
use crate::guard::path::lane::Lane;

/// Who runs an engine.
pub struct Runner {
    /// What restarts the engine, if anything here can.
    pub actuator: Option<Arc<dyn Actuator>>,
    /// Whether the engine is about to be stopped, where that is announced.
    pub draining: watch::Receiver<bool>,
    child: Option<Arc<ChildProcess>>,
}

/// Why an engine cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not start, or what runs it cannot be reached.
    #[error(transparent)]
    Engine(#[from] actuator::Error),
    /// The folder shared with the engine's container cannot be used.
    #[error(transparent)]
    Kubelet(#[from] std::io::Error),
}

impl Runner {
    /// Starts the engine where that is ours to do, and follows it; a child process prints to `output`.
    ///
    /// # Errors
    /// When it does not start, or what runs it cannot be reached.
    pub async fn start(
        engine: &config::Engine,
        repair: &config::Repair,
        lane: &Lane,
        output: Output,
    ) -> Result<Self, Error> {
        let mut runner = Self { actuator: None, draining: watch::channel(false).1, child: None };
        if let Some(settings) = &engine.kubelet {
            let kubelet = Kubelet::start(engine, settings, repair, lane.clone())?;
            runner.draining = kubelet.draining();
            runner.actuator = Some(Arc::new(kubelet));
        } else if let Some(settings) = &engine.container {
            runner.actuator = Some(Arc::new(Box::pin(container::start(engine, settings, repair)).await?));
        } else if let Some(settings) = &engine.unit {
            runner.actuator = Some(Arc::new(Box::pin(unit::start(engine, settings, repair)).await?));
        } else if !engine.command.is_empty() {
            let child = Arc::new(ChildProcess::start(engine, repair, output)?);
            runner.child = Some(child.clone());
            runner.actuator = Some(child);
        }
        Ok(runner)
    }

    /// The child process, which ends with us; containers and units go on.
    pub fn child(&self) -> Option<Arc<ChildProcess>> {
        self.child.clone()
    }
}
