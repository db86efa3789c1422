//! The configuration in force: replaced whole while the process runs.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::Config;

/// The configuration in force. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Current {
    config: Arc<RwLock<Arc<Config>>>,
}

impl Current {
    /// Starts with `config`.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(RwLock::new(Arc::new(config))) }
    }

    /// What is in force now; hold on to it for as long as one decision takes.
    pub fn get(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    /// Puts another one in force; returns the one before.
    pub fn replace(&self, config: Config) -> Arc<Config> {
        std::mem::replace(&mut *self.config.write(), Arc::new(config))
    }
}
