//! A guard's wish for a restart, and the operator's orders.

use serde::{Deserialize, Serialize};

use crate::{Class, class};

/// A restart that a guard wants and asks its operator for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRequest {
    /// The instance to be replaced.
    pub instance: String,
    /// Number of the restart in its row, from 0.
    pub attempt: u32,
    /// Class of the fault.
    #[serde(default, deserialize_with = "class::lenient")]
    pub class: Option<Class>,
    /// What is wanted.
    pub act: Act,
    /// Unix time since which it is wanted, milliseconds.
    pub since_unix_ms: u64,
}

/// How an engine process is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// At once: it cannot serve.
    Restart,
    /// Once nothing runs on it: it serves, badly.
    Recycle,
    /// An act that only a newer version knows.
    #[serde(other)]
    Other,
}

/// What an operator tells a guard: the body of `POST /repair`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairOrder {
    /// What to do.
    pub order: Verb,
    /// The instance that is meant: an order that comes late hits nothing.
    #[serde(default)]
    pub instance: String,
    /// The attempt that is meant.
    #[serde(default)]
    pub attempt: u32,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// How long a [`Verb::Defer`] lasts, seconds; at most 120.
    #[serde(default)]
    pub seconds: u64,
}

/// What an operator can tell a guard to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Do what you asked for.
    Grant,
    /// Do not do it for a while.
    Defer,
    /// Restart though you did not ask.
    Restart,
    /// Forget used-up budgets.
    Reset,
}
