//! Finds inputs that wedge engines: the same request behind more than one incident.

use std::time::Duration;

use crate::report::Incident;

/// Sightings, over all engines, that make an input poisonous: one may be chance.
pub const POISONOUS: usize = 2;

/// In how many incidents younger than `window` the request of that hash showed up first.
pub fn sightings<'a>(
    hash: &str,
    incidents: impl IntoIterator<Item = &'a Incident>,
    now_unix_ms: u64,
    window: Duration,
) -> usize {
    let oldest = now_unix_ms.saturating_sub(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    incidents
        .into_iter()
        .filter(|incident| incident.started_unix_ms >= oldest)
        .filter(|incident| incident.request_hash.as_deref() == Some(hash))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Class;

    fn incident(engine: &str, hash: Option<&str>, started_unix_ms: u64) -> Incident {
        Incident {
            id: format!("{engine}-{started_unix_ms}"),
            engine: engine.into(),
            instance: "1".into(),
            started_unix_ms,
            class: Class::Sticky,
            signature: None,
            body: None,
            request_hash: hash.map(Into::into),
            probes: Vec::new(),
            timeline: Vec::new(),
            remediation: None,
            restarts: 0,
            healthy_after_ms: None,
        }
    }

    #[test]
    fn only_recent_incidents_of_the_very_input_count() {
        let hour = Duration::from_secs(3600);
        let now = 10_000_000;
        let incidents = [
            incident("parakeet-0", Some("f00d"), now - 1000),
            incident("parakeet-1", Some("f00d"), now),
            incident("parakeet-1", Some("beef"), now),
            incident("parakeet-1", None, now),
            incident("parakeet-1", Some("f00d"), now - 3_600_001),
        ];
        assert_eq!(sightings("f00d", &incidents, now, hour), 2);
        assert_eq!(sightings("beef", &incidents, now, hour), 1);
        assert_eq!(sightings("", &incidents, now, hour), 0);
    }
}
