//! An incident as a trace: what led to the verdict, the restarts, and the proof that the engine serves again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contract::Incident;
use trace::{Kind, Span, Trace, Tracer};

/// Golden probes of one incident that become spans; the log line has them all.
const MAX_PROBES: usize = 50;

/// Exports a closed incident, whatever the sample ratio is: repairs are rare.
pub fn export(tracer: &Tracer, incident: &Incident) {
    let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(incident.started_unix_ms + ms);
    let last = incident.timeline.last().map_or(0, |moment| moment.at_ms);
    let end = incident.healthy_after_ms.unwrap_or(last).max(last);
    let mut repair = tracer.begin_recorded().span_since("repair", Kind::Internal, at(0));
    repair.set("speechstack.engine", incident.engine.clone());
    repair.set("speechstack.instance", incident.instance.clone());
    repair.set("speechstack.incident", incident.id.clone());
    repair.set("speechstack.class", incident.class.as_str());
    repair.set("speechstack.restarts", u64::from(incident.restarts));
    if let Some(rung) = &incident.remediation {
        repair.set("speechstack.rung", rung.clone());
    }
    if incident.healthy_after_ms.is_none() {
        repair.fail("the engine was not verified again");
    }
    let trace = repair.trace().clone();
    for (name, from, to) in phases(incident, end) {
        phase(&trace, name, at(from)).end_at(at(to));
    }
    for probe in incident.probes.iter().take(MAX_PROBES) {
        let mut span = phase(&trace, "golden probe", at(probe.at_ms.saturating_sub(probe.took_ms)));
        span.set("speechstack.probe", probe.probe.clone());
        span.set("speechstack.passed", probe.result == "pass");
        span.end_at(at(probe.at_ms));
    }
    repair.end_at(at(end));
}

fn phase(trace: &Trace, name: &'static str, since: SystemTime) -> Span {
    trace.span_since(name, Kind::Internal, since)
}

/// From the first doubt to the verdict, each restart until the new process runs, and from there to the proof. Milliseconds
/// since the beginning.
fn phases(incident: &Incident, end: u64) -> Vec<(&'static str, u64, u64)> {
    let mut phases = Vec::new();
    let mut open = Some(("judge", 0));
    for moment in &incident.timeline {
        let next = match moment.event.as_str() {
            // The verdict; later ones repeat it while the restart is under way.
            "wedged" if open.is_some_and(|(name, _)| name == "judge") => None,
            "restart" => Some("restart"),
            "started" => Some("verify"),
            _ => continue,
        };
        if let Some((name, since)) = open.take() {
            phases.push((name, since, moment.at_ms));
        }
        open = next.map(|name| (name, moment.at_ms));
    }
    phases.extend(open.map(|(name, since)| (name, since, end)));
    phases
}

#[cfg(test)]
mod tests {
    use contract::{Class, Moment};

    use super::*;
    use crate::guard::heal::incident::Draft;

    #[test]
    fn an_incident_is_judged_acted_on_and_verified() {
        let now = std::time::Instant::now();
        let mut incident = Draft::new("stt-0", "1", Class::Sticky, now, now).incident().clone();
        let told = [(200, "wedged"), (210, "restart"), (211, "wedged"), (900, "started"), (950, "warming")];
        incident.timeline.extend(told.map(|(at_ms, event)| Moment { at_ms, event: event.to_owned() }));
        assert_eq!(
            phases(&incident, 1200),
            [("judge", 0, 200), ("restart", 210, 900), ("verify", 900, 1200)]
        );
        incident.timeline.truncate(2);
        assert_eq!(phases(&incident, 200), [("judge", 0, 200)], "nothing was done");
    }

    #[test]
    fn a_second_restart_ends_the_first_and_a_process_may_end_without_a_verdict() {
        let now = std::time::Instant::now();
        let mut incident = Draft::new("stt-0", "1", Class::Refused, now, now).incident().clone();
        let told = [(10, "restart"), (20, "restart"), (50, "started")];
        incident.timeline.extend(told.map(|(at_ms, event)| Moment { at_ms, event: event.to_owned() }));
        assert_eq!(
            phases(&incident, 70),
            [("judge", 0, 10), ("restart", 10, 20), ("restart", 20, 50), ("verify", 50, 70)]
        );
    }
}
