//! Which calls a reconcile makes: all at first, none when nothing changed, one when one thing did.

use std::sync::Arc;

use serde_json::json;
use speechstack_crds::{Phase, SpeechStack};

use super::testing::{self, MINIMAL, Server};
use super::{Error, reconcile};
use crate::owned::Owned;

async fn run(server: &Server, context: &Arc<super::Context>) -> Result<(), Error> {
    reconcile(Arc::new(server.stack()), context.clone()).await.map(|_| ())
}

fn writes(calls: &[String]) -> Vec<&str> {
    calls.iter().map(String::as_str).filter(|call| !call.starts_with("GET")).collect()
}

fn is_present(call: &str, method: &str, path: &str) -> bool {
    call == format!("{method} {path}")
}

fn condition<'a>(stack: &'a SpeechStack, kind: &str) -> (&'a str, &'a str) {
    let conditions = &stack.status.as_ref().unwrap().conditions;
    let found = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&found.status, &found.reason)
}

#[tokio::test]
async fn a_second_reconcile_of_an_unchanged_stack_is_radio_silence() {
    let server = Server::default();
    server.hold(&testing::stack(MINIMAL));
    let context = testing::context(&server);
    run(&server, &context).await.unwrap();
    let first = server.calls();
    assert_eq!(writes(&first).len(), 19, "{first:#?}");
    assert_eq!(first.len() - writes(&first).len(), 18, "one look at each name before it is taken");
    assert!(first.last().unwrap().ends_with("/speechstacks/demo/status"), "{first:#?}");
    for _ in 0..3 {
        run(&server, &context).await.unwrap();
        assert_eq!(server.calls(), [""; 0]);
    }
}

#[tokio::test]
async fn one_changed_field_is_one_write() {
    let server = Server::default();
    let mut stack = testing::stack(MINIMAL);
    server.hold(&stack);
    let context = testing::context(&server);
    run(&server, &context).await.unwrap();
    server.calls();
    stack = server.stack();
    stack.spec.deep_probe.interval = speechstack_crds::Span::seconds(20);
    server.hold(&stack);
    run(&server, &context).await.unwrap();
    let calls = server.calls();
    let files = ["demo-ears-", "demo-mouth-"].map(|name| testing::path(Owned::ConfigMap, name));
    let is_file = |call: &String, path: &String| call.starts_with(&format!("PATCH {path}"));
    assert!(calls.iter().zip(&files).all(|(call, path)| is_file(call, path)), "{calls:?}");
    assert_eq!(calls.len(), 2, "a probe's period must not touch pods: {calls:?}");
}

#[tokio::test]
async fn what_is_not_desired_any_more_is_pruned_and_the_cache_kept() {
    let server = Server::default();
    let shared = "preset: magpie-multilingual, cache: {pvc: {accessMode: ReadWriteMany}}";
    let mut stack = testing::stack(&MINIMAL.replace("preset: magpie-multilingual", shared));
    server.hold(&stack);
    let context = testing::context(&server);
    run(&server, &context).await.unwrap();
    server.calls();
    stack = server.stack();
    stack.spec.tts.clear();
    stack.metadata.generation = Some(2);
    server.hold(&stack);
    run(&server, &context).await.unwrap();
    let calls = server.calls();
    let deleted: Vec<_> = calls.iter().filter(|call| call.starts_with("DELETE")).collect();
    assert_eq!(deleted.len(), 4, "{calls:#?}");
    assert!(deleted.iter().all(|call| call.contains("/demo-mouth")), "{deleted:#?}");
    let claims = testing::path(Owned::Claim, "");
    assert!(!deleted.iter().any(|call| call.contains(&claims)), "{deleted:#?}");
    assert_eq!(server.stack().status.unwrap().orphaned_caches, ["demo-mouth-cache"]);
}

/// A stack whose engine has a claim of that size, which exists with 150Gi.
async fn with_claim(server: &Server, size: &str) -> Arc<super::Context> {
    let cache = format!("cache: {{pvc: {{accessMode: ReadWriteMany, size: {size}}}}}");
    server.hold(&testing::stack(&format!("stt: [{{name: ears, preset: parakeet-rnnt-1.1b, {cache}}}]")));
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "demo-ears-cache", "namespace": "speech", "uid": "c1", "resourceVersion": "5",
            "labels": {"speechstack.dev/stack": "demo", "app.kubernetes.io/managed-by": "speechstack-operator"},
        },
        "spec": {"resources": {"requests": {"storage": "150Gi"}}},
    });
    let context = testing::context(server);
    context.owned.see(Owned::Claim, &serde_json::from_value(claim["metadata"].clone()).unwrap());
    server.put(&testing::path(Owned::Claim, "demo-ears-cache"), claim);
    // Whatever would shrink a claim is refused, as the API server does.
    run(server, &context).await.unwrap();
    context
}

fn storage(server: &Server) -> String {
    let claim = server.object(&testing::path(Owned::Claim, "demo-ears-cache"));
    claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_claim_that_a_person_expanded_stays_and_blocks_nothing() {
    let server = Server::default();
    let context = with_claim(&server, "100Gi").await;
    assert_eq!(storage(&server), "150Gi");
    server.calls();
    run(&server, &context).await.unwrap();
    assert_eq!(server.calls(), [""; 0]);
}

#[tokio::test]
async fn a_claim_grows_with_its_stack() {
    let server = Server::default();
    with_claim(&server, "200Gi").await;
    assert_eq!(storage(&server), "200Gi");
}

#[tokio::test]
async fn an_autoscaler_gets_the_number_of_replicas_and_none_is_lost() {
    let server = Server::default();
    let context = testing::context(&server);
    server.hold(&testing::stack("stt: [{name: ears, preset: reference, replicas: 3}]"));
    run(&server, &context).await.unwrap();
    // The Deployment as its watch shows it: its number is of our own apply.
    let path = testing::path(Owned::Deployment, "demo-ears");
    let mut deployment = server.object(&path);
    deployment["metadata"]["managedFields"] = json!([{
        "manager": "speechstack-operator", "operation": "Apply", "time": "2026-11-01T00:00:00Z",
        "fieldsV1": {"f:spec": {"f:replicas": {}}},
    }]);
    context.owned.see(Owned::Deployment, &serde_json::from_value(deployment["metadata"].clone()).unwrap());
    let context = testing::knowing(&context, serde_json::from_value(deployment).unwrap());
    server.calls();
    server.hold(&testing::stack("stt: [{name: ears, preset: reference, autoscaling: {maxReplicas: 5}}]"));
    run(&server, &context).await.unwrap();
    let patches = server.patches(&path);
    assert_eq!(patches.len(), 2, "{patches:#?}");
    assert_eq!(
        (&patches[0].0, &patches[0].1["spec"]),
        (&"speechstack-scale".to_owned(), &json!({"replicas": 3}))
    );
    assert_eq!(patches[1].0, "speechstack-operator");
    assert!(patches[1].1["spec"]["replicas"].is_null(), "the number is not ours any more");
}

#[tokio::test]
async fn somebody_elses_object_is_not_taken_over() {
    let server = Server::default();
    server.hold(&testing::stack(MINIMAL));
    let taken = testing::path(Owned::Service, "demo-gateway");
    server.put(&taken, json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "demo-gateway"}}));
    let context = testing::context(&server);
    let error = run(&server, &context).await.unwrap_err();
    assert!(matches!(error, Error::Apply(super::apply::Error::Taken { .. })), "{error}");
    assert!(!server.calls().iter().any(|call| is_present(call, "PATCH", &taken)));
    let stack = server.stack();
    assert_eq!(condition(&stack, "Ready"), ("False", "ApplyFailed"));
}

#[tokio::test]
async fn a_refused_object_is_reported_and_tried_again() {
    let server = Server::default();
    server.hold(&testing::stack(MINIMAL));
    let context = testing::context(&server);
    server.refuse(Some("/services/demo-gateway"));
    assert!(matches!(run(&server, &context).await, Err(Error::Apply(_))));
    let calls = server.calls();
    let deployment = testing::path(Owned::StatefulSet, "demo-ears");
    assert!(
        calls.iter().any(|call| is_present(call, "PATCH", &deployment)),
        "one refusal holds back nothing else"
    );
    assert_eq!(condition(&server.stack(), "Ready"), ("False", "ApplyFailed"));
    server.refuse(None);
    testing::later().await;
    run(&server, &context).await.unwrap();
    assert_eq!(condition(&server.stack(), "Ready"), ("False", "Starting"));
}

#[tokio::test]
async fn an_invalid_spec_is_a_condition_and_touches_nothing() {
    let server = Server::default();
    let spec =
        "{stt: [{name: ears, preset: reference, podTemplatePatch: {spec: {containers: [{name: guard}]}}}]}";
    server.hold(&testing::stack(spec));
    let context = testing::context(&server);
    for calls in [1, 0] {
        assert!(matches!(run(&server, &context).await, Err(Error::Validate(_))));
        assert_eq!(server.calls().len(), calls, "the condition is written once");
    }
    let stack = server.stack();
    assert_eq!(condition(&stack, "Ready"), ("False", "InvalidSpec"));
    assert_eq!(stack.status.unwrap().phase, Some(Phase::Failed));
}

#[tokio::test]
async fn a_stack_that_is_being_deleted_is_left_alone() {
    let server = Server::default();
    let mut stack = testing::stack(MINIMAL);
    stack.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
    let context = testing::context(&server);
    reconcile(Arc::new(stack), context).await.unwrap();
    assert_eq!(server.calls(), [""; 0]);
}

#[tokio::test]
async fn a_missing_key_is_a_condition_and_holds_nothing_back() {
    let server = Server::default();
    server.hold(&testing::stack(&format!("{MINIMAL}\nauth: {{ngcSecretRef: {{name: ngc}}}}")));
    let context = testing::context(&server);
    run(&server, &context).await.unwrap();
    assert_eq!(condition(&server.stack(), "PreflightPassed"), ("False", "AuthSecretMissing"));
    server.put(
        "/api/v1/namespaces/speech/secrets/ngc",
        json!({"metadata": {"name": "ngc"}, "data": {"NGC_API_KEY": "eA=="}}),
    );
    server.calls();
    testing::later().await;
    run(&server, &context).await.unwrap();
    assert_eq!(condition(&server.stack(), "PreflightPassed"), ("True", "Verified"));
    assert_eq!(writes(&server.calls()).len(), 1);
    run(&server, &context).await.unwrap();
    assert_eq!(server.calls(), [""; 0], "a Secret that was found is not read at each pass");
}

#[test]
fn errors_wait_ever_longer_up_to_a_bound() {
    let waits: Vec<_> = (0..12).map(super::backoff).collect();
    assert_eq!(waits[0].as_secs(), 1);
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
    assert_eq!(waits[11].as_secs(), 300);
}
