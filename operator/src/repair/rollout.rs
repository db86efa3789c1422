//! Whether wedges are confined to one pod template, which makes its rollout the suspect: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use speechstack_crds::RepairRecord;

use super::budget::{counts, on_pod, ordered};
use super::view::EngineView;

/// Wedges this old still count.
const WINDOW: Duration = Duration::from_secs(1800);
/// Share of the wedges, percent.
const SHARE: usize = 80;
/// Repairs of the template before it is suspected.
const TRIED: usize = 2;

/// The template that nearly all recent wedges have in common while pods of another are verified, once two repairs of
/// its pods were tried.
#[must_use]
pub fn suspect<'a>(engine: &'a EngineView, records: &'a [RepairRecord], now: Timestamp) -> Option<&'a str> {
    let recent = records.iter().filter(|record| {
        record.engine == engine.name && counts(record) && on_pod(record.rung) && ordered(record, now) < WINDOW
    });
    let mut pods: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    for record in recent {
        if let Some(template) = &record.template {
            pods.entry(template).or_default().insert(&record.pod_uid);
            *tried.entry(template).or_default() += 1;
        }
    }
    for pod in engine.pods.iter().filter(|pod| pod.is_wedged()) {
        if let Some(template) = &pod.template {
            pods.entry(template).or_default().insert(&pod.uid);
        }
    }
    let all: usize = pods.values().map(BTreeSet::len).sum();
    let (template, wedged) = pods.iter().max_by_key(|(_, pods)| pods.len())?;
    let confined = wedged.len() * 100 >= all * SHARE;
    // Another template is clean when one of its pods serves and none of them wedged.
    let clean = engine.pods.iter().any(|pod| {
        pod.is_verified() && pod.template.as_deref().is_some_and(|other| !pods.contains_key(other))
    });
    let repaired = tried.get(template).copied().unwrap_or(0) >= TRIED;
    (confined && clean && repaired).then_some(*template)
}
