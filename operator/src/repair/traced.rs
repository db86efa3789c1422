//! Repairs as traces: from the order to the outcome, with the record that is written and the act that follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use speechstack_crds::{Outcome, RepairRecord};
use trace::{Kind, Span, Trace, Tracer};

use super::plan::{Key, key};

/// Repairs under way whose spans are held; of further ones the acts are missing.
const MAX_OPEN: usize = 256;

/// Traces of the repairs under way. Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Traces {
    tracer: Tracer,
    open: Arc<Mutex<HashMap<Key, Open>>>,
}

/// A repair under way.
struct Open {
    repair: Span,
    /// From the first act that was done.
    verify: Option<Span>,
}

impl Traces {
    /// None yet.
    pub(super) fn new(tracer: Tracer) -> Self {
        Self { tracer, open: Arc::default() }
    }

    /// A repair was ordered, and its record written since `began`.
    pub(super) fn ordered(&self, stack: &ObjectReference, record: &RepairRecord, began: SystemTime) {
        if !self.tracer.is_on() {
            return;
        }
        let repair = self.begin(stack, record);
        drop(repair.trace().span_since("record", Kind::Internal, began));
        let mut open = self.open.lock();
        if open.len() < MAX_OPEN {
            open.insert(key(record), Open { repair, verify: None });
        }
    }

    /// An act of a repair begins; the span of one that is not known is not recorded.
    pub(super) fn act(&self, key: &Key) -> Span {
        let open = self.open.lock();
        let trace = open.get(key).map(|open| open.repair.trace().clone());
        trace.unwrap_or_default().span("act", Kind::Client)
    }

    /// An act of a repair was done: what follows is to verify that it helped.
    pub(super) fn acted(&self, key: &Key) {
        if let Some(open) = self.open.lock().get_mut(key) {
            let Open { repair, verify } = open;
            verify.get_or_insert_with(|| repair.trace().span("verify", Kind::Internal));
        }
    }

    /// It is known what came of a repair.
    pub(super) fn settled(&self, stack: &ObjectReference, record: &RepairRecord) {
        if !self.tracer.is_on() {
            return;
        }
        let known = self.open.lock().remove(&key(record));
        // An operator before this one ordered it.
        let Open { mut repair, verify } =
            known.unwrap_or_else(|| Open { repair: self.begin(stack, record), verify: None });
        drop(verify);
        repair.set("speechstack.outcome", record.outcome.as_str());
        if record.outcome == Outcome::Failed {
            repair.fail("the engine was not verified in time");
        }
    }

    fn begin(&self, stack: &ObjectReference, record: &RepairRecord) -> Span {
        let trace: Trace = self.tracer.begin_recorded();
        let mut repair = trace.span_since("repair", Kind::Internal, record.ordered.0.into());
        for (key, value) in [
            ("k8s.namespace.name", stack.namespace.clone()),
            ("k8s.pod.name", Some(record.pod.clone())),
            ("k8s.node.name", record.node.clone()),
            ("speechstack.stack", stack.name.clone()),
            ("speechstack.engine", Some(record.engine.clone())),
            ("speechstack.instance", Some(record.instance.clone())),
            ("speechstack.class", record.class.clone()),
        ] {
            if let Some(value) = value {
                repair.set(key, value);
            }
        }
        repair.set("speechstack.rung", record.rung.as_str());
        repair.set("speechstack.attempt", u64::from(record.attempt));
        repair
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Bytes;
    use axum::routing::post;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span as Exported;
    use prost::Message;
    use speechstack_crds::Rung;
    use trace::Settings;

    use super::*;

    fn record(attempt: u32) -> RepairRecord {
        RepairRecord {
            engine: "ears".into(),
            pod: "demo-ears-1".into(),
            pod_uid: "u1".into(),
            node: Some("n1".into()),
            template: None,
            instance: "i1".into(),
            rung: Rung::Restart,
            class: Some("A".into()),
            attempt,
            ordered: MicroTime(Timestamp::now()),
            outcome: Outcome::Pending,
            ended: None,
        }
    }

    /// What a collector gets of what `make` does.
    async fn exported(make: impl AsyncFnOnce(&Traces)) -> Vec<Exported> {
        let taken = Arc::<Mutex<Vec<Exported>>>::default();
        let spans = Arc::clone(&taken);
        let take = move |body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
            spans.lock().extend(scopes.flat_map(|scope| scope.spans));
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let routes = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let tracer = Tracer::new().unwrap();
        let (headers, service, instance) = (None, "operator".to_owned(), None);
        let settings = Settings { endpoint, headers, sample_ratio: 0.0, service, version: "1", instance };
        tracer.export(Some(settings)).unwrap();
        make(&Traces::new(tracer.clone())).await;
        tracer.stop().await;

        std::mem::take(&mut *taken.lock())
    }

    fn stack() -> ObjectReference {
        ObjectReference {
            name: Some("demo".into()),
            namespace: Some("ns".into()),
            ..ObjectReference::default()
        }
    }

    #[tokio::test]
    async fn a_repair_is_recorded_acted_on_and_verified() {
        let spans = exported(async |traces| {
            let record = record(0);
            traces.ordered(&stack(), &record, SystemTime::now());
            drop(traces.act(&key(&record)));
            traces.acted(&key(&record));
            traces.settled(&stack(), &RepairRecord { outcome: Outcome::Recovered, ..record });
            assert!(traces.open.lock().is_empty());
        })
        .await;
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["record", "act", "verify", "repair"]);
        let (parts, repair) = (&spans[..3], &spans[3]);
        assert!(parts.iter().all(|part| part.parent_span_id == repair.span_id));
        assert!(repair.parent_span_id.is_empty() && repair.status.is_none());
        let keys: Vec<_> = repair.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        for wanted in ["k8s.namespace.name", "k8s.pod.name", "speechstack.stack", "speechstack.outcome"] {
            assert!(keys.contains(&wanted), "{keys:?}");
        }
    }

    #[tokio::test]
    async fn a_repair_of_an_operator_before_this_one_ends_as_a_trace_too() {
        let spans = exported(async |traces| {
            drop(traces.act(&key(&record(0))));
            traces.settled(&stack(), &RepairRecord { outcome: Outcome::Failed, ..record(0) });
        })
        .await;
        let [repair] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((repair.name.as_str(), repair.status.as_ref().unwrap().code), ("repair", 2));
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_held() {
        let spans = exported(async |traces| {
            for attempt in 0..300 {
                traces.ordered(&stack(), &record(attempt), SystemTime::now());
            }
            assert_eq!(traces.open.lock().len(), MAX_OPEN);
        })
        .await;
        assert!(spans.iter().filter(|span| span.name == "repair").count() >= 300 - MAX_OPEN);
    }
}
