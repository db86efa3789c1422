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
//! | `args`, `app`, `logging`, `admin`, `lease`, `panics`, `metrics`, `names`, `fingerprint` | the process |
//! | `watch`, `owned`, `owners`, `pods`, `workloads` | what the cluster says, kept in memory |
//! | `preset` | what is known of engine containers |
//! | `reconcile` | the five steps |
//! | `cli` | what people ask of stacks from a terminal |
//! | `guards`, `repair` | the guards' words, and repair above the container |
//! | `uses` | when engines that may sleep were last used, as gateways say |
//!
//! What the code asks of the API server, and so what its role must grant:
//!
//! | resource | verbs |
//! |---|---|
//! | speechstacks | get list watch |
//! | speechstacks/status | patch |
//! | deployments, statefulsets, services, configmaps, serviceaccounts, poddisruptionbudgets, networkpolicies, ingresses, horizontalpodautoscalers, roles, rolebindings, httproutes, podmonitors, prometheusrules | get list watch create patch delete |
//! | jobs | get list watch create patch delete |
//! | replicasets | list watch |
//! | serviceaccounts/token of its own account, in its own namespace | create |
//! | persistentvolumeclaims | get list watch create patch |
//! | endpointslices | get list watch (to give them to gateways) |
//! | pods | list watch |
//! | secrets, unless told otherwise | get |
//! | events, of pods whose volumes wait | list |
//! | events (events.k8s.io) | create patch |
//! | leases, in the lease's namespace | get create update |
//! | nodes (cluster) | list watch |

mod admin;
pub mod app;
pub mod args;
pub mod cli;
mod fingerprint;
#[cfg(test)]
mod footprint;
mod guards;
mod lease;
pub mod logging;
mod metrics;
mod names;
mod owned;
mod owners;
mod panics;
mod pods;
pub mod preset;
mod reconcile;
mod repair;
mod uses;
mod watch;
mod workloads;
