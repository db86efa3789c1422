//! Inputs that wedge engines: refused after the second time, forgotten after a while, cleared once served.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use contract::Incident;

use super::input::InputHash;

/// The list of suspected and proven poisonous inputs.
#[derive(Debug)]
pub struct Poison {
    forget_after: Duration,
    inputs: HashMap<InputHash, Record>,
    served: ServedInputs,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    wedges: usize,
    last: Instant,
}

/// Inputs remembered; beyond it the oldest is forgotten.
const MOST_INPUTS: usize = 1024;
/// Wedges, over all engines, that prove an input poisonous: one may be chance.
pub const PROOF: usize = 2;

impl Poison {
    /// An empty list that forgets an input `forget_after` its last wedge.
    pub fn new(forget_after: Duration) -> Self {
        Self { forget_after, inputs: HashMap::new(), served: ServedInputs::default() }
    }

    /// Forgets inputs after another time from now on.
    pub fn configure(&mut self, forget_after: Duration) {
        self.forget_after = forget_after;
    }

    /// Notes that the input was served, which clears it of suspicion.
    pub fn served(&mut self, input: InputHash) {
        self.inputs.remove(&input);
        self.served.push(input);
    }

    /// Whether the input is among those served last.
    pub fn was_served(&self, input: InputHash) -> bool {
        self.served.contains(input)
    }

    /// Notes that a confirmed wedge began with this input. Returns whether it can be to blame: an input that a client
    /// sends all day is in flight at every wedge.
    pub fn record(&mut self, input: InputHash, now: Instant) -> bool {
        if self.served.contains(input) {
            return false;
        }
        let forget_after = self.forget_after;
        self.inputs.retain(|_, record| now.saturating_duration_since(record.last) < forget_after);
        if self.inputs.len() >= MOST_INPUTS
            && !self.inputs.contains_key(&input)
            && let Some(oldest) =
                self.inputs.iter().min_by_key(|(_, record)| record.last).map(|(input, _)| *input)
        {
            self.inputs.remove(&oldest);
        }
        let record = self.inputs.entry(input).or_insert(Record { wedges: 0, last: now });
        record.wedges = record.wedges.saturating_add(1);
        record.last = now;
        true
    }

    /// Whether the input is to be refused.
    pub fn is_poison(&self, input: InputHash, now: Instant) -> bool {
        self.inputs.get(&input).is_some_and(|record| {
            record.wedges >= PROOF && now.saturating_duration_since(record.last) < self.forget_after
        })
    }
}

/// Served inputs remembered.
const MAX_SERVED: usize = 4096;

/// Hashes of inputs that were served, the oldest forgotten first.
#[derive(Debug, Default)]
pub struct ServedInputs {
    inputs: HashSet<InputHash>,
    oldest_first: VecDeque<InputHash>,
}

impl ServedInputs {
    /// Notes that the input of that hash was served.
    pub fn push(&mut self, input: InputHash) {
        if !self.inputs.insert(input) {
            return;
        }
        self.oldest_first.push_back(input);
        if self.oldest_first.len() > MAX_SERVED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.inputs.remove(&oldest);
        }
    }

    /// Whether it was.
    pub fn contains(&self, input: InputHash) -> bool {
        self.inputs.contains(&input)
    }
}

/// In how many incidents younger than `window` the job of that input showed the fault first.
pub fn sightings<'a>(
    input: InputHash,
    incidents: impl IntoIterator<Item = &'a Incident>,
    now_unix_ms: u64,
    window: Duration,
) -> usize {
    let oldest = now_unix_ms.saturating_sub(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    incidents
        .into_iter()
        .filter(|incident| incident.started_unix_ms >= oldest)
        .filter(|incident| incident.request_hash.as_deref().and_then(|hash| hash.parse().ok()) == Some(input))
        .count()
}

#[cfg(test)]
mod tests {
    use contract::Class;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn one_wedge_is_chance_and_two_are_proof() {
        let (mut poison, now) = (Poison::new(HOUR), Instant::now());
        poison.record(InputHash(1), now);
        assert!(!poison.is_poison(InputHash(1), now));
        poison.record(InputHash(1), now + Duration::from_secs(60));
        assert!(poison.is_poison(InputHash(1), now + Duration::from_secs(61)));
        assert!(!poison.is_poison(InputHash(2), now));
    }

    #[test]
    fn an_input_that_was_served_is_never_to_blame() {
        let (mut poison, now) = (Poison::new(HOUR), Instant::now());
        assert!(poison.record(InputHash(1), now));
        poison.served(InputHash(1));
        assert!(!poison.record(InputHash(1), now));
        assert!(!poison.record(InputHash(1), now));
        assert!(!poison.is_poison(InputHash(1), now));
    }

    #[test]
    fn it_forgets_after_the_last_wedge() {
        let (mut poison, now) = (Poison::new(HOUR), Instant::now());
        poison.record(InputHash(1), now);
        poison.record(InputHash(1), now + HOUR / 2);
        assert!(poison.is_poison(InputHash(1), now + HOUR));
        assert!(!poison.is_poison(InputHash(1), now + HOUR + HOUR / 2));
        poison.record(InputHash(1), now + 2 * HOUR);
        assert!(!poison.is_poison(InputHash(1), now + 2 * HOUR), "the count starts anew");
    }

    #[test]
    fn it_is_bounded_and_drops_the_oldest() {
        let (mut poison, now) = (Poison::new(HOUR), Instant::now());
        for at in 0..3000 {
            poison.record(InputHash(at), now + Duration::from_millis(at));
        }
        assert_eq!(poison.inputs.len(), MOST_INPUTS);
        let end = now + Duration::from_secs(4);
        poison.record(InputHash(2999), end);
        assert!(poison.is_poison(InputHash(2999), end));
        poison.record(InputHash(0), end);
        assert!(!poison.is_poison(InputHash(0), end));
    }

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
            process: None,
        }
    }

    #[test]
    fn only_recent_incidents_of_the_very_input_count() {
        let hour = Duration::from_secs(3600);
        let now = 10_000_000;
        let incidents = [
            incident("stt-0", Some("000000000000f00d"), now - 1000),
            incident("stt-1", Some("000000000000f00d"), now),
            incident("stt-1", Some("000000000000beef"), now),
            incident("stt-1", None, now),
            incident("stt-1", Some("000000000000f00d"), now - 3_600_001),
        ];
        assert_eq!(sightings(InputHash(0xf00d), &incidents, now, hour), 2);
        assert_eq!(sightings(InputHash(0xbeef), &incidents, now, hour), 1);
        assert_eq!(sightings(InputHash(0), &incidents, now, hour), 0);
    }

    #[test]
    fn it_remembers_the_latest_and_no_more() {
        let mut served = ServedInputs::default();
        for input in 0..=MAX_SERVED as u64 {
            served.push(InputHash(input));
            served.push(InputHash(input));
        }
        assert!(!served.contains(InputHash(0)));
        assert!(served.contains(InputHash(1)) && served.contains(InputHash(MAX_SERVED as u64)));
        assert_eq!((served.inputs.len(), served.oldest_first.len()), (MAX_SERVED, MAX_SERVED));
    }
}
