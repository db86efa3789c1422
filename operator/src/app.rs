//! Wiring: from settings to a running operator, and its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use kube::runtime::controller::{self, Error as ControllerError};
use kube::runtime::events::Reporter;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use prometheus::Registry;
use speechstack_crds::SpeechStack;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trace::{HeadersFile, Settings, Tracer};

use crate::admin::{self, Readiness};
use crate::args::Run;
use crate::guards::{self, Guards, Tokens};
use crate::lease::{Elector, Times};
use crate::metrics::Metrics;
use crate::owned::{Index, Owned};
use crate::preset::Presets;
use crate::reconcile::validate::Defaults;
use crate::reconcile::{self, Context, events};
use crate::repair;
use crate::uses::{self, Uses};
use crate::watch::{OptionalKinds, Triggers, Watches};
use crate::{names, panics};

/// How long a stop waits for what is in flight.
const STOP: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or Ctrl-C, or until the lease is lost.
///
/// # Errors
/// When the operator cannot start, or stops being the leader: the next process starts from nothing, so that nothing of
/// an old term is carried into a new one.
pub async fn run(run: Run) -> anyhow::Result<()> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider is installed already");
    }
    let client = Client::try_default().await.context("failed to find the API server")?;
    let presets = Presets::load(run.presets.as_deref()).context("failed to read the presets")?;
    let mut panics = panics::watch();
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).context("failed to register metrics")?;
    let repairs = repair::Metrics::register(&registry).context("failed to register metrics of repair")?;
    let readiness = Readiness::default();
    let stop = CancellationToken::new();
    let routes = admin::router(readiness.clone(), registry.clone(), metrics.stacks());
    let address = admin::start(run.admin, routes, stop.clone()).await?;
    tracing::info!(admin = %address, identity = run.pod_name, "operator starts");
    let tracer = export(&run, &registry)?;

    let namespace = run.lease_namespace.as_deref().unwrap_or(&run.pod_namespace);
    let mut elector =
        Elector::new(client.clone(), namespace, &run.lease_name, &run.pod_name, Times::default());
    let mut end = std::pin::pin!(ended());
    tokio::select! {
        ended = &mut end => return ended,
        () = elector.acquire() => {}
    }
    tracing::info!("leading");
    metrics.leads(true);

    let term = CancellationToken::new();
    let mut leads = true;
    let tasks = lead(&run, client, presets, metrics, (repairs, tracer.clone()), readiness.clone(), &term);
    let result = tokio::select! {
        ended = &mut end => ended,
        Some(place) = panics.recv() => {
            readiness.died(&place);
            Err(anyhow::anyhow!("a task panicked at {place}"))
        }
        lost = elector.keep() => {
            leads = false;
            Err(anyhow::Error::new(lost).context("failed to stay the leader"))
        }
    };
    term.cancel();
    tasks.close();
    if tokio::time::timeout(STOP, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "tasks were cut at the stop deadline");
    }
    if leads {
        elector.release().await;
    }
    tracer.stop().await;
    stop.cancel();
    tracing::info!("stopped");
    result
}

/// Has the spans of repairs exported to a collector, if there is one.
fn export(run: &Run, registry: &Registry) -> anyhow::Result<Tracer> {
    let settings = |endpoint: &str| {
        Ok::<_, trace::Error>(Settings {
            endpoint: endpoint.parse()?,
            headers: run.otlp_headers_file.clone().map(HeadersFile),
            sample_ratio: 1.0,
            service: "speechstack-operator".to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            instance: Some(run.pod_name.clone()),
        })
    };
    let tracer = Tracer::new()?;
    tracer.register(registry)?;
    let settings = run.otlp_endpoint.as_deref().map(settings).transpose();
    settings
        .and_then(|settings| tracer.export(settings))
        .context("failed to export traces (--otlp-endpoint, --otlp-headers-file)")?;
    Ok(tracer)
}

/// Starts all that only the leader does. Everything ends with `term`.
fn lead(
    run: &Run,
    client: Client,
    presets: Presets,
    metrics: Metrics,
    (repairs, tracer): (repair::Metrics, Tracer),
    readiness: Readiness,
    term: &CancellationToken,
) -> TaskTracker {
    let tasks = TaskTracker::new();
    let (triggers, queue) = Triggers::new(term.clone());
    let watches = Watches {
        client: client.clone(),
        namespace: run.watch_namespace.clone(),
        triggers,
        readiness,
        metrics: metrics.clone(),
        owned: Arc::new(Index::default()),
        cancel: term.clone(),
    };
    let reporter = Reporter { controller: names::FIELD_MANAGER.into(), instance: Some(run.pod_name.clone()) };
    let tokens = Tokens::of_account(client.clone(), &run.pod_namespace, &run.service_account, &run.pod_name);
    let guards = Guards::new(tokens.clone());
    let uses = Uses::default();
    let owners = watches.owners();
    let workloads = watches.workloads();
    let pods = watches.pods();
    let nodes = watches.nodes(run.watch_nodes);
    let volumes = watches.volumes(run.node_escalation);
    watches.built_in();
    let context = Arc::new(Context {
        client: client.clone(),
        defaults: Defaults {
            proxy_image: run.proxy_image.clone(),
            engine_image: run.engine_image.clone(),
            subject: format!("system:serviceaccount:{}:{}", run.pod_namespace, run.service_account),
            presets: presets.clone(),
            image_registry: run.image_registry.clone(),
            image_pull_secrets: run.image_pull_secrets.clone(),
            fixed_user: run.fixed_user,
        },
        workloads,
        heard: reconcile::complaints::Heard::default(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        owned: watches.owned.clone(),
        guards: guards.clone(),
        optional: Arc::new(OptionalKinds::default()),
        metrics,
        check_secrets: run.check_secrets,
        read_logs: run.read_logs,
        last_words: reconcile::last_words::Read::default(),
        recorder: events::Recorder::new(client.clone(), reporter),
        uses: uses.clone(),
        found: reconcile::observe::TtlCache::default(),
        outside: reconcile::outside::Cache::default(),
        rollouts: reconcile::rollouts::Rollouts::new(usize::from(run.updates_per_cluster)),
        written: reconcile::status::Written::default(),
        errors: parking_lot::Mutex::default(),
    });
    let written = context.clone();
    let stacks = watches.stacks(move |stack| written.written.shown(stack), gone(context.clone(), tokens));
    tasks.spawn(watches.clone().guards(guards.clone(), stacks.clone()));
    tasks.spawn(control(context, watches, stacks.clone(), queue, run.concurrency));
    tasks.spawn(guards::follow(guards.clone(), pods.clone(), owners, term.clone()));
    tasks.spawn(uses::follow(uses, client.clone(), stacks.clone(), guards.clone(), term.clone()));
    let node_escalation = run.node_escalation;
    let namespace = run.watch_namespace.clone();
    let metrics = repairs;
    let healing = repair::Context {
        client,
        stacks,
        pods,
        namespace,
        nodes,
        volumes,
        guards,
        presets,
        per_cluster: usize::from(run.repairs_per_cluster),
        node_escalation,
        metrics,
        tracer,
    };
    tasks.spawn(repair::run(healing, term.clone()));
    tasks
}

/// The reconcile queue, from when everything is listed until the end of the term.
async fn control(
    context: Arc<Context>,
    watches: Watches,
    stacks: Store<SpeechStack>,
    queue: futures::channel::mpsc::Receiver<kube::runtime::reflector::ObjectRef<SpeechStack>>,
    concurrency: u16,
) {
    let term = watches.cancel.clone();
    let listed = async {
        watches.readiness.ready().await;
        context.optional.look(&watches).await;
    };
    if term.run_until_cancelled(listed).await.is_none() {
        return;
    }
    tracing::info!(stacks = stacks.len(), "reconciling");
    let optional = context.optional.clone();
    tokio::spawn({
        let stacks = stacks.clone();
        async move { optional.keep_looking(watches, stacks).await }
    });
    let settings = controller::Config::default().concurrency(concurrency);
    let queue = queue.map(Ok::<_, std::convert::Infallible>).take_until(term.clone().cancelled_owned());
    let reconciler = |stack, context| Box::pin(reconcile::reconcile(stack, context));
    let results = controller::applier(reconciler, reconcile::error_policy, context, stacks, queue, settings);
    let mut results = std::pin::pin!(results);
    while let Some(result) = results.next().await {
        match result {
            // Told by the error policy; or the stack was deleted meanwhile.
            Ok(_) | Err(ControllerError::ReconcilerFailed(..) | ControllerError::ObjectNotFound(_)) => {}
            Err(error) => tracing::error!(%error, "reconcile queue broke"),
        }
    }
}

/// What happens when a stack is gone: its children go by their owner references, its caches stay.
fn gone(context: Arc<Context>, tokens: Tokens) -> impl Fn(SpeechStack) + Send + 'static {
    move |stack| {
        tokens.forget(&kube::runtime::reflector::ObjectRef::from_obj(&stack));
        let (namespace, name) = (stack.namespace().unwrap_or_default(), stack.name_any());
        context.metrics.stacks().forget(&namespace, &name);
        let uid = stack.metadata.uid.as_deref().unwrap_or_default();
        context.written.forget(uid);
        context.outside.forget(uid);
        context.errors.lock().remove(&kube::runtime::reflector::ObjectRef::from_obj(&stack));
        let objects = context.owned.of_stack(&(namespace, name));
        let mut claims: Vec<_> =
            objects.into_keys().filter(|(kind, _)| *kind == Owned::Claim).map(|(_, name)| name).collect();
        claims.sort();
        if let Some(note) = events::caches_kept(&stack, &claims) {
            let context = context.clone();
            tokio::spawn(async move { events::publish(&context.recorder, &stack, vec![note]).await });
        }
    }
}

/// The end that a person or the kubelet asks for.
async fn ended() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to wait for signals")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
