//! Texts of sticky faults that golden probes have disproved: for a while they are a doubt and hold nothing back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use contract::Class;

/// How long a disproved text ejects nothing: a client that can provoke it again has no more to gain.
const MEMORY: Duration = Duration::from_mins(5);

/// The texts that requests have shown, by their signature's id, so that their number is bounded.
#[derive(Debug, Default)]
pub struct Disproved {
    /// `None` while the probes of the doubt have not decided.
    shown: BTreeMap<String, Option<Instant>>,
}

impl Disproved {
    /// The class that a request's text shows: a disproved one leaves the decision to probes.
    pub fn class(&mut self, class: Class, signature: Option<&str>, now: Instant) -> Class {
        let Some(signature) = signature.filter(|_| class.is_sticky()) else { return class };
        match self.shown.get(signature) {
            Some(Some(disproved)) if now.saturating_duration_since(*disproved) < MEMORY => Class::Ambiguous,
            Some(None) => class,
            Some(Some(_)) | None => {
                self.shown.insert(signature.to_owned(), None);
                class
            }
        }
    }

    /// Golden probes have cleared a sticky doubt: what raised it proves nothing.
    pub fn cleared(&mut self, now: Instant) {
        for disproved in self.shown.values_mut() {
            disproved.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disproved_text_is_a_doubt_for_a_while() {
        let (mut disproved, now) = (Disproved::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        let class = |disproved: &mut Disproved, text, at| disproved.class(Class::Sticky, Some(text), at);
        assert_eq!(class(&mut disproved, "illegal_address", now), Class::Sticky);
        assert_eq!(class(&mut disproved, "illegal_address", later(1)), Class::Sticky, "undecided");
        disproved.cleared(later(2));
        assert_eq!(class(&mut disproved, "illegal_address", later(3)), Class::Ambiguous);
        assert_eq!(class(&mut disproved, "launch_failure", later(3)), Class::Sticky, "another text");
        assert_eq!(class(&mut disproved, "illegal_address", later(400)), Class::Sticky, "forgotten");
        assert_eq!(class(&mut disproved, "illegal_address", later(401)), Class::Sticky);
    }

    #[test]
    fn other_classes_stay_as_they_are() {
        let (mut disproved, now) = (Disproved::default(), Instant::now());
        for (class, signature) in [(Class::Ambiguous, Some("cublas")), (Class::Refused, None)] {
            assert_eq!(disproved.class(class, signature, now), class);
            disproved.cleared(now);
            assert_eq!(disproved.class(class, signature, now), class);
        }
    }
}
