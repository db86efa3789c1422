//! The acting half of the health loop: restarts, probes and reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use contract::{Class, EngineReport, State};

use crate::guard::heal::actuator::Actuator;
use crate::guard::heal::control::{Event, Health, Probing, clock};
use crate::guard::heal::incident::Draft;
use crate::guard::heal::prober::{Failure, Prober, ShallowFailure};
use crate::guard::heal::traced;
use crate::guard::judge::decide::Decision;
use crate::guard::judge::evidence::Shallow;
use crate::guard::judge::operator::Operator;
use crate::guard::judge::remediation::{Kill, Order, Remediation, Stopped};
use crate::guard::judge::schedule::Due;
use crate::guard::judge::standing::Acting;
use crate::guard::judge::verdict::Verdict;
use crate::guard::path::lane::{Claim, LaneView, Slot};
use crate::guard::path::signatures::Catalogue;
use crate::net::within;

/// A restart without a failed golden probe in this time before it was none that golden probes proved.
const PROOF_WINDOW: Duration = Duration::from_secs(60);
/// How long the answer to a probe is awaited whose deadline has passed; meanwhile it holds its permit.
const LATE_ANSWER: Duration = Duration::from_secs(900);

impl Health {
    /// Does what was decided.
    pub(super) fn act(&mut self, decision: &Decision, lane: &LaneView, now: Instant) {
        if decision.acts(&self.known(lane))
            && let Remediation::Restart(order) | Remediation::Recycle(order) = decision.remediation
        {
            self.restart(order, decision.verdict, now);
        }
        if self.acting == Acting::Idle {
            self.poll_shallow(decision.verdict, now);
            if let Some(due) = decision.probe {
                self.probe(due);
            }
        }
        if decision.jobs != self.parts.lane.jobs() {
            self.parts.lane.set_jobs(decision.jobs);
        }
    }

    /// Carries out a restart that was decided on.
    fn restart(&mut self, order: Order, verdict: Verdict, now: Instant) {
        if let Some(operator) = &mut self.operator {
            operator.restarted(now);
        }
        let recycle = matches!(verdict, Verdict::Worn(_));
        if let Verdict::Worn(class) = verdict {
            self.open_draft(class, now, now);
        }
        let proven = recycle
            || matches!(verdict, Verdict::Gone | Verdict::Unstartable)
            || self.evidence.verified.is_none()
            || self.evidence.failed_within(PROOF_WINDOW, now);
        if !proven {
            self.parts.metrics.unproven_restart();
        }
        self.replace(order, verdict.class(), if recycle { "recycle" } else { "restart" }, now);
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
        self.repairs.restarted(cause, rung == "recycle", now);
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
        let (last_words, events) = (actuator.end_of_log(), self.events.clone());
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
        let instance = self.instance.key.clone();
        let task = tokio::spawn(async move {
            let slot = if due.bypass {
                lane.bypass(Claim::PROBE, clock())
            } else {
                lane.probe_slot(Claim::PROBE).await
            };
            on_its_way.store(true, Ordering::Relaxed);
            if probe(&prober, due, slot, &events).await {
                prober.learn(&instance).await;
            }
        });
        self.probing = Some(Probing { task, sent });
    }

    pub(super) fn stop_probe(&mut self) {
        if let Some(probing) = self.probing.take() {
            probing.task.abort();
        }
    }

    /// Why the engine does not serve, where that is known in words: the driver's wish, or the engine's own text.
    fn says(&self, decision: &Decision) -> Option<String> {
        if decision.remediation == Remediation::Stop(Stopped::Gpu) {
            let wanted = self.parts.gpu.borrow().recovery;
            return Some(format!("the driver wants more than a restart for this GPU: {wanted:?}"));
        }
        if self.evidence.verified.is_none() { self.parts.prober.says() } else { None }
    }

    /// Publishes where the engine stands; the only place that ejects and readmits the lane.
    pub(super) fn publish(&mut self, decision: Decision, lane: &LaneView, now: Instant) {
        let says = self.says(&decision);
        let Decision { mut standing, verdict, .. } = decision;
        self.parts.metrics.lane(lane);
        self.parts.metrics.ejected(standing.weight == 0.0, now);
        self.parts.metrics.budget(self.repairs.tokens(&self.parts.policy.repair, now));
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
                if self.parts.tracer.is_on() {
                    traced::export(&self.parts.tracer, draft.incident());
                }
            }
            self.draft = None;
        }
        let draining = *self.parts.draining.borrow();
        if draining {
            // Newcomers are refused; a waiting job is still served.
            standing.weight = 0.0;
        }
        let engine = &self.parts.engine;
        let about = self.parts.prober.about(&self.instance.key);
        let report = EngineReport {
            name: engine.name.clone(),
            capability: engine.capability,
            url: engine.url.clone(),
            instance: self.instance.key.clone(),
            state: standing.state,
            verdict: verdict.name(),
            class: standing.class,
            says,
            model: about.model,
            profile: about.profile,
            model_cache: self.parts.model_cache.look(self.evidence.verified.is_none()),
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

/// Sends one probe and reports what it showed. One whose deadline has passed is reported as late at once, and holds its
/// permit until the engine has answered it or was replaced: until then the engine is at work on it. What it shows then is
/// reported too, as an engine that answers late does not hang.
///
/// Whether it passed in time.
async fn probe(prober: &Prober, due: Due, mut slot: Slot, events: &mpsc::Sender<Event>) -> bool {
    let sent = prober.turn(due.which);
    let mut attempt = std::pin::pin!(prober.attempt(sent.at, due.which));
    if let Some(result) = within(due.deadline, &mut attempt).await {
        slot.answered();
        let passed = result.is_ok();
        let _ = events.send(Event::Probed(prober.outcome(sent, result))).await;
        return passed;
    }
    slot.lose();
    let _ = events.send(Event::Probed(prober.outcome(sent, Err(Failure::Timeout)))).await;
    let ended = slot.ended();
    let result = tokio::select! {
        result = tokio::time::timeout(LATE_ANSWER, attempt) => result,
        () = ended.cancelled() => return false,
    };
    if let Ok(result) = result {
        slot.answered();
        let _ = events.send(Event::Late(prober.outcome(sent, result))).await;
    }
    false
}

/// To milliseconds, so that a report does not change with every tick's rounding noise.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
