//! Whole-stack tests: the real binaries, real speech, live faults.
//!
//! [`stack::Stack`] starts `speechstack-proxy standalone` with its engines, [`load::Load`] keeps clients busy on it,
//! [`watch::Watch`] writes down what the stack says of itself, and [`fault::play`] arms one fault and judges what followed.

pub mod audio;
pub mod barge;
pub mod binaries;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod deployed;
pub mod fault;
pub mod load;
pub mod ports;
pub mod processes;
pub mod report;
pub mod session;
pub mod slow;
pub mod stack;
pub mod watch;
pub mod websocket;
pub mod words;
