//! Where the health loop publishes what it concludes, for the data path, gateways and people.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use contract::{EngineReport, Incident};

use crate::guard::judge::observation::Standing;

/// Time without a conclusion after which the health loop counts as stalled. It concludes each second.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// Incidents kept.
const INCIDENTS: usize = 50;

/// The published side of a guard.
#[derive(Debug)]
pub struct Snapshot {
    standing: watch::Sender<Standing>,
    report: watch::Sender<EngineReport>,
    incidents: Mutex<VecDeque<Incident>>,
    news: broadcast::Sender<Incident>,
    /// When the health loop last concluded.
    concluded: Mutex<Instant>,
}

impl Snapshot {
    /// A snapshot that shows `standing` and `report` until the first conclusion.
    pub fn new(standing: Standing, report: EngineReport) -> Self {
        let (news, _) = broadcast::channel(INCIDENTS);
        Self {
            standing: watch::Sender::new(standing),
            report: watch::Sender::new(report),
            incidents: Mutex::default(),
            news,
            concluded: Mutex::new(Instant::now()),
        }
    }

    /// Whether the health loop has concluded of late.
    pub fn beats(&self, now: Instant) -> bool {
        now.saturating_duration_since(*self.concluded.lock()) <= MAX_SILENCE
    }

    /// Publishes where the engine stands, if it changed.
    pub fn publish(&self, standing: Standing, report: EngineReport) {
        *self.concluded.lock() = Instant::now();
        self.standing.send_if_modified(|shown| replace(shown, standing));
        self.report.send_if_modified(|shown| replace(shown, report));
    }

    /// Publishes an incident, or its newer form.
    pub fn incident(&self, incident: &Incident) {
        let mut incidents = self.incidents.lock();
        match incidents.iter_mut().find(|kept| kept.id == incident.id) {
            Some(kept) => kept.clone_from(incident),
            None => {
                if incidents.len() == INCIDENTS {
                    incidents.pop_front();
                }
                incidents.push_back(incident.clone());
            }
        }
        // No listener is no error.
        let _ = self.news.send(incident.clone());
    }

    /// Where the engine stands, for the data path.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// The report without incidents, as it changes.
    pub fn reports(&self) -> watch::Receiver<EngineReport> {
        self.report.subscribe()
    }

    /// Incidents so far, and those to come.
    pub fn incidents(&self) -> (Vec<Incident>, broadcast::Receiver<Incident>) {
        let incidents = self.incidents.lock();
        (incidents.iter().cloned().collect(), self.news.subscribe())
    }

    /// The report with all incidents.
    pub fn full_report(&self) -> EngineReport {
        let mut report = self.report.borrow().clone();
        report.incidents = self.incidents.lock().iter().cloned().collect();
        report
    }
}

fn replace<T: PartialEq>(shown: &mut T, new: T) -> bool {
    let changed = *shown != new;
    if changed {
        *shown = new;
    }
    changed
}
