//! All that is known of the running engine instance: a bounded record of what was seen, and no judgement.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use contract::{Capability, Class};

use crate::guard::heal::prober::Which;
use crate::guard::judge::observation::{Hint, Observation, Served};
use crate::guard::judge::trend::Trend;

/// Probes, hints and the like kept; every rule looks at far fewer.
const MAX_RECORDED: usize = 64;

/// How one golden probe ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probed {
    /// Which probe.
    pub which: Which,
    /// When it was sent.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
    /// `None` is a pass.
    pub failure: Option<Failed>,
    /// Whether a late answer has another cause: work ahead of the probe that was not overdue, or a starved guard.
    pub excused: bool,
}

/// Why a golden probe failed, as far as a verdict cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// No answer within its deadline.
    Timeout,
    /// Refused or reset.
    Unreachable,
    /// An error status, of the class that its body shows.
    Fault(Class),
    /// Answered, and the content is wrong.
    Content,
    /// A client error without any fault's text. From an engine that took such a probe before, it is a fault: its model is gone.
    Rejected,
    /// 429 or 503 without any fault's text.
    Busy,
    /// The protocol or the engine's access rules do not let the probe through.
    Unsuited,
}

impl Failed {
    /// The class of suspicion that such a failure raises by itself.
    pub fn class(self) -> Class {
        match self {
            Failed::Timeout => Class::Periodic,
            Failed::Unreachable => Class::Refused,
            Failed::Fault(class) => class,
            Failed::Content => Class::Quality,
            Failed::Rejected => Class::Ambiguous,
            Failed::Busy | Failed::Unsuited => Class::Periodic,
        }
    }
}

/// An open doubt about the instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspicion {
    /// Class of the evidence that raised it; sticky replaces any other, and a hang any but sticky.
    pub class: Class,
    /// Start of the request or probe that raised it.
    pub started: Instant,
    /// When it was raised.
    pub seen: Instant,
}

impl Suspicion {
    /// From when on probes count. The probe of a hang goes past the lane and is given time for the work ahead; earlier
    /// ones were not.
    pub fn counts_from(&self) -> Instant {
        if self.class == Class::Hang { self.seen } else { self.started }
    }
}

/// Why an instance is not up yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shallow {
    /// Not asked yet, or not listening yet.
    Silent,
    /// It answers that it is loading.
    Loading,
    /// Its reply has a text that no restart cures (class D).
    Unfit,
    /// Green.
    Green,
}

/// The record of one instance.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What the engine does.
    pub capability: Capability,
    /// How many protocols it speaks, each of which is probed.
    pub protocols: usize,
    /// When the instance started.
    pub started: Instant,
    /// Whether its container has not been seen yet: until then its start is not overdue.
    pub awaited: bool,
    /// Whether it replaced a wedged one, and so has more to prove.
    pub after_restart: bool,
    /// From start to proof of an earlier instance: the longest of those seen.
    pub usual_start: Option<Duration>,
    /// Its shallow health, asked until green.
    pub shallow: Shallow,
    /// When the process ended, if it did.
    pub exited: Option<Instant>,
    /// Whether it said before its end that it cannot run here (class D).
    pub unfit: bool,
    /// Share of the last seconds for which the engine was kept from the CPU, by a limit or by other processes, 0 to 1.
    pub held_back: f64,
    /// When golden probes first proved it.
    pub verified: Option<Instant>,
    /// The open doubt.
    pub suspicion: Option<Suspicion>,
    /// Probes, oldest first.
    pub probes: VecDeque<Probed>,
    /// The last request or conversation served.
    pub success: Option<Served>,
    /// When the engine last gave any sign of work: an answer, good or bad.
    pub progress: Instant,
    /// Doubts that probes cleared.
    pub cleared: VecDeque<Instant>,
    /// Single requests lost and single memory faults.
    pub losses: VecDeque<Instant>,
    /// How service time compares with the learned baseline.
    pub trend: Trend,
    /// Conversations left without an answer since the engine last gave a sign of work: how many, and since when the first one was.
    pub owed: Option<(u32, Instant)>,
    /// When answers last looked odd, though none of them proves anything: probes are to look.
    pub odd: Option<Instant>,
}

impl Evidence {
    /// The record of an instance that starts now.
    pub fn new(capability: Capability, after_restart: bool, now: Instant) -> Self {
        Self {
            capability,
            protocols: 1,
            started: now,
            awaited: false,
            after_restart,
            usual_start: None,
            shallow: Shallow::Silent,
            exited: None,
            unfit: false,
            held_back: 0.0,
            verified: None,
            suspicion: None,
            probes: VecDeque::new(),
            success: None,
            progress: now,
            cleared: VecDeque::new(),
            losses: VecDeque::new(),
            trend: Trend::default(),
            owed: None,
            odd: None,
        }
    }

    /// An earlier guard has proven this instance, which serves on; the next probe is due at once.
    pub fn adopt(&mut self, now: Instant) {
        self.verified = Some(now);
        self.shallow = Shallow::Green;
    }

    /// Records what a request showed.
    pub fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Hint(hint) => self.hint(hint),
            Observation::Success(success) => {
                self.served(Served { started: success.started, ended: success.ended });
            }
            Observation::Conversed(served) => self.served(*served),
            Observation::Loss { seen, .. } => push(&mut self.losses, *seen),
            Observation::Busy { seen } => self.progress = self.progress.max(*seen),
            Observation::Odd { seen, .. } => self.odd = Some(*seen),
            Observation::Owed { since, seen } => {
                self.odd = Some(*seen);
                let before = self.owed.filter(|(_, since)| *since >= self.progress);
                let (count, first) = before.map_or((0, *since), |(count, first)| (count, first.min(*since)));
                self.owed = Some((count + 1, first));
            }
        }
    }

    fn served(&mut self, served: Served) {
        if served.started < self.started {
            return; // by an instance that is gone
        }
        self.progress = self.progress.max(served.ended);
        if self.success.is_none_or(|last| served.started >= last.started) {
            self.success = Some(served);
        }
    }

    fn hint(&mut self, hint: &Hint) {
        if hint.started < self.started {
            return; // it belongs to an instance that is gone
        }
        if hint.status.is_some() {
            self.progress = self.progress.max(hint.seen);
        }
        if hint.class == Class::Memory {
            push(&mut self.losses, hint.seen);
        }
        self.suspect(hint.class, hint.started, hint.seen);
    }

    /// Raises a doubt, or strengthens the open one.
    pub fn suspect(&mut self, class: Class, started: Instant, seen: Instant) {
        match &mut self.suspicion {
            None => self.suspicion = Some(Suspicion { class, started, seen }),
            Some(open) if class.is_sticky() && !open.class.is_sticky() => open.class = class,
            // A hung job keeps the lane from the probes that other doubts wait for.
            Some(open) if class == Class::Hang && !open.class.is_sticky() => {
                *open = Suspicion { class, started, seen };
            }
            Some(_) => {}
        }
    }

    /// Records a golden probe; a failure raises a doubt if none is open. The late answer to a probe takes the place of its
    /// timeout.
    pub fn probed(&mut self, probed: Probed) {
        if probed.started < self.started {
            return;
        }
        let timeout = |known: &Probed| {
            known.failure == Some(Failed::Timeout)
                && (known.which, known.started) == (probed.which, probed.started)
        };
        self.probes.retain(|known| !timeout(known));
        push(&mut self.probes, probed);
        match probed.failure {
            Some(_) if self.tells_nothing(&probed) => {}
            Some(failed) if self.verified.is_some() => {
                self.suspect(failed.class(), probed.started, probed.ended);
            }
            Some(_) => {}
            None => self.passed(probed.ended),
        }
    }

    fn passed(&mut self, ended: Instant) {
        self.progress = self.progress.max(ended);
        let passes = self.probes.iter().rev().take_while(|probe| probe.failure.is_none()).count();
        if self.verified.is_none() && passes >= self.passes_to_verify() {
            self.verified = Some(ended);
        }
    }

    /// Closes the open doubt. One that only hung, or only had odd answers, leaves no mark.
    pub fn clear(&mut self, now: Instant) {
        let open = self.suspicion.take();
        if open.is_some_and(|open| !matches!(open.class, Class::Hang | Class::Quality)) {
            push(&mut self.cleared, now);
        }
    }

    /// The guard itself did not run until `now`: time in which nothing could be seen.
    pub fn stalled(&mut self, now: Instant) {
        self.progress = self.progress.max(now);
    }

    /// Probes sent at or after `since` that tell something.
    pub fn telling_probes(&self, since: Instant) -> impl DoubleEndedIterator<Item = &Probed> {
        self.probes.iter().filter(move |probe| probe.started >= since && !self.tells_nothing(probe))
    }

    /// A late answer tells nothing when it is excused or others completed meanwhile; a refusal to take the probe only when
    /// the engine has taken it before; 429 and 503 never tell more than load.
    fn tells_nothing(&self, probe: &Probed) -> bool {
        match probe.failure {
            None => false,
            Some(Failed::Busy | Failed::Unsuited) => true,
            Some(Failed::Rejected) => self.verified.is_none_or(|verified| probe.started < verified),
            Some(Failed::Timeout) => {
                let last = self.success;
                let within = |ended| ended >= probe.started && ended <= probe.ended;
                probe.excused || last.is_some_and(|last| within(last.ended))
            }
            Some(Failed::Unreachable | Failed::Fault(_) | Failed::Content) => false,
        }
    }

    /// Whether a probe has failed within `window` in a way that tells something.
    pub fn failed_within(&self, window: Duration, now: Instant) -> bool {
        let recent = |probe: &&Probed| now.saturating_duration_since(probe.ended) <= window;
        self.probes
            .iter()
            .rev()
            .take_while(recent)
            .any(|probe| probe.failure.is_some() && !self.tells_nothing(probe))
    }

    /// Golden probes in a row that prove the instance: every clip, every protocol, and one more after a restart.
    pub fn passes_to_verify(&self) -> usize {
        self.round() + usize::from(self.after_restart)
    }

    /// Probes in a row that meet every clip and every protocol.
    pub fn round(&self) -> usize {
        clips(self.capability).max(self.protocols)
    }

    /// Events of a queue within `window`.
    pub fn recent(queue: &VecDeque<Instant>, window: Duration, now: Instant) -> u32 {
        let count = queue.iter().filter(|at| now.saturating_duration_since(**at) <= window).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// Golden inputs of a capability, in turn.
pub fn clips(capability: Capability) -> usize {
    match capability {
        Capability::Stt => 2,
        Capability::Tts | Capability::Llm => 1,
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == MAX_RECORDED {
        queue.pop_front();
    }
    queue.push_back(item);
}
