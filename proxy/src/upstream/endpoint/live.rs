//! What is known of an endpoint, from its guard's stream and from the headers of its replies. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use ::http::HeaderMap;
use tokio::time::Instant;

use contract::{Class, EngineReport, Incident, Predictor, State, header};

use crate::upstream::balance::{Backlog, Candidate, Tier};
use crate::upstream::endpoint::overdue::Overdue;

/// How long a reply's bad news counts before the stream's word does again: the stream brings the same news
/// within milliseconds, or the reply was older than the stream's.
const NEWS_TTL: Duration = Duration::from_secs(1);
/// Incidents remembered of one engine.
const INCIDENTS: usize = 50;

/// What a reply's headers tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct News {
    /// The engine's state.
    pub state: Option<State>,
    /// Predicted seconds of work ahead.
    pub queue_seconds: Option<f64>,
    /// The class of the fault that the reply shows.
    pub class: Option<Class>,
}

impl News {
    /// Reads the headers; what cannot be understood is left out.
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            state: text(header::STATE).and_then(State::parse),
            queue_seconds: text(header::QUEUE_SECONDS).and_then(|seconds| seconds.parse().ok()),
            class: text(header::CLASS).and_then(Class::parse),
        }
    }

    /// The most weight that an engine with such news deserves.
    fn weight(&self) -> f64 {
        let of_state = match self.state {
            Some(state) if state.is_out() => 0.0,
            Some(State::Degraded) => 0.5,
            Some(State::Suspect | State::Unknown | State::Probation) => 0.1,
            Some(_) | None => 1.0,
        };
        match self.class {
            Some(class) if class.is_sticky() => 0.0,
            _ => of_state,
        }
    }
}

/// Everything known. Methods that change it return whether the endpoint has become usable or better.
#[derive(Debug)]
pub(super) struct Live {
    report: Option<(EngineReport, Instant)>,
    predictor: Predictor,
    backlog: Backlog,
    overdue: Overdue,
    streaming: bool,
    refused: bool,
    /// Bad news from a reply, and until when it counts.
    news: Option<(News, Instant)>,
    /// Counts improvements.
    epoch: u64,
    incidents: BTreeMap<String, Incident>,
}

impl Live {
    pub(super) fn new(predictor: Predictor, now: Instant) -> Self {
        Self {
            report: None,
            predictor,
            backlog: Backlog::none(now),
            overdue: Overdue::default(),
            streaming: false,
            refused: false,
            news: None,
            epoch: 0,
            incidents: BTreeMap::new(),
        }
    }

    pub(super) fn report(&mut self, report: EngineReport, now: Instant) -> bool {
        let before = self.candidate(0, now);
        let replaced = self.report.as_ref().is_some_and(|(last, _)| last.instance != report.instance);
        self.backlog.report(report.queue_seconds, now);
        if replaced {
            self.overdue.clear();
        }
        self.predictor = report.predictor;
        self.report = Some((report, now));
        self.streaming = true;
        self.refused = false;
        self.news = None;
        let after = self.candidate(0, now);
        let improved =
            after.weight > 0.0 && (replaced || after.weight > before.weight || after.tier < before.tier);
        self.epoch += u64::from(improved);
        improved
    }

    pub(super) fn incident(&mut self, incident: Incident) {
        self.incidents.insert(incident.id.clone(), incident);
        while self.incidents.len() > INCIDENTS {
            self.incidents.pop_first();
        }
    }

    pub(super) fn news(&mut self, news: News, is_faulty: bool, now: Instant) -> bool {
        if !is_faulty && let Some(seconds) = news.queue_seconds {
            self.backlog.report(seconds, now);
        }
        if news.weight() < self.weight(now) {
            self.news = Some((news, now + NEWS_TTL));
        }
        false
    }

    pub(super) fn lost(&mut self) -> bool {
        self.streaming = false;
        false
    }

    pub(super) fn refuse(&mut self) -> bool {
        self.refused = true;
        false
    }

    pub(super) fn reach(&mut self) -> bool {
        let improved = std::mem::replace(&mut self.refused, false);
        self.epoch += u64::from(improved);
        improved
    }

    pub(super) fn dispatch(&mut self, predicted: f64, now: Instant) {
        self.backlog.dispatch(predicted, now);
    }

    /// Seconds of work ahead of a request that is sent now.
    pub(super) fn queue(&self, now: Instant) -> f64 {
        self.backlog.wait(now)
    }

    pub(super) fn overdue(&mut self, due: Instant, now: Instant) {
        self.overdue.note(due, now);
    }

    pub(super) fn answered(&mut self) {
        self.overdue.clear();
    }

    fn current_news(&self, now: Instant) -> Option<&News> {
        self.news.as_ref().filter(|(_, until)| now < *until).map(|(news, _)| news)
    }

    fn weight(&self, now: Instant) -> f64 {
        if self.refused {
            return 0.0;
        }
        let reported = match &self.report {
            Some((report, _)) if self.streaming => report.weight.clamp(0.0, 1.0),
            // Fail open: the guard still answers for its engine, request by request.
            _ => 1.0,
        };
        self.current_news(now).map_or(reported, |news| news.weight().min(reported))
    }

    pub(super) fn candidate(&self, in_flight: usize, now: Instant) -> Candidate {
        Candidate {
            tier: if self.streaming { Tier::Reported } else { Tier::Unreported },
            standby: false,
            weight: self.weight(now),
            wait: self.backlog.wait(now) + self.overdue.seconds(now),
            in_flight,
        }
    }

    pub(super) fn opens_in(&self, now: Instant) -> Option<f64> {
        if self.weight(now) > 0.0 {
            return Some(self.backlog.wait(now));
        }
        let (report, at) = self.report.as_ref()?;
        let seconds = report.recovery_seconds?;
        Some((seconds - now.saturating_duration_since(*at).as_secs_f64()).max(0.0))
    }

    pub(super) fn is_ready(&self, now: Instant) -> bool {
        let vouched = self.report.as_ref().is_some_and(|(report, _)| report.weight > 0.0);
        vouched && self.weight(now) > 0.0
    }

    /// The state as far as known; `None` when connections are refused, or nothing was ever reported.
    pub(super) fn shown(&self, now: Instant) -> Option<State> {
        if self.refused {
            return None;
        }
        let news = self.current_news(now).and_then(|news| news.state);
        news.or_else(|| self.report.as_ref().map(|(report, _)| report.state))
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn predictor(&self) -> Predictor {
        self.predictor
    }

    pub(super) fn predict(&self, audio_seconds: f64) -> f64 {
        self.predictor.predict(audio_seconds)
    }

    pub(super) fn last_report(&self) -> Option<EngineReport> {
        self.report.as_ref().map(|(report, _)| report.clone())
    }

    pub(super) fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Capability, VerdictName};

    fn report(state: State, weight: f64, queue_seconds: f64) -> EngineReport {
        EngineReport {
            name: "parakeet-0".into(),
            capability: Capability::Stt,
            url: "http://127.0.0.1:1".into(),
            instance: "1".into(),
            state,
            verdict: VerdictName::Serving,
            class: None,
            weight,
            queue_seconds,
            recovery_seconds: Some(30.0),
            predictor: Predictor { fixed: 0.5, per_audio_second: 0.1 },
            restarts: 0,
            repair: None,
            says: None,
            model: None,
            profile: None,
            model_cache: None,
            deferred: None,
            draining: false,
            incidents: Vec::new(),
        }
    }

    fn live(now: Instant) -> Live {
        Live::new(Predictor { fixed: 0.2, per_audio_second: 0.05 }, now)
    }

    #[test]
    fn the_wait_is_the_reported_queue_less_time_plus_what_was_sent_since() {
        let now = Instant::now();
        let mut live = live(now);
        live.report(report(State::Healthy, 1.0, 4.0), now);
        live.dispatch(live.predict(10.0), now + Duration::from_secs(1));
        let wait = |at: u64| live.candidate(0, now + Duration::from_secs(at)).wait;
        assert!((wait(1) - 4.5).abs() < 1e-9);
        assert!((wait(3) - 2.5).abs() < 1e-9);
        assert_eq!(wait(60), 0.0);
    }

    #[test]
    fn a_eject_takes_it_out_and_a_recovery_readmits_it() {
        let now = Instant::now();
        let mut live = live(now);
        assert!(live.report(report(State::Healthy, 1.0, 0.0), now));
        assert!(!live.report(report(State::Ejected, 0.0, 0.0), now));
        assert!(!live.is_ready(now));
        assert_eq!(live.opens_in(now + Duration::from_secs(10)), Some(20.0));
        let epoch = live.epoch();
        assert!(live.report(report(State::Probation, 0.1, 0.0), now));
        assert!(live.report(report(State::Healthy, 1.0, 0.0), now));
        assert!(!live.report(report(State::Saturated, 1.0, 9.0), now));
        assert_eq!(live.epoch(), epoch + 2);
    }

    #[test]
    fn a_replys_bad_news_counts_at_once_and_not_for_long() {
        let now = Instant::now();
        let mut live = live(now);
        live.report(report(State::Healthy, 1.0, 3.0), now);
        let news = News { state: Some(State::Wedged), queue_seconds: Some(0.0), class: None };
        live.news(news, true, now);
        assert_eq!(live.candidate(0, now).weight, 0.0);
        assert_eq!(live.candidate(0, now).wait, 3.0, "an engine that fails fast must not look free");
        assert_eq!(live.shown(now), Some(State::Wedged));
        assert_eq!(live.candidate(0, now + NEWS_TTL).weight, 1.0);
        live.news(News { class: Some(Class::Capture), ..News::default() }, true, now);
        assert_eq!(live.candidate(0, now).weight, 0.0);
        live.report(report(State::Ejected, 0.0, 0.0), now);
        live.news(News { state: Some(State::Healthy), queue_seconds: Some(1.5), class: None }, false, now);
        assert_eq!(live.candidate(0, now).weight, 0.0, "good news comes by the stream alone");
        assert_eq!(live.candidate(0, now).wait, 1.5);
    }

    #[test]
    fn a_lost_stream_fails_open_and_a_refused_connection_does_not() {
        let now = Instant::now();
        let mut live = live(now);
        assert_eq!(live.candidate(0, now).tier, Tier::Unreported);
        assert_eq!(live.candidate(0, now).weight, 1.0);
        assert!(!live.is_ready(now), "nothing has vouched for it yet");
        live.report(report(State::Ejected, 0.0, 0.0), now);
        live.lost();
        assert_eq!(live.candidate(0, now).tier, Tier::Unreported);
        assert_eq!(live.candidate(0, now).weight, 1.0);
        live.refuse();
        assert_eq!(live.candidate(0, now).weight, 0.0);
        assert_eq!(live.shown(now), None);
        assert!(live.reach());
        assert!(!live.reach(), "only the change counts");
        live.refuse();
        assert!(live.report(report(State::Healthy, 1.0, 0.0), now));
        assert_eq!(live.candidate(0, now).weight, 1.0);
    }

    #[test]
    fn incidents_are_updated_by_id_and_the_oldest_forgotten() {
        let mut live = live(Instant::now());
        let incident = |id: usize, restarts| Incident {
            id: format!("{id:04}"),
            engine: "parakeet-0".into(),
            instance: "1".into(),
            started_unix_ms: id as u64,
            class: Class::Sticky,
            signature: None,
            body: None,
            request_hash: None,
            probes: Vec::new(),
            timeline: Vec::new(),
            remediation: None,
            restarts,
            healthy_after_ms: None,
            process: None,
        };
        for id in 0..60 {
            live.incident(incident(id, 0));
        }
        live.incident(incident(59, 1));
        assert_eq!(live.incidents().count(), INCIDENTS);
        assert_eq!(live.incidents().next().unwrap().id, "0010");
        assert_eq!(live.incidents().last().unwrap().restarts, 1);
    }

    #[test]
    fn odd_headers_are_left_out() {
        let mut headers = HeaderMap::new();
        headers.insert(header::STATE, "sleepy".parse().unwrap());
        headers.insert(header::QUEUE_SECONDS, "many".parse().unwrap());
        headers.insert(header::CLASS, "Z".parse().unwrap());
        assert_eq!(News::of(&headers), News::default());
    }
}
