//! The operator: turns a SpeechStack into engines with a guard each and a gateway in front, and keeps them serving.
//!
//! ```text
//! desired   SpeechStack -> observe -> validate -> build -> apply -> status      reconcile.rs
//!           (watch)        IO         pure        pure     IO       pure + one patch
//!
//! healing   guard's stream -> request -> decide -> record -> act                repair.rs
//!           guards.rs IO                 pure      IO        IO
//! ```
//!
//! | module | part |
//! |---|---|
//! | [`args`], [`app`], [`logging`], [`admin`], [`lease`], [`metrics`] | the process |
//! | [`watch`], [`owned`], [`pods`] | what the cluster says, kept in memory |
//! | [`reconcile`] | the five steps |
//! | [`guards`], [`repair`] | the guards' words, and repair above the container |

pub mod admin;
pub mod app;
pub mod args;
pub mod guards;
pub mod lease;
pub mod logging;
pub mod metrics;
pub mod owned;
pub mod pods;
pub mod reconcile;
pub mod repair;
pub mod watch;
