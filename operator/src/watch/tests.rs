//! Tests of watches against an API server in memory.

use prometheus::Registry;
use serde_json::json;

use super::*;
use crate::reconcile::testing::Server;

#[tokio::test]
async fn more_stacks_than_a_queue_holds_keep_nobody_from_becoming_ready() {
    let stack = |at: usize| {
        json!({
            "apiVersion": "speechstack.dev/v1alpha1", "kind": "SpeechStack",
            "metadata": {"name": format!("stack-{at}"), "namespace": "speech", "uid": format!("uid-{at}")},
            "spec": {"stt": [{"name": "ears", "preset": "reference"}]},
        })
    };
    let stacks: Vec<_> = (0..2 * QUEUE).map(stack).collect();
    let server = Server::default();
    server.put(
        "/apis/speechstack.dev/v1alpha1/speechstacks",
        json!({
            "kind": "SpeechStackList", "apiVersion": "speechstack.dev/v1alpha1",
            "metadata": {"resourceVersion": "1"}, "items": stacks,
        }),
    );
    let cancel = CancellationToken::new();
    let _end = cancel.clone().drop_guard();
    // Nobody takes from the queue before all is listed.
    let (triggers, _queue) = Triggers::new(cancel.clone());
    let readiness = Readiness::default();
    let watches = Watches {
        client: server.client(),
        namespace: None,
        triggers,
        readiness: readiness.clone(),
        metrics: Metrics::register(&Registry::new()).unwrap(),
        owned: Arc::default(),
        cancel,
    };
    let known = watches.stacks(|_| (), |_| ());
    let ready = tokio::time::timeout(Duration::from_secs(30), readiness.ready()).await;
    assert!(ready.is_ok(), "still pending: {:?}", readiness.names());
    assert_eq!(known.len(), 2 * QUEUE);
}
