//! `spec.gateway.storage`: where jobs and recordings of voices are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Ephemeral, NewClaim, SharedRedis, schema};

/// A volume of the gateway. Set one of the three.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("[has(self.existingClaim), has(self.pvc), has(self.ephemeral)].filter(set, set).size() == 1",
     "set exactly one of gateway.storage.existingClaim, pvc and ephemeral"),
    ("!(has(self.jobs) && !self.jobs && has(self.recordings) && !self.recordings)",
     "gateway.storage keeps nothing: leave storage.jobs or storage.recordings on, or remove it"),
    ("!has(self.redis) || !has(self.jobs) || self.jobs",
     "gateway.storage.redis keeps jobs: leave storage.jobs on, or remove it"),
    ("!has(self.redis) || !has(self.ephemeral)",
     "gateway.storage.redis needs a volume that all gateway pods have: set storage.pvc.accessMode: ReadWriteMany or storage.existingClaim"),
])))]
pub struct Storage {
    /// A PersistentVolumeClaim that you made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub existing_claim: Option<String>,
    /// A PersistentVolumeClaim that the operator makes. It outlives the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<NewClaim>,
    /// A volume that ends with the pod: jobs outlive a crash of the gateway and not its rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Ephemeral>,
    /// Whether transcriptions may run as jobs. Without `redis` jobs are those of one gateway pod, which is replaced without a second
    /// one beside it.
    #[serde(default = "yes")]
    pub jobs: bool,
    /// Whether speakers and voices may be kept by name.
    #[serde(default = "yes")]
    pub recordings: bool,
    /// Where several gateway pods keep the records of their jobs. The files stay on the volume, which all of them must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<SharedRedis>,
}

fn yes() -> bool {
    true
}
