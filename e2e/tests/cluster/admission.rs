//! What the real API server makes of specs: every rule refuses, every sample passes.

use anyhow::{Context, Result, bail, ensure};
use kube::CustomResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use speechstack_crds::SpeechStack;

use super::fixture::Fixture;
use super::refusals::{ON_UPDATE, messages, refusals};

/// Each rule refuses with its own words, and no rule is left out.
pub async fn every_rule_refuses_with_its_message(fixture: &Fixture) -> Result<()> {
    let mut all = Vec::new();
    messages(&serde_json::to_value(SpeechStack::crd())?, &mut all);
    ensure!(!all.is_empty(), "the CRD has no rules");
    let refusals = refusals();
    for message in &all {
        let covered = refusals.iter().map(|refusal| refusal.message).chain(ON_UPDATE.iter().copied());
        ensure!(
            covered.into_iter().any(|start| message.starts_with(start)),
            "no refusal for the rule {message:?}"
        );
    }
    for refusal in refusals {
        let refused = create(fixture, refusal.name, &refusal.spec).await;
        let Err(error) = refused else { bail!("accepted, though {:?}: {}", refusal.message, refusal.spec) };
        ensure!(error.contains(refusal.message), "{} was refused with other words: {error}", refusal.spec);
    }
    storage_class_is_for_ever(fixture).await
}

async fn storage_class_is_for_ever(fixture: &Fixture) -> Result<()> {
    let engine = |class: &str| {
        json!({"spec": {"stt": [{
            "name": "parakeet", "preset": "reference", "replicas": 0,
            "cache": {"pvc": {"size": "1Gi", "storageClassName": class}},
        }]}})
    };
    let stacks: Api<SpeechStack> = Api::namespaced(fixture.space.cluster.client.clone(), &fixture.space.name);
    let create = |class| {
        let mut object = engine(class);
        object["apiVersion"] = json!("speechstack.dev/v1alpha1");
        object["kind"] = json!("SpeechStack");
        object["metadata"] = json!({"name": "cached"});
        object
    };
    let apply = PatchParams::apply("e2e").force();
    stacks.patch("cached", &apply, &Patch::Apply(create("fast"))).await.context("the first spec")?;
    let changed = stacks.patch("cached", &apply, &Patch::Apply(create("slow"))).await;
    let Err(error) = changed else { bail!("the storage class was changed") };
    ensure!(error.to_string().contains(ON_UPDATE[0]), "other words: {error}");
    stacks.delete("cached", &Default::default()).await?;
    Ok(())
}

/// The samples that users start from are accepted, without a warning about unknown fields.
pub async fn every_sample_is_accepted(fixture: &Fixture) -> Result<()> {
    let folder = speechstack_e2e::binaries::repository().join("charts/speechstack/samples");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let file = path.to_str().context("a path that is no text")?;
        let args = ["apply", "--dry-run=server", "--validate=strict", "-f", file];
        fixture.space.kubectl(&args).await.with_context(|| format!("{file} is refused"))?;
        seen += 1;
    }
    ensure!(seen >= 5, "only {seen} samples in {}", folder.display());
    Ok(())
}

async fn create(fixture: &Fixture, name: &str, spec: &Value) -> Result<(), String> {
    let object = json!({
        "apiVersion": "speechstack.dev/v1alpha1", "kind": "SpeechStack",
        "metadata": {"name": name}, "spec": spec,
    });
    // Untyped: what a client can send is more than what our types can say.
    let kind = kube::core::ApiResource::erase::<SpeechStack>(&());
    let stacks: Api<kube::core::DynamicObject> =
        Api::namespaced_with(fixture.space.cluster.client.clone(), &fixture.space.name, &kind);
    let object = serde_json::from_value(object).map_err(|error| error.to_string())?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    stacks.create(&dry, &object).await.map(drop).map_err(|error| error.to_string())
}
