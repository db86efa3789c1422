//! Which rung of the repair ladder is next for a pod: pure.

use jiff::Timestamp;
use speechstack_crds::condition::reason;
use speechstack_crds::{Escalation, RepairRecord, RepairStatus, Rung};

use super::budget::{
    DAY, LASTING, PER_DAY, ROW, age, failed, futile, of_engine, ordered, replaces, restarts, row,
};
use super::view::{EngineView, PodView, StackView};
use contract::{Act, Class, State};

use crate::guards::Seen;

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// That rung, once its budgets allow it.
    Act(Rung),
    /// Nothing until the guard asks.
    Nothing,
    /// No more acts on this engine.
    Stop {
        /// One of [`reason`].
        reason: &'static str,
        /// Why, and what a person can do.
        message: String,
        /// The node is the suspect, and cannot be avoided.
        suspect: bool,
    },
}

/// The next rung for a pod whose guard wants a repair, or cannot go on alone.
#[must_use]
pub fn next(
    stack: &StackView,
    engine: &EngineView,
    pod: &PodView,
    seen: &Seen,
    status: &RepairStatus,
    now: Timestamp,
) -> Next {
    let asked = seen.report.repair.as_ref();
    if asked.is_some_and(|request| request.act == Act::Recycle) {
        return Next::Act(Rung::Recycle);
    }
    let history = History::new(stack, engine, pod, seen, status, now);
    let restart = history.row < history.allowance && history.today < PER_DAY;
    if restart && !history.futile {
        return match asked {
            Some(_) => Next::Act(Rung::Restart),
            None if seen.report.state == State::Exhausted => history.escalate(),
            // Its own spacing or budget holds it back.
            None => Next::Nothing,
        };
    }
    history.escalate()
}

/// What was done to a pod and its engine so far.
struct History<'a> {
    stack: &'a StackView,
    engine: &'a EngineView,
    pod: &'a PodView,
    device_lost: bool,
    asked: bool,
    /// Repairs of the engine since the last reset.
    records: Vec<&'a RepairRecord>,
    row: usize,
    allowance: usize,
    today: usize,
    /// It replaces a pod that wedged, and was never well for long.
    fresh: bool,
    futile: bool,
    highest: Option<Rung>,
    now: Timestamp,
}

impl<'a> History<'a> {
    fn new(
        stack: &'a StackView,
        engine: &'a EngineView,
        pod: &'a PodView,
        seen: &Seen,
        status: &'a RepairStatus,
        now: Timestamp,
    ) -> Self {
        let since = status.reset_at.as_ref();
        let is_newer = |record: &&RepairRecord| since.is_none_or(|since| record.ordered > *since);
        let records: Vec<_> = of_engine(&status.records, &engine.name).filter(is_newer).collect();
        let ailing = seen.ailing.unwrap_or(now);
        let restarts = restarts(&status.records, &pod.uid, since);
        let fresh = records.iter().any(|record| {
            replaces(record.rung)
                && record.pod_uid != pod.uid
                && pod
                    .scheduled
                    .is_some_and(|scheduled| scheduled.as_second() >= record.ordered.0.as_second())
                && record.ended.as_ref().is_none_or(|ended| age(ended.0, now) < ROW)
                && failed(record, ailing, LASTING)
        });
        let class = seen.report.class;
        let asked = seen.report.repair.as_ref();
        let device_lost =
            class.or_else(|| asked.and_then(|request| request.class)) == Some(Class::DeviceLost);
        let burst = usize::try_from(stack.spec.container_restarts.burst).unwrap_or(usize::MAX).max(1);
        let (futile, highest) = futile(records.iter().copied(), now);
        Self {
            device_lost,
            asked: asked.is_some(),
            row: row(restarts.clone(), ailing, now),
            allowance: if fresh || device_lost { 1 } else { burst },
            today: restarts.filter(|record| ordered(record, now) < DAY).count(),
            stack,
            engine,
            pod,
            records,
            fresh,
            futile,
            highest,
            now,
        }
    }

    /// A rung above the restart. What was tried and did not help is not tried for ever: after that comes the stop.
    fn escalate(&self) -> Next {
        let next = self.above();
        match next {
            Next::Act(rung) if self.futile && Some(rung) <= self.highest => self.futile_stop(),
            next => next,
        }
    }

    fn futile_stop(&self) -> Next {
        let message = format!(
            "more than half of the last {} repairs of {} did not help; set annotation {} to a new value to try again",
            super::budget::FUTILE_OF,
            self.engine.name,
            super::view::RESET,
        );
        Next::Stop { reason: reason::FUTILE, message, suspect: false }
    }

    fn used_up(&self, what: &str, suspect: bool) -> Next {
        let message = format!(
            "pod {} wedged again after every repair allowed here: {what}; set annotation {} to a new value to try again",
            self.pod.name,
            super::view::RESET,
        );
        Next::Stop { reason: reason::BUDGET_EXHAUSTED, message, suspect }
    }

    fn above(&self) -> Next {
        if self.stack.spec.pod_recreates.per_hour == 0 {
            return match (self.futile, self.today < PER_DAY) {
                (true, _) => self.futile_stop(),
                (false, true) if self.asked => Next::Act(Rung::Restart),
                (false, true) => Next::Nothing,
                (false, false) => self.used_up("spec.repair.podRecreates.perHour is 0", false),
            };
        }
        let escalation = self.stack.spec.escalation;
        if !self.suspects_node() {
            return match escalation {
                Escalation::None if self.fresh => self.used_up("spec.repair.escalation is None", false),
                _ => Next::Act(Rung::Recreate),
            };
        }
        match escalation {
            Escalation::None if self.fresh => self.used_up("spec.repair.escalation is None", false),
            // One restart, then the device is not trusted; without leave to move, a new pod is what is left.
            Escalation::None => Next::Act(Rung::Recreate),
            _ if !self.stack.node_escalation => self.used_up(
                "spec.repair.escalation needs the operator's flag --node-escalation and its role for nodes \
                 (chart value rbac.nodeEscalation)",
                false,
            ),
            _ if !self.has_elsewhere() => {
                self.used_up("no other node can run it, so this one cannot be avoided", true)
            }
            _ => Next::Act(Rung::AvoidNode),
        }
    }

    /// Whether an earlier pod wedged on this node too, and none elsewhere; or the device itself is lost.
    fn suspects_node(&self) -> bool {
        let recent = |record: &&&RepairRecord| {
            replaces(record.rung) && record.pod_uid != self.pod.uid && ordered(record, self.now) < DAY
        };
        let (mut here, mut elsewhere) = (0, 0);
        for record in self.records.iter().filter(recent) {
            if record.node.is_some() && record.node == self.pod.node {
                here += 1;
            } else {
                elsewhere += 1;
            }
        }
        self.pod.node.is_some() && (self.device_lost || (here > 0 && elsewhere == 0))
    }

    fn has_elsewhere(&self) -> bool {
        self.engine.nodes.iter().any(|node| node.eligible && Some(&node.name) != self.pod.node.as_ref())
    }
}
