//! The Job that fills an engine's cache before its first start.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, PodTemplateSpec, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use speechstack_crds::{Prefill, Span};

use super::{metadata, pod, template};
use crate::fingerprint;
use crate::names::{container, volume};
use crate::preset::Server;
use crate::reconcile::observe::{Filling, Observed};
use crate::reconcile::validate::{ValidEngine, ValidStack};

/// Longest time, unless the stack says otherwise.
const TIMEOUT: Span = Span::minutes(6 * 60);
/// Tries of a command.
const TRIES: i32 = 6;
/// How often the engine is asked whether it is ready, seconds.
const PERIOD: i32 = 5;

/// What is to be done about an engine's cache.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The Job, if it is to be there.
    pub job: Option<Job>,
    /// Whether the engine's pods wait for it.
    pub holds: bool,
}

/// What is to be done: an engine that runs waits for nothing, one without pods for a Job that filled the cache for its template.
pub fn plan(stack: &ValidStack, engine: &ValidEngine, observed: &Observed) -> Plan {
    let Some(prefill) = engine.spec.cache.as_ref().and_then(|cache| cache.prefill.as_ref()) else {
        return Plan { job: None, holds: false };
    };
    let job = job(stack, engine, prefill);
    let filling = observed.fillings.get(job.metadata.name.as_deref().unwrap_or_default());
    let live = observed.workloads.get(&metadata::of_engine(stack, engine));
    let runs = live.is_some_and(|live| live.replicas > 0);
    let begins = !runs && !stack.suspend;
    Plan {
        job: (filling.is_some() || begins).then_some(job),
        holds: !runs && !matches!(filling, Some(Filling::Complete)),
    }
}

/// How far it is, while the engine's pods wait for it.
pub fn filling<'a>(stack: &ValidStack, engine: &ValidEngine, observed: &'a Observed) -> Option<&'a Filling> {
    let plan = plan(stack, engine, observed);
    let job = plan.job.filter(|_| plan.holds)?;
    Some(observed.fillings.get(job.metadata.name.as_deref()?).unwrap_or(&Filling::BEGINS))
}

/// The Job. Its name has a fingerprint of its template, which cannot change: another image or command is another Job.
fn job(stack: &ValidStack, engine: &ValidEngine, prefill: &Prefill) -> Job {
    let template = template(stack, engine, prefill);
    let revision = fingerprint::of(&fingerprint::json(&template));
    let name =
        format!("{}-prefill-{}", metadata::of_engine(stack, engine), revision.get(..8).unwrap_or(&revision));
    let timeout = prefill.timeout.unwrap_or(TIMEOUT).0.as_secs();
    Job {
        metadata: metadata::owned(stack, name, metadata::engine_labels(stack, engine)),
        spec: Some(JobSpec {
            backoff_limit: Some(TRIES),
            active_deadline_seconds: i64::try_from(timeout).ok(),
            template,
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The engine's pod without its guard and what only a guard needs.
fn template(stack: &ValidStack, engine: &ValidEngine, prefill: &Prefill) -> PodTemplateSpec {
    let of_engine = template::template(stack, engine, String::new());
    let mut spec = of_engine.spec.unwrap_or_default();
    let guards = [
        volume::RUN,
        volume::CONFIG,
        volume::IDENTITY,
        volume::GATEWAY_CONFIG,
        volume::GATEWAY_TMP,
        volume::KEYS,
        volume::REDIS,
        volume::TRACING,
        volume::TLS,
    ];
    spec.volumes.iter_mut().for_each(|all| all.retain(|one| !guards.contains(&&*one.name)));
    spec.init_containers = None;
    spec.share_process_namespace = None;
    spec.restart_policy = Some("OnFailure".into());
    spec.termination_grace_period_seconds = None;
    let engines = spec.containers.iter().position(|one| one.name == container::ENGINE);
    let Some(mut filler) = engines.map(|at| spec.containers.swap_remove(at)) else {
        return PodTemplateSpec { metadata: None, spec: Some(spec) }; // a patch cannot take it away
    };
    filler.volume_mounts.iter_mut().for_each(|all| all.retain(|one| one.name != volume::RUN));
    filler.liveness_probe = None;
    filler.lifecycle = None;
    if prefill.command.is_empty() {
        filler.restart_policy = Some("Always".into());
        filler.startup_probe = Some(ready(engine, prefill));
        spec.init_containers = Some(vec![filler]);
        spec.containers = vec![Container {
            name: container::READY.into(),
            image: Some(stack.guard_image.reference.clone()),
            image_pull_policy: Some(stack.guard_image.pull_policy.into()),
            command: Some(["/usr/local/bin/speechstack-proxy", "--version"].map(str::to_owned).into()),
            resources: Some(pod::requests("10m", "16Mi")),
            security_context: Some(pod::container_security(true)),
            ..Container::default()
        }];
    } else {
        filler.command = Some(prefill.command.clone());
        filler.args = None;
        without_gpu(&mut filler, engine);
        spec.resource_claims = None;
        spec.containers = vec![filler];
    }
    let labels = metadata::prefill_labels(stack);
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(spec),
    }
}

/// Ready once it answers, however long that takes: the Job has a time limit of its own.
fn ready(engine: &ValidEngine, prefill: &Prefill) -> Probe {
    let of_server = match engine.preset.server {
        Server::Nim | Server::Reference => Some("/v1/health/ready"),
        Server::Plain => None,
    };
    let path = prefill.ready_path.as_deref().or(of_server);
    let port = || IntOrString::String("http".into());
    Probe {
        http_get: path.map(|path| HTTPGetAction {
            path: Some(path.into()),
            port: port(),
            ..HTTPGetAction::default()
        }),
        tcp_socket: path.is_none().then(|| TCPSocketAction { host: None, port: port() }),
        period_seconds: Some(PERIOD),
        timeout_seconds: Some(PERIOD),
        failure_threshold: Some(i32::MAX / PERIOD),
        ..Probe::default()
    }
}

fn without_gpu(container: &mut Container, engine: &ValidEngine) {
    let Some(resources) = container.resources.as_mut() else { return };
    resources.claims = None;
    let crate::reconcile::validate::Gpu::Count { resource, .. } = &engine.gpu else { return };
    for list in [&mut resources.requests, &mut resources.limits].into_iter().flatten() {
        list.remove(resource);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::reconcile::build::{DesiredObjects, build, tests::live};
    use crate::reconcile::testing;

    const CACHE: &str = "existingClaim: models";

    fn spec(prefill: &str) -> String {
        format!(
            "stt: [{{name: ears, preset: parakeet-rnnt-1.1b, replicas: 2, cache: {{{CACHE}{prefill}}}}}]\nauth: {{ngcSecretRef: {{name: ngc}}}}\n"
        )
    }

    fn built(spec: &str, observe: impl FnOnce(&mut Observed)) -> DesiredObjects {
        let mut observed = testing::observed();
        observe(&mut observed);
        build(&testing::valid(spec), &observed)
    }

    fn pod(desired: &DesiredObjects) -> Value {
        fingerprint::json(&desired.jobs[0])["spec"]["template"].clone()
    }

    #[test]
    fn the_engine_itself_fills_its_cache_until_it_is_ready() {
        let desired = built(&spec(", prefill: {}"), |_| {});
        let pod = pod(&desired);
        let engine = &pod["spec"]["initContainers"][0];
        assert_eq!((&engine["name"], &engine["restartPolicy"]), (&json!("engine"), &json!("Always")));
        assert_eq!(engine["startupProbe"]["httpGet"], json!({"path": "/v1/health/ready", "port": "http"}));
        assert_eq!(engine["resources"]["limits"]["nvidia.com/gpu"], "1");
        assert!(engine["env"].to_string().contains("NGC_API_KEY") && engine["livenessProbe"].is_null());
        assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1);
        assert_eq!(pod["spec"]["containers"][0]["name"], "ready");
        let labels = pod["metadata"]["labels"].as_object().unwrap();
        assert!(!labels.contains_key(crate::names::label::ENGINE), "the engine's Service would take it");
        let volumes = pod["spec"]["volumes"].to_string();
        assert!(volumes.contains("models") && !volumes.contains("configMap"), "{volumes}");
        let mounted: Vec<&str> = [&pod["spec"]["initContainers"], &pod["spec"]["containers"]]
            .into_iter()
            .flat_map(|all| all.as_array().unwrap())
            .flat_map(|one| one["volumeMounts"].as_array().into_iter().flatten())
            .map(|mount| mount["name"].as_str().unwrap())
            .collect();
        let has =
            |name: &&str| pod["spec"]["volumes"].as_array().unwrap().iter().any(|one| one["name"] == **name);
        assert!(mounted.iter().all(has), "{mounted:?}");
    }

    #[test]
    fn a_command_fills_it_without_a_gpu() {
        let desired = built(&spec(", prefill: {command: [download-to-cache], timeout: 1h}"), |_| {});
        let job = fingerprint::json(&desired.jobs[0]);
        assert_eq!(job["spec"]["activeDeadlineSeconds"], 3600);
        let pod = pod(&desired);
        assert!(pod["spec"]["initContainers"].is_null());
        let filler = &pod["spec"]["containers"][0];
        assert_eq!((&filler["name"], &filler["command"]), (&json!("engine"), &json!(["download-to-cache"])));
        assert!(!filler["resources"].to_string().contains("gpu"), "{}", filler["resources"]);
        assert!(filler["volumeMounts"].to_string().contains("/opt/nim/.cache"));
    }

    #[test]
    fn pods_wait_for_the_job_and_an_engine_that_runs_waits_for_nothing() {
        let wanted = spec(", prefill: {}");
        let replicas = |desired: &DesiredObjects| desired.engines[0].replicas;
        let first = built(&wanted, |_| {});
        assert_eq!((replicas(&first), first.jobs.len()), (Some(0), 1));
        let name = first.jobs[0].metadata.name.clone().unwrap();
        let seen = |filling: Filling| {
            let name = name.clone();
            built(&wanted, move |observed| {
                observed.fillings.insert(name, filling);
            })
        };
        assert_eq!(replicas(&seen(Filling::BEGINS)), Some(0));
        assert_eq!(replicas(&seen(Filling::Failed("no key".into()))), Some(0));
        let filled = seen(Filling::Complete);
        assert_eq!(
            (replicas(&filled), filled.jobs.len()),
            (Some(2), 1),
            "the Job stays as the note that it was done"
        );

        let running = live(&filled.engines[0]);
        let known = |spec: &str| {
            built(spec, |observed| _ = observed.workloads.insert("demo-ears".into(), running.clone()))
        };
        let goes_on = known(&wanted);
        assert_eq!((replicas(&goes_on), goes_on.jobs.len()), (Some(2), 0));
        assert_eq!(goes_on.engines[0].inputs, known(&spec("")).engines[0].inputs, "prefill rolls no pod");
        let suspended = built(&format!("{wanted}suspend: true\n"), |_| {});
        assert_eq!((replicas(&suspended), suspended.jobs.len()), (Some(0), 0));
        let other = built(&wanted.replace("rnnt-1.1b", "ctc-1.1b-en"), |_| {});
        assert_ne!(other.jobs[0].metadata.name, Some(name), "another image is another Job");
    }
}
