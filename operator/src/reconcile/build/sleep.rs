//! Whether an engine that is not used has no pods.

use std::time::Duration;

use jiff::Timestamp;

use super::metadata;
use crate::reconcile::observe::Observed;
use crate::reconcile::validate::{ValidEngine, ValidStack};

/// Whether the engine sleeps: it was not asked for during its time, and all its pods have been proven for as long, so that none is
/// stopped in the middle of a start that somebody waits for. Without a gateway's word it stays as it is.
pub fn sleeps(stack: &ValidStack, engine: &ValidEngine, observed: &Observed) -> bool {
    let Some(idle) = &engine.spec.idle else { return false };
    let Some(live) = observed.workloads.get(&metadata::of_engine(stack, engine)) else { return false };
    let stopped = live.replicas == 0;
    let after = idle.after.0;
    match observed.unused.get(&engine.spec.name) {
        None => stopped,
        // A new gateway, which knows of no use before it, wakes none.
        Some(unused) if stopped => unused.asked.is_none_or(|asked| asked >= after),
        Some(unused) => unused.since >= after && settled(engine, observed, after),
    }
}

fn settled(engine: &ValidEngine, observed: &Observed, after: Duration) -> bool {
    let pods =
        observed.pods.iter().filter(|(pod, _)| *pod.revision.engine == *engine.spec.name && !pod.ended);
    let mut any = false;
    for (pod, seen) in pods {
        any = true;
        let proven = seen.as_ref().filter(|seen| seen.connected && seen.report.is_verified());
        let long = |since: Timestamp| observed.now.duration_since(since).unsigned_abs() >= after;
        if pod.deleted.is_some() || !proven.is_some_and(|seen| long(seen.since)) {
            return false;
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::State;

    use super::*;
    use crate::guards::{Report, Seen};
    use crate::pods::EnginePod;
    use crate::reconcile::build::{build, tests::live};
    use crate::reconcile::testing;
    use crate::uses::Unused;

    const SPEC: &str = "stt: [{name: ears, preset: reference, replicas: 2, idle: {after: 10m}}]";

    /// Replicas of the engine, of which one pod has been in that state for so long, unused for so long, at a number of replicas.
    fn replicas(unused: Option<u64>, state: State, since: i64, now: i32) -> Option<i32> {
        let stack = testing::valid(SPEC);
        let mut observed = testing::observed();
        observed.now = Timestamp::from_second(100_000).unwrap();
        let mut running = live(&build(&stack, &observed).engines[0]);
        running.replicas = now;
        observed.workloads.insert("demo-ears".into(), running);
        let of = |seconds| (Duration::from_secs(seconds), Some(Duration::from_secs(seconds)));
        let unused = unused.map(of).map(|(since, asked)| Unused { since, asked });
        observed.unused.extend(unused.map(|unused| ("ears".to_owned(), unused)));
        if now > 0 {
            let report = Report { state, verdict: contract::VerdictName::Serving, ..Report::default() };
            let since = Timestamp::from_second(100_000 - since).unwrap();
            let seen = Seen { report, since, ailing: None, connected: true };
            let pod: EnginePod = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "demo-ears-0", "uid": "u", "labels": {(crate::names::label::ENGINE): "ears"}},
            }))
            .unwrap();
            observed.pods.push((Arc::new(pod), Some(seen)));
        }
        build(&stack, &observed).engines[0].replicas
    }

    #[test]
    fn an_engine_that_is_not_used_sleeps_until_it_is_asked_for() {
        assert_eq!(replicas(Some(599), State::Healthy, 5000, 2), Some(2), "used lately");
        assert_eq!(replicas(Some(600), State::Healthy, 5000, 2), Some(0));
        assert_eq!(replicas(Some(600), State::Healthy, 0, 0), Some(0), "it sleeps on");
        assert_eq!(replicas(Some(0), State::Healthy, 0, 0), Some(2), "asked for");
    }

    #[test]
    fn a_start_is_not_cut_short_and_an_unknown_use_changes_nothing() {
        assert_eq!(replicas(Some(5000), State::Starting, 4000, 2), Some(2), "a long start");
        assert_eq!(replicas(Some(5000), State::Healthy, 599, 2), Some(2), "proven lately");
        assert_eq!(replicas(None, State::Healthy, 5000, 2), Some(2));
        assert_eq!(replicas(None, State::Healthy, 5000, 0), Some(0));
        let first = build(&testing::valid(SPEC), &testing::observed());
        assert_eq!(first.engines[0].replicas, Some(2), "a new engine starts");
    }
}
