//! The recording half of the health loop: what happened goes into the evidence and the incident.

use std::time::Instant;

use contract::Class;

use crate::guard::heal::actuator::{self, Instance, Life};
use crate::guard::heal::control::{Event, Health, Told};
use crate::guard::heal::incident::Draft;
use crate::guard::heal::operator::{Deed, Present, Reply};
use crate::guard::heal::prober::{Failure, Outcome};
use crate::guard::judge::evidence::{Evidence, Failed, Probed, Shallow};
use crate::guard::judge::observation::Observation;
use crate::guard::judge::standing::Acting;
use crate::guard::judge::verdict::Verdict;

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
            self.evidence.trend(ratio, trend.degraded_factor, trend.recycle_factor, success.ended);
        }
    }

    pub(super) fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Probed(outcome) => self.probed(&outcome),
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

    pub(super) fn probed(&mut self, outcome: &Outcome) {
        self.probing = None;
        let failure = outcome.result.as_ref().err().map(|failure| match failure {
            Failure::Timeout => Failed::Timeout,
            Failure::Unreachable => Failed::Unreachable,
            Failure::Status { status, finding: None } if (400..500).contains(status) => {
                let engine = &self.parts.engine.name;
                tracing::warn!(
                    engine,
                    status,
                    probe = outcome.which.as_str(),
                    "engine rejects the golden probe"
                );
                Failed::Rejected
            }
            Failure::Status { finding, .. } => {
                Failed::Fault(finding.as_ref().map_or(Class::Ambiguous, |finding| finding.class))
            }
            Failure::Content(_) => Failed::Content,
            Failure::Inexpressible => {
                let engine = &self.parts.engine.name;
                tracing::warn!(
                    engine,
                    protocol = outcome.protocol,
                    "protocol cannot express the golden probe"
                );
                Failed::Rejected
            }
        });
        let ended = outcome.started + outcome.took;
        let verified = self.evidence.verified.is_some();
        let doubted = self.evidence.suspicion.is_some();
        self.evidence.probed(Probed { which: outcome.which, started: outcome.started, ended, failure });
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
        if let Some(draft) = &mut self.draft {
            draft.probe(outcome.which.as_str(), result, outcome.started, ended);
        }
        if !verified && self.evidence.verified.is_some() {
            self.repairs.healthy(ended);
            if let Some(draft) = &mut self.draft {
                draft.verified(ended);
                self.parts.metrics.recovered(ended.saturating_duration_since(draft.started()));
                self.parts.snapshot.incident(draft.incident());
            }
        }
    }

    /// A process ended or a new one runs.
    pub(super) fn instance(&mut self, instance: Instance, now: Instant) {
        let first = self.instance.life == Life::Awaited;
        let replaced = instance.key != self.instance.key;
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
                self.open_draft(Class::Refused, now, now);
            }
            Life::Stuck => self.acting = Acting::Stuck,
        }
    }

    pub(super) fn open_draft(&mut self, class: Class, started: Instant, now: Instant) {
        if self.draft.is_none() {
            self.draft = Some(Draft::new(&self.parts.engine.name, &self.instance.key, class, started, now));
        }
    }

    /// Probes or requests answered the doubt.
    pub(super) fn cleared(&mut self, class: Class, now: Instant) {
        tracing::info!(engine = self.parts.engine.name, class = class.as_str(), "suspicion cleared");
        if class == Class::Hang {
            // The engine serves, so what it has not answered in time it never will.
            self.parts.forward.forget_lost();
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
