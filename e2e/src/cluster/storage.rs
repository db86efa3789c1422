//! Volumes on demand: folders that both nodes see, as a file server of a real cluster would give them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, from_value, json};

/// The default storage class.
const CLASS: &str = "shared";

/// Makes the default storage class.
///
/// # Errors
/// When the API server refuses it.
pub async fn create_class(client: &Client) -> Result<()> {
    let class: StorageClass = from_value(json!({
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "speechstack.dev/folder",
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "Immediate",
    }))?;
    Api::all(client.clone()).create(&PostParams::default(), &class).await.context("no storage class")?;
    Ok(())
}

/// Gives every claim a volume and removes the volumes of claims that are gone, for as long as it is polled; what fails
/// is said on stderr and met again at the next change.
pub async fn provision(client: Client, folder: PathBuf) {
    let claims = watcher(Api::<PersistentVolumeClaim>::all(client.clone()), watcher::Config::default());
    let volumes = watcher(Api::<PersistentVolume>::all(client.clone()), watcher::Config::default());
    let claims = claims
        .default_backoff()
        .applied_objects()
        .boxed()
        .map(|claim| claim.map(|one| Change::Claim(Box::new(one))));
    let volumes = volumes
        .default_backoff()
        .applied_objects()
        .boxed()
        .map(|volume| volume.map(|one| Change::Volume(Box::new(one))));
    let changes = futures::stream::select(claims, volumes);
    pin_mut!(changes);
    while let Some(change) = changes.next().await {
        let done = match change {
            Ok(Change::Claim(claim)) => give(&client, &folder, &claim).await,
            Ok(Change::Volume(volume)) => take_back(&client, &folder, &volume).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            eprintln!("volumes: {error:#}");
        }
    }
}

enum Change {
    Claim(Box<PersistentVolumeClaim>),
    Volume(Box<PersistentVolume>),
}

async fn give(client: &Client, folder: &std::path::Path, claim: &PersistentVolumeClaim) -> Result<()> {
    let Some(spec) = &claim.spec else { return Ok(()) };
    if spec.storage_class_name.as_deref() != Some(CLASS) || spec.volume_name.is_some() {
        return Ok(());
    }
    let uid = claim.uid().context("a claim without identity")?;
    let name = format!("claim-{uid}");
    let path = folder.join(&name);
    std::fs::create_dir_all(&path)?;
    // Any user that a pod runs as may write.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let asked = spec.resources.as_ref().and_then(|resources| resources.requests.clone()).unwrap_or_default();
    let volume: Value = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": spec.access_modes,
            "capacity": {"storage": asked.get("storage")},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.name_any(),
                "namespace": claim.namespace(), "uid": uid},
            "hostPath": {"path": path},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
        },
    });
    let apply = PatchParams::apply("folders").force();
    let api = Api::<PersistentVolume>::all(client.clone());
    api.patch(&name, &apply, &Patch::Apply(volume)).await.context("unable to make a volume")?;
    Ok(())
}

async fn take_back(client: &Client, folder: &std::path::Path, volume: &PersistentVolume) -> Result<()> {
    let released = volume.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Released"));
    if !released || volume.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let name = volume.name_any();
    let api = Api::<PersistentVolume>::all(client.clone());
    api.delete(&name, &DeleteParams::default()).await.context("unable to delete a volume")?;
    std::fs::remove_dir_all(folder.join(&name)).with_context(|| format!("unable to empty volume {name}"))
}
