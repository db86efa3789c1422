//! The recording half of the health loop: what happened goes into the evidence and the incident.

use std::time::Instant;

use contract::Class;
use http::StatusCode;

use crate::guard::heal::actuator::{self, Instance, Life, Proven};
use crate::guard::heal::control::{Event, Health, Told};
use crate::guard::heal::incident::Draft;
use crate::guard::heal::prober::{Failure, Outcome};
use crate::guard::judge::evidence::{Evidence, Failed, Probed, Shallow, Suspicion};
use crate::guard::judge::hang::busy;
use crate::guard::judge::observation::Observation;
use crate::guard::judge::operator::{Deed, Present, Reply};
use crate::guard::judge::standing::Acting;
use crate::guard::judge::verdict::Verdict;
use crate::guard::path::classify::is_busy;
use crate::guard::path::lane::LaneView;

/// Share of the time for which the engine is kept from the CPU that excuses a late answer...
const STARVED: f64 = 0.5;
/// ...unless it took this many times the usual longest time.
const EXCUSED: u32 = 4;

impl Health {
    /// Records an observation.
    pub(super) fn observe(&mut self, observation: &Observation) {
        if let Observation::Hint(hint) = observation {
            let known = self.evidence.suspicion.is_some();
            self.evidence.observe(observation);
            if !known && self.evidence.suspicion.is_some() {
                self.open_draft(hint.class, hint.seen, hint.seen);
            }
            if let Some(draft) = &mut self.draft {
                draft.hint(hint);
            }
            tracing::warn!(
                engine = self.parts.engine.name,
                class = hint.class.as_str(),
                signature = hint.signature,
                status = hint.status,
                "request showed a fault"
            );
            return;
        }
        self.evidence.observe(observation);
        if let Observation::Success(success) = observation {
            let trend = &self.parts.policy.trend;
            let ratio = success.service.as_secs_f64() / success.predicted.max(f64::EPSILON);
            let period = trend.recycle_for.max(trend.degraded_for);
            self.evidence.trend.record(ratio, period, success.ended);
            tracing::debug!(engine = self.parts.engine.name, ratio, "service over its baseline");
        }
        let what = match observation {
            Observation::Odd { what, .. } => Some(*what),
            Observation::Owed { .. } => Some("unanswered_conversation"),
            _ => None,
        };
        if let Some(what) = what {
            tracing::info!(
                engine = self.parts.engine.name,
                what,
                "answers look odd; golden probes are to look"
            );
        }
    }

    pub(super) fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Probed(outcome) => {
                self.probing = None;
                self.probed(&outcome, false);
            }
            Event::Late(outcome) => self.probed(&outcome, true),
            Event::Shallow(shallow) => {
                self.polling = false;
                if self.evidence.shallow != Shallow::Green {
                    self.evidence.shallow = shallow;
                }
                if let (Shallow::Green, Some(draft)) = (shallow, &mut self.draft) {
                    draft.moment("warming", now);
                }
            }
            Event::Logged(signature) => {
                if let Some(draft) = &mut self.draft {
                    draft.logged(signature);
                    if draft.is_proven() {
                        self.parts.snapshot.incident(draft.incident());
                    }
                }
            }
            Event::Restarted(Ok(())) => {} // the new instance ends the act
            Event::Restarted(Err(actuator::Error::Stuck)) => {
                tracing::error!(engine = self.parts.engine.name, "engine process survives SIGKILL");
                self.acting = Acting::Stuck;
            }
            Event::Restarted(Err(error)) => {
                tracing::error!(engine = self.parts.engine.name, %error, "unable to restart the engine");
                self.acting = Acting::Idle;
            }
        }
    }

    /// Does what a person or the operator says.
    pub(super) fn told(&mut self, told: Told, now: Instant) {
        let (order, reply) = match told {
            Told::Reset => return self.reset(now),
            Told::Order(order, reply) => (order, reply),
        };
        let Some(operator) = &mut self.operator else { return };
        let policy = &self.parts.policy.repair;
        let idle = self.acting == Acting::Idle && self.instance.life != Life::Awaited;
        let present = Present {
            instance: &self.instance.key,
            attempt: self.repairs.attempt(policy, now),
            can_restart: policy.restart && self.parts.actuator.is_some() && idle,
        };
        let answer = operator.order(&order, present, now);
        tracing::info!(
            engine = self.parts.engine.name,
            order = ?order.order,
            instance = order.instance,
            attempt = order.attempt,
            accepted = matches!(answer, Reply::Accepted(_)),
            "operator's order"
        );
        match answer {
            Reply::Accepted(Some(Deed::Reset)) => self.reset(now),
            Reply::Accepted(Some(Deed::Restart)) => {
                let attempt = self.repairs.attempt(&self.parts.policy.repair, now);
                self.restart_by_order(attempt, now);
            }
            Reply::Accepted(None) | Reply::Conflict { .. } => {}
        }
        let _ = reply.send(answer);
    }

    fn reset(&mut self, now: Instant) {
        tracing::info!(engine = self.parts.engine.name, "repair budgets reset by request");
        self.repairs.reset(now);
    }

    fn probed(&mut self, outcome: &Outcome, late: bool) {
        let failure = outcome.result.as_ref().err().map(failed);
        if let Some(Failed::Rejected | Failed::Unsuited) = failure {
            let (engine, probe) = (&self.parts.engine.name, outcome.which.as_str());
            let reason = outcome.result.as_ref().err().map(ToString::to_string);
            tracing::warn!(
                engine,
                probe,
                protocol = outcome.protocol,
                reason,
                "engine does not take the golden probe"
            );
        }
        let ended = outcome.started + outcome.took;
        let verified = self.evidence.verified.is_some();
        let doubted = self.evidence.suspicion.is_some();
        let policy = &self.parts.policy;
        let excused = self.stalled.is_some_and(|stalled| stalled >= outcome.started)
            || busy(&self.parts.lane.view(), &self.evidence, &policy.hang, ended)
            || (self.evidence.held_back >= STARVED && outcome.took < policy.probe.timeout_max * EXCUSED);
        if failure == Some(Failed::Timeout) && excused {
            self.parts.metrics.excused_probe();
        }
        let (which, started) = (outcome.which, outcome.started);
        self.evidence.probed(Probed { which, started, ended, failure, excused });
        if let (false, Some(open)) = (doubted, self.evidence.suspicion) {
            self.open_draft(open.class, ended, ended);
        }
        let result =
            outcome.result.as_ref().map_or_else(|failure| failure.to_string(), |()| "pass".to_owned());
        tracing::debug!(
            engine = self.parts.engine.name,
            probe = outcome.which.as_str(),
            protocol = outcome.protocol,
            result,
            "golden probe"
        );
        self.parts.metrics.probed(outcome.which, failure, outcome.took);
        if failure.is_none() && !excused && !late {
            self.parts.forward.learn_probe(outcome.which.seconds(), outcome.took);
        }
        if let Some(draft) = &mut self.draft {
            draft.probe(outcome.which.as_str(), result, outcome.started, ended);
        }
        if !verified && self.evidence.verified.is_some() {
            self.repairs.healthy(ended);
            let took = ended.saturating_duration_since(self.evidence.started);
            self.usual_start = self.usual_start.max(Some(took));
            self.keep(Some(self.instance.key.clone()));
            if let Some(draft) = &mut self.draft {
                draft.verified(ended);
                self.parts.metrics.recovered(ended.saturating_duration_since(draft.started()));
                self.parts.snapshot.incident(draft.incident());
            }
        }
    }

    /// Keeps for a later guard which instance is proven.
    fn keep(&self, key: Option<String>) {
        if let (Some(actuator), Some(start)) = (&self.parts.actuator, self.usual_start) {
            actuator.keep(&Proven { key, start });
        }
    }

    /// A process ended or a new one runs.
    pub(super) fn instance(&mut self, instance: Instance, now: Instant) {
        let first = self.instance.life == Life::Awaited;
        let replaced = instance.key != self.instance.key;
        self.take_record();
        self.instance = instance;
        if first && replaced {
            // It may have been proven before its helper told its name.
            (self.evidence.awaited, self.evidence.started) = (false, now);
        } else if replaced {
            self.acting = Acting::Idle;
            self.parts.forward.instance_changed();
            self.stop_probe();
            self.polling = false;
            self.evidence = Evidence::new(self.parts.engine.capability, true, now);
            self.evidence.protocols = self.parts.protocols.count();
            self.evidence.usual_start = self.usual_start;
            if let Some(draft) = &mut self.draft {
                draft.moment("started", now);
            }
        }
        match self.instance.life {
            Life::Running | Life::Awaited => {}
            Life::Exited if self.acting == Acting::Restarting => {}
            Life::Exited => {
                if self.acting == Acting::Stuck {
                    // It died after all.
                    self.acting = Acting::Idle;
                }
                self.parts.forward.instance_changed();
                self.evidence.exited.get_or_insert(now);
                let printed = self.parts.actuator.as_ref().and_then(|actuator| actuator.last_words().finding);
                let class = printed.map_or(Class::Refused, |(class, _)| class);
                self.evidence.unfit |= class == Class::Environment;
                self.open_draft(class, now, now);
            }
            Life::Stuck => self.acting = Acting::Stuck,
        }
    }

    /// Adds what the present instance showed before it ended to the incident, if there is one.
    fn take_record(&mut self) {
        if let (Some(draft), Some(actuator)) = (&mut self.draft, &self.parts.actuator)
            && let Some(last) = actuator.record(&self.instance.key)
        {
            draft.process(last.process, last.finding.map(|(_, signature)| signature));
        }
    }

    pub(super) fn open_draft(&mut self, class: Class, started: Instant, now: Instant) {
        if self.draft.is_none() {
            self.draft = Some(Draft::new(&self.parts.engine.name, &self.instance.key, class, started, now));
        }
    }

    /// A job hangs: the next probes speak its protocol, and its input may be to blame when it is the only one.
    pub(super) fn overdue(&mut self, doubt: Suspicion, lane: &LaneView, now: Instant) {
        self.evidence.suspect(doubt.class, doubt.started, doubt.seen);
        self.open_draft(doubt.class, doubt.started.max(self.evidence.progress), now);
        if let Some(job) = lane.jobs().next() {
            self.parts.protocols.doubt(job.claim.protocol);
        }
        let inputs: Vec<_> = lane.running.iter().filter_map(|job| job.input).collect();
        if let (Some(draft), [input]) = (&mut self.draft, inputs.as_slice()) {
            draft.blame(input.to_string());
        }
    }

    /// Probes or requests answered the doubt.
    pub(super) fn cleared(&mut self, class: Class, now: Instant) {
        tracing::info!(engine = self.parts.engine.name, class = class.as_str(), "suspicion cleared");
        if class == Class::Hang {
            // The engine serves, so what it has not answered in time it never will.
            self.parts.lane.forget_lost();
        }
        if class.is_sticky() {
            self.parts.forward.disprove(now);
        }
        self.evidence.clear(now);
        self.parts.metrics.verdict(class, "cleared");
    }

    /// Writes verdicts into the incident.
    pub(super) fn note(&mut self, verdict: Verdict, now: Instant) {
        let class = match verdict {
            Verdict::Wedged(class) => class,
            Verdict::Gone => Class::Refused,
            Verdict::Unstartable => Class::Environment,
            _ => {
                self.noted = false;
                return;
            }
        };
        if std::mem::replace(&mut self.noted, true) {
            return;
        }
        self.open_draft(class, self.evidence.suspicion.map_or(now, |open| open.seen), now);
        self.keep(None);
        let Some(draft) = &mut self.draft else { return };
        draft.wedged(class, now);
        self.parts.metrics.verdict(class, "confirmed");
        self.parts.metrics.detected(now.saturating_duration_since(draft.started()));
        let input = draft.incident().request_hash.as_ref().and_then(|hash| hash.parse().ok());
        // Bad content shows in a row of requests: none of them is its cause.
        if input.is_some_and(|input| class == Class::Quality || !self.parts.poison.lock().record(input, now))
        {
            draft.absolve();
        }
        self.parts.snapshot.incident(draft.incident());
    }
}

/// What of a probe's failure counts for a verdict.
fn failed(failure: &Failure) -> Failed {
    match failure {
        Failure::Timeout => Failed::Timeout,
        Failure::Unreachable => Failed::Unreachable,
        Failure::Status { finding: Some(finding), .. } => Failed::Fault(finding.class),
        Failure::Status { status, finding: None } => match StatusCode::from_u16(*status) {
            Ok(status) if is_busy(status) => Failed::Busy,
            // The key is wrong, which no restart mends.
            Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Failed::Unsuited,
            Ok(status) if status.is_client_error() => Failed::Rejected,
            Ok(_) | Err(_) => Failed::Fault(Class::Ambiguous),
        },
        Failure::Content(_) => Failed::Content,
        Failure::Inexpressible => Failed::Unsuited,
    }
}
