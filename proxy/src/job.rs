//! Engine-neutral units of work.

pub mod chat;
pub mod input;
pub mod known;
pub mod language;
pub mod long;
pub mod plain;
pub mod poison;
pub mod sentence;
pub mod speech;
pub mod voice;
pub mod work;
