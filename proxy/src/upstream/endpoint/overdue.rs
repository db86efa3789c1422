//! An answer that an engine owes, as seconds of wait: an engine that is silent must not look free. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long it counts after it was noted last. By then the engine's guard has judged the silence.
const TTL: Duration = Duration::from_secs(30);

/// Since when an answer is due, and until when that counts.
#[derive(Debug, Default)]
pub(super) struct Overdue(Option<(Instant, Instant)>);

impl Overdue {
    /// An answer that was due at `due` has not begun yet. Of several that count the oldest does.
    pub(super) fn note(&mut self, due: Instant, now: Instant) {
        let since = self.current(now).map_or(due, |since| since.min(due));
        self.0 = Some((since, now + TTL));
    }

    /// The engine answers.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Seconds since the answer was due; 0 when none is owed.
    pub(super) fn seconds(&self, now: Instant) -> f64 {
        self.current(now).map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64())
    }

    fn current(&self, now: Instant) -> Option<Instant> {
        self.0.filter(|(_, until)| now < *until).map(|(since, _)| since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charge_grows_from_when_the_oldest_answer_was_due_until_one_comes() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut overdue = Overdue::default();
        assert_eq!(overdue.seconds(at(5)), 0.0);
        overdue.note(at(1), at(2));
        overdue.note(at(2), at(4));
        assert_eq!(overdue.seconds(at(4)), 3.0);
        assert_eq!(overdue.seconds(at(10)), 9.0);
        overdue.clear();
        assert_eq!(overdue.seconds(at(10)), 0.0);
    }

    #[test]
    fn it_is_forgotten_when_nothing_more_is_heard_of_it() {
        let start = Instant::now();
        let mut overdue = Overdue::default();
        overdue.note(start, start);
        let after = start + TTL;
        assert!(overdue.seconds(after - Duration::from_millis(1)) > 29.0);
        assert_eq!(overdue.seconds(after), 0.0);
        overdue.note(after, after);
        assert_eq!(
            overdue.seconds(after + Duration::from_secs(1)),
            1.0,
            "what was forgotten does not come back"
        );
    }
}
