//! How a guard judges and repairs its engine: thresholds, quorums and budgets with their defaults.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

use contract::Class;

use crate::config::Connections;

/// All of a guard's rules.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Golden probes.
    pub probe: Probe,
    /// How many failing probes make a verdict.
    pub confirm: Confirm,
    /// When silence is a hang.
    pub hang: Hang,
    /// The GPU lane.
    pub lane: Lane,
    /// Slow decay.
    pub trend: Trend,
    /// Time for the start.
    pub startup: Startup,
    /// Restarts and their budgets.
    pub repair: Repair,
    /// Bounds of the Retry-After header.
    pub retry_after: RetryAfter,
    /// Limits of the guard's listener and of uploads; the listener's part counts from the next start on.
    pub connections: Connections,
    /// Signatures of this engine beside the built-in ones.
    pub signatures: Vec<SignatureRule>,
}

/// Golden probes: real inferences whose content is checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Period while idle.
    #[serde(with = "duration")]
    pub idle_period: Duration,
    /// Period of the content check under traffic.
    #[serde(with = "duration")]
    pub content_period: Duration,
    /// Least time a probe is given.
    #[serde(with = "duration")]
    pub timeout_min: Duration,
    /// Most time a probe is given when nothing is queued ahead of it.
    #[serde(with = "duration")]
    pub timeout_max: Duration,
    /// Largest accepted word error, 0 to 1.
    pub max_word_error: f64,
    /// The engine's name of the voice to probe with; the first one that it lists in the probe's language when unset.
    pub voice: Option<String>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            idle_period: Duration::from_secs(30),
            content_period: Duration::from_secs(300),
            timeout_min: Duration::from_secs(2),
            timeout_max: Duration::from_secs(10),
            max_word_error: 0.34,
            voice: None,
        }
    }
}

/// `failures` of the last `of` probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// Failing probes that prove a wedge.
    pub failures: u32,
    /// Probes looked at.
    pub of: u32,
}

/// Quorums by the kind of evidence that raised the suspicion.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfirmRules {
    /// Classes A, A' and A''.
    pub sticky: Quorum,
    /// Classes B and R.
    pub ambiguous: Quorum,
    /// Class Q.
    pub quality: Quorum,
    /// Class H.
    pub hang: Quorum,
    /// Class P: no request showed anything.
    pub periodic: Quorum,
}

impl Default for ConfirmRules {
    fn default() -> Self {
        let quorum = |failures, of| Quorum { failures, of };
        Self {
            sticky: quorum(1, 1),
            ambiguous: quorum(2, 3),
            quality: quorum(2, 2),
            hang: quorum(1, 1),
            periodic: quorum(3, 3),
        }
    }
}

/// Quorums and the spacing of the probes that fill them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Confirm {
    /// Quorum by class.
    pub rules: ConfirmRules,
    /// Offset of the first, second, third... probe of a suspicion, seconds; the last step repeats.
    pub spacing_seconds: Vec<f64>,
    /// A suspicion older than this with no quorum is undecided.
    #[serde(with = "duration")]
    pub undecided_after: Duration,
}

impl Default for Confirm {
    fn default() -> Self {
        Self {
            rules: ConfirmRules::default(),
            spacing_seconds: vec![0.0, 1.0, 3.0],
            undecided_after: Duration::from_secs(30),
        }
    }
}

impl Confirm {
    /// The quorum for a class.
    pub fn of(&self, class: Class) -> Quorum {
        match class {
            Class::Sticky | Class::Capture | Class::DeviceLost => self.rules.sticky,
            Class::Ambiguous | Class::Refused | Class::Memory | Class::Xid => self.rules.ambiguous,
            Class::Quality => self.rules.quality,
            Class::Hang => self.rules.hang,
            Class::Periodic | Class::Environment | Class::Trend => self.rules.periodic,
        }
    }

    /// When probe number `nth` (from 0) of a suspicion is due, after its start.
    pub fn spacing(&self, nth: usize) -> Duration {
        let steps = &self.spacing_seconds;
        let seconds = match (steps.get(nth), steps.last()) {
            (Some(seconds), _) => *seconds,
            (None, Some(last)) => {
                let previous = steps.len().checked_sub(2).and_then(|at| steps.get(at)).copied();
                let step = (last - previous.unwrap_or(0.0)).max(1.0);
                last + step * (nth - steps.len() + 1) as f64
            }
            (None, None) => nth as f64,
        };
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
    }
}

/// When jobs in flight without progress count as hung: past
/// `max(floor, predicted_factor * longest job, queue_factor * all jobs)`, at most `cap`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hang {
    /// Least silence.
    #[serde(with = "duration")]
    pub floor: Duration,
    /// Times the longest predicted job in flight.
    pub predicted_factor: f64,
    /// Times the predicted sum of all jobs in flight.
    pub queue_factor: f64,
    /// Most silence.
    #[serde(with = "duration")]
    pub cap: Duration,
    /// Least deadline of one request once it has the lane.
    #[serde(with = "duration")]
    pub deadline_floor: Duration,
    /// Deadline of one request as a multiple of its prediction.
    pub deadline_factor: f64,
}

impl Default for Hang {
    fn default() -> Self {
        Self {
            floor: Duration::from_secs(10),
            predicted_factor: 3.0,
            queue_factor: 1.5,
            cap: Duration::from_secs(900),
            deadline_floor: Duration::from_secs(15),
            deadline_factor: 4.0,
        }
    }
}

/// The GPU lane of one engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lane {
    /// GPU jobs at a time; more than one only for engines that batch by themselves.
    pub jobs: usize,
    /// Jobs that may wait.
    pub max_waiting: usize,
    /// Predicted seconds of work that may wait.
    pub max_wait_seconds: f64,
    /// Uploads under way, which are no work ahead yet.
    pub max_uploads: usize,
    /// Conversations at a time: streams of audio that are transcribed while they arrive, beside the lane.
    pub max_streams: usize,
    /// A predicted wait beyond this is saturation.
    pub saturated_seconds: f64,
    /// First guess of seconds that any job costs.
    pub fixed_seconds: f64,
    /// First guess of seconds for each second of audio.
    pub seconds_per_audio_second: f64,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            jobs: 1,
            max_waiting: 64,
            max_wait_seconds: 120.0,
            max_uploads: 64,
            max_streams: 32,
            saturated_seconds: 5.0,
            fixed_seconds: 0.2,
            seconds_per_audio_second: 0.05,
        }
    }
}

/// Slow decay: service time against the predictor's own baseline.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trend {
    /// Ratio to the baseline that counts as degraded.
    pub degraded_factor: f64,
    /// For how long.
    #[serde(with = "duration")]
    pub degraded_for: Duration,
    /// Ratio to the baseline that earns a drained recycle.
    pub recycle_factor: f64,
    /// For how long.
    #[serde(with = "duration")]
    pub recycle_for: Duration,
    /// Suspicions that cleared, or single faults, within `window` that make an engine degraded.
    pub cleared_suspicions: u32,
    /// Losses of single requests or of memory within `window` that earn a drained recycle.
    pub recycle_after_losses: u32,
    /// The window of the two counts.
    #[serde(with = "duration")]
    pub window: Duration,
}

impl Default for Trend {
    fn default() -> Self {
        Self {
            degraded_factor: 2.5,
            degraded_for: Duration::from_secs(300),
            recycle_factor: 3.0,
            recycle_for: Duration::from_secs(600),
            cleared_suspicions: 3,
            recycle_after_losses: 3,
            window: Duration::from_secs(600),
        }
    }
}

/// How long an engine may take to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Startup {
    /// Longest start before it counts as failed.
    #[serde(with = "duration")]
    pub budget: Duration,
    /// Period of the shallow health checks.
    #[serde(with = "duration")]
    pub poll: Duration,
}

impl Default for Startup {
    fn default() -> Self {
        Self { budget: Duration::from_secs(1200), poll: Duration::from_millis(250) }
    }
}

/// Restarts under budgets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repair {
    /// `false` ejects and reports only.
    pub restart: bool,
    /// `false` reports only: a proven engine goes on serving whatever is concluded of it.
    pub eject: bool,
    /// What may be done while the operator is away.
    pub alone: Alone,
    /// Restarts that may follow each other.
    pub burst: u32,
    /// Time that earns one more.
    #[serde(with = "duration")]
    pub refill: Duration,
    /// Wait before the first, second, third... restart of a row, seconds; the last repeats.
    pub spacing_seconds: Vec<f64>,
    /// Time between SIGTERM and SIGKILL; sticky and hung engines are killed at once.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// Restarts looked at by the futility rule.
    pub futility_of: u32,
    /// Share of them that did not lead to health and so stops further ones.
    pub futility_share: f64,
    /// A restart that has not led to health after this long failed.
    #[serde(with = "duration")]
    pub futility_window: Duration,
    /// Restarts in 24 hours after which repair stops.
    pub max_per_day: u32,
    /// Weight ramp after a restart.
    #[serde(with = "duration")]
    pub probation: Duration,
    /// How long the attempt counter is kept after health.
    #[serde(with = "duration")]
    pub forget: Duration,
    /// Period of probes of an engine that is ejected and must wait.
    #[serde(with = "duration")]
    pub ejected_probe: Duration,
    /// A process alive this long after SIGKILL is stuck.
    #[serde(with = "duration")]
    pub stuck_after: Duration,
    /// How long a poisonous input is refused.
    #[serde(with = "duration")]
    pub poison: Duration,
}

impl Default for Repair {
    fn default() -> Self {
        Self {
            restart: true,
            eject: true,
            alone: Alone::default(),
            burst: 3,
            refill: Duration::from_secs(600),
            spacing_seconds: vec![0.0, 10.0, 30.0, 90.0, 270.0, 600.0],
            grace: Duration::from_secs(1),
            futility_of: 6,
            futility_share: 0.5,
            futility_window: Duration::from_secs(600),
            max_per_day: 5,
            probation: Duration::from_secs(60),
            forget: Duration::from_secs(1800),
            ejected_probe: Duration::from_secs(30),
            stuck_after: Duration::from_secs(30),
            poison: Duration::from_secs(3600),
        }
    }
}

/// When a guard that has an operator restarts without its word: only for class A and after a failed golden probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alone {
    /// The operator is away when it has not been heard, or has not answered, for this long.
    #[serde(with = "duration")]
    pub after: Duration,
    /// Least time between two such restarts.
    #[serde(with = "duration")]
    pub every: Duration,
}

impl Default for Alone {
    fn default() -> Self {
        Self { after: Duration::from_secs(30), every: Duration::from_secs(600) }
    }
}

impl Repair {
    /// Wait before restart number `attempt` (from 0) of a row.
    pub fn spacing(&self, attempt: u32) -> Duration {
        let steps = &self.spacing_seconds;
        let seconds = steps.get(attempt as usize).or_else(|| steps.last()).copied().unwrap_or(0.0);
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
    }
}

/// Bounds of the Retry-After header.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryAfter {
    /// Least seconds.
    #[serde(with = "duration")]
    pub min: Duration,
    /// Most seconds.
    #[serde(with = "duration")]
    pub max: Duration,
    /// Share of the value by which it is spread, so that clients do not return together.
    pub jitter: f64,
}

impl Default for RetryAfter {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(120), jitter: 0.2 }
    }
}

/// A text that, found in an engine's reply, shows a fault of a class.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureRule {
    /// Text to look for, any case.
    pub contains: String,
    /// What it shows.
    pub class: Class,
}
