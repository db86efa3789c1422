//! How long work takes: predicted, learned, and what follows for deadlines.

use std::time::{Duration, Instant};

use contract::Capability;

use crate::guard::path::forward::Forward;
use crate::guard::path::forward::work::predictor;
use crate::job::input::InputHash;
use crate::protocol::Task;

impl Forward {
    /// The service-time model of the engine's main work.
    pub fn predictor(&self) -> contract::Predictor {
        let jobs = self.lane.beside();
        self.predictors[predictor(self.main_task())].lock().report(jobs)
    }

    fn main_task(&self) -> Task {
        match self.capability {
            Capability::Stt => Task::Transcribe,
            Capability::Tts => Task::Synthesize,
            Capability::Llm => Task::Chat,
        }
    }

    pub(super) fn predict(&self, task: Task, audio: f64) -> f64 {
        let jobs = self.lane.beside();
        self.predictors[predictor(task)].lock().predict(audio, jobs)
    }

    /// As [`Forward::predict`], and more for an input that once was given up after a time.
    pub(super) fn predict_input(&self, task: Task, audio: f64, input: Option<InputHash>) -> f64 {
        let least = input.and_then(|input| self.cut.lock().least(input)).unwrap_or_default();
        self.predict(task, audio).max(least)
    }

    /// Teaches the predictor by one of so many jobs at a time; returns what a healthy engine would have taken, in seconds.
    pub(super) fn learn(&self, task: Task, audio: f64, service: Duration, jobs: usize, now: Instant) -> f64 {
        let mut predictor = self.predictors[predictor(task)].lock();
        let healthy = predictor.healthy(audio, jobs);
        predictor.learn(audio, service, jobs, now);
        healthy
    }

    /// As a served job, a passed golden probe of so many seconds of audio shows how long work takes: so the first job of a
    /// slow engine is given its time.
    pub fn learn_probe(&self, audio: f64, service: Duration) {
        self.predictors[predictor(self.main_task())].lock().learn_probe(audio, service);
    }

    /// How long the engine may be silent on a job.
    pub(super) fn deadline(&self, task: Task, audio: f64, input: Option<InputHash>) -> Duration {
        let rules = self.rules();
        let predicted = rules.hang.deadline_factor * self.predict_input(task, audio, input);
        Duration::try_from_secs_f64(predicted).unwrap_or(Duration::MAX).max(rules.hang.deadline_floor)
    }
}
