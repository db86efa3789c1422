//! How far the downloads of engines are, as their guards measure them (pure).

use contract::{CacheActivity as Said, ModelCache};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use speechstack_crds::{CacheActivity, EngineStatus, ModelCacheStatus, PodStatus};

use super::second;
use crate::reconcile::quantity;
use crate::reconcile::validate::ValidEngine;

/// Least time between two figures of one engine, seconds: with many replicas that download, too, its stack's status is
/// written no oftener for them.
const SPACING: i64 = 30;

/// What a filled cache of the engine holds, bytes, where its preset says so.
pub fn expected(engine: &ValidEngine) -> Option<u64> {
    let models = engine.preset.cache.as_ref()?.models.as_ref()?;
    quantity::units(models).filter(|bytes| *bytes > 0)
}

/// What is shown of a pod: what its guard says now, or what was shown before if the engine's figures are new. A pod of which
/// nothing was shown does not wait.
pub fn shown(
    said: &ModelCache,
    expected: Option<u64>,
    name: &str,
    before: Option<&EngineStatus>,
    now: Timestamp,
) -> ModelCacheStatus {
    let pods = || before.into_iter().flat_map(|engine| &engine.pods);
    let known = pods().find(|pod| pod.name == name).and_then(|pod| pod.model_cache.as_ref());
    let newest = pods().filter_map(|pod| pod.model_cache.as_ref()).map(|cache| cache.updated.0).max();
    let Some(known) = known else { return status(said, expected, now) };
    let age = newest.map_or(SPACING, |newest| now.as_second() - newest.as_second());
    let fresh = status(said, expected, now);
    let same = ModelCacheStatus { updated: known.updated.clone(), ..fresh.clone() } == *known;
    // A clock that was set back must not hold figures up for ever.
    if same || (0..SPACING).contains(&age) { known.clone() } else { fresh }
}

fn status(said: &ModelCache, expected: Option<u64>, now: Timestamp) -> ModelCacheStatus {
    let percent = |expected: u64| {
        let percent = u128::from(said.bytes).saturating_mul(100).checked_div(expected.into())?;
        i32::try_from(percent.min(100)).ok()
    };
    let since = i64::try_from(said.unchanged_since_unix_ms / 1000).unwrap_or(i64::MAX);
    ModelCacheStatus {
        bytes: i64::try_from(said.bytes).unwrap_or(i64::MAX),
        percent: expected.and_then(percent),
        partial: said.partial,
        bytes_per_second: i64::try_from(said.bytes_per_second).unwrap_or(i64::MAX),
        activity: match said.activity {
            Said::Growing => CacheActivity::Growing,
            Said::Loading => CacheActivity::Loading,
            Said::Quiet => CacheActivity::Quiet,
            Said::Other => CacheActivity::Unknown,
        },
        unchanged_since: Time(Timestamp::from_second(since).unwrap_or(now)),
        updated: Time(second(now)),
    }
}

/// The figures in words, for a reader at that time; without a time they stay true for as long as nothing changes.
pub fn words(cache: &ModelCacheStatus, now: Option<Timestamp>) -> String {
    let more = if cache.partial { " or more" } else { "" };
    let percent = cache.percent.map_or_else(String::new, |percent| format!(", {percent}%"));
    let since = match now {
        Some(now) => {
            let minutes = (now.as_second() - cache.unchanged_since.0.as_second()).max(0) / 60;
            format!("for {minutes} min")
        }
        None => format!("since {}", cache.unchanged_since.0),
    };
    let activity = match cache.activity {
        CacheActivity::Growing if cache.bytes_per_second > 0 => {
            format!(", growing by {}/s", size(cache.bytes_per_second))
        }
        CacheActivity::Growing | CacheActivity::Unknown => String::new(),
        CacheActivity::Loading => format!(", no growth {since}, the engine computes or reads"),
        CacheActivity::Quiet => format!(", no growth {since}, the engine does nothing"),
    };
    format!("model cache {}{more}{percent}{activity}", size(cache.bytes))
}

/// The words about an engine's pods, for a condition: those of the first that has any, the least advanced activity first.
pub fn of_pods(pods: &[PodStatus]) -> Option<String> {
    let order = |activity: CacheActivity| match activity {
        CacheActivity::Quiet => 0,
        CacheActivity::Growing => 1,
        CacheActivity::Loading => 2,
        CacheActivity::Unknown => 3,
    };
    let with = pods.iter().filter_map(|pod| Some((pod, pod.model_cache.as_ref()?)));
    let (pod, cache) = with.min_by_key(|(_, cache)| order(cache.activity))?;
    Some(format!("pod {}: {}", pod.name, words(cache, None)))
}

fn size(bytes: i64) -> String {
    const UNITS: [(&str, i64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        // Tenths, without the rounding of floats.
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn said(gib: u64, activity: Said) -> ModelCache {
        let (bytes_per_second, unchanged_since_unix_ms) = (85 << 20, 40_500);
        ModelCache { bytes: gib * GIB, partial: false, bytes_per_second, unchanged_since_unix_ms, activity }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn engine(pods: &[(&str, ModelCacheStatus)]) -> EngineStatus {
        let pod = |(name, cache): &(&str, ModelCacheStatus)| serde_json::json!({"name": name, "state": "starting", "restarts": 0, "modelCache": cache});
        let pods: Vec<_> = pods.iter().map(pod).collect();
        serde_json::from_value(serde_json::json!({
            "name": "ears", "capability": "stt", "desired": 2, "ready": 0, "verified": 0, "updated": 2, "pods": pods,
        }))
        .unwrap()
    }

    #[test]
    fn words_tell_size_rate_percent_and_whether_it_stalls_or_loads() {
        let words = |cache: ModelCache, expected, now| words(&status(&cache, expected, at(100)), now);
        let growing = said(3, Said::Growing);
        assert_eq!(words(growing.clone(), None, None), "model cache 3.0 GiB, growing by 85.0 MiB/s");
        let partly = ModelCache { partial: true, bytes: 5 * GIB + GIB / 2, ..growing };
        assert_eq!(
            words(partly, Some(6 * GIB), None),
            "model cache 5.5 GiB or more, 91%, growing by 85.0 MiB/s"
        );
        assert_eq!(
            words(said(3, Said::Quiet), None, None),
            "model cache 3.0 GiB, no growth since 1970-01-01T00:00:40Z, the engine does nothing"
        );
        assert_eq!(
            words(said(7, Said::Loading), Some(6 * GIB), Some(at(40 + 7 * 60))),
            "model cache 7.0 GiB, 100%, no growth for 7 min, the engine computes or reads"
        );
        let empty = ModelCache { bytes: 900, bytes_per_second: 0, ..said(0, Said::Growing) };
        assert_eq!(words(empty, Some(6 * GIB), None), "model cache 900 B, 0%");
        assert_eq!(words(said(1, Said::Other), None, None), "model cache 1.0 GiB");
    }

    #[test]
    fn figures_of_one_engine_change_at_most_each_30_seconds_whichever_pod_they_are_of() {
        let (first, second) = (said(1, Said::Growing), said(2, Said::Growing));
        let before = engine(&[("a", status(&first, None, at(100))), ("b", status(&first, None, at(110)))]);
        let shown = |name: &str, said: &ModelCache, now| shown(said, None, name, Some(&before), at(now));
        let gib = |cache: &ModelCacheStatus| cache.bytes >> 30;
        assert_eq!(gib(&shown("a", &second, 139)), 1, "b is 29 seconds old");
        assert_eq!(gib(&shown("a", &second, 140)), 2);
        assert_eq!(gib(&shown("b", &second, 140)), 2, "in the same write");
        assert_eq!(gib(&shown("c", &second, 111)), 2, "nothing was shown of it");
        assert_eq!(gib(&shown("a", &second, 90)), 2, "the clock was set back");
        assert_eq!(shown("a", &first, 500).updated.0, at(100), "nothing changed, nothing is written");
    }

    #[test]
    fn a_condition_has_the_pod_that_stalls() {
        let caches = |activities: &[(&'static str, Said)]| {
            let pods: Vec<_> = activities
                .iter()
                .map(|(name, activity)| (*name, status(&said(1, *activity), None, at(100))))
                .collect();
            of_pods(&engine(&pods).pods)
        };
        assert_eq!(caches(&[]), None);
        let words = caches(&[("a", Said::Loading), ("b", Said::Growing), ("c", Said::Quiet)]).unwrap();
        assert!(words.starts_with("pod c: model cache 1.0 GiB, no growth since"), "{words}");
    }
}
