//! Stacks as people read them (pure).

use std::fmt::Write;

use jiff::Timestamp;
use kube::ResourceExt;
use speechstack_crds::{EngineStatus, RepairRecord, SpeechStack};

use crate::reconcile::status::model_cache;

/// Stack, engines and pods, each in a line, with what is wrong below it.
pub fn status(stacks: &[SpeechStack], now: Timestamp) -> String {
    let mut text = String::new();
    for stack in stacks {
        let status = stack.status.clone().unwrap_or_default();
        let phase = status.phase.map_or_else(|| "not seen yet".to_owned(), |phase| format!("{phase:?}"));
        line(
            &mut text,
            0,
            &format!("{}/{}  {phase}", stack.namespace().unwrap_or_default(), stack.name_any()),
        );
        let troubles = status.conditions.iter().filter(|one| {
            let wrong = match one.type_.as_str() {
                "Degraded" | "RepairSuspended" | "CorrelatedFailure" | "GuardUnreachable"
                | "UpdatePending" => "True",
                _ => "False",
            };
            one.status == wrong && one.type_ != "Progressing"
        });
        for one in troubles {
            line(&mut text, 1, &format!("! {} {}: {}", one.type_, one.reason, one.message));
        }
        let records = status.repair.iter().flat_map(|repair| &repair.records);
        let records: Vec<_> = records.collect();
        status.engines.iter().for_each(|one| engine(&mut text, one, &records, now));
    }
    if text.is_empty() { "no stacks\n".to_owned() } else { text }
}

fn engine(text: &mut String, engine: &EngineStatus, records: &[&RepairRecord], now: Timestamp) {
    let verified = format!("{}/{} verified", engine.verified, engine.desired);
    let model = engine.model.as_ref().map_or_else(String::new, |model| format!("  {model}"));
    let profile = engine.profile.as_ref().map_or_else(String::new, |profile| format!(", profile {profile}"));
    line(text, 1, &format!("{} ({})  {verified}{model}{profile}", engine.name, engine.capability.as_str()));
    for pod in &engine.pods {
        let node = pod.node.as_deref().unwrap_or("no node");
        let class = pod.class.as_ref().map_or_else(String::new, |class| format!(", class {class}"));
        let says = pod.says.as_ref().map_or_else(String::new, |says| format!(", says {says:?}"));
        line(
            text,
            2,
            &format!("{}  {}{class}{says}  on {node}, {} restarts", pod.name, pod.state, pod.restarts),
        );
        if let Some(cache) = &pod.model_cache {
            line(text, 3, &model_cache::words(cache, Some(now)));
        }
    }
    if let Some(last) = records.iter().rev().find(|record| record.engine == engine.name) {
        line(text, 2, &format!("last repair: {}", repair(last)));
    }
    if let Some(failure) = &engine.last_failure {
        line(text, 2, &format!("last failure: {} of {}: {}", failure.reason, failure.pod, failure.message));
    }
}

/// All repairs on record, newest first.
pub fn incidents(stacks: &[SpeechStack]) -> String {
    let mut all: Vec<(Timestamp, String)> = Vec::new();
    for stack in stacks {
        let place = format!("{}/{}", stack.namespace().unwrap_or_default(), stack.name_any());
        let repair_status = stack.status.iter().filter_map(|status| status.repair.as_ref());
        for record in repair_status.flat_map(|repair| &repair.records) {
            all.push((record.ordered.0, format!("{place}  {}", repair(record))));
        }
    }
    all.sort_by(|a, b| b.cmp(a));
    let lines: String = all.into_iter().map(|(_, line)| line + "\n").collect();
    if lines.is_empty() { "no repairs on record\n".to_owned() } else { lines }
}

fn repair(record: &RepairRecord) -> String {
    let class = record.class.as_deref().unwrap_or("unknown");
    let ended = record.ended.as_ref().map_or_else(String::new, |ended| {
        format!(" after {} s", ended.0.as_second() - record.ordered.0.as_second())
    });
    format!(
        "{}  {} of {} in pod {}, class {class}: {}{ended}",
        record.ordered.0,
        record.rung.as_str(),
        record.engine,
        record.pod,
        record.outcome.as_str()
    )
}

fn line(text: &mut String, depth: usize, words: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{:1$}{words}", "", depth * 2);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wedge_is_told_with_its_pod_its_repair_and_its_reason() {
        let stack = json!({
            "apiVersion": "speechstack.dev/v1alpha1", "kind": "SpeechStack",
            "metadata": {"name": "demo", "namespace": "speech"},
            "spec": {"stt": [{"name": "ears", "preset": "reference"}]},
            "status": {
                "phase": "Repairing",
                "conditions": [
                    {"type": "Ready", "status": "False", "reason": "Repairing", "message": "0/1",
                     "lastTransitionTime": "2026-11-01T00:00:00Z"},
                    {"type": "RepairSuspended", "status": "False", "reason": "None", "message": "",
                     "lastTransitionTime": "2026-11-01T00:00:00Z"}],
                "engines": [{"name": "ears", "capability": "stt", "desired": 1, "ready": 0, "verified": 0, "updated": 1,
                    "model": "parakeet-v3", "profile": "09c2",
                    "pods": [
                        {"name": "demo-ears-1", "node": "n1", "state": "wedged", "class": "A", "restarts": 2},
                        {"name": "demo-ears-2", "node": "n1", "state": "starting", "restarts": 0, "modelCache": {
                            "bytes": 3_221_225_472_u64, "percent": 50, "bytesPerSecond": 0, "activity": "Quiet",
                            "unchangedSince": "2026-11-01T00:00:00Z", "updated": "2026-11-01T00:01:00Z"}}]}],
                "repair": {"total": 1, "records": [{
                    "engine": "ears", "pod": "demo-ears-1", "podUid": "u", "instance": "i", "rung": "Restart", "class": "A",
                    "attempt": 0, "ordered": "2026-11-01T00:00:00.000000Z", "outcome": "Recovered",
                    "ended": "2026-11-01T00:00:09.000000Z"}]},
            },
        });
        let stack: SpeechStack = serde_json::from_value(stack).unwrap();
        let now = "2026-11-01T00:07:30Z".parse().unwrap();
        let text = status(std::slice::from_ref(&stack), now);
        for words in [
            "speech/demo  Repairing",
            "  ! Ready Repairing: 0/1",
            "  ears (stt)  0/1 verified  parakeet-v3, profile 09c2",
            "    demo-ears-1  wedged, class A  on n1, 2 restarts",
            "      model cache 3.0 GiB, 50%, no growth for 7 min, the engine does nothing",
            "last repair: 2026-11-01T00:00:00Z  Restart of ears in pod demo-ears-1, class A: Recovered after 9 s",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
        assert!(!text.contains("RepairSuspended"));
        assert!(incidents(&[stack]).starts_with("speech/demo  2026-11-01"));
        assert_eq!(status(&[], now), "no stacks\n");
    }
}
