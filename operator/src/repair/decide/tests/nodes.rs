//! Nodes that engines are moved off, reported and tainted.

use super::*;

/// An engine whose fresh pod wedges on the same node as the one before it.
fn wedged_again() -> (StackView, Vec<RepairRecord>) {
    let (old, mut records) = exhausted_row("a");
    records.push(record(&old, Rung::Recreate, -25, Outcome::Failed));
    let mut pod = asking("b", "b/1", 1, -10);
    pod.scheduled = Some(at(-20));
    records.push(record(&pod, Rung::Restart, -12, Outcome::Failed));
    (stack(vec![pod]), records)
}

#[test]
fn a_fresh_pod_that_wedges_too_moves_off_the_node_or_stops() {
    let (mut stack, records) = wedged_again();
    let stops = |stack: &StackView, text: &str| {
        let plan = plan(stack, &status(records.clone()), 0);
        assert!(plan.acts.is_empty());
        assert!(plan.status.stopped[0].message.contains(text), "{:?}", plan.status.stopped);
    };
    stops(&stack, "escalation is None");
    stack.spec.escalation = Escalation::AvoidNode;
    let moved = plan(&stack, &status(records.clone()), 0);
    let [Act::Replace { avoid: Some(avoid), .. }] = moved.acts.as_slice() else { panic!("{:?}", moved.acts) };
    assert_eq!((avoid.node.as_str(), avoid.label.as_str()), ("n1", "avoid.speechstack.dev/ns.s.e"));
    assert_eq!(avoid.expiry, START + 6 * 3600);
    stack.node_escalation = false;
    stops(&stack, "--node-escalation");
    stack.node_escalation = true;
    stack.engines[0].nodes[1].eligible = false;
    stops(&stack, "no other node");
}

#[test]
fn an_engine_stays_with_a_volume_that_no_other_node_can_use() {
    let (mut stack, records) = wedged_again();
    stack.spec.escalation = Escalation::AvoidNode;
    let rungs = |stack: &StackView, attachable: &[&str]| {
        let mut stack = stack.clone();
        stack.engines[0].pods[0].attachable =
            Some(attachable.iter().map(|node| (*node).to_owned()).collect());
        let plan = plan(&stack, &status(records.clone()), 0);
        (ordered_rungs(&plan), plan.status.stopped.iter().any(|one| one.message.contains("with its volume")))
    };
    assert_eq!(rungs(&stack, &["n1", "n2"]), (vec![Rung::AvoidNode], false));
    assert_eq!(rungs(&stack, &["n1"]), (vec![], true), "its pod could not be scheduled anywhere");
}

#[test]
fn an_engine_on_a_gpu_moves_to_a_node_as_the_watch_keeps_it() {
    let node = |name: &str| {
        let mut node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/arch": "amd64"}},
            "status": {"allocatable": {"cpu": "8", "nvidia.com/gpu": "1"},
                       "conditions": [{"type": "Ready", "status": "True"}]},
        }));
        crate::watch::strip::node(node.as_mut().unwrap());
        let engine = serde_json::json!({"name": "e", "preset": "parakeet-tdt-0.6b-v3"});
        let engine = serde_json::from_value(engine).unwrap();
        let presets = crate::preset::Presets::shipped().unwrap();
        let preset = presets.get("parakeet-tdt-0.6b-v3", speechstack_crds::Capability::Stt);
        crate::repair::node::view(&node.unwrap(), ("ns", "s"), &engine, preset)
    };
    let (mut stack, records) = wedged_again();
    stack.spec.escalation = Escalation::AvoidNode;
    stack.engines[0].nodes = vec![node("n1"), node("n2")];
    assert_eq!(ordered_rungs(&plan(&stack, &status(records), 0)), [Rung::AvoidNode]);
}

#[test]
fn a_node_that_cannot_be_avoided_is_still_reported() {
    let (mut stack, records) = wedged_again();
    stack.spec.escalation = Escalation::TaintNode;
    stack.engines[0].nodes[1].eligible = false;
    let first = plan(&stack, &status(records), 0);
    assert!(matches!(&first.acts[..], [Act::ReportNode { node, .. }] if node == "n1"), "{:?}", first.acts);
    let [Act::ReportNode { key, .. }] = first.acts.as_slice() else { panic!() };
    let known = [(key.clone(), Outcome::Done)];
    let after = decide(&stack, &first.status, &known, &Cluster::default(), at(5));
    assert!(after.acts.is_empty(), "the last node is never tainted: {:?}", after.acts);
    assert_eq!(after.status.records.last().unwrap().outcome, Outcome::Done);
}

#[test]
fn a_cure_elsewhere_reports_and_then_taints_the_node() {
    let old = asking("a", "a/9", 3, -100);
    let records = vec![record(&old, Rung::AvoidNode, -60, Outcome::Recovered)];
    let mut stack = stack(vec![healthy("b")]);
    stack.spec.escalation = Escalation::TaintNode;
    let busy = Cluster { nodes: vec![("other".into(), at(-100))], ..Cluster::default() };
    let limited = decide(&stack, &status(records.clone()), &[], &busy, at(0));
    assert!(limited.acts.is_empty(), "one node per half hour");
    let report = plan(&stack, &status(records), 0);
    let [Act::ReportNode { key, .. }] = report.acts.as_slice() else { panic!("{:?}", report.acts) };
    let taint = decide(&stack, &report.status, &[(key.clone(), Outcome::Done)], &Cluster::default(), at(1));
    assert!(matches!(&taint.acts[..], [Act::TaintNode { .. }]), "{:?}", taint.acts);
    stack.engines[0].nodes[0].foreign = true;
    let foreign = decide(&stack, &report.status, &[(key.clone(), Outcome::Done)], &Cluster::default(), at(1));
    assert!(foreign.acts.is_empty(), "somebody else is at work there");
}

#[test]
fn an_engine_avoids_one_node_at_a_time() {
    let (old, mut records) = exhausted_row("a");
    records.push(record(&old, Rung::AvoidNode, -25, Outcome::Failed));
    let mut pod = asking("b", "b/1", 1, -10);
    pod.guard.as_mut().unwrap().report.class = Some(Class::DeviceLost);
    records = vec![records.pop().unwrap(), record(&pod, Rung::Restart, -12, Outcome::Failed)];
    let mut stack = stack(vec![pod]);
    stack.spec.escalation = Escalation::AvoidNode;
    assert_eq!(held(&plan(&stack, &status(records), 0)), [Held::NodeRate]);
}

#[test]
fn a_lost_device_is_restarted_once_and_then_left() {
    let mut pod = asking("a", "a/1", 1, -10);
    let request = pod.guard.as_mut().unwrap();
    request.report.class = Some(Class::DeviceLost);
    let records = status(vec![record(&pod, Rung::Restart, -15, Outcome::Failed)]);
    let mut stack = stack(vec![pod]);
    assert_eq!(ordered_rungs(&plan(&stack, &RepairStatus::default(), 0)), [Rung::Restart]);
    stack.spec.escalation = Escalation::AvoidNode;
    assert_eq!(ordered_rungs(&plan(&stack, &records, 0)), [Rung::AvoidNode]);
}
