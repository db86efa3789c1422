//! What people read: phases, conditions and figures for what kubelets and guards say.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use proptest::prelude::*;
use serde_json::{Value, json};
use speechstack_crds::Phase;

use super::*;
use crate::guards::Seen;
use crate::pods::EnginePod;
use crate::reconcile::build::Update;
use crate::reconcile::{outside, testing};
use crate::workloads::LiveWorkload;

const SPEC: &str = "stt: [{name: ears, preset: reference, replicas: 2}]";

fn pod(name: &str, ready: bool, more: Value) -> Arc<EnginePod> {
    let mut status = json!({
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
    });
    status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let pod = json!({
        "metadata": {"name": name, "uid": name, "labels": {"speechstack.dev/engine": "ears"}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": status,
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn says(state: &str, verdict: &str, connected: bool) -> Option<Seen> {
    let report = json!({"state": state, "verdict": verdict});
    let report = serde_json::from_value(report).unwrap();
    Some(Seen { report, since: Timestamp::from_second(50).unwrap(), ailing: None, connected })
}

fn deployment(name: &str) -> (String, LiveWorkload) {
    let deployment = json!({
        "metadata": {"name": name, "generation": 1},
        "spec": {"replicas": 2, "selector": {}, "template": {}},
        "status": {"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2},
    });
    let deployment: Deployment = serde_json::from_value(deployment).unwrap();
    (name.into(), (&deployment).into())
}

fn observed(pods: Vec<(Arc<EnginePod>, Option<Seen>)>) -> Observed {
    let workloads = [deployment("demo-ears"), deployment("demo-gateway")];
    Observed { pods, workloads: workloads.into(), ..testing::observed() }
}

fn judged(observed: &Observed) -> SpeechStackStatus {
    again(observed, None)
}

fn again(observed: &Observed, old: Option<&SpeechStackStatus>) -> SpeechStackStatus {
    let stack = testing::valid(SPEC);
    let applied =
        AppliedObjects { engines: [("ears".to_owned(), Update::Apply)].into(), ..AppliedObjects::default() };
    judge(&stack, observed, Ok(&applied), old, Timestamp::from_second(100).unwrap())
}

fn reason_of<'a>(status: &'a SpeechStackStatus, kind: &str) -> (&'a str, &'a str) {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&found.status, &found.reason)
}

fn serving() -> Vec<(Arc<EnginePod>, Option<Seen>)> {
    ["a", "b"].map(|name| (pod(name, true, json!({})), says("healthy", "serving", true))).into()
}

#[test]
fn model_and_profile_are_those_that_a_proven_engine_says_and_stay_while_none_is_heard() {
    let told = |state: &str, verdict: &str| {
        let mut seen = says(state, verdict, true).unwrap();
        (seen.report.model, seen.report.profile) = (Some("parakeet:v3".into()), Some("09c2".into()));
        observed(vec![(pod("a", true, json!({})), Some(seen))])
    };
    let shown = |status: &SpeechStackStatus| {
        let engine = &status.engines[0];
        (engine.model.clone(), engine.profile.clone())
    };
    let known = (Some("parakeet:v3".to_owned()), Some("09c2".to_owned()));
    assert_eq!(shown(&judged(&told("starting", "pending"))), (None, None), "not proven");
    let first = judged(&told("healthy", "serving"));
    assert_eq!(shown(&first), known);
    let unheard = observed(vec![(pod("a", true, json!({})), None)]);
    assert_eq!(shown(&again(&unheard, Some(&first))), known, "a new operator keeps it");
}

#[test]
fn a_download_is_shown_with_its_pod_until_the_engine_is_verified() {
    let seen = |state: &str, verdict: &str| {
        let mut seen = says(state, verdict, true).unwrap();
        let said = json!({"bytes": 3_221_225_472_u64, "bytes_per_second": 1024, "unchanged_since_unix_ms": 90_000,
            "activity": "growing"});
        seen.report.model_cache = serde_json::from_value(said).unwrap();
        observed(vec![(pod("a", false, json!({})), Some(seen))])
    };
    let message = |status: &SpeechStackStatus| {
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        ready.message.clone()
    };
    let status = judged(&seen("starting", "pending"));
    assert_eq!(status.engines[0].pods[0].model_cache.as_ref().unwrap().bytes, 3 << 30);
    assert_eq!(
        message(&status),
        "engines start; verified: ears 0/2; pod a: model cache 3.0 GiB, growing by 1.0 KiB/s"
    );
    assert_eq!(again(&seen("starting", "pending"), Some(&status)), status, "it is written once");
    let verified = again(&seen("healthy", "serving"), Some(&status));
    assert_eq!(verified.engines[0].pods[0].model_cache, None);
    assert!(!message(&verified).contains("model cache"));
    let older = again(&observed(vec![(pod("a", false, json!({})), says("starting", "pending", true))]), None);
    assert_eq!(older.engines[0].pods[0].model_cache, None, "a guard that does not measure");
}

#[test]
fn a_gateway_beside_each_engine_is_ready_with_its_pods_and_has_a_url_of_its_own() {
    let stack = testing::valid(&format!("{SPEC}\ngateway: {{mode: Sidecar}}"));
    let of = |observed: Observed| {
        let now = Timestamp::from_second(100).unwrap();
        judge(&stack, &observed, Ok(&AppliedObjects::default()), None, now)
    };
    let status = of(observed(serving()));
    assert_eq!(reason_of(&status, "GatewayReady"), ("True", "Available"));
    let endpoints = status.endpoints.unwrap();
    assert_eq!(endpoints.engines[0].openai_base_url, "http://demo-ears-api.speech.svc/v1");
    assert_eq!(endpoints.openai_base_url, endpoints.engines[0].openai_base_url);
    let unready = observed(vec![(pod("a", false, json!({})), says("healthy", "serving", true))]);
    assert_eq!(reason_of(&of(unready), "GatewayReady"), ("False", "Starting"));
}

#[test]
fn a_guard_that_is_not_reached_is_a_condition_with_its_reason() {
    assert_eq!(reason_of(&judged(&observed(serving())), "GuardUnreachable").0, "False");
    let unreached =
        vec![("a".to_owned(), "no connection: timed out".to_owned()), ("b".to_owned(), String::new())];
    let status = judged(&Observed { unreached, ..observed(serving()) });
    assert_eq!(reason_of(&status, "GuardUnreachable"), ("True", "NoAnswer"));
    let message = &status.conditions.iter().find(|one| one.type_ == "GuardUnreachable").unwrap().message;
    assert!(message.contains("pod a, and 1 more (no connection: timed out)"), "{message}");
}

#[test]
fn a_last_resort_that_is_away_leaves_the_stack_ready() {
    let spec = format!(
        "{}, {{name: cloud, preset: external, external: {{baseUrl: 'https://a.example', model: m}}, hosted: {{jobsPerDay: 1}}}}]",
        SPEC.trim_end_matches(']')
    );
    let of = |observed: Observed| {
        let now = Timestamp::from_second(100).unwrap();
        judge(&testing::valid(&spec), &observed, Ok(&AppliedObjects::default()), None, now)
    };
    let status = of(observed(serving()));
    assert_eq!((status.phase, reason_of(&status, "SttReady").0), (Some(Phase::Ready), "True"));
    assert_eq!(status.summary.as_ref().unwrap().stt, "2/2");
    assert_eq!(status.engines[1].verified, 0, "it is shown all the same");
    let status = of(observed(Vec::new()));
    assert_eq!(reason_of(&status, "SttReady").0, "False", "it is no engine of the stack's own");
}

#[test]
fn a_preset_that_was_never_run_says_so_in_status() {
    let caution = |preset: &str| {
        let stack = testing::valid(&format!("stt: [{{name: ears, preset: {preset}}}]"));
        let applied = AppliedObjects {
            engines: [("ears".to_owned(), Update::Apply)].into(),
            ..AppliedObjects::default()
        };
        let status =
            judge(&stack, &observed(serving()), Ok(&applied), None, Timestamp::from_second(100).unwrap());
        status.engines[0].caution.clone()
    };
    assert!(caution("parakeet-ctc-1.1b-en").unwrap().contains("never run"));
    assert_eq!(caution("reference"), None);
}

#[test]
fn pods_that_ended_hold_no_engine_back() {
    let mut pods = serving();
    pods.push((
        pod("c", false, json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"})),
        None,
    ));
    let status = judged(&observed(pods));
    assert_eq!((status.phase, status.engines[0].pods.len()), (Some(Phase::Ready), 2));
    assert_eq!(status.engines[0].last_failure.as_ref().unwrap().reason, "Evicted");
}

#[test]
fn pods_that_cannot_be_made_say_why() {
    let mut observed = observed(Vec::new());
    let live = observed.workloads.get_mut("demo-ears").unwrap();
    live.refusal = Some("pods \"a\" is forbidden: exceeded quota: gpus".into());
    let status = judged(&observed);
    assert_eq!(reason_of(&status, "Ready"), ("False", "QuotaExceeded"));
    let refused =
        json!({"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no healthy devices"});
    let refused = self::observed(vec![(pod("a", false, refused), None)]);
    assert_eq!(reason_of(&judged(&refused), "Ready").1, "NodeRefused");
}

#[test]
fn all_verified_is_ready() {
    let status = judged(&observed(serving()));
    assert_eq!(status.phase, Some(Phase::Ready));
    assert_eq!(status.summary.as_ref().unwrap().stt, "2/2");
    assert_eq!(status.endpoints.as_ref().unwrap().openai_base_url, "http://demo-gateway.speech.svc/v1");
    for (kind, expected) in [
        ("Ready", "True"),
        ("SttReady", "True"),
        ("TtsReady", "Unknown"),
        ("Degraded", "False"),
        ("Progressing", "False"),
    ] {
        assert_eq!(reason_of(&status, kind).0, expected, "{kind}");
    }
}

#[test]
fn an_operator_that_has_not_heard_the_guards_yet_believes_readiness() {
    let silent = serving().into_iter().map(|(pod, _)| (pod, None)).collect();
    assert_eq!(judged(&observed(silent)).phase, Some(Phase::Ready));
    let cut = serving().into_iter().map(|(pod, _)| (pod, says("wedged", "wedged", false))).collect();
    assert_eq!(
        judged(&observed(cut)).summary.unwrap().stt,
        "2/2",
        "an old word does not stand against the kubelet's"
    );
}

#[test]
fn an_operator_that_starts_writes_nothing_until_a_guard_says_something_new() {
    let before = judged(&observed(serving()));
    let mut pods: Vec<_> = serving().into_iter().map(|(pod, _)| (pod, None)).collect();
    assert_eq!(again(&observed(pods.clone()), Some(&before)), before);
    pods[0].1 = says("wedged", "wedged", true);
    let after = again(&observed(pods), Some(&before));
    assert_eq!(after.engines[0].pods[0].state, "wedged");
    assert_eq!(after.engines[0].pods[1], before.engines[0].pods[1]);
    let lost = vec![(pod("a", false, json!({})), None), (pod("b", false, json!({})), None)];
    let states = |status: &SpeechStackStatus| {
        status.engines[0].pods.iter().map(|pod| pod.state.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        states(&again(&observed(lost), Some(&after))),
        ["wedged", "unknown"],
        "no pod counts as healthy without a report"
    );
}

#[test]
fn nor_does_it_where_not_all_pods_are_shown() {
    let pods = |names: std::ops::Range<u32>, seen: &dyn Fn() -> Option<Seen>| {
        names.map(|nth| (pod(&format!("p{nth}"), true, json!({})), seen())).collect::<Vec<_>>()
    };
    let heard = pods(10..60, &|| says("healthy", "serving", true));
    let before = judged(&observed(heard));
    assert_eq!(again(&observed(pods(10..60, &|| None)), Some(&before)), before);
    // A pod that is new is one that nothing is known of, where all are shown.
    let few = judged(&observed(pods(10..12, &|| says("healthy", "serving", true))));
    let after = again(&observed(pods(10..13, &|| None)), Some(&few));
    assert_eq!(after.engines[0].pods[0].state, "unknown");
}

#[test]
fn one_wedge_of_two_is_degraded_and_both_is_repairing() {
    let mut pods = serving();
    pods[0].1 = says("ejected", "wedged", true);
    let status = judged(&observed(pods.clone()));
    assert_eq!(status.phase, Some(Phase::Degraded));
    assert_eq!(reason_of(&status, "Degraded"), ("True", "Repairing"));
    assert_eq!(reason_of(&status, "SttReady").0, "True");
    pods[1].1 = says("restarting", "wedged", true);
    let status = judged(&observed(pods));
    assert_eq!(status.phase, Some(Phase::Repairing));
}

#[test]
fn a_start_is_not_degraded() {
    let pods = ["a", "b"].map(|name| (pod(name, false, json!({})), says("starting", "pending", true)));
    let status = judged(&observed(pods.into()));
    assert_eq!(status.phase, Some(Phase::Starting));
    assert_eq!(reason_of(&status, "Degraded"), ("False", "Starting"));
    assert_eq!(reason_of(&status, "Ready"), ("False", "Starting"));
    assert_eq!(judged(&observed(Vec::new())).phase, Some(Phase::Pending));
}

#[test]
fn a_failure_explains_what_is_missing_and_is_remembered() {
    let waiting = json!({"containerStatuses": [{"name": "engine", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]});
    let broken = observed(vec![(pod("a", false, waiting), None), serving().remove(1)]);
    let status = judged(&broken);
    assert_eq!(reason_of(&status, "Ready"), ("False", "ImagePullError"));
    assert_eq!(status.engines[0].last_failure.as_ref().unwrap().reason, "ImagePullError");
    assert_eq!(again(&broken, Some(&status)), status, "the same look is the same status");
    let well = again(&observed(serving()), Some(&status));
    assert_eq!(well.engines[0].last_failure, status.engines[0].last_failure);
    assert_eq!(reason_of(&well, "Ready").0, "True");
}

#[test]
fn load_does_not_write_status() {
    let calm = judged(&observed(serving()));
    let busy = serving().into_iter().map(|(pod, _)| (pod, says("saturated", "serving", true))).collect();
    assert_eq!(again(&observed(busy), Some(&calm)), calm);
}

#[test]
fn the_healers_part_is_passed_through_and_stops_are_told() {
    let stopped = json!({"total": 7, "stopped": [{"engine": "ears", "reason": "Futile", "since": "2026-01-01T00:00:00.000000Z"}]});
    let old = SpeechStackStatus {
        repair: serde_json::from_value(stopped).unwrap(),
        ..SpeechStackStatus::default()
    };
    let pods = serving().into_iter().map(|(pod, _)| (pod, says("exhausted", "wedged", true))).collect();
    let status = again(&observed(pods), Some(&old));
    assert_eq!(status.repair, old.repair);
    assert_eq!(reason_of(&status, "RepairSuspended"), ("True", "Futile"));
    assert_eq!(reason_of(&status, "Ready"), ("False", "Futile"));
    assert_eq!(status.phase, Some(Phase::Failed));
}

#[test]
fn a_refused_spec_keeps_what_is_known_of_engines() {
    let old = judged(&observed(serving()));
    let problems = vec![validate::Problem { reason: reason::INVALID_SPEC, message: "no".into() }];
    let status =
        refused(Some(2), &validate::Error { problems }, Some(&old), Timestamp::from_second(200).unwrap());
    assert_eq!((status.phase, &status.engines), (Some(Phase::Failed), &old.engines));
    assert_eq!(reason_of(&status, "Ready"), ("False", "InvalidSpec"));
    assert_eq!(reason_of(&status, "SttReady").0, "True");
}

#[test]
fn at_most_twenty_pods_are_shown() {
    let many = (0..40).map(|at| (pod(&format!("p{at}"), true, json!({})), says("healthy", "serving", true)));
    assert_eq!(judged(&observed(many.collect())).engines[0].pods.len(), 20);
}

proptest! {
    #[test]
    fn judging_twice_changes_nothing_and_counts_add_up(
        states in proptest::collection::vec(
            (any::<bool>(), prop_oneof![
                Just(("healthy", "serving")), Just(("saturated", "serving")), Just(("suspect", "suspect")),
                Just(("wedged", "wedged")), Just(("restarting", "wedged")), Just(("starting", "pending")),
            ], any::<bool>()),
            0..6,
        ),
    ) {
        let pods = states.iter().enumerate().map(|(at, (ready, (state, verdict), connected))| {
            (pod(&format!("p{at}"), *ready, json!({})), says(state, verdict, *connected))
        });
        let observed = observed(pods.collect());
        let status = judged(&observed);
        prop_assert_eq!(&again(&observed, Some(&status)), &status);
        let engine = &status.engines[0];
        prop_assert!(engine.verified as usize <= states.len());
        let is_ready = reason_of(&status, "Ready").0 == "True";
        prop_assert_eq!(is_ready, engine.verified >= engine.desired);
        prop_assert_eq!(is_ready, status.phase == Some(Phase::Ready));
        prop_assert!(events::between(Some(&status), &again(&observed, Some(&status))).is_empty());
    }
}

#[test]
fn the_pods_in_trouble_come_first_and_are_never_those_left_out() {
    let healthy =
        (0..25).map(|at| (pod(&format!("a{at:02}"), true, json!({})), says("healthy", "serving", true)));
    let mut pods: Vec<_> = healthy.collect();
    pods.push((pod("y", false, json!({})), says("starting", "pending", true)));
    pods.push((pod("z", false, json!({})), says("wedged", "wedged", true)));
    let status = judged(&observed(pods));
    let names: Vec<&str> = status.engines[0].pods.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!((names.len(), &names[..3]), (20, &["z", "y", "a00"][..]));
}

#[tokio::test]
async fn a_flapping_guard_costs_at_most_one_write_in_five_seconds() {
    let server = testing::Server::default();
    let context = testing::context(&server);
    server.hold(&testing::stack(SPEC));
    let valid = testing::valid(SPEC);
    let now = Timestamp::from_second(100).unwrap();
    let look = async |flap: usize| {
        let state = if flap.is_multiple_of(2) { ("healthy", "serving") } else { ("wedged", "wedged") };
        let second = (pod("b", true, json!({})), says(state.0, state.1, true));
        let pods = serving().into_iter().take(1).chain([second]).collect();
        let applied = AppliedObjects::default();
        publish(&context, &server.stack(), &valid, &observed(pods), Ok(&applied), now).await.unwrap()
    };
    let mut held = Vec::new();
    for flap in 0..6 {
        held.extend(look(flap).await.held_back);
    }
    let path = "/apis/speechstack.dev/v1alpha1/namespaces/speech/speechstacks/demo/status";
    assert_eq!(server.patches(path).len(), 1);
    assert_eq!(held.len(), 3, "each wedge is looked at again later");
    assert!(held.iter().all(|wait| *wait <= SPACING && !wait.is_zero()));
    let later = Instant::now() + SPACING;
    assert_eq!(context.written.wait(&server.stack(), later), None);
}

#[test]
fn a_stack_is_found_from_outside_by_what_others_say() {
    let external = |gateway: &str, outside: outside::Outside| {
        let stack = testing::valid(&format!("{SPEC}\ngateway: {gateway}"));
        let applied = AppliedObjects::default();
        let observed = Observed { outside, ..observed(serving()) };
        let now = Timestamp::from_second(100).unwrap();
        judge(&stack, &observed, Ok(&applied), None, now).endpoints.unwrap().external
    };
    let balanced = outside::Outside { load_balancer: Some("192.0.2.9".into()), listeners: Vec::new() };
    let service = "{service: {type: LoadBalancer, port: 8000}}";
    assert_eq!(external(service, outside::Outside::default()), None);
    assert_eq!(external(service, balanced.clone()).as_deref(), Some("http://192.0.2.9:8000/v1"));
    let ingress = "{service: {type: LoadBalancer}, ingress: {host: a.example, tlsSecretName: t}}";
    assert_eq!(external(ingress, balanced).as_deref(), Some("https://a.example/v1"));
    let listener = outside::Listener { host: None, address: Some("192.0.2.7".into()), port: 443, tls: true };
    let listeners = outside::Outside { load_balancer: None, listeners: vec![listener] };
    let route = "{httpRoute: {parentRefs: [{name: edge}]}}";
    assert_eq!(external(route, listeners).as_deref(), Some("https://192.0.2.7/v1"));
}

#[test]
fn a_written_status_counts_for_a_reconcile_that_began_before_the_watch_showed_it() {
    let at = |version: &str, phase: Option<Phase>| {
        let mut stack = testing::stack(SPEC);
        stack.metadata.resource_version = Some(version.into());
        stack.status =
            phase.map(|phase| SpeechStackStatus { phase: Some(phase), ..SpeechStackStatus::default() });
        stack
    };
    let phase = |status: Option<SpeechStackStatus>| status.and_then(|status| status.phase);
    let written = Written::default();
    let (before, after) = (at("1", None), at("2", Some(Phase::Ready)));
    written.keep(&after, after.status.as_ref().unwrap());
    assert_eq!(phase(written.current(&before)), Some(Phase::Ready), "the watch lags behind");
    written.shown(&Arc::new(after.clone()));
    assert!(matches!(written.newest.lock().values().next(), Some((2, Newest::Shown(_)))), "kept once");
    assert_eq!(phase(written.current(&before)), Some(Phase::Ready), "it began before");
    assert_eq!(phase(written.current(&after)), Some(Phase::Ready));
    assert!(written.newest.lock().is_empty());
}
