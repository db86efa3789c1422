//! The guard's container: a native sidecar, so that it is there before its engine and after it; alone where the engine runs elsewhere.

use contract::port;
use k8s_openapi::api::core::v1::{Container, ContainerPort, VolumeMount};

use super::pod;
use crate::names::{container, volume};
use crate::reconcile::validate::ValidStack;

/// Folder that guard and engine share.
pub const RUN_PATH: &str = "/run/speechstack";

/// Folder of the engine's model files, which the guard measures and never writes.
pub const CACHE_PATH: &str = "/var/lib/speechstack/models";

/// The guard beside an engine.
pub fn sidecar(stack: &ValidStack, mut mounts: Vec<VolumeMount>) -> Container {
    mounts.push(pod::mount(volume::RUN, RUN_PATH));
    Container { restart_policy: Some("Always".into()), ..alone(stack, mounts) }
}

/// The guard of an engine that runs elsewhere.
pub fn alone(stack: &ValidStack, mut mounts: Vec<VolumeMount>) -> Container {
    mounts.push(pod::mount(volume::TMP, "/tmp"));
    let port = |name: &str, port: i32| ContainerPort {
        name: Some(name.into()),
        container_port: port,
        ..ContainerPort::default()
    };
    Container {
        name: container::GUARD.into(),
        image: Some(stack.guard_image.reference.clone()),
        image_pull_policy: Some(stack.guard_image.pull_policy.into()),
        command: Some(vec!["/usr/local/bin/speechstack-proxy".into()]),
        args: Some(
            ["guard", "--config", "/etc/speechstack/config.yaml", "--set", "engines[0].name=$(POD_NAME)"]
                .map(str::to_owned)
                .into(),
        ),
        env: Some(vec![pod::name()]),
        ports: Some(vec![port("speech", port::GUARD.into()), port("admin", port::GUARD_ADMIN.into())]),
        // Green once the liveness helper is in the shared folder: the engine starts after it.
        startup_probe: Some(pod::http_probe("admin", "/startz", 1, 5, 120)),
        // Turns with the golden probes; the pod is ready when its guard is.
        readiness_probe: Some(pod::http_probe("admin", "/readyz", 2, 5, 1)),
        liveness_probe: Some(pod::http_probe("admin", "/livez", 10, 5, 6)),
        resources: Some(stack.guard.resources.clone().unwrap_or_else(|| pod::requests("50m", "64Mi"))),
        security_context: Some(pod::container_security(true)),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}
