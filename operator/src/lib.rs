//! The operator: turns a SpeechStack into engines with a guard each and a gateway in front, and keeps them serving.
//!
//! ```text
//! desired   SpeechStack -> observe -> validate -> build -> apply -> status      reconcile.rs
//!           (watch)        IO         pure        pure     IO       pure + one patch
//!
//! healing   guard's stream -> request -> decide -> record -> act                repair.rs
//!           guards.rs IO                 pure      IO        IO
//! ```

pub mod guards;
pub mod repair;
