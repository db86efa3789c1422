//! The configuration in force: replaced whole while the process runs.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Config;

/// The configuration in force. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Current {
    config: Arc<watch::Sender<Arc<Config>>>,
}

impl Current {
    /// Starts with `config`.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(watch::Sender::new(Arc::new(config))) }
    }

    /// What is in force now; hold on to it for as long as one decision takes.
    pub fn get(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Puts another one in force.
    pub fn replace(&self, config: Config) {
        self.config.send_replace(Arc::new(config));
    }

    /// Every replacement from now on.
    pub fn changes(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }
}
