//! The acting half of the health loop: restarts, probes and reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use contract::{Class, EngineReport, State};

use crate::guard::heal::actuator::Actuator;
use crate::guard::heal::control::{Event, Health, Probing};
use crate::guard::heal::incident::Draft;
use crate::guard::heal::operator::Operator;
use crate::guard::heal::prober::ShallowFailure;
use crate::guard::judge::evidence::Shallow;
use crate::guard::judge::observation::Standing;
use crate::guard::judge::remediation::{Kill, Order};
use crate::guard::judge::schedule::Due;
use crate::guard::judge::standing::Acting;
use crate::guard::judge::verdict::Verdict;
use crate::guard::path::signatures::Catalogue;

impl Health {
    /// Carries out a restart that was decided on.
    pub(super) fn restart(&mut self, order: Order, verdict: Verdict, now: Instant) {
        if let Some(operator) = &mut self.operator {
            operator.restarted(now);
        }
        let rung = if matches!(verdict, Verdict::Worn(_)) { "recycle" } else { "restart" };
        if let Verdict::Worn(class) = verdict {
            self.open_draft(class, now, now);
        }
        self.replace(order, verdict.class(), rung, now);
    }

    /// Carries out a restart that the operator wants, whatever is concluded here.
    pub(super) fn restart_by_order(&mut self, attempt: u32, now: Instant) {
        let class = self.evidence.suspicion.map(|open| open.class);
        let kill = match class {
            Some(class) if class.is_sticky() || class == Class::Hang => Kill::AtOnce,
            _ => Kill::Graceful,
        };
        self.replace(Order { attempt, kill }, class, "order", now);
    }

    fn replace(&mut self, order: Order, class: Option<Class>, rung: &str, now: Instant) {
        let Some(actuator) = self.parts.actuator.clone() else { return };
        let cause = self.draft.as_ref().map_or(now, Draft::started);
        self.repairs.restarted(cause, now);
        self.acting = Acting::Restarting;
        let class = class.map_or("none", Class::as_str);
        tracing::warn!(
            engine = self.parts.engine.name,
            instance = self.instance.key,
            attempt = order.attempt,
            class,
            rung,
            "restarting the engine"
        );
        self.parts.metrics.restarted(rung);
        if let Some(draft) = &mut self.draft {
            draft.restart(rung, now);
            self.parts.snapshot.incident(draft.incident());
        }
        self.stop_probe();
        self.read_log(&*actuator);
        let restart = actuator.restart(
            self.instance.key.clone(),
            order.kill,
            format!("{rung}, class {class}, attempt {}", order.attempt),
        );
        let events = self.events.clone();
        tokio::spawn(async move {
            let _ = events.send(Event::Restarted(restart.await)).await;
        });
    }

    /// Looks for known texts in the end of the engine's log. Nothing else of it is kept: engines log what users say.
    pub(super) fn read_log(&self, actuator: &dyn Actuator) {
        let catalogue = Catalogue::new(&self.parts.policy.signatures);
        let (last_words, events) = (actuator.last_words(), self.events.clone());
        tokio::spawn(async move {
            let Some(words) = last_words.await else { return };
            if let Some((_, signature)) = catalogue.find(words.as_bytes()) {
                let _ = events.send(Event::Logged(signature.to_owned())).await;
            }
        });
    }

    /// Asks a starting engine whether it is up; a green answer is asked for no more.
    pub(super) fn poll_shallow(&mut self, verdict: Verdict, now: Instant) {
        let period = match verdict {
            Verdict::Starting => self.parts.policy.startup.poll,
            _ => self.parts.policy.repair.ejected_probe.min(Duration::from_secs(1)),
        };
        let rested = self.polled.is_none_or(|polled| now.saturating_duration_since(polled) >= period);
        if self.polling
            || self.evidence.shallow == Shallow::Green
            || self.evidence.exited.is_some()
            || !rested
        {
            return;
        }
        self.polling = true;
        self.polled = Some(now);
        let prober = self.parts.prober.clone();
        let events = self.events.clone();
        tokio::spawn(async move {
            let shallow = match prober.shallow().await {
                Ok(()) => Shallow::Green,
                Err(ShallowFailure::Unreachable) => Shallow::Silent,
                Err(ShallowFailure::NotReady { class: Some(Class::Environment) }) => Shallow::Unfit,
                Err(ShallowFailure::NotReady { .. }) => Shallow::Loading,
            };
            let _ = events.send(Event::Shallow(shallow)).await;
        });
    }

    /// Sends a probe; one at a time, but a probe that still waits for the lane gives way to one that does not.
    pub(super) fn probe(&mut self, due: Due) {
        if let Some(probing) = &self.probing {
            if !due.bypass || probing.sent.load(Ordering::Relaxed) {
                return;
            }
            probing.task.abort();
        }
        let sent = Arc::new(AtomicBool::new(due.bypass));
        let lane = self.parts.lane.clone();
        let prober = self.parts.prober.clone();
        let events = self.events.clone();
        let on_its_way = sent.clone();
        let task = tokio::spawn(async move {
            let _slot = if due.bypass { None } else { Some(lane.probe_slot().await) };
            on_its_way.store(true, Ordering::Relaxed);
            let outcome = prober.probe(due.which, due.deadline).await;
            let _ = events.send(Event::Probed(outcome)).await;
        });
        self.probing = Some(Probing { task, sent });
    }

    pub(super) fn stop_probe(&mut self) {
        if let Some(probing) = self.probing.take() {
            probing.task.abort();
        }
    }

    pub(super) fn publish(&mut self, mut standing: Standing, verdict: Verdict, now: Instant) {
        if standing.weight > 0.0 {
            self.parts.lane.readmit();
        } else {
            self.parts.lane.eject();
        }
        if standing.state != self.shown {
            self.shown = standing.state;
            tracing::info!(engine = self.parts.engine.name, state = standing.state.as_str(), "engine state");
            self.parts.metrics.state(standing.state);
            if let Some(draft) = &mut self.draft {
                let event = if standing.weight == 0.0 && standing.state == State::Suspect {
                    "ejected"
                } else {
                    standing.state.as_str()
                };
                draft.moment(event, now);
                if draft.is_proven() {
                    self.parts.snapshot.incident(draft.incident());
                }
            }
        }
        let settled = matches!(standing.state, State::Healthy | State::Saturated | State::Degraded);
        if settled && self.evidence.suspicion.is_none() {
            if let Some(draft) = self.draft.take_if(|draft| draft.is_proven()) {
                // One line with the whole story, for the one who reads the log at 3 a.m.
                let story = serde_json::to_string(draft.incident()).unwrap_or_default();
                tracing::warn!(engine = self.parts.engine.name, incident = story, "incident closed");
            }
            self.draft = None;
        }
        let draining = *self.parts.draining.borrow();
        if draining {
            // Newcomers are refused; a waiting job is still served.
            standing.weight = 0.0;
        }
        let engine = &self.parts.engine;
        let report = EngineReport {
            name: engine.name.clone(),
            capability: engine.capability,
            url: engine.url.clone(),
            instance: self.instance.key.clone(),
            state: standing.state,
            verdict: verdict.name(),
            class: standing.class,
            weight: standing.weight,
            queue_seconds: rounded(self.parts.lane.queue_seconds(now)),
            recovery_seconds: standing.recovery.map(|recovery| rounded(recovery.as_secs_f64())),
            predictor: self.parts.forward.predictor(),
            restarts: self.repairs.total(),
            repair: self.operator.as_ref().and_then(Operator::request),
            deferred: self.operator.as_ref().and_then(|operator| operator.deferred(now)),
            draining,
            incidents: Vec::new(),
        };
        self.parts.snapshot.publish(standing, report);
    }
}

/// To milliseconds, so that a report does not change with every tick's rounding noise.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
