//! Whether an engine's pod template is applied now: what the user did not ask for waits.

use jiff::Timestamp;
use speechstack_crds::{UpdateWindow, Updates};

use crate::owned::Owned;
use crate::workloads::LiveWorkload;

/// What is desired of a workload, as far as it decides.
#[derive(Clone, Copy, Debug)]
pub struct Desired<'a> {
    /// Its kind.
    pub kind: Owned,
    /// Fingerprint of what the user wrote that renders the template.
    pub inputs: &'a str,
    /// Fingerprint of the template.
    pub revision: &'a str,
    /// Whether it is to have no pods.
    pub stops: bool,
}

/// What is done with a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// It is applied.
    Apply,
    /// Its new template comes from the operator alone and waits for the user's next change of the pods, or for the stack's
    /// window. The number of replicas does not wait.
    Pending,
    /// Its new template comes from the operator alone and is applied as soon as the fleet's budget has a place.
    Turn,
}

/// When a stack takes what its user did not ask for.
#[derive(Clone, Copy, Debug)]
pub struct When<'a> {
    /// Whether it does at all.
    pub updates: Updates,
    /// The times in which it does; always when unset.
    pub window: Option<&'a UpdateWindow>,
    /// Now.
    pub now: Timestamp,
}

/// Decides for one engine. Where no pod runs, nothing is disturbed.
#[must_use]
pub fn decide(when: When<'_>, live: Option<&LiveWorkload>, desired: Desired<'_>) -> Update {
    let Some(live) = live else { return Update::Apply };
    let is_new = live.revision.as_deref() != Some(desired.revision) || live.kind != desired.kind;
    // A workload of an operator that did not note it: the note is made now, and the next change is seen by it.
    let asked_for = live.inputs.as_ref().is_some_and(|inputs| inputs != desired.inputs);
    if !is_new || asked_for || live.replicas == 0 || desired.stops {
        return Update::Apply;
    }
    match when.updates {
        Updates::Automatic if when.window.is_none_or(|window| window.is_open(when.now)) => Update::Turn,
        Updates::Automatic | Updates::OnSpecChange => Update::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::build::tests::{live, workload};
    use crate::reconcile::testing::MINIMAL;

    fn at_all_times(updates: Updates) -> When<'static> {
        When { updates, window: None, now: Timestamp::UNIX_EPOCH }
    }

    fn decided(updates: Updates, change: impl Fn(&mut LiveWorkload), spec: &str) -> Update {
        let mut live = live(&workload(MINIMAL));
        change(&mut live);
        decide(at_all_times(updates), Some(&live), workload(spec).desired())
    }

    #[test]
    fn a_template_of_the_operator_waits_for_the_users_next_change_of_the_pods() {
        let on_change = Updates::OnSpecChange;
        let older = |live: &mut LiveWorkload| live.revision = Some("older".into());
        assert_eq!(decided(on_change, older, MINIMAL), Update::Pending);
        assert_eq!(decided(on_change, |_| {}, MINIMAL), Update::Apply);
        assert_eq!(decided(Updates::Automatic, older, MINIMAL), Update::Turn);
        assert_eq!(decided(Updates::Automatic, |_| {}, MINIMAL), Update::Apply);
        assert_eq!(decide(at_all_times(on_change), None, workload(MINIMAL).desired()), Update::Apply);
        let changed = MINIMAL.replace("name: ears,", "name: ears, shmSize: 9Gi,");
        assert_eq!(decided(on_change, older, &changed), Update::Apply);
        let unnoted = |live: &mut LiveWorkload| {
            older(live);
            live.inputs = None;
        };
        assert_eq!(decided(on_change, unnoted, &changed), Update::Pending);
        let stopped = |live: &mut LiveWorkload| {
            older(live);
            live.replicas = 0;
        };
        assert_eq!(decided(on_change, stopped, MINIMAL), Update::Apply);
        assert_eq!(decided(on_change, older, &format!("{MINIMAL}\nsuspend: true")), Update::Apply);
    }

    #[test]
    fn an_automatic_update_waits_for_the_window_and_a_users_change_does_not() {
        let window: UpdateWindow =
            serde_json::from_value(serde_json::json!({"start": "02:00", "duration": "2h"})).unwrap();
        let mut live = live(&workload(MINIMAL));
        live.revision = Some("older".into());
        let at = |time: &str, spec: &str| {
            let when = When {
                updates: Updates::Automatic,
                window: Some(&window),
                now: format!("2026-11-02T{time}:00Z").parse().unwrap(),
            };
            decide(when, Some(&live), workload(spec).desired())
        };
        assert_eq!(at("03:00", MINIMAL), Update::Turn);
        assert_eq!(at("04:00", MINIMAL), Update::Pending);
        let changed = MINIMAL.replace("name: ears,", "name: ears, shmSize: 9Gi,");
        assert_eq!(at("04:00", &changed), Update::Apply);
    }

    #[test]
    fn what_does_not_render_the_pods_never_takes_a_waiting_template_with_it() {
        let older = |live: &mut LiveWorkload| live.revision = Some("older".into());
        for change in ["replicas: 3", "models: [big]", "startup: {timeout: 1h}", "language: de-DE"] {
            let spec = MINIMAL.replace("name: ears,", &format!("name: ears, {change},"));
            assert_eq!(decided(Updates::OnSpecChange, older, &spec), Update::Pending, "{change}");
        }
        for change in [
            "gateway: {replicas: 3}",
            "repair: {hold: true}",
            "deepProbe: {interval: 20s}",
            "guard: {laneJobs: 2}",
        ] {
            let spec = format!("{MINIMAL}\n{change}");
            assert_eq!(decided(Updates::OnSpecChange, older, &spec), Update::Pending, "{change}");
        }
    }
}
