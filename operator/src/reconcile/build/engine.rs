//! One engine: its account, headless Service and cache claims.

use contract::port;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Service, ServiceAccount, ServicePort, ServiceSpec,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use super::metadata;
use crate::names::{label, volume};
use crate::reconcile::validate::{Claim, ValidEngine, ValidStack, Volume};

/// The account of engine pods. It has no rights; guards only need a token to read the API server's public keys.
pub fn service_account(stack: &ValidStack) -> ServiceAccount {
    let mut labels = metadata::gateway_labels(stack);
    labels.insert(label::COMPONENT.into(), "engine".into());
    ServiceAccount {
        metadata: metadata::owned(stack, metadata::engine_account(stack), labels),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The Service through which gateways find the engine's pods.
pub fn service(stack: &ValidStack, engine: &ValidEngine) -> Service {
    let port = |name: &str, number: i32| ServicePort {
        name: Some(name.into()),
        port: number,
        target_port: Some(IntOrString::String(name.into())),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata::engine(stack, engine),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            selector: metadata::engine_selector(stack, engine).match_labels,
            ports: Some(vec![port("speech", port::GUARD.into()), port("admin", port::GUARD_ADMIN.into())]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The cache that all replicas share, when the operator makes it. No owner: half an hour of download must not go with the
/// stack.
pub fn claim(stack: &ValidStack, engine: &ValidEngine) -> Option<PersistentVolumeClaim> {
    let Some((Volume::New(claim), _)) = &engine.cache else { return None };
    let metadata =
        metadata::kept(stack, metadata::of_cache(stack, engine), metadata::engine_labels(stack, engine));
    claim.is_shared().then(|| PersistentVolumeClaim { metadata, spec: Some(claim_spec(claim)), status: None })
}

/// The template of the claims that replicas have of their own. It cannot change once it exists: claims grow one by one.
pub fn claim_template(stack: &ValidStack, engine: &ValidEngine) -> Option<PersistentVolumeClaim> {
    let claim = engine.own_claim()?;
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(volume::CACHE.into()),
            labels: Some(metadata::engine_labels(stack, engine)),
            ..ObjectMeta::default()
        },
        spec: Some(claim_spec(claim)),
        status: None,
    })
}

/// The size that the engine's claims should have at least, with the beginning of their names.
pub fn growth(stack: &ValidStack, engine: &ValidEngine) -> Option<(String, Quantity)> {
    let Some((Volume::New(claim), _)) = &engine.cache else { return None };
    let names = if claim.is_shared() {
        metadata::of_cache(stack, engine)
    } else {
        format!("{}-{}-", volume::CACHE, metadata::of_engine(stack, engine))
    };
    Some((names, claim.size.clone()))
}

/// Whether a claim is the one of that name, or one of those that begin with it and end with a replica's number.
#[must_use]
pub fn is_claim(names: &str, name: &str) -> bool {
    let rest = name.strip_prefix(names);
    let is_number = |rest: &str| rest.parse::<u16>().is_ok();
    rest.is_some_and(|rest| if names.ends_with('-') { is_number(rest) } else { rest.is_empty() })
}

/// The spec of a claim.
pub fn claim_spec(claim: &Claim) -> PersistentVolumeClaimSpec {
    PersistentVolumeClaimSpec {
        access_modes: Some(vec![claim.access_mode.clone()]),
        storage_class_name: claim.storage_class.clone(),
        resources: Some(VolumeResourceRequirements {
            requests: Some([("storage".to_owned(), claim.size.clone())].into()),
            limits: None,
        }),
        ..PersistentVolumeClaimSpec::default()
    }
}
