//! API keys: their text, the file that has their hashes, and the set that is in force.

mod command;
mod ephemeral;
mod file;
mod key;
mod set;
mod store;
#[cfg(test)]
pub mod testing;
mod token;

pub use command::{Order, run};
pub use file::{Error, NewKey, Scopes};
pub use key::masked;
pub use set::{Holder, Refused};
pub use store::{Metrics, Store};
