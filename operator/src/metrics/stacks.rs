//! Metrics with a series for each stack and engine. They are kept as numbers and written as text when they are asked for: a
//! registry keeps labels and descriptions of every series, and copies all of them for each scrape.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::RwLock;
use speechstack_crds::SpeechStackStatus;
use speechstack_crds::condition::condition_type;

/// Conditions that alerts and dashboards ask for; each is a series for each stack.
const CONDITIONS: [&str; 4] = [
    condition_type::READY,
    condition_type::DEGRADED,
    condition_type::PREFLIGHT_PASSED,
    condition_type::UPDATE_PENDING,
];
/// States that replicas are counted in.
const STATES: [&str; 3] = ["desired", "ready", "verified"];

/// What statuses say, by namespace and name of the stack. Cloning shares it.
#[derive(Clone, Default)]
pub struct Stacks(Arc<RwLock<ByStack>>);

type ByStack = BTreeMap<(Box<str>, Box<str>), Series>;
/// Gives the lines of one stack, each by its further labels and its value.
type Lines<'a> = &'a dyn Fn(&Series, &mut dyn FnMut(&str, i64));

/// What the status of one stack says.
struct Series {
    engines: Box<[(Box<str>, [i32; 3])]>,
    stopped: usize,
    conditions: [Option<bool>; 4],
}

impl Stacks {
    /// Takes in a status.
    pub fn set(&self, namespace: &str, stack: &str, status: &SpeechStackStatus) {
        let engines = status.engines.iter();
        let is_true = |kind| {
            let found = status.conditions.iter().find(|one| one.type_ == kind);
            found.map(|one| one.status == "True")
        };
        let series = Series {
            engines: engines
                .map(|one| (one.name.as_str().into(), [one.desired, one.ready, one.verified]))
                .collect(),
            stopped: status.repair.as_ref().map_or(0, |repair| repair.stopped.len()),
            conditions: CONDITIONS.map(is_true),
        };
        self.0.write().insert((namespace.into(), stack.into()), series);
    }

    /// A stack is gone.
    pub fn forget(&self, namespace: &str, stack: &str) {
        self.0.write().remove(&(namespace.into(), stack.into()));
    }

    /// Appends all series in Prometheus' text format. Names of namespaces, stacks and engines have nothing to be escaped.
    pub fn write(&self, text: &mut String) {
        let stacks = self.0.read();
        let mut family = |name: &str, help: &str, each: Lines<'_>| {
            let mut named = false;
            for ((namespace, stack), series) in &*stacks {
                each(series, &mut |labels, value| {
                    // A string takes whatever is written to it.
                    if !std::mem::replace(&mut named, true) {
                        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
                    }
                    // `namespace` is what a scrape calls the operator's own.
                    let _ = writeln!(
                        text,
                        "{name}{{stack_namespace=\"{namespace}\",stack=\"{stack}\"{labels}}} {value}"
                    );
                });
            }
        };
        family(
            "speechstack_replicas",
            "Engine replicas by state: desired, ready or verified.",
            &|series, line| {
                for (engine, counts) in &series.engines {
                    for (state, count) in STATES.iter().zip(counts) {
                        line(&format!(",engine=\"{engine}\",state=\"{state}\""), i64::from(*count));
                    }
                }
            },
        );
        family("speechstack_repair_suspended", "Engines whose repair stopped.", &|series, line| {
            line("", i64::try_from(series.stopped).unwrap_or(i64::MAX));
        });
        family("speechstack_condition", "Whether a condition of a stack is true.", &|series, line| {
            for (condition, holds) in CONDITIONS.iter().zip(series.conditions) {
                let Some(holds) = holds else { continue };
                line(&format!(",condition=\"{condition}\""), i64::from(holds));
            }
        });
    }
}
