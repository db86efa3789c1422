use proptest::prelude::*;

use crate::guard::judge::operator::*;
use crate::guard::judge::remediation::{Kill, Order, Stopped};

const STICKY: Case = Case { class: Some(Class::Sticky), golden_failed: true };

fn wish(attempt: u32) -> Remediation {
    Remediation::Restart(Order { attempt, kill: Kill::AtOnce })
}

fn order(verb: Verb, instance: &str, attempt: u32) -> RepairOrder {
    RepairOrder {
        order: verb,
        instance: instance.into(),
        attempt,
        reason: "others first".into(),
        seconds: 30,
    }
}

fn present(instance: &str, attempt: u32) -> Present<'_> {
    Present { instance, attempt, can_restart: true }
}

/// An operator in contact, asked at `start` for attempt 0 of instance `a`.
struct Asked {
    operator: Operator,
    start: Instant,
    policy: Alone,
}

impl Asked {
    fn new() -> Self {
        let start = Instant::now();
        let mut operator = Operator::new(start);
        operator.note(wish(0), "a", Some(Class::Sticky), start, || 1000);
        Self { operator, start, policy: Alone::default() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    /// What may be done after so many seconds in contact.
    fn in_contact(&mut self, seconds: u64) -> Remediation {
        let now = self.at(seconds);
        self.operator.hear(now, &self.policy);
        self.operator.decide(wish(0), STICKY, &self.policy, now)
    }

    fn tell(&mut self, verb: Verb, seconds: u64) -> Reply {
        let now = self.at(seconds);
        self.operator.order(&order(verb, "a", 0), present("a", 0), now)
    }
}

#[test]
fn a_restart_waits_for_the_grant() {
    let mut asked = Asked::new();
    assert!(matches!(asked.in_contact(1), Remediation::Ask(_)));
    let request = asked.operator.request().unwrap();
    assert_eq!((request.instance.as_str(), request.attempt, request.since_unix_ms), ("a", 0, 1000));
    assert_eq!(asked.tell(Verb::Grant, 2), Reply::Accepted(None));
    assert_eq!(asked.in_contact(2), wish(0));
    asked.operator.restarted(asked.at(2));
    assert_eq!(asked.operator.request(), None);
    assert_eq!(asked.tell(Verb::Grant, 3), Reply::Accepted(None), "the same order again is accepted again");
    asked.operator.note(wish(1), "a", Some(Class::Sticky), asked.at(4), || 4000);
    assert!(matches!(asked.in_contact(4), Remediation::Ask(_)), "but not carried out again");
}

#[test]
fn a_grant_holds_for_a_request_that_comes_back() {
    let mut asked = Asked::new();
    assert_eq!(asked.tell(Verb::Grant, 1), Reply::Accepted(None));
    asked.operator.note(Remediation::None, "a", None, asked.at(2), || 0);
    asked.operator.note(wish(0), "a", Some(Class::Sticky), asked.at(3), || 3000);
    assert!(matches!(asked.in_contact(3), Remediation::Ask(_)));
    assert_eq!(asked.tell(Verb::Grant, 4), Reply::Accepted(None));
    assert_eq!(asked.in_contact(4), wish(0));
}

#[test]
fn a_deferral_holds_and_then_asks_again() {
    let mut asked = Asked::new();
    assert_eq!(asked.tell(Verb::Defer, 5), Reply::Accepted(None));
    let until = Some(asked.at(35));
    assert_eq!(asked.in_contact(34), Remediation::Hold { why: Held::Deferred, until });
    assert_eq!(asked.operator.deferred(asked.at(34)).as_deref(), Some("others first"));
    assert!(matches!(asked.in_contact(36), Remediation::Ask(_)));
    assert_eq!(asked.operator.deferred(asked.at(36)), None);
    assert_eq!(asked.in_contact(66), wish(0), "asked again, and no answer");
    let long = RepairOrder { seconds: 99_999, ..order(Verb::Defer, "a", 0) };
    asked.operator.order(&long, present("a", 0), asked.at(70));
    let until = Some(asked.at(190));
    assert_eq!(asked.in_contact(71), Remediation::Hold { why: Held::Deferred, until });
}

#[test]
fn orders_for_another_instance_or_attempt_hit_nothing() {
    let mut asked = Asked::new();
    let now = asked.at(1);
    for verb in [Verb::Grant, Verb::Defer, Verb::Restart] {
        for (instance, attempt) in [("b", 0), ("a", 1), ("", 0)] {
            let reply = asked.operator.order(&order(verb, instance, attempt), present("a", 0), now);
            assert_eq!(reply, Reply::Conflict { instance: "a".into(), attempt: 0 }, "{verb:?} {instance}");
        }
    }
    assert!(matches!(asked.in_contact(2), Remediation::Ask(_)));
    // The instance was replaced meanwhile, and nothing is wanted of the new one.
    asked.operator.note(Remediation::None, "b", None, now, || 0);
    assert!(matches!(
        asked.operator.order(&order(Verb::Grant, "a", 0), present("b", 1), now),
        Reply::Conflict { .. }
    ));
    assert!(matches!(
        asked.operator.order(&order(Verb::Grant, "b", 1), present("b", 1), now),
        Reply::Conflict { .. }
    ));
}

#[test]
fn a_restart_can_be_ordered_unasked_and_only_once() {
    let mut asked = Asked::new();
    asked.operator.note(Remediation::None, "a", None, asked.start, || 0);
    assert_eq!(asked.tell(Verb::Restart, 1), Reply::Accepted(Some(Deed::Restart)));
    assert_eq!(asked.tell(Verb::Restart, 1), Reply::Accepted(None));
    let busy = Present { can_restart: false, ..present("a", 2) };
    let reply = asked.operator.order(&order(Verb::Restart, "a", 2), busy, asked.at(2));
    assert!(matches!(reply, Reply::Conflict { .. }));
}

#[test]
fn a_reset_is_carried_out_each_time_unless_it_names_another_instance() {
    let mut asked = Asked::new();
    assert_eq!(asked.tell(Verb::Reset, 1), Reply::Accepted(Some(Deed::Reset)));
    assert_eq!(asked.tell(Verb::Reset, 2), Reply::Accepted(Some(Deed::Reset)));
    let anyone = order(Verb::Reset, "", 0);
    assert_eq!(
        asked.operator.order(&anyone, present("a", 0), asked.start),
        Reply::Accepted(Some(Deed::Reset))
    );
    let other = order(Verb::Reset, "b", 0);
    assert!(matches!(asked.operator.order(&other, present("a", 0), asked.start), Reply::Conflict { .. }));
}

#[test]
fn away_means_unheard_or_silent_for_half_a_minute() {
    let asked = Asked::new();
    let decide = |seconds| asked.operator.decide(wish(0), STICKY, &asked.policy, asked.at(seconds));
    assert!(matches!(decide(30), Remediation::Ask(_)));
    assert_eq!(decide(31), wish(0), "never heard of");
    let mut silent = Asked::new();
    assert!(matches!(silent.in_contact(30), Remediation::Ask(_)));
    assert_eq!(silent.in_contact(31), wish(0), "in contact, and does not answer");
    let mut back = Asked::new();
    assert!(matches!(back.in_contact(100), Remediation::Ask(_)), "back again: it is given time to answer");
    assert!(matches!(back.in_contact(129), Remediation::Ask(_)));
    assert_eq!(back.in_contact(131), wish(0));
}

#[test]
fn alone_only_what_a_failed_probe_has_proven_and_rarely() {
    let mut asked = Asked::new();
    let later = asked.at(60);
    let decide = |operator: &Operator, case, wish| operator.decide(wish, case, &Alone::default(), later);
    for case in [
        Case { class: Some(Class::Environment), golden_failed: true },
        Case { class: Some(Class::Sticky), golden_failed: false },
        Case { class: None, golden_failed: true },
    ] {
        let held = Remediation::Hold { why: Held::Away, until: None };
        assert_eq!(decide(&asked.operator, case, wish(0)), held, "{case:?}");
    }
    let recycle = Remediation::Recycle(Order { attempt: 0, kill: Kill::Graceful });
    assert!(matches!(decide(&asked.operator, STICKY, recycle), Remediation::Hold { .. }));
    let ambiguous = Case { class: Some(Class::Ambiguous), golden_failed: true };
    for case in [STICKY, ambiguous] {
        assert_eq!(decide(&asked.operator, case, wish(0)), wish(0));
    }
    asked.operator.restarted(later);
    asked.operator.note(wish(1), "b", Some(Class::Sticky), asked.at(70), || 0);
    let until = Some(later + Duration::from_secs(600));
    let decided = asked.operator.decide(wish(1), STICKY, &asked.policy, asked.at(200));
    assert_eq!(decided, Remediation::Hold { why: Held::Away, until });
    assert_eq!(asked.operator.decide(wish(1), STICKY, &asked.policy, asked.at(660)), wish(1));
}

#[test]
fn whatever_is_no_restart_passes() {
    let asked = Asked::new();
    for other in [Remediation::None, Remediation::Stop(Stopped::Futile)] {
        assert_eq!(asked.operator.decide(other, STICKY, &asked.policy, asked.at(999)), other);
    }
}

#[derive(Clone, Debug)]
enum Happens {
    Nothing,
    Contact,
    Told(Verb, bool, bool, u64),
    Wish { recycle: bool, class: Option<Class>, golden_failed: bool, new_instance: bool },
}

fn happens() -> impl Strategy<Value = Happens> {
    let verb = prop::sample::select(vec![Verb::Grant, Verb::Defer, Verb::Restart, Verb::Reset]);
    let class = prop::option::of(prop::sample::select(Class::ALL.to_vec()));
    prop_oneof![
        Just(Happens::Nothing),
        Just(Happens::Contact),
        (verb, any::<bool>(), any::<bool>(), 0..300_u64)
            .prop_map(|(verb, instance, attempt, seconds)| Happens::Told(verb, instance, attempt, seconds)),
        (any::<bool>(), class, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(recycle, class, golden_failed, new_instance)| Happens::Wish {
                recycle,
                class,
                golden_failed,
                new_instance
            }
        ),
    ]
}

proptest! {
    /// Whatever happens: a restart has the operator's leave for this instance and attempt, or it is one that a guard may do
    /// alone.
    #[test]
    fn no_restart_without_leave_but_the_rare_proven_one(
        story in prop::collection::vec((happens(), 0..200_u64), 1..200),
    ) {
        let policy = Alone::default();
        let mut now = Instant::now();
        let mut operator = Operator::new(now);
        let (mut instance, mut attempt) = (0, 0);
        let mut last_contact = now;
        let mut last_alone: Option<Instant> = None;
        let mut granted: Option<(String, u32)> = None;
        let mut asked_since: Option<(String, u32, Instant)> = None;
        for (happens, seconds) in story {
            now += Duration::from_secs(seconds);
            let key = format!("i{instance}");
            match happens {
                Happens::Nothing => {}
                Happens::Contact => {
                    operator.hear(now, &policy);
                    last_contact = now;
                }
                Happens::Told(verb, right_instance, right_attempt, seconds) => {
                    let told = RepairOrder {
                        order: verb,
                        instance: if right_instance { key.clone() } else { "other".into() },
                        attempt: if right_attempt { attempt } else { attempt + 7 },
                        reason: String::new(),
                        seconds,
                    };
                    let reply = operator.order(&told, present(&key, attempt), now);
                    let accepted = matches!(reply, Reply::Accepted(_));
                    prop_assert!(!accepted || right_instance);
                    if accepted && matches!(verb, Verb::Grant | Verb::Restart) && right_attempt {
                        granted = Some((key.clone(), attempt));
                    }
                }
                Happens::Wish { recycle, class, golden_failed, new_instance } => {
                    if new_instance {
                        instance += 1;
                    }
                    let key = format!("i{instance}");
                    let order = Order { attempt, kill: Kill::AtOnce };
                    let wish = if recycle { Remediation::Recycle(order) } else { Remediation::Restart(order) };
                    operator.note(wish, &key, class, now, || 0);
                    let same = asked_since.as_ref().is_some_and(|(i, a, _)| *i == key && *a == attempt);
                    if !same {
                        asked_since = Some((key.clone(), attempt, now));
                    }
                    let case = Case { class, golden_failed };
                    let decided = operator.decide(wish, case, &policy, now);
                    if !matches!(decided, Remediation::Restart(_) | Remediation::Recycle(_)) {
                        continue;
                    }
                    if granted != Some((key.clone(), attempt)) {
                        prop_assert!(!recycle && golden_failed && class.is_some_and(|class| class != Class::Environment));
                        prop_assert!(last_alone.is_none_or(|last| now >= last + policy.every));
                        let silent = asked_since.as_ref().is_some_and(|(_, _, at)| now > *at + policy.after);
                        prop_assert!(now > last_contact + policy.after || silent);
                        last_alone = Some(now);
                    }
                    operator.restarted(now);
                    (asked_since, granted) = (None, None);
                    instance += 1;
                    attempt += 1;
                }
            }
        }
    }
}
