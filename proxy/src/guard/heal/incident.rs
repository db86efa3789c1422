//! The record of one wedge while it is being written.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use contract::{Class, Incident, Moment, ProbeRecord, ProcessRecord};

use crate::guard::judge::observation::Hint;

/// Entries of a timeline and probes of one incident; a wedge that lasts for hours must not grow without bound.
const MAX_ENTRIES: usize = 200;

/// An incident in the making, from the first doubt on. It becomes public when the wedge is proven.
#[derive(Clone, Debug)]
pub struct Draft {
    started: Instant,
    incident: Incident,
    proven: bool,
}

impl Draft {
    /// Opens the record of a doubt first seen at `started`.
    pub fn new(engine: &str, instance: &str, class: Class, started: Instant, now: Instant) -> Self {
        let ago = now.saturating_duration_since(started);
        let unix = SystemTime::now().checked_sub(ago).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let incident = Incident {
            id: uuid::Uuid::now_v7().to_string(),
            engine: engine.to_owned(),
            instance: instance.to_owned(),
            started_unix_ms: unix.map_or(0, millis),
            class,
            signature: None,
            body: None,
            request_hash: None,
            probes: Vec::new(),
            timeline: vec![Moment { at_ms: 0, event: "hint".to_owned() }],
            remediation: None,
            restarts: 0,
            healthy_after_ms: None,
            process: None,
        };
        Self { started, incident, proven: false }
    }

    /// Adds what a request showed; the first text and hash are kept, they are nearest to the cause.
    pub fn hint(&mut self, hint: &Hint) {
        if self.incident.signature.is_none() {
            self.incident.signature.clone_from(&hint.signature);
        }
        if self.incident.body.is_none() {
            self.incident.body.clone_from(&hint.body);
        }
        if self.incident.request_hash.is_none() {
            self.incident.request_hash.clone_from(&hint.request_hash);
        }
    }

    /// Names the known text that the engine logged, unless a request has shown one already.
    pub fn logged(&mut self, signature: String) {
        self.incident.signature.get_or_insert(signature);
    }

    /// Names the input that the engine fell silent on.
    pub fn blame(&mut self, request_hash: String) {
        self.incident.request_hash.get_or_insert(request_hash);
    }

    /// Takes the blame from the input: it cannot have been the cause.
    pub fn absolve(&mut self) {
        self.incident.request_hash = None;
    }

    /// Adds a probe.
    pub fn probe(&mut self, probe: &str, result: String, started: Instant, ended: Instant) {
        if self.incident.probes.len() < MAX_ENTRIES {
            self.incident.probes.push(ProbeRecord {
                at_ms: self.since(ended),
                took_ms: millis(ended.saturating_duration_since(started)),
                probe: probe.to_owned(),
                result,
            });
        }
    }

    /// Adds a moment unless it repeats the last one.
    pub fn moment(&mut self, event: &str, now: Instant) {
        let repeats = self.incident.timeline.last().is_some_and(|last| last.event == event);
        if !repeats && self.incident.timeline.len() < MAX_ENTRIES {
            self.incident.timeline.push(Moment { at_ms: self.since(now), event: event.to_owned() });
        }
    }

    /// Marks the wedge as proven, of that class.
    pub fn wedged(&mut self, class: Class, now: Instant) {
        self.incident.class = class;
        self.proven = true;
        self.moment("wedged", now);
    }

    /// Marks a restart.
    pub fn restart(&mut self, rung: &str, now: Instant) {
        self.incident.remediation = Some(rung.to_owned());
        self.incident.restarts += 1;
        self.moment("restart", now);
    }

    /// Marks the moment when the engine was verified again.
    pub fn verified(&mut self, now: Instant) {
        self.incident.healthy_after_ms = Some(self.since(now));
        self.moment("verified", now);
    }

    /// Adds what the processes of the instance showed last, and the known text that they printed.
    pub fn process(&mut self, record: ProcessRecord, printed: Option<String>) {
        self.incident.process.get_or_insert(record);
        if self.incident.signature.is_none() {
            self.incident.signature = printed;
        }
    }

    /// Whether a verdict has made it public.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// The first bad byte.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The record so far.
    pub fn incident(&self) -> &Incident {
        &self.incident
    }

    fn since(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.started))
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_and_signature_are_kept() {
        let now = Instant::now();
        let mut draft = Draft::new("stt-0", "1", Class::Refused, now, now);
        let record = |line: &str| ProcessRecord { log: vec![line.to_owned()], ..ProcessRecord::default() };
        draft.process(record("first"), Some("no_kernel_image".into()));
        draft.process(record("second"), Some("other".into()));
        assert_eq!(draft.incident().process, Some(record("first")));
        assert_eq!(draft.incident().signature.as_deref(), Some("no_kernel_image"));
    }
}
