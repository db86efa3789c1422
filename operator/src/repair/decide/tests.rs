//! Tests of decisions: examples of each rule, and a simulated cluster for what must hold in every order of events.

use speechstack_crds::{Escalation, Repair};

use super::super::node::NodeView;
use super::super::plan::Act;
use super::*;
use contract::{Act as Wanted, Class, RepairRequest, State};

use crate::guards::Report;

mod nodes;
mod simulation;

const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

fn word<T: serde::de::DeserializeOwned>(word: &str) -> T {
    serde_json::from_value(word.into()).unwrap()
}

fn seen(instance: &str, state: &str, verdict: &str, ailing: Option<Timestamp>) -> Seen {
    let report = Report {
        instance: instance.into(),
        state: word(state),
        verdict: word(verdict),
        class: (verdict == "wedged").then_some(Class::Sticky),
        restarts: 0,
        ..Report::default()
    };
    Seen { report, since: at(0), ailing, connected: true }
}

fn pod(uid: &str, node: &str, seen: Seen) -> PodView {
    PodView {
        name: format!("pod-{uid}"),
        uid: uid.into(),
        address: Some("10.0.0.1".parse().unwrap()),
        node: Some(node.into()),
        attachable: None,
        template: Some("t1".into()),
        deleting: false,
        kubelet_acts: false,
        running_since: None,
        scheduled: Some(at(-3600)),
        guard: Some(seen),
    }
}

fn healthy(uid: &str) -> PodView {
    pod(uid, "n1", seen(&format!("{uid}/0"), "healthy", "serving", None))
}

fn asking(uid: &str, instance: &str, attempt: u32, ailing: i64) -> PodView {
    let mut seen = seen(instance, "wedged", "wedged", Some(at(ailing)));
    seen.report.repair = Some(Box::new(RepairRequest {
        instance: instance.into(),
        attempt,
        class: Some(Class::Sticky),
        act: Wanted::Restart,
        since_unix_ms: 0,
    }));
    pod(uid, "n1", seen)
}

fn stack(pods: Vec<PodView>) -> StackView {
    let node = |name: &str| NodeView { name: name.into(), eligible: true, foreign: false };
    StackView {
        namespace: "ns".into(),
        name: "s".into(),
        spec: Repair::default(),
        suspended: false,
        reset: None,
        node_escalation: true,
        engines: vec![EngineView {
            name: "e".into(),
            desired: pods.len(),
            startup: Duration::from_secs(60),
            pods,
            nodes: vec![node("n1"), node("n2")],
        }],
    }
}

fn record(pod: &PodView, rung: Rung, ordered: i64, outcome: Outcome) -> RepairRecord {
    RepairRecord {
        engine: "e".into(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        node: pod.node.clone(),
        template: pod.template.clone(),
        instance: format!("{}/{ordered}", pod.uid),
        rung,
        class: Some(Class::Sticky.to_string()),
        attempt: 0,
        ordered: MicroTime(at(ordered)),
        outcome,
        ended: (outcome != Outcome::Pending).then(|| MicroTime(at(ordered + 5))),
    }
}

fn status(records: Vec<RepairRecord>) -> RepairStatus {
    RepairStatus { total: 0, records, ..RepairStatus::default() }
}

fn plan(stack: &StackView, status: &RepairStatus, second: i64) -> Plan {
    decide(stack, status, &[], &Cluster::default(), at(second))
}

fn ordered_rungs(plan: &Plan) -> Vec<Rung> {
    let rung = |news: &News| match news {
        News::Ordered(record) => Some(record.rung),
        _ => None,
    };
    plan.news.iter().filter_map(rung).collect()
}

fn held(plan: &Plan) -> Vec<Held> {
    plan.deferrals.iter().map(|deferral| deferral.held).collect()
}

#[test]
fn a_request_is_recorded_and_granted() {
    let stack = stack(vec![asking("a", "a/0", 2, -1)]);
    let plan = plan(&stack, &RepairStatus::default(), 0);
    assert_eq!(ordered_rungs(&plan), [Rung::Restart]);
    assert_eq!(plan.status.total, 1);
    let [Act::Grant { key, .. }] = plan.acts.as_slice() else { panic!("{:?}", plan.acts) };
    assert_eq!((key.instance.as_str(), key.attempt), ("a/0", 2));
}

#[test]
fn a_successor_repeats_the_same_act_and_orders_no_other() {
    let stack = stack(vec![asking("a", "a/0", 0, -1)]);
    let first = plan(&stack, &RepairStatus::default(), 0);
    let again = plan(&stack, &first.status, 3);
    assert_eq!(again.status, first.status);
    assert_eq!(again.acts, first.acts);
}

#[test]
fn health_settles_a_restart_and_wedging_again_fails_it() {
    let before = plan(&stack(vec![asking("a", "a/0", 0, -1)]), &RepairStatus::default(), 0).status;
    let well = pod("a", "n1", seen("a/1", "probation", "serving", None));
    let recovered = plan(&stack(vec![well]), &before, 4);
    assert_eq!(recovered.status.records[0].outcome, Outcome::Recovered);
    assert!(matches!(&recovered.news[..], [News::Settled(_)]));
    let failed = plan(&stack(vec![asking("a", "a/1", 1, -1)]), &before, 20);
    assert_eq!(failed.status.records[0].outcome, Outcome::Failed);
    assert_eq!(ordered_rungs(&failed), [Rung::Restart], "the next of the row");
    let gone = plan(&stack(vec![]), &before, 4);
    assert_eq!(gone.status.records[0].outcome, Outcome::Failed);
    let late = plan(&stack(vec![pod("a", "n1", seen("a/1", "starting", "pending", None))]), &before, 661);
    assert_eq!(late.status.records[0].outcome, Outcome::Failed);
    let by_itself = plan(&stack(vec![pod("a", "n1", seen("a/0", "healthy", "serving", None))]), &before, 31);
    assert_eq!(by_itself.status.records[0].outcome, Outcome::Withdrawn);
}

#[test]
fn hold_and_policy_defer_and_withdraw_what_was_not_done() {
    let mut stack = stack(vec![asking("a", "a/0", 0, -1)]);
    let before = plan(&stack, &RepairStatus::default(), 0).status;
    stack.spec.hold = true;
    let held_now = plan(&stack, &RepairStatus::default(), 0);
    assert_eq!((held(&held_now), held_now.acts.len()), (vec![Held::Hold], 0));
    assert_eq!(plan(&stack, &before, 1).acts.len(), 0);
    assert_eq!(plan(&stack, &before, 31).status.records[0].outcome, Outcome::Withdrawn);
    stack.spec.hold = false;
    for policy in [Policy::Observe, Policy::Eject] {
        stack.spec.policy = policy;
        let plan = plan(&stack, &RepairStatus::default(), 0);
        assert_eq!((held(&plan), plan.acts.len()), (vec![Held::Policy], 0));
    }
}

#[test]
fn the_kubelet_goes_first() {
    let mut pod = asking("a", "a/0", 0, -1);
    pod.kubelet_acts = true;
    assert_eq!(held(&plan(&stack(vec![pod.clone()]), &RepairStatus::default(), 0)), [Held::Kubelet]);
    pod.kubelet_acts = false;
    pod.deleting = true;
    let plan = plan(&stack(vec![pod]), &RepairStatus::default(), 0);
    assert!(plan.acts.is_empty() && plan.deferrals.is_empty());
}

#[test]
fn what_does_not_serve_waits_for_no_other_and_what_serves_for_a_quarter() {
    let mut pods: Vec<_> = (0..8).map(|n| healthy(&format!("h{n}"))).collect();
    // Two minutes apart: not correlated.
    let wedged = |n: u32| asking(&format!("w{n}"), &format!("w{n}/0"), 0, -120 * i64::from(n) - 1);
    pods.extend((0..4).map(wedged));
    let all = plan(&stack(pods.clone()), &RepairStatus::default(), 0);
    assert_eq!(
        ordered_rungs(&all).len(),
        4,
        "a start of half an hour would keep the last one out for as long"
    );
    assert_eq!(all.status.records[0].pod_uid, "w3", "the one that waits longest");
    for pod in &mut pods[..1] {
        let seen = pod.guard.as_mut().unwrap();
        seen.report.repair = Some(Box::new(RepairRequest {
            instance: seen.report.instance.clone(),
            attempt: 0,
            class: None,
            act: Wanted::Recycle,
            since_unix_ms: 0,
        }));
    }
    assert_eq!(held(&plan(&stack(pods), &all.status, 1)), [Held::Parallel], "a slow one has time");
}

#[test]
fn correlated_wedges_go_one_by_one() {
    let pods = |first: PodView| {
        let mut pods: Vec<_> = (0..3).map(|n| healthy(&format!("h{n}"))).collect();
        pods.extend([first, asking("b", "b/0", 0, -9), asking("c", "c/0", 0, -8)]);
        let mut stack = stack(pods);
        stack.spec.container_restarts.max_parallel =
            k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("100%".into());
        stack
    };
    let first = plan(&pods(asking("a", "a/0", 0, -10)), &RepairStatus::default(), 0);
    assert_eq!(ordered_rungs(&first).len(), 1);
    assert_eq!(held(&first), [Held::Correlated, Held::Correlated]);
    assert_eq!(first.status.correlated, ["e"]);
    assert!(first.news.contains(&News::Correlated("e".into())));
    // It wedges again: it goes on first.
    let again = plan(&pods(asking("a", "a/1", 1, -10)), &first.status, 15);
    assert_eq!(again.status.records.last().unwrap().pod_uid, "a");
    assert_eq!(ordered_rungs(&again).len(), 1);
    // It is verified: the next one.
    let well = pod("a", "n1", seen("a/1", "probation", "serving", None));
    let next = plan(&pods(well), &first.status, 15);
    assert_eq!(next.status.records.last().unwrap().pod_uid, "b");
    assert_eq!(ordered_rungs(&next).len(), 1);
}

#[test]
fn wedges_far_apart_are_not_correlated() {
    let stack = stack(vec![asking("a", "a/0", 0, -100), asking("b", "b/0", 0, -1), healthy("h")]);
    assert!(plan(&stack, &RepairStatus::default(), 0).status.correlated.is_empty());
}

#[test]
fn wedges_of_one_template_alone_stop_its_repair() {
    let old = PodView { template: Some("old".into()), ..healthy("h") };
    let wedged = [asking("a", "a/9", 0, -300), asking("b", "b/0", 0, -1)];
    let done = |uid: &str, ordered| record(&asking(uid, "", 0, 0), Rung::Restart, ordered, Outcome::Failed);
    let mut pods = wedged.to_vec();
    pods.push(old.clone());
    let one = plan(&stack(pods.clone()), &status(vec![done("a", -200)]), 0);
    assert!(one.status.stopped.is_empty());
    let two = plan(&stack(pods), &status(vec![done("a", -200), done("b", -100)]), 0);
    assert_eq!(two.status.stopped[0].reason, reason::ROLLOUT_SUSPECT);
    assert!(two.acts.is_empty());
    let same = PodView { template: Some("t1".into()), ..old };
    let all_new = [wedged.to_vec(), vec![same]].concat();
    let plan = plan(&stack(all_new), &status(vec![done("a", -200), done("b", -100)]), 0);
    assert!(plan.status.stopped.is_empty(), "no other template to compare with");
}

/// A pod after its burst of restarts in vain.
fn exhausted_row(uid: &str) -> (PodView, Vec<RepairRecord>) {
    let pod = asking(uid, &format!("{uid}/9"), 3, -100);
    let records =
        [-90, -70, -30].map(|ordered| record(&pod, Rung::Restart, ordered, Outcome::Failed)).to_vec();
    (pod, records)
}

#[test]
fn restarts_in_vain_lead_to_a_new_pod() {
    let (pod, records) = exhausted_row("a");
    let alone = plan(&stack(vec![pod.clone()]), &status(records.clone()), 0);
    assert!(matches!(&alone.acts[..], [Act::Replace { evict: false, avoid: None, .. }]), "{:?}", alone.acts);
    let with_others = plan(&stack(vec![pod.clone(), healthy("h")]), &status(records.clone()), 0);
    assert!(matches!(&with_others.acts[..], [Act::Replace { evict: true, .. }]));
    // Without a request too: the guard's own budget is used up.
    let mut silent = pod;
    silent.guard.as_mut().unwrap().report.repair = None;
    silent.guard.as_mut().unwrap().report.state = State::Ejected;
    assert_eq!(ordered_rungs(&plan(&stack(vec![silent.clone()]), &status(records), 0)), [Rung::Recreate]);
    let waits = plan(&stack(vec![silent]), &RepairStatus::default(), 0);
    assert!(waits.acts.is_empty(), "its guard asks when its spacing is over");
}

#[test]
fn lasting_health_ends_a_row() {
    let (pod, mut records) = exhausted_row("a");
    for record in &mut records {
        record.ordered = MicroTime(at(record.ordered.0.as_second() - START - 1400));
        record.ended = Some(MicroTime(at(-1300)));
        record.outcome = Outcome::Recovered;
    }
    let plan = plan(&stack(vec![pod]), &status(records), 0);
    assert_eq!(ordered_rungs(&plan), [Rung::Restart]);
}

#[test]
fn what_never_helps_stops_and_goes_on_after_a_reset() {
    let pod = asking("c", "c/1", 1, -5);
    let rungs = [
        Rung::Restart,
        Rung::Restart,
        Rung::Restart,
        Rung::Recreate,
        Rung::Restart,
        Rung::AvoidNode,
        Rung::Restart,
    ];
    let records = rungs.iter().zip(-8..).map(|(rung, n)| {
        let of = asking(["a", "b", "c"][usize::try_from(n + 8).unwrap() / 3], "", 0, 0);
        record(&of, *rung, n * 100, Outcome::Failed)
    });
    let mut stack = stack(vec![pod]);
    stack.spec.escalation = Escalation::AvoidNode;
    let stopped = plan(&stack, &status(records.collect()), 0);
    assert_eq!(stopped.status.stopped[0].reason, reason::FUTILE);
    assert!(stopped.acts.is_empty());
    assert_eq!(held(&plan(&stack, &stopped.status, 5)), [Held::Stopped]);

    stack.reset = Some("1".into());
    let reset = plan(&stack, &stopped.status, 10);
    assert!(reset.status.stopped.is_empty());
    let [Act::Reset { .. }, Act::Readmit { node, label }, Act::Grant { .. }] = &reset.acts[..] else {
        panic!("{:?}", reset.acts)
    };
    assert_eq!((node.as_str(), label.as_str()), ("n1", "avoid.speechstack.dev/ns.s.e"));
    assert_eq!(plan(&stack, &reset.status, 11).acts.len(), 1, "a reset is done once");

    let well = self::stack(vec![healthy("c")]);
    assert!(plan(&well, &stopped.status, 10).status.stopped.is_empty());
}

#[test]
fn an_engine_that_serves_is_taken_only_when_others_do() {
    let mut worn = healthy("a");
    let seen = worn.guard.as_mut().unwrap();
    seen.report.state = State::Degraded;
    seen.report.repair = Some(Box::new(RepairRequest {
        instance: "a/0".into(),
        attempt: 0,
        class: None,
        act: Wanted::Recycle,
        since_unix_ms: 0,
    }));
    let mut stack = stack(vec![worn, healthy("b")]);
    stack.spec.min_healthy = 2;
    assert_eq!(held(&plan(&stack, &RepairStatus::default(), 0)), [Held::MinHealthy]);
    stack.spec.min_healthy = 1;
    assert_eq!(ordered_rungs(&plan(&stack, &RepairStatus::default(), 0)), [Rung::Recycle]);
}

#[test]
fn what_a_guard_never_lets_end_is_not_forced() {
    let stuck = pod("a", "n1", seen("a/0", "kill_stuck", "wedged", Some(at(-50))));
    let before = record(&stuck, Rung::Restart, -20, Outcome::Pending);
    let before = vec![RepairRecord { instance: "a/0".into(), ..before }];
    let plan = plan(&stack(vec![stuck]), &status(before), 0);
    assert_eq!(plan.status.records[0].outcome, Outcome::Failed);
    assert!(plan.acts.is_empty() && plan.deferrals.is_empty());
}

#[test]
fn a_container_that_the_kubelet_cannot_end_is_not_forced() {
    let mut stuck = pod("a", "n1", seen("a/0", "restarting", "wedged", Some(at(-90))));
    stuck.running_since = Some(at(-3600));
    let outcome = |pod: &PodView, ordered: i64| {
        let before = record(pod, Rung::Restart, ordered, Outcome::Pending);
        let before = vec![RepairRecord { instance: "a/0".into(), ..before }];
        let plan = plan(&stack(vec![pod.clone()]), &status(before), 0);
        assert!(plan.acts.iter().all(|act| !matches!(act, Act::Replace { .. })));
        plan.status.records[0].outcome
    };
    assert_eq!(outcome(&stuck, -30), Outcome::Pending, "kubelets take their time");
    assert_eq!(outcome(&stuck, -61), Outcome::Failed);
    let ended = PodView { running_since: None, ..stuck.clone() };
    assert_eq!(outcome(&ended, -61), Outcome::Pending, "the kubelet waits before it starts it again");
    let restarted = PodView { running_since: Some(at(-10)), ..stuck };
    assert_eq!(outcome(&restarted, -61), Outcome::Pending, "its guard has not seen it yet");
}

#[test]
fn other_stacks_use_up_the_clusters_rate() {
    let cluster = Cluster { repairs: vec![at(-60); 20], ..Cluster::default() };
    let stack = stack(vec![asking("a", "a/0", 0, -1)]);
    let plan = decide(&stack, &RepairStatus::default(), &[], &cluster, at(0));
    assert_eq!(held(&plan), [Held::ClusterRate]);
    assert_eq!(plan.deferrals[0].seconds, 120);
}

#[test]
fn a_replaced_pod_is_settled_by_its_successor() {
    let old = asking("a", "a/9", 3, -100);
    let before = status(vec![record(&old, Rung::Recreate, 0, Outcome::Pending)]);
    let outcome = |pods: Vec<PodView>, second: i64| {
        let mut stack = stack(pods);
        stack.engines[0].desired = 1;
        plan(&stack, &before, second).status.records[0].outcome
    };
    let ending = PodView { deleting: true, ..old };
    let successor = |state: &str, verdict: &str, scheduled: i64| {
        let seen = seen("b/0", state, verdict, (verdict == "wedged").then(|| at(50)));
        PodView { scheduled: Some(at(scheduled)), ..pod("b", "n1", seen) }
    };
    assert_eq!(outcome(vec![ending.clone()], 30), Outcome::Pending);
    assert_eq!(outcome(vec![ending.clone()], 601), Outcome::Failed, "it does not end");
    assert_eq!(outcome(vec![ending, successor("probation", "serving", 5)], 60), Outcome::Recovered);
    assert_eq!(outcome(vec![successor("starting", "pending", 5)], 60), Outcome::Pending);
    assert_eq!(outcome(vec![successor("starting", "pending", 5)], 661), Outcome::Failed);
    assert_eq!(outcome(vec![successor("wedged", "wedged", 5)], 60), Outcome::Failed);
    assert_eq!(
        outcome(vec![successor("starting", "pending", -500)], 60),
        Outcome::Pending,
        "an older replica"
    );
    assert_eq!(outcome(vec![], 60), Outcome::Pending);
}
