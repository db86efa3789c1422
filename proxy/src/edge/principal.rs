//! Who sent a request, where keys are asked for.

use std::sync::Arc;

use crate::edge::refused::Refused;
use crate::keys::Holder;

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Principal {
    holder: Arc<Holder>,
}

impl Principal {
    /// The holder of a key.
    pub(super) fn new(holder: Arc<Holder>) -> Self {
        Self { holder }
    }

    /// Whose key it is: what logs and metrics show.
    pub fn name(&self) -> &Arc<str> {
        &self.holder.name
    }

    /// Whether it may use a model, by its id in lists or by the name that the client gave.
    ///
    /// # Errors
    /// [`Refused::Scope`].
    pub fn may_use(&self, id: &str, name: Option<&str>) -> Result<(), Refused> {
        let models = &self.holder.scopes.models;
        if models.is_empty() || models.iter().any(|model| model == id || Some(model.as_str()) == name) {
            return Ok(());
        }
        Err(Refused::Scope { what: format!("use the model '{id}'") })
    }

    /// Whether it may speak a client dialect.
    ///
    /// # Errors
    /// [`Refused::Scope`].
    pub(super) fn may_speak(&self, dialect: &str) -> Result<(), Refused> {
        let dialects = &self.holder.scopes.dialects;
        if dialects.is_empty() || dialects.iter().any(|known| known == dialect) {
            return Ok(());
        }
        Err(Refused::Scope { what: format!("use this path: it speaks {dialect}") })
    }

    /// Signs a text that counts as this caller's key for sessions until `expires`, seconds of Unix time.
    pub fn sign(&self, text: &str, expires: u64) -> String {
        self.holder.sign(text, expires)
    }
}
